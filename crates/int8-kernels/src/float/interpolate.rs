//! Linear resize: each output pixel is a mean of four input pixels.

use std::ops::Range;

use super::rows::{Layout, Rows, rows_of};
use super::vector::{FloatWork, Floats, lanes, vectorize};
use super::{FloatOutput, Writer, check_finite};
use crate::lookup::{FloatLut, Numbers};
use crate::{Isa, KernelError, Shape, Sign, error::check_len};

/// Along one axis: where an output position lies between input positions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Neighbours {
    /// The input position before it, and the one after it.
    pub at: [usize; 2],
    /// The weight of each.
    pub weight: [f32; 2],
}

/// A linear resize ready to run. Its sums are not fused, as onnxruntime's are not.
#[derive(Clone, Debug)]
pub struct Interpolate {
    isa: Isa,
    layout: Layout,
    rows: Vec<Neighbours>,
    columns: Vec<Neighbours>,
    numbers: FloatLut,
    writer: Writer,
}

struct Run<'a> {
    resize: &'a Interpolate,
    input: &'a [u8],
    out: &'a mut [u8],
    scratch: &'a mut [u8],
    pixels: Range<usize>,
}

impl FloatWork for Run<'_> {
    #[inline(always)]
    fn run<F: Floats>(self) {
        self.resize
            .lines::<F>(self.input, self.out, self.scratch, self.pixels);
    }
}

impl Interpolate {
    /// A resize of `input` to `rows` × `columns`. `numbers` are what the input's bytes stand for.
    pub fn new(
        isa: Isa,
        sign: Sign,
        input: Shape,
        rows: Vec<Neighbours>,
        columns: Vec<Neighbours>,
        numbers: &Numbers,
        output: FloatOutput,
    ) -> Result<Self, KernelError> {
        isa.check(sign)?;
        output.check(sign)?;
        check_finite("the numbers of the input", numbers)?;
        for (what, axis, size) in [("row", &rows, input.h), ("column", &columns, input.w)] {
            if let Some(n) = axis.iter().find(|n| n.at.iter().any(|at| *at >= size)) {
                return Err(KernelError::Geometry(format!(
                    "{what} {:?} is not in a picture of {size}",
                    n.at
                )));
            }
            if let Some(n) = axis.iter().find(|n| n.at[0].abs_diff(n.at[1]) > 1) {
                return Err(KernelError::Geometry(format!(
                    "{what}s {:?} are no neighbours",
                    n.at
                )));
            }
            let weights: Vec<f32> = axis.iter().flat_map(|n| n.weight).collect();
            check_finite("the weights of a resize", &weights)?;
        }
        if input.bytes() == 0 || rows.is_empty() || columns.is_empty() {
            return Err(KernelError::Geometry(format!(
                "{input:?} to {} rows and {} columns: a size is zero",
                rows.len(),
                columns.len()
            )));
        }
        Ok(Self {
            isa,
            layout: Layout {
                input,
                left: 0,
                right: 0,
                // Rows that lie one after the other have different places.
                rows: 2,
                lanes: lanes(isa),
            },
            rows,
            columns,
            numbers: FloatLut::new(isa, numbers),
            writer: output.writer(),
        })
    }

    /// The shape of what is written.
    pub fn output(&self) -> Shape {
        Shape::new(self.rows.len(), self.columns.len(), self.layout.input.c)
    }

    /// Bytes of scratch that a run needs; a thread's scratch may be larger.
    pub fn scratch_bytes(&self) -> usize {
        self.layout.scratch_bytes()
    }

    /// Fills `out`, which holds the output pixels `pixels`.
    pub fn run(
        &self,
        input: &[u8],
        out: &mut [u8],
        scratch: &mut [u8],
        pixels: Range<usize>,
    ) -> Result<(), KernelError> {
        let shape = self.output();
        if pixels.start > pixels.end || pixels.end > shape.pixels() {
            return Err(KernelError::Geometry(format!(
                "pixels {pixels:?} are not in an output of {}",
                shape.pixels()
            )));
        }
        check_len("input", self.layout.input.bytes(), input.len())?;
        check_len("out", pixels.len() * shape.c, out.len())?;
        if scratch.len() < self.scratch_bytes() {
            return check_len("scratch", self.scratch_bytes(), scratch.len());
        }
        let run = Run {
            resize: self,
            input,
            out,
            scratch,
            pixels,
        };
        vectorize(self.isa, run);
        Ok(())
    }

    #[inline(always)]
    fn lines<F: Floats>(
        &self,
        input: &[u8],
        out: &mut [u8],
        scratch: &mut [u8],
        pixels: Range<usize>,
    ) {
        let (channels, pixel) = (self.layout.input.c, self.layout.pixel());
        let (mut rows, _) = Rows::new(&self.layout, &self.numbers, input, scratch);
        let mut out = out.chunks_exact_mut(channels);
        for (y, columns) in rows_of(pixels, self.columns.len()) {
            let vertical = self.rows[y];
            let at = vertical.at.map(|row| row as isize);
            at.iter().for_each(|row| rows.load(*row));
            let [above, below] = at.map(|row| rows.row(row));
            for (horizontal, out) in self.columns[columns].iter().zip(&mut out) {
                let [left, right] = horizontal.at;
                let corner = [
                    &above[left * pixel..][..pixel],
                    &above[right * pixel..][..pixel],
                    &below[left * pixel..][..pixel],
                    &below[right * pixel..][..pixel],
                ];
                let ([top, bottom], [left, right]) = (vertical.weight, horizontal.weight);
                let weight = [
                    F::all(left * top),
                    F::all(right * top),
                    F::all(left * bottom),
                    F::all(right * bottom),
                ];
                for first in (0..channels).step_by(F::LANES) {
                    let mut sum = F::all(0.0);
                    for (i, (corner, weight)) in corner.iter().zip(weight).enumerate() {
                        // SAFETY: `pixel` floats are whole vectors.
                        let product = unsafe { F::read(corner.as_ptr().add(first)) }.times(weight);
                        sum = if i == 0 { product } else { sum.plus(product) };
                    }
                    self.writer.write(sum, &mut out[first..]);
                }
            }
        }
    }
}
