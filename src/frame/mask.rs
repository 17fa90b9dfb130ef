//! Privacy masks: parts of a camera's picture that nobody may see.
//!
//! In: polygons, 0 to 1 of the picture. Out: for a grid of any resolution the cells that they touch. Pure. Always holds: every cell
//! of which a polygon covers any part is named, however coarse the grid: a sample that a masked pixel has gone into is one of them.

use std::ops::Range;
use std::sync::{Arc, Mutex};

/// Polygons of one camera at most.
pub const MAX_POLYGONS: usize = 32;
/// Points of one polygon at most.
pub const MAX_POINTS: usize = 128;
/// Grids that are remembered: a picture has at most three planes, and a camera seldom changes its size.
const GRIDS: usize = 8;

/// The masks of one camera.
#[derive(Debug)]
pub struct Mask {
    polygons: Vec<Vec<[f64; 2]>>,
    grids: Mutex<Vec<Arc<Cells>>>,
}

impl PartialEq for Mask {
    fn eq(&self, other: &Self) -> bool {
        self.polygons == other.polygons
    }
}

/// Masked cells of a grid.
#[derive(Debug)]
pub struct Cells {
    columns: f64,
    rows: f64,
    spans: Vec<Vec<Range<usize>>>,
}

impl Cells {
    /// The masked columns of each row from the top; ascending, apart from each other.
    pub fn rows(&self) -> impl Iterator<Item = &[Range<usize>]> {
        self.spans.iter().map(Vec::as_slice)
    }
}

impl Mask {
    /// Points are `[x, y]`, 0 to 1 from the picture's upper left corner; the last is joined to the first. A polygon that
    /// crosses itself masks everything that its outline goes round.
    ///
    /// # Errors
    /// Which polygon cannot be one, and why.
    pub fn new(polygons: Vec<Vec<[f64; 2]>>) -> Result<Self, (usize, String)> {
        if polygons.len() > MAX_POLYGONS {
            let message = format!("{} polygons; {MAX_POLYGONS} are the most", polygons.len());
            return Err((MAX_POLYGONS, message));
        }
        for (i, polygon) in polygons.iter().enumerate() {
            check_polygon(polygon).map_err(|why| (i, why))?;
        }
        Ok(Self {
            polygons,
            grids: Mutex::default(),
        })
    }

    /// The touched cells of a grid that divides the picture into `columns` × `rows`, either of which may end with a part of a cell.
    pub fn cells(&self, columns: f64, rows: f64) -> Arc<Cells> {
        let mut grids = self.grids.lock().unwrap_or_else(|e| e.into_inner());
        let known = |c: &Arc<Cells>| c.columns == columns && c.rows == rows;
        if let Some(cells) = grids.iter().find(|c| known(c)) {
            return cells.clone();
        }
        if grids.len() == GRIDS {
            grids.remove(0);
        }
        let mut spans = vec![Vec::new(); rows.ceil() as usize];
        for polygon in &self.polygons {
            touched(polygon, columns, rows, &mut spans);
        }
        spans.iter_mut().for_each(merge);
        let cells = Arc::new(Cells {
            columns,
            rows,
            spans,
        });
        grids.push(cells.clone());
        cells
    }
}

/// Whether these points, 0 to 1 of the picture, make a polygon; if not, why.
pub fn check_polygon(polygon: &[[f64; 2]]) -> Result<(), String> {
    if !(3..=MAX_POINTS).contains(&polygon.len()) {
        let n = polygon.len();
        return Err(format!("{n} points; a polygon has 3 to {MAX_POINTS}"));
    }
    if let Some([x, y]) = polygon
        .iter()
        .find(|p| p.iter().any(|v| !(0.0..=1.0).contains(v)))
    {
        return Err(format!(
            "[{x}, {y}] is outside the picture: x and y go from 0 to 1, whatever its size in pixels"
        ));
    }
    let [ox, oy] = polygon[0];
    let lies_on_a_line = polygon.windows(2).all(|w| {
        let ([ax, ay], [bx, by]) = (w[0], w[1]);
        ((ax - ox) * (by - oy) - (bx - ox) * (ay - oy)).abs() < 1e-9
    });
    if lies_on_a_line {
        return Err("all its points lie on one line: it covers nothing".into());
    }
    Ok(())
}

/// Whether the outline goes round the point (non-zero winding number).
pub fn winds_around(polygon: &[[f64; 2]], [x, y]: [f64; 2]) -> bool {
    let mut winding = 0;
    for (&[ax, ay], &[bx, by]) in polygon.iter().zip(polygon.iter().cycle().skip(1)) {
        if (ay <= y) != (by <= y) && ax + (bx - ax) * (y - ay) / (by - ay) > x {
            winding += if ay <= y { 1 } else { -1 };
        }
    }
    winding != 0
}

