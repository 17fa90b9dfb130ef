//! Windows laid out as rows: row i holds, tap after tap, what output pixel i looks at ("im2col").
//!
//! Neighbouring taps of a kernel row are contiguous in the picture, so that a window is a few long copies.

use std::ops::Range;

use crate::Geometry;

/// Which windows are laid out, and how.
#[derive(Clone, Copy, Debug)]
pub(super) struct Columns {
    pub geometry: Geometry,
    /// The byte that padding reads as.
    pub padding: u8,
    /// Bytes from one row to the next.
    pub stride: usize,
}

impl Columns {
    /// Lays out the windows of `pixels` over the channels of `group`.
    pub fn fill(&self, input: &[u8], group: usize, pixels: Range<usize>, rows: &mut [u8]) {
        let Geometry {
            input: shape,
            output,
            kernel,
            stride,
            dilation,
            pads,
            groups,
        } = self.geometry;
        let channels = shape.c / groups;
        let contiguous = dilation[1] == 1 && groups == 1;
        let tap_row = kernel[1] * channels;
        for (pixel, row) in pixels.zip(rows.chunks_exact_mut(self.stride)) {
            let (oy, ox) = (pixel / output.w, pixel % output.w);
            let on_picture = self.geometry.taps_on_picture(0, oy, shape.h);
            let taps = self.geometry.taps_on_picture(1, ox, shape.w);
            let (window, _) = row.split_at_mut(kernel[0] * tap_row);
            for (ky, out) in window.chunks_exact_mut(tap_row).enumerate() {
                if !on_picture.contains(&ky) || taps.is_empty() {
                    out.fill(self.padding);
                    continue;
                }
                let y = oy * stride[0] + ky * dilation[0] - pads[0];
                let at = |kx: usize| {
                    let x = ox * stride[1] + kx * dilation[1] - pads[1];
                    (y * shape.w + x) * shape.c + group * channels
                };
                let span = taps.start * channels..taps.end * channels;
                out[..span.start].fill(self.padding);
                out[span.end..].fill(self.padding);
                if contiguous {
                    let from = at(taps.start);
                    let length = span.len();
                    out[span].copy_from_slice(&input[from..from + length]);
                } else {
                    for (kx, out) in taps.clone().zip(out[span].chunks_exact_mut(channels)) {
                        out.copy_from_slice(&input[at(kx)..][..channels]);
                    }
                }
            }
        }
    }
}
