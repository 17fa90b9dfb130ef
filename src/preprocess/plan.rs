//! What is to be done with every frame of one size and format, or with one region of them: made once, followed until they change.
//!
//! A frame is rows of bytes in up to three planes. For each row of the input, the source rows under it are blended
//! into one (this needs no knowledge of what the bytes mean, so packed formats need no conversion), taken apart
//! into samples, resampled along the row, converted to the model's colours and looked up in the pixel table.
//! Only what the input sees is touched, and only the input's own pixels are converted.

use std::ops::Range;

use super::colour::{self, Colour};
use super::placement::{Border, Placement};
use super::resample::Axis;
use super::{
    InputData, InputMapping, InputSpec, InputTensor, InputType, Layout, PixelTable, Region,
};
use crate::frame::PixelFormat;

/// What decides a [`Plan`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Source {
    pub kind: Kind,
    /// Width and height in pixels, not 0.
    pub size: (u32, u32),
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Kind {
    /// Rows as the camera gives them; not MJPEG.
    Raw(PixelFormat),
    /// Planes of a JPEG: each component's horizontal and vertical sampling factor.
    Jpeg {
        components: usize,
        sampling: [(u8, u8); 3],
    },
}

/// Rows of one plane.
#[derive(Debug)]
pub(super) struct Pass {
    /// Which of the source's planes.
    pub plane: usize,
    y: Axis,
    /// Bytes of a row that are read.
    bytes: Range<usize>,
    components: Vec<Component>,
}

#[derive(Debug)]
struct Component {
    /// Which of the colour's channels.
    channel: usize,
    /// Byte of the first sample that is read, from the pass's first byte.
    first: usize,
    /// Bytes from one sample to the next.
    step: usize,
    /// The first sample that is read, and how many.
    from: usize,
    count: usize,
    x: Axis,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Plan {
    pub source: Source,
    /// What of the frame is the picture.
    pub region: Region,
    pub placement: Placement,
    /// Samples for 8 of the JPEG's: 8, 4, 2 or 1.
    pub jpeg_scale: usize,
    pub passes: Vec<Pass>,
    colour: Colour,
    columns: Range<usize>,
    rows: Range<usize>,
    /// A source row blended; the samples of one component.
    blended: Vec<u8>,
    samples: Vec<u8>,
    /// One input row of each channel.
    channels: [Vec<u8>; 3],
}

/// One component of a plane, before the axes are known.
pub(super) struct Samples {
    pub channel: usize,
    pub first: usize,
    pub step: usize,
    pub extent: f64,
}

impl Plan {
    /// `region` lies in the frame.
    pub fn new(spec: &InputSpec, source: Source, region: Region) -> Self {
        let placement = Placement::new(spec, (region.width, region.height));
        let (columns, first_column) = placement.columns();
        let (rows, first_row) = placement.rows();
        let jpeg_scale = match source.kind {
            Kind::Raw(_) => 8,
            Kind::Jpeg { .. } => jpeg_scale(placement.reduction()),
        };
        let colour = colour::of(source.kind, spec.colour);
        let mut passes = Vec::new();
        let (across, down) = (region.columns(source.size), region.rows(source.size));
        for (plane, height, components) in planes(source, jpeg_scale) {
            let y = Axis::new(down(height), placement.resized.1, first_row, rows.len());
            let components: Vec<_> = components
                .into_iter()
                .filter(|c| c.channel < colour.source_channels())
                .map(|c| {
                    let (resized, n) = (placement.resized.0, columns.len());
                    let x = Axis::new(across(c.extent), resized, first_column, n);
                    (c, x)
                })
                .collect();
            let start = components
                .iter()
                .map(|(c, x)| c.first + c.step * x.span().start)
                .min();
            let end = components
                .iter()
                .map(|(c, x)| c.first + c.step * (x.span().end.max(1) - 1) + 1)
                .max();
            let (Some(start), Some(end)) = (start, end) else {
                continue;
            };
            passes.push(Pass {
                plane,
                y,
                bytes: start..end,
                components: components
                    .into_iter()
                    .map(|(c, x)| Component {
                        channel: c.channel,
                        first: c.first + c.step * x.span().start - start,
                        step: c.step,
                        from: x.span().start,
                        count: x.span().len(),
                        x,
                    })
                    .collect(),
            });
        }
        let blended = passes.iter().map(|p| p.bytes.len()).max().unwrap_or(0);
        let all = || passes.iter().flat_map(|p| &p.components);
        let samples = all().map(|c| c.count + c.x.padding()).max().unwrap_or(0);
        Self {
            source,
            region,
            placement,
            jpeg_scale,
            colour,
            channels: std::array::from_fn(|_| vec![0; columns.len()]),
            columns,
            rows,
            blended: vec![0; blended],
            samples: vec![0; samples],
            passes,
        }
    }

