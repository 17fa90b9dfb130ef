//! Antialiased bilinear resampling, one axis at a time.
//!
//! The filter is Pillow's: a triangle whose support grows with the reduction, clipped at the picture's edge,
//! weights summing to one. Weights have 14 fractional bits (Pillow's 22), so that plain loops become 16-bit SIMD on
//! SSE2 and NEON alike.

use std::ops::Range;

/// Weights' fractional bits.
const BITS: u32 = 14;

/// From so many rows on, what [`blend_lanes`] truncates would show: reductions above 127, which no camera needs.
const MOST_TRUNCATED: usize = 254;

/// Which source samples make each output sample, and with what weights.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Axis {
    /// First source sample of each output sample.
    starts: Vec<usize>,
    /// How many weights of each output sample are not padding.
    counts: Vec<usize>,
    /// `taps` weights for each output sample, zeroes at the end.
    weights: Vec<i16>,
    /// A multiple of 8.
    taps: usize,
}

impl Axis {
    /// Output samples `first..first + n` of a picture resized to `resized` samples.
    ///
    /// The picture is the source's samples `picture`: a part of them, or all. Its ends are not whole for the chroma of odd sizes
    /// and places; a sample that lies in it in part counts. Samples beyond it do not, as if they were not there.
    pub fn new(picture: Range<f64>, resized: u64, first: u64, n: usize) -> Self {
        let begin = picture.start.floor();
        let (skipped, len) = (begin as usize, (picture.end.ceil() - begin) as usize);
        let within = picture.start - begin;
        let scale = (picture.end - picture.start) / resized as f64;
        let support = scale.max(1.0);
        let taps = ((support * 2.0).ceil() as usize + 1)
            .min(len)
            .next_multiple_of(8);
        let mut axis = Self {
            starts: Vec::with_capacity(n),
            counts: Vec::with_capacity(n),
            weights: vec![0; n * taps],
            taps,
        };
        let mut exact = Vec::with_capacity(taps);
        for (i, weights) in axis.weights.chunks_exact_mut(taps).enumerate() {
            let centre = within + ((first + i as u64) as f64 + 0.5) * scale;
            let start = ((centre - support + 0.5).max(0.0) as usize).min(len - 1);
            let end = ((centre + support + 0.5) as usize).clamp(start + 1, (start + taps).min(len));
            exact.clear();
            exact.extend(
                (start..end).map(|s| (1.0 - ((s as f64 - centre + 0.5) / support).abs()).max(0.0)),
            );
            let sum: f64 = exact.iter().sum();
            if sum > 0.0 {
                let one = f64::from(1 << BITS);
                for (w, e) in weights.iter_mut().zip(&exact) {
                    *w = (e / sum * one).round() as i16;
                }
            }
            // What rounding lost goes to the largest weight: a flat picture stays what it is.
            let lost = (1 << BITS) - weights.iter().map(|&w| i32::from(w)).sum::<i32>();
            if let Some(largest) = weights[..end - start].iter_mut().max_by_key(|w| **w) {
                *largest += lost as i16;
            }
            axis.starts.push(skipped + start);
            axis.counts.push(end - start);
        }
        axis
    }

    /// The source samples that are read.
    pub fn span(&self) -> Range<usize> {
        let start = self.starts.first().copied().unwrap_or(0);
        let end = self
            .starts
            .iter()
            .zip(&self.counts)
            .map(|(s, c)| s + c)
            .max()
            .unwrap_or(0);
        start..end
    }

    /// Zeroes that a row needs behind its last sample for [`resample`](Self::resample).
    pub fn padding(&self) -> usize {
        self.taps
    }

    /// Output row `i` of the rows in `data`: `out.len()` bytes beginning at byte `column` of each row.
    pub fn blend(&self, i: usize, data: &[u8], stride: usize, column: usize, out: &mut [u8]) {
        const LANES: usize = 32;
        let weights = &self.weights[i * self.taps..][..self.counts[i]];
        let rows = &data[self.starts[i] * stride + column..];
        if weights.len() > MOST_TRUNCATED {
            return blend_many(weights, rows, stride, out);
        }
        let (chunks, rest) = out.as_chunks_mut::<LANES>();
        let done = chunks.len() * LANES;
        for (c, out) in chunks.iter_mut().enumerate() {
            *out = blend_lanes(weights, &rows[c * LANES..], stride);
        }
        for (c, out) in rest.iter_mut().enumerate() {
            [*out] = blend_lanes(weights, &rows[done + c..], stride);
        }
    }

    /// One row resampled. `row` begins at sample `from` and has [`padding`](Self::padding) bytes behind its last.
    pub fn resample(&self, row: &[u8], from: usize, out: &mut [u8]) {
        match self.taps {
            8 => self.resample_taps::<1>(row, from, out),
            16 => self.resample_taps::<2>(row, from, out),
            _ => self.resample_taps::<0>(row, from, out),
        }
    }

    /// `GROUPS` of 8 taps; 0: as many as there are.
    fn resample_taps<const GROUPS: usize>(&self, row: &[u8], from: usize, out: &mut [u8]) {
        let taps = if GROUPS == 0 { self.taps } else { GROUPS * 8 };
        let each = self.starts.iter().zip(self.weights.chunks_exact(taps));
        for (out, (&start, weights)) in out.iter_mut().zip(each) {
            let samples = row[start - from..][..taps].as_chunks::<8>().0;
            let mut sum = 1i32 << (BITS - 1);
            for (s, w) in samples.iter().zip(weights.as_chunks::<8>().0) {
                sum += (0..8)
                    .map(|k| i32::from(s[k]) * i32::from(w[k]))
                    .sum::<i32>();
            }
            *out = (sum >> BITS).clamp(0, 255) as u8;
        }
    }
}

