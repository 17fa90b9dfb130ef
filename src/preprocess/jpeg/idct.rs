//! The inverse DCT, to 8, 4, 2 or 1 samples of each 8.

/// Row-major position of each coefficient in the order of the scan.
#[rustfmt::skip]
const ZIGZAG: [usize; 64] = [
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

/// Cosines for one scale, and where each coefficient belongs.
///
/// The low N × N frequencies of an 8 × 8 block are the N × N block of the picture at N/8: orthonormal DCTs differ
/// only by a factor of N/8.
#[derive(Debug)]
pub(in super::super) struct Basis {
    size: usize,
    /// `[frequency][sample]`, the unused zero.
    cosines: [[f32; 8]; 8],
    /// For each zigzag index: its place in [`Coefficients`].
    places: [u8; 64],
}

/// A block's low N × N frequencies, row-major. What N does not need goes to the element behind them.
pub(super) type Coefficients<T> = [T; 64];

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
        let places = ZIGZAG.map(|z| {
            let (row, column) = (z / 8, z % 8);
            let place = if row.max(column) < size {
                row * size + column
            } else {
                size * size
            };
            place as u8
        });
        Self {
            size,
            cosines,
            places,
        }
    }

    pub fn size(&self) -> usize {
        self.size
    }

    /// Where the coefficient of a zigzag index below 64 belongs.
    #[inline(always)]
    pub fn place(&self, index: usize) -> usize {
        usize::from(self.places[index & 63] & 63)
    }

    /// A table in zigzag order as [`Coefficients`].
    pub fn arranged(&self, zigzag: &[f32; 64]) -> Coefficients<f32> {
        let mut arranged = [0.0; 64];
        for (index, &value) in zigzag.iter().enumerate() {
            arranged[self.place(index)] = value;
        }
        arranged
    }

    /// Of these, none behind zigzag index `last` is set. `N` × `N` samples, row-major; `N` is the basis's size.
    #[inline(always)]
    pub fn transform<const N: usize>(
        &self,
        coefficients: &Coefficients<i32>,
        quant: &Coefficients<f32>,
        last: usize,
    ) -> [[u8; N]; N] {
        if last == 0 {
            return [[sample(coefficients[0] as f32 * quant[0] / 8.0); N]; N];
        }
        // Small blocks are done sooner than it is found out how many of their rows matter.
        let (rows, columns) = match EXTENT[last & 63] {
            (rows, columns) if N == 8 => (rows.into(), columns.into()),
            _ => (N, N),
        };
        // Rows of cosines times coefficients, then that times columns of cosines: both run along rows, so that they become SIMD without
        // a transposition.
        let half = self.along_columns::<N>(coefficients, quant, rows);
        let mut samples = [[0f32; N]; N];
        // That there are N rows is not told: unrolled, they become slower.
        for (half, samples) in half.iter().zip(&mut samples).take(self.size) {
            for (h, cosines) in half.iter().zip(&self.cosines).take(columns) {
                for (sample, cosine) in samples.iter_mut().zip(cosines) {
                    *sample += h * cosine;
                }
            }
        }
        bytes(&samples)
    }

    /// The inverse DCT of each column. Not inlined: the compiler mixes it up with what follows, and finds less SIMD.
    #[inline(never)]
    fn along_columns<const N: usize>(
        &self,
        coefficients: &Coefficients<i32>,
        quant: &Coefficients<f32>,
        rows: usize,
    ) -> [[f32; N]; N] {
        let mut half = [[0f32; N]; N];
        let rows = if N == 8 { rows.min(N) } else { N };
        for k in 0..rows {
            let c: [f32; N] =
                std::array::from_fn(|x| coefficients[k * N + x] as f32 * quant[k * N + x]);
            for (half, cosine) in half.iter_mut().zip(self.cosines[k]) {
                for (h, c) in half.iter_mut().zip(c) {
                    *h += cosine * c;
                }
            }
        }
        half
    }
}

/// As [`Basis::along_columns`], compiled alone: it is a plain loop along 8 or 16 samples.
#[inline(never)]
fn bytes<const N: usize>(samples: &[[f32; N]; N]) -> [[u8; N]; N] {
    let mut bytes = [[0; N]; N];
    let all = bytes.as_flattened_mut().iter_mut();
    for (byte, &value) in all.zip(samples.as_flattened()) {
        *byte = sample(value);
    }
    bytes
}

/// Samples are stored around 0. This is `(value + 128.5) as u8`, which does not become SIMD on x86.
#[inline(always)]
fn sample(value: f32) -> u8 {
    let value = (value + 128.5).clamp(0.0, 255.0);
    // Its last bits are the nearest integer's.
    const INTEGER: f32 = (1 << 23) as f32;
    let nearest = value + INTEGER;
    let above = nearest - INTEGER > value;
    (nearest.to_bits() - u32::from(above)) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_rounded_down() {
        for integer in -300..300 {
            let edge = integer as f32 - 128.5;
            for value in [edge.next_down(), edge, edge.next_up(), edge + 0.5] {
                assert_eq!(sample(value), (value + 128.5) as u8, "{value}");
            }
        }
    }
}
