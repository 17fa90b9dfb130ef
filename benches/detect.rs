//! Suppression of 10,000 candidates on one core: things in a picture, boxes anywhere, and what takes longest: a thousand that are kept.
//!
//! `cargo bench --bench detect`. Each line: what, the fastest and the median of 200 runs in microseconds, how many were kept.

use std::time::Instant;

use ocellus::task::detect::Suppression;
use ocellus::task::detect::nms::{Candidates, MAX_CANDIDATES, Nms};

/// The same numbers every time: a linear congruential generator, 0 to 1.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> f32 {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (self.0 >> 40) as f32 / (1u64 << 24) as f32
    }
}

/// Boxes around `things` places, as a network gives them, or anywhere.
fn candidates(things: Option<usize>, classes: usize, side: f32) -> Candidates {
    let mut n = Numbers(1);
    let places: Vec<[f32; 2]> = (0..things.unwrap_or(0))
        .map(|_| [n.next() * 600.0, n.next() * 600.0])
        .collect();
    let mut c = Candidates::default();
    for i in 0..MAX_CANDIDATES {
        let (x, y, class) = match things {
            Some(things) => {
                let [x, y] = places[i % things];
                (x + 6.0 * n.next(), y + 6.0 * n.next(), i % things % classes)
            }
            None => (600.0 * n.next(), 600.0 * n.next(), i % classes),
        };
        let (w, h) = (side * (1.0 + 0.2 * n.next()), side * (1.0 + 0.2 * n.next()));
        c.push([x, y, x + w, y + h], 0.01 + 0.99 * n.next(), class);
    }
    assert_eq!(c.len(), MAX_CANDIDATES);
    c
}

/// So many boxes side by side with the best scores, and copies of the last of them: each is compared with what was kept.
fn side_by_side(apart: usize, classes: usize) -> Candidates {
    let mut c = Candidates::default();
    for i in 0..MAX_CANDIDATES {
        let place = i.min(apart - 1);
        let (x, y) = (6.0 * (place % 100) as f32, 6.0 * (place / 100) as f32);
        c.push(
            [x, y, x + 5.0, y + 5.0],
            1.0 - 1e-5 * i as f32,
            place % classes,
        );
    }
    c
}

fn main() {
    println!(
        "{:<58}{:>10}{:>10}{:>8}",
        "suppression of 10,000 candidates (µs)", "fastest", "median", "kept"
    );
    let mut nms = Nms::default();
    for (what, c, suppression, max) in [
        (
            "around 30 things, 80 classes",
            candidates(Some(30), 80, 50.0),
            Suppression::Class,
            100,
        ),
        (
            "around 90 things, agnostic",
            candidates(Some(90), 80, 50.0),
            Suppression::Agnostic,
            100,
        ),
        (
            "around 90 things, one class",
            candidates(Some(90), 1, 50.0),
            Suppression::Class,
            100,
        ),
        (
            "anywhere, large, agnostic",
            candidates(None, 1, 60.0),
            Suppression::Agnostic,
            100,
        ),
        (
            "anywhere, small, 80 classes, 1000 kept",
            candidates(None, 80, 10.0),
            Suppression::Class,
            1000,
        ),
        (
            "anywhere, of 300 pixels, 80 classes, 1000 kept",
            candidates(None, 80, 300.0),
            Suppression::Class,
            1000,
        ),
        (
            "nothing overlaps, one class, 1000 kept",
            side_by_side(MAX_CANDIDATES, 1),
            Suppression::Class,
            1000,
        ),
        (
            "999 side by side, then the last again and again",
            side_by_side(999, 1),
            Suppression::Agnostic,
            1000,
        ),
    ] {
        let mut took = Vec::new();
        let mut kept = 0;
        for _ in 0..200 {
            let started = Instant::now();
            kept = std::hint::black_box(nms.run(&c, Some(suppression), 0.45, max, None)).len();
            took.push(started.elapsed().as_secs_f64() * 1e6);
        }
        took.sort_by(f64::total_cmp);
        println!(
            "{what:<58}{:>10.0}{:>10.0}{kept:>8}",
            took[0],
            took[took.len() / 2]
        );
    }
}
