//! Convolution as multiplication of matrices: rows are output pixels, columns are output channels.
//!
//! Rows are taken in blocks that stay in the cache; a 1×1 window over whole pixels is the input itself, every other
//! window is laid out in the scratch first ([`Columns`]). Then each panel of weights meets all rows of the block.

use std::{mem::MaybeUninit, ops::Range, slice};

use super::{
    ConvSpec, Output,
    columns::{Columns, SLACK},
    tile::{Bytes, Call, Panel, Target, Tile},
};
use crate::{Isa, Sign};

/// Bytes of laid out rows that are worked on at a time.
const BLOCK_BYTES: usize = 128 * 1024;

/// Sums of the largest tile.
const MAX_SUMS: usize = 512;

#[derive(Clone, Debug)]
pub(super) struct Gemm {
    isa: Isa,
    /// `run_tiles` for the instruction set that the weights are packed for.
    run_tiles: unsafe fn(&Gemm, &[u8], Out, &mut [u8], Range<usize>),
    columns: Columns,
    sign: Sign,
    output: Output,
    /// The input's own bytes are the rows.
    direct: bool,
    /// Products summed; also rounded up to what a tile reads.
    depth: usize,
    padded_depth: usize,
    /// Panels of all groups, one group after the other.
    panels: Vec<PanelAt>,
    weights: Vec<Line>,
    offsets: Vec<u32>,
    /// By column of all panels; the input's zero point is folded into the bias.
    bias: Vec<i32>,
    multipliers: Vec<f32>,
    /// By column of all panels; empty when all are 0.
    weight_zeros: Vec<i32>,
}

/// Bytes of a cache line.
const LINE: usize = 64;

/// Weights begin on a cache line.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Line(#[allow(dead_code, reason = "read through pointers")] [i8; LINE]);

#[derive(Clone, Debug)]
struct PanelAt {
    line: usize,
    offsets: Range<usize>,
    /// The first output channel, and how many.
    channel: usize,
    columns: usize,
}

impl Gemm {
    pub(super) fn new<T: Tile>(isa: Isa, spec: &ConvSpec) -> Self {
        let geometry = spec.geometry;
        let depth = spec.depth();
        let padded_depth = depth.next_multiple_of(T::BLOCK);
        let direct = geometry.kernel == [1, 1]
            && geometry.stride == [1, 1]
            && geometry.pads == [0; 4]
            && (geometry.input.h, geometry.input.w) == (geometry.output.h, geometry.output.w)
            && depth == padded_depth;
        let mut gemm = Self {
            isa,
            run_tiles: Self::run_tiles::<T>,
            columns: Columns {
                geometry,
                padding: spec.input_zero as u8,
                stride: padded_depth,
            },
            sign: spec.sign,
            output: spec.output,
            direct,
            depth,
            padded_depth,
            panels: Vec::new(),
            weights: Vec::new(),
            offsets: Vec::new(),
            bias: Vec::new(),
            multipliers: Vec::new(),
            weight_zeros: Vec::new(),
        };
        let zeros = spec.weight_zeros.iter().any(|&zero| zero != 0);
        let group_outputs = geometry.output.c / geometry.groups;
        let mut weights = vec![0; T::COLUMNS * padded_depth];
        let panels = geometry.groups * group_outputs.div_ceil(T::COLUMNS);
        gemm.weights
            .reserve_exact(panels * weights.len().div_ceil(LINE));
        for group in 0..geometry.groups {
            for first in (0..group_outputs).step_by(T::COLUMNS) {
                let channel = group * group_outputs + first;
                let columns = T::COLUMNS.min(group_outputs - first);
                weights.fill(0);
                let rows = spec.weights[channel * depth..]
                    .chunks_exact(depth)
                    .take(columns);
                for (to, from) in weights.chunks_exact_mut(padded_depth).zip(rows) {
                    to[..depth].copy_from_slice(from);
                }
                let panel = T::pack(padded_depth, &weights);
                gemm.push_panel(panel, channel, columns);
                for column in 0..T::COLUMNS {
                    let o = channel + column;
                    let known = column < columns;
                    gemm.bias.push(if known { spec.folded_bias(o) } else { 0 });
                    gemm.multipliers
                        .push(if known { spec.multiplier(o) } else { 0.0 });
                    if zeros {
                        gemm.weight_zeros
                            .push(if known { spec.weight_zero(o) } else { 0 });
                    }
                }
            }
        }
        // Where weights were split there are more than expected.
        gemm.weights.shrink_to_fit();
        gemm
    }

