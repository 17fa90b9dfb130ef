//! Sums and products of functions of two quantized tensors.

use super::{FloatOutput, Numbers, Writer, check_finite};
use crate::{Isa, KernelError, Sign, error::check_len};

/// `a(x) + b(y)`, or `a(x) · b(y)`, element by element.
#[derive(Clone, Debug)]
pub struct TableSum {
    isa: Isa,
    numbers: Box<[Numbers; 2]>,
    product: bool,
    writer: Writer,
}

impl TableSum {
    /// `numbers` are what each operand's bytes stand for.
    pub fn new(
        isa: Isa,
        sign: Sign,
        numbers: [&Numbers; 2],
        product: bool,
        output: FloatOutput,
    ) -> Result<Self, KernelError> {
        isa.check(sign)?;
        output.check(sign)?;
        for numbers in numbers {
            check_finite("the numbers of an operand", numbers)?;
        }
        Ok(Self {
            isa,
            numbers: Box::new(numbers.map(|n| *n)),
            product,
            writer: output.writer(),
        })
    }

    /// Fills `out`; both operands have as many elements.
    pub fn run(&self, a: &[u8], b: &[u8], out: &mut [u8]) -> Result<(), KernelError> {
        check_len("the first operand", out.len(), a.len())?;
        check_len("the second operand", out.len(), b.len())?;
        let [p, q] = &*self.numbers;
        let apply = |x: f32, y: f32| if self.product { x * y } else { x + y };
        self.isa.vectorize(|| {
            for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
                let value = apply(p[usize::from(*a)], q[usize::from(*b)]);
                *out = self.writer.byte(value);
            }
        });
        Ok(())
    }
}
