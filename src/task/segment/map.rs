//! A segmenter's output → the class of each pixel, at the network's size or the frame's.
//!
//! In: scores of each class for each pixel, or class numbers; where the input lies in the frame. Out: a [`ClassMap`]. Pure. Always
//! holds: a border that only fills the input is not in the map; pixels that the network did not see have no class.

use super::{MapSize, Segmenter, Values};
use crate::preprocess::InputMapping;

/// The class of a pixel that has none.
pub(super) const NONE: u16 = u16::MAX;

/// The class of each pixel.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct ClassMap {
    pub width: usize,
    pub height: usize,
    /// Row by row.
    pub classes: Vec<u16>,
    /// Where the map lies in the frame: x and y, 0 to 1.
    pub x: Span,
    pub y: Span,
}

/// From where to where, in shares of the frame.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Span {
    pub from: f64,
    pub to: f64,
}

impl ClassMap {
    /// Of the whole frame.
    #[cfg(test)]
    pub fn whole(width: usize, height: usize, classes: Vec<u16>) -> Self {
        assert_eq!(classes.len(), width * height);
        Self {
            width,
            height,
            classes,
            x: Span { from: 0.0, to: 1.0 },
            y: Span { from: 0.0, to: 1.0 },
        }
    }

    /// Reads the output, whose length is the segmenter's.
    pub fn read(&mut self, s: &Segmenter, values: &[f32], mapping: &InputMapping, size: MapSize) {
        let axis = |map, input, frame: u32, scale: f32, offset: f32| Axis {
            map,
            input: input as f64,
            frame: f64::from(frame),
            scale: f64::from(scale),
            offset: f64::from(offset),
        };
        let (m, i) = (s.size, s.input);
        let x = axis(m.0, i.0, mapping.frame.0, mapping.scale.0, mapping.offset.0);
        let y = axis(m.1, i.1, mapping.frame.1, mapping.scale.1, mapping.offset.1);
        let (columns, rows) = (x.covered(), y.covered());
        (self.width, self.height) = (columns.len(), rows.len());
        (self.x, self.y) = (x.span(), y.span());
        self.classes.clear();
        match s.values {
            Values::Classes => {
                for y in rows {
                    let row = &values[y * m.0..][columns.clone()];
                    self.classes.extend(row.iter().map(|v| class_of(*v)));
                }
            }
            Values::Scores { channels_last } => {
                let mut best = Best::default();
                for y in rows {
                    if channels_last {
                        let row = &values[y * m.0 * s.classes..][..m.0 * s.classes];
                        let pixels = row.chunks_exact(s.classes).skip(columns.start);
                        self.classes.extend(pixels.take(self.width).map(highest));
                        continue;
                    }
                    let rows =
                        (0..s.classes).map(|c| &values[(c * m.1 + y) * m.0..][columns.clone()]);
                    best.of(rows);
                    self.classes.extend(best.class.iter().map(|c| *c as u16));
                }
            }
        }
        if size == MapSize::Frame {
            self.stretch(&x, &y);
        }
    }

    /// Each pixel of the frame gets the class of the map's pixel that its middle lies in.
    fn stretch(&mut self, x: &Axis, y: &Axis) {
        let columns: Vec<Option<usize>> = x.of_frame().collect();
        let mut classes = Vec::with_capacity(columns.len() * y.frame as usize);
        for row in y.of_frame() {
            let row = row.map(|r| &self.classes[r * self.width..][..self.width]);
            classes.extend(columns.iter().map(|c| match (row, c) {
                (Some(row), Some(c)) => row[*c],
                _ => NONE,
            }));
        }
        (self.width, self.height) = (x.frame as usize, y.frame as usize);
        self.classes = classes;
        let whole = Span { from: 0.0, to: 1.0 };
        (self.x, self.y) = (whole, whole);
    }
}

/// A number of a class map; what can be none is nothing.
fn class_of(v: f32) -> u16 {
    match v {
        v if v >= 0.0 && v < f32::from(NONE) => v as u16,
        _ => NONE,
    }
}

/// The first of the highest, as numpy's `argmax` has it.
fn highest(scores: &[f32]) -> u16 {
    let mut best = 0;
    for (i, s) in scores.iter().enumerate() {
        if *s > scores[best] {
            best = i;
        }
    }
    best as u16
}

/// The class of the highest score in each column of a row, class after class: vector instructions do several columns at once.
#[derive(Default)]
struct Best {
    score: Vec<f32>,
    class: Vec<u32>,
}

impl Best {
    fn of<'a>(&mut self, rows: impl Iterator<Item = &'a [f32]>) {
        for (c, row) in (0u32..).zip(rows) {
            if c == 0 {
                self.score.clear();
                self.score.extend(row);
                self.class.clear();
                self.class.resize(row.len(), 0);
                continue;
            }
            let best = self.score.iter_mut().zip(&mut self.class);
            for ((score, class), own) in best.zip(row) {
                let higher = *own > *score;
                *score = if higher { *own } else { *score };
                *class = if higher { c } else { *class };
            }
        }
    }
}

