//! `smmla`: 6 pixels × 16 channels, as 3 × 8 blocks of 2 × 2 sums.

use std::arch::{aarch64::*, asm};

use super::{Call, Panel, Target, Tile, neon_write};

pub(in super::super) struct NeonI8mm;

// SAFETY: rows are read 16 bytes at a time up to the depth rounded up to BLOCK; weights as `pack` laid them out;
// the rest is in `neon_write`.
unsafe impl Tile for NeonI8mm {
    const ROWS: usize = 6;
    const COLUMNS: usize = 16;
    const BLOCK: usize = 16;

    fn pack(depth: usize, weights: &[i8]) -> Panel {
        Panel::interleaved::<8>(depth, weights)
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

/// Eight bytes of k: 16 channels for each pair of rows, given as (activations, sums).
macro_rules! columns {
    ($w:tt; $(($a:tt $s:tt))*) => {
        concat!($("smmla ", $s, ".4s, ", $a, ".16b, ", $w, ".16b\n",)*)
    };
}

/// Sixteen bytes of k, `$steps` times. The activations of two rows are zipped to two registers of two rows by 8 bytes, `$a`
/// and `$b`; the weights take the two registers that are left at first, and four once the first activations are used up.
macro_rules! accumulate {
    ($steps:ident $weights:ident $rows:ident $sums:ident;
     $($pair:literal $q0:tt $q1:tt $v0:tt $v1:tt $a:tt $b:tt
       $s0:tt $s1:tt $s2:tt $s3:tt $s4:tt $s5:tt $s6:tt $s7:tt $top:ident $bottom:ident)*) => {
        asm!(
            "2:",
            $(concat!("ldr ", $q0, ", [{", stringify!($top), "}], #16"),
            concat!("ldr ", $q1, ", [{", stringify!($bottom), "}], #16"),)*
            $(concat!("zip1 ", $a, ".2d, ", $v0, ".2d, ", $v1, ".2d"),
            concat!("zip2 ", $b, ".2d, ", $v0, ".2d, ", $v1, ".2d"),)*
            "ldp q29, q31, [{weights}], #32",
            columns!("v29"; $(($a $s0))*),
            columns!("v31"; $(($a $s1))*),
            "ldp q29, q31, [{weights}], #32",
            columns!("v29"; $(($a $s2))*),
            columns!("v31"; $(($a $s3))*),
            "ldp q29, q31, [{weights}], #32",
            columns!("v29"; $(($a $s4))*),
            columns!("v31"; $(($a $s5))*),
            "ldp q29, q31, [{weights}], #32",
            columns!("v29"; $(($a $s6))*),
            columns!("v31"; $(($a $s7))*),
            "ld1 {{v29.16b, v30.16b, v31.16b}}, [{weights}], #48",
            columns!("v29"; $(($b $s0))*),
            columns!("v30"; $(($b $s1))*),
            columns!("v31"; $(($b $s2))*),
            "ld1 {{v29.16b, v30.16b, v31.16b}}, [{weights}], #48",
            columns!("v29"; $(($b $s3))*),
            columns!("v30"; $(($b $s4))*),
            columns!("v31"; $(($b $s5))*),
            "ldp q29, q31, [{weights}], #32",
            columns!("v29"; $(($b $s6))*),
            columns!("v31"; $(($b $s7))*),
            "subs {steps}, {steps}, #1",
            "b.ne 2b",
            steps = inout(reg) $steps => _,
            weights = inout(reg) $weights => _,
            $($top = inout(reg) $rows[$pair][0] => _,
            $bottom = inout(reg) $rows[$pair][1] => _,
            inout($s0) $sums[$pair][0],
            inout($s1) $sums[$pair][1],
            inout($s2) $sums[$pair][2],
            inout($s3) $sums[$pair][3],
            inout($s4) $sums[$pair][4],
            inout($s5) $sums[$pair][5],
            inout($s6) $sums[$pair][6],
            inout($s7) $sums[$pair][7],)*
            out("v24") _, out("v25") _, out("v26") _, out("v27") _,
            out("v28") _, out("v29") _, out("v30") _, out("v31") _,
            options(readonly, nostack)
        )
    };
}

/// [`accumulate`] for as many pairs of rows as there are.
macro_rules! accumulate_pairs {
    ($count:expr, $($operands:ident)*) => {
        accumulate_pairs!(@ $count, [$($operands)*]
            [0 "q24" "q25" "v24" "v25" "v30" "v24" "v0" "v1" "v2" "v3" "v4" "v5" "v6" "v7" p0 p1]
            [1 "q26" "q27" "v26" "v27" "v25" "v26" "v8" "v9" "v10" "v11" "v12" "v13" "v14" "v15" p2 p3]
            [2 "q28" "q29" "v28" "v29" "v27" "v28" "v16" "v17" "v18" "v19" "v20" "v21" "v22" "v23" p4 p5])
    };
    (@ $count:expr, [$($operands:ident)*] [$($p0:tt)*] [$($p1:tt)*] [$($p2:tt)*]) => {
        match $count {
            1 => accumulate!($($operands)*; $($p0)*),
            2 => accumulate!($($operands)*; $($p0)* $($p1)*),
            _ => accumulate!($($operands)*; $($p0)* $($p1)* $($p2)*),
        }
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
        let rows: [[*const i8; 2]; PAIRS] =
            std::array::from_fn(|pair| [row(2 * pair), row(2 * pair + 1)]);
        let bias = |pair: usize| -> [int32x4_t; 8] {
            let [top, bottom] =
                [2 * pair, 2 * pair + 1].map(|row| call.bias_of(row.min(call.rows - 1)));
            std::array::from_fn(|columns| {
                let two = |bias: *const i32| vld1_s32(bias.add(2 * columns));
                vcombine_s32(two(top), two(bottom))
            })
        };
        let mut sums = [bias(0); PAIRS];
        if call.bias_stride > 0 {
            for (pair, sums) in sums.iter_mut().enumerate().skip(1) {
                *sums = bias(pair);
            }
        }
        let weights = call.weights;
        let steps = call.depth / NeonI8mm::BLOCK;
        accumulate_pairs!(PAIRS, steps weights rows sums);
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
