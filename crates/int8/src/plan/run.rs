//! Runs a plan: on the thread that calls, and on its pool.

use std::mem::take;

use ocellus_int8_kernels::whole;
use tract_onnx::prelude::*;
use tract_onnx::tract_hir::internal::*;

use super::{Kernel, Output, OutputKind, Place, Plan, Step};
use crate::copy::StridedCopy;
use crate::graph::Quant;
use crate::pool::Pool;

/// One thread's working memory for a plan, and the threads that help it.
#[derive(Clone, Debug)]
pub(crate) struct State {
    slots: Vec<Vec<u8>>,
    /// One for each thread.
    scratch: Vec<Vec<u8>>,
    sums: Vec<i32>,
    floats: Vec<f32>,
    pool: Arc<Pool>,
}

impl State {
    pub(crate) fn new(plan: &Plan, pool: Arc<Pool>) -> Self {
        Self {
            slots: plan.slots.iter().map(|bytes| vec![0; *bytes]).collect(),
            scratch: vec![vec![0; plan.scratch_bytes]; pool.threads()],
            sums: vec![0; plan.sums],
            floats: vec![0.0; plan.floats],
            pool,
        }
    }
}

impl Plan {
    pub(crate) fn run(&self, state: &mut State, inputs: &[TValue]) -> TractResult<TVec<TValue>> {
        // Products that leave as floats share one buffer; each has the part at its offset.
        let mut floats = take(&mut state.floats);
        let mut offset = 0;
        for step in &self.steps {
            let mut out = take(&mut state.slots[step.output]);
            let elements = match step.kernel {
                Kernel::Product { elements, .. } => elements,
                _ => 0,
            };
            let done = step.run(
                state,
                inputs,
                &mut out[..step.output_bytes],
                &mut floats[offset..][..elements],
            );
            state.slots[step.output] = out;
            offset += elements;
            done.with_context(|| format!("running {}", step.node))?;
        }
        let results = self
            .results
            .iter()
            .map(|o| self.result(o, state, inputs, &floats))
            .collect();
        state.floats = floats;
        results
    }

    fn result(
        &self,
        output: &Output,
        state: &State,
        inputs: &[TValue],
        floats: &[f32],
    ) -> TractResult<TValue> {
        let tensor = match &output.kind {
            OutputKind::Table { table, copy } => {
                let bytes = bytes(&output.place, &state.slots, inputs)?;
                filled::<f32>(&output.shape, |out| {
                    copy.run(bytes, out, |b: u8| table[usize::from(b)])
                })?
            }
            OutputKind::Floats { step, copy } => {
                let elements = |s: &Step| match s.kernel {
                    Kernel::Product { elements, .. } => elements,
                    _ => 0,
                };
                let offset: usize = self.steps[..*step].iter().map(elements).sum();
                let floats = &floats[offset..][..elements(&self.steps[*step])];
                filled::<f32>(&output.shape, |out| copy.run(floats, out, |v| v))?
            }
            OutputKind::Bytes { flip, signed, copy } => {
                let (bytes, flip) = (bytes(&output.place, &state.slots, inputs)?, *flip);
                if *signed {
                    filled::<i8>(&output.shape, |out| {
                        copy.run(bytes, out, |b: u8| (b ^ flip) as i8)
                    })?
                } else {
                    filled::<u8>(&output.shape, |out| copy.run(bytes, out, |b: u8| b ^ flip))?
                }
            }
            OutputKind::Largest {
                flip,
                last,
                channels,
                pixels,
                strides: [channel, pixel],
            } => {
                let bytes = bytes(&output.place, &state.slots, inputs)?;
                filled::<i64>(&output.shape, |out| {
                    let pictures = out.chunks_exact_mut(*pixels);
                    for (bytes, out) in bytes.chunks_exact(channels * pixels).zip(pictures) {
                        for (at, out) in out.iter_mut().enumerate() {
                            let own = bytes[at * pixel..].iter().step_by(*channel);
                            *out = largest(own.take(*channels).map(|b| b ^ flip), *last);
                        }
                    }
                })?
            }
        };
        Ok(tensor.into_tvalue())
    }
}

