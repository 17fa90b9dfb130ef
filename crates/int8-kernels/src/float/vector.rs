//! Vectors of floats: a type for each instruction set, so that each float kernel is written once.
//!
//! What always holds: the same operations in the same order give the same floats on all of them, bit for bit (but for
//! [`multiply_add`], which rounds twice on 32-bit ARM).

use crate::Isa;
use crate::quantization::whole;

/// `a · b + c`, rounded once; twice on processors that could do the former only in software.
#[inline(always)]
pub(super) fn multiply_add(a: f32, b: f32, c: f32) -> f32 {
    if cfg!(target_arch = "arm") {
        a * b + c
    } else {
        a.mul_add(b, c)
    }
}

/// Floats side by side. Its methods are for [`FloatWork`] alone: there the processor has the instruction set.
pub(super) trait Floats: Copy {
    /// How many.
    const LANES: usize;

    /// All of them the same.
    fn all(value: f32) -> Self;
    /// Those that begin here.
    ///
    /// # Safety
    ///
    /// `from` is good for [`Self::LANES`] floats.
    unsafe fn read(from: *const f32) -> Self;
    /// Writes them here.
    ///
    /// # Safety
    ///
    /// `to` is good for [`Self::LANES`] floats.
    unsafe fn put(self, to: *mut f32);
    /// `self · factor + summand`, as [`multiply_add`].
    fn multiply_add(self, factor: Self, summand: Self) -> Self;
    fn plus(self, other: Self) -> Self;
    fn times(self, other: Self) -> Self;
    fn over(self, other: Self) -> Self;
    /// The greater; `least` where `self` is not a number.
    fn at_least(self, least: Self) -> Self;
    /// The smaller; `most` where `self` is not a number.
    fn at_most(self, most: Self) -> Self;
    /// Each, held to these limits; what is not a number stays so.
    fn held(self, least: Self, most: Self) -> Self;
    /// Rounds half to even, adds `zero`, and writes the sums as bytes: [`Self::LANES`] of them, or as many as `out` has. They are
    /// from 0 to 255, or from -128 to 127.
    fn write(self, zero: i32, out: &mut [u8]);
}

/// What is computed with vectors.
pub(super) trait FloatWork {
    /// Is `#[inline(always)]`, and so is what it calls: only then is it compiled for the instruction set of the caller.
    fn run<F: Floats>(self);
}

/// Floats in a vector of an instruction set.
pub(super) fn lanes(isa: Isa) -> usize {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512Vnni => x86::__m512::LANES,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => x86::__m256::LANES,
        #[cfg(target_arch = "aarch64")]
        Isa::Neon | Isa::NeonDot | Isa::NeonI8mm => neon::float32x4_t::LANES,
        _ => f32::LANES,
    }
}

/// Runs `work` with the vectors of an instruction set that the processor has.
pub(super) fn vectorize<W: FloatWork>(isa: Isa, work: W) {
    debug_assert!(isa.is_available());
    match isa {
        // SAFETY: every kernel's constructor checks that the processor has its instruction set.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512Vnni => unsafe { x86::with_avx512(work) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => unsafe { x86::with_avx2(work) },
        #[cfg(target_arch = "aarch64")]
        Isa::Neon | Isa::NeonDot | Isa::NeonI8mm => work.run::<neon::float32x4_t>(),
        _ => work.run::<f32>(),
    }
}

impl Floats for f32 {
    const LANES: usize = 1;

    #[inline(always)]
    fn all(value: f32) -> Self {
        value
    }

    #[inline(always)]
    unsafe fn read(from: *const f32) -> Self {
        // SAFETY: it is good for one.
        unsafe { *from }
    }

    #[inline(always)]
    unsafe fn put(self, to: *mut f32) {
        // SAFETY: it is good for one.
        unsafe { *to = self }
    }

    #[inline(always)]
    fn multiply_add(self, factor: Self, summand: Self) -> Self {
        multiply_add(self, factor, summand)
    }

    #[inline(always)]
    fn plus(self, other: Self) -> Self {
        self + other
    }

    #[inline(always)]
    fn times(self, other: Self) -> Self {
        self * other
    }

    #[inline(always)]
    fn over(self, other: Self) -> Self {
        self / other
    }

    #[inline(always)]
    fn at_least(self, least: Self) -> Self {
        self.max(least)
    }

    #[inline(always)]
    fn at_most(self, most: Self) -> Self {
        self.min(most)
    }

    #[inline(always)]
    fn held(self, least: Self, most: Self) -> Self {
        self.clamp(least, most)
    }

    #[inline(always)]
    fn write(self, zero: i32, out: &mut [u8]) {
        out[0] = (whole(self) + zero) as u8;
    }
}

