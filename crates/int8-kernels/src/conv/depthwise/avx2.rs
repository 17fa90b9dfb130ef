//! AVX2: 16 channels at a time; two taps side by side for `vpmaddwd`.

use std::{arch::x86_64::*, ops::Range};

use super::{
    blocks::Blocks,
    taps::{MAX_TAPS, Taps},
};
use crate::{
    Geometry, Quantization, Residual,
    conv::{
        ConvSpec,
        tile::{
            Bytes,
            avx2::{load, write},
        },
    },
};

/// Channels computed at once.
const LANES: usize = 16;
/// Taps multiplied at once.
const GROUP: usize = 2;

/// A depthwise convolution.
#[derive(Clone, Debug)]
pub(in super::super) struct Avx2 {
    geometry: Geometry,
    /// A pixel of zero points.
    outside: Vec<u8>,
    /// A channel's weights by groups of taps, less their zero points.
    blocks: Blocks<[i16; GROUP], LANES>,
}

impl Avx2 {
    /// `None` if the window is too large.
    pub(in super::super) fn new(spec: &ConvSpec) -> Option<Self> {
        let taps = spec.geometry.taps();
        if taps > MAX_TAPS {
            return None;
        }
        let group = |c: usize, group: usize| {
            std::array::from_fn(|i| match group * GROUP + i {
                tap if tap < taps => {
                    i16::from(spec.weights[c * taps + tap]) - spec.weight_zero(c) as i16
                }
                _ => 0,
            })
        };
        let groups = taps.div_ceil(GROUP);
        Some(Self {
            geometry: spec.geometry,
            outside: vec![spec.input_zero as u8; spec.geometry.input.c],
            blocks: Blocks::new(spec, groups, group, |c| spec.folded_bias(c)),
        })
    }

    pub(in super::super) fn weight_bytes(&self) -> usize {
        self.blocks.weight_bytes()
    }

    /// Fills `out` with bytes, from activations of u8.
    ///
    /// # Safety
    ///
    /// The processor has the instruction set; `input` is the whole picture; `out`, and the residual where there is one, hold
    /// `pixels`.
    #[target_feature(enable = "avx2,fma")]
    pub(in super::super) unsafe fn run(
        &self,
        input: &[u8],
        out: &mut [u8],
        pixels: Range<usize>,
        quantization: Quantization,
        residual: Option<(&[u8], Residual)>,
    ) {
        let channels = self.geometry.output.c;
        let mut taps = Taps::new(&self.geometry, input, &self.outside);
        for (row, pixel) in pixels.enumerate() {
            let taps = taps.at(pixel).as_chunks::<GROUP>().0;
            for (block, (weights, bias, multipliers)) in self.blocks.iter().enumerate() {
                let first = block * LANES;
                let columns = (channels - first).min(LANES);
                let place = row * channels + first;
                // SAFETY: of a tap, so many channels are there from `first` on, and so they are in `out` and in the residual;
                // bias, multipliers and weights have 16 lanes.
                unsafe {
                    let bias = bias.as_ptr().cast();
                    let mut sums = [[_mm256_loadu_si256(bias), _mm256_loadu_si256(bias.add(1))]];
                    for (taps, weights) in taps.iter().zip(weights) {
                        let [a, b] = taps.map(|tap| load(tap.add(first), columns));
                        let halves = [_mm_unpacklo_epi8(a, b), _mm_unpackhi_epi8(a, b)];
                        for (i, half) in halves.into_iter().enumerate() {
                            let weights = _mm256_loadu_si256(weights[8 * i..].as_ptr().cast());
                            let products = _mm256_madd_epi16(_mm256_cvtepu8_epi16(half), weights);
                            sums[0][i] = _mm256_add_epi32(sums[0][i], products);
                        }
                    }
                    write(
                        &sums,
                        &Bytes {
                            out: out[place..place + columns].as_mut_ptr(),
                            stride: channels,
                            columns,
                            multipliers: multipliers.as_ptr(),
                            quantization,
                            residual: residual
                                .as_ref()
                                .map(|(other, residual)| (other[place..].as_ptr(), residual)),
                        },
                    );
                }
            }
        }
    }
}
