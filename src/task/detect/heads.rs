//! A detector's outputs → candidates: each family's published decoding.
//!
//! In: [`Outputs`]. Out: [`Candidates`] in pixels of the input. On the `infer-<n>` threads; pure.

use super::anchors::{self, Pyramid, sigmoid};
use super::family::{AnchorGrid, Defaults, Detector, Grid, Head, grids};
use super::nms::Candidates;
use crate::model::Outputs;

/// Which candidates are taken.
pub(super) struct Wanted<'a> {
    /// Lowest score.
    pub threshold: f32,
    /// Classes; all if empty.
    pub classes: &'a [bool],
    /// Where the frame lies in the input: left, top, right and bottom edge in pixels.
    pub picture: [f32; 4],
}

impl Wanted<'_> {
    fn has(&self, score: f32, class: usize) -> bool {
        score >= self.threshold && self.has_class(class)
    }

    fn has_class(&self, class: usize) -> bool {
        self.classes.is_empty() || self.classes.get(class) == Some(&true)
    }
}

/// Reads all candidates.
pub(super) fn read(d: &Detector, outputs: &Outputs, wanted: &Wanted<'_>, out: &mut Candidates) {
    let first = &outputs.get(0).values;
    match &d.head {
        Head::Cells => cells(first, d, wanted, out),
        Head::Rows => {
            for row in first.chunks_exact(5 + d.classes) {
                if let Some((score, class)) = best(row[4], &row[5..], wanted) {
                    out.push(corners(row[0], row[1], row[2], row[3]), score, class);
                }
            }
        }
        Head::Columns => columns(first, d.classes, wanted, out),
        Head::Final => {
            for row in first.as_chunks::<6>().0 {
                let [x0, y0, x1, y1, score, class] = *row;
                // Padding rows may have any class.
                if class >= 0.0 && wanted.has(score, class as usize) {
                    out.push([x0, y0, x1, y1], score, class as usize);
                }
            }
        }
        Head::Anchors(heads) => {
            for head in heads {
                grid_anchors(
                    &outputs.get(head.output).values,
                    head,
                    d.classes,
                    wanted,
                    out,
                );
            }
        }
        Head::Defaults(defaults) => {
            let (locations, scores) = (
                outputs.get(defaults.locations),
                outputs.get(defaults.scores),
            );
            offsets(&locations.values, &scores.values, defaults, d, wanted, out);
        }
        Head::Pyramid(p) => pyramid(outputs, p, wanted, out),
        Head::Regions(first) => regions(outputs, *first, d.classes, wanted, out),
        Head::Faces { scores, boxes } => {
            let (w, h) = (d.input.0 as f32, d.input.1 as f32);
            let scores = outputs.get(*scores).values.as_chunks::<2>().0;
            let boxes = outputs.get(*boxes).values.as_chunks::<4>().0;
            for ([_, face], [x0, y0, x1, y1]) in scores.iter().zip(boxes) {
                if wanted.has(*face, 0) {
                    out.push([x0 * w, y0 * h, x1 * w, y1 * h], *face, 0);
                }
            }
        }
        Head::Suppressed => {
            let (w, h) = (d.input.0 as f32, d.input.1 as f32);
            let boxes = first.as_chunks::<4>().0;
            let classes = outputs.get(1).values.chunks_exact(boxes.len().max(1));
            for (class, scores) in classes.enumerate().filter(|(c, _)| wanted.has_class(*c)) {
                for (score, [x0, y0, x1, y1]) in scores.iter().zip(boxes) {
                    if *score >= wanted.threshold {
                        out.push([x0 * w, y0 * h, x1 * w, y1 * h], *score, class);
                    }
                }
            }
        }
    }
}

fn corners(cx: f32, cy: f32, w: f32, h: f32) -> [f32; 4] {
    [cx - w / 2.0, cy - h / 2.0, cx + w / 2.0, cy + h / 2.0]
}

/// The best class with objectness × class as its score, if that is wanted.
fn best(objectness: f32, classes: &[f32], wanted: &Wanted<'_>) -> Option<(f32, usize)> {
    // Most boxes end here. No class is more probable than 1.
    if objectness.is_nan() || objectness < wanted.threshold {
        return None;
    }
    let (class, probability) = largest(classes.iter().copied())?;
    let score = objectness * probability;
    wanted.has(score, class).then_some((score, class))
}

