//! Integer kernels of quantized networks, for one picture at a time, NHWC, one byte an element.
//!
//! In: buffers of bytes and the numbers of a quantized model (scales as ratios, zero points). Out: buffers of bytes.
//! A kernel is built once, at load ([`Conv::new`] packs its weights for the instruction set), and then runs on any
//! thread, many at once, through `&self`, without allocating.
//!
//! What always holds:
//! - Every instruction set gives the bytes that the scalar code ([`Isa::Generic`]) gives. That code is the specification:
//!   sums of i32 (wrapping), and the float arithmetic of [`Quantization`] and [`Addition`], in that order of operations.
//! - The activations of one network are all [`Sign::U8`] or all [`Sign::S8`], as the instruction set likes it best
//!   ([`Isa::activations`]). A model written the other way is converted at its borders: a byte `xor 0x80`
//!   ([`Sign::flip`]) with its zero point moved by 128 is the same number, so results are the same bit for bit.
//! - Work is split over threads by ranges of output pixels: `run(…, pixels)` fills `out`, which holds just these pixels.
//! - Nothing panics on what a model or a caller brings: [`KernelError`] names what does not fit.

mod add;
mod conv;
mod error;
mod float;
mod gather;
mod geometry;
mod isa;
mod lookup;
mod pool;
mod quantization;

pub use add::{Add, Mul};
pub use conv::{Conv, ConvSpec, Output};
pub use error::KernelError;
pub use float::{
    FloatDepthwise, FloatDepthwiseSpec, FloatOutput, Function, Interpolate, Neighbours, TableSum,
    logistic,
};
pub use gather::Gather;
pub use geometry::{Geometry, Shape};
pub use isa::{Isa, Sign};
pub use lookup::{Lut, Numbers};
pub use pool::{AveragePool, MaxPool};
pub use quantization::{Addition, Operand, Quantization, Residual, whole};