    fn push_panel(&mut self, panel: Panel, channel: usize, columns: usize) {
        let (line, offset) = (self.weights.len(), self.offsets.len());
        let (lines, rest) = panel.weights.as_chunks();
        self.weights.extend(lines.iter().map(|line| Line(*line)));
        if !rest.is_empty() {
            let mut line = [0; LINE];
            line[..rest.len()].copy_from_slice(rest);
            self.weights.push(Line(line));
        }
        self.offsets.extend(panel.offsets);
        self.panels.push(PanelAt {
            line,
            offsets: offset..self.offsets.len(),
            channel,
            columns,
        });
    }

    pub(super) fn weight_bytes(&self) -> usize {
        size_of_val(&self.weights[..]) + size_of_val(&self.offsets[..])
    }

    pub(super) fn scratch_bytes(&self) -> usize {
        if self.direct {
            0
        } else {
            self.block_pixels() * self.padded_depth + SLACK
        }
    }

    /// Pixels that are worked on at a time.
    fn block_pixels(&self) -> usize {
        (BLOCK_BYTES / self.padded_depth).clamp(16, self.columns.geometry.output.pixels().max(16))
    }

    /// Fills `out` for the output pixels `pixels`.
    ///
    /// # Safety
    ///
    /// The processor has the instruction set that the weights are packed for; `out` is good for these pixels, and for
    /// the residual where there is one.
    pub(super) unsafe fn run(
        &self,
        input: &[u8],
        out: Out,
        scratch: &mut [u8],
        pixels: Range<usize>,
    ) {
        // SAFETY: as the caller says.
        unsafe { (self.run_tiles)(self, input, out, scratch, pixels) }
    }

    unsafe fn run_tiles<T: Tile>(
        &self,
        input: &[u8],
        out: Out,
        scratch: &mut [u8],
        pixels: Range<usize>,
    ) {
        const { assert!(T::ROWS * T::COLUMNS <= MAX_SUMS) };
        let geometry = &self.columns.geometry;
        let panels = self.panels.len() / geometry.groups;
        let blocks = pixels.len().div_ceil(self.block_pixels());
        for group in 0..geometry.groups {
            for block in even_parts(pixels.len(), blocks) {
                let block_pixels = pixels.start + block.start..pixels.start + block.end;
                let (rows, stride) = if self.direct {
                    let first = block_pixels.start * geometry.input.c + group * self.depth;
                    (&input[first..], geometry.input.c)
                } else {
                    let rows = &mut scratch[..block.len() * self.padded_depth + SLACK];
                    self.columns.fill(input, group, block_pixels, rows);
                    (&*rows, self.padded_depth)
                };
                for panel in group * panels..(group + 1) * panels {
                    for tile in even_parts(block.len(), block.len().div_ceil(T::ROWS)) {
                        let row = block.start + tile.start;
                        let a = &rows[tile.start * stride..];
                        // SAFETY: the rows of the tile are in `a` up to the padded depth, and its pixels are in `out`.
                        unsafe { self.tile::<T>(panel, a, stride, tile.len(), row, out) };
                    }
                }
            }
        }
    }

