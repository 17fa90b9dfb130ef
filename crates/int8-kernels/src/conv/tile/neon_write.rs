//! The end of a tile on NEON: sums of 16 channels a row are quantized and written.

use std::arch::aarch64::*;

use super::Bytes;
use crate::{Quantization, Residual};

/// The sums themselves.
///
/// # Safety
///
/// `out` is good for 16 numbers a row.
#[inline]
#[target_feature(enable = "neon")]
pub(super) unsafe fn sums<const ROWS: usize>(sums: &[[int32x4_t; 4]; ROWS], out: *mut i32) {
    for (at, sums) in sums.as_flattened().iter().enumerate() {
        // SAFETY: as the caller says.
        unsafe { vst1q_s32(out.add(4 * at), *sums) };
    }
}

/// Quantizes and writes the rows of a tile.
///
/// # Safety
///
/// The pointers of `bytes` are good as [`Bytes`] says.
#[inline]
#[target_feature(enable = "neon")]
pub(in super::super) unsafe fn rows<const ROWS: usize>(
    sums: &[[int32x4_t; 4]; ROWS],
    bytes: &Bytes,
) {
    let scale = Scale::new(bytes.quantization);
    // SAFETY: a panel's multipliers are all there; columns of `out` and of the residual are touched only where they are.
    unsafe {
        let multipliers: [float32x4_t; 4] =
            std::array::from_fn(|column| vld1q_f32(bytes.multipliers.add(4 * column)));
        match bytes.residual {
            None => {
                for (row, sums) in sums.iter().enumerate() {
                    let values =
                        std::array::from_fn(|i| vmulq_f32(vcvtq_f32_s32(sums[i]), multipliers[i]));
                    let values = scale.quantize(values);
                    store(bytes.out.add(row * bytes.stride), bytes.columns, values);
                }
            }
            // Chosen here and not for each number, which would take a tenth of the instructions of a tile's end.
            Some((other, residual)) if residual.conv_first => {
                added::<ROWS, true>(sums, bytes, multipliers, other, residual);
            }
            Some((other, residual)) => {
                added::<ROWS, false>(sums, bytes, multipliers, other, residual);
            }
        }
    }
}

/// [`rows`] with the addition that follows.
///
/// # Safety
///
/// The pointers of `bytes` are good as [`Bytes`] says; `other` and `residual` are its residual, whose `conv_first` is
/// CONV_FIRST.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn added<const ROWS: usize, const CONV_FIRST: bool>(
    sums: &[[int32x4_t; 4]; ROWS],
    bytes: &Bytes,
    multipliers: [float32x4_t; 4],
    other: *const u8,
    residual: &Residual,
) {
    let scale = Scale::new(bytes.quantization);
    let sum = Sum::<CONV_FIRST>::new(residual);
    for (row, sums) in sums.iter().enumerate() {
        // SAFETY: columns of `out` and of the residual are touched only where they are.
        unsafe {
            let others = numbers(load(other.add(row * bytes.stride), bytes.columns));
            let values = std::array::from_fn(|i| {
                let conv = scale.centered(vmulq_f32(vcvtq_f32_s32(sums[i]), multipliers[i]));
                sum.value(conv, others[i])
            });
            store(
                bytes.out.add(row * bytes.stride),
                bytes.columns,
                sum.quantize(values),
            );
        }
    }
}

/// A [`Quantization`] in registers.
struct Scale {
    zero: int16x8_t,
    min: int8x16_t,
    max: int8x16_t,
    centered_min: float32x4_t,
    centered_max: float32x4_t,
}

impl Scale {
    #[inline]
    #[target_feature(enable = "neon")]
    fn new(quantization: Quantization) -> Self {
        let Quantization { zero, min, max } = quantization;
        Self {
            zero: vdupq_n_s16(zero as i16),
            min: vdupq_n_s8(min as i8),
            max: vdupq_n_s8(max as i8),
            centered_min: vdupq_n_f32((min - zero) as f32),
            centered_max: vdupq_n_f32((max - zero) as f32),
        }
    }

    #[inline]
    #[target_feature(enable = "neon")]
    fn centered(&self, value: float32x4_t) -> float32x4_t {
        vrndnq_f32(vminq_f32(
            vmaxq_f32(value, self.centered_min),
            self.centered_max,
        ))
    }

