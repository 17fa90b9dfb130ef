//! AVX512-VNNI: `vpdpbusd`, 6 pixels × 64 channels, or 12 pixels × 32 or 16 channels where a layer has no more.

use std::arch::x86_64::*;

use super::{Bytes, Call, Panel, Target, Tile, dispatch_rows};
use crate::Quantization;

/// A tile of VECTORS · 16 channels.
pub(in super::super) struct Avx512Vnni<const VECTORS: usize>;

// SAFETY: rows are read four bytes at a time up to the depth rounded up to BLOCK; weights as `pack` laid them out; the rest
// is in `write`.
unsafe impl<const VECTORS: usize> Tile for Avx512Vnni<VECTORS> {
    const ROWS: usize = if VECTORS > 2 { 6 } else { 12 };
    const COLUMNS: usize = 16 * VECTORS;
    const BLOCK: usize = 4;

    fn pack(depth: usize, weights: &[i8]) -> Panel {
        Panel::interleaved(Self::BLOCK, depth, weights)
    }

    unsafe fn run(call: &Call) {
        dispatch_rows!(tile, VECTORS; call, 1 2 3 4 5 6 7 8 9 10 11 12)
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn tile<const ROWS: usize, const VECTORS: usize>(call: &Call) {
    // SAFETY: the pointers are good as `Call` says.
    unsafe {
        let bias: [__m512i; VECTORS] =
            std::array::from_fn(|vector| _mm512_loadu_si512(call.bias.add(16 * vector).cast()));
        let mut sums = [bias; ROWS];
        let mut weights = call.weights.cast::<__m512i>();
        for k in (0..call.depth).step_by(4) {
            let w: [__m512i; VECTORS] =
                std::array::from_fn(|vector| _mm512_load_si512(weights.add(vector)));
            weights = weights.add(VECTORS);
            for (row, sums) in sums.iter_mut().enumerate() {
                let a = call
                    .a
                    .add(row * call.a_stride + k)
                    .cast::<i32>()
                    .read_unaligned();
                let a = _mm512_set1_epi32(a);
                for (sum, w) in sums.iter_mut().zip(w) {
                    *sum = _mm512_dpbusd_epi32(*sum, a, w);
                }
            }
        }
        match &call.target {
            Target::Bytes(bytes) => write(&sums, bytes),
            Target::Sums(out) => {
                for (at, sums) in sums.as_flattened().iter().enumerate() {
                    _mm512_storeu_si512(out.add(16 * at).cast(), *sums);
                }
            }
        }
    }
}

/// Quantizes and writes the rows of a tile.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn write<const ROWS: usize, const VECTORS: usize>(
    sums: &[[__m512i; VECTORS]; ROWS],
    bytes: &Bytes,
) {
    let scale = Scale::new(bytes.quantization);
    for vector in 0..VECTORS.min(bytes.columns.div_ceil(16)) {
        let columns = (bytes.columns - 16 * vector).min(16);
        let mask = (0xffff_u32 >> (16 - columns)) as __mmask16;
        // SAFETY: the pointers are good as `Bytes` says: a panel's multipliers are all there, and the mask keeps to the
        // columns of `out` and of the residual that are there.
        unsafe {
            let multipliers = _mm512_loadu_ps(bytes.multipliers.add(16 * vector));
            for (row, sums) in sums.iter().enumerate() {
                let at = row * bytes.stride + 16 * vector;
                let value = _mm512_mul_ps(_mm512_cvtepi32_ps(sums[vector]), multipliers);
                let number = match bytes.residual {
                    None => scale.quantize(value),
                    Some((other, residual)) => {
                        let other = _mm_maskz_loadu_epi8(mask, other.add(at).cast());
                        let zero = _mm512_set1_epi32(residual.other.zero);
                        let other =
                            _mm512_cvtepi32_ps(_mm512_sub_epi32(_mm512_cvtepu8_epi32(other), zero));
                        let other = _mm512_mul_ps(other, _mm512_set1_ps(residual.other.ratio));
                        let conv = _mm512_mul_ps(
                            scale.centered(value),
                            _mm512_set1_ps(residual.conv_ratio),
                        );
                        Scale::new(residual.output).quantize(_mm512_add_ps(conv, other))
                    }
                };
                _mm_mask_storeu_epi8(bytes.out.add(at).cast(), mask, _mm512_cvtepi32_epi8(number));
            }
        }
    }
}

/// A [`Quantization`] in registers.
struct Scale {
    zero: __m512i,
    min: __m512,
    max: __m512,
}

impl Scale {
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn new(quantization: Quantization) -> Self {
        Self {
            zero: _mm512_set1_epi32(quantization.zero),
            min: _mm512_set1_ps((quantization.min - quantization.zero) as f32),
            max: _mm512_set1_ps((quantization.max - quantization.zero) as f32),
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn held(&self, value: __m512) -> __m512 {
        _mm512_min_ps(_mm512_max_ps(value, self.min), self.max)
    }

    /// The quantized numbers less their zero point, as floats.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn centered(&self, value: __m512) -> __m512 {
        _mm512_cvtepi32_ps(_mm512_cvtps_epi32(self.held(value)))
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn quantize(&self, value: __m512) -> __m512i {
        _mm512_add_epi32(_mm512_cvtps_epi32(self.held(value)), self.zero)
    }
}
