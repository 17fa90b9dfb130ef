//! A class map → polygons: the borders between pixels, followed and simplified (Douglas–Peucker).
//!
//! In: a class map, a tolerance. Out: for each wanted class its connected parts, each an outer ring and its holes, in 0–1 coordinates
//! of the frame. Pure. Always holds: pixels are connected by their sides; at most [`MAX_PARTS`] of a class, the largest; the time is
//! bounded by the number of pixels.

use super::map::{ClassMap, NONE};

/// More parts than this of one class are noise: the smallest are left out.
pub(super) const MAX_PARTS: usize = 100;

/// Corners `[x, y]`, 0 to 1; the last is joined to the first.
pub type Ring = Vec<[f32; 2]>;

/// A part of a class: its outer ring, then those of its holes.
pub type Polygon = Vec<Ring>;

/// A corner between pixels.
type Corner = [i32; 2];

/// Polygons of each class from 0 on. `tolerance`: how far a border may be moved, as a share of the longer of `frame`'s sides; parts
/// and holes whose area is less than its square are left out.
pub(super) fn polygons(
    map: &ClassMap,
    wanted: &[bool],
    frame: (u32, u32),
    tolerance: f32,
) -> Vec<Vec<Polygon>> {
    let parts = Parts::of(map, wanted);
    let longer = f64::from(frame.0.max(frame.1));
    // Sides of a pixel in shares of the frame, and in shares of its longer side.
    let x = (map.x.to - map.x.from) / map.width as f64;
    let y = (map.y.to - map.y.from) / map.height as f64;
    let aspect = [f64::from(frame.0) / longer, f64::from(frame.1) / longer];
    let pixel = [x * aspect[0], y * aspect[1]];
    let least = f64::from(tolerance).powi(2) / (pixel[0] * pixel[1]);
    let place = |c: &Corner| {
        let share = |from: f64, side: f64, at: i32| (from + side * f64::from(at)).clamp(0.0, 1.0);
        [
            share(map.x.from, x, c[0]) as f32,
            share(map.y.from, y, c[1]) as f32,
        ]
    };
    let mut polygons: Vec<Vec<Polygon>> = vec![vec![]; wanted.len()];
    let kept = parts.largest(least, wanted.len());
    for (part, mut rings) in parts.rings(&kept).into_iter().enumerate() {
        let Some(outer) = rings.first().map(|r| simplified(r, pixel, tolerance)) else {
            continue;
        };
        if outer.len() < 3 {
            continue;
        }
        let holes = rings.drain(1..).filter(|r| area(r) >= least);
        let holes = holes.map(|r| simplified(&r, pixel, tolerance));
        let all = std::iter::once(outer).chain(holes.filter(|r| r.len() >= 3));
        let polygon: Polygon = all.map(|r| r.iter().map(place).collect()).collect();
        polygons[usize::from(parts.all[part].class)].push(polygon);
    }
    polygons
}

/// Pixels of one class that hang together.
struct Part {
    class: u16,
    pixels: usize,
}

/// Which part each pixel belongs to.
struct Parts {
    width: i32,
    height: i32,
    of: Vec<u32>,
    all: Vec<Part>,
}

/// No part: the class is not wanted.
const NO_PART: u32 = u32::MAX;

impl Parts {
    fn of(map: &ClassMap, wanted: &[bool]) -> Self {
        let (width, height) = (map.width, map.height);
        let mut of = vec![NO_PART; map.classes.len()];
        let mut all: Vec<Part> = Vec::new();
        let mut open = Vec::new();
        for first in 0..of.len() {
            let class = map.classes[first];
            let is_wanted = class != NONE && wanted.get(usize::from(class)) == Some(&true);
            if of[first] != NO_PART || !is_wanted {
                continue;
            }
            let part = all.len() as u32;
            let mut pixels = 0;
            of[first] = part;
            open.push(first);
            while let Some(at) = open.pop() {
                pixels += 1;
                let (x, y) = (at % width, at / width);
                let beside = [
                    (x > 0).then(|| at - 1),
                    (x + 1 < width).then_some(at + 1),
                    (y > 0).then(|| at - width),
                    (y + 1 < height).then_some(at + width),
                ];
                for next in beside.into_iter().flatten() {
                    if of[next] == NO_PART && map.classes[next] == class {
                        of[next] = part;
                        open.push(next);
                    }
                }
            }
            all.push(Part { class, pixels });
        }
        Self {
            width: width as i32,
            height: height as i32,
            of,
            all,
        }
    }

