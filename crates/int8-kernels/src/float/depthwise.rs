//! Depthwise convolution with weights that stayed floats, and the function after it.

use std::ops::Range;

use super::rows::{Layout, MAX_ROWS, Rows, lanes, rows_of};
use super::{FloatOutput, Function, LANES, Numbers, Writer, check_finite, multiply_add};
use crate::{Geometry, Isa, KernelError, Sign, error::check_len, isa::Work};

/// Output pixels that are computed side by side: each weight is read once for them.
const PIXELS: usize = 4;

/// What a float depthwise convolution computes: `function(Σ x · w + bias)`, quantized. Padding counts as 0.
#[derive(Clone, Copy, Debug)]
pub struct FloatDepthwiseSpec<'a> {
    /// Shapes, strides, padding; as many groups as channels.
    pub geometry: Geometry,
    /// The sign of the output.
    pub sign: Sign,
    /// What the input's bytes stand for.
    pub numbers: &'a Numbers,
    /// `[channels, kernel rows, kernel columns]`.
    pub weights: &'a [f32],
    /// One a channel, or none.
    pub bias: &'a [f32],
    /// What is done to each sum.
    pub function: Function,
    /// How it is written.
    pub output: FloatOutput,
}

/// A float depthwise convolution ready to run.
#[derive(Clone, Debug)]
pub struct FloatDepthwise {
    isa: Isa,
    geometry: Geometry,
    layout: Layout,
    numbers: Numbers,
    /// By tap, then by channel, rounded up to whole lanes.
    weights: Vec<f32>,
    bias: Vec<f32>,
    function: Function,
    writer: Writer,
}

struct Run<'a> {
    conv: &'a FloatDepthwise,
    input: &'a [u8],
    out: &'a mut [u8],
    scratch: &'a mut [u8],
    pixels: Range<usize>,
}

impl Work for Run<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self {
            conv,
            input,
            out,
            scratch,
            pixels,
        } = self;
        match conv.function {
            Function::Identity => conv.rows::<IDENTITY>(input, out, scratch, pixels),
            Function::Sigmoid => conv.rows::<SIGMOID>(input, out, scratch, pixels),
            Function::Silu => conv.rows::<SILU>(input, out, scratch, pixels),
        }
    }
}

// [`Function`]s as numbers, which the compiler can make a loop of its own for.
const IDENTITY: u8 = 0;
const SIGMOID: u8 = 1;
const SILU: u8 = 2;

impl FloatDepthwise {
    /// The most rows that a window may reach over.
    pub const MAX_ROWS: usize = MAX_ROWS;

    /// Checks the numbers and lays out the weights.
    pub fn new(isa: Isa, spec: &FloatDepthwiseSpec) -> Result<Self, KernelError> {
        let geometry = spec.geometry;
        isa.check(spec.sign)?;
        geometry.check()?;
        spec.output.check(spec.sign)?;
        let (channels, taps) = (geometry.output.c, geometry.taps());
        if geometry.input.c != channels || geometry.groups != channels {
            return Err(KernelError::Geometry(format!(
                "{} groups are not one for each of {} input and {channels} output channels",
                geometry.groups, geometry.input.c
            )));
        }
        check_len("weights", channels * taps, spec.weights.len())?;
        if !spec.bias.is_empty() {
            check_len("bias", channels, spec.bias.len())?;
        }
        check_finite("the weights", spec.weights)?;
        check_finite("the bias", spec.bias)?;
        check_finite("the numbers of the input", spec.numbers)?;
        let reach = |axis: usize| (geometry.kernel[axis] - 1) * geometry.dilation[axis];
        let rows = reach(0) + 1;
        if rows > MAX_ROWS {
            return Err(KernelError::Geometry(format!(
                "a window of {rows} rows is taller than {MAX_ROWS}"
            )));
        }
        let last = (geometry.output.w - 1) * geometry.stride[1] + reach(1);
        let left = geometry.pads[1];
        let layout = Layout {
            input: geometry.input,
            left,
            right: (last + 1).saturating_sub(left + geometry.input.w),
            rows,
        };
        let pixel = layout.pixel();
        let mut weights = vec![0.0; taps * pixel];
        for (channel, window) in spec.weights.chunks_exact(taps).enumerate() {
            for (tap, weight) in window.iter().enumerate() {
                weights[tap * pixel + channel] = *weight;
            }
        }
        let mut bias = spec.bias.to_vec();
        bias.resize(pixel, 0.0);
        Ok(Self {
            isa,
            geometry,
            layout,
            numbers: *spec.numbers,
            weights,
            bias,
            function: spec.function,
            writer: spec.output.writer(),
        })
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
        self.geometry.check_run(input, out.len(), &pixels)?;
        if scratch.len() < self.scratch_bytes() {
            return check_len("scratch", self.scratch_bytes(), scratch.len());
        }
        self.isa.vectorize(Run {
            conv: self,
            input,
            out,
            scratch,
            pixels,
        });
        Ok(())
    }