/// Two vectors as one: what waits for one is done for the other.
#[derive(Clone, Copy)]
pub(super) struct Pair<F>(F, F);

impl<F: Floats> Floats for Pair<F> {
    const LANES: usize = 2 * F::LANES;

    #[inline(always)]
    fn all(value: f32) -> Self {
        Self(F::all(value), F::all(value))
    }

    #[inline(always)]
    unsafe fn read(from: *const f32) -> Self {
        // SAFETY: `from` is good for both.
        unsafe { Self(F::read(from), F::read(from.add(F::LANES))) }
    }

    #[inline(always)]
    unsafe fn put(self, to: *mut f32) {
        // SAFETY: `to` is good for both.
        unsafe {
            self.0.put(to);
            self.1.put(to.add(F::LANES));
        }
    }

    #[inline(always)]
    fn multiply_add(self, factor: Self, summand: Self) -> Self {
        Self(
            self.0.multiply_add(factor.0, summand.0),
            self.1.multiply_add(factor.1, summand.1),
        )
    }

    #[inline(always)]
    fn plus(self, other: Self) -> Self {
        Self(self.0.plus(other.0), self.1.plus(other.1))
    }

    #[inline(always)]
    fn times(self, other: Self) -> Self {
        Self(self.0.times(other.0), self.1.times(other.1))
    }

    #[inline(always)]
    fn over(self, other: Self) -> Self {
        Self(self.0.over(other.0), self.1.over(other.1))
    }

    #[inline(always)]
    fn at_least(self, least: Self) -> Self {
        Self(self.0.at_least(least.0), self.1.at_least(least.1))
    }

    #[inline(always)]
    fn at_most(self, most: Self) -> Self {
        Self(self.0.at_most(most.0), self.1.at_most(most.1))
    }

    #[inline(always)]
    fn held(self, least: Self, most: Self) -> Self {
        Self(self.0.held(least.0, most.0), self.1.held(least.1, most.1))
    }

    #[inline(always)]
    fn write(self, zero: i32, out: &mut [u8]) {
        let (first, second) = out.split_at_mut(F::LANES);
        self.0.write(zero, first);
        self.1.write(zero, second);
    }
}

