//! Elementwise addition and multiplication of two quantized tensors.

use crate::{
    Addition, Isa, KernelError, Operand, Quantization, Sign,
    error::check_len,
    quantization::{check_ratio, check_zero},
};

/// `round((a - za)·sa/sy + (b - zb)·sb/sy) + zy`, as [`Addition`] computes it.
#[derive(Clone, Debug)]
pub struct Add {
    isa: Isa,
    sign: Sign,
    addition: Addition,
}

impl Add {
    /// An addition of two operands; the ratios are scales divided by the output's scale.
    pub fn new(
        isa: Isa,
        sign: Sign,
        operands: [Operand; 2],
        output: Quantization,
    ) -> Result<Self, KernelError> {
        isa.check(sign)?;
        let addition = Addition::new(sign, operands, output)?;
        Ok(Self {
            isa,
            sign,
            addition,
        })
    }

    /// Adds byte by byte.
    pub fn run(&self, a: &[u8], b: &[u8], out: &mut [u8]) -> Result<(), KernelError> {
        check_len("the second operand", a.len(), b.len())?;
        check_len("out", a.len(), out.len())?;
        let mask = self.sign.order_mask();
        self.isa.vectorize(|| {
            for ((out, &a), &b) in out.iter_mut().zip(a).zip(b) {
                let [a, b] = [a, b].map(|byte| f32::from(byte ^ mask));
                *out = self.addition.sum(a, b) ^ mask;
            }
        });
        Ok(())
    }
}

/// `round((a - za)·(b - zb)·sa·sb/sy) + zy`.
#[derive(Clone, Debug)]
pub struct Mul {
    isa: Isa,
    sign: Sign,
    zeros: [i32; 2],
    ratio: f32,
    output: Quantization,
}

impl Mul {
    /// A multiplication; `ratio` is the product of the operands' scales divided by the output's scale.
    pub fn new(
        isa: Isa,
        sign: Sign,
        zeros: [i32; 2],
        ratio: f32,
        output: Quantization,
    ) -> Result<Self, KernelError> {
        isa.check(sign)?;
        check_zero("the first operand", zeros[0], sign)?;
        check_zero("the second operand", zeros[1], sign)?;
        check_ratio("the ratio of the multiplication", ratio)?;
        output.check("the output", sign)?;
        Ok(Self {
            isa,
            sign,
            zeros,
            ratio,
            output,
        })
    }

    /// Multiplies byte by byte.
    pub fn run(&self, a: &[u8], b: &[u8], out: &mut [u8]) -> Result<(), KernelError> {
        check_len("the second operand", a.len(), b.len())?;
        check_len("out", a.len(), out.len())?;
        self.isa.vectorize(|| {
            for ((out, &a), &b) in out.iter_mut().zip(a).zip(b) {
                let product =
                    (self.sign.value(a) - self.zeros[0]) * (self.sign.value(b) - self.zeros[1]);
                *out = self.output.quantize(product as f32 * self.ratio);
            }
        });
        Ok(())
    }
}
