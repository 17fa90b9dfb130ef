//! Float operators that stand between quantized tensors: bytes in, bytes out, floats only in between.
//!
//! In: a picture, one byte an element, and the number that each byte stands for. Out: bytes of the output's scale. The
//! picture's rows become floats as they are needed, in the scratch memory that the calling thread brings.
//!
//! What always holds: the floats are those of onnxruntime on a processor with fused multiply-add, bit for bit, because the
//! operations and their order are the same; and those of every instruction set are the same ([`vector`]).

mod depthwise;
mod function;
mod interpolate;
mod rows;
mod sum;
mod vector;

pub use depthwise::{FloatDepthwise, FloatDepthwiseSpec};
pub use function::{Function, logistic};
pub use interpolate::{Interpolate, Neighbours};
pub use sum::TableSum;

use crate::quantization::check_ratio;
use crate::{KernelError, Quantization, Sign};
use vector::Floats;

/// How floats become bytes: divided by the scale, then as [`Quantization`] says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FloatOutput {
    /// Size of a step.
    pub scale: f32,
    /// Zero point and limits.
    pub quantization: Quantization,
}

impl FloatOutput {
    fn writer(self) -> Writer {
        let Quantization { zero, min, max } = self.quantization;
        Writer {
            scale: self.scale,
            low: (min - zero) as f32,
            high: (max - zero) as f32,
            zero,
        }
    }

    fn check(self, sign: Sign) -> Result<(), KernelError> {
        check_ratio("the output's scale", self.scale)?;
        self.quantization.check("the output", sign)
    }
}

/// [`FloatOutput`] in the form in which loops have it.
#[derive(Clone, Copy, Debug)]
struct Writer {
    scale: f32,
    low: f32,
    high: f32,
    zero: i32,
}

impl Writer {
    /// Writes bytes as [`Quantization::quantize`] does: a vector of them, or as many as `out` has.
    #[inline(always)]
    fn write<F: Floats>(self, values: F, out: &mut [u8]) {
        self.steps(values).write(self.zero, out);
    }

    /// In steps of the scale, from zero, not yet rounded.
    #[inline(always)]
    fn steps<F: Floats>(self, values: F) -> F {
        let steps = values.over(F::all(self.scale));
        steps.at_least(F::all(self.low)).at_most(F::all(self.high))
    }
}

/// Numbers that a model brings are numbers.
fn check_finite(what: &'static str, values: &[f32]) -> Result<(), KernelError> {
    match values.iter().find(|v| !v.is_finite()) {
        None => Ok(()),
        Some(v) => Err(KernelError::Value {
            what,
            problem: format!("it holds {v}"),
        }),
    }
}
