//! Convolution, grouped and depthwise convolution, fully connected layers.
//!
//! In: the input picture, one byte an element, whole; the residual operand, if one is fused. Out: some of the output's
//! pixels. The calling thread brings the scratch memory.

mod columns;
mod depthwise;
mod gemm;
mod reference;
mod tile;

use std::{ops::Range, ptr};

use crate::{
    Geometry, Isa, KernelError, Quantization, Residual, Sign,
    error::check_len,
    quantization::{check_ratio, check_zero},
};
use depthwise::Depthwise;
use gemm::{Gemm, Out};
use reference::Reference;

/// What a convolution computes:
/// `acc[o] = bias[o] + Σ (x - input_zero) · (w[o] - weight_zero[o])`, wrapping i32; padding counts as `input_zero`;
/// then `round(acc[o] · multiplier[o]) + zero`, as [`Output`] says.
#[derive(Clone, Copy, Debug)]
pub struct ConvSpec<'a> {
    /// Shapes, strides, padding, groups.
    pub geometry: Geometry,
    /// The sign of input, residual and output.
    pub sign: Sign,
    /// The zero point of the input.
    pub input_zero: i32,
    /// Weights OHWI: output channel, kernel row, kernel column, input channel of the group.
    pub weights: &'a [i8],
    /// Zero points of the weights: none (all are 0), one, or one an output channel. Weights of a u8 model come here as
    /// `w ^ 0x80` with their zero point less 128.
    pub weight_zeros: &'a [i8],
    /// One an output channel, or none.
    pub bias: &'a [i32],
    /// Input scale · weight scale / output scale (without the division for [`Output::Float`]): one, or one an output channel.
    pub multipliers: &'a [f32],
    /// What is written.
    pub output: Output,
}

/// What a convolution writes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Output {
    /// Bytes: `round(acc · multiplier) + zero`, held to the limits. With a residual, that number goes through
    /// [`Residual`] before it is written.
    Quantized(Quantization, Option<Residual>),
    /// f32: `acc · multiplier`, for logits. Written by [`Conv::run_float`].
    Float,
}

/// A convolution ready to run: its weights are packed for one instruction set.
#[derive(Clone, Debug)]
pub struct Conv {
    isa: Isa,
    geometry: Geometry,
    output: Output,
    kernel: Kernel,
}

#[derive(Clone, Debug)]
enum Kernel {
    Reference(Reference),
    Gemm(Gemm),
    Depthwise(Depthwise),
}

impl Conv {
    /// Checks the numbers and packs the weights.
    pub fn new(isa: Isa, spec: &ConvSpec) -> Result<Self, KernelError> {
        isa.check(spec.sign)?;
        spec.check()?;
        let kernel = match isa {
            Isa::Generic => Kernel::Reference(Reference::new(spec)),
            _ if Depthwise::fits(&spec.geometry) => Kernel::Depthwise(Depthwise::new(isa, spec)),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => Kernel::Gemm(Gemm::new::<tile::avx2::Avx2>(isa, spec)),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vnni => Kernel::Gemm(match spec.geometry.output.c / spec.geometry.groups {
                ..=16 => Gemm::new::<tile::avx512vnni::Avx512Vnni<1>>(isa, spec),
                17..=32 => Gemm::new::<tile::avx512vnni::Avx512Vnni<2>>(isa, spec),
                _ => Gemm::new::<tile::avx512vnni::Avx512Vnni<4>>(isa, spec),
            }),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => Kernel::Gemm(Gemm::new::<tile::neon::Neon>(isa, spec)),
            #[cfg(target_arch = "aarch64")]
            Isa::NeonDot => Kernel::Gemm(Gemm::new::<tile::neon_dot::NeonDot>(isa, spec)),
            #[cfg(target_arch = "aarch64")]
            Isa::NeonI8mm => Kernel::Gemm(Gemm::new::<tile::neon_i8mm::NeonI8mm>(isa, spec)),
            _ => Kernel::Reference(Reference::new(spec)),
        };
        Ok(Self {
            isa,
            geometry: spec.geometry,
            output: spec.output,
            kernel,
        })
    }

    /// The instruction set it runs on.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Its shapes.
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// Bytes of scratch that a run needs; a thread's scratch may be larger.
    pub fn scratch_bytes(&self) -> usize {
        match &self.kernel {
            Kernel::Reference(_) | Kernel::Depthwise(_) => 0,
            Kernel::Gemm(kernel) => kernel.scratch_bytes(),
        }
    }

    /// Bytes that the packed weights take.
    pub fn weight_bytes(&self) -> usize {
        match &self.kernel {
            Kernel::Reference(kernel) => kernel.weight_bytes(),
            Kernel::Gemm(kernel) => kernel.weight_bytes(),
            Kernel::Depthwise(kernel) => kernel.weight_bytes(),
        }
    }