/// The first of the largest; `None` of nothing.
fn largest(values: impl Iterator<Item = f32>) -> Option<(usize, f32)> {
    values.enumerate().fold(None, |best, (i, v)| match best {
        Some((_, b)) if v <= b || v.is_nan() => best,
        _ => Some((i, v)),
    })
}

/// YOLOX: centres in cells from the cell's own corner, sizes as logarithms of cells.
fn cells(values: &[f32], d: &Detector, wanted: &Wanted<'_>, out: &mut Candidates) {
    let mut rows = values.chunks_exact(5 + d.classes);
    for Grid {
        stride,
        width,
        height,
    } in grids(d.input)
    {
        let stride = stride as f32;
        for y in 0..height {
            for (x, row) in (0..width).zip(&mut rows) {
                if let Some((score, class)) = best(row[4], &row[5..], wanted) {
                    let cx = (row[0] + x as f32) * stride;
                    let cy = (row[1] + y as f32) * stride;
                    let (w, h) = (row[2].exp() * stride, row[3].exp() * stride);
                    out.push(corners(cx, cy, w, h), score, class);
                }
            }
        }
    }
}

/// YOLOv8: a plane a value. A block of boxes at a time, so that each plane is read in runs.
fn columns(values: &[f32], classes: usize, wanted: &Wanted<'_>, out: &mut Candidates) {
    const BLOCK: usize = 64;
    let n = values.len() / (4 + classes);
    let plane = |i: usize| &values[i * n..][..n];
    let (cx, cy, w, h) = (plane(0), plane(1), plane(2), plane(3));
    for from in (0..n).step_by(BLOCK) {
        let block = from..n.min(from + BLOCK);
        let (mut score, mut class) = ([f32::NEG_INFINITY; BLOCK], [0u32; BLOCK]);
        for c in 0..classes {
            let own = &plane(4 + c)[block.clone()];
            for ((s, best), v) in score.iter_mut().zip(&mut class).zip(own) {
                if v > s {
                    (*s, *best) = (*v, c as u32);
                }
            }
        }
        for (i, (score, class)) in block.zip(score.into_iter().zip(class)) {
            if wanted.has(score, class as usize) {
                out.push(corners(cx[i], cy[i], w[i], h[i]), score, class as usize);
            }
        }
    }
}

/// RetinaNet: of each level the best, every class of a box a candidate; boxes are cut at the picture's edges before they are compared.
fn pyramid(outputs: &Outputs, p: &Pyramid, wanted: &Wanted<'_>, out: &mut Candidates) {
    /// torchvision's `topk_candidates`.
    const MOST: usize = 1000;
    // A little less than the threshold's; the score decides.
    let share = wanted.threshold.min(0.999_999);
    let least = (share / (1.0 - share)).ln() - 1e-3;
    for level in &p.levels {
        let offsets = &outputs.get(level.offsets).values;
        let logits = &outputs.get(level.logits).values;
        let has = |class| wanted.has_class(class);
        for found in level.best(offsets, logits, p.classes, (least, MOST), has) {
            let score = sigmoid(found.logit);
            if wanted.has(score, found.class) {
                out.push(
                    anchors::cut(found.corners, wanted.picture),
                    score,
                    found.class,
                );
            }
        }
    }
}

/// YOLOv3 and v4: centres by a sigmoid within the cell, sizes as multiples of an anchor.
fn grid_anchors(
    values: &[f32],
    head: &AnchorGrid,
    classes: usize,
    wanted: &Wanted<'_>,
    out: &mut Candidates,
) {
    let [by_anchor, by_row, by_column, by_value] = head.steps;
    let stride = head.grid.stride as f32;
    for y in 0..head.grid.height {
        for x in 0..head.grid.width {
            for (a, [aw, ah]) in head.anchors.iter().enumerate() {
                let cell = &values[a * by_anchor + y * by_row + x * by_column..];
                let value = |i: usize| cell[i * by_value];
                let objectness = sigmoid(value(4));
                if objectness.is_nan() || objectness < wanted.threshold {
                    continue;
                }
                let Some((class, logit)) = largest((5..5 + classes).map(value)) else {
                    continue;
                };
                let score = objectness * sigmoid(logit);
                if wanted.has(score, class) {
                    let s = head.xy_scale;
                    let centre =
                        |v: f32, at: usize| (sigmoid(v) * s - (s - 1.0) / 2.0 + at as f32) * stride;
                    let (cx, cy) = (centre(value(0), x), centre(value(1), y));
                    out.push(
                        corners(cx, cy, value(2).exp() * aw, value(3).exp() * ah),
                        score,
                        class,
                    );
                }
            }
        }
    }
}

