//! AVX2: 4 pixels × 16 channels, `vpmaddubsw`.
//!
//! Two `vpmaddubsw` (8 bytes of k) are added in 16 bits before `vpmaddwd` widens them: three multiplications for 64
//! products, where widening each operand first takes four. [`split`](mod@super::split) makes the 16-bit sums exact. Longer
//! groups save multiplications but repeat more blocks: the convolutions of a real ResNet-18 take 22.1 ms in groups of two,
//! 22.9 in groups of three, 23.3 without groups.

use std::arch::{asm, x86_64::*};

use super::{
    Bytes, Call, Panel, Target, Tile, dispatch_rows,
    split::{Rule, split},
};
use crate::{Quantization, Residual};

/// Blocks of 4 bytes of k whose products are added in 16 bits.
const GROUP: usize = 2;

/// 255 · 128 fits 16 bits, so neither the positive nor the negative weights of a lane may sum to more than 128.
struct Pairs;

impl Rule for Pairs {
    const K: usize = 4;
    const GROUP: usize = GROUP;
    const LANES: usize = 2;

    fn lane(i: usize) -> usize {
        i / 2
    }

    fn limit(positive: i32, negative: i32) -> (i32, i32) {
        ((positive - 128).max(0), (negative - 128).max(0))
    }
}

pub(in super::super) struct Avx2;

// SAFETY: rows are read four bytes at `offsets`, which `pack` keeps below the depth rounded up to BLOCK; weights are read
// as `pack` laid them out; the rest is in `write`.
unsafe impl Tile for Avx2 {
    const ROWS: usize = 4;
    const COLUMNS: usize = 16;
    const BLOCK: usize = 4;

    fn pack(depth: usize, weights: &[i8]) -> Panel {
        let blocks = split::<Pairs>(depth, weights);
        Panel {
            weights: blocks.weights,
            offsets: blocks.offsets,
        }
    }

    unsafe fn run(call: &Call) {
        dispatch_rows!(tile; call, 1 2 3 4)
    }
}

#[target_feature(enable = "avx2,fma")]
unsafe fn tile<const ROWS: usize>(call: &Call) {
    // SAFETY: the pointers are good as `Call` says.
    unsafe {
        let bias = |row: usize| {
            let bias = call.bias_of(row).cast::<__m256i>();
            [_mm256_loadu_si256(bias), _mm256_loadu_si256(bias.add(1))]
        };
        let mut sums = [bias(0); ROWS];
        if call.bias_stride > 0 {
            for (row, sums) in sums.iter_mut().enumerate().skip(1) {
                *sums = bias(row);
            }
        }
        let rows: [*const u8; ROWS] = std::array::from_fn(|row| call.a.add(row * call.a_stride));
        let mut weights = call.weights.cast::<__m256i>();
        for offsets in call.offsets.as_chunks::<GROUP>().0 {
            let w: [[__m256i; 2]; GROUP] = std::array::from_fn(|block| {
                let block = weights.add(2 * block);
                [_mm256_load_si256(block), _mm256_load_si256(block.add(1))]
            });
            weights = weights.add(2 * GROUP);
            for row in 0..ROWS {
                let mut products = [_mm256_setzero_si256(); 2];
                for (block, &offset) in offsets.iter().enumerate() {
                    let a = rows[row]
                        .add(offset as usize)
                        .cast::<i32>()
                        .read_unaligned();
                    let a = _mm256_set1_epi32(a);
                    for half in 0..2 {
                        let product = _mm256_maddubs_epi16(a, w[block][half]);
                        if block == 0 {
                            products[half] = product;
                        } else {
                            add_words(&mut products[half], product);
                        }
                    }
                }
                for half in 0..2 {
                    let wide = widen(products[half]);
                    sums[row][half] = _mm256_add_epi32(sums[row][half], wide);
                }
            }
        }
        match &call.target {
            Target::Bytes(bytes) => write(&sums, bytes),
            Target::Sums(out) => {
                for (row, sums) in sums.iter().enumerate() {
                    let out = out.add(row * Avx2::COLUMNS).cast::<__m256i>();
                    _mm256_storeu_si256(out, sums[0]);
                    _mm256_storeu_si256(out.add(1), sums[1]);
                }
            }
        }
    }
}

/// Adds 16-bit lanes. Opaque to the compiler, which else regroups the additions and runs out of registers.
#[inline]
#[target_feature(enable = "avx2")]
fn add_words(sum: &mut __m256i, value: __m256i) {
    // SAFETY: touches nothing but its operands.
    unsafe {
        asm!("vpaddw {0}, {0}, {1}", inout(ymm_reg) *sum, in(ymm_reg) value, options(pure, nomem, nostack, preserves_flags));
    }
}

/// Adds neighbouring 16-bit lanes. The ones come from memory: eight sums, four weights and the products fill the registers.
#[inline]
#[target_feature(enable = "avx2")]
fn widen(mut words: __m256i) -> __m256i {
    static ONES: [i16; 16] = [1; 16];
    // SAFETY: reads the 32 bytes of ONES.
    unsafe {
        asm!(
            "vpmaddwd {0}, {0}, ymmword ptr [{1}]",
            inout(ymm_reg) words,
            in(reg) ONES.as_ptr(),
            options(pure, readonly, nostack, preserves_flags)
        );
    }
    words
}

