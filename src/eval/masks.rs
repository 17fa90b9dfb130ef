//! Class maps that people drew, and how well a model's agree: intersection over union, and the share of right pixels.
//!
//! In: PNG files whose pixels are class numbers (grey, or the palette's indices), class maps of a model. Out: [`Agreement`]. On the main
//! thread. Always holds: a pixel that the drawing leaves open counts for nothing.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use anyhow::Context;

use crate::preprocess::MAX_PIXELS;

/// A class number for each pixel, row by row.
#[derive(Debug, Clone, PartialEq)]
pub struct Drawing {
    /// Width and height.
    pub size: (u32, u32),
    /// Row by row.
    pub classes: Vec<u16>,
}

/// Reads a PNG of class numbers.
///
/// # Errors
/// It is none, or has colours.
pub fn read(path: &Path) -> anyhow::Result<Drawing> {
    let file = File::open(path).context("cannot be read")?;
    let mut decoder = png::Decoder::new(BufReader::new(file));
    decoder.set_transformations(png::Transformations::IDENTITY);
    let mut reader = decoder.read_info().context("is no PNG")?;
    let (width, height) = (reader.info().width, reader.info().height);
    let (colours, depth) = reader.output_color_type();
    anyhow::ensure!(
        matches!(colours, png::ColorType::Grayscale | png::ColorType::Indexed),
        "it is {colours:?}: class numbers are wanted, as grey or palette"
    );
    anyhow::ensure!(
        u64::from(width) * u64::from(height) <= MAX_PIXELS,
        "{width}x{height}: more than 64 megapixels"
    );
    let size = reader.output_buffer_size().context("it is too large")?;
    let mut bytes = vec![0; size];
    let frame = reader.next_frame(&mut bytes).context("is no PNG")?;
    let mut classes = Vec::with_capacity(width as usize * height as usize);
    for row in bytes.chunks(frame.line_size).take(height as usize) {
        let own = row.iter();
        match depth {
            png::BitDepth::Sixteen => {
                let (pairs, _) = row.as_chunks();
                classes.extend(pairs.iter().map(|b| u16::from_be_bytes(*b)));
            }
            png::BitDepth::Eight => classes.extend(own.map(|b| u16::from(*b))),
            packed => {
                let bits = packed as u8;
                let mask = (1u16 << bits) - 1;
                let each = own.flat_map(|b| {
                    let places = (0..8 / bits).rev();
                    places.map(move |i| u16::from(*b) >> (i * bits) & mask)
                });
                classes.extend(each.take(width as usize));
            }
        }
    }
    Ok(Drawing {
        size: (width, height),
        classes,
    })
}

/// Counts of pixels, of all images so far.
#[derive(Debug, Clone)]
pub struct Agreement {
    void: u16,
    classes: Vec<ClassPixels>,
}

/// One class's pixels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ClassPixels {
    /// In the drawings.
    pub drawn: u64,
    /// In the model's maps, where the drawing is not open.
    pub found: u64,
    /// In both.
    pub both: u64,
}

impl ClassPixels {
    /// Intersection over union; `None` if it is nowhere.
    pub fn iou(&self) -> Option<f64> {
        let either = self.drawn + self.found - self.both;
        (either > 0).then(|| self.both as f64 / either as f64)
    }
}

impl Agreement {
    /// Nothing yet. Pixels of the number `void` are open.
    pub fn new(classes: usize, void: u16) -> Self {
        Self {
            void,
            classes: vec![ClassPixels::default(); classes],
        }
    }

    /// Counts one image.
    ///
    /// # Errors
    /// The drawing has another size, or a number that is no class.
    pub fn add(
        &mut self,
        drawing: &Drawing,
        size: (u32, u32),
        found: &[Option<usize>],
    ) -> anyhow::Result<()> {
        anyhow::ensure!(
            drawing.size == size,
            "{}x{} pixels are drawn, the image has {}x{}",
            drawing.size.0,
            drawing.size.1,
            size.0,
            size.1
        );
        let classes = self.classes.len();
        let unknown = drawing
            .classes
            .iter()
            .find(|c| **c != self.void && usize::from(**c) >= classes);
        if let Some(unknown) = unknown {
            anyhow::bail!(
                "class {unknown} is none of the model's {classes}; numbers that are open are named by --void"
            );
        }
        for (drawn, found) in drawing.classes.iter().zip(found) {
            if *drawn == self.void {
                continue;
            }
            let drawn = usize::from(*drawn);
            self.classes[drawn].drawn += 1;
            if let Some(found) = found {
                if *found >= self.classes.len() {
                    continue;
                }
                self.classes[*found].found += 1;
                self.classes[drawn].both += u64::from(*found == drawn);
            }
        }
        Ok(())
    }

