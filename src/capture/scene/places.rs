//! Where the camera hangs: a street, a garden, a porch, a hall. Drawn once a place, at full light.
//!
//! Coordinates are picture heights; x runs from 0 to the aspect ratio.

use super::canvas::{Canvas, Colour, Paint, scaled};
use super::random::{Random, Stream};

/// A kind of place, and where objects may stand in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Street,
    Garden,
    Porch,
    Hall,
}

impl Kind {
    pub(super) fn indoors(self) -> bool {
        self == Self::Hall
    }

    pub(super) fn has_cars(self) -> bool {
        matches!(self, Self::Street | Self::Garden)
    }
}

/// A place that a seed has made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) kind: Kind,
    /// Where the ground begins, in picture heights from the top.
    pub(super) horizon: f32,
    seed: u64,
    index: u64,
}

impl Place {
    pub(super) fn new(seed: u64, index: u64) -> Self {
        let mut r = Random::new(seed, Stream::Place, index);
        let kind = r.pick(&[Kind::Street, Kind::Garden, Kind::Porch, Kind::Hall]);
        let horizon = match kind {
            Kind::Street | Kind::Garden => r.range(0.46, 0.58),
            Kind::Porch | Kind::Hall => r.range(0.60, 0.70),
        };
        Self {
            kind,
            horizon,
            seed,
            index,
        }
    }

    /// Draws the whole background.
    pub(super) fn draw(&self, canvas: &mut Canvas, aspect: f32, height: usize) {
        let mut r = Random::new(self.seed ^ 0x5ce7e, Stream::Place, self.index);
        match self.kind {
            Kind::Street => street(canvas, &mut r, aspect, self.horizon),
            Kind::Garden => garden(canvas, &mut r, aspect, self.horizon),
            Kind::Porch => porch(canvas, &mut r, aspect, self.horizon),
            Kind::Hall => hall(canvas, &mut r, aspect, self.horizon),
        }
        let (wall, ground) = match self.kind {
            Kind::Street => (6.0, 16.0),
            Kind::Garden => (8.0, 17.0),
            Kind::Porch => (7.0, 12.0),
            Kind::Hall => (4.0, 9.0),
        };
        let sky = matches!(self.kind, Kind::Street | Kind::Garden);
        texture(
            canvas,
            &mut r,
            if sky { self.horizon * 0.7 } else { 0.0 },
            self.horizon,
            wall,
            height,
        );
        texture(canvas, &mut r, self.horizon, 1.0, ground, height);
    }
}

/// Smooth blotches and fine grain.
fn texture(canvas: &mut Canvas, r: &mut Random, y0: f32, y1: f32, strength: f32, height: usize) {
    let seed = r.next();
    let cell = height as f32 / r.range(14.0, 30.0);
    let at = |x: u64, y: u64| {
        let mut z =
            seed ^ x.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ y.wrapping_mul(0xc2b2_ae3d_27d4_eb4f);
        z = (z ^ (z >> 31)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z >> 40) & 0xffff) as f32 / 32_768.0 - 1.0
    };
    canvas.shade(y0, y1, |x, y| {
        let (u, v) = (x as f32 / cell, y as f32 / (cell * 0.5));
        let (x0, y0) = (u as u64, v as u64);
        let (fu, fv) = (u - x0 as f32, v - y0 as f32);
        let top = at(x0, y0) * (1.0 - fu) + at(x0 + 1, y0) * fu;
        let bottom = at(x0, y0 + 1) * (1.0 - fu) + at(x0 + 1, y0 + 1) * fu;
        let grain = at(x as u64 + 7_000, y as u64 + 9_000) * 0.35;
        ((top * (1.0 - fv) + bottom * fv + grain) * strength) as i32
    });
}

fn sky(c: &mut Canvas, r: &mut Random, aspect: f32, horizon: f32) {
    let clear = r.chance(0.6);
    let (high, low) = if clear {
        ([104, 154, 214], [196, 218, 234])
    } else {
        ([150, 160, 170], [204, 208, 210])
    };
    c.rect(
        [0.0, 0.0, aspect, horizon + 0.02],
        Paint::gradient(high, low),
    );
    for _ in 0..r.below(5) {
        let (x, y) = (r.range(0.0, aspect), r.range(0.03, horizon * 0.45));
        let size = r.range(0.04, 0.1);
        for _ in 0..5 {
            let (dx, dy) = (r.range(-1.6, 1.6) * size, r.range(-0.25, 0.25) * size);
            c.ellipse(
                (x + dx, y + dy),
                (size * 1.2, size * 0.4),
                Paint::flat([240, 242, 244]).see_through(0.45),
            );
        }
    }
}

