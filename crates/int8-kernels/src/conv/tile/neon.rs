//! NEON without dot products: 4 pixels × 4 channels, `smull`/`smlal` and `sadalp`.
//!
//! A chain of four multiplications (32 bytes of k) is added in 16 bits before `sadalp` widens it: five instructions for 32
//! products. [`split`](mod@super::split) makes the 16-bit sums exact.

use std::arch::{aarch64::*, asm};

use super::{
    Call, Panel, Target, Tile, dispatch_rows, neon_write,
    split::{Rule, split},
};

/// Bytes of k in a block, and blocks whose products are added in 16 bits.
const K: usize = 16;
const GROUP: usize = 2;

/// 128 · 255 fits 16 bits, so the magnitudes of the weights of a lane may not sum to more than 255.
struct Chains;

impl Rule for Chains {
    const K: usize = K;
    const GROUP: usize = GROUP;
    const LANES: usize = 8;

    fn lane(i: usize) -> usize {
        i % 8
    }

    fn limit(positive: i32, negative: i32) -> (i32, i32) {
        let excess = (positive + negative - 255).max(0);
        let from_positive = excess.min(positive);
        (from_positive, excess - from_positive)
    }
}

pub(in super::super) struct Neon;

// SAFETY: rows are read 16 bytes at `offsets`, which `pack` keeps below the depth rounded up to BLOCK; weights are read as
// `pack` laid them out; the rest is in `neon_write`.
unsafe impl Tile for Neon {
    const ROWS: usize = 4;
    const COLUMNS: usize = 16;
    const BLOCK: usize = K;

    /// Four panels of four columns, one after the other; each says its number of groups in its first offset. In a group, the
    /// blocks of a column are neighbours.
    fn pack(depth: usize, weights: &[i8]) -> Panel {
        let mut panel = Panel::default();
        for columns in weights.chunks_exact(4 * depth) {
            let blocks = split::<Chains>(depth, columns);
            panel.offsets.push((blocks.offsets.len() / GROUP) as u32);
            panel.offsets.extend(blocks.offsets);
            for group in blocks.weights.chunks_exact(GROUP * 4 * K) {
                for column in 0..4 {
                    for block in group.chunks_exact(4 * K) {
                        panel.weights.extend_from_slice(&block[column * K..][..K]);
                    }
                }
            }
        }
        panel
    }

    unsafe fn run(call: &Call) {
        dispatch_rows!(tile; call, 1 2 3 4)
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
            for row in 0..ROWS {
                let bias = vld1q_s32(call.bias_of(row).add(4 * columns));
                sums[row][columns] = vaddq_s32(four[row], bias);
            }
        }
        match &call.target {
            Target::Bytes(bytes) => neon_write::rows(&sums, bytes),
            Target::Sums(out) => neon_write::sums(&sums, *out),
        }
    }
}

/// The products of one column with each row, given as (activations of two blocks, products, sums). Row by row they would
/// wait for each other: a chain of additions runs at full speed only if nothing else is between.
macro_rules! column {
    ($(($a:tt $b:tt $product:tt $sum:tt))*) => {
        concat!(
            "ldp q24, q25, [{weights}], #32\n",
            $("smull ", $product, ".8h, ", $a, ".8b, v24.8b\n",)*
            $("smlal2 ", $product, ".8h, ", $a, ".16b, v24.16b\n",)*
            $("smlal ", $product, ".8h, ", $b, ".8b, v25.8b\n",)*
            $("smlal2 ", $product, ".8h, ", $b, ".16b, v25.16b\n",)*
            $("sadalp ", $sum, ".4s, ", $product, ".8h\n",)*
        )
    };
}

/// A group of two blocks, `$groups` times.
macro_rules! accumulate {
    ($groups:ident $weights:ident $offsets:ident $rows:ident $sums:ident;
     $($row:literal $qa:tt $qb:tt $a:tt $b:tt $product:tt $s0:tt $s1:tt $s2:tt $s3:tt $pointer:ident)*) => {
        asm!(
            "2:",
            "ldp {first:w}, {second:w}, [{offsets}], #8",
            $(concat!("ldr ", $qa, ", [{", stringify!($pointer), "}, {first}]"),
            concat!("ldr ", $qb, ", [{", stringify!($pointer), "}, {second}]"),)*
            column!($(($a $b $product $s0))*),
            column!($(($a $b $product $s1))*),
            column!($(($a $b $product $s2))*),
            column!($(($a $b $product $s3))*),
            "subs {groups}, {groups}, #1",
            "b.ne 2b",
            groups = inout(reg) $groups => _,
            weights = inout(reg) $weights => _,
            offsets = inout(reg) $offsets => _,
            first = out(reg) _,
            second = out(reg) _,
            $($pointer = in(reg) $rows[$row],
            inout($s0) $sums[$row][0],
            inout($s1) $sums[$row][1],
            inout($s2) $sums[$row][2],
            inout($s3) $sums[$row][3],
            out($a) _,
            out($b) _,
            out($product) _,)*
            out("v24") _,
            out("v25") _,
            options(readonly, nostack)
        )
    };
}

/// [`accumulate`] for as many rows as there are.
macro_rules! accumulate_rows {
    ($count:expr, $($operands:ident)*) => {
        accumulate_rows!(@ $count, [$($operands)*]
            [0 "q16" "q17" "v16" "v17" "v26" "v0" "v1" "v2" "v3" p0]
            [1 "q18" "q19" "v18" "v19" "v27" "v4" "v5" "v6" "v7" p1]
            [2 "q20" "q21" "v20" "v21" "v28" "v8" "v9" "v10" "v11" p2]
            [3 "q22" "q23" "v22" "v23" "v29" "v12" "v13" "v14" "v15" p3])
    };
    (@ $count:expr, [$($operands:ident)*] [$($r0:tt)*] [$($r1:tt)*] [$($r2:tt)*] [$($r3:tt)*]) => {
        match $count {
            1 => accumulate!($($operands)*; $($r0)*),
            2 => accumulate!($($operands)*; $($r0)* $($r1)*),
            3 => accumulate!($($operands)*; $($r0)* $($r1)* $($r2)*),
            _ => accumulate!($($operands)*; $($r0)* $($r1)* $($r2)* $($r3)*),
        }
    };
}

/// The sums of four columns for each row.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn four_columns<const ROWS: usize>(
    call: &Call,
    weights: *const i8,
    offsets: &[u32],
) -> [int32x4_t; ROWS] {
    // SAFETY: the pointers are good as `Call` says; a panel has at least one group.
    unsafe {
        let mut sums = [[vdupq_n_s32(0); 4]; ROWS];
        let rows: [*const u8; ROWS] = std::array::from_fn(|row| call.a.add(row * call.a_stride));
        let (groups, offsets) = (offsets.len() / GROUP, offsets.as_ptr());
        accumulate_rows!(ROWS, groups weights offsets rows sums);
        sums.map(|[a, b, c, d]| vpaddq_s32(vpaddq_s32(a, b), vpaddq_s32(c, d)))
    }
}