    /// Whether each part is among the largest of its class, and has at least so many pixels.
    fn largest(&self, least: f64, classes: usize) -> Vec<bool> {
        let mut order: Vec<usize> = (0..self.all.len()).collect();
        order.sort_by_key(|p| std::cmp::Reverse(self.all[*p].pixels));
        let mut taken = vec![0; classes];
        let mut kept = vec![false; self.all.len()];
        for part in order {
            let Part { class, pixels } = self.all[part];
            let taken = &mut taken[usize::from(class)];
            if *taken < MAX_PARTS && pixels as f64 >= least {
                *taken += 1;
                kept[part] = true;
            }
        }
        kept
    }

    /// The rings of each part, the outer one first.
    fn rings(&self, kept: &[bool]) -> Vec<Vec<Vec<Corner>>> {
        let mut rings = vec![vec![]; self.all.len()];
        // Upper edges of pixels: every ring has one.
        let mut followed = vec![false; self.of.len()];
        for y in 0..self.height {
            for x in 0..self.width {
                let at = (y * self.width + x) as usize;
                let part = self.of[at];
                if part != NO_PART
                    && kept[part as usize]
                    && !followed[at]
                    && !self.is(part, x, y - 1)
                {
                    rings[part as usize].push(self.follow(part, [x, y], &mut followed));
                }
            }
        }
        rings
    }

    fn is(&self, part: u32, x: i32, y: i32) -> bool {
        let inside = x >= 0 && y >= 0 && x < self.width && y < self.height;
        inside && self.of[(y * self.width + x) as usize] == part
    }

    /// The corners of the ring that begins with the upper edge of this pixel, the part always on the right.
    fn follow(&self, part: u32, start: Corner, followed: &mut [bool]) -> Vec<Corner> {
        /// East, south, west, north.
        const STEPS: [Corner; 4] = [[1, 0], [0, 1], [-1, 0], [0, -1]];
        /// The pixels ahead of a corner: to the right and to the left of the way.
        const AHEAD: [[Corner; 2]; 4] = [
            [[0, 0], [0, -1]],
            [[-1, 0], [0, 0]],
            [[-1, -1], [-1, 0]],
            [[0, -1], [-1, -1]],
        ];
        let mut corners = Vec::new();
        let ([mut x, mut y], mut way) = (start, 0);
        loop {
            if way == 0 {
                followed[(y * self.width + x) as usize] = true;
            }
            x += STEPS[way][0];
            y += STEPS[way][1];
            let [right, left] = AHEAD[way].map(|[dx, dy]| self.is(part, x + dx, y + dy));
            let turned = match (right, left) {
                (false, _) => (way + 1) % 4,
                (true, false) => way,
                (true, true) => (way + 3) % 4,
            };
            if turned != way {
                corners.push([x, y]);
            }
            way = turned;
            if [x, y] == start && way == 0 {
                return corners;
            }
        }
    }
}

/// In pixels.
fn area(ring: &[Corner]) -> f64 {
    let next = ring.iter().cycle().skip(1);
    let twice = ring
        .iter()
        .zip(next)
        .map(|(a, b)| i64::from(a[0]) * i64::from(b[1]) - i64::from(b[0]) * i64::from(a[1]));
    (twice.sum::<i64>() as f64 / 2.0).abs()
}

