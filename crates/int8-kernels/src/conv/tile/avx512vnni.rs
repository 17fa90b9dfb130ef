//! AVX512-VNNI: `vpdpbusd`, 6 pixels × 64 channels, or 12 pixels × 32 or 16 channels where a layer has no more.
//!
//! 24 sums, 4 weights and the activations, of which each is broadcast for the 4 products it meets, are 29 of the 32
//! registers. The compiler does not manage that without spilling: the loop is assembly.

use std::arch::{asm, x86_64::*};

use super::{Bytes, Call, Panel, Target, Tile, dispatch_rows};
use crate::{Quantization, Residual};

/// A tile of VECTORS · 16 channels.
pub(in super::super) struct Avx512Vnni<const VECTORS: usize>;

// SAFETY: rows are read four bytes at a time up to the depth rounded up to BLOCK; weights as `pack` laid them out; the rest
// is in `write`.
unsafe impl<const VECTORS: usize> Tile for Avx512Vnni<VECTORS> {
    const ROWS: usize = if VECTORS > 2 { 6 } else { 12 };
    const COLUMNS: usize = 16 * VECTORS;
    const BLOCK: usize = 4;

    fn pack(depth: usize, weights: &[i8]) -> Panel {
        Panel::interleaved::<4>(depth, weights)
    }

    unsafe fn run(call: &Call) {
        dispatch_rows!(tile, VECTORS; call, 1 2 3 4 5 6 7 8 9 10 11 12)
    }
}