/// The pictures of a batch: of the input, and of the output.
fn pictures<'a, T>(
    x: &'a [u8],
    out: &'a mut [T],
    batch: usize,
) -> impl Iterator<Item = (&'a [u8], &'a mut [T])> {
    let each = [x.len() / batch, out.len() / batch];
    x.chunks_exact(each[0]).zip(out.chunks_exact_mut(each[1]))
}

fn filled<T: Datum + Copy + tract_num_traits::Zero>(
    shape: &[usize],
    fill: impl FnOnce(&mut [T]),
) -> TractResult<Tensor> {
    let mut tensor = Tensor::zero::<T>(shape)?;
    fill(tensor.try_as_plain_ram_mut()?.as_slice_mut::<T>()?);
    Ok(tensor)
}

/// Bytes of which the greatest can be found: a place and a byte fit 32 bits.
pub(super) const MAX_RANKED: usize = 1 << 24;

/// Where the greatest byte is: the first of them, or the last. There are at most [`MAX_RANKED`].
fn largest(bytes: impl Iterator<Item = u8>, last: bool) -> i64 {
    // Byte and place as one number, without a branch; the first of equals is the greatest if places count down.
    let mask = if last { 0 } else { MAX_RANKED as u32 - 1 };
    let ranked = bytes.zip(0_u32..);
    let ranks = ranked.map(|(byte, at)| u32::from(byte) << 24 | (at ^ mask));
    i64::from(ranks.fold(0, u32::max) & (MAX_RANKED as u32 - 1) ^ mask)
}

/// The bytes at a place.
fn bytes<'a>(place: &Place, slots: &'a [Vec<u8>], inputs: &'a [TValue]) -> TractResult<&'a [u8]> {
    match place {
        Place::Slot { slot, bytes } => Ok(&slots[*slot][..*bytes]),
        Place::Input(at) => {
            let view = inputs[*at].try_as_plain_ram()?;
            // i8 and u8 are the same bytes.
            Ok(view.as_bytes())
        }
    }
}