/// Quantizes and writes the rows of a tile.
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(in super::super) unsafe fn write<const ROWS: usize>(
    sums: &[[__m256i; 2]; ROWS],
    bytes: &Bytes,
) {
    let scale = Scale::new(bytes.quantization);
    // SAFETY: the pointers are good as `Bytes` says; a panel's multipliers are all there, columns of `out` and of the
    // residual are touched only where they are.
    unsafe {
        let multipliers = [
            _mm256_loadu_ps(bytes.multipliers),
            _mm256_loadu_ps(bytes.multipliers.add(8)),
        ];
        let Some((other, residual)) = bytes.residual else {
            for (row, sums) in sums.iter().enumerate() {
                let value = |half: usize| {
                    scale.quantize(_mm256_mul_ps(
                        _mm256_cvtepi32_ps(sums[half]),
                        multipliers[half],
                    ))
                };
                store(
                    bytes.out.add(row * bytes.stride),
                    bytes.columns,
                    value(0),
                    value(1),
                );
            }
            return;
        };
        let sum = Sum::new(residual);
        for (row, sums) in sums.iter().enumerate() {
            let others = load(other.add(row * bytes.stride), bytes.columns);
            let value = |half: usize| {
                let conv = scale.centered(_mm256_mul_ps(
                    _mm256_cvtepi32_ps(sums[half]),
                    multipliers[half],
                ));
                let other = if half == 0 {
                    others
                } else {
                    _mm_unpackhi_epi64(others, others)
                };
                sum.quantize(conv, _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(other)))
            };
            store(
                bytes.out.add(row * bytes.stride),
                bytes.columns,
                value(0),
                value(1),
            );
        }
    }
}

/// A [`Quantization`] in registers.
struct Scale {
    zero: __m256i,
    min: __m256,
    max: __m256,
}

impl Scale {
    #[inline]
    #[target_feature(enable = "avx2")]
    fn new(quantization: Quantization) -> Self {
        Self {
            zero: _mm256_set1_epi32(quantization.zero),
            min: _mm256_set1_ps((quantization.min - quantization.zero) as f32),
            max: _mm256_set1_ps((quantization.max - quantization.zero) as f32),
        }
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn centered(&self, value: __m256) -> __m256 {
        let held = _mm256_min_ps(_mm256_max_ps(value, self.min), self.max);
        _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(held)
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn quantize(&self, value: __m256) -> __m256i {
        let held = _mm256_min_ps(_mm256_max_ps(value, self.min), self.max);
        _mm256_add_epi32(_mm256_cvtps_epi32(held), self.zero)
    }
}

/// A [`Residual`] in registers.
struct Sum {
    conv_first: bool,
    conv_zero: __m256,
    ratios: [__m256; 2],
    constant: __m256,
    min: __m256,
    max: __m256,
}

impl Sum {
    #[inline]
    #[target_feature(enable = "avx2")]
    fn new(residual: &Residual) -> Self {
        let addition = &residual.addition;
        Self {
            conv_first: residual.conv_first,
            conv_zero: _mm256_set1_ps(residual.conv_zero()),
            ratios: [
                _mm256_set1_ps(addition.ratios[0]),
                _mm256_set1_ps(addition.ratios[1]),
            ],
            constant: _mm256_set1_ps(addition.constant),
            min: _mm256_set1_ps(addition.min),
            max: _mm256_set1_ps(addition.max),
        }
    }

    /// From the convolution's numbers less their zero point, and the other operand's numbers.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn quantize(&self, centered: __m256, other: __m256) -> __m256i {
        let conv = _mm256_add_ps(centered, self.conv_zero);
        let (a, b) = match self.conv_first {
            true => (conv, other),
            false => (other, conv),
        };
        let sum = _mm256_fmadd_ps(b, self.ratios[1], self.constant);
        let sum = _mm256_fmadd_ps(a, self.ratios[0], sum);
        _mm256_cvtps_epi32(_mm256_min_ps(_mm256_max_ps(sum, self.min), self.max))
    }
}

/// Writes the first `columns` of 16 numbers from 0 to 255.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn store(out: *mut u8, columns: usize, low: __m256i, high: __m256i) {
    let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi32(low, high));
    let bytes = _mm_packus_epi16(
        _mm256_castsi256_si128(words),
        _mm256_extracti128_si256::<1>(words),
    );
    // SAFETY: `out` is good for `columns` bytes.
    unsafe {
        if columns == 16 {
            _mm_storeu_si128(out.cast(), bytes);
        } else {
            let all: [u8; 16] = std::mem::transmute(bytes);
            out.copy_from_nonoverlapping(all.as_ptr(), columns);
        }
    }
}

/// Reads `columns` bytes, and zeros after them.
#[inline]
#[target_feature(enable = "avx2")]
pub(in super::super) unsafe fn load(from: *const u8, columns: usize) -> __m128i {
    // SAFETY: `from` is good for `columns` bytes.
    unsafe {
        if columns == 16 {
            return _mm_loadu_si128(from.cast());
        }
        let mut all = [0; 16];
        from.copy_to_nonoverlapping(all.as_mut_ptr(), columns);
        std::mem::transmute(all)
    }
}