/// A window with its frame; `lit` ones are bright inside.
fn window(c: &mut Canvas, [x0, y0, x1, y1]: [f32; 4], lit: bool) {
    c.rect(
        [x0 - 0.008, y0 - 0.008, x1 + 0.008, y1 + 0.008],
        Paint::flat([226, 224, 218]),
    );
    let glass = if lit {
        Paint::gradient([250, 226, 160], [230, 190, 120])
    } else {
        Paint::gradient([120, 142, 160], [64, 78, 92])
    };
    c.rect([x0, y0, x1, y1], glass);
    let x = (x0 + x1) * 0.5;
    c.stroke((x, y0), (x, y1), 0.004, 0.004, Paint::flat([226, 224, 218]));
}

fn tree(c: &mut Canvas, r: &mut Random, x: f32, foot: f32, height: f32) {
    let green = r.pick(&[[70, 110, 56], [92, 128, 64], [58, 92, 60], [150, 120, 56]]);
    let leaves = r.near(green, 12.0);
    c.stroke(
        (x, foot),
        (x, foot - height * 0.55),
        height * 0.05,
        height * 0.035,
        Paint::lit([92, 72, 54]),
    );
    for _ in 0..9 {
        let (dx, dy) = (r.range(-0.26, 0.26) * height, r.range(-0.95, -0.5) * height);
        let size = r.range(0.13, 0.2) * height;
        c.ellipse(
            (x + dx, foot + dy),
            (size, size * 0.85),
            Paint::lit(r.near(leaves, 10.0)),
        );
    }
}

const WALLS: [Colour; 7] = [
    [188, 170, 148],
    [206, 196, 180],
    [168, 104, 84],
    [146, 158, 164],
    [214, 206, 178],
    [128, 140, 122],
    [180, 150, 150],
];

fn street(c: &mut Canvas, r: &mut Random, aspect: f32, horizon: f32) {
    sky(c, r, aspect, horizon);
    let mut x = r.range(-0.3, 0.0);
    while x < aspect {
        let (width, tall) = (r.range(0.28, 0.55), r.range(0.22, 0.42));
        let base = r.pick(&WALLS);
        let wall = r.near(base, 14.0);
        let top = horizon - tall;
        if r.chance(0.6) {
            c.polygon(
                &[
                    (x - 0.02, top),
                    (x + width * 0.5, top - r.range(0.06, 0.14)),
                    (x + width + 0.02, top),
                ],
                Paint::lit(r.pick(&[[132, 74, 58], [96, 92, 96], [110, 86, 70]])),
            );
        }
        c.rect(
            [x, top, x + width, horizon + 0.02],
            Paint::gradient(wall, scaled(wall, 0.88)),
        );
        let columns = 2 + r.below(2);
        for row in 0..2 {
            for column in 0..columns {
                let wx = x + width * (column as f32 + 0.5) / columns as f32;
                let wy = top + tall * (0.14 + 0.42 * row as f32);
                let lit = r.chance(0.2);
                window(c, [wx - 0.032, wy, wx + 0.032, wy + tall * 0.24], lit);
            }
        }
        x += width + r.range(0.0, 0.16);
    }
    for _ in 0..r.below(3) {
        let (x, height) = (r.range(0.0, aspect), r.range(0.25, 0.45));
        tree(c, r, x, horizon + 0.03, height);
    }
    let kerb = horizon + r.range(0.1, 0.16);
    c.rect(
        [0.0, horizon, aspect, kerb],
        Paint::gradient([158, 154, 148], [178, 174, 168]),
    );
    c.rect(
        [0.0, kerb, aspect, kerb + 0.016],
        Paint::flat([204, 202, 196]),
    );
    let asphalt = r.range(74.0, 110.0) as u8;
    c.rect(
        [0.0, kerb + 0.016, aspect, 1.0],
        Paint::gradient([asphalt; 3], scaled([asphalt; 3], 0.84)),
    );
    let line = r.range(0.84, 0.92);
    let mut x = r.range(-0.2, 0.0);
    while x < aspect {
        c.rect(
            [x, line, x + 0.16, line + 0.016],
            Paint::flat([206, 204, 190]),
        );
        x += 0.3;
    }
}