/// Sums in 8.8 fixed point: the high half of a 16-bit product is one instruction for 8 samples even on SSE2.
#[inline(always)]
fn blend_lanes<const N: usize>(weights: &[i16], rows: &[u8], stride: usize) -> [u8; N] {
    // One half, and what truncating each product loses on average.
    let mut sums = [128 + (weights.len() as u16 / 2).min(127); N];
    for (k, &w) in weights.iter().enumerate() {
        let w = (u32::from(w as u16) << (16 - BITS)).min(0xffff);
        let row: &[u8; N] = rows[k * stride..]
            .first_chunk()
            .expect("rows were measured");
        for (sum, &s) in sums.iter_mut().zip(row) {
            *sum = sum.wrapping_add(((u32::from(u16::from(s) << 8) * w) >> 16) as u16);
        }
    }
    sums.map(|s| (s >> 8) as u8)
}

/// Sums in 32 bits, nothing truncated.
fn blend_many(weights: &[i16], rows: &[u8], stride: usize, out: &mut [u8]) {
    for (column, out) in out.iter_mut().enumerate() {
        let samples = rows[column..].iter().step_by(stride);
        let sum: i32 = samples
            .zip(weights)
            .map(|(&s, &w)| i32::from(s) * i32::from(w))
            .sum();
        *out = ((sum + (1 << (BITS - 1))) >> BITS).clamp(0, 255) as u8;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The same in floating point, from the definition.
    fn reference(row: &[u8], resized: usize) -> Vec<f64> {
        let scale = row.len() as f64 / resized as f64;
        let support = scale.max(1.0);
        let weight = |i: usize, s: usize| {
            let centre = (i as f64 + 0.5) * scale;
            let (low, high) = (
                (centre - support + 0.5).max(0.0) as usize,
                (centre + support + 0.5) as usize,
            );
            if (low..high).contains(&s) {
                (1.0 - ((s as f64 - centre + 0.5) / support).abs()).max(0.0)
            } else {
                0.0
            }
        };
        (0..resized)
            .map(|i| {
                let total: f64 = (0..row.len()).map(|s| weight(i, s)).sum();
                (0..row.len())
                    .map(|s| weight(i, s) * f64::from(row[s]))
                    .sum::<f64>()
                    / total
            })
            .collect()
    }

    proptest! {
        #[test]
        fn both_directions_are_the_triangle_filter(
            row in prop::collection::vec(any::<u8>(), 1..400), resized in 1usize..300,
        ) {
            let axis = Axis::new(0.0..row.len() as f64, resized as u64, 0, resized);
            let want = reference(&row, resized);
            // 14-bit weights: half a unit for each tap; rounding to a byte: half a level.
            let taps = 2.0 * (row.len() as f64 / resized as f64).max(1.0) + 1.0;
            let tolerance = 0.5 + 255.0 * taps / f64::from(1 << (BITS + 1)) + taps / 128.0;

            let mut padded = row.clone();
            padded.resize(row.len() + axis.padding(), 0);
            let mut out = vec![0; resized];
            axis.resample(&padded, 0, &mut out);
            for (o, w) in out.iter().zip(&want) {
                prop_assert!((f64::from(*o) - w).abs() <= tolerance, "{} {}", o, w);
            }

            // The same picture upright, 33 columns wide: one for the tail beside the lanes.
            let upright: Vec<u8> = row.iter().flat_map(|&v| [v; 33]).collect();
            for (i, w) in want.iter().enumerate() {
                let mut out = [0; 33];
                axis.blend(i, &upright, 33, 0, &mut out);
                prop_assert!(out.iter().all(|o| (f64::from(*o) - w).abs() <= tolerance), "{:?} {}", out, w);
            }
        }

        #[test]
        fn a_window_is_a_part_of_the_whole(
            len in 1usize..300, resized in 1u64..200, first in 0u64..100, n in 0usize..100,
        ) {
            prop_assume!(first + n as u64 <= resized);
            let whole = Axis::new(0.0..len as f64, resized, 0, resized as usize);
            let part = Axis::new(0.0..len as f64, resized, first, n);
            let f = first as usize;
            prop_assert_eq!(&part.starts[..], &whole.starts[f..f + n]);
            prop_assert_eq!(&part.weights[..], &whole.weights[f * whole.taps..(f + n) * whole.taps]);
        }

        #[test]
        fn a_part_of_the_source_is_a_picture_of_its_own(
            len in 1usize..300, before in 0usize..50, resized in 1u64..200,
        ) {
            let alone = Axis::new(0.0..len as f64, resized, 0, resized as usize);
            let part = Axis::new(before as f64..(before + len) as f64, resized, 0, resized as usize);
            prop_assert_eq!(&part.weights, &alone.weights);
            let moved: Vec<usize> = alone.starts.iter().map(|s| before + s).collect();
            prop_assert_eq!(part.starts, moved);
        }

        #[test]
        fn a_flat_picture_stays_flat(level: u8, len in 1usize..3000, resized in 1u64..64) {
            let axis = Axis::new(0.0..len as f64, resized, 0, resized as usize);
            let mut row = vec![level; len];
            for i in 0..resized as usize {
                let mut out = [0];
                axis.blend(i, &row, 1, 0, &mut out);
                prop_assert!(out[0].abs_diff(level) <= 1);
            }
            row.resize(len + axis.padding(), 0);
            let mut out = vec![0; resized as usize];
            axis.resample(&row, 0, &mut out);
            prop_assert!(out.iter().all(|&o| o == level));
        }
    }
}
