//! A part of a frame as a picture of its own.

use std::ops::Range;

/// A pixel is not touched by less than this of it: corners are floats.
const ROUNDING: f64 = 1e-3;

/// A rectangle of a frame, in whole pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Region {
    /// Its left column.
    pub x: u32,
    /// Its top row.
    pub y: u32,
    /// Columns, not 0.
    pub width: u32,
    /// Rows, not 0.
    pub height: u32,
}

impl Region {
    /// All of a frame of this size.
    pub fn whole((width, height): (u32, u32)) -> Self {
        Self {
            x: 0,
            y: 0,
            width,
            height,
        }
    }

    /// Every pixel that a box touches which has been made larger by `margin` of its own size on each side, cut at the edges of a
    /// frame of this size; at least one pixel. The box is `[x0, y0, x1, y1]` in 0–1 of the frame.
    pub fn around([x0, y0, x1, y1]: [f32; 4], margin: f32, (width, height): (u32, u32)) -> Self {
        let side = |from: f32, to: f32, pixels: u32| {
            let more = f64::from(margin) * f64::from(to - from);
            let pixel = |share: f64| share * f64::from(pixels);
            // `as` saturates.
            let first = (pixel(f64::from(from) - more) + ROUNDING).floor() as u32;
            let end = (pixel(f64::from(to) + more) - ROUNDING).ceil() as u32;
            let first = first.min(pixels.saturating_sub(1));
            (first, end.min(pixels).saturating_sub(first).max(1))
        };
        let ((x, width), (y, height)) = (side(x0, x1, width), side(y0, y1, height));
        Self {
            x,
            y,
            width,
            height,
        }
    }

    pub(super) fn lies_in(&self, (width, height): (u32, u32)) -> bool {
        let within = |first: u32, n: u32, side| n > 0 && u64::from(first) + u64::from(n) <= side;
        within(self.x, self.width, width.into()) && within(self.y, self.height, height.into())
    }

    /// For a row of so many samples across the whole frame: which of them are the region's.
    pub(super) fn columns(&self, frame: (u32, u32)) -> impl Fn(f64) -> Range<f64> {
        part(self.x, self.width, frame.0)
    }

    /// As [`columns`](Self::columns), for rows.
    pub(super) fn rows(&self, frame: (u32, u32)) -> impl Fn(f64) -> Range<f64> {
        part(self.y, self.height, frame.1)
    }
}

fn part(first: u32, n: u32, of: u32) -> impl Fn(f64) -> Range<f64> {
    let [first, n, of] = [first, n, of].map(f64::from);
    move |extent| {
        let at = |pixel: f64| (pixel * extent / of).min(extent);
        at(first)..at(first + n)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_box_with_its_margin_in_whole_pixels() {
        let around = |corners, margin| {
            let r = Region::around(corners, margin, (200, 100));
            [r.x, r.y, r.width, r.height]
        };
        assert_eq!(around([0.25, 0.25, 0.5, 0.75], 0.0), [50, 25, 50, 50]);
        // A tenth of 50 pixels on each side.
        assert_eq!(around([0.25, 0.25, 0.5, 0.75], 0.1), [45, 20, 60, 60]);
        // What is touched counts.
        assert_eq!(around([0.252, 0.0, 0.498, 1.0], 0.0), [50, 0, 50, 100]);
        // Cut at the edges.
        assert_eq!(around([0.0, 0.0, 1.0, 1.0], 0.5), [0, 0, 200, 100]);
        assert_eq!(around([0.9, 0.9, 1.0, 1.0], 1.0), [160, 80, 40, 20]);
    }

    proptest! {
        #[test]
        fn it_lies_in_the_frame_and_holds_the_box(
            x0 in 0f32..1.0, y0 in 0f32..1.0, x1 in 0f32..=1.0, y1 in 0f32..=1.0,
            margin in 0f32..3.0, w in 1u32..5000, h in 1u32..5000,
        ) {
            let r = Region::around([x0, y0, x1.max(x0), y1.max(y0)], margin, (w, h));
            prop_assert!(r.lies_in((w, h)), "{:?}", r);
            let holds = |first: u32, n: u32, a: f32, b: f32, side: u32| {
                let (a, b) = (a * side as f32, b.max(a) * side as f32);
                first as f32 <= a + 0.01 && (first + n) as f32 >= b - 0.01
            };
            prop_assert!(holds(r.x, r.width, x0, x1.max(x0), w) && holds(r.y, r.height, y0, y1.max(y0), h));
        }
    }
}