/// Douglas–Peucker on a ring: of each stretch the farthest corner stays, if it is farther from the straight line than the tolerance.
/// A ring that takes too long (one that goes to and fro all over the picture) stays coarser.
fn simplified(ring: &[Corner], pixel: [f64; 2], tolerance: f32) -> Vec<Corner> {
    let n = ring.len();
    let at = |i: usize| {
        let [x, y] = ring[i % n];
        [f64::from(x) * pixel[0], f64::from(y) * pixel[1]]
    };
    let distance = |a: [f64; 2], b: [f64; 2]| (a[0] - b[0]).hypot(a[1] - b[1]);
    let Some(farthest) = (0..n).max_by(|i, j| {
        let from = |i: &usize| distance(at(*i), at(0));
        from(i).total_cmp(&from(j))
    }) else {
        return vec![];
    };
    let mut kept = vec![false; n];
    kept[0] = true;
    kept[farthest] = true;
    let mut open = vec![(0, farthest), (farthest, n)];
    let mut budget = 64 * n;
    while let Some((from, to)) = open.pop() {
        if to - from < 2 || budget < to - from {
            continue;
        }
        budget -= to - from;
        let (a, b) = (at(from), at(to));
        let off = |i: usize| {
            let p = at(i);
            let length = distance(a, b);
            match length > 0.0 {
                true => {
                    ((b[0] - a[0]) * (p[1] - a[1]) - (b[1] - a[1]) * (p[0] - a[0])).abs() / length
                }
                false => distance(a, p),
            }
        };
        let most = (from + 1..to).map(|i| (i, off(i)));
        let most = most.max_by(|a, b| a.1.total_cmp(&b.1));
        if let Some((i, _)) = most.filter(|m| m.1 > f64::from(tolerance)) {
            kept[i] = true;
            open.extend([(from, i), (i, to)]);
        }
    }
    let stays = ring.iter().zip(kept).filter(|(_, kept)| *kept);
    stays.map(|(c, _)| *c).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `#` is class 1.
    fn map(rows: &[&str]) -> ClassMap {
        let classes = rows
            .iter()
            .flat_map(|r| r.bytes())
            .map(|b| u16::from(b == b'#'));
        ClassMap::whole(rows[0].len(), rows.len(), classes.collect())
    }

    fn of(rows: &[&str], tolerance: f32) -> Vec<Polygon> {
        let map = map(rows);
        let frame = (map.width as u32, map.height as u32);
        polygons(&map, &[false, true], frame, tolerance).remove(1)
    }

    #[test]
    fn a_ring_goes_around_the_pixels_not_through_them() {
        let found = of(&["....", ".##.", ".##.", "...."], 0.0);
        assert_eq!(
            found,
            [[[[0.75, 0.25], [0.75, 0.75], [0.25, 0.75], [0.25, 0.25]]]]
        );
    }

    #[test]
    fn holes_are_rings_of_their_own_and_corners_do_not_connect() {
        let found = of(&["####", "#..#", "#..#", "####"], 0.0);
        assert_eq!((found.len(), found[0].len()), (1, 2));
        assert_eq!(found[0][1].len(), 4);
        let found = of(&["#.", ".#"], 0.0);
        assert_eq!(found.len(), 2);
    }

    #[test]
    fn steps_smaller_than_the_tolerance_become_a_line() {
        // A staircase of 32 pixels: a triangle.
        let rows: Vec<String> = (1..=32)
            .map(|n| "#".repeat(n) + &".".repeat(32 - n))
            .collect();
        let rows: Vec<&str> = rows.iter().map(String::as_str).collect();
        assert_eq!(of(&rows, 0.0)[0][0].len(), 66);
        assert!(of(&rows, 0.04)[0][0].len() <= 4);
        // What is smaller than the tolerance is nothing.
        assert_eq!(
            of(&["#...", "....", "....", "...."], 0.3),
            Vec::<Polygon>::new()
        );
    }

    /// Whether a point is in the polygon: outside of the holes, by the even-odd rule.
    fn holds(polygon: &Polygon, x: f32, y: f32) -> bool {
        let crossings = polygon.iter().flat_map(|ring| {
            let next = ring.iter().cycle().skip(1);
            ring.iter().zip(next).filter(move |(a, b)| {
                (a[1] > y) != (b[1] > y) && x < (b[0] - a[0]) * (y - a[1]) / (b[1] - a[1]) + a[0]
            })
        });
        crossings.count() % 2 == 1
    }

    proptest! {
        #[test]
        fn unsimplified_polygons_are_the_pixels(
            (width, height, classes) in (1usize..10, 1usize..10)
                .prop_flat_map(|(w, h)| (Just(w), Just(h), prop::collection::vec(0u16..2, w * h)))
        ) {
            let map = ClassMap::whole(width, height, classes.clone());
            let all = polygons(&map, &[true, true], (width as u32, height as u32), 0.0);
            for (i, class) in classes.iter().enumerate() {
                let x = ((i % width) as f32 + 0.5) / width as f32;
                let y = ((i / width) as f32 + 0.5) / height as f32;
                for (c, polygons) in all.iter().enumerate() {
                    let n = polygons.iter().filter(|p| holds(p, x, y)).count();
                    prop_assert_eq!(n, usize::from(c == usize::from(*class)));
                }
            }
        }
    }

    #[test]
    fn a_chequerboard_is_cut_short() {
        let (width, height) = (600, 400);
        let classes = (0..width * height).map(|i| ((i % width + i / width) % 2) as u16);
        let map = ClassMap::whole(width, height, classes.collect());
        let all = polygons(&map, &[true, true], (600, 400), 0.0);
        assert!(all.iter().all(|p| p.len() == MAX_PARTS));
    }
}
