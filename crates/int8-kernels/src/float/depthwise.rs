//! Depthwise convolution with weights that stayed floats, and the function after it.

use std::ops::Range;

use super::rows::{Layout, MAX_ROWS, Rows, rows_of};
use super::vector::{FloatWork, Floats, Pair, lanes, vectorize};
use super::{FloatOutput, Function, Writer, check_finite};
use crate::lookup::{FloatLut, Numbers};
use crate::{Geometry, Isa, KernelError, Sign, error::check_len};

/// Output pixels that are computed side by side: each weight is read once for them, and none waits for its own last sum.
const PIXELS: usize = 8;

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
    numbers: FloatLut,
    /// By tap, then by channel, rounded up to whole vectors.
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

impl FloatWork for Run<'_> {
    #[inline(always)]
    fn run<F: Floats>(self) {
        match self.conv.function {
            Function::Identity => self.rows::<F, IDENTITY>(),
            Function::Sigmoid => self.rows::<F, SIGMOID>(),
            Function::Silu => self.rows::<F, SILU>(),
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
            lanes: lanes(isa),
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
            numbers: FloatLut::new(isa, spec.numbers),
            weights,
            bias,
            function: spec.function,
            writer: spec.output.writer(),
        })
    }

    /// Bytes of scratch that a run needs; a thread's scratch may be larger.
    pub fn scratch_bytes(&self) -> usize {
        self.layout.scratch_bytes()
            + self.geometry.output.w * self.layout.pixel() * size_of::<f32>()
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
        let run = Run {
            conv: self,
            input,
            out,
            scratch,
            pixels,
        };
        vectorize(self.isa, run);
        Ok(())
    }
}

impl Run<'_> {
    #[inline(always)]
    fn rows<F: Floats, const FUNCTION: u8>(self) {
        let Self {
            conv,
            input,
            mut out,
            scratch,
            pixels,
        } = self;
        let Geometry {
            kernel,
            stride,
            dilation,
            pads,
            output,
            ..
        } = conv.geometry;
        let (mut rows, sums) = Rows::new(&conv.layout, &conv.numbers, input, scratch);
        let pixel = conv.layout.pixel();
        for (y, columns) in rows_of(pixels, output.w) {
            let top = (y * stride[0]) as isize - pads[0] as isize;
            let taps = |tap: usize| top + (tap * dilation[0]) as isize;
            (0..kernel[0]).for_each(|tap| rows.load(taps(tap)));
            let mut window = [&[][..]; MAX_ROWS];
            let window = &mut window[..kernel[0]];
            for (tap, row) in window.iter_mut().enumerate() {
                *row = rows.row(taps(tap));
            }
            let count = columns.len();
            if count < PIXELS {
                for (x, sums) in columns.zip(sums.chunks_exact_mut(pixel)) {
                    conv.sums::<F, 1>(window, x, sums);
                }
            } else {
                // The last group begins earlier, and some sums are computed again.
                let groups = (0..count).step_by(PIXELS);
                for at in groups.map(|at| at.min(count - PIXELS)) {
                    let sums = &mut sums[at * pixel..];
                    conv.sums::<F, PIXELS>(window, columns.start + at, sums);
                }
            }
            let line = out.split_off_mut(..count * output.c);
            let line = line.expect("`out` holds all pixels");
            if pixel == output.c {
                conv.finish::<F, FUNCTION>(sums, line);
            } else {
                let pixels = line.chunks_exact_mut(output.c);
                for (sums, out) in sums.chunks_exact(pixel).zip(pixels) {
                    conv.finish::<F, FUNCTION>(sums, out);
                }
            }
        }
    }
}

impl FloatDepthwise {
    /// The sums of `N` neighbouring output pixels, from column `x` on.
    #[inline(always)]
    fn sums<F: Floats, const N: usize>(&self, window: &[&[f32]], x: usize, out: &mut [f32]) {
        let Geometry {
            kernel,
            stride,
            dilation,
            ..
        } = self.geometry;
        let pixel = self.layout.pixel();
        let out = &mut out[..N * pixel];
        let step = stride[1] * pixel;
        for first in (0..pixel).step_by(F::LANES) {
            let mut sums = [F::all(0.0); N];
            let mut taps = self.weights[first..].chunks(pixel);
            for row in window {
                for (tap, weights) in (0..kernel[1]).zip(&mut taps) {
                    let weights = &weights[..F::LANES];
                    let values = &row[x * step + tap * dilation[1] * pixel + first..];
                    let values = &values[..(N - 1) * step + F::LANES];
                    // SAFETY: both are as long as is read here.
                    unsafe {
                        let weights = F::read(weights.as_ptr());
                        for (n, sum) in sums.iter_mut().enumerate() {
                            let values = F::read(values.as_ptr().add(n * step));
                            *sum = values.multiply_add(weights, *sum);
                        }
                    }
                }
            }
            let bias = &self.bias[first..][..F::LANES];
            // SAFETY: both are as long as is read and written here.
            unsafe {
                let bias = F::read(bias.as_ptr());
                for (n, sum) in sums.into_iter().enumerate() {
                    sum.plus(bias).put(out.as_mut_ptr().add(n * pixel + first));
                }
            }
        }
    }

    /// The bytes of sums: as many as `out` has.
    #[inline(always)]
    fn finish<F: Floats, const FUNCTION: u8>(&self, sums: &[f32], out: &mut [u8]) {
        let paired = out.len() / (2 * F::LANES) * (2 * F::LANES);
        let (pairs, rest) = out.split_at_mut(paired);
        self.finish_all::<Pair<F>, FUNCTION>(sums, pairs);
        self.finish_all::<F, FUNCTION>(&sums[paired..], rest);
    }

    #[inline(always)]
    fn finish_all<F: Floats, const FUNCTION: u8>(&self, sums: &[f32], out: &mut [u8]) {
        for (sums, out) in sums.chunks_exact(F::LANES).zip(out.chunks_mut(F::LANES)) {
            // SAFETY: it is a vector.
            let sum = unsafe { F::read(sums.as_ptr()) };
            let value = match FUNCTION {
                SILU => Function::Silu.of_each(sum),
                SIGMOID => Function::Sigmoid.of_each(sum),
                _ => sum,
            };
            self.writer.write(value, out);
        }
    }
}