    /// Fills `out`, which holds the output pixels `pixels`; so does `residual`, given when the output has one.
    pub fn run(
        &self,
        input: &[u8],
        residual: Option<&[u8]>,
        out: &mut [u8],
        scratch: &mut [u8],
        pixels: Range<usize>,
    ) -> Result<(), KernelError> {
        let Output::Quantized(quantization, fused) = self.output else {
            return Err(KernelError::Geometry(
                "this convolution writes f32: call run_float".into(),
            ));
        };
        self.geometry.check_run(input, out.len(), &pixels)?;
        let expected = if fused.is_some() { out.len() } else { 0 };
        check_len("residual", expected, residual.map_or(0, <[u8]>::len))?;
        self.check_scratch(scratch)?;
        match &self.kernel {
            Kernel::Reference(kernel) => kernel.run(input, pixels, |at, value| {
                out[at] = match (&fused, residual) {
                    (Some(fused), Some(residual)) => fused.byte(quantization, value, residual[at]),
                    _ => quantization.quantize(value),
                }
            }),
            Kernel::Gemm(kernel) => {
                let out = Out::Bytes(
                    out.as_mut_ptr(),
                    residual.map_or(ptr::null(), <[u8]>::as_ptr),
                );
                // SAFETY: `new` checked the instruction set; the lengths are checked above.
                unsafe { kernel.run(input, out, scratch, pixels) };
            }
            Kernel::Depthwise(kernel) => {
                kernel.run(input, out, pixels, quantization, residual.zip(fused))
            }
        }
        Ok(())
    }

    /// Fills `out`, which holds the output pixels `pixels`, with floats ([`Output::Float`]).
    pub fn run_float(
        &self,
        input: &[u8],
        out: &mut [f32],
        scratch: &mut [u8],
        pixels: Range<usize>,
    ) -> Result<(), KernelError> {
        if self.output != Output::Float {
            return Err(KernelError::Geometry(
                "this convolution writes bytes: call run".into(),
            ));
        }
        self.geometry.check_run(input, out.len(), &pixels)?;
        self.check_scratch(scratch)?;
        match &self.kernel {
            Kernel::Reference(kernel) => kernel.run(input, pixels, |at, value| out[at] = value),
            // SAFETY: `new` checked the instruction set; the lengths are checked above.
            Kernel::Gemm(kernel) => unsafe {
                kernel.run(input, Out::Floats(out.as_mut_ptr()), scratch, pixels)
            },
            Kernel::Depthwise(kernel) => kernel.run_float(input, out, pixels),
        }
        Ok(())
    }

    fn check_scratch(&self, scratch: &[u8]) -> Result<(), KernelError> {
        check_len(
            "scratch",
            self.scratch_bytes(),
            scratch.len().min(self.scratch_bytes()),
        )
    }
}

impl ConvSpec<'_> {
    /// Products summed for one output.
    fn depth(&self) -> usize {
        self.geometry.taps() * (self.geometry.input.c / self.geometry.groups)
    }

    /// The bias of an output channel with the constant part of `Σ (x - zx)·(w - zw) = Σ x·w - zw·Σ x - zx·Σ w + n·zx·zw`.
    fn folded_bias(&self, channel: usize) -> i32 {
        let depth = self.depth();
        let weights = &self.weights[channel * depth..][..depth];
        let sum = weights
            .iter()
            .fold(0i32, |sum, &w| sum.wrapping_add(i32::from(w)));
        let centered = sum.wrapping_sub(self.weight_zero(channel).wrapping_mul(depth as i32));
        let bias = self.bias.get(channel).copied().unwrap_or(0);
        bias.wrapping_sub(self.input_zero.wrapping_mul(centered))
    }

    fn weight_zero(&self, channel: usize) -> i32 {
        per_channel(self.weight_zeros, channel).map_or(0, i32::from)
    }

    fn multiplier(&self, channel: usize) -> f32 {
        per_channel(self.multipliers, channel).unwrap_or(1.0)
    }

    fn check(&self) -> Result<(), KernelError> {
        self.geometry.check()?;
        let channels = self.geometry.output.c;
        check_len("weights", channels * self.depth(), self.weights.len())?;
        if !self.bias.is_empty() {
            check_len("bias", channels, self.bias.len())?;
        }
        if self.weight_zeros.len() > 1 {
            check_len("weight zero points", channels, self.weight_zeros.len())?;
        }
        if self.multipliers.len() != 1 {
            check_len("multipliers", channels, self.multipliers.len())?;
        }
        self.multipliers
            .iter()
            .try_for_each(|&ratio| check_ratio("multiplier", ratio))?;
        check_zero("the input", self.input_zero, self.sign)?;
        if let Output::Quantized(quantization, residual) = &self.output {
            quantization.check("the output", self.sign)?;
            residual
                .iter()
                .try_for_each(|residual| residual.check(*quantization, self.sign))?;
        }
        Ok(())
    }
}

/// The entry of a table that has one entry an output channel, one for all, or none.
fn per_channel<T: Copy>(table: &[T], channel: usize) -> Option<T> {
    if table.len() > 1 {
        table.get(channel).copied()
    } else {
        table.first().copied()
    }
}
