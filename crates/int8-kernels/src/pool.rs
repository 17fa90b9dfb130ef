//! Maximum and average over windows of a quantized picture. The global average pool is an average over one window that
//! is the whole picture.

use std::ops::Range;

use crate::{Geometry, Isa, KernelError, Operand, Quantization, Sign, error::check_len};

/// The greatest number of each window and channel; padding never wins. A window wholly in the padding gives the
/// sign's least number.
#[derive(Clone, Debug)]
pub struct MaxPool {
    isa: Isa,
    sign: Sign,
    geometry: Geometry,
}

impl MaxPool {
    /// A pool over `geometry`, whose input and output have as many channels.
    pub fn new(isa: Isa, sign: Sign, geometry: Geometry) -> Result<Self, KernelError> {
        isa.check(sign)?;
        check_pool(&geometry)?;
        Ok(Self {
            isa,
            sign,
            geometry,
        })
    }

    /// Fills `out`, which holds the output pixels `pixels`.
    pub fn run(
        &self,
        input: &[u8],
        out: &mut [u8],
        pixels: Range<usize>,
    ) -> Result<(), KernelError> {
        self.geometry.check_run(input, out.len(), &pixels)?;
        let channels = self.geometry.input.c;
        let mask = self.sign.order_mask();
        self.isa.vectorize(|| {
            for (pixel, out) in pixels.zip(out.chunks_exact_mut(channels)) {
                out.fill(self.sign.min() as u8);
                for (_, at) in self.geometry.window_at(pixel) {
                    for (out, &byte) in out.iter_mut().zip(&input[at * channels..][..channels]) {
                        *out = (*out ^ mask).max(byte ^ mask) ^ mask;
                    }
                }
            }
        });
        Ok(())
    }
}

/// The average of each window and channel: `round(Σ(x - zx) · (sx/sy / count)) + zy`.
#[derive(Clone, Debug)]
pub struct AveragePool {
    isa: Isa,
    sign: Sign,
    geometry: Geometry,
    input: Operand,
    output: Quantization,
    count_include_pad: bool,
}

impl AveragePool {
    /// A pool over `geometry`, whose input and output have as many channels. `count_include_pad` divides by the places
    /// of the window that are on the picture or on its pads (as zeros), else by those on the picture.
    pub fn new(
        isa: Isa,
        sign: Sign,
        geometry: Geometry,
        input: Operand,
        output: Quantization,
        count_include_pad: bool,
    ) -> Result<Self, KernelError> {
        isa.check(sign)?;
        check_pool(&geometry)?;
        input.check("the input", sign)?;
        output.check("the output", sign)?;
        Ok(Self {
            isa,
            sign,
            geometry,
            input,
            output,
            count_include_pad,
        })
    }

    /// Elements (i32) of scratch that `run` needs.
    pub fn scratch_len(&self) -> usize {
        self.geometry.input.c
    }

    /// Fills `out`, which holds the output pixels `pixels`.
    pub fn run(
        &self,
        input: &[u8],
        out: &mut [u8],
        scratch: &mut [i32],
        pixels: Range<usize>,
    ) -> Result<(), KernelError> {
        self.geometry.check_run(input, out.len(), &pixels)?;
        check_len("scratch", self.scratch_len(), scratch.len())?;
        let channels = self.geometry.input.c;
        self.isa.vectorize(|| {
            for (pixel, out) in pixels.zip(out.chunks_exact_mut(channels)) {
                scratch.fill(0);
                let mut on_picture = 0;
                for (_, at) in self.geometry.window_at(pixel) {
                    on_picture += 1;
                    for (sum, &byte) in scratch.iter_mut().zip(&input[at * channels..][..channels])
                    {
                        *sum += self.sign.value(byte);
                    }
                }
                let count = if self.count_include_pad {
                    self.padded_count(pixel)
                } else {
                    on_picture
                };
                let multiplier = self.input.ratio / count.max(1) as f32;
                for (out, sum) in out.iter_mut().zip(&*scratch) {
                    let sum = sum - on_picture as i32 * self.input.zero;
                    *out = self.output.quantize(sum as f32 * multiplier);
                }
            }
        });
        Ok(())
    }

    /// Places of the window that are on the picture or on its pads.
    fn padded_count(&self, pixel: usize) -> usize {
        let Geometry {
            input,
            output,
            pads,
            ..
        } = self.geometry;
        let padded = Geometry {
            pads: [0; 4],
            ..self.geometry
        };
        padded
            .taps_on_picture(0, pixel / output.w, input.h + pads[0] + pads[2])
            .len()
            * padded
                .taps_on_picture(1, pixel % output.w, input.w + pads[1] + pads[3])
                .len()
    }
}

fn check_pool(geometry: &Geometry) -> Result<(), KernelError> {
    geometry.check()?;
    check_len(
        "channels of the pool's output",
        geometry.input.c,
        geometry.output.c,
    )?;
    if geometry.taps() > 1 << 22 {
        return Err(KernelError::Geometry(format!(
            "a pool over {} places is too large",
            geometry.taps()
        )));
    }
    Ok(())
}
