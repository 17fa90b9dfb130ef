//! Depthwise convolution: every channel has a window of its own. Sums of a pixel's channels run side by side. The portable
//! loop is for what the instruction sets' own do not take: floats, and windows of many taps.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512vnni;
mod blocks;
#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "x86_64")]
mod taps;

use std::ops::Range;

use super::ConvSpec;
use crate::{Geometry, Isa, Quantization, Residual, Sign, isa::Work};
use blocks::Blocks;

/// Channels whose sums are kept in registers.
const LANES: usize = 16;

#[derive(Clone, Debug)]
pub(super) enum Depthwise {
    Portable(Portable),
    #[cfg(target_arch = "x86_64")]
    Avx2(avx2::Avx2),
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni(avx512vnni::Avx512Vnni),
}

impl Depthwise {
    /// Takes convolutions with one input and one output channel a group.
    pub(super) fn fits(geometry: &Geometry) -> bool {
        geometry.groups > 1
            && geometry.input.c == geometry.groups
            && geometry.output.c == geometry.groups
    }

    pub(super) fn new(isa: Isa, spec: &ConvSpec) -> Self {
        #[cfg(target_arch = "x86_64")]
        if let super::Output::Quantized(_, residual) = spec.output {
            let avx512 = || avx512vnni::Avx512Vnni::new(spec).map(Self::Avx512Vnni);
            let avx2 = || avx2::Avx2::new(spec).map(Self::Avx2);
            let packed = match isa {
                Isa::Avx512Vnni if residual.is_none() => avx512().or_else(avx2),
                Isa::Avx512Vnni | Isa::Avx2 => avx2(),
                _ => None,
            };
            if let Some(packed) = packed {
                return packed;
            }
        }
        Self::Portable(Portable::new(isa, spec))
    }

    pub(super) fn weight_bytes(&self) -> usize {
        match self {
            Self::Portable(kernel) => kernel.blocks.weight_bytes(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(kernel) => kernel.weight_bytes(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vnni(kernel) => kernel.weight_bytes(),
        }
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
        match self {
            Self::Portable(kernel) => kernel.run(input, out, pixels, quantization, residual),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(kernel) => {
                // SAFETY: `Conv::new` checked that the processor has the instruction set, and `Conv::run` the lengths.
                unsafe { kernel.run(input, out, pixels, quantization, residual) }
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vnni(kernel) => {
                // SAFETY: as above.
                unsafe { kernel.run(input, out, pixels, quantization) }
            }
        }
    }

    /// Fills `out` with floats.
    pub(super) fn run_float(&self, input: &[u8], out: &mut [f32], pixels: Range<usize>) {
        match self {
            Self::Portable(kernel) => kernel.isa.vectorize(Run {
                kernel,
                input,
                pixels,
                write: Floats { out },
            }),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) | Self::Avx512Vnni(_) => unreachable!("made for bytes alone"),
        }
    }
}

/// The portable loop, which has NEON's weights too.
#[derive(Clone, Debug)]
pub(super) struct Portable {
    geometry: Geometry,
    sign: Sign,
    isa: Isa,
    input_zero: i16,
    /// A channel's weights by tap, less their zero points.
    blocks: Blocks<i16, LANES>,
}

impl Portable {
    fn new(isa: Isa, spec: &ConvSpec) -> Self {
        let taps = spec.geometry.taps();
        let weight = |c: usize, tap: usize| {
            i16::from(spec.weights[c * taps + tap]) - spec.weight_zero(c) as i16
        };
        let bias = |c: usize| spec.bias.get(c).copied().unwrap_or(0);
        Self {
            geometry: spec.geometry,
            sign: spec.sign,
            isa,
            input_zero: spec.input_zero as i16,
            blocks: Blocks::new(spec, taps, weight, bias),
        }
    }

    fn run(
        &self,
        input: &[u8],
        out: &mut [u8],
        pixels: Range<usize>,
        quantization: Quantization,
        residual: Option<(&[u8], Residual)>,
    ) {
        #[cfg(target_arch = "aarch64")]
        if self.isa != Isa::Generic {
            // SAFETY: `Conv::new` checked that the processor has the instruction set, and `Conv::run` the lengths.
            return unsafe { neon::run(self, input, out, pixels, quantization, residual) };
        }
        let kernel = self;
        match residual {
            None => self.isa.vectorize(Run {
                kernel,
                input,
                pixels,
                write: Bytes { out, quantization },
            }),
            Some((other, residual)) => self.isa.vectorize(Run {
                kernel,
                input,
                pixels,
                write: Sums {
                    out,
                    quantization,
                    other,
                    residual,
                },
            }),
        }
    }
}

/// What becomes of the values of some neighbouring channels. `at` is counted from the first pixel.
trait Write {
    /// Is `#[inline(always)]`: see [`Work`].
    fn write(&mut self, at: usize, values: &[f32]);
}

struct Bytes<'a> {
    out: &'a mut [u8],
    quantization: Quantization,
}

impl Write for Bytes<'_> {
    #[inline(always)]
    fn write(&mut self, at: usize, values: &[f32]) {
        for (out, &value) in self.out[at..].iter_mut().zip(values) {
            *out = self.quantization.quantize(value);
        }
    }
}