    /// # Safety
    ///
    /// As for `run`; `a` holds `rows` rows; `out` holds `row + rows` pixels.
    unsafe fn tile<T: Tile>(
        &self,
        panel: usize,
        a: &[u8],
        stride: usize,
        rows: usize,
        row: usize,
        out: Out,
    ) {
        debug_assert!(a.len() >= (rows - 1) * stride + self.padded_depth);
        let at = &self.panels[panel];
        let channels = self.columns.geometry.output.c;
        let column = panel * T::COLUMNS;
        let place = row * channels + at.channel;
        let bias = &self.bias[column..column + T::COLUMNS];
        // Not cleared for each tile.
        let mut own = [const { MaybeUninit::uninit() }; MAX_SUMS];
        let (bias, bias_stride) = match self.weight_zeros.get(column..column + T::COLUMNS) {
            None => (bias.as_ptr(), 0),
            Some(zeros) => {
                let own = &mut own[..rows * T::COLUMNS];
                self.isa
                    .vectorize(|| self.correct(a, stride, zeros, bias, own));
                (own.as_ptr().cast(), T::COLUMNS)
            }
        };
        let call = |target| Call {
            a: a.as_ptr(),
            a_stride: stride,
            rows,
            depth: self.padded_depth,
            weights: self.weights[at.line..].as_ptr().cast(),
            offsets: &self.offsets[at.offsets.clone()],
            bias,
            bias_stride,
            target,
        };
        let multipliers = &self.multipliers[column..column + T::COLUMNS];
        // SAFETY: the place is in the output, whose pixels hold all channels; the residual has as many bytes; the bias is the
        // panel's, or that of each row, which `correct` has filled in; a tile reads and writes only what the call says.
        unsafe {
            match (&self.output, out) {
                (Output::Quantized(quantization, residual), Out::Bytes(out, other)) => {
                    T::run(&call(Target::Bytes(Bytes {
                        out: out.add(place),
                        stride: channels,
                        columns: at.columns,
                        multipliers: multipliers.as_ptr(),
                        quantization: *quantization,
                        residual: residual
                            .as_ref()
                            .map(|residual| (other.add(place), residual)),
                    })));
                }
                (_, Out::Floats(out)) => {
                    let mut sums = [0; MAX_SUMS];
                    T::run(&call(Target::Sums(sums.as_mut_ptr())));
                    for (r, sums) in sums.chunks_exact(T::COLUMNS).take(rows).enumerate() {
                        let out =
                            slice::from_raw_parts_mut(out.add(place + r * channels), at.columns);
                        for ((out, &sum), m) in out.iter_mut().zip(sums).zip(multipliers) {
                            *out = sum as f32 * m;
                        }
                    }
                }
                (Output::Float, Out::Bytes(..)) => unreachable!("checked by Conv::run"),
            }
        }
    }

    /// Fills in the bias of each row and column, corrected for the weights' zero points: `Σ x·(w - zero) = Σ x·w - zero·Σ x`. Inlined
    /// where the instruction set is known.
    #[inline(always)]
    fn correct(
        &self,
        a: &[u8],
        stride: usize,
        zeros: &[i32],
        bias: &[i32],
        own: &mut [MaybeUninit<i32>],
    ) {
        let mask = self.sign.order_mask();
        for (row, own) in own.chunks_exact_mut(zeros.len()).enumerate() {
            let bytes = a[row * stride..][..self.depth].iter();
            // Counted from the least number, then from zero.
            let total = bytes.fold(0_i32, |total, byte| {
                total.wrapping_add(i32::from(byte ^ mask))
            });
            let total = total.wrapping_add(self.sign.min().wrapping_mul(self.depth as i32));
            for ((own, bias), zero) in own.iter_mut().zip(bias).zip(zeros) {
                own.write(bias.wrapping_sub(zero.wrapping_mul(total)));
            }
        }
    }
}

/// Where a run writes, and the residual it reads.
#[derive(Clone, Copy)]
pub(super) enum Out {
    Bytes(*mut u8, *const u8),
    Floats(*mut f32),
}

/// `length` cut into parts that differ by one at most.
fn even_parts(length: usize, parts: usize) -> impl Iterator<Item = Range<usize>> {
    (0..parts).map(move |part| part * length / parts..(part + 1) * length / parts)
}
