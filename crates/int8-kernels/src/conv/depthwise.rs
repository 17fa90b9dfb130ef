//! Depthwise convolution: every channel has a window of its own. Sums of a pixel's channels run side by side; the
//! compiler vectorizes them, once for each instruction set that it knows more than the baseline of.

#[cfg(target_arch = "aarch64")]
mod neon;

use std::ops::Range;

use super::ConvSpec;
use crate::{Geometry, Isa, Quantization, Residual, Sign};

/// Channels whose sums are kept in registers.
const LANES: usize = 16;

#[derive(Clone, Debug)]
pub(super) struct Depthwise {
    geometry: Geometry,
    sign: Sign,
    isa: Isa,
    input_zero: i16,
    /// By blocks of LANES channels, then by tap; less their zero points.
    weights: Vec<[i16; LANES]>,
    bias: Vec<[i32; LANES]>,
    multipliers: Vec<[f32; LANES]>,
}

impl Depthwise {
    /// Takes convolutions with one input and one output channel a group.
    pub(super) fn fits(geometry: &Geometry) -> bool {
        geometry.groups > 1
            && geometry.input.c == geometry.groups
            && geometry.output.c == geometry.groups
    }

    pub(super) fn new(isa: Isa, spec: &ConvSpec) -> Self {
        let geometry = spec.geometry;
        let (channels, taps) = (geometry.output.c, geometry.taps());
        let mut depthwise = Self {
            geometry,
            sign: spec.sign,
            isa,
            input_zero: spec.input_zero as i16,
            weights: Vec::new(),
            bias: Vec::new(),
            multipliers: Vec::new(),
        };
        for first in (0..channels).step_by(LANES) {
            let lane = |i: usize| Some(first + i).filter(|&channel| channel < channels);
            for tap in 0..taps {
                depthwise.weights.push(std::array::from_fn(|i| {
                    lane(i).map_or(0, |c| {
                        i16::from(spec.weights[c * taps + tap]) - spec.weight_zero(c) as i16
                    })
                }));
            }
            depthwise.bias.push(std::array::from_fn(|i| {
                lane(i).and_then(|c| spec.bias.get(c).copied()).unwrap_or(0)
            }));
            depthwise.multipliers.push(std::array::from_fn(|i| {
                lane(i).map_or(0.0, |c| spec.multiplier(c))
            }));
        }
        depthwise
    }

    pub(super) fn weight_bytes(&self) -> usize {
        size_of_val(&self.weights[..])
    }

    /// Fills `out` with bytes. Lengths are checked by the caller.
    pub(super) fn run(
        &self,
        input: &[u8],
        out: &mut [u8],
        pixels: Range<usize>,
        quantization: Quantization,
        residual: Option<(&[u8], Residual)>,
    ) {
        #[cfg(target_arch = "aarch64")]
        if self.isa != Isa::Generic {
            // SAFETY: the constructor checked that the processor has the instruction set; the caller checked the lengths.
            return unsafe { neon::run(self, input, out, pixels, quantization, residual) };
        }
        self.values(input, pixels, |at, values| {
            let out = &mut out[at..];
            match residual {
                None => out
                    .iter_mut()
                    .zip(values)
                    .for_each(|(out, &value)| *out = quantization.quantize(value)),
                Some((other, residual)) => {
                    for ((out, &value), &other) in out.iter_mut().zip(values).zip(&other[at..]) {
                        *out = residual.add(quantization, value, self.sign.value(other));
                    }
                }
            }
        });
    }

    /// Fills `out` with floats.
    pub(super) fn run_float(&self, input: &[u8], out: &mut [f32], pixels: Range<usize>) {
        self.values(input, pixels, |at, values| {
            out[at..at + values.len()].copy_from_slice(values)
        });
    }

    /// Calls `write` with the place (counted from the first pixel) and the values of some neighbouring channels.
    #[inline(always)]
    fn values(&self, input: &[u8], pixels: Range<usize>, mut write: impl FnMut(usize, &[f32])) {
        self.isa.vectorize(|| match self.sign {
            Sign::U8 => self.values_of(input, pixels, i16::from, &mut write),
            Sign::S8 => self.values_of(input, pixels, |byte| i16::from(byte as i8), &mut write),
        });
    }

    #[inline(always)]
    fn values_of(
        &self,
        input: &[u8],
        pixels: Range<usize>,
        number: impl Fn(u8) -> i16,
        write: &mut impl FnMut(usize, &[f32]),
    ) {
        let (channels, taps) = (self.geometry.output.c, self.geometry.taps());
        for (row, pixel) in pixels.enumerate() {
            for (block, bias) in self.bias.iter().enumerate() {
                let first = block * LANES;
                let weights = &self.weights[block * taps..][..taps];
                let mut sums = *bias;
                for (tap, at) in self.geometry.window_at(pixel) {
                    let from = &input[at * channels + first..];
                    let mut lanes = [0; LANES];
                    match from.first_chunk() {
                        Some(whole) => lanes = *whole,
                        None => lanes[..from.len()].copy_from_slice(from),
                    }
                    // Lanes after the last channel have weights of 0.
                    for lane in 0..LANES {
                        let x = number(lanes[lane]) - self.input_zero;
                        sums[lane] =
                            sums[lane].wrapping_add(i32::from(x) * i32::from(weights[tap][lane]));
                    }
                }
                let multipliers = &self.multipliers[block];
                let values: [f32; LANES] =
                    std::array::from_fn(|lane| sums[lane] as f32 * multipliers[lane]);
                write(
                    row * channels + first,
                    &values[..LANES.min(channels - first)],
                );
            }
        }
    }
}
