//! Non-maximum suppression: of boxes that overlap, the best stays.
//!
//! In: [`Candidates`] in any order. Out: indices, best first. Always holds: the result does not depend on the order of equal
//! scores beyond their place; memory and time are bounded by [`MAX_CANDIDATES`] × the most that are kept.
//!
//! Each candidate is compared with the kept boxes around it alone: an overlap above the limit bounds how far the middles may be apart.

use std::collections::HashMap;

use serde::Deserialize;

/// Of more candidates, the best are looked at.
pub const MAX_CANDIDATES: usize = 10_000;

/// Which boxes suppress each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Suppression {
    /// Those of one class.
    #[default]
    Class,
    /// All.
    Agnostic,
}

/// Boxes with a score and a class, each value in a vector of its own.
#[derive(Debug, Clone, Default)]
pub struct Candidates {
    x0: Vec<f32>,
    y0: Vec<f32>,
    x1: Vec<f32>,
    y1: Vec<f32>,
    score: Vec<f32>,
    class: Vec<u32>,
}

impl Candidates {
    /// Corners in pixels of the input, a score above 0. A box that has no area or no finite corner is left out.
    pub fn push(&mut self, [x0, y0, x1, y1]: [f32; 4], score: f32, class: usize) {
        let is_box = x1 > x0 && y1 > y0 && [x0, y0, x1, y1].iter().all(|v| v.is_finite());
        if is_box && score > 0.0 {
            self.x0.push(x0);
            self.y0.push(y0);
            self.x1.push(x1);
            self.y1.push(y1);
            self.score.push(score);
            self.class.push(class as u32);
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.score.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.score.is_empty()
    }

    /// Forgets all, and keeps the memory.
    pub fn clear(&mut self) {
        let Self {
            x0,
            y0,
            x1,
            y1,
            score,
            class,
        } = self;
        for values in [x0, y0, x1, y1, score] {
            values.clear();
        }
        class.clear();
    }

    /// Corners, score and class of one.
    pub fn get(&self, i: usize) -> ([f32; 4], f32, usize) {
        let corners = [self.x0[i], self.y0[i], self.x1[i], self.y1[i]];
        (corners, self.score[i], self.class[i] as usize)
    }
}

/// Kept boxes, in blocks that the compiler turns into vector instructions.
const BLOCK: usize = 8;

#[derive(Debug, Clone, Copy)]
struct Block {
    x0: [f32; BLOCK],
    y0: [f32; BLOCK],
    x1: [f32; BLOCK],
    y1: [f32; BLOCK],
    class: [u32; BLOCK],
}

impl Block {
    /// Boxes of a class that no candidate has.
    const EMPTY: Self = Self {
        x0: [0.0; BLOCK],
        y0: [0.0; BLOCK],
        x1: [0.0; BLOCK],
        y1: [0.0; BLOCK],
        class: [u32::MAX; BLOCK],
    };

    /// Whether one of these boxes overlaps that one by more than `iou`.
    fn suppresses(&self, [x0, y0, x1, y1]: [f32; 4], class: u32, iou: f32) -> bool {
        let larger = |a: f32, b: f32| if a > b { a } else { b };
        let smaller = |a: f32, b: f32| if a < b { a } else { b };
        let area = (x1 - x0) * (y1 - y0);
        let mut any = false;
        for i in 0..BLOCK {
            let w = larger(smaller(self.x1[i], x1) - larger(self.x0[i], x0), 0.0);
            let h = larger(smaller(self.y1[i], y1) - larger(self.y0[i], y0), 0.0);
            let both = w * h;
            let own = (self.x1[i] - self.x0[i]) * (self.y1[i] - self.y0[i]);
            any |= (both > iou * (own + area - both)) & (self.class[i] == class);
        }
        any
    }
}

/// Cells of the grid that kept boxes lie in by their middles, along each side.
const CELLS: usize = 8;
/// Lists of a cell; a class's boxes are in one of them.
const LISTS: usize = 16;

/// Boxes that were kept, found by where they are and by their class.
#[derive(Debug, Default)]
struct Kept {
    /// All, in the order in which they were kept.
    all: Vec<Block>,
    count: usize,
    /// The same by cell and class.
    near: Vec<(Vec<Block>, usize)>,
    /// The first middle, and cells a pixel.
    origin: [f32; 2],
    cells: [f32; 2],
}

impl Kept {
    /// Forgets all; the middles of the boxes to come lie between these.
    fn begin(&mut self, from: [f32; 2], to: [f32; 2]) {
        self.all.clear();
        self.count = 0;
        self.near
            .resize_with(CELLS * CELLS * LISTS, Default::default);
        for (blocks, count) in &mut self.near {
            blocks.clear();
            *count = 0;
        }
        self.origin = from;
        self.cells = [0, 1].map(|i| {
            let cells = CELLS as f32 / (to[i] - from[i]);
            if cells.is_finite() { cells } else { 0.0 }
        });
    }