/// Faster R-CNN: proposals with logits and offsets a class, background first; every class of a proposal is a candidate, cut at the
/// picture's edges before they are compared.
fn regions(
    outputs: &Outputs,
    first: usize,
    classes: usize,
    wanted: &Wanted<'_>,
    out: &mut Candidates,
) {
    /// What offsets are multiples of: a tenth of the proposal's sides, a fifth of their logarithms.
    const PARTS: [f32; 4] = [10.0, 10.0, 5.0, 5.0];
    /// The least that a box measures along each side, in pixels.
    const LEAST_SIDE: f32 = 1e-2;
    let [proposals, logits, offsets] = [0, 1, 2].map(|i| &outputs.get(first + i).values[..]);
    let rows = logits.chunks_exact(1 + classes);
    let offsets = offsets.as_chunks::<4>().0.chunks_exact(1 + classes);
    for ((proposal, logits), offsets) in proposals.as_chunks::<4>().0.iter().zip(rows).zip(offsets)
    {
        let softmax = Softmax::of(logits.iter().copied());
        for class in 0..classes {
            let score = softmax.probability(logits[1 + class]);
            if wanted.has(score, class) {
                let offset = [0, 1, 2, 3].map(|i| offsets[1 + class][i] / PARTS[i]);
                let corners = anchors::cut(anchors::moved(*proposal, offset), wanted.picture);
                let [x0, y0, x1, y1] = corners;
                if x1 - x0 >= LEAST_SIDE && y1 - y0 >= LEAST_SIDE {
                    out.push(corners, score, class);
                }
            }
        }
    }
}

/// Logits of one box to probabilities; the largest is subtracted first, so that no exponential overflows.
struct Softmax {
    top: f32,
    sum: f32,
}

impl Softmax {
    fn of(logits: impl Iterator<Item = f32> + Clone) -> Self {
        let top = logits.clone().fold(f32::NEG_INFINITY, f32::max);
        Self {
            top,
            sum: logits.map(|l| (l - top).exp()).sum(),
        }
    }

    fn probability(&self, logit: f32) -> f32 {
        (logit - self.top).exp() / self.sum
    }
}

/// SSD: offsets to default boxes in tenths and fifths of their size; every class of a box is a candidate.
fn offsets(
    locations: &[f32],
    scores: &[f32],
    defaults: &Defaults,
    d: &Detector,
    wanted: &Wanted<'_>,
    out: &mut Candidates,
) {
    let n = defaults.boxes.len();
    let steps = |values_first: bool, values: usize| if values_first { (1, n) } else { (values, 1) };
    let (box_step, value_step) = steps(defaults.values_first[0], 4);
    let (score_step, class_step) = steps(defaults.values_first[1], 1 + d.classes);
    let (w, h) = (d.input.0 as f32, d.input.1 as f32);
    for (i, [cx, cy, dw, dh]) in defaults.boxes.iter().enumerate() {
        let score = |class: usize| scores[i * score_step + class * class_step];
        let softmax = defaults
            .logits
            .then(|| Softmax::of((0..=d.classes).map(score)));
        for class in 1..=d.classes {
            let probability = match &softmax {
                Some(softmax) => softmax.probability(score(class)),
                None => score(class),
            };
            if wanted.has(probability, class - 1) {
                let l = |v: usize| locations[i * box_step + v * value_step];
                let (x, y) = (0.1 * l(0) * dw + cx, 0.1 * l(1) * dh + cy);
                let (bw, bh) = ((0.2 * l(2)).exp() * dw, (0.2 * l(3)).exp() * dh);
                out.push(
                    corners(x * w, y * h, bw * w, bh * h),
                    probability,
                    class - 1,
                );
            }
        }
    }
}