fn garden(c: &mut Canvas, r: &mut Random, aspect: f32, horizon: f32) {
    sky(c, r, aspect, horizon);
    let hill = r.near([112, 138, 112], 16.0);
    for _ in 0..4 {
        let x = r.range(0.0, aspect);
        let (rx, ry) = (r.range(0.3, 0.7), r.range(0.06, 0.16));
        c.ellipse((x, horizon), (rx, ry), Paint::lit(hill));
    }
    for _ in 0..1 + r.below(3) {
        let (x, height) = (r.range(0.0, aspect), r.range(0.3, 0.6));
        tree(c, r, x, horizon + 0.04, height);
    }
    if r.chance(0.6) {
        let wood = r.pick(&[[150, 118, 86], [206, 202, 194], [112, 96, 84]]);
        let (top, step) = (horizon - r.range(0.08, 0.16), r.range(0.05, 0.08));
        c.rect(
            [0.0, top + 0.03, aspect, top + 0.045],
            Paint::flat(scaled(wood, 0.8)),
        );
        let mut x = 0.0;
        while x < aspect {
            c.rect([x, top, x + step * 0.7, horizon + 0.03], Paint::lit(wood));
            x += step;
        }
    }
    let green = r.pick(&[[96, 142, 70], [122, 150, 78], [136, 138, 82], [84, 124, 72]]);
    let grass = r.near(green, 10.0);
    c.rect(
        [0.0, horizon + 0.02, aspect, 1.0],
        Paint::gradient(grass, scaled(grass, 0.76)),
    );
    if r.chance(0.5) {
        let (x, w) = (r.range(0.2, aspect - 0.2), r.range(0.05, 0.1));
        c.polygon(
            &[
                (x - w * 0.4, horizon + 0.02),
                (x + w * 0.4, horizon + 0.02),
                (x + w * 3.0, 1.0),
                (x - w * 3.0, 1.0),
            ],
            Paint::gradient([180, 168, 146], [196, 184, 160]),
        );
    }
    for _ in 0..6 + r.below(20) {
        let (x, y) = (r.range(0.0, aspect), r.range(horizon + 0.06, 0.98));
        let colour = r.pick(&[
            [232, 224, 120],
            [236, 236, 230],
            [206, 110, 140],
            [150, 120, 190],
        ]);
        let size = 0.003 + 0.008 * (y - horizon);
        c.ellipse((x, y), (size, size), Paint::flat(colour));
    }
}

fn porch(c: &mut Canvas, r: &mut Random, aspect: f32, horizon: f32) {
    let base = r.pick(&WALLS);
    let wall = r.near(base, 12.0);
    c.rect(
        [0.0, 0.0, aspect, horizon],
        Paint::gradient(wall, scaled(wall, 0.9)),
    );
    let board = r.range(0.045, 0.08);
    let mut y = board;
    while y < horizon {
        c.stroke(
            (0.0, y),
            (aspect, y),
            0.003,
            0.003,
            Paint::flat(scaled(wall, 0.8)),
        );
        y += board;
    }
    let door_x = r.range(0.15, aspect - 0.45);
    let door = r.pick(&[
        [120, 40, 40],
        [44, 76, 104],
        [62, 92, 66],
        [96, 70, 50],
        [220, 216, 206],
    ]);
    let (top, right) = (horizon - r.range(0.46, 0.56), door_x + r.range(0.24, 0.3));
    c.rect(
        [door_x - 0.025, top - 0.025, right + 0.025, horizon],
        Paint::flat([228, 226, 218]),
    );
    c.rect([door_x, top, right, horizon], Paint::lit(door));
    let middle = (door_x + right) * 0.5;
    for (x0, x1) in [
        (door_x + 0.03, middle - 0.012),
        (middle + 0.012, right - 0.03),
    ] {
        for (t0, t1) in [(0.08, 0.42), (0.52, 0.92)] {
            let h = horizon - top;
            c.rect(
                [x0, top + h * t0, x1, top + h * t1],
                Paint::lit(scaled(door, 0.84)),
            );
        }
    }
    c.ellipse(
        (right - 0.022, top + (horizon - top) * 0.52),
        (0.011, 0.011),
        Paint::lit([206, 180, 96]),
    );
    let x = if door_x > aspect * 0.4 {
        door_x - 0.5
    } else {
        right + 0.12
    };
    let (w, lit) = (r.range(0.24, 0.34), r.chance(0.3));
    window(c, [x, top + 0.03, x + w, top + 0.28], lit);
    let floor = r.pick(&[
        [150, 124, 98],
        [132, 128, 122],
        [170, 150, 126],
        [116, 92, 74],
    ]);
    boards(c, r, aspect, horizon, floor);
    if r.chance(0.6) {
        let w = (right - door_x) * 0.6;
        let mat = r.pick(&[[96, 72, 50], [70, 74, 78], [120, 60, 50]]);
        let (y0, y1) = (horizon + 0.05, horizon + 0.11);
        c.polygon(
            &[
                (middle - w * 0.9, y0),
                (middle + w * 0.9, y0),
                (middle + w * 1.08, y1),
                (middle - w * 1.08, y1),
            ],
            Paint::flat(mat),
        );
    }
    for _ in 0..r.below(3) {
        let x = r.range(0.05, aspect - 0.05);
        pot(c, r, x, horizon + 0.02);
    }
}