    /// The column or row of a middle.
    fn cell(&self, axis: usize, middle: f32) -> usize {
        let cell = (middle - self.origin[axis]) * self.cells[axis];
        // What is no number is 0.
        (cell as usize).min(CELLS - 1)
    }

    /// Whether one of them suppresses that box.
    fn suppress(&self, corners: [f32; 4], class: u32, iou: f32) -> bool {
        let [x0, y0, x1, y1] = corners;
        // An overlap above `iou` needs a shared width of more than `iou` times the wider one's: the middles are less than (1 − iou) of that
        // apart, and it is less than 1 / iou times as wide as this one. A little more, for what rounding does.
        let reach = |axis, from: f32, to: f32| {
            let middle = (from + to) / 2.0;
            let far = 1.01 * (1.0 - iou) / iou * (to - from) + 1e-3 * (middle.abs() + to - from);
            // Without a limit it is everywhere.
            match far.is_finite() {
                true => self.cell(axis, middle - far)..=self.cell(axis, middle + far),
                false => 0..=CELLS - 1,
            }
        };
        let (columns, rows) = (reach(0, x0, x1), reach(1, y0, y1));
        if columns.clone().count() * rows.clone().count() >= self.all.len() {
            return self.all.iter().any(|b| b.suppresses(corners, class, iou));
        }
        let list = class as usize % LISTS;
        rows.into_iter().any(|row| {
            columns.clone().any(|column| {
                let (blocks, _) = &self.near[(row * CELLS + column) * LISTS + list];
                blocks.iter().any(|b| b.suppresses(corners, class, iou))
            })
        })
    }

