//! A frame with what was found in it drawn → a JPEG.
//!
//! In: a frame in any pixel format; its detections, or its segmentation. Out: a baseline JPEG of the frame's size. On the main thread.

use anyhow::Context;
use font8x8::{BASIC_FONTS, LATIN_FONTS, UnicodeFonts};
use image::codecs::jpeg::JpegEncoder;
use image::{Rgb, RgbImage};

use crate::frame::Frame;
use crate::preprocess::{InputData, InputSpec, InputTensor, Preprocessor, frame_size};
use crate::task::{Detection, Segmentation};

/// JPEG quality.
const QUALITY: u8 = 90;
/// Colours that can be told from each other, and from most pictures; a class always has the same.
const COLOURS: [[u8; 3]; 8] = [
    [230, 25, 75],
    [60, 180, 75],
    [0, 130, 200],
    [245, 130, 48],
    [145, 30, 180],
    [0, 128, 128],
    [170, 110, 40],
    [128, 0, 0],
];
/// Pixels of a glyph's side.
const GLYPH: u32 = 8;

/// Boxes with labels, the best on top. `captions`: what else is to be said of each, where there is something.
pub(super) fn boxes(
    frame: &Frame,
    detections: &[Detection],
    captions: &[Option<String>],
) -> anyhow::Result<Vec<u8>> {
    let mut picture = pixels(frame)?;
    for (nth, d) in detections.iter().enumerate().rev() {
        let caption = captions.get(nth).and_then(Option::as_deref);
        draw(&mut picture, d, caption);
    }
    jpeg(&picture)
}

/// Each class's pixels in its colour, over the picture; what is labelled as background stays as it is. The segments' masks are read.
pub(super) fn areas(frame: &Frame, s: &Segmentation) -> anyhow::Result<Vec<u8>> {
    let mut picture = pixels(frame)?;
    let classes = s.classes();
    let is_background = |l: &str| l.trim_matches('_').eq_ignore_ascii_case("background");
    let background = s.segments.iter().find(|s| is_background(&s.label));
    let background = background.map(|s| s.index);
    let ([x0, y0, x1, y1], (width, height)) = (s.covers, picture.dimensions());
    // The map's pixel that the middle of a frame's lies in.
    let place = |at: u32, side: u32, from: f32, to: f32, map: u32| {
        let share = ((at as f32 + 0.5) / side as f32 - from) / (to - from);
        let pixel = (share * map as f32).floor();
        (pixel >= 0.0 && pixel < map as f32).then_some(pixel as usize)
    };
    let columns: Vec<_> = (0..width)
        .map(|x| place(x, width, x0, x1, s.size.0))
        .collect();
    for y in 0..height {
        let Some(row) = place(y, height, y0, y1, s.size.1) else {
            continue;
        };
        for (x, column) in (0..width).zip(&columns) {
            let class = column.and_then(|c| classes[row * s.size.0 as usize + c]);
            if let Some(class) = class.filter(|c| Some(*c) != background) {
                let colour = COLOURS[class % COLOURS.len()];
                let pixel = &mut picture.get_pixel_mut(x, y).0;
                for (p, c) in pixel.iter_mut().zip(colour) {
                    *p = ((u16::from(*p) + u16::from(c)) / 2) as u8;
                }
            }
        }
    }
    jpeg(&picture)
}

fn pixels(frame: &Frame) -> anyhow::Result<RgbImage> {
    let (width, height) = frame_size(frame)?;
    let spec = InputSpec::rgb(width, height);
    let mut pixels = InputTensor::for_spec(&spec);
    Preprocessor::new(spec).run(frame, &mut pixels)?;
    let rgb = match pixels.data {
        InputData::U8(rgb) => RgbImage::from_raw(width, height, rgb),
        _ => None,
    };
    rgb.context("no pixels")
}

fn jpeg(picture: &RgbImage) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, QUALITY).encode_image(picture)?;
    Ok(bytes)
}

fn draw(picture: &mut RgbImage, d: &Detection, caption: Option<&str>) {
    let (width, height) = picture.dimensions();
    // Lines and letters grow with the picture: 2 pixels of 640.
    let line = (width.max(height) / 320).max(1);
    let scale = (width.max(height) / 640).max(1);
    let colour = Rgb(COLOURS[d.index % COLOURS.len()]);
    let px = |share: f32, side: u32| (share * side as f32).round() as u32;
    let [x0, y0, x1, y1] = d.bbox.corners();
    let (x0, x1) = (px(x0, width), px(x1, width));
    let (y0, y1) = (px(y0, height), px(y1, height));
    fill(picture, (x0, y0), (x1, y0 + line), colour);
    fill(picture, (x0, y1.saturating_sub(line)), (x1, y1), colour);
    fill(picture, (x0, y0), (x0 + line, y1), colour);
    fill(picture, (x1.saturating_sub(line), y0), (x1, y1), colour);

    let mut text = format!("{} {:.0}%", d.label, 100.0 * d.score);
    if let Some(caption) = caption {
        text = format!("{text}: {caption}");
    }
    let letters = text.chars().count() as u32;
    let (w, h) = ((letters * GLYPH + 4) * scale, (GLYPH + 4) * scale);
    // Above the box, or in it where there is no room above.
    let top = if y0 >= h { y0 - h } else { y0 };
    let left = x0.min(width.saturating_sub(w));
    fill(picture, (left, top), (left + w, top + h), colour);
    for (i, c) in text.chars().enumerate() {
        let at = (left + (2 + i as u32 * GLYPH) * scale, top + 2 * scale);
        letter(picture, c, at, scale);
    }
}

