//! `sdot`: 6 pixels × 16 channels. 24 sums, 6 activations and 2 weights fill the 32 registers, which the compiler does not
//! manage without spilling: the loop is assembly.

use std::arch::{aarch64::*, asm};

use super::{Call, Panel, Target, Tile, dispatch_rows, neon_write};

pub(in super::super) struct NeonDot;

// SAFETY: rows are read 16 bytes at a time up to the depth rounded up to BLOCK; weights as `pack` laid them out;
// the rest is in `neon_write`.
unsafe impl Tile for NeonDot {
    const ROWS: usize = 6;
    const COLUMNS: usize = 16;
    const BLOCK: usize = 16;

    fn pack(depth: usize, weights: &[i8]) -> Panel {
        Panel::interleaved::<4>(depth, weights)
    }

    unsafe fn run(call: &Call) {
        dispatch_rows!(tile; call, 1 2 3 4 5 6)
    }
}

/// Four bytes of k: 16 channels for each row, given as (activations, sums).
macro_rules! lane {
    ($lane:literal; $(($a:tt $s0:tt $s1:tt $s2:tt $s3:tt))*) => {
        concat!(
            "ldp q30, q31, [{weights}], #32\n",
            $("sdot ", $s0, ".4s, v30.16b, ", $a, ".4b[", $lane, "]\n",)*
            $("sdot ", $s1, ".4s, v31.16b, ", $a, ".4b[", $lane, "]\n",)*
            "ldp q30, q31, [{weights}], #32\n",
            $("sdot ", $s2, ".4s, v30.16b, ", $a, ".4b[", $lane, "]\n",)*
            $("sdot ", $s3, ".4s, v31.16b, ", $a, ".4b[", $lane, "]\n",)*
        )
    };
}

/// Sixteen bytes of k, `$steps` times.
macro_rules! accumulate {
    ($steps:ident $weights:ident $rows:ident $sums:ident;
     $($row:literal $q:tt $a:tt $s0:tt $s1:tt $s2:tt $s3:tt $pointer:ident)*) => {
        asm!(
            "2:",
            $(concat!("ldr ", $q, ", [{", stringify!($pointer), "}], #16"),)*
            lane!(0; $(($a $s0 $s1 $s2 $s3))*),
            lane!(1; $(($a $s0 $s1 $s2 $s3))*),
            lane!(2; $(($a $s0 $s1 $s2 $s3))*),
            lane!(3; $(($a $s0 $s1 $s2 $s3))*),
            "subs {steps}, {steps}, #1",
            "b.ne 2b",
            steps = inout(reg) $steps => _,
            weights = inout(reg) $weights => _,
            $($pointer = inout(reg) $rows[$row] => _,
            inout($s0) $sums[$row][0],
            inout($s1) $sums[$row][1],
            inout($s2) $sums[$row][2],
            inout($s3) $sums[$row][3],
            out($a) _,)*
            out("v30") _,
            out("v31") _,
            options(readonly, nostack)
        )
    };
}

/// [`accumulate`] for as many rows as there are.
macro_rules! accumulate_rows {
    ($count:expr, $steps:ident $weights:ident $rows:ident $sums:ident) => {
        accumulate_rows!(@ $count, $steps $weights $rows $sums;
            [1 2 3 4 5 6]
            [0 "q24" "v24" "v0" "v1" "v2" "v3" p0]
            [1 "q25" "v25" "v4" "v5" "v6" "v7" p1]
            [2 "q26" "v26" "v8" "v9" "v10" "v11" p2]
            [3 "q27" "v27" "v12" "v13" "v14" "v15" p3]
            [4 "q28" "v28" "v16" "v17" "v18" "v19" p4]
            [5 "q29" "v29" "v20" "v21" "v22" "v23" p5])
    };
    (@ $count:expr, $steps:ident $weights:ident $rows:ident $sums:ident;
     [$n1:literal $n2:literal $n3:literal $n4:literal $n5:literal $n6:literal]
     [$($r0:tt)*] [$($r1:tt)*] [$($r2:tt)*] [$($r3:tt)*] [$($r4:tt)*] [$($r5:tt)*]) => {
        match $count {
            $n1 => accumulate!($steps $weights $rows $sums; $($r0)*),
            $n2 => accumulate!($steps $weights $rows $sums; $($r0)* $($r1)*),
            $n3 => accumulate!($steps $weights $rows $sums; $($r0)* $($r1)* $($r2)*),
            $n4 => accumulate!($steps $weights $rows $sums; $($r0)* $($r1)* $($r2)* $($r3)*),
            $n5 => accumulate!($steps $weights $rows $sums; $($r0)* $($r1)* $($r2)* $($r3)* $($r4)*),
            _ => accumulate!($steps $weights $rows $sums; $($r0)* $($r1)* $($r2)* $($r3)* $($r4)* $($r5)*),
        }
    };
}

#[target_feature(enable = "neon,dotprod")]
unsafe fn tile<const ROWS: usize>(call: &Call) {
    // SAFETY: the pointers are good as `Call` says.
    unsafe {
        let bias = |row: usize| -> [int32x4_t; 4] {
            let bias = call.bias_of(row);
            std::array::from_fn(|column| vld1q_s32(bias.add(4 * column)))
        };
        let mut sums = [bias(0); ROWS];
        if call.bias_stride > 0 {
            for (row, sums) in sums.iter_mut().enumerate().skip(1) {
                *sums = bias(row);
            }
        }
        let rows: [*const u8; ROWS] = std::array::from_fn(|row| call.a.add(row * call.a_stride));
        let weights = call.weights;
        let steps = call.depth / NeonDot::BLOCK;
        accumulate_rows!(ROWS, steps weights rows sums);
        match &call.target {
            Target::Bytes(bytes) => neon_write::rows(&sums, bytes),
            Target::Sums(out) => neon_write::sums(&sums, *out),
        }
    }
}
