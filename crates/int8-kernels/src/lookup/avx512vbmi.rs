//! AVX512-VBMI: 64 bytes at a time are looked up by `vpermi2b`, 128 entries by each.

use std::arch::x86_64::*;

/// A table of 256 bytes in registers.
struct Table([__m512i; 4]);

impl Table {
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn new(table: &[u8; 256]) -> Self {
        let quarter = |i: usize| {
            // SAFETY: a quarter has 64 bytes.
            unsafe { _mm512_loadu_si512(table[64 * i..].as_ptr().cast()) }
        };
        Self([quarter(0), quarter(1), quarter(2), quarter(3)])
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
    fn of(&self, bytes: __m512i) -> __m512i {
        let [a, b, c, d] = self.0;
        let low = _mm512_permutex2var_epi8(a, bytes, b);
        let high = _mm512_permutex2var_epi8(c, bytes, d);
        _mm512_mask_blend_epi8(_mm512_movepi8_mask(bytes), low, high)
    }
}

/// Writes `table[byte]` for each of `count` bytes.
///
/// # Safety
///
/// `from` and `to` are good for `count` bytes, and do not overlap.
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
pub(super) unsafe fn bytes(table: &[u8; 256], from: *const u8, to: *mut u8, count: usize) {
    let table = Table::new(table);
    let whole = count / 64 * 64;
    // SAFETY: no more than `count` bytes are read and written.
    unsafe {
        for at in (0..whole).step_by(64) {
            let bytes = _mm512_loadu_si512(from.add(at).cast());
            _mm512_storeu_si512(to.add(at).cast(), table.of(bytes));
        }
        if whole < count {
            let rest = u64::MAX >> (64 - (count - whole));
            let bytes = _mm512_maskz_loadu_epi8(rest, from.add(whole).cast());
            _mm512_mask_storeu_epi8(to.add(whole).cast(), rest, table.of(bytes));
        }
    }
}

/// Writes the float of each of `count` bytes; `planes` are the bytes of the floats, least first.
///
/// # Safety
///
/// `from` is good for `count` bytes, `to` for `count` floats.
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
pub(super) unsafe fn floats(planes: &[[u8; 256]; 4], from: *const u8, to: *mut f32, count: usize) {
    let planes = [0, 1, 2, 3].map(|i| Table::new(&planes[i]));
    // `unpack` puts together what lies in the same quarters of its operands: so the four bytes of a float come from the same
    // quarter, and the fours that are to be neighbours lie at the same place of the four quarters.
    let order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    let look_up = |bytes: __m512i| {
        let bytes = _mm512_permutexvar_epi32(order, bytes);
        let [a, b, c, d] = [0, 1, 2, 3].map(|i| planes[i].of(bytes));
        let low = [_mm512_unpacklo_epi8(a, b), _mm512_unpacklo_epi8(c, d)];
        let high = [_mm512_unpackhi_epi8(a, b), _mm512_unpackhi_epi8(c, d)];
        [
            _mm512_unpacklo_epi16(low[0], low[1]),
            _mm512_unpackhi_epi16(low[0], low[1]),
            _mm512_unpacklo_epi16(high[0], high[1]),
            _mm512_unpackhi_epi16(high[0], high[1]),
        ]
    };
    let whole = count / 64 * 64;
    // SAFETY: no more than `count` elements are read and written.
    unsafe {
        for at in (0..whole).step_by(64) {
            let floats = look_up(_mm512_loadu_si512(from.add(at).cast()));
            for (i, floats) in floats.into_iter().enumerate() {
                _mm512_storeu_si512(to.add(at + 16 * i).cast(), floats);
            }
        }
        if whole < count {
            let rest = u64::MAX >> (64 - (count - whole));
            let floats = look_up(_mm512_maskz_loadu_epi8(rest, from.add(whole).cast()));
            for (i, floats) in floats.into_iter().enumerate() {
                let here = (rest >> (16 * i)) as __mmask16;
                let to = to.wrapping_add(whole + 16 * i);
                _mm512_mask_storeu_epi32(to.cast(), here, floats);
            }
        }
    }
}