fn letter(picture: &mut RgbImage, c: char, (x, y): (u32, u32), scale: u32) {
    let glyph = [c, '?']
        .into_iter()
        .find_map(|c| BASIC_FONTS.get(c).or_else(|| LATIN_FONTS.get(c)));
    for (row, bits) in (0..).zip(glyph.unwrap_or_default()) {
        for column in (0..GLYPH).filter(|c| bits >> c & 1 == 1) {
            let at = (x + column * scale, y + row * scale);
            fill(picture, at, (at.0 + scale, at.1 + scale), Rgb([255; 3]));
        }
    }
}

/// A rectangle, cut at the picture's edges.
fn fill(picture: &mut RgbImage, from: (u32, u32), to: (u32, u32), colour: Rgb<u8>) {
    let (width, height) = picture.dimensions();
    for y in from.1..to.1.min(height) {
        for x in from.0..to.0.min(width) {
            picture.put_pixel(x, y, colour);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{FrameMeta, FramePool, Geometry, PixelFormat};
    use crate::task::segment::Rle;
    use crate::task::{BBox, Segment};

    fn frame(width: u32, height: u32) -> Frame {
        let mut data = FramePool::new(0).take();
        data.resize((width * height * 3) as usize, 100);
        Frame {
            format: PixelFormat::Rgb24,
            geometry: Geometry::packed(width, height, PixelFormat::Rgb24),
            data,
            meta: FrameMeta::of_still("x"),
            mask: None,
        }
    }

    fn detection(label: &str, [x0, y0, x1, y1]: [f32; 4]) -> Detection {
        Detection {
            label: label.into(),
            index: 1,
            score: 0.875,
            bbox: BBox { x0, y0, x1, y1 },
        }
    }

    #[test]
    fn a_box_is_drawn_where_it_is() {
        let found = [detection("cat", [0.25, 0.5, 0.75, 1.0])];
        let jpeg = boxes(&frame(320, 240), &found, &[]).unwrap();
        let picture = image::load_from_memory(&jpeg).unwrap().into_rgb8();
        assert_eq!(picture.dimensions(), (320, 240));
        let near = |x, y, c: [u8; 3]| {
            let p = picture.get_pixel(x, y).0;
            p.iter().zip(c).all(|(a, b)| a.abs_diff(b) < 60)
        };
        // The middle of the lower edge, inside, outside, the label's ground.
        assert!(
            near(160, 239, COLOURS[1]),
            "{:?}",
            picture.get_pixel(160, 239)
        );
        assert!(near(160, 180, [100; 3]) && near(40, 200, [100; 3]));
        let label = (80..160).flat_map(|x| (108..120).map(move |y| (x, y)));
        let letters = label.filter(|(x, y)| near(*x, *y, [255; 3])).count();
        assert!((20..400).contains(&letters), "{letters}");
    }

    #[test]
    fn nothing_is_too_small_or_too_long() {
        let found = [
            detection(&"ä€".repeat(200), [0.0, 0.0, 1.0, 1.0]),
            detection("", [0.999, 0.999, 1.0, 1.0]),
        ];
        for (w, h) in [(1, 1), (3, 200), (1000, 2)] {
            assert!(boxes(&frame(w, h), &found, &[Some("x".repeat(300))]).is_ok());
        }
    }

    #[test]
    fn a_class_is_coloured_and_the_background_is_not() {
        let segment = |label: &str, index, counts: &[u32]| Segment {
            label: label.into(),
            index,
            area: 0.5,
            rle: Some(Rle {
                size: [1, 2],
                counts: counts.into(),
            }),
            polygons: None,
        };
        // The map is the frame's right half: background, then a cat.
        let s = Segmentation {
            size: (2, 1),
            covers: [0.5, 0.0, 1.0, 1.0],
            segments: vec![
                segment("__background__", 0, &[0, 1, 1]),
                segment("cat", 1, &[1, 1]),
            ],
        };
        let jpeg = areas(&frame(320, 240), &s).unwrap();
        let picture = image::load_from_memory(&jpeg).unwrap().into_rgb8();
        let near = |x, c: [u8; 3]| {
            let p = picture.get_pixel(x, 120).0;
            p.iter().zip(c).all(|(a, b)| a.abs_diff(b) < 20)
        };
        let coloured = COLOURS[1].map(|c| ((u16::from(c) + 100) / 2) as u8);
        assert!(near(80, [100; 3]) && near(200, [100; 3]) && near(280, coloured));
    }
}
