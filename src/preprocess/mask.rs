//! Privacy masks in a frame's bytes and in a decoded picture: black, before anybody reads them.
//!
//! Raw frames lose the masked pixels where they lie ([`apply_mask`]). An MJPEG frame carries its mask along, and
//! [`Preprocessor`](super::Preprocessor), the only reader of such bytes, blackens what the decoder made. Always holds: nothing that is
//! computed from a masked frame depends on a masked pixel. So whatever a masked pixel has gone into is black too: chroma that it
//! shares with its neighbours, and in a JPEG the whole block of 8×8 samples, since a transform spreads each over all.

use std::sync::Arc;

use super::plan::{self, Kind, Source};
use super::{colour, raw};
use crate::frame::{Frame, Mask, PixelFormat};

/// Makes the frame's masked pixels unreadable. A raw frame whose bytes and size do not belong together loses all its bytes.
pub fn apply_mask(frame: &mut Frame, mask: &Arc<Mask>) {
    if frame.format == PixelFormat::Mjpeg {
        frame.mask = Some(mask.clone());
        return;
    }
    let Ok(layout) = raw::layout(frame) else {
        frame.data.clear();
        return;
    };
    let source = Source {
        kind: Kind::Raw(frame.format),
        size: (frame.geometry.width, frame.geometry.height),
    };
    let mut rest = &mut frame.data[..];
    let planes = layout.map(|(bytes, stride)| {
        let (plane, behind) = std::mem::take(&mut rest).split_at_mut(bytes);
        rest = behind;
        (plane, stride)
    });
    blacken(planes, source, 8, mask);
}

/// Blackens the planes of a raw frame, or those of a JPEG that was decoded to `jpeg_scale` samples for 8.
pub(super) fn blacken(
    mut planes: [(&mut [u8], usize); 3],
    source: Source,
    jpeg_scale: usize,
    mask: &Mask,
) {
    // Samples of a cell's side.
    let side = match source.kind {
        Kind::Raw(_) => 1,
        Kind::Jpeg { .. } => jpeg_scale,
    };
    for (plane, height, components) in plan::planes(source, jpeg_scale) {
        let (data, stride) = &mut planes[plane];
        for c in components {
            let cells = mask.cells(c.extent / side as f64, height / side as f64);
            let black = colour::black(source.kind, c.channel);
            for (row, spans) in cells.rows().enumerate() {
                for span in spans {
                    for y in row * side..(row + 1) * side {
                        let first = y * *stride + c.first + c.step * span.start * side;
                        let samples = span.len() * side;
                        let bytes = data.get_mut(first..).unwrap_or_default();
                        fill(bytes, c.step, samples, black);
                    }
                }
            }
        }
    }
}

/// A picture that was decoded whole, by a decoder that blends the chroma of neighbouring MCUs. `most` are the largest
/// sampling factors.
pub(super) fn blacken_whole(
    data: &mut [u8],
    channels: usize,
    size: (u32, u32),
    most: (usize, usize),
    mask: &Mask,
) {
    let (width, height) = (size.0 as usize, size.1 as usize);
    let (across, down) = (8 * most.0, 8 * most.1);
    let cells = mask.cells(width as f64 / across as f64, height as f64 / down as f64);
    for (row, spans) in cells.rows().enumerate() {
        let rows = (row * down).saturating_sub(most.1)..((row + 1) * down + most.1).min(height);
        for span in spans {
            let columns = (span.start * across).saturating_sub(most.0)
                ..(span.end * across + most.0).min(width);
            for y in rows.clone() {
                let first = (y * width + columns.start) * channels;
                data[first..first + columns.len() * channels].fill(0);
            }
        }
    }
}

/// Every `step`th byte from the first, `count` times or to the end.
fn fill(bytes: &mut [u8], step: usize, count: usize, value: u8) {
    if step == 1 {
        let count = count.min(bytes.len());
        bytes[..count].fill(value);
    } else {
        bytes
            .iter_mut()
            .step_by(step)
            .take(count)
            .for_each(|b| *b = value);
    }
}
