//! Average precision and recall of boxes, by COCO's rules.
//!
//! In: boxes that people drew and boxes that a model found, of any number of images. Out: [`Scores`]. Pure. Always holds: the numbers are
//! those of `pycocotools`, to rounding; what depends on nothing (no box of a class) is `None`, where that has −1.

use serde::Serialize;

/// Overlaps that a box needs to count, 0.5 to 0.95.
const OVERLAPS: usize = 10;
/// Recalls at which precision is read, 0 to 1.
const RECALLS: usize = 101;
/// How many boxes of a class count in an image.
const MOST: [usize; 3] = [1, 10, 100];
/// Sizes of boxes, in square pixels: all, small, medium, large.
const AREAS: [(f64, f64); 4] = [(0.0, 1e10), (0.0, 1024.0), (1024.0, 9216.0), (9216.0, 1e10)];

/// A box that somebody drew.
#[derive(Debug, Clone, PartialEq)]
pub struct Drawn {
    /// Its class, from 0.
    pub class: usize,
    /// Left, top, width, height in pixels.
    pub bbox: [f64; 4],
    /// In square pixels; of the thing, where its outline is known.
    pub area: f64,
    /// It stands for many things: boxes in it count neither for nor against a model.
    pub crowd: bool,
}

/// A box that a model found.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// Its class, from 0.
    pub class: usize,
    /// Left, top, width, height in pixels.
    pub bbox: [f64; 4],
    /// 0 to 1.
    pub score: f64,
}

/// One image's boxes.
#[derive(Debug, Clone, Default)]
pub struct Image {
    /// What is there.
    pub drawn: Vec<Drawn>,
    /// What was found.
    pub found: Vec<Found>,
}

/// COCO's twelve numbers, 0 to 1; `None` where nothing was drawn.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Scores {
    /// Average precision over overlaps of 0.5 to 0.95.
    pub ap: Option<f64>,
    /// Average precision at an overlap of 0.5.
    pub ap50: Option<f64>,
    /// Average precision at an overlap of 0.75.
    pub ap75: Option<f64>,
    /// `ap` of things smaller than 32².
    pub ap_small: Option<f64>,
    /// `ap` of things of 32² to 96².
    pub ap_medium: Option<f64>,
    /// `ap` of things larger than 96².
    pub ap_large: Option<f64>,
    /// Average recall with one box of a class in an image.
    pub ar_1: Option<f64>,
    /// With ten.
    pub ar_10: Option<f64>,
    /// With a hundred.
    pub ar_100: Option<f64>,
    /// `ar_100` of things smaller than 32².
    pub ar_small: Option<f64>,
    /// `ar_100` of things of 32² to 96².
    pub ar_medium: Option<f64>,
    /// `ar_100` of things larger than 96².
    pub ar_large: Option<f64>,
}

/// Precision and recall of one class, one range of areas, one number of boxes, at each overlap; `None`: nothing was drawn.
type Curve = Option<Points>;
type Points = [(f64, f64); OVERLAPS];

/// One class's; `None` where nothing was drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ClassScores {
    /// Average precision over overlaps of 0.5 to 0.95.
    pub ap: Option<f64>,
    /// Average precision at an overlap of 0.5.
    pub ap50: Option<f64>,
}

/// Of all classes, and of each. Images are in the order of their ids, which decides between equal scores.
pub fn evaluate(images: &[Image], classes: usize) -> (Scores, Vec<ClassScores>) {
    let curves: Vec<Curves> = (0..classes).map(|c| Curves::of(images, c)).collect();
    let mean = |area: usize, most: usize, value: fn(&Points) -> Vec<f64>| {
        let known = curves.iter().filter_map(|c| c.at[area][most].as_ref());
        mean(known.flat_map(value))
    };
    let precision = |c: &Points| c.iter().map(|(p, _)| *p).collect();
    let recall = |c: &Points| c.iter().map(|(_, r)| *r).collect();
    let scores = Scores {
        ap: mean(0, 2, precision),
        ap50: mean(0, 2, |c| vec![c[0].0]),
        ap75: mean(0, 2, |c| vec![c[5].0]),
        ap_small: mean(1, 2, precision),
        ap_medium: mean(2, 2, precision),
        ap_large: mean(3, 2, precision),
        ar_1: mean(0, 0, recall),
        ar_10: mean(0, 1, recall),
        ar_100: mean(0, 2, recall),
        ar_small: mean(1, 2, recall),
        ar_medium: mean(2, 2, recall),
        ar_large: mean(3, 2, recall),
    };
    let of_class = |c: &Curves| {
        let own = c.at[0][2].as_ref();
        ClassScores {
            ap: own.and_then(|c| self::mean(precision(c))),
            ap50: own.map(|c| c[0].0),
        }
    };
    (scores, curves.iter().map(of_class).collect())
}