/// The loop over k for the first `$count` of the rows, each given as (row, address, register of the activation, (vector,
/// sum, weights)…).
macro_rules! accumulate {
    ($count:expr, $call:ident $sums:ident $loads:tt; $($rows:tt)*) => {
        accumulate!(@first $count, $call $sums $loads; []; $($rows)*)
    };
    (@first $count:expr, $call:ident $sums:ident $loads:tt; [$($taken:tt)*];) => { unreachable!() };
    (@first $count:expr, $call:ident $sums:ident $loads:tt; [$($taken:tt)*]; $next:tt $($rest:tt)*) => {
        if $count == accumulate!(@count $($taken)* $next) {
            accumulate!(@loop $call $sums $loads; $($taken)* $next)
        } else {
            accumulate!(@first $count, $call $sums $loads; [$($taken)* $next]; $($rest)*)
        }
    };
    (@count) => { 0 };
    (@count $row:tt $($rest:tt)*) => { 1 + accumulate!(@count $($rest)*) };
    (@loop $call:ident $sums:ident [$(($at:literal $load:literal))*];
     $(($row:literal $address:literal $a:literal $(($vector:literal $sum:tt $w:literal))*))*) => {{
        asm!(
            "lea {a3}, [{a0} + 2*{stride}]",
            "add {a3}, {stride}",
            "lea {a6}, [{a3} + 2*{stride}]",
            "add {a6}, {stride}",
            "lea {a9}, [{a6} + 2*{stride}]",
            "add {a9}, {stride}",
            "2:",
            $(concat!("vmovdqa64 ", $load, ", zmmword ptr [{weights} + ", $at, "]"),)*
            "add {weights}, {line}",
            $(
                concat!("vpbroadcastd ", $a, ", dword ptr [", $address, "]"),
                $(concat!("vpdpbusd ", $sum, ", ", $a, ", ", $w),)*
            )*
            "add {a0}, 4",
            "add {a3}, 4",
            "add {a6}, 4",
            "add {a9}, 4",
            "dec {steps}",
            "jnz 2b",
            line = const 64 * accumulate!(@count $($at)*),
            steps = inout(reg) $call.depth / 4 => _,
            weights = inout(reg) $call.weights => _,
            a0 = inout(reg) $call.a => _,
            a3 = out(reg) _,
            a6 = out(reg) _,
            a9 = out(reg) _,
            stride = in(reg) $call.a_stride,
            $($(inout($sum) $sums[$row][$vector],)*)*
            out("zmm24") _, out("zmm25") _, out("zmm26") _, out("zmm27") _,
            out("zmm28") _, out("zmm29") _, out("zmm30") _, out("zmm31") _,
            options(readonly, nostack)
        )
    }};
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn tile<const ROWS: usize, const VECTORS: usize>(call: &Call) {
    // SAFETY: the pointers are good as `Call` says; those to rows beyond the tile's are not read.
    unsafe {
        let bias = |row: usize| -> [__m512i; VECTORS] {
            let bias = call.bias_of(row);
            std::array::from_fn(|vector| _mm512_loadu_si512(bias.add(16 * vector).cast()))
        };
        let mut sums = [bias(0); ROWS];
        if call.bias_stride > 0 {
            for (row, sums) in sums.iter_mut().enumerate().skip(1) {
                *sums = bias(row);
            }
        }
        match VECTORS {
            1 => accumulate!(ROWS, call sums [(0 "zmm24")];
                (0 "{a0}" "zmm28" (0 "zmm0" "zmm24"))
                (1 "{a0} + {stride}" "zmm29" (0 "zmm1" "zmm24"))
                (2 "{a0} + 2*{stride}" "zmm30" (0 "zmm2" "zmm24"))
                (3 "{a3}" "zmm31" (0 "zmm3" "zmm24"))
                (4 "{a3} + {stride}" "zmm28" (0 "zmm4" "zmm24"))
                (5 "{a3} + 2*{stride}" "zmm29" (0 "zmm5" "zmm24"))
                (6 "{a6}" "zmm30" (0 "zmm6" "zmm24"))
                (7 "{a6} + {stride}" "zmm31" (0 "zmm7" "zmm24"))
                (8 "{a6} + 2*{stride}" "zmm28" (0 "zmm8" "zmm24"))
                (9 "{a9}" "zmm29" (0 "zmm9" "zmm24"))
                (10 "{a9} + {stride}" "zmm30" (0 "zmm10" "zmm24"))
                (11 "{a9} + 2*{stride}" "zmm31" (0 "zmm11" "zmm24"))),
            2 => accumulate!(ROWS, call sums [(0 "zmm24") (64 "zmm25")];
                (0 "{a0}" "zmm28" (0 "zmm0" "zmm24") (1 "zmm1" "zmm25"))
                (1 "{a0} + {stride}" "zmm29" (0 "zmm2" "zmm24") (1 "zmm3" "zmm25"))
                (2 "{a0} + 2*{stride}" "zmm30" (0 "zmm4" "zmm24") (1 "zmm5" "zmm25"))
                (3 "{a3}" "zmm31" (0 "zmm6" "zmm24") (1 "zmm7" "zmm25"))
                (4 "{a3} + {stride}" "zmm28" (0 "zmm8" "zmm24") (1 "zmm9" "zmm25"))
                (5 "{a3} + 2*{stride}" "zmm29" (0 "zmm10" "zmm24") (1 "zmm11" "zmm25"))
                (6 "{a6}" "zmm30" (0 "zmm12" "zmm24") (1 "zmm13" "zmm25"))
                (7 "{a6} + {stride}" "zmm31" (0 "zmm14" "zmm24") (1 "zmm15" "zmm25"))
                (8 "{a6} + 2*{stride}" "zmm28" (0 "zmm16" "zmm24") (1 "zmm17" "zmm25"))
                (9 "{a9}" "zmm29" (0 "zmm18" "zmm24") (1 "zmm19" "zmm25"))
                (10 "{a9} + {stride}" "zmm30" (0 "zmm20" "zmm24") (1 "zmm21" "zmm25"))
                (11 "{a9} + 2*{stride}" "zmm31" (0 "zmm22" "zmm24") (1 "zmm23" "zmm25"))),
            _ => {
                accumulate!(ROWS, call sums [(0 "zmm24") (64 "zmm25") (128 "zmm26") (192 "zmm27")];
                (0 "{a0}" "zmm28" (0 "zmm0" "zmm24") (1 "zmm1" "zmm25") (2 "zmm2" "zmm26") (3 "zmm3" "zmm27"))
                (1 "{a0} + {stride}" "zmm29" (0 "zmm4" "zmm24") (1 "zmm5" "zmm25") (2 "zmm6" "zmm26") (3 "zmm7" "zmm27"))
                (2 "{a0} + 2*{stride}" "zmm30" (0 "zmm8" "zmm24") (1 "zmm9" "zmm25") (2 "zmm10" "zmm26") (3 "zmm11" "zmm27"))
                (3 "{a3}" "zmm31" (0 "zmm12" "zmm24") (1 "zmm13" "zmm25") (2 "zmm14" "zmm26") (3 "zmm15" "zmm27"))
                (4 "{a3} + {stride}" "zmm28" (0 "zmm16" "zmm24") (1 "zmm17" "zmm25") (2 "zmm18" "zmm26") (3 "zmm19" "zmm27"))
                (5 "{a3} + 2*{stride}" "zmm29" (0 "zmm20" "zmm24") (1 "zmm21" "zmm25") (2 "zmm22" "zmm26") (3 "zmm23" "zmm27")))
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
    // SAFETY: the pointers are good as `Bytes` says: a panel's multipliers are all there, and `load` and `store` keep to the
    // columns of `out` and of the residual that are there.
    unsafe {
        let multipliers: [__m512; VECTORS] =
            std::array::from_fn(|vector| _mm512_loadu_ps(bytes.multipliers.add(16 * vector)));
        let value = |sums: &[__m512i; VECTORS], vector: usize| {
            _mm512_mul_ps(_mm512_cvtepi32_ps(sums[vector]), multipliers[vector])
        };
        let Some((other, residual)) = bytes.residual else {
            for (row, sums) in sums.iter().enumerate() {
                let numbers: [_; VECTORS] =
                    std::array::from_fn(|vector| scale.quantize(value(sums, vector)));
                store(
                    bytes.out.add(row * bytes.stride),
                    bytes.columns,
                    numbers,
                    scale.zero,
                );
            }
            return;
        };
        let sum = Sum::new(residual);
        for (row, sums) in sums.iter().enumerate() {
            let others: [__m512i; VECTORS] = load(other.add(row * bytes.stride), bytes.columns);
            let numbers: [_; VECTORS] = std::array::from_fn(|vector| {
                let conv = scale.centered(value(sums, vector));
                sum.quantize(conv, _mm512_cvtepi32_ps(others[vector]))
            });
            store(
                bytes.out.add(row * bytes.stride),
                bytes.columns,
                numbers,
                _mm512_setzero_si512(),
            );
        }
    }
}

/// Writes the first `columns` of the numbers, after adding `zero`: they are then from 0 to 255.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn store<const VECTORS: usize>(
    out: *mut u8,
    columns: usize,
    numbers: [__m512i; VECTORS],
    zero: __m512i,
) {
    let of = |vector: usize| {
        numbers
            .get(vector)
            .copied()
            .unwrap_or(_mm512_setzero_si512())
    };
    let mixed = narrow([of(0), of(1), of(2), of(3)], zero);
    let order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    let bytes = _mm512_permutexvar_epi32(order, mixed);
    // SAFETY: `out` is good for `columns` bytes.
    unsafe {
        match columns {
            64 => _mm512_storeu_si512(out.cast(), bytes),
            32 => _mm256_storeu_si256(out.cast(), _mm512_castsi512_si256(bytes)),
            16 => _mm_storeu_si128(out.cast(), _mm512_castsi512_si128(bytes)),
            _ => _mm512_mask_storeu_epi8(out.cast(), u64::MAX >> (64 - columns), bytes),
        }
    }
}

/// The numbers, after adding `zero`, as bytes: four of each vector after the other, in each quarter.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(in super::super) fn narrow([a, b, c, d]: [__m512i; 4], zero: __m512i) -> __m512i {
    let words = |low, high| _mm512_add_epi16(_mm512_packs_epi32(low, high), zero);
    _mm512_packus_epi16(words(a, b), words(c, d))
}

/// Reads `columns` bytes, and zeros after them, into lanes of 32 bits.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn load<const VECTORS: usize>(from: *const u8, columns: usize) -> [__m512i; VECTORS] {
    std::array::from_fn(|vector| {
        let here = columns.saturating_sub(16 * vector).min(16);
        // SAFETY: `from` is good for `columns` bytes.
        let bytes = unsafe {
            if here == 16 {
                _mm_loadu_si128(from.add(16 * vector).cast())
            } else {
                let mask = ((1_u32 << here) - 1) as __mmask16;
                _mm_maskz_loadu_epi8(mask, from.wrapping_add(16 * vector).cast())
            }
        };
        _mm512_cvtepu8_epi32(bytes)
    })
}

/// A [`Quantization`] in registers.
pub(in super::super) struct Scale {
    /// In lanes of 16 bits.
    pub zero: __m512i,
    min: __m512,
    max: __m512,
}

impl Scale {
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(in super::super) fn new(quantization: Quantization) -> Self {
        Self {
            zero: _mm512_set1_epi16(quantization.zero as i16),
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

    /// The same as integers: `zero` is still to be added.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(in super::super) fn quantize(&self, value: __m512) -> __m512i {
        _mm512_cvtps_epi32(self.held(value))
    }
}

/// A [`Residual`] in registers.
struct Sum {
    conv_first: bool,
    conv_zero: __m512,
    ratios: [__m512; 2],
    constant: __m512,
    min: __m512,
    max: __m512,
}

impl Sum {
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn new(residual: &Residual) -> Self {
        let addition = &residual.addition;
        Self {
            conv_first: residual.conv_first,
            conv_zero: _mm512_set1_ps(residual.conv_zero()),
            ratios: [
                _mm512_set1_ps(addition.ratios[0]),
                _mm512_set1_ps(addition.ratios[1]),
            ],
            constant: _mm512_set1_ps(addition.constant),
            min: _mm512_set1_ps(addition.min),
            max: _mm512_set1_ps(addition.max),
        }
    }

    /// From the convolution's numbers less their zero point, and the other operand's numbers.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn quantize(&self, centered: __m512, other: __m512) -> __m512i {
        let conv = _mm512_add_ps(centered, self.conv_zero);
        let (a, b) = match self.conv_first {
            true => (conv, other),
            false => (other, conv),
        };
        let sum = _mm512_fmadd_ps(b, self.ratios[1], self.constant);
        let sum = _mm512_fmadd_ps(a, self.ratios[0], sum);
        _mm512_cvtps_epi32(_mm512_min_ps(_mm512_max_ps(sum, self.min), self.max))
    }
}
