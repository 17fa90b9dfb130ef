//! NEON: 16 bytes at a time are looked up by `tbl` and `tbx`, 64 entries by each.

use std::arch::aarch64::*;

/// Writes `table[byte]` for each of `count` bytes.
///
/// # Safety
///
/// `from` and `to` are good for `count` bytes, and do not overlap.
#[target_feature(enable = "neon")]
pub(super) unsafe fn bytes(table: &[u8; 256], from: *const u8, to: *mut u8, count: usize) {
    // SAFETY: a quarter has 64 bytes.
    let quarters = [0, 64, 128, 192].map(|at| unsafe { vld1q_u8_x4(table[at..].as_ptr()) });
    let quarter = vdupq_n_u8(64);
    let whole = count / 16 * 16;
    // SAFETY: no more than `count` bytes are read and written.
    unsafe {
        for at in (0..whole).step_by(16) {
            // What is not in a quarter stays as it was.
            let mut place = vld1q_u8(from.add(at));
            let mut found = vqtbl4q_u8(quarters[0], place);
            for quarter_of in &quarters[1..] {
                place = vsubq_u8(place, quarter);
                found = vqtbx4q_u8(found, *quarter_of, place);
            }
            vst1q_u8(to.add(at), found);
        }
        for at in whole..count {
            *to.add(at) = table[usize::from(*from.add(at))];
        }
    }
}