/// The first bytes, as many as there is room for.
#[inline(always)]
fn write_first<const N: usize>(bytes: [u8; N], out: &mut [u8]) {
    match out.first_chunk_mut() {
        Some(out) => *out = bytes,
        None => out.copy_from_slice(&bytes[..out.len()]),
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;
    pub(super) use std::arch::x86_64::{__m256, __m512};

    use super::{FloatWork, Floats, write_first};

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,fma")]
    pub(super) fn with_avx512<W: FloatWork>(work: W) {
        work.run::<__m512>();
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn with_avx2<W: FloatWork>(work: W) {
        work.run::<__m256>();
    }

    /// Implements [`Floats`] by intrinsics: the processor has them, as the trait says.
    macro_rules! floats {
        ($vector:ty, $lanes:literal, $all:ident $read:ident $put:ident $fma:ident $add:ident $mul:ident $div:ident $max:ident $min:ident,
         |$self:ident, $zero:ident| $bytes:expr) => {
            impl Floats for $vector {
                const LANES: usize = $lanes;

                #[inline(always)]
                fn all(value: f32) -> Self {
                    // SAFETY: the processor has it.
                    unsafe { $all(value) }
                }

                #[inline(always)]
                unsafe fn read(from: *const f32) -> Self {
                    // SAFETY: the processor has it; `from` is good for a vector.
                    unsafe { $read(from) }
                }

                #[inline(always)]
                unsafe fn put(self, to: *mut f32) {
                    // SAFETY: the processor has it; `to` is good for a vector.
                    unsafe { $put(to, self) }
                }

                #[inline(always)]
                fn multiply_add(self, factor: Self, summand: Self) -> Self {
                    // SAFETY: the processor has it.
                    unsafe { $fma(self, factor, summand) }
                }

                #[inline(always)]
                fn plus(self, other: Self) -> Self {
                    // SAFETY: the processor has it.
                    unsafe { $add(self, other) }
                }

                #[inline(always)]
                fn times(self, other: Self) -> Self {
                    // SAFETY: the processor has it.
                    unsafe { $mul(self, other) }
                }

                #[inline(always)]
                fn over(self, other: Self) -> Self {
                    // SAFETY: the processor has it.
                    unsafe { $div(self, other) }
                }

                // Where one operand is not a number the result is the second.
                #[inline(always)]
                fn at_least(self, least: Self) -> Self {
                    // SAFETY: the processor has it.
                    unsafe { $max(self, least) }
                }

                #[inline(always)]
                fn at_most(self, most: Self) -> Self {
                    // SAFETY: the processor has it.
                    unsafe { $min(self, most) }
                }

                #[inline(always)]
                fn held(self, least: Self, most: Self) -> Self {
                    // SAFETY: the processor has it.
                    unsafe { $min(most, $max(least, self)) }
                }

                #[inline(always)]
                fn write(self, zero: i32, out: &mut [u8]) {
                    let ($self, $zero) = (self, zero);
                    let mut bytes = [0; $lanes];
                    // SAFETY: the processor has it, and there is room for a byte a lane.
                    unsafe { $bytes(bytes.as_mut_ptr()) };
                    write_first(bytes, out);
                }
            }
        };
    }

    floats!(
        __m512, 16,
        _mm512_set1_ps _mm512_loadu_ps _mm512_storeu_ps _mm512_fmadd_ps _mm512_add_ps _mm512_mul_ps _mm512_div_ps _mm512_max_ps _mm512_min_ps,
        |floats, zero| |out: *mut u8| {
            let numbers = _mm512_add_epi32(_mm512_cvtps_epi32(floats), _mm512_set1_epi32(zero));
            _mm_storeu_si128(out.cast(), _mm512_cvtepi32_epi8(numbers));
        }
    );

    floats!(
        __m256, 8,
        _mm256_set1_ps _mm256_loadu_ps _mm256_storeu_ps _mm256_fmadd_ps _mm256_add_ps _mm256_mul_ps _mm256_div_ps _mm256_max_ps _mm256_min_ps,
        |floats, zero| |out: *mut u8| {
            let numbers = _mm256_add_epi32(_mm256_cvtps_epi32(floats), _mm256_set1_epi32(zero));
            // The least byte of each, in the first four bytes of each half.
            let least = _mm256_set1_epi32(0x0c08_0400);
            let bytes = _mm256_shuffle_epi8(numbers, least);
            let halves = [_mm256_castsi256_si128(bytes), _mm256_extracti128_si256::<1>(bytes)];
            _mm_storel_epi64(out.cast(), _mm_unpacklo_epi32(halves[0], halves[1]));
        }
    );
}

#[cfg(target_arch = "aarch64")]
mod neon {
    pub(super) use std::arch::aarch64::float32x4_t;
    use std::arch::aarch64::*;

    use super::{Floats, write_first};

    impl Floats for float32x4_t {
        const LANES: usize = 4;

        #[inline(always)]
        fn all(value: f32) -> Self {
            // SAFETY: every aarch64 has NEON.
            unsafe { vdupq_n_f32(value) }
        }

        #[inline(always)]
        unsafe fn read(from: *const f32) -> Self {
            // SAFETY: as above; `from` is good for a vector.
            unsafe { vld1q_f32(from) }
        }

        #[inline(always)]
        unsafe fn put(self, to: *mut f32) {
            // SAFETY: as above; `to` is good for a vector.
            unsafe { vst1q_f32(to, self) }
        }

        #[inline(always)]
        fn multiply_add(self, factor: Self, summand: Self) -> Self {
            // SAFETY: as above.
            unsafe { vfmaq_f32(summand, self, factor) }
        }

        #[inline(always)]
        fn plus(self, other: Self) -> Self {
            // SAFETY: as above.
            unsafe { vaddq_f32(self, other) }
        }

        #[inline(always)]
        fn times(self, other: Self) -> Self {
            // SAFETY: as above.
            unsafe { vmulq_f32(self, other) }
        }

        #[inline(always)]
        fn over(self, other: Self) -> Self {
            // SAFETY: as above.
            unsafe { vdivq_f32(self, other) }
        }

        #[inline(always)]
        fn at_least(self, least: Self) -> Self {
            // SAFETY: as above.
            unsafe { vmaxnmq_f32(self, least) }
        }

        #[inline(always)]
        fn at_most(self, most: Self) -> Self {
            // SAFETY: as above.
            unsafe { vminnmq_f32(self, most) }
        }

        #[inline(always)]
        fn held(self, least: Self, most: Self) -> Self {
            // SAFETY: as above.
            unsafe { vminq_f32(vmaxq_f32(self, least), most) }
        }

        #[inline(always)]
        fn write(self, zero: i32, out: &mut [u8]) {
            // SAFETY: as above.
            let bytes = unsafe {
                let numbers = vaddq_s32(vcvtnq_s32_f32(self), vdupq_n_s32(zero));
                let words = vmovn_s32(numbers);
                let bytes = vmovn_s16(vcombine_s16(words, words));
                vget_lane_u32::<0>(vreinterpret_u32_s8(bytes)).to_le_bytes()
            };
            write_first(bytes, out);
        }
    }
}