fn mean(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let (n, sum) = values
        .into_iter()
        .fold((0usize, 0.0), |(n, s), v| (n + 1, s + v));
    (n > 0).then(|| sum / n as f64)
}

/// One class's, by range of areas and number of boxes.
struct Curves {
    at: [[Curve; MOST.len()]; AREAS.len()],
}

impl Curves {
    fn of(images: &[Image], class: usize) -> Self {
        let own: Vec<Own> = images.iter().map(|i| Own::of(i, class)).collect();
        let curve = |area: (f64, f64)| {
            let matched: Vec<Matched> = own.iter().map(|o| o.matched(area)).collect();
            MOST.map(|most| accumulate(&matched, most))
        };
        Self {
            at: AREAS.map(curve),
        }
    }
}

/// One image's boxes of one class: found ones best first, and how much each overlaps each drawn one.
struct Own<'a> {
    drawn: Vec<&'a Drawn>,
    found: Vec<&'a Found>,
    overlaps: Vec<Vec<f64>>,
}

/// What became of one image's boxes.
struct Matched {
    /// Best first: score, and at each overlap whether it is right, wrong, or nothing that counts.
    found: Vec<(f64, [Verdict; OVERLAPS])>,
    /// Drawn ones that count.
    drawn: usize,
}

#[derive(Clone, Copy, PartialEq)]
enum Verdict {
    Right,
    Wrong,
    Ignored,
}

impl<'a> Own<'a> {
    fn of(image: &'a Image, class: usize) -> Self {
        let drawn: Vec<_> = image.drawn.iter().filter(|d| d.class == class).collect();
        let mut found: Vec<_> = image.found.iter().filter(|f| f.class == class).collect();
        found.sort_by(|a, b| b.score.total_cmp(&a.score));
        found.truncate(MOST[2]);
        let overlap = |f: &&Found| drawn.iter().map(|d| overlap(f, d)).collect();
        Self {
            overlaps: found.iter().map(overlap).collect(),
            drawn,
            found,
        }
    }

    /// Best first, each found box takes the drawn one that it overlaps most and that nobody has taken; those that do not count are taken
    /// only if no other can be.
    fn matched(&self, (least, most): (f64, f64)) -> Matched {
        let outside = |area: f64| area < least || area > most;
        let ignored = |d: &Drawn| d.crowd || outside(d.area);
        let mut order: Vec<usize> = (0..self.drawn.len()).collect();
        order.sort_by_key(|d| ignored(self.drawn[*d]));
        let verdicts: [Vec<Verdict>; OVERLAPS] = std::array::from_fn(|at| {
            let least = overlap_at(at).min(1.0 - 1e-10);
            let mut taken = vec![false; self.drawn.len()];
            let verdict = |f: usize| {
                let (mut best, mut with) = (least, None::<usize>);
                for &d in &order {
                    let drawn = self.drawn[d];
                    if taken[d] && !drawn.crowd {
                        continue;
                    }
                    if with.is_some_and(|w| !ignored(self.drawn[w])) && ignored(drawn) {
                        break;
                    }
                    if self.overlaps[f][d] >= best {
                        (best, with) = (self.overlaps[f][d], Some(d));
                    }
                }
                let [.., w, h] = self.found[f].bbox;
                match with {
                    Some(d) => {
                        taken[d] = true;
                        match ignored(self.drawn[d]) {
                            true => Verdict::Ignored,
                            false => Verdict::Right,
                        }
                    }
                    None if outside(w * h) => Verdict::Ignored,
                    None => Verdict::Wrong,
                }
            };
            (0..self.found.len()).map(verdict).collect()
        });
        let of = |f: usize| std::array::from_fn(|at| verdicts[at][f]);
        let found = self.found.iter().enumerate();
        Matched {
            found: found.map(|(f, found)| (found.score, of(f))).collect(),
            drawn: self.drawn.iter().filter(|d| !ignored(d)).count(),
        }
    }
}

