//! `sdot`: 6 pixels × 16 channels. 24 sums, 6 activations and 2 weights fill the 32 registers.

use std::arch::{aarch64::*, asm};

use super::{Call, Panel, Target, Tile, dispatch_rows, neon_write};

pub(in super::super) struct NeonDot;

// SAFETY: rows are read 16 bytes at a time, then 4, up to the depth rounded up to BLOCK; weights as `pack` laid them out;
// the rest is in `neon_write`.
unsafe impl Tile for NeonDot {
    const ROWS: usize = 6;
    const COLUMNS: usize = 16;
    const BLOCK: usize = 4;

    fn pack(depth: usize, weight: &dyn Fn(usize, usize) -> i8) -> Panel {
        Panel::interleaved(Self::COLUMNS, Self::BLOCK, depth, weight)
    }

    unsafe fn run(call: &Call) {
        dispatch_rows!(tile, call, 1 2 3 4 5 6)
    }
}

/// `sum[4i..] += Σ weights[4i..] · a[4·LANE..]`: four channels by one group of four bytes of `a`.
macro_rules! dot {
    ($sum:expr, $weights:expr, $a:expr, $lane:literal) => {
        asm!(
            concat!("sdot {sum:v}.4s, {weights:v}.16b, {a:v}.4b[", $lane, "]"),
            sum = inout(vreg) $sum,
            weights = in(vreg) $weights,
            a = in(vreg) $a,
            options(pure, nomem, nostack, preserves_flags)
        )
    };
}

#[target_feature(enable = "neon,dotprod")]
unsafe fn tile<const ROWS: usize>(call: &Call) {
    // SAFETY: the pointers are good as `Call` says.
    unsafe {
        let bias: [int32x4_t; 4] =
            std::array::from_fn(|column| vld1q_s32(call.bias.add(4 * column)));
        let mut sums = [bias; ROWS];
        let mut rows: [*const i8; ROWS] =
            std::array::from_fn(|row| call.a.add(row * call.a_stride).cast());
        let mut weights = call.weights;
        for _ in 0..call.depth / 16 {
            let a: [int8x16_t; ROWS] = std::array::from_fn(|row| vld1q_s8(rows[row]));
            rows.iter_mut().for_each(|row| *row = row.add(16));
            macro_rules! lane {
                ($lane:literal) => {
                    for column in 0..4 {
                        let w = vld1q_s8(weights.add(64 * $lane + 16 * column));
                        for row in 0..ROWS {
                            dot!(sums[row][column], w, a[row], $lane);
                        }
                    }
                };
            }
            lane!(0);
            lane!(1);
            lane!(2);
            lane!(3);
            weights = weights.add(256);
        }
        for _ in 0..call.depth % 16 / 4 {
            let a: [int8x16_t; ROWS] = std::array::from_fn(|row| {
                vreinterpretq_s8_s32(vdupq_n_s32(rows[row].cast::<i32>().read_unaligned()))
            });
            rows.iter_mut().for_each(|row| *row = row.add(4));
            for column in 0..4 {
                let w = vld1q_s8(weights.add(16 * column));
                for row in 0..ROWS {
                    dot!(sums[row][column], w, a[row], 0);
                }
            }
            weights = weights.add(64);
        }
        match &call.target {
            Target::Bytes(bytes) => neon_write::rows(&sums, bytes),
            Target::Sums(out) => neon_write::sums(&sums, *out),
        }
    }
}
