//! Any function of one quantized number, as a table of its 256 values: sigmoid, hard swish, leaky Relu, requantization.

use crate::{KernelError, Operand, Quantization, Sign, error::check_len};

/// A table of 256 bytes, applied byte by byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lut {
    table: [u8; 256],
}

impl Lut {
    /// A table: `table[byte]` is written for `byte`, whatever sign the bytes have.
    pub fn new(table: [u8; 256]) -> Self {
        Self { table }
    }

    /// The table of a function from numbers to numbers in steps of the output's scale.
    pub fn of(
        sign: Sign,
        output: Quantization,
        function: impl Fn(i32) -> f32,
    ) -> Result<Self, KernelError> {
        output.check("the output", sign)?;
        Ok(Self {
            table: std::array::from_fn(|byte| output.quantize(function(sign.value(byte as u8)))),
        })
    }

    /// The table that moves numbers from one scale and zero point to another.
    pub fn requantize(
        sign: Sign,
        input: Operand,
        output: Quantization,
    ) -> Result<Self, KernelError> {
        input.check("the input", sign)?;
        Self::of(sign, output, |value| input.scaled(value))
    }

    /// Applies the table.
    pub fn run(&self, input: &[u8], out: &mut [u8]) -> Result<(), KernelError> {
        check_len("out", input.len(), out.len())?;
        self.apply(input, out);
        Ok(())
    }

    /// Applies the table in place.
    pub fn run_in_place(&self, bytes: &mut [u8]) {
        bytes
            .iter_mut()
            .for_each(|byte| *byte = self.table[usize::from(*byte)]);
    }

    pub(crate) fn apply(&self, input: &[u8], out: &mut [u8]) {
        out.iter_mut()
            .zip(input)
            .for_each(|(out, &byte)| *out = self.table[usize::from(byte)]);
    }
}
