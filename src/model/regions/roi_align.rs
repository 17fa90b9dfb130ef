//! RoIAlign: the part of a feature map that a box covers, resampled to 7×7 cells.
//!
//! In: a feature map `[channels, height, width]`, a box. Out: `[channels, 7, 7]`. Pure; on the `infer-<n>` threads. As torchvision's
//! `roi_align` with two samples a cell along each axis and `aligned=False`: a cell is the mean of four bilinear samples. The mean and
//! both interpolations are products of one along x and one along y, so rows are blended first, then columns.

/// Cells along each side.
pub(super) const SIDE: usize = 7;
/// Samples of a cell along each axis.
const SAMPLES: usize = 2;

/// What each cell takes of a row or a column: for each sample two neighbours and their shares.
type Taps = [[(usize, f32); 2 * SAMPLES]; SIDE];

/// The working memory: one blended row.
#[derive(Debug, Default)]
pub(super) struct RoiAlign {
    row: Vec<f32>,
}

impl RoiAlign {
    /// `size`: the map's width and height; `corners`: in its cells. `out` has 49 elements for each channel of `map`.
    pub(super) fn run(
        &mut self,
        map: &[f32],
        (width, height): (usize, usize),
        [x0, y0, x1, y1]: [f32; 4],
        out: &mut [f32],
    ) {
        let (columns, rows) = (taps(x0, x1, width), taps(y0, y1, height));
        let all = || columns.iter().flatten().map(|tap| tap.0);
        let first = all().min().unwrap_or(0);
        let end = all().max().unwrap_or(0) + 1;
        self.row.resize(end - first, 0.0);
        let planes = map.chunks_exact(width * height);
        for (plane, out) in planes.zip(out.as_chunks_mut::<{ SIDE * SIDE }>().0) {
            for (taps, out) in rows.iter().zip(out.as_chunks_mut::<SIDE>().0) {
                let [a, b, c, d] = taps.map(|(y, _)| &plane[y * width + first..y * width + end]);
                let [p, q, r, s] = taps.map(|(_, share)| share);
                for (i, v) in self.row.iter_mut().enumerate() {
                    *v = a[i] * p + b[i] * q + c[i] * r + d[i] * s;
                }
                for (taps, out) in columns.iter().zip(out) {
                    let parts = taps.iter().map(|(x, share)| self.row[x - first] * share);
                    *out = parts.sum();
                }
            }
        }
    }
}

/// A sample beyond the map's edge by more than a cell is 0, a nearer one is at the edge.
fn taps(from: f32, to: f32, length: usize) -> Taps {
    let cell = (to - from).max(1.0) / SIDE as f32;
    let last = length - 1;
    let mut taps = Taps::default();
    for (c, taps) in taps.iter_mut().enumerate() {
        for (s, taps) in taps.as_chunks_mut::<2>().0.iter_mut().enumerate() {
            let at = from + c as f32 * cell + (s as f32 + 0.5) * cell / SAMPLES as f32;
            // Not so of what is no number.
            if at >= -1.0 && at <= length as f32 {
                let at = at.max(0.0);
                let low = (at as usize).min(last);
                let share = if low == last { 0.0 } else { at - low as f32 };
                let part = 1.0 / SAMPLES as f32;
                *taps = [
                    (low, (1.0 - share) * part),
                    ((low + 1).min(last), share * part),
                ];
            }
        }
    }
    taps
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition: each sample of each cell on its own.
    fn plain(map: &[f32], (w, h): (usize, usize), [x0, y0, x1, y1]: [f32; 4]) -> Vec<f32> {
        let sample = |plane: &[f32], x: f32, y: f32| {
            if x < -1.0 || y < -1.0 || x > w as f32 || y > h as f32 {
                return 0.0;
            }
            let (x, y) = (x.clamp(0.0, (w - 1) as f32), y.clamp(0.0, (h - 1) as f32));
            let (left, top) = (x.floor(), y.floor());
            let mut sum = 0.0;
            for (cx, sx) in [(left, 1.0 - (x - left)), (left + 1.0, x - left)] {
                for (cy, sy) in [(top, 1.0 - (y - top)), (top + 1.0, y - top)] {
                    if sx * sy > 0.0 {
                        sum += plane[cy as usize * w + cx as usize] * sx * sy;
                    }
                }
            }
            sum
        };
        let (cw, ch) = ((x1 - x0).max(1.0) / 7.0, (y1 - y0).max(1.0) / 7.0);
        let mut out = vec![];
        for plane in map.chunks_exact(w * h) {
            for cell in 0..49 {
                let (row, column) = ((cell / 7) as f32, (cell % 7) as f32);
                let mut sum = 0.0;
                for (dx, dy) in [(0.25, 0.25), (0.75, 0.25), (0.25, 0.75), (0.75, 0.75)] {
                    sum += sample(plane, x0 + (column + dx) * cw, y0 + (row + dy) * ch);
                }
                out.push(sum / 4.0);
            }
        }
        out
    }

    fn run(map: &[f32], size: (usize, usize), corners: [f32; 4]) -> Vec<f32> {
        let mut out = vec![f32::NAN; map.len() / (size.0 * size.1) * 49];
        RoiAlign::default().run(map, size, corners, &mut out);
        out
    }

    #[test]
    fn a_slope_gives_the_middles_of_the_cells() {
        // The value is x + 100 y, which interpolation keeps: a cell's mean is the value at its middle.
        let map: Vec<f32> = (0..20 * 16)
            .map(|i| (i % 20 + 100 * (i / 20)) as f32)
            .collect();
        let out = run(&map, (20, 16), [2.0, 1.0, 16.0, 8.0]);
        assert!((out[0] - (3.0 + 150.0)).abs() < 1e-3, "{}", out[0]);
        assert!((out[48] - (15.0 + 750.0)).abs() < 1e-3, "{}", out[48]);
        // A box without an area is one cell of the map wide.
        let out = run(&map, (20, 16), [5.0, 4.0, 5.0, 4.0]);
        assert!((out[24] - (5.5 + 450.0)).abs() < 1e-3, "{}", out[24]);
    }

    #[test]
    fn boxes_that_are_none_read_nothing() {
        for corners in [[f32::NAN; 4], [-1e30, -1e30, -1e30, -1e30], [1e30; 4]] {
            assert_eq!(run(&[1.0; 12], (4, 3), corners), [0.0; 49], "{corners:?}");
        }
    }

    proptest! {
        #[test]
        fn it_is_the_definition(
            (w, h) in (1usize..12, 1usize..12), seed in 0u32..1000,
            x0 in -4f32..14.0, y0 in -4f32..14.0, x1 in -4f32..14.0, y1 in -4f32..14.0,
        ) {
            let value = |i: u32| (i.wrapping_mul(2_654_435_761) ^ seed.wrapping_mul(40_503)) as f32 / u32::MAX as f32;
            let map: Vec<f32> = (0..(2 * w * h) as u32).map(value).collect();
            let ours = run(&map, (w, h), [x0, y0, x1, y1]);
            for (a, b) in ours.iter().zip(plain(&map, (w, h), [x0, y0, x1, y1])) {
                prop_assert!((a - b).abs() < 1e-4, "{} {}", a, b);
            }
        }
    }
}
