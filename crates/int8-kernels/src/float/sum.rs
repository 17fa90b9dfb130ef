//! Sums and products of functions of two quantized tensors.

use super::vector::{FloatWork, Floats, vectorize};
use super::{FloatOutput, Writer, check_finite};
use crate::lookup::{FloatLut, Numbers};
use crate::{Isa, KernelError, Sign, error::check_len};

/// Elements that are floats at a time.
const CHUNK: usize = 256;

/// `a(x) + b(y)`, or `a(x) · b(y)`, element by element.
#[derive(Clone, Debug)]
pub struct TableSum {
    isa: Isa,
    numbers: [FloatLut; 2],
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
            numbers: numbers.map(|n| FloatLut::new(isa, n)),
            product,
            writer: output.writer(),
        })
    }

    /// Fills `out`; both operands have as many elements.
    pub fn run(&self, a: &[u8], b: &[u8], out: &mut [u8]) -> Result<(), KernelError> {
        check_len("the first operand", out.len(), a.len())?;
        check_len("the second operand", out.len(), b.len())?;
        vectorize(
            self.isa,
            Run {
                sum: self,
                a,
                b,
                out,
            },
        );
        Ok(())
    }
}

struct Run<'a> {
    sum: &'a TableSum,
    a: &'a [u8],
    b: &'a [u8],
    out: &'a mut [u8],
}

impl FloatWork for Run<'_> {
    #[inline(always)]
    fn run<F: Floats>(self) {
        let TableSum {
            numbers: [p, q],
            product,
            writer,
            ..
        } = self.sum;
        let [mut x, mut y] = [[0.0; CHUNK]; 2];
        let parts = self.a.chunks(CHUNK).zip(self.b.chunks(CHUNK));
        for (out, (a, b)) in self.out.chunks_mut(CHUNK).zip(parts) {
            p.floats(a, &mut x);
            q.floats(b, &mut y);
            for (i, out) in out.chunks_mut(F::LANES).enumerate() {
                // SAFETY: chunks are of whole vectors.
                let [x, y] = [&x, &y].map(|f| unsafe { F::read(f.as_ptr().add(i * F::LANES)) });
                let value = if *product { x.times(y) } else { x.plus(y) };
                writer.write(value, out);
            }
        }
    }
}
