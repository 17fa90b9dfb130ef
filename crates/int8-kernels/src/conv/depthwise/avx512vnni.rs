//! AVX512-VNNI: 64 channels at a time; the bytes of four taps lie side by side for `vpdpbusd`.

use std::{arch::x86_64::*, ops::Range};

use super::{
    blocks::Blocks,
    taps::{MAX_TAPS, Taps},
};
use crate::{
    Geometry, Quantization,
    conv::{
        ConvSpec,
        tile::avx512vnni::{Scale, narrow},
    },
};

/// Channels computed at once.
const LANES: usize = 64;
/// Taps multiplied at once.
const GROUP: usize = 4;

/// A depthwise convolution. Its weights less their zero points are s8, or sums of two s8.
#[derive(Clone, Debug)]
pub(in super::super) struct Avx512Vnni {
    geometry: Geometry,
    /// A pixel of zero points.
    outside: Vec<u8>,
    /// Summands of a weight.
    parts: usize,
    /// A channel's weights by groups of taps, then by summand; the channels in the order of [`channel`].
    blocks: Blocks<[i8; GROUP], LANES>,
}

/// The channel of a lane: `vpunpck` takes 16 channels a quarter of the register, and leaves four of them in each of four
/// registers.
fn channel(lane: usize) -> usize {
    let (register, lane) = (lane / 16, lane % 16);
    lane / 4 * 16 + register * 4 + lane % 4
}

impl Avx512Vnni {
    /// `None` if a weight less its zero point is 255, or the window is too large.
    pub(in super::super) fn new(spec: &ConvSpec) -> Option<Self> {
        let taps = spec.geometry.taps();
        let channels = spec.geometry.output.c;
        let weight =
            |c: usize, tap: usize| i32::from(spec.weights[c * taps + tap]) - spec.weight_zero(c);
        let all = || (0..channels).flat_map(|c| (0..taps).map(move |tap| weight(c, tap)));
        if taps > MAX_TAPS || all().any(|w| w == 255) {
            return None;
        }
        let parts = 1 + usize::from(all().any(|w| i8::try_from(w).is_err()));
        let summands = |c: usize, at: usize| {
            std::array::from_fn(|i| {
                let tap = at / parts * GROUP + i;
                let w = if tap < taps { weight(c, tap) } else { 0 };
                let first = w.clamp(-128, 127);
                [first, w - first][at % parts] as i8
            })
        };
        let each = taps.div_ceil(GROUP) * parts;
        let blocks = Blocks::new(spec, each, summands, |c| spec.folded_bias(c));
        Some(Self {
            geometry: spec.geometry,
            outside: vec![spec.input_zero as u8; channels],
            parts,
            blocks: blocks.reordered(channel),
        })
    }

    pub(in super::super) fn weight_bytes(&self) -> usize {
        self.blocks.weight_bytes()
    }

    /// Fills `out` with bytes, from activations of u8.
    ///
    /// # Safety
    ///
    /// The processor has the instruction set; `input` is the whole picture; `out` holds `pixels`.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    pub(in super::super) unsafe fn run(
        &self,
        input: &[u8],
        out: &mut [u8],
        pixels: Range<usize>,
        quantization: Quantization,
    ) {
        let scale = Scale::new(quantization);
        let channels = self.geometry.output.c;
        let mut taps = Taps::new(&self.geometry, input, &self.outside);
        for (out, pixel) in out.chunks_exact_mut(channels).zip(pixels) {
            let taps = taps.at(pixel).as_chunks::<GROUP>().0;
            for (block, (weights, bias, multipliers)) in self.blocks.iter().enumerate() {
                let first = block * LANES;
                let mask = u64::MAX >> (LANES - (channels - first).min(LANES));
                // SAFETY: of a tap, the channels from `first` on that the mask lets through are there, and so they are in
                // `out`; bias, multipliers and weights have 64 lanes.
                unsafe {
                    let mut sums: [__m512i; 4] =
                        std::array::from_fn(|i| _mm512_loadu_si512(bias[16 * i..].as_ptr().cast()));
                    for (taps, weights) in taps.iter().zip(weights.chunks_exact(self.parts)) {
                        let [a, b, c, d] =
                            taps.map(|tap| _mm512_maskz_loadu_epi8(mask, tap.add(first).cast()));
                        let (ab, cd) = (_mm512_unpacklo_epi8(a, b), _mm512_unpacklo_epi8(c, d));
                        let (high_ab, high_cd) =
                            (_mm512_unpackhi_epi8(a, b), _mm512_unpackhi_epi8(c, d));
                        let numbers = [
                            _mm512_unpacklo_epi16(ab, cd),
                            _mm512_unpackhi_epi16(ab, cd),
                            _mm512_unpacklo_epi16(high_ab, high_cd),
                            _mm512_unpackhi_epi16(high_ab, high_cd),
                        ];
                        for weights in weights {
                            for i in 0..4 {
                                let weights = _mm512_loadu_si512(weights[16 * i..].as_ptr().cast());
                                sums[i] = _mm512_dpbusd_epi32(sums[i], numbers[i], weights);
                            }
                        }
                    }
                    let numbers = std::array::from_fn(|i| {
                        let multipliers = _mm512_loadu_ps(multipliers[16 * i..].as_ptr());
                        scale.quantize(_mm512_mul_ps(_mm512_cvtepi32_ps(sums[i]), multipliers))
                    });
                    let bytes = narrow(numbers, scale.zero);
                    let out = out[first..].as_mut_ptr();
                    if mask == u64::MAX {
                        _mm512_storeu_si512(out.cast(), bytes);
                    } else {
                        _mm512_mask_storeu_epi8(out.cast(), mask, bytes);
                    }
                }
            }
        }
    }
}