fn hall(c: &mut Canvas, r: &mut Random, aspect: f32, horizon: f32) {
    let paper = r.pick(&[
        [210, 202, 186],
        [176, 190, 186],
        [196, 180, 168],
        [160, 168, 184],
        [218, 212, 204],
    ]);
    let wall = r.near(paper, 10.0);
    c.rect(
        [0.0, 0.0, aspect, horizon],
        Paint::gradient(wall, scaled(wall, 0.93)),
    );
    c.rect(
        [0.0, horizon - 0.045, aspect, horizon],
        Paint::lit([226, 222, 214]),
    );
    for _ in 0..1 + r.below(3) {
        let (x, y) = (r.range(0.05, aspect - 0.3), r.range(0.08, 0.26));
        let (w, h) = (r.range(0.12, 0.26), r.range(0.1, 0.22));
        c.rect(
            [x - 0.012, y - 0.012, x + w + 0.012, y + h + 0.012],
            Paint::lit(r.pick(&[[84, 62, 44], [40, 40, 42], [200, 176, 120]])),
        );
        let (a, b) = (r.near([150, 160, 170], 70.0), r.near([110, 120, 90], 70.0));
        c.rect([x, y, x + w, y + h], Paint::gradient(a, b));
        c.ellipse(
            (x + w * r.range(0.3, 0.7), y + h * 0.7),
            (w * 0.18, h * 0.2),
            Paint::lit(r.near([150, 120, 100], 60.0)),
        );
    }
    let floor = r.pick(&[
        [164, 128, 92],
        [142, 136, 130],
        [186, 172, 150],
        [112, 84, 62],
    ]);
    boards(c, r, aspect, horizon, floor);
    for _ in 0..r.below(2) {
        let x = r.range(0.05, aspect - 0.05);
        pot(c, r, x, horizon + 0.04);
    }
    if r.chance(0.4) {
        let (x, rug) = (
            r.range(0.3, aspect - 0.3),
            r.pick(&[[140, 56, 52], [62, 82, 116], [170, 150, 110]]),
        );
        let (y0, y1) = (horizon + 0.1, horizon + 0.24);
        c.polygon(
            &[
                (x - 0.28, y0),
                (x + 0.28, y0),
                (x + 0.36, y1),
                (x - 0.36, y1),
            ],
            Paint::flat(rug),
        );
    }
}

/// A floor of boards that run towards the camera.
fn boards(c: &mut Canvas, r: &mut Random, aspect: f32, horizon: f32, colour: Colour) {
    let floor = r.near(colour, 10.0);
    c.rect(
        [0.0, horizon, aspect, 1.0],
        Paint::gradient(scaled(floor, 0.86), floor),
    );
    let (vanish, step) = (r.range(0.3, 0.7) * aspect, r.range(0.08, 0.16));
    let spread = r.range(2.2, 3.4);
    let mut x = -aspect * 2.0;
    while x < aspect * 3.0 {
        c.stroke(
            (vanish + (x - vanish) / spread * 1.0, horizon),
            (x, 1.0),
            0.0016,
            0.004,
            Paint::flat(scaled(floor, 0.74)),
        );
        x += step * spread * 0.5;
    }
}

fn pot(c: &mut Canvas, r: &mut Random, x: f32, foot: f32) {
    let size = r.range(0.05, 0.09);
    let green = r.near([74, 116, 62], 16.0);
    for _ in 0..9 {
        let (dx, dy) = (r.range(-1.1, 1.1) * size, r.range(-3.0, -1.6) * size);
        c.stroke(
            (x, foot - size),
            (x + dx, foot + dy),
            size * 0.08,
            size * 0.2,
            Paint::lit(scaled(green, r.range(0.75, 1.15))),
        );
    }
    let clay = r.pick(&[[174, 98, 70], [110, 110, 114], [206, 200, 190]]);
    c.polygon(
        &[
            (x - size * 0.7, foot - size * 1.2),
            (x + size * 0.7, foot - size * 1.2),
            (x + size * 0.5, foot),
            (x - size * 0.5, foot),
        ],
        Paint::lit(clay),
    );
}
