//! The float arithmetic between integers: requantization of a sum, and the addition of two tensors. This is the
//! specification; every instruction set does these operations in this order, with fused multiply-add where it says so, and
//! nowhere else.

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
    pub(crate) fn check(self, what: &'static str, sign: Sign) -> Result<(), KernelError> {
        check_zero(what, self.zero, sign)?;
        check_ratio(what, self.ratio)
    }
}

/// An addition of two quantized tensors, in the order and with the roundings of onnxruntime:
/// `fma(a, ra, fma(b, rb, zy - fma(ra, za, rb·zb)))`, held to the output's limits and rounded half to even. In it, numbers
/// count from the least of the sign: 0 to 255, whatever the sign.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Addition {
    sign: Sign,
    zeros: [f32; 2],
    pub(crate) ratios: [f32; 2],
    pub(crate) constant: f32,
    pub(crate) min: f32,
    pub(crate) max: f32,
}

impl Addition {
    /// The addition of two operands, the first and the second.
    ///
    /// # Errors
    ///
    /// A zero point or limit that is no number of the sign; a ratio that is not positive, or too large.
    pub fn new(
        sign: Sign,
        operands: [Operand; 2],
        output: Quantization,
    ) -> Result<Self, KernelError> {
        operands[0].check("the first operand", sign)?;
        operands[1].check("the second operand", sign)?;
        output.check("the sum", sign)?;
        let from_least = |number: i32| (number - sign.min()) as f32;
        let zeros = operands.map(|operand| from_least(operand.zero));
        let ratios = operands.map(|operand| operand.ratio);
        Ok(Self {
            sign,
            zeros,
            ratios,
            constant: from_least(output.zero) - ratios[0].mul_add(zeros[0], ratios[1] * zeros[1]),
            min: from_least(output.min),
            max: from_least(output.max),
        })
    }

    /// The sum of a number of each operand.
    #[inline(always)]
    pub(crate) fn sum(&self, a: f32, b: f32) -> u8 {
        let sum = a.mul_add(self.ratios[0], b.mul_add(self.ratios[1], self.constant));
        whole(sum.max(self.min).min(self.max)) as u8
    }
}

/// An addition fused into the convolution before it. The convolution's sum is first quantized to the convolution's own
/// scale and limits, as if it were written and read again, so that the result is exactly that of the two separate kernels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Residual {
    /// The addition; the convolution's operand has the convolution's own zero point.
    pub addition: Addition,
    /// Whether the convolution is its first operand.
    pub conv_first: bool,
}

impl Residual {
    /// The convolution's zero point, counted from the least of the sign.
    #[inline(always)]
    pub(crate) fn conv_zero(&self) -> f32 {
        self.addition.zeros[usize::from(!self.conv_first)]
    }

    /// The byte for the convolution's `value` (in steps of its own scale `conv`) and the other operand's byte.
    #[inline(always)]
    pub(crate) fn byte(&self, conv: Quantization, value: f32, other: u8) -> u8 {
        let mask = self.addition.sign.order_mask();
        let (conv, other) = (
            conv.centered(value) + self.conv_zero(),
            f32::from(other ^ mask),
        );
        mask ^ match self.conv_first {
            true => self.addition.sum(conv, other),
            false => self.addition.sum(other, conv),
        }
    }

    pub(crate) fn check(&self, conv: Quantization, sign: Sign) -> Result<(), KernelError> {
        if self.addition.sign == sign && self.conv_zero() == (conv.zero - sign.min()) as f32 {
            return Ok(());
        }
        Err(KernelError::Value {
            what: "the residual addition",
            problem: format!(
                "its operand is not the convolution's output: {sign}, zero point {}",
                conv.zero
            ),
        })
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
