//! NEON without dot products: 4 pixels × 4 channels, `smull`/`smlal` and `sadalp`.
//!
//! A chain of four multiplications (32 bytes of k) is added in 16 bits before `sadalp` widens it: five instructions for 32
//! products. [`split`](super::split) makes the 16-bit sums exact.

use std::arch::aarch64::*;

use super::{
    Call, Panel, Target, Tile, dispatch_rows, neon_write,
    split::{Block, Limit, Rule},
};

/// Bytes of k in a block, and blocks whose products are added in 16 bits.
const K: usize = 16;
const GROUP: usize = 2;

const RULE: Rule = Rule {
    k: K,
    group: GROUP,
    lane: |i| i % 8,
    lanes: 8,
    limit: Limit::Signed,
};

pub(in super::super) struct Neon;

// SAFETY: rows are read 16 bytes at `offsets`, which `pack` keeps below the depth rounded up to BLOCK; weights are read as
// `pack` laid them out; the rest is in `neon_write`.
unsafe impl Tile for Neon {
    const ROWS: usize = 4;
    const COLUMNS: usize = 16;
    const BLOCK: usize = K;

    /// Four panels of four columns, one after the other; each says its number of groups in its first offset.
    fn pack(depth: usize, weight: &dyn Fn(usize, usize) -> i8) -> Panel {
        let mut panel = Panel::default();
        for first in (0..Self::COLUMNS).step_by(4) {
            let block = |k: usize| {
                let weight = |column, k| {
                    if k < depth {
                        i16::from(weight(first + column, k))
                    } else {
                        0
                    }
                };
                let weights = (0..4).flat_map(|column| (k..k + K).map(move |k| weight(column, k)));
                Block {
                    offset: k as u32,
                    weights: weights.collect(),
                }
            };
            let blocks = RULE.split((0..depth).step_by(K).map(block).collect());
            panel.offsets.push((blocks.len() / GROUP) as u32);
            panel
                .offsets
                .extend(blocks.iter().map(|block| block.offset));
            panel.weights.extend(
                blocks
                    .iter()
                    .flat_map(|block| block.weights.iter().map(|&weight| weight as i8)),
            );
        }
        panel
    }

    unsafe fn run(call: &Call) {
        dispatch_rows!(tile, call, 1 2 3 4)
    }
}

#[target_feature(enable = "neon")]
unsafe fn tile<const ROWS: usize>(call: &Call) {
    let (mut weights, mut offsets) = (call.weights, call.offsets);
    // SAFETY: the pointers are good as `Call` says.
    unsafe {
        let mut sums = [[vdupq_n_s32(0); 4]; ROWS];
        for columns in 0..4 {
            let Some((&groups, rest)) = offsets.split_first() else {
                return;
            };
            let (these, rest) = rest.split_at_unchecked(groups as usize * GROUP);
            offsets = rest;
            let four = four_columns::<ROWS>(call, weights, these);
            weights = weights.add(groups as usize * GROUP * 4 * K);
            let bias = vld1q_s32(call.bias.add(4 * columns));
            for row in 0..ROWS {
                sums[row][columns] = vaddq_s32(four[row], bias);
            }
        }
        match &call.target {
            Target::Bytes(bytes) => neon_write::rows(&sums, bytes),
            Target::Sums(out) => neon_write::sums(&sums, *out),
        }
    }
}

/// The sums of four columns for each row.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn four_columns<const ROWS: usize>(
    call: &Call,
    mut weights: *const i8,
    offsets: &[u32],
) -> [int32x4_t; ROWS] {
    // SAFETY: the pointers are good as `Call` says.
    unsafe {
        let mut sums = [[vdupq_n_s32(0); 4]; ROWS];
        let rows: [*const i8; ROWS] =
            std::array::from_fn(|row| call.a.add(row * call.a_stride).cast());
        for &[first, second] in offsets.as_chunks::<GROUP>().0 {
            let a: [[int8x16_t; 2]; ROWS] = std::array::from_fn(|row| {
                [
                    vld1q_s8(rows[row].add(first as usize)),
                    vld1q_s8(rows[row].add(second as usize)),
                ]
            });
            for column in 0..4 {
                let w = [
                    vld1q_s8(weights.add(K * column)),
                    vld1q_s8(weights.add(K * (4 + column))),
                ];
                for row in 0..ROWS {
                    let mut products = vmull_s8(vget_low_s8(a[row][0]), vget_low_s8(w[0]));
                    products = vmlal_high_s8(products, a[row][0], w[0]);
                    products = vmlal_s8(products, vget_low_s8(a[row][1]), vget_low_s8(w[1]));
                    products = vmlal_high_s8(products, a[row][1], w[1]);
                    sums[row][column] = vpadalq_s16(sums[row][column], products);
                }
            }
            weights = weights.add(GROUP * 4 * K);
        }
        sums.map(|[a, b, c, d]| vpaddq_s32(vpaddq_s32(a, b), vpaddq_s32(c, d)))
    }
}