/// One axis of the map, of the input and of the frame.
struct Axis {
    map: usize,
    input: f64,
    frame: f64,
    scale: f64,
    offset: f64,
}

impl Axis {
    /// A place in the frame, in pixels of the map.
    fn at(&self, frame: f64) -> f64 {
        (frame * self.scale + self.offset) * self.map as f64 / self.input
    }

    /// The map's pixels that the frame covers; at least one.
    fn covered(&self) -> std::ops::Range<usize> {
        let pixel = |v: f64| v.round().clamp(0.0, self.map as f64) as usize;
        let start = pixel(self.at(0.0)).min(self.map - 1);
        start..pixel(self.at(self.frame)).max(start + 1)
    }

    /// Where those lie in the frame. An edge that is not cropped is the frame's, though the map's pixels are coarser.
    fn span(&self) -> Span {
        let (from, to) = (self.at(0.0), self.at(self.frame));
        let covered = self.covered();
        let (start, end) = (covered.start as f64, covered.end as f64);
        let share = |edge: f64| (edge - from) / (to - from);
        Span {
            from: if start - from > 0.5 {
                share(start)
            } else {
                0.0
            },
            to: if to - end > 0.5 { share(end) } else { 1.0 },
        }
    }

    /// For each pixel of the frame, the one of those that its middle lies in; `None` where the network saw nothing.
    fn of_frame(&self) -> impl Iterator<Item = Option<usize>> {
        let covered = self.covered();
        (0..self.frame as usize).map(move |f| {
            let at = self.at(f as f64 + 0.5).floor();
            let seen = at >= 0.0 && at < self.map as f64;
            seen.then(|| (at as usize).clamp(covered.start, covered.end - 1) - covered.start)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segmenter(
        values: Values,
        classes: usize,
        size: (usize, usize),
        input: (usize, usize),
    ) -> Segmenter {
        Segmenter {
            values,
            classes,
            size,
            input,
        }
    }

    fn mapping(frame: (u32, u32), scale: f32, offset: (f32, f32)) -> InputMapping {
        InputMapping {
            frame,
            scale: (scale, scale),
            offset,
        }
    }

    fn read(s: &Segmenter, values: &[f32], m: &InputMapping, size: MapSize) -> ClassMap {
        let mut map = ClassMap::default();
        map.read(s, values, m, size);
        map
    }

    #[test]
    fn the_highest_score_wins_and_the_first_of_equals() {
        let planes = [0.0, 2.0, 5.0, 1.0, 2.0, 4.0, 1.0, 9.0, f32::NAN];
        let m = mapping((3, 1), 1.0, (0.0, 0.0));
        let s = segmenter(
            Values::Scores {
                channels_last: false,
            },
            3,
            (3, 1),
            (3, 1),
        );
        assert_eq!(read(&s, &planes, &m, MapSize::Model).classes, [1, 2, 0]);
        let pixels = [0.0, 1.0, 1.0, 2.0, 2.0, 9.0, 5.0, 4.0, f32::NAN];
        let s = segmenter(
            Values::Scores {
                channels_last: true,
            },
            3,
            (3, 1),
            (3, 1),
        );
        assert_eq!(read(&s, &pixels, &m, MapSize::Model).classes, [1, 2, 0]);
        let s = segmenter(Values::Classes, 0, (3, 1), (3, 1));
        let map = read(&s, &[7.0, -1.0, 1e9], &m, MapSize::Model);
        assert_eq!(map.classes, [7, NONE, NONE]);
    }

    #[test]
    fn a_letterboxs_border_is_left_out() {
        // 8x4 in the middle of 8x8, at half the size: rows 1 and 2 of 4.
        let s = segmenter(Values::Classes, 0, (4, 4), (8, 8));
        let values: Vec<f32> = (0..16).map(|v| v as f32).collect();
        let m = mapping((16, 8), 0.5, (0.0, 2.0));
        let map = read(&s, &values, &m, MapSize::Model);
        assert_eq!((map.width, map.height), (4, 2));
        assert_eq!(map.classes, [4, 5, 6, 7, 8, 9, 10, 11]);
        assert_eq!((map.y.from, map.y.to), (0.0, 1.0));
        let map = read(&s, &values, &m, MapSize::Frame);
        assert_eq!((map.width, map.height), (16, 8));
        assert_eq!(map.classes[..5], [4, 4, 4, 4, 5]);
        assert_eq!(map.classes[16 * 7 + 15], 11);
    }

    #[test]
    fn what_a_crop_cuts_off_has_no_class() {
        // The middle 4 columns of 8.
        let s = segmenter(Values::Classes, 0, (4, 4), (4, 4));
        let m = mapping((8, 4), 1.0, (-2.0, 0.0));
        let map = read(&s, &[3.0; 16], &m, MapSize::Model);
        assert_eq!((map.width, map.x.from, map.x.to), (4, 0.25, 0.75));
        let map = read(&s, &[3.0; 16], &m, MapSize::Frame);
        assert_eq!(map.classes[..8], [NONE, NONE, 3, 3, 3, 3, NONE, NONE]);
        assert_eq!((map.width, map.x.from, map.x.to), (8, 0.0, 1.0));
    }
}
