//! NEON: `smlal` of 16 channels by tap, the numbers less their zero point in 16 bits.

use std::{arch::aarch64::*, ops::Range};

use super::{LANES, Portable};
use crate::{
    Quantization, Residual,
    conv::tile::{Bytes, neon_write},
};

/// Fills `out` with bytes, from activations of s8.
///
/// # Safety
///
/// The processor has NEON; `input` is the whole picture; `out`, and the residual where there is one, hold `pixels`.
#[target_feature(enable = "neon")]
pub(super) unsafe fn run(
    kernel: &Portable,
    input: &[u8],
    out: &mut [u8],
    pixels: Range<usize>,
    quantization: Quantization,
    residual: Option<(&[u8], Residual)>,
) {
    let geometry = &kernel.geometry;
    let (width, channels) = (geometry.input.w, geometry.output.c);
    let zero = vdup_n_s8(kernel.input_zero as i8);
    for (row, pixel) in pixels.enumerate() {
        let (oy, ox) = (pixel / geometry.output.w, pixel % geometry.output.w);
        let down = geometry.taps_on_picture(0, oy, geometry.input.h);
        let right = geometry.taps_on_picture(1, ox, width);
        let place = |axis: usize, position: usize, tap: usize| {
            position * geometry.stride[axis] + tap * geometry.dilation[axis] - geometry.pads[axis]
        };
        for (block, (weights, bias, multipliers)) in kernel.blocks.iter().enumerate() {
            let first = block * LANES;
            // SAFETY: the bias has 16 numbers.
            let mut sums: [int32x4_t; 4] =
                std::array::from_fn(|part| unsafe { vld1q_s32(bias.as_ptr().add(4 * part)) });
            if !right.is_empty() {
                for ky in down.clone() {
                    let mut at = (place(0, oy, ky) * width + place(1, ox, right.start)) * channels;
                    for weights in &weights[ky * geometry.kernel[1]..][right.clone()] {
                        let lanes = load(&input[at + first..]);
                        multiply(&mut sums, lanes, zero, weights);
                        at += geometry.dilation[1] * channels;
                    }
                }
            }
            let place = row * channels + first;
            let columns = LANES.min(channels - first);
            let bytes = Bytes {
                out: out[place..place + columns].as_mut_ptr(),
                stride: channels,
                columns,
                multipliers: multipliers.as_ptr(),
                quantization,
                residual: residual
                    .as_ref()
                    .map(|(other, residual)| (other[place..].as_ptr(), residual)),
            };
            // SAFETY: one row of these columns is in `out`, and in the residual where there is one.
            unsafe { neon_write::rows(&[sums], &bytes) };
        }
    }
}

/// The first 16 bytes, or those that there are. Lanes after the last channel have weights of 0.
#[inline]
#[target_feature(enable = "neon")]
fn load(from: &[u8]) -> int8x16_t {
    let mut some = [0; LANES];
    let whole = from.first_chunk().unwrap_or_else(|| {
        some[..from.len()].copy_from_slice(from);
        &some
    });
    // SAFETY: 16 bytes are read from an array of 16.
    unsafe { vld1q_s8(whole.as_ptr().cast()) }
}

/// Adds the products of one tap. Numbers less their zero point, and weights less theirs, are below 256 in magnitude.
#[inline]
#[target_feature(enable = "neon")]
fn multiply(sums: &mut [int32x4_t; 4], lanes: int8x16_t, zero: int8x8_t, weights: &[i16; LANES]) {
    // SAFETY: the weights are 16.
    let (low, high) = unsafe {
        (
            vld1q_s16(weights.as_ptr()),
            vld1q_s16(weights.as_ptr().add(8)),
        )
    };
    let x = vsubl_s8(vget_low_s8(lanes), zero);
    sums[0] = vmlal_s16(sums[0], vget_low_s16(x), vget_low_s16(low));
    sums[1] = vmlal_high_s16(sums[1], x, low);
    let x = vsubl_s8(vget_high_s8(lanes), zero);
    sums[2] = vmlal_s16(sums[2], vget_low_s16(x), vget_low_s16(high));
    sums[3] = vmlal_high_s16(sums[3], x, high);
}