    /// By class.
    pub fn classes(&self) -> &[ClassPixels] {
        &self.classes
    }

    /// The mean of the classes that are somewhere; `None` if nothing was drawn.
    pub fn mean_iou(&self) -> Option<f64> {
        let known: Vec<f64> = self.classes.iter().filter_map(ClassPixels::iou).collect();
        (!known.is_empty()).then(|| known.iter().sum::<f64>() / known.len() as f64)
    }

    /// The share of pixels that have the right class; `None` if nothing was drawn.
    pub fn pixel_accuracy(&self) -> Option<f64> {
        let sum = |of: fn(&ClassPixels) -> u64| self.classes.iter().map(of).sum::<u64>();
        let drawn = sum(|c| c.drawn);
        (drawn > 0).then(|| sum(|c| c.both) as f64 / drawn as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_depth_and_palettes_are_numbers() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mask.png");
        let write = |colour, depth, data: &[u8]| {
            let mut encoder = png::Encoder::new(File::create(&path).unwrap(), 3, 2);
            encoder.set_color(colour);
            encoder.set_depth(depth);
            if colour == png::ColorType::Indexed {
                encoder.set_palette(vec![0; 48]);
            }
            encoder
                .write_header()
                .unwrap()
                .write_image_data(data)
                .unwrap();
            read(&path)
        };
        use png::{BitDepth, ColorType};
        for (colour, depth, data, classes) in [
            (
                ColorType::Indexed,
                BitDepth::Eight,
                &[0u8, 1, 15, 3, 4, 5][..],
                [0u16, 1, 15, 3, 4, 5],
            ),
            (
                ColorType::Grayscale,
                BitDepth::One,
                &[0b1010_0000, 0b0110_0000],
                [1, 0, 1, 0, 1, 1],
            ),
            (
                ColorType::Indexed,
                BitDepth::Two,
                &[0b0001_1000, 0b1101_0000],
                [0, 1, 2, 3, 1, 0],
            ),
            (
                ColorType::Grayscale,
                BitDepth::Four,
                &[0x1f, 0x20, 0x34, 0x50],
                [1, 15, 2, 3, 4, 5],
            ),
            (
                ColorType::Grayscale,
                BitDepth::Sixteen,
                &[1, 0, 0, 1, 0, 2, 0, 3, 0, 4, 0, 5],
                [256, 1, 2, 3, 4, 5],
            ),
        ] {
            let drawing = write(colour, depth, data).unwrap();
            assert_eq!(
                (drawing.size, drawing.classes.as_slice()),
                ((3, 2), &classes[..]),
                "{colour:?} {depth:?}"
            );
        }
        let problem = write(ColorType::Rgb, BitDepth::Eight, &[0; 18]).unwrap_err();
        assert!(
            problem.to_string().contains("class numbers are wanted"),
            "{problem}"
        );
    }

    #[test]
    fn open_pixels_count_for_nothing_and_unseen_ones_are_wrong() {
        let mut agreement = Agreement::new(3, 255);
        let drawing = Drawing {
            size: (6, 1),
            classes: vec![0, 0, 1, 1, 255, 1],
        };
        let found = [Some(0), Some(1), Some(1), Some(1), Some(2), None];
        agreement.add(&drawing, (6, 1), &found).unwrap();
        let ious: Vec<_> = agreement.classes().iter().map(ClassPixels::iou).collect();
        assert_eq!(ious, [Some(0.5), Some(0.5), None]);
        assert_eq!(agreement.mean_iou(), Some(0.5));
        assert_eq!(agreement.pixel_accuracy(), Some(0.6));
        let e = agreement
            .add(&drawing, (3, 2), &found)
            .unwrap_err()
            .to_string();
        assert!(e.contains("6x1 pixels are drawn, the image has 3x2"), "{e}");
        let wrong = Drawing {
            size: (1, 1),
            classes: vec![3],
        };
        let e = agreement
            .add(&wrong, (1, 1), &[None])
            .unwrap_err()
            .to_string();
        assert!(e.contains("class 3 is none of the model's 3"), "{e}");
    }
}