    fn add(&mut self, corners: [f32; 4], class: u32) {
        let [x0, y0, x1, y1] = corners;
        let (column, row) = (self.cell(0, (x0 + x1) / 2.0), self.cell(1, (y0 + y1) / 2.0));
        let list = (row * CELLS + column) * LISTS + class as usize % LISTS;
        let (near, count) = &mut self.near[list];
        for (blocks, count) in [(&mut self.all, &mut self.count), (near, count)] {
            let at = *count % BLOCK;
            if at == 0 {
                blocks.push(Block::EMPTY);
            }
            if let Some(b) = blocks.last_mut() {
                [b.x0[at], b.y0[at], b.x1[at], b.y1[at]] = corners;
                b.class[at] = class;
            }
            *count += 1;
        }
    }
}

/// The working memory of a suppression.
#[derive(Debug, Default)]
pub struct Nms {
    order: Vec<u64>,
    kept: Vec<usize>,
    /// How many of each class were kept.
    of_class: HashMap<u32, usize>,
    boxes: Kept,
}

impl Nms {
    /// At most `max` candidates and `per_class` of a class, best first; of equal scores the first. `None`: nothing is suppressed, and no class
    /// is bounded. A box goes if its overlap (intersection over union) with a better one is above `iou`.
    pub fn run(
        &mut self,
        c: &Candidates,
        suppression: Option<Suppression>,
        iou: f32,
        max: usize,
        per_class: Option<usize>,
    ) -> &[usize] {
        self.order.clear();
        // Positive floats are in the order of their bits.
        let key = |(i, s): (usize, &f32)| u64::from(!s.to_bits()) << 32 | i as u64;
        self.order.extend(c.score.iter().enumerate().map(key));
        if self.order.len() > MAX_CANDIDATES {
            self.order.select_nth_unstable(MAX_CANDIDATES);
            self.order.truncate(MAX_CANDIDATES);
        }
        self.order.sort_unstable();
        self.kept.clear();
        let Some(suppression) = suppression else {
            let best = self.order.iter().take(max);
            self.kept.extend(best.map(|key| index(*key)));
            return &self.kept;
        };
        let middles = |from: &[f32], to: &[f32]| {
            let middles = from.iter().zip(to).map(|(a, b)| (a + b) / 2.0);
            middles.fold((f32::MAX, f32::MIN), |(l, h), m| (l.min(m), h.max(m)))
        };
        let ((x0, x1), (y0, y1)) = (middles(&c.x0, &c.x1), middles(&c.y0, &c.y1));
        self.boxes.begin([x0, y0], [x1, y1]);
        self.of_class.clear();
        // More than `max` of a class are not kept anyway.
        let per_class = per_class.filter(|n| *n < max);
        for key in &self.order {
            if self.kept.len() == max {
                break;
            }
            let i = index(*key);
            let is_full = |n: usize| self.of_class.get(&c.class[i]).is_some_and(|k| *k >= n);
            if per_class.is_some_and(is_full) {
                continue;
            }
            let class = match suppression {
                Suppression::Class => c.class[i],
                Suppression::Agnostic => 0,
            };
            let corners = [c.x0[i], c.y0[i], c.x1[i], c.y1[i]];
            if !self.boxes.suppress(corners, class, iou) {
                self.boxes.add(corners, class);
                self.kept.push(i);
                if per_class.is_some() {
                    *self.of_class.entry(c.class[i]).or_default() += 1;
                }
            }
        }
        &self.kept
    }
}

/// The candidate of a key.
fn index(key: u64) -> usize {
    (key & u64::from(u32::MAX)) as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Row = (f32, f32, f32, f32, u8, usize);

    fn candidates(rows: &[Row]) -> Candidates {
        let mut c = Candidates::default();
        for &(x, y, w, h, score, class) in rows {
            // Few distinct scores: ties are common.
            c.push([x, y, x + w, y + h], (f32::from(score) + 1.0) / 32.0, class);
        }
        c
    }

    fn overlaps(a: [f32; 4], b: [f32; 4], limit: f32) -> bool {
        let w = (a[2].min(b[2]) - a[0].max(b[0])).max(0.0);
        let h = (a[3].min(b[3]) - a[1].max(b[1])).max(0.0);
        let area = |b: [f32; 4]| (b[2] - b[0]) * (b[3] - b[1]);
        w * h > limit * (area(a) + area(b) - w * h)
    }

    /// The definition: sort, then compare each with all that were kept.
    fn plain(
        c: &Candidates,
        by_class: bool,
        limit: f32,
        max: usize,
        per_class: Option<usize>,
    ) -> Vec<usize> {
        let mut order: Vec<usize> = (0..c.len()).collect();
        order.sort_by(|a, b| c.score[*b].total_cmp(&c.score[*a]).then(a.cmp(b)));
        let mut kept: Vec<usize> = vec![];
        for i in order {
            let (corners, _, class) = c.get(i);
            let beats = |k: &usize| {
                let (other, _, its) = c.get(*k);
                (!by_class || its == class) && overlaps(other, corners, limit)
            };
            let of_class = kept.iter().filter(|k| c.get(**k).2 == class).count();
            if per_class.is_some_and(|n| of_class >= n) {
                continue;
            }
            if kept.len() < max && !kept.iter().any(beats) {
                kept.push(i);
            }
        }
        kept
    }

    proptest! {
        #[test]
        fn it_is_the_definition(
            (rows, largest) in (1f32..60.0).prop_flat_map(|largest| {
                let row = (0f32..300.0, 0f32..300.0, 1f32..1.0 + largest, 1f32..1.0 + largest, 0u8..20, 0usize..40);
                (prop::collection::vec(row, 0..1500), Just(largest))
            }),
            limit in 0f32..1.0, max in 1usize..1000, by_class: bool, per_class in prop::option::of(1usize..30),
        ) {
            let c = candidates(&rows);
            let suppression = if by_class { Suppression::Class } else { Suppression::Agnostic };
            let mut nms = Nms::default();
            let kept = nms.run(&c, Some(suppression), limit, max, per_class).to_vec();
            prop_assert_eq!(kept, plain(&c, by_class, limit, max, per_class), "boxes up to {}", largest);
        }
    }

    #[test]
    fn what_is_no_box_is_left_out_and_the_cap_holds() {
        let mut c = Candidates::default();
        for corners in [
            [0.0, 0.0, 0.0, 1.0],
            [f32::NAN, 0.0, 1.0, 1.0],
            [0.0, 0.0, f32::INFINITY, 1.0],
        ] {
            c.push(corners, 0.5, 0);
        }
        c.push([0.0, 0.0, 1.0, 1.0], f32::NAN, 0);
        assert!(c.is_empty());
        for i in 0..MAX_CANDIDATES + 10 {
            let x = i as f32 * 2.0;
            c.push([x, 0.0, x + 1.0, 1.0], 0.5, 0);
        }
        let mut nms = Nms::default();
        assert_eq!(
            nms.run(&c, Some(Suppression::Class), 0.5, 3, None),
            [0, 1, 2]
        );
        assert_eq!(
            nms.run(&c, None, 0.5, usize::MAX, None).len(),
            MAX_CANDIDATES
        );
    }
}
