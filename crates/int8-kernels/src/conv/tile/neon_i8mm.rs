//! `smmla`: 6 pixels × 16 channels, as 3 × 8 blocks of 2 × 2 sums.

use std::arch::{aarch64::*, asm};

use super::{Call, Panel, Target, Tile, dispatch_rows, neon_write};

pub(in super::super) struct NeonI8mm;

// SAFETY: rows are read 16 bytes at a time, then 8, up to the depth rounded up to BLOCK; weights as `pack` laid them out;
// the rest is in `neon_write`.
unsafe impl Tile for NeonI8mm {
    const ROWS: usize = 6;
    const COLUMNS: usize = 16;
    const BLOCK: usize = 8;

    fn pack(depth: usize, weight: &dyn Fn(usize, usize) -> i8) -> Panel {
        Panel::interleaved(Self::COLUMNS, Self::BLOCK, depth, weight)
    }

    unsafe fn run(call: &Call) {
        match call.rows.div_ceil(2) {
            // SAFETY: handed on to the caller.
            1 => unsafe { tile::<1>(call) },
            // SAFETY: handed on to the caller.
            2 => unsafe { tile::<2>(call) },
            // SAFETY: handed on to the caller.
            _ => unsafe { tile::<3>(call) },
        }
    }
}

/// `sum += a · weightsᵀ`: two pixels by two channels, 8 bytes of k.
macro_rules! multiply {
    ($sum:expr, $a:expr, $weights:expr) => {
        asm!(
            "smmla {sum:v}.4s, {a:v}.16b, {weights:v}.16b",
            sum = inout(vreg) $sum,
            a = in(vreg) $a,
            weights = in(vreg) $weights,
            options(pure, nomem, nostack, preserves_flags)
        )
    };
}

#[target_feature(enable = "neon,i8mm")]
unsafe fn tile<const PAIRS: usize>(call: &Call) {
    // SAFETY: the pointers are good as `Call` says.
    unsafe {
        // An odd last pair reads its row twice.
        let row = |row: usize| {
            call.a
                .add(row.min(call.rows - 1) * call.a_stride)
                .cast::<i8>()
        };
        let mut rows: [[*const i8; 2]; PAIRS] =
            std::array::from_fn(|pair| [row(2 * pair), row(2 * pair + 1)]);
        let bias: [int32x4_t; 8] = std::array::from_fn(|columns| {
            let two = vld1_s32(call.bias.add(2 * columns));
            vcombine_s32(two, two)
        });
        let mut sums = [bias; PAIRS];
        let mut weights = call.weights;
        for _ in 0..call.depth / 16 {
            let a: [[int8x16_t; 2]; PAIRS] = std::array::from_fn(|pair| {
                let [top, bottom] = rows[pair].map(|row| vreinterpretq_s64_s8(vld1q_s8(row)));
                [vzip1q_s64(top, bottom), vzip2q_s64(top, bottom)].map(|a| vreinterpretq_s8_s64(a))
            });
            rows.as_flattened_mut()
                .iter_mut()
                .for_each(|row| *row = row.add(16));
            for half in 0..2 {
                for columns in 0..8 {
                    let w = vld1q_s8(weights.add(128 * half + 16 * columns));
                    for pair in 0..PAIRS {
                        multiply!(sums[pair][columns], a[pair][half], w);
                    }
                }
            }
            weights = weights.add(256);
        }
        if call.depth % 16 != 0 {
            let a = rows.map(|[top, bottom]| vcombine_s8(vld1_s8(top), vld1_s8(bottom)));
            for columns in 0..8 {
                let w = vld1q_s8(weights.add(16 * columns));
                for pair in 0..PAIRS {
                    multiply!(sums[pair][columns], a[pair], w);
                }
            }
        }
        // From 2 × 2 blocks to rows of 16.
        let rows_of = |pair: usize, half: usize| -> [int32x4_t; 4] {
            std::array::from_fn(|i| {
                let [a, b] = [sums[pair][2 * i], sums[pair][2 * i + 1]]
                    .map(|sums| vreinterpretq_s64_s32(sums));
                vreinterpretq_s32_s64(if half == 0 {
                    vzip1q_s64(a, b)
                } else {
                    vzip2q_s64(a, b)
                })
            })
        };
        for pair in 0..PAIRS {
            let first = 2 * pair;
            match &call.target {
                Target::Bytes(bytes) if first + 1 < call.rows => {
                    neon_write::rows(
                        &[rows_of(pair, 0), rows_of(pair, 1)],
                        &bytes.from_row(first),
                    );
                }
                Target::Bytes(bytes) => {
                    neon_write::rows(&[rows_of(pair, 0)], &bytes.from_row(first))
                }
                Target::Sums(out) => {
                    neon_write::sums(
                        &[rows_of(pair, 0), rows_of(pair, 1)],
                        out.add(first * NeonI8mm::COLUMNS),
                    );
                }
            }
        }
    }
}
