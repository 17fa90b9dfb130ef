//! Where the numbers under a window are.

use crate::Geometry;

/// A larger window has no place here.
pub(super) const MAX_TAPS: usize = 64;

/// The input's pixels under a window, tap by tap; taps beside the picture see a pixel of zero points.
pub(super) struct Taps<'a> {
    geometry: &'a Geometry,
    input: &'a [u8],
    outside: &'a [u8],
    pixels: [*const u8; MAX_TAPS],
}

impl<'a> Taps<'a> {
    /// `input` is the whole picture, `outside` one pixel; a window has at most [`MAX_TAPS`].
    pub(super) fn new(geometry: &'a Geometry, input: &'a [u8], outside: &'a [u8]) -> Self {
        assert!(geometry.taps() <= MAX_TAPS && outside.len() == geometry.input.c);
        Self {
            geometry,
            input,
            outside,
            pixels: [outside.as_ptr(); MAX_TAPS],
        }
    }

    /// Those of the window over an output pixel: addresses that are good for all channels; after the last tap, that of
    /// the pixel of zero points.
    #[inline(always)]
    pub(super) fn at(&mut self, pixel: usize) -> &[*const u8; MAX_TAPS] {
        let Geometry {
            input,
            output,
            kernel,
            stride,
            dilation,
            pads,
            ..
        } = *self.geometry;
        let (oy, ox) = (pixel / output.w, pixel % output.w);
        let mut tap = 0;
        for ky in 0..kernel[0] {
            // Above and left of the picture it wraps around and is too large.
            let y = (oy * stride[0] + ky * dilation[0]).wrapping_sub(pads[0]);
            for kx in 0..kernel[1] {
                let x = (ox * stride[1] + kx * dilation[1]).wrapping_sub(pads[1]);
                self.pixels[tap] = if y < input.h && x < input.w {
                    self.input[(y * input.w + x) * input.c..][..input.c].as_ptr()
                } else {
                    self.outside.as_ptr()
                };
                tap += 1;
            }
        }
        &self.pixels
    }
}