/// With the addition that follows.
struct Sums<'a> {
    out: &'a mut [u8],
    quantization: Quantization,
    other: &'a [u8],
    residual: Residual,
}

impl Write for Sums<'_> {
    #[inline(always)]
    fn write(&mut self, at: usize, values: &[f32]) {
        let out = self.out[at..].iter_mut().zip(values);
        for ((out, &value), &other) in out.zip(&self.other[at..]) {
            *out = self.residual.byte(self.quantization, value, other);
        }
    }
}

struct Floats<'a> {
    out: &'a mut [f32],
}

impl Write for Floats<'_> {
    #[inline(always)]
    fn write(&mut self, at: usize, values: &[f32]) {
        self.out[at..at + values.len()].copy_from_slice(values);
    }
}

/// A run over some pixels.
struct Run<'a, W> {
    kernel: &'a Portable,
    input: &'a [u8],
    pixels: Range<usize>,
    write: W,
}

impl<W: Write> Work for Run<'_, W> {
    type Output = ();

    #[inline(always)]
    fn run(mut self) {
        let Portable {
            geometry,
            sign,
            input_zero,
            blocks,
            ..
        } = self.kernel;
        let channels = geometry.output.c;
        // A byte of s8 is that of u8 with its top bit flipped, and counts 128 more.
        let (flip, zero) = match sign {
            Sign::U8 => (0, *input_zero),
            Sign::S8 => (0x80, input_zero + 128),
        };
        for (row, pixel) in self.pixels.enumerate() {
            for (block, (weights, bias, multipliers)) in blocks.iter().enumerate() {
                let first = block * LANES;
                let mut sums = *bias;
                for (tap, at) in geometry.window_at(pixel) {
                    let from = &self.input[at * channels + first..];
                    let mut lanes = [0; LANES];
                    match from.first_chunk() {
                        Some(whole) => lanes = *whole,
                        None => lanes[..from.len()].copy_from_slice(from),
                    }
                    // Lanes after the last channel have weights of 0.
                    for lane in 0..LANES {
                        let x = i16::from(lanes[lane] ^ flip) - zero;
                        sums[lane] =
                            sums[lane].wrapping_add(i32::from(x) * i32::from(weights[tap][lane]));
                    }
                }
                let mut values = [0.0; LANES];
                for lane in 0..LANES {
                    values[lane] = sums[lane] as f32 * multipliers[lane];
                }
                let count = LANES.min(channels - first);
                self.write.write(row * channels + first, &values[..count]);
            }
        }
    }
}