impl Step {
    fn run(
        &self,
        state: &mut State,
        inputs: &[TValue],
        out: &mut [u8],
        floats: &mut [f32],
    ) -> TractResult<()> {
        let State {
            slots,
            scratch,
            sums,
            pool,
            ..
        } = state;
        let read = |i: usize| bytes(&self.inputs[i], slots, inputs);
        match &self.kernel {
            Kernel::Quantize { quant, copy, flip } => {
                let Some(Place::Input(at)) = self.inputs.first() else {
                    bail!("a quantization reads an input of the region");
                };
                let view = inputs[*at].try_as_plain_ram()?;
                quantize(*quant, copy, view.as_slice::<f32>()?, out, *flip);
            }
            Kernel::Flip => {
                out.iter_mut()
                    .zip(read(0)?)
                    .for_each(|(o, x)| *o = x ^ 0x80);
            }
            Kernel::Convolution {
                conv,
                batch,
                outputs,
            } => {
                let (x, residual) = (
                    read(0)?,
                    (self.inputs.len() > 1).then(|| read(1)).transpose()?,
                );
                let each = [x.len() / batch, out.len() / batch];
                let parts = x
                    .chunks_exact(each[0])
                    .zip(out.chunks_exact_mut(each[1]))
                    .enumerate();
                for (n, (x, out)) in parts {
                    let residual = residual.map(|r| &r[n * each[1]..][..each[1]]);
                    pool.rows(out, *outputs, scratch, &|rows, out, scratch| {
                        let residual =
                            residual.map(|r| &r[rows.start * outputs..rows.end * outputs]);
                        conv.run(x, residual, out, scratch, rows)
                    })?;
                }
            }
            Kernel::Product {
                conv,
                batch,
                outputs,
                ..
            } => {
                let x = read(0)?;
                for (x, out) in pictures(x, floats, *batch) {
                    pool.rows(out, *outputs, scratch, &|rows, out, scratch| {
                        conv.run_float(x, out, scratch, rows)
                    })?;
                }
            }
            Kernel::Add(add) => {
                let (a, b) = (read(0)?, read(1)?);
                pool.rows(out, 1, scratch, &|r, out, _| {
                    add.run(&a[r.clone()], &b[r], out)
                })?;
            }
            Kernel::Mul(mul) => {
                let (a, b) = (read(0)?, read(1)?);
                pool.rows(out, 1, scratch, &|r, out, _| {
                    mul.run(&a[r.clone()], &b[r], out)
                })?;
            }
            Kernel::MaxPool {
                pool: max,
                batch,
                channels,
            } => {
                let x = read(0)?;
                for (x, out) in pictures(x, out, *batch) {
                    pool.rows(out, *channels, scratch, &|rows, out, _| {
                        max.run(x, out, rows)
                    })?;
                }
            }
            Kernel::AveragePool {
                pool: average,
                batch,
                channels,
            } => {
                let x = read(0)?;
                let each = [x.len() / batch, out.len() / batch];
                let sums = &mut sums[..average.scratch_len()];
                for (x, out) in x.chunks_exact(each[0]).zip(out.chunks_exact_mut(each[1])) {
                    let pixels = out.len() / channels;
                    average.run(x, out, sums, 0..pixels)?;
                }
            }
            Kernel::Table(table) => {
                let x = read(0)?;
                pool.rows(out, 1, scratch, &|r, out, _| table.run(&x[r], out))?;
            }
            Kernel::TableSum(sum) => {
                let (a, b) = (read(0)?, read(1)?);
                pool.rows(out, 1, scratch, &|r, out, _| {
                    sum.run(&a[r.clone()], &b[r], out)
                })?;
            }
            Kernel::FloatDepthwise {
                conv,
                batch,
                channels,
            } => {
                let x = read(0)?;
                for (x, out) in pictures(x, out, *batch) {
                    pool.rows(out, *channels, scratch, &|rows, out, scratch| {
                        conv.run(x, out, scratch, rows)
                    })?;
                }
            }
            Kernel::Interpolate {
                resize,
                batch,
                channels,
            } => {
                let x = read(0)?;
                for (x, out) in pictures(x, out, *batch) {
                    pool.rows(out, *channels, scratch, &|rows, out, scratch| {
                        resize.run(x, out, scratch, rows)
                    })?;
                }
            }
            Kernel::Copy { copies, fill } => {
                if let Some(fill) = fill {
                    out.fill(*fill);
                }
                for (i, copy) in copies.iter().enumerate() {
                    copy.run_bytes(read(i)?, out);
                }
            }
            Kernel::Resize {
                gather,
                batch,
                channels,
            } => {
                let x = read(0)?;
                for (x, out) in pictures(x, out, *batch) {
                    gather.run(x, out, *channels, 0)?;
                }
            }
        }
        Ok(())
    }
}

fn quantize(quant: Quant, copy: &StridedCopy, from: &[f32], to: &mut [u8], flip: u8) {
    let zero = f32::from(quant.zero);
    let (min, max) = (-zero, 255.0 - zero);
    let offset = i32::from(quant.zero);
    copy.run(from, to, move |v: f32| {
        // The limits are whole numbers: holding to them first changes no result. Not a number becomes the least.
        let steps = (v / quant.scale).max(min).min(max);
        (whole(steps) + offset) as u8 ^ flip
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn borders_quantize_as_the_definition() {
        let quant = Quant {
            scale: 0.037,
            zero: 77,
        };
        let from: Vec<f32> = (-4000..4000).map(|i| i as f32 * 0.0185 / 4.0).collect();
        let mut to = vec![0; from.len()];
        let copy = StridedCopy::new(&[from.len()], &[1], &[1], [0, 0]);
        quantize(quant, &copy, &from, &mut to, 0);
        let expected: Vec<u8> = from.iter().map(|v| quant.quantize(*v)).collect();
        assert_eq!(to, expected);
        assert_eq!(to[0], 0);
        let mut odd = [0; 4];
        let copy = StridedCopy::new(&[4], &[1], &[1], [0, 0]);
        quantize(
            quant,
            &copy,
            &[f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e30],
            &mut odd,
            0,
        );
        assert_eq!(odd, [0, 255, 0, 255]);
    }
}