    /// Rounds half to even, adds the zero point and holds to the limits. Each step saturates, so that the order of adding
    /// and holding does not matter.
    #[inline]
    #[target_feature(enable = "neon")]
    fn quantize(&self, values: [float32x4_t; 4]) -> int8x16_t {
        let words = |low, high| vqaddq_s16(words(low, high), self.zero);
        let [a, b, c, d] = values;
        let bytes = vqmovn_high_s16(vqmovn_s16(words(a, b)), words(c, d));
        vminq_s8(vmaxq_s8(bytes, self.min), self.max)
    }
}

/// A [`Residual`] in registers.
struct Sum<const CONV_FIRST: bool> {
    conv_zero: float32x4_t,
    ratios: [float32x4_t; 2],
    constant: float32x4_t,
    min: uint8x16_t,
    max: uint8x16_t,
}

impl<const CONV_FIRST: bool> Sum<CONV_FIRST> {
    #[inline]
    #[target_feature(enable = "neon")]
    fn new(residual: &Residual) -> Self {
        let addition = &residual.addition;
        Self {
            conv_zero: vdupq_n_f32(residual.conv_zero()),
            ratios: [
                vdupq_n_f32(addition.ratios[0]),
                vdupq_n_f32(addition.ratios[1]),
            ],
            constant: vdupq_n_f32(addition.constant),
            min: vdupq_n_u8(addition.min as u8),
            max: vdupq_n_u8(addition.max as u8),
        }
    }

    /// From the convolution's numbers less their zero point, and the other operand's numbers.
    #[inline]
    #[target_feature(enable = "neon")]
    fn value(&self, centered: float32x4_t, other: float32x4_t) -> float32x4_t {
        let conv = vaddq_f32(centered, self.conv_zero);
        let (a, b) = match CONV_FIRST {
            true => (conv, other),
            false => (other, conv),
        };
        vfmaq_f32(
            vfmaq_f32(self.constant, b, self.ratios[1]),
            a,
            self.ratios[0],
        )
    }

    /// Rounds half to even and holds to the limits; each step saturates.
    #[inline]
    #[target_feature(enable = "neon")]
    fn quantize(&self, values: [float32x4_t; 4]) -> int8x16_t {
        let [a, b, c, d] = values;
        let bytes = vqmovun_high_s16(vqmovun_s16(words(a, b)), words(c, d));
        from_numbers(vminq_u8(vmaxq_u8(bytes, self.min), self.max))
    }
}

/// Rounded half to even.
#[inline]
#[target_feature(enable = "neon")]
fn words(low: float32x4_t, high: float32x4_t) -> int16x8_t {
    vqmovn_high_s32(vqmovn_s32(vcvtnq_s32_f32(low)), vcvtnq_s32_f32(high))
}

/// Bytes of s8, counted from -128.
#[inline]
#[target_feature(enable = "neon")]
fn numbers(bytes: int8x16_t) -> [float32x4_t; 4] {
    let bytes = veorq_u8(vreinterpretq_u8_s8(bytes), vdupq_n_u8(0x80));
    let (low, high) = (vmovl_u8(vget_low_u8(bytes)), vmovl_high_u8(bytes));
    [
        vcvtq_f32_u32(vmovl_u16(vget_low_u16(low))),
        vcvtq_f32_u32(vmovl_high_u16(low)),
        vcvtq_f32_u32(vmovl_u16(vget_low_u16(high))),
        vcvtq_f32_u32(vmovl_high_u16(high)),
    ]
}

/// And back.
#[inline]
#[target_feature(enable = "neon")]
fn from_numbers(numbers: uint8x16_t) -> int8x16_t {
    vreinterpretq_s8_u8(veorq_u8(numbers, vdupq_n_u8(0x80)))
}

/// Writes the first `columns` of 16 numbers.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn store(out: *mut u8, columns: usize, bytes: int8x16_t) {
    // SAFETY: `out` is good for `columns` bytes.
    unsafe {
        if columns == 16 {
            vst1q_s8(out.cast(), bytes);
        } else {
            let mut all = [0; 16];
            vst1q_s8(all.as_mut_ptr(), bytes);
            out.copy_from_nonoverlapping(all.as_ptr().cast(), columns);
        }
    }
}

/// Reads `columns` bytes, and zeros after them.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn load(from: *const u8, columns: usize) -> int8x16_t {
    // SAFETY: `from` is good for `columns` bytes.
    unsafe {
        if columns == 16 {
            return vld1q_s8(from.cast());
        }
        let mut all = [0; 16];
        from.copy_to_nonoverlapping(all.as_mut_ptr(), columns);
        vld1q_s8(all.as_ptr().cast())
    }
}
