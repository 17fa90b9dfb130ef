//! Windows laid out as rows: row i holds, tap after tap, what output pixel i looks at ("im2col").
//!
//! Neighbouring taps of a kernel row are contiguous in the picture, so that a window is a few long copies.

use std::ops::Range;

use crate::Geometry;

/// A copy may write this many bytes past its end: the scratch is longer by as much.
pub(super) const SLACK: usize = 32;

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
    /// Lays out the windows of `pixels` over the channels of `group`, in this order: each copy may spoil what comes after
    /// it, up to [`SLACK`] bytes.
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
        let merged = dilation[1] == 1 && groups == 1;
        // Rows of the window as copies: how many to a kernel row, how long, and how far apart in the picture.
        let (copies, length) = if merged {
            (1, kernel[1] * channels)
        } else {
            (kernel[1], channels)
        };
        let step = dilation[1] * shape.c;
        let line = dilation[0] * shape.w * shape.c;
        let extent = [0, 1].map(|axis| (kernel[axis] - 1) * dilation[axis]);
        let (mut oy, mut ox) = (pixels.start / output.w, pixels.start % output.w);
        for at in (0..pixels.len()).map(|row| row * self.stride) {
            let (y, x) = (oy * stride[0], ox * stride[1]);
            let inside = y >= pads[0]
                && y - pads[0] + extent[0] < shape.h
                && x >= pads[1]
                && x - pads[1] + extent[1] < shape.w;
            if inside {
                let mut from = ((y - pads[0]) * shape.w + x - pads[1]) * shape.c + group * channels;
                let mut to = at;
                for _ in 0..kernel[0] {
                    for copy in 0..copies {
                        copy_over(&input[from + copy * step..], &mut rows[to..], length);
                        to += length;
                    }
                    from += line;
                }
            } else {
                self.fill_at_edge(input, group, [oy, ox], &mut rows[at..]);
            }
            ox += 1;
            if ox == output.w {
                (oy, ox) = (oy + 1, 0);
            }
        }
    }

    /// Lays out a window that is partly in the padding. Inlined, it would take the registers of the copies inside.
    #[inline(never)]
    fn fill_at_edge(&self, input: &[u8], group: usize, [oy, ox]: [usize; 2], row: &mut [u8]) {
        let Geometry {
            input: shape,
            kernel,
            stride,
            dilation,
            pads,
            groups,
            ..
        } = self.geometry;
        let channels = shape.c / groups;
        let taps_down = self.geometry.taps_on_picture(0, oy, shape.h);
        let taps = self.geometry.taps_on_picture(1, ox, shape.w);
        // Neighbouring taps are one copy.
        let merged = if dilation[1] == 1 && groups == 1 {
            taps.len().max(1)
        } else {
            1
        };
        for ky in 0..kernel[0] {
            let out = &mut row[ky * kernel[1] * channels..];
            if !taps_down.contains(&ky) {
                out[..kernel[1] * channels].fill(self.padding);
                continue;
            }
            out[..taps.start * channels].fill(self.padding);
            let y = oy * stride[0] + ky * dilation[0] - pads[0];
            for kx in taps.clone().step_by(merged) {
                let x = ox * stride[1] + kx * dilation[1] - pads[1];
                let from = &input[(y * shape.w + x) * shape.c + group * channels..];
                copy_over(from, &mut out[kx * channels..], merged * channels);
            }
            out[taps.end * channels..kernel[1] * channels].fill(self.padding);
        }
    }
}

/// Copies `length` bytes, and up to [`SLACK`] more where both slices go on: pieces of 32 bytes are copied faster than
/// `memcpy` is called.
#[inline]
fn copy_over(from: &[u8], to: &mut [u8], length: usize) {
    let whole = length.next_multiple_of(32);
    match (from.get(..whole), to.get_mut(..whole)) {
        (Some(from), Some(to)) => {
            for (from, to) in from.as_chunks::<32>().0.iter().zip(to.as_chunks_mut().0) {
                *to = *from;
            }
        }
        _ => copy_exactly(from, to, length),
    }
}

#[cold]
#[inline(never)]
fn copy_exactly(from: &[u8], to: &mut [u8], length: usize) {
    to[..length].copy_from_slice(&from[..length]);
}
