//! The float arithmetic between integers: requantization of a sum, and the residual addition. This is the
//! specification; every instruction set does these operations in this order, without fused multiply-add.

use crate::{KernelError, Sign};

/// How a result is written: its zero point, and the limits it is held to (a fused Relu or Clip narrows them).
/// All are numbers of the activations' sign: 0 to 255 or -128 to 127.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quantization {
    /// The number that stands for zero.
    pub zero: i32,
    /// The least number written.
    pub min: i32,
    /// The greatest number written.
    pub max: i32,
}

impl Quantization {
    /// The whole range of the sign, with this zero point.
    pub fn full(sign: Sign, zero: i32) -> Self {
        Self {
            zero,
            min: sign.min(),
            max: sign.max(),
        }
    }

    /// `value`, already in steps of the output's scale: held to the limits, rounded half to even, zero point added.
    #[inline(always)]
    pub(crate) fn quantize(self, value: f32) -> u8 {
        (whole(self.held(value)) + self.zero) as u8
    }

    /// The quantized number less its zero point. The limits are whole numbers, so that holding before rounding equals
    /// rounding before holding.
    #[inline(always)]
    fn centered(self, value: f32) -> f32 {
        self.held(value).round_ties_even()
    }

    #[inline(always)]
    fn held(self, value: f32) -> f32 {
        value
            .max((self.min - self.zero) as f32)
            .min((self.max - self.zero) as f32)
    }

    pub(crate) fn check(self, what: &'static str, sign: Sign) -> Result<(), KernelError> {
        check_zero(what, self.zero, sign)?;
        if self.min < sign.min() || self.max > sign.max() || self.min > self.max {
            let problem = format!(
                "limits {}..={} are not a range of {sign}",
                self.min, self.max
            );
            return Err(KernelError::Value { what, problem });
        }
        Ok(())
    }
}

/// A float of less than 2^22, rounded half to even: adding 1.5 · 2^23 does that. `as` would saturate, one lane after the other.
#[inline(always)]
pub fn whole(value: f32) -> i32 {
    const ROUND: f32 = 12_582_912.0;
    (value + ROUND).to_bits() as i32 - ROUND.to_bits() as i32
}

/// An operand of an addition or multiplication.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Operand {
    /// Its zero point.
    pub zero: i32,
    /// Its scale divided by the output's scale.
    pub ratio: f32,
}

impl Operand {
    /// Its value in steps of the output's scale.
    #[inline]
    pub(crate) fn scaled(self, value: i32) -> f32 {
        (value - self.zero) as f32 * self.ratio
    }

    pub(crate) fn check(self, what: &'static str, sign: Sign) -> Result<(), KernelError> {
        check_zero(what, self.zero, sign)?;
        check_ratio(what, self.ratio)
    }
}

/// An addition fused into the convolution before it. The convolution's sum is first quantized to the convolution's own
/// scale and limits, as if it were written and read again, so that the result is exactly that of the two separate kernels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Residual {
    /// The convolution's own scale divided by the addition's output scale.
    pub conv_ratio: f32,
    /// The other operand.
    pub other: Operand,
    /// How the addition's result is written.
    pub output: Quantization,
}

impl Residual {
    /// The byte for the convolution's `value` (in steps of its own scale `conv`) and the other operand's number.
    #[inline(always)]
    pub(crate) fn add(&self, conv: Quantization, value: f32, other: i32) -> u8 {
        self.output
            .quantize(conv.centered(value) * self.conv_ratio + self.other.scaled(other))
    }

    pub(crate) fn check(&self, sign: Sign) -> Result<(), KernelError> {
        check_ratio(
            "the convolution's ratio in the residual addition",
            self.conv_ratio,
        )?;
        self.other.check("the residual operand", sign)?;
        self.output
            .check("the output of the residual addition", sign)
    }
}

pub(crate) fn check_zero(what: &'static str, zero: i32, sign: Sign) -> Result<(), KernelError> {
    if (sign.min()..=sign.max()).contains(&zero) {
        return Ok(());
    }
    Err(KernelError::Value {
        what,
        problem: format!("zero point {zero} is not a number of {sign}"),
    })
}

/// Ratios of scales are positive, and far from where products of them and of sums would overflow f32.
pub(crate) fn check_ratio(what: &'static str, ratio: f32) -> Result<(), KernelError> {
    if ratio > 0.0 && ratio < 1e24 {
        return Ok(());
    }
    Err(KernelError::Value {
        what,
        problem: format!("{ratio} is not a usable ratio of scales"),
    })
}