/// numpy's `linspace(0.5, 0.95, 10)`.
fn overlap_at(i: usize) -> f64 {
    match i {
        9 => 0.95,
        i => 0.5 + i as f64 * ((0.95 - 0.5) / 9.0),
    }
}

/// Intersection over union; over the found box alone where the drawn one is a crowd.
fn overlap(found: &Found, drawn: &Drawn) -> f64 {
    let ([fx, fy, fw, fh], [dx, dy, dw, dh]) = (found.bbox, drawn.bbox);
    let w = (fx + fw).min(dx + dw) - fx.max(dx);
    let h = (fy + fh).min(dy + dh) - fy.max(dy);
    if w <= 0.0 || h <= 0.0 {
        return 0.0;
    }
    let both = w * h;
    let either = match drawn.crowd {
        true => fw * fh,
        false => fw * fh + dw * dh - both,
    };
    both / either
}

/// Precision, averaged over the recalls, and the highest recall, with at most so many boxes an image.
fn accumulate(images: &[Matched], most: usize) -> Curve {
    let drawn: usize = images.iter().map(|m| m.drawn).sum();
    if drawn == 0 {
        return None;
    }
    let mut found: Vec<_> = images
        .iter()
        .flat_map(|m| m.found.iter().take(most))
        .collect();
    found.sort_by(|a, b| b.0.total_cmp(&a.0));
    let curve = |at: usize| {
        let (mut right, mut wrong) = (0usize, 0usize);
        let (mut recall, mut precision) = (Vec::new(), Vec::new());
        for (_, verdicts) in &found {
            match verdicts[at] {
                Verdict::Right => right += 1,
                Verdict::Wrong => wrong += 1,
                Verdict::Ignored => {}
            }
            recall.push(right as f64 / drawn as f64);
            precision.push(right as f64 / ((right + wrong) as f64 + f64::EPSILON));
        }
        // Precision never rises with recall.
        for i in (1..precision.len()).rev() {
            precision[i - 1] = precision[i - 1].max(precision[i]);
        }
        let read = |i: usize| {
            let wanted = i as f64 * (1.0 / (RECALLS - 1) as f64);
            let first = recall.partition_point(|r| *r < wanted);
            precision.get(first).copied().unwrap_or(0.0)
        };
        let sum: f64 = (0..RECALLS).map(read).sum();
        let last = recall.last().copied().unwrap_or(0.0);
        (sum / RECALLS as f64, last)
    };
    Some(std::array::from_fn(curve))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(bbox: [f64; 4]) -> Drawn {
        Drawn {
            class: 0,
            bbox,
            area: bbox[2] * bbox[3],
            crowd: false,
        }
    }

    fn found(bbox: [f64; 4], score: f64) -> Found {
        Found {
            class: 0,
            bbox,
            score,
        }
    }

    #[test]
    fn all_right_is_one_and_nothing_drawn_is_nothing() {
        let square = [10.0, 10.0, 40.0, 40.0];
        let image = Image {
            drawn: vec![drawn(square)],
            found: vec![found(square, 0.9)],
        };
        let (scores, classes) = evaluate(&[image.clone(), Image::default()], 2);
        assert!((scores.ap.unwrap() - 1.0).abs() < 1e-9, "{scores:?}");
        assert_eq!((scores.ap_small, scores.ar_1), (None, Some(1.0)));
        assert_eq!((classes[1].ap, classes[1].ap50), (None, None));
        let missed = Image {
            found: vec![],
            ..image
        };
        let (scores, _) = evaluate(&[missed], 1);
        assert_eq!((scores.ap, scores.ar_100), (Some(0.0), Some(0.0)));
    }

    #[test]
    fn a_crowd_counts_for_nobody() {
        let crowd = Drawn {
            crowd: true,
            ..drawn([0.0, 0.0, 100.0, 100.0])
        };
        let image = Image {
            drawn: vec![crowd, drawn([200.0, 0.0, 50.0, 50.0])],
            found: vec![
                found([10.0, 10.0, 20.0, 20.0], 0.9),
                found([40.0, 40.0, 20.0, 20.0], 0.8),
                found([200.0, 0.0, 50.0, 50.0], 0.7),
            ],
        };
        let (scores, _) = evaluate(&[image], 1);
        assert!((scores.ap.unwrap() - 1.0).abs() < 1e-9, "{scores:?}");
    }
}