    /// Where the input lies in the whole frame.
    pub fn mapping(&self) -> InputMapping {
        let of_region = self.placement.mapping();
        let (sx, sy) = of_region.scale;
        let (ox, oy) = of_region.offset;
        InputMapping {
            frame: self.source.size,
            scale: (sx, sy),
            offset: (
                ox - self.region.x as f32 * sx,
                oy - self.region.y as f32 * sy,
            ),
        }
    }

    /// `planes`: bytes and stride. They hold all that [`Pass::bytes_needed`] says.
    pub fn render(
        &mut self,
        planes: &[(&[u8], usize)],
        spec: &InputSpec,
        table: &PixelTable,
        out: &mut InputTensor,
    ) {
        for y in 0..spec.height as usize {
            let covered = self.rows.contains(&y);
            if covered {
                self.render_row(y - self.rows.start, planes);
            }
            let columns = if covered { self.columns.clone() } else { 0..0 };
            let row = Row {
                y,
                columns,
                border: self.placement.border,
                channels: &self.channels,
                order: colour::order(spec.colour),
            };
            match (table, &mut out.data) {
                (PixelTable::F32(table), InputData::F32(out)) => row.write(spec, table, 0.0, out),
                (PixelTable::U8(table), InputData::U8(out)) => {
                    let zero = match spec.dtype {
                        InputType::U8 { zero_point, .. } => zero_point,
                        _ => 0,
                    };
                    row.write(spec, table, zero, out);
                }
                (PixelTable::I8(table), InputData::I8(out)) => {
                    let zero = match spec.dtype {
                        InputType::I8 { zero_point, .. } => zero_point,
                        _ => 0,
                    };
                    row.write(spec, table, zero, out);
                }
                // The preprocessor has compared the tensor with the spec.
                _ => {}
            }
        }
    }

    fn render_row(&mut self, i: usize, planes: &[(&[u8], usize)]) {
        for pass in &self.passes {
            let (data, stride) = planes[pass.plane];
            let blended = &mut self.blended[..pass.bytes.len()];
            pass.y.blend(i, data, stride, pass.bytes.start, blended);
            for c in &pass.components {
                let samples = &mut self.samples[..c.count + c.x.padding()];
                let (taken, padding) = samples.split_at_mut(c.count);
                take_samples(&blended[c.first..], c.step, taken);
                padding.fill(0);
                c.x.resample(samples, c.from, &mut self.channels[c.channel]);
            }
        }
        self.colour.convert(&mut self.channels);
    }
}

impl Pass {
    /// The rows and the bytes of each row that [`Plan::render`] reads of this plane.
    pub fn needs(&self) -> (Range<usize>, Range<usize>) {
        (self.y.span(), self.bytes.clone())
    }
}

/// One row of the input, on its way into the tensor.
struct Row<'a> {
    y: usize,
    /// The columns that the frame covers; `border` elsewhere.
    columns: Range<usize>,
    border: Border,
    channels: &'a [Vec<u8>; 3],
    /// Channel of the source for each of the model's.
    order: &'static [usize],
}

impl Row<'_> {
    /// `zero` is the tensor's.
    fn write<T: Copy>(&self, spec: &InputSpec, table: &[[T; 256]; 3], zero: T, out: &mut [T]) {
        let (width, n) = (spec.width as usize, self.order.len());
        let fill = |c: usize| match self.border {
            Border::Pixel(value) => table[c][usize::from(value)],
            Border::Zero => zero,
        };
        match (spec.layout, self.order) {
            (Layout::Nchw, order) => {
                let plane = width * spec.height as usize;
                for (c, channel) in order.iter().enumerate() {
                    let row = &mut out[c * plane + self.y * width..][..width];
                    self.write_pixels(row, [fill(c)], [&table[c]], [*channel]);
                }
            }
            (Layout::Nhwc, order) => {
                let row = &mut out[self.y * width * n..][..width * n];
                let tables = table.each_ref();
                match *order {
                    [r, g, b] => {
                        let fill = [fill(0), fill(1), fill(2)];
                        self.write_pixels(row, fill, tables, [r, g, b]);
                    }
                    _ => self.write_pixels(row, [fill(0)], [tables[0]], [order[0]]),
                }
            }
        }
    }

    /// `N` elements a pixel.
    fn write_pixels<const N: usize, T: Copy>(
        &self,
        row: &mut [T],
        fill: [T; N],
        tables: [&[T; 256]; N],
        channels: [usize; N],
    ) {
        let pixels = row.as_chunks_mut::<N>().0;
        let Range { start, end } = self.columns;
        pixels[..start].fill(fill);
        pixels[end..].fill(fill);
        let pixels = &mut pixels[start..end];
        let channels = channels.map(|c| &self.channels[c][..pixels.len()]);
        for (x, pixel) in pixels.iter_mut().enumerate() {
            *pixel = std::array::from_fn(|c| tables[c][usize::from(channels[c][x])]);
        }
    }
}

