//! Shapes of pictures and of the windows that move over them.

use std::ops::Range;

use crate::{KernelError, error::check_len};

/// Height, width and channels of an NHWC picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    /// Rows.
    pub h: usize,
    /// Columns.
    pub w: usize,
    /// Channels.
    pub c: usize,
}

impl Shape {
    /// The shape of `h` × `w` pixels with `c` channels.
    pub fn new(h: usize, w: usize, c: usize) -> Self {
        Self { h, w, c }
    }

    /// Pixels: rows × columns.
    pub fn pixels(self) -> usize {
        self.h * self.w
    }

    /// Bytes: rows × columns × channels.
    pub fn bytes(self) -> usize {
        self.pixels() * self.c
    }
}

/// A window (of a convolution or a pool) moving over a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// The input picture.
    pub input: Shape,
    /// The output picture.
    pub output: Shape,
    /// Rows and columns of the window.
    pub kernel: [usize; 2],
    /// Steps of the window, down and right.
    pub stride: [usize; 2],
    /// Distance between neighbouring taps of the window, down and right.
    pub dilation: [usize; 2],
    /// Rows and columns of padding: top, left, bottom, right. Bottom and right matter only to an average that counts
    /// padding: whatever a window reads outside the picture is padding.
    pub pads: [usize; 4],
    /// Groups of channels: 1 for a plain convolution, as many as channels for a depthwise one. Pools ignore it.
    pub groups: usize,
}

impl Geometry {
    /// One pixel in, one pixel out: a fully connected layer.
    pub fn fully_connected(inputs: usize, outputs: usize) -> Self {
        Self::window(Shape::new(1, 1, inputs), outputs, [1, 1], [1, 1], [0; 4])
    }

    /// A window without dilation and groups; the output's height and width follow from the pads (rounded down).
    pub fn window(
        input: Shape,
        channels: usize,
        kernel: [usize; 2],
        stride: [usize; 2],
        pads: [usize; 4],
    ) -> Self {
        let steps = |size: usize, axis: usize| {
            let padded = size + pads[axis] + pads[axis + 2];
            if kernel[axis] > padded {
                0
            } else {
                (padded - kernel[axis]) / stride[axis].max(1) + 1
            }
        };
        let output = Shape::new(steps(input.h, 0), steps(input.w, 1), channels);
        Self {
            input,
            output,
            kernel,
            stride,
            dilation: [1, 1],
            pads,
            groups: 1,
        }
    }

    /// Taps of the window.
    pub fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    /// Multiply-accumulates of one convolution.
    pub fn macs(&self) -> usize {
        self.output.bytes() * self.taps() * (self.input.c / self.groups)
    }

    /// The window over output pixel `pixel`: for each of its taps that is on the picture, the tap and the input pixel.
    pub(crate) fn window_at(&self, pixel: usize) -> impl Iterator<Item = (usize, usize)> + '_ {
        let (oy, ox) = (pixel / self.output.w, pixel % self.output.w);
        self.taps_on_picture(0, oy, self.input.h)
            .flat_map(move |ky| {
                let y = oy * self.stride[0] + ky * self.dilation[0] - self.pads[0];
                self.taps_on_picture(1, ox, self.input.w).map(move |kx| {
                    let x = ox * self.stride[1] + kx * self.dilation[1] - self.pads[1];
                    (ky * self.kernel[1] + kx, y * self.input.w + x)
                })
            })
    }

    /// The taps along `axis` (0 down, 1 right) that are on the picture of `size` when the window is at `position`.
    pub(crate) fn taps_on_picture(
        &self,
        axis: usize,
        position: usize,
        size: usize,
    ) -> Range<usize> {
        let (start, dilation) = (position * self.stride[axis], self.dilation[axis]);
        let (pad, kernel) = (self.pads[axis], self.kernel[axis]);
        let first = pad.saturating_sub(start).div_ceil(dilation).min(kernel);
        let end = (size + pad)
            .saturating_sub(start)
            .div_ceil(dilation)
            .min(kernel);
        first..end.max(first)
    }

    pub(crate) fn check(&self) -> Result<(), KernelError> {
        let Geometry {
            input,
            output,
            kernel,
            stride,
            dilation,
            pads,
            groups,
        } = *self;
        let sizes = [
            input.h, input.w, input.c, output.h, output.w, output.c, groups,
        ];
        let steps = [kernel, stride, dilation].concat();
        if sizes.iter().chain(&steps).any(|&size| size == 0) {
            return Err(KernelError::Geometry(format!("a size is zero in {self:?}")));
        }
        // Offsets within a picture, and a window's positions, stay far from overflowing usize and i32.
        if sizes
            .iter()
            .chain(&steps)
            .chain(&pads)
            .any(|&size| size > 1 << 20)
            || [input, output]
                .iter()
                .any(|shape| shape.h * shape.w > (1 << 31) / shape.c)
            || self.taps() > (1 << 31) / input.c
        {
            return Err(KernelError::Geometry(format!(
                "a size is too large in {self:?}"
            )));
        }
        if input.c % groups != 0 || output.c % groups != 0 {
            return Err(KernelError::Geometry(format!(
                "{groups} groups do not divide {} input and {} output channels",
                input.c, output.c
            )));
        }
        Ok(())
    }

    /// Checks the buffers of a run over some output pixels.
    pub(crate) fn check_run(
        &self,
        input: &[u8],
        out: usize,
        pixels: &Range<usize>,
    ) -> Result<(), KernelError> {
        if pixels.start > pixels.end || pixels.end > self.output.pixels() {
            let count = self.output.pixels();
            return Err(KernelError::Geometry(format!(
                "pixels {pixels:?} are not in an output of {count}"
            )));
        }
        check_len("input", self.input.bytes(), input.len())?;
        check_len("out", pixels.len() * self.output.c, out)
    }
}