/// A cell that a polygon touches has a piece of its outline in it, or is inside as a whole, and then so is its centre.
fn touched(polygon: &[[f64; 2]], columns: f64, rows: f64, spans: &mut [Vec<Range<usize>>]) {
    let across = columns.ceil() as usize;
    let points: Vec<(f64, f64)> = polygon
        .iter()
        .map(|[x, y]| (x * columns, y * rows))
        .collect();
    let edges = || points.iter().zip(points.iter().cycle().skip(1));
    let mut crossings: Vec<(f64, i32)> = Vec::new();
    for (row, spans) in spans.iter_mut().enumerate() {
        let (top, bottom) = (row as f64, row as f64 + 1.0);
        let mut add = |from: f64, to: f64| {
            let span = from.floor() as usize..(to.ceil() as usize).min(across);
            if !span.is_empty() {
                spans.push(span);
            }
        };
        crossings.clear();
        for (&a, &b) in edges() {
            let (upper, lower) = if a.1 <= b.1 { (a, b) } else { (b, a) };
            let at = |y: f64| {
                let share = ((y - upper.1) / (lower.1 - upper.1)).clamp(0.0, 1.0);
                upper.0 + (lower.0 - upper.0) * share
            };
            let (from, to) = (upper.1.max(top), lower.1.min(bottom));
            let ends = if from < to {
                Some((at(from), at(to)))
            } else if upper.1 == lower.1 && top < upper.1 && upper.1 < bottom {
                Some((a.0, b.0))
            } else {
                None
            };
            if let Some((x0, x1)) = ends {
                add(x0.min(x1), x0.max(x1));
            }
            let centre = top + 0.5;
            if (a.1 <= centre) != (b.1 <= centre) {
                crossings.push((at(centre), if a.1 <= b.1 { 1 } else { -1 }));
            }
        }
        crossings.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut winding = 0;
        for pair in crossings.windows(2) {
            winding += pair[0].1;
            if winding != 0 {
                add(pair[0].0, pair[1].0);
            }
        }
    }
}

fn merge(spans: &mut Vec<Range<usize>>) {
    spans.sort_by_key(|s| s.start);
    let mut merged: Vec<Range<usize>> = Vec::with_capacity(spans.len());
    for span in spans.drain(..) {
        match merged.last_mut() {
            Some(last) if span.start <= last.end => last.end = last.end.max(span.end),
            _ => merged.push(span),
        }
    }
    *spans = merged;
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn drawn(polygon: &[[f64; 2]], columns: f64, rows: f64) -> Vec<String> {
        let mask = Mask::new(vec![polygon.to_vec()]).unwrap();
        let cells = mask.cells(columns, rows);
        let line = |spans: &[Range<usize>]| {
            (0..columns.ceil() as usize)
                .map(|x| match spans.iter().any(|s| s.contains(&x)) {
                    true => '#',
                    false => '.',
                })
                .collect()
        };
        cells.rows().map(line).collect()
    }

    #[test]
    fn cells_that_are_touched_and_no_others() {
        let box_ = |x0, y0, x1, y1| [[x0, y0], [x1, y0], [x1, y1], [x0, y1]];
        assert_eq!(
            drawn(&box_(0.25, 0.0, 0.5, 0.5), 8.0, 4.0),
            ["..##....", "..##....", "........", "........"]
        );
        // A little more touches the next cells.
        assert_eq!(
            drawn(&box_(0.24, 0.0, 0.51, 0.51), 8.0, 4.0),
            [".####...", ".####...", ".####...", "........"]
        );
        // Thinner than a cell, and not over any centre.
        assert_eq!(
            drawn(&box_(0.26, 0.51, 0.74, 0.52), 4.0, 4.0),
            ["....", "....", ".##.", "...."]
        );
        // The whole picture, with a part of a cell at its ends.
        assert_eq!(drawn(&box_(0.0, 0.0, 1.0, 1.0), 2.5, 1.5), ["###", "###"]);
        // A bow tie: both halves.
        assert_eq!(
            drawn(&[[0.0, 0.0], [1.0, 1.0], [1.0, 0.0], [0.0, 1.0]], 4.0, 4.0),
            ["#..#", "####", "####", "#..#"]
        );
    }

    #[test]
    fn what_cannot_be_a_polygon_is_told() {
        let why = |polygon: &[[f64; 2]]| {
            Mask::new(vec![vec![[0., 0.], [1., 0.], [0., 1.]], polygon.to_vec()]).unwrap_err()
        };
        assert_eq!(why(&[[0.0, 0.0], [1.0, 1.0]]).0, 1);
        assert!(why(&[[0.0, 0.0], [1.0, 1.0]]).1.contains("2 points"));
        assert!(
            why(&[[0.0, 0.0], [320.0, 0.0], [1.0, 1.0]])
                .1
                .contains("[320, 0] is outside")
        );
        assert!(
            why(&[[0.0, 0.0], [f64::NAN, 0.0], [1.0, 1.0]])
                .1
                .contains("outside")
        );
        assert!(
            why(&[[0.0, 0.0], [0.5, 0.5], [1.0, 1.0], [0.2, 0.2]])
                .1
                .contains("one line")
        );
        assert!(why(&vec![[0.0, 0.0]; 200]).1.contains("200 points"));
        let many = vec![vec![[0., 0.], [1., 0.], [0., 1.]]; 33];
        assert!(Mask::new(many).unwrap_err().1.contains("33 polygons"));
    }

    fn polygon() -> impl Strategy<Value = Vec<[f64; 2]>> {
        prop::collection::vec([0.0..=1.0f64, 0.0..=1.0f64], 3..9)
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Any point inside a polygon lies in a named cell, on the finest and on the coarsest grid.
        #[test]
        fn no_point_inside_is_missed(
            polygon in polygon(),
            points in prop::collection::vec([0.0..1.0f64, 0.0..1.0f64], 50),
            size in (1u32..200, 1u32..200),
            halves in prop::bool::ANY,
        ) {
            let Ok(mask) = Mask::new(vec![polygon.clone()]) else { return Ok(()) };
            let part = if halves { 0.5 } else { 1.0 };
            let (columns, rows) = (f64::from(size.0) * part, f64::from(size.1) * part);
            let cells = mask.cells(columns, rows);
            for p in points.into_iter().filter(|p| winds_around(&polygon, *p)) {
                let (x, y) = ((p[0] * columns) as usize, (p[1] * rows) as usize);
                let row = cells.rows().nth(y).unwrap();
                prop_assert!(row.iter().any(|s| s.contains(&x)), "{p:?} in {row:?}");
            }
        }
    }
}