    #[inline(always)]
    fn rows<const FUNCTION: u8>(
        &self,
        input: &[u8],
        out: &mut [u8],
        scratch: &mut [u8],
        pixels: Range<usize>,
    ) {
        let Geometry {
            kernel,
            stride,
            dilation,
            pads,
            output,
            ..
        } = self.geometry;
        let mut rows = Rows::new(&self.layout, &self.numbers, input, scratch);
        let mut out = out;
        for (y, columns) in rows_of(pixels, output.w) {
            let top = (y * stride[0]) as isize - pads[0] as isize;
            for tap in 0..kernel[0] {
                rows.load(top + (tap * dilation[0]) as isize);
            }
            let (line, rest) = out.split_at_mut(columns.len() * output.c);
            out = rest;
            let mut x = columns.start;
            let mut groups = line.chunks_exact_mut(PIXELS * output.c);
            for group in &mut groups {
                self.pixels::<PIXELS, FUNCTION>(&rows, top, x, group);
                x += PIXELS;
            }
            for group in groups.into_remainder().chunks_exact_mut(output.c) {
                self.pixels::<1, FUNCTION>(&rows, top, x, group);
                x += 1;
            }
        }
    }

    /// `N` neighbouring output pixels, from column `x` on.
    #[inline(always)]
    fn pixels<const N: usize, const FUNCTION: u8>(
        &self,
        rows: &Rows<'_>,
        top: isize,
        x: usize,
        out: &mut [u8],
    ) {
        let Geometry {
            kernel,
            stride,
            dilation,
            output,
            ..
        } = self.geometry;
        let pixel = self.layout.pixel();
        for first in (0..output.c).step_by(LANES) {
            let mut sums = [[0.0; LANES]; N];
            for tap_y in 0..kernel[0] {
                let row = rows.row(top + (tap_y * dilation[0]) as isize);
                for tap_x in 0..kernel[1] {
                    let tap = tap_y * kernel[1] + tap_x;
                    let weights = lanes(&self.weights, tap * pixel + first);
                    let column = x * stride[1] + tap_x * dilation[1];
                    for (n, sums) in sums.iter_mut().enumerate() {
                        let values = lanes(row, (column + n * stride[1]) * pixel + first);
                        for lane in 0..LANES {
                            sums[lane] = multiply_add(values[lane], weights[lane], sums[lane]);
                        }
                    }
                }
            }
            let bias = lanes(&self.bias, first);
            for (n, sums) in sums.iter().enumerate() {
                let mut bytes = [0; LANES];
                for lane in 0..LANES {
                    let sum = sums[lane] + bias[lane];
                    let value = match FUNCTION {
                        SILU => Function::Silu.of(sum),
                        SIGMOID => Function::Sigmoid.of(sum),
                        _ => sum,
                    };
                    bytes[lane] = self.writer.byte(value);
                }
                let out = &mut out[n * output.c + first..];
                match out.first_chunk_mut() {
                    Some(out) if first + LANES <= output.c => *out = bytes,
                    _ => {
                        let count = LANES.min(output.c - first);
                        out[..count].copy_from_slice(&bytes[..count]);
                    }
                }
            }
        }
    }
}