fn take_samples(bytes: &[u8], step: usize, out: &mut [u8]) {
    fn every<const STEP: usize>(bytes: &[u8], out: &mut [u8]) {
        let (last, most) = match out.split_last_mut() {
            Some(split) => split,
            None => return,
        };
        for (o, b) in most.iter_mut().zip(bytes.as_chunks::<STEP>().0) {
            *o = b[0];
        }
        *last = bytes[most.len() * STEP];
    }
    match step {
        1 => out.copy_from_slice(&bytes[..out.len()]),
        2 => every::<2>(bytes, out),
        3 => every::<3>(bytes, out),
        _ => every::<4>(bytes, out),
    }
}

/// The smallest JPEG scale that still leaves at least the resized picture's resolution.
fn jpeg_scale(reduction: f64) -> usize {
    match reduction {
        r if r >= 8.0 => 1,
        r if r >= 4.0 => 2,
        r if r >= 2.0 => 4,
        _ => 8,
    }
}

/// Plane, height in samples and the components of its rows.
pub(super) fn planes(source: Source, jpeg_scale: usize) -> Vec<(usize, f64, Vec<Samples>)> {
    let (w, h) = (f64::from(source.size.0), f64::from(source.size.1));
    let at = |channel, first, step, extent| Samples {
        channel,
        first,
        step,
        extent,
    };
    match source.kind {
        Kind::Raw(PixelFormat::Yuyv) => vec![(
            0,
            h,
            vec![at(0, 0, 2, w), at(1, 1, 4, w / 2.0), at(2, 3, 4, w / 2.0)],
        )],
        Kind::Raw(PixelFormat::Uyvy) => vec![(
            0,
            h,
            vec![at(0, 1, 2, w), at(1, 0, 4, w / 2.0), at(2, 2, 4, w / 2.0)],
        )],
        Kind::Raw(PixelFormat::Nv12) => vec![
            (0, h, vec![at(0, 0, 1, w)]),
            (1, h / 2.0, vec![at(1, 0, 2, w / 2.0), at(2, 1, 2, w / 2.0)]),
        ],
        Kind::Raw(PixelFormat::Yu12) => vec![
            (0, h, vec![at(0, 0, 1, w)]),
            (1, h / 2.0, vec![at(1, 0, 1, w / 2.0)]),
            (2, h / 2.0, vec![at(2, 0, 1, w / 2.0)]),
        ],
        Kind::Raw(PixelFormat::Bgr24) => {
            vec![(0, h, vec![at(2, 0, 3, w), at(1, 1, 3, w), at(0, 2, 3, w)])]
        }
        Kind::Raw(PixelFormat::Grey) => vec![(0, h, vec![at(0, 0, 1, w)])],
        Kind::Raw(PixelFormat::Rgb24 | PixelFormat::Mjpeg) => {
            vec![(0, h, vec![at(0, 0, 3, w), at(1, 1, 3, w), at(2, 2, 3, w)])]
        }
        Kind::Jpeg {
            components,
            sampling,
        } => {
            let sampling = &sampling[..components];
            let most_h = sampling.iter().map(|s| s.0).max().unwrap_or(1);
            let most_v = sampling.iter().map(|s| s.1).max().unwrap_or(1);
            let part = jpeg_scale as f64 / 8.0;
            sampling
                .iter()
                .enumerate()
                .map(|(c, &(sh, sv))| {
                    let extent = w * f64::from(sh) / f64::from(most_h) * part;
                    let height = h * f64::from(sv) / f64::from(most_v) * part;
                    (c, height, vec![at(c, 0, 1, extent)])
                })
                .collect()
        }
    }
}
