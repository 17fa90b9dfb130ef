//! The inverse DCT, to 8, 4, 2 or 1 samples of each 8.

/// Row-major position of each coefficient in the order of the scan.
#[rustfmt::skip]
pub(super) const ZIGZAG: [usize; 64] = [
     0,  1,  8, 16,  9,  2,  3, 10, 17, 24, 32, 25, 18, 11,  4,  5,
    12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13,  6,  7, 14, 21, 28,
    35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51,
    58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
];

/// For each zigzag index: rows and columns that it and all before it lie in.
const EXTENT: [(u8, u8); 64] = {
    let mut extent = [(1, 1); 64];
    let mut k = 1;
    while k < 64 {
        let (row, column) = ((ZIGZAG[k] / 8 + 1) as u8, (ZIGZAG[k] % 8 + 1) as u8);
        let (r, c) = extent[k - 1];
        extent[k] = (
            if row > r { row } else { r },
            if column > c { column } else { c },
        );
        k += 1;
    }
    extent
};

/// Cosines for one scale.
///
/// The low N × N frequencies of an 8 × 8 block are the N × N block of the picture at N/8: orthonormal DCTs differ
/// only by a factor of N/8.
#[derive(Debug)]
pub(in super::super) struct Basis {
    size: usize,
    /// `[frequency][sample]`, the unused zero.
    cosines: [[f32; 8]; 8],
}

impl Basis {
    /// `size`: 8, 4, 2 or 1.
    pub fn new(size: usize) -> Self {
        let n = size as f64;
        let mut cosines = [[0.0; 8]; 8];
        for (k, row) in cosines.iter_mut().enumerate().take(size) {
            let norm = if k == 0 {
                (1.0 / n).sqrt()
            } else {
                (2.0 / n).sqrt()
            };
            for (x, value) in row.iter_mut().enumerate().take(size) {
                let angle = (2 * x + 1) as f64 * k as f64 * std::f64::consts::PI / (2.0 * n);
                *value = (norm * angle.cos() * (n / 8.0).sqrt()) as f32;
            }
        }
        Self { size, cosines }
    }

    pub fn size(&self) -> usize {
        self.size
    }

    /// Not for size 1, which is the [`mean`]. Dequantized coefficients, row-major, of which none behind zigzag index `last` is set → `size` × `size`
    /// samples at the start of `out`.
    #[inline(always)]
    pub fn transform(&self, coefficients: &[f32; 64], last: usize, out: &mut [u8], stride: usize) {
        if last == 0 {
            let level = mean(coefficients[0]);
            for row in out.chunks_mut(stride).take(self.size) {
                row[..self.size].fill(level);
            }
            return;
        }
        let (rows, columns) = EXTENT[last & 63];
        match self.size {
            8 => self.transform_to::<8>(coefficients, rows, columns, out, stride),
            4 => self.transform_to::<4>(coefficients, rows, columns, out, stride),
            _ => self.transform_to::<2>(coefficients, rows, columns, out, stride),
        }
    }

    /// Rows of cosines times coefficients, then that times columns of cosines: both run along rows, so that
    /// they become SIMD without a transposition.
    #[inline(always)]
    fn transform_to<const N: usize>(
        &self,
        c: &[f32; 64],
        rows: u8,
        columns: u8,
        out: &mut [u8],
        stride: usize,
    ) {
        let (rows, columns) = (usize::from(rows).min(N), usize::from(columns).min(N));
        let mut half = [[0f32; N]; N];
        for (cosines, c) in self.cosines.iter().zip(c.as_chunks::<8>().0).take(rows) {
            for (half, cosine) in half.iter_mut().zip(cosines) {
                for (h, c) in half.iter_mut().zip(c) {
                    *h += cosine * c;
                }
            }
        }
        for (half, out) in half.iter().zip(out.chunks_mut(stride)) {
            let mut sums = [0f32; N];
            for (h, cosines) in half.iter().zip(&self.cosines).take(columns) {
                for (sum, cosine) in sums.iter_mut().zip(cosines) {
                    *sum += h * cosine;
                }
            }
            for (out, sum) in out.iter_mut().zip(sums) {
                *out = sample(sum);
            }
        }
    }
}

/// The mean of a block, from its lowest frequency.
#[inline(always)]
pub(super) fn mean(dc: f32) -> u8 {
    sample(dc / 8.0)
}

/// Samples are stored around 0.
#[inline(always)]
fn sample(value: f32) -> u8 {
    (value + 128.5).clamp(0.0, 255.0) as i32 as u8
}
