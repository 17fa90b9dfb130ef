//! What passes in front of the camera: people, cars, dogs, cats, birds and parcels.
//!
//! Each is drawn in units of its own height, feet at the origin, looking along +x; the canvas places it.

use super::canvas::{Canvas, Colour, Paint, scaled};
use super::random::{Random, wave};

/// A class of objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Person,
    Car,
    Dog,
    Cat,
    Bird,
    Parcel,
}

impl Kind {
    pub(super) const ALL: [Kind; 6] = [
        Self::Person,
        Self::Car,
        Self::Dog,
        Self::Cat,
        Self::Bird,
        Self::Parcel,
    ];

    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Person => "person",
            Self::Car => "car",
            Self::Dog => "dog",
            Self::Cat => "cat",
            Self::Bird => "bird",
            Self::Parcel => "parcel",
        }
    }
}

/// How an object is moving at this moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Motion {
    /// Steps made so far, in gait cycles; wheels and wings turn with it too.
    pub(super) gait: f32,
    /// 0 standing, 1 walking.
    pub(super) pace: f32,
    /// In the air (birds).
    pub(super) aloft: bool,
}

/// Draws one. `look` decides colours, build and pose: the same numbers, the same individual.
pub(super) fn draw(kind: Kind, canvas: &mut Canvas, look: Random, motion: Motion) {
    match kind {
        Kind::Person => person(canvas, look, motion),
        Kind::Car => car(canvas, look, motion),
        Kind::Dog => dog(canvas, look, motion),
        Kind::Cat => cat(canvas, look, motion),
        Kind::Bird => bird(canvas, look, motion),
        Kind::Parcel => parcel(canvas, look),
    }
}

const SKIN: [Colour; 6] = [
    [241, 205, 178],
    [224, 180, 148],
    [198, 146, 110],
    [160, 110, 78],
    [120, 80, 56],
    [88, 58, 42],
];
const HAIR: [Colour; 6] = [
    [40, 30, 26],
    [84, 58, 38],
    [128, 92, 54],
    [200, 166, 104],
    [150, 146, 142],
    [136, 60, 36],
];
const CLOTH: [Colour; 12] = [
    [190, 50, 46],
    [46, 84, 156],
    [58, 128, 78],
    [226, 190, 74],
    [232, 232, 226],
    [60, 60, 66],
    [128, 76, 140],
    [230, 128, 60],
    [100, 150, 186],
    [120, 90, 70],
    [214, 140, 160],
    [40, 60, 84],
];
const FUR: [Colour; 7] = [
    [62, 50, 44],
    [128, 88, 54],
    [196, 152, 100],
    [226, 208, 180],
    [120, 116, 114],
    [204, 124, 62],
    [44, 44, 48],
];

fn person(c: &mut Canvas, mut look: Random, m: Motion) {
    let skin = look.pick(&SKIN);
    let hair = look.pick(&HAIR);
    let (base_top, base_bottom) = (look.pick(&CLOTH), look.pick(&CLOTH));
    let top = look.near(base_top, 14.0);
    let trousers = scaled(base_bottom, 0.8);
    let build = look.range(0.85, 1.2);
    let (skirt, hat, bag, long_hair) = (
        look.chance(0.25),
        look.chance(0.25),
        look.chance(0.3),
        look.chance(0.4),
    );
    let swing = wave(m.gait) * m.pace;
    let bob = 0.012 * wave(2.0 * m.gait) * m.pace;
    let hip = (0.0, -0.48 + bob);
    let shoulder = (0.012 * m.pace, -0.77 + bob);

    let leg = |c: &mut Canvas, side: f32, shade: f32| {
        let s = side * swing;
        let stand = 0.035 * side * (1.0 - m.pace);
        let foot = (
            s * 0.15 + stand,
            -0.03 - 0.05 * (side * wave(m.gait + 0.25) * m.pace).max(0.0),
        );
        let knee = (s * 0.085 + stand + 0.02 * m.pace, -0.26 + bob);
        let p = Paint::flat(scaled(trousers, shade));
        c.stroke(hip, knee, 0.062 * build, 0.05 * build, p);
        c.stroke(knee, foot, 0.05 * build, 0.035, p);
        c.stroke(
            foot,
            (foot.0 + 0.055, foot.1 + 0.008),
            0.028,
            0.022,
            Paint::flat(scaled([70, 56, 50], shade)),
        );
    };
    let arm = |c: &mut Canvas, side: f32, shade: f32| {
        let s = -side * swing;
        let hang = 0.075 * side * (1.0 - m.pace) * build;
        let elbow = (shoulder.0 + s * 0.06 + hang, -0.61 + bob);
        let hand = (shoulder.0 + s * 0.15 + hang + 0.02, -0.47 + bob);
        let p = Paint::flat(scaled(top, shade));
        c.stroke(
            (shoulder.0 + hang * 0.6, shoulder.1 + 0.015),
            elbow,
            0.04 * build,
            0.034 * build,
            p,
        );
        c.stroke(elbow, hand, 0.034 * build, 0.026, p);
        c.ellipse(hand, (0.026, 0.028), Paint::flat(scaled(skin, shade)));
    };

    arm(c, -1.0, 0.7);
    leg(c, -1.0, 0.75);
    leg(c, 1.0, 1.0);
    if bag {
        c.ellipse(
            (shoulder.0 - 0.1 * build, -0.66 + bob),
            (0.07, 0.115),
            Paint::lit(scaled(base_bottom, 1.1)),
        );
    }
    if skirt {
        let (y0, y1) = (-0.52 + bob, -0.26 + bob);
        c.polygon(
            &[(-0.07, y0), (0.07, y0), (0.13, y1), (-0.13, y1)],
            Paint::lit(trousers),
        );
    }
    c.stroke(
        shoulder,
        (0.0, -0.52 + bob),
        0.092 * build,
        0.078 * build,
        Paint::lit(top),
    );
    arm(c, 1.0, 0.9);
    let head = (0.018 + shoulder.0, -0.905 + bob);
    c.stroke(
        (shoulder.0, -0.83 + bob),
        head,
        0.032,
        0.036,
        Paint::flat(scaled(skin, 0.85)),
    );
    if long_hair {
        c.stroke(
            (head.0 - 0.03, head.1),
            (head.0 - 0.05, head.1 + 0.12),
            0.05,
            0.035,
            Paint::flat(scaled(hair, 0.85)),
        );
    }
    c.ellipse(head, (0.058, 0.074), Paint::lit(skin));
    c.ellipse(
        (head.0 - 0.018, head.1 - 0.028),
        (0.056, 0.056),
        Paint::lit(hair),
    );
    if hat {
        c.ellipse(
            (head.0 - 0.004, head.1 - 0.045),
            (0.062, 0.046),
            Paint::lit(base_top),
        );
        c.stroke(
            (head.0, head.1 - 0.03),
            (head.0 + 0.08, head.1 - 0.026),
            0.014,
            0.01,
            Paint::flat(base_top),
        );
    }
}

fn car(c: &mut Canvas, mut look: Random, m: Motion) {
    let base = look.pick(&CLOTH);
    let body = look.near(base, 16.0);
    let length = look.range(2.25, 2.75);
    let shape = look.below(3);
    let tall = [1.0, 1.06, 1.2][shape];
    let l = length / 2.0;
    // Cabin: from rear to front, foot and roof.
    let [rear, roof_rear, roof_front, front] = match shape {
        0 => [-0.72 * l, -0.45 * l, 0.16 * l, 0.52 * l],
        1 => [-0.95 * l, -0.80 * l, 0.10 * l, 0.48 * l],
        _ => [-0.97 * l, -0.94 * l, 0.34 * l, 0.66 * l],
    };
    let (belt, roof) = (-0.56, -0.98 * tall);
    c.polygon(
        &[
            (rear, belt + 0.05),
            (roof_rear, roof),
            (roof_front, roof),
            (front, belt + 0.05),
        ],
        Paint::lit(body),
    );
    let glass = Paint::gradient([170, 196, 210], [70, 86, 98]);
    let (top, foot) = (roof + 0.07, belt - 0.01);
    let slope = |x0: f32, x1: f32, t: f32| x0 + (x1 - x0) * t;
    let middle = (roof_rear + roof_front) * 0.5;
    c.polygon(
        &[
            (slope(rear, roof_rear, 0.25) + 0.06, foot),
            (slope(rear, roof_rear, 0.95) + 0.06, top),
            (middle - 0.03, top),
            (middle - 0.03, foot),
        ],
        glass,
    );
    c.polygon(
        &[
            (middle + 0.03, foot),
            (middle + 0.03, top),
            (slope(front, roof_front, 0.95) - 0.05, top),
            (slope(front, roof_front, 0.2) - 0.07, foot),
        ],
        glass,
    );
    c.polygon(
        &[
            (-0.99 * l, -0.2),
            (-l, -0.42),
            (-0.95 * l, belt),
            (0.6 * l, belt),
            (0.93 * l, -0.48),
            (l, -0.36),
            (0.99 * l, -0.2),
        ],
        Paint::gradient(scaled(body, 1.1), scaled(body, 0.62)),
    );
    c.rect(
        [-0.97 * l, -0.25, 0.97 * l, -0.17],
        Paint::flat([48, 48, 50]),
    );
    c.stroke(
        (middle, -0.52),
        (middle, -0.26),
        0.008,
        0.008,
        Paint::flat(scaled(body, 0.5)),
    );
    c.stroke(
        (middle - 0.2, -0.46),
        (middle - 0.11, -0.46),
        0.014,
        0.014,
        Paint::flat(scaled(body, 0.45)),
    );
    c.ellipse(
        (0.94 * l, -0.42),
        (0.05, 0.045),
        Paint::flat([255, 246, 206]),
    );
    c.ellipse(
        (-0.965 * l, -0.45),
        (0.035, 0.06),
        Paint::flat([208, 30, 30]),
    );
    for x in [-0.62 * l, 0.62 * l] {
        c.ellipse((x, -0.2), (0.225, 0.225), Paint::flat([26, 26, 28]));
        c.ellipse((x, -0.19), (0.19, 0.19), Paint::flat([44, 44, 46]));
        c.ellipse((x, -0.19), (0.115, 0.115), Paint::lit([168, 170, 172]));
        for spoke in [0.0, 0.25] {
            let (u, v) = (
                0.09 * wave(m.gait + spoke),
                0.09 * wave(m.gait + spoke + 0.25),
            );
            c.stroke(
                (x - u, -0.19 - v),
                (x + u, -0.19 + v),
                0.018,
                0.018,
                Paint::flat([84, 86, 90]),
            );
        }
    }
}

/// Four legs, of which those of a pair swing against each other. `hips`: rear and front.
fn legs(c: &mut Canvas, hips: [(f32, f32); 2], thick: f32, fur: Colour, m: Motion, far: bool) {
    for (i, hip) in hips.into_iter().enumerate() {
        let turn = m.gait + if (i == 0) == far { 0.5 } else { 0.0 };
        let swing = wave(turn) * m.pace;
        let lift = 0.06 * wave(turn + 0.25).max(0.0) * m.pace;
        let aside = if far { 0.05 } else { 0.0 };
        let foot = (hip.0 + swing * 0.17 + aside, -0.035 - lift);
        let knee = (
            hip.0 + swing * 0.08 + aside + if i == 0 { -0.03 } else { 0.015 },
            hip.1 * 0.5,
        );
        let p = Paint::flat(scaled(fur, if far { 0.68 } else { 0.95 }));
        c.stroke((hip.0 + aside, hip.1), knee, thick * 1.5, thick, p);
        c.stroke(knee, foot, thick, thick * 0.75, p);
        c.stroke(
            foot,
            (foot.0 + thick, foot.1 + 0.008),
            thick * 0.8,
            thick * 0.7,
            p,
        );
    }
}

fn dog(c: &mut Canvas, mut look: Random, m: Motion) {
    let base = look.pick(&FUR);
    let fur = look.near(base, 12.0);
    let (ear, marked) = (scaled(fur, look.range(0.5, 0.8)), look.chance(0.5));
    let collar = look.pick(&CLOTH);
    let stout = look.range(0.85, 1.2);
    let wag = 0.08 * wave(m.gait * 2.0 + 0.1);
    let sitting = m.pace < 0.05 && look.chance(0.5);
    let (neck, head) = if sitting {
        let p = Paint::lit(fur);
        c.stroke((-0.3, -0.06), (-0.55, -0.05 + wag * 0.3), 0.05, 0.03, p);
        c.ellipse((-0.16, -0.19), (0.22, 0.19), p);
        c.stroke((-0.14, -0.26), (0.1, -0.62), 0.19 * stout, 0.14 * stout, p);
        for (x, shade) in [(0.17, 0.7), (0.1, 0.95)] {
            let p = Paint::flat(scaled(fur, shade));
            c.stroke((x, -0.5), (x + 0.03, -0.04), 0.065, 0.045, p);
            c.stroke((x + 0.03, -0.04), (x + 0.1, -0.03), 0.042, 0.035, p);
        }
        ((0.12, -0.66), (0.24, -0.86))
    } else {
        legs(c, [(-0.42, -0.5), (0.28, -0.5)], 0.048, fur, m, true);
        c.stroke(
            (-0.52, -0.66),
            (-0.78, -0.92 + wag),
            0.055,
            0.028,
            Paint::flat(scaled(fur, 0.9)),
        );
        c.stroke(
            (-0.42, -0.58),
            (0.3, -0.58),
            0.145 * stout,
            0.165 * stout,
            Paint::lit(fur),
        );
        legs(c, [(-0.46, -0.5), (0.3, -0.5)], 0.05, fur, m, false);
        ((0.36, -0.66), (0.54, -0.86))
    };
    let p = Paint::lit(fur);
    c.stroke(neck, head, 0.13, 0.105, p);
    c.stroke(
        (neck.0 + 0.04, neck.1 - 0.11),
        (neck.0 + 0.17, neck.1 - 0.0),
        0.022,
        0.022,
        Paint::flat(collar),
    );
    c.ellipse(head, (0.145, 0.125), p);
    let muzzle = if marked {
        scaled([236, 226, 210], 1.0)
    } else {
        fur
    };
    c.stroke(
        (head.0 + 0.07, head.1 + 0.035),
        (head.0 + 0.27, head.1 + 0.06),
        0.078,
        0.054,
        Paint::lit(muzzle),
    );
    c.ellipse(
        (head.0 + 0.31, head.1 + 0.035),
        (0.032, 0.03),
        Paint::flat([24, 22, 22]),
    );
    c.ellipse(
        (head.0 + 0.07, head.1 - 0.03),
        (0.022, 0.024),
        Paint::flat([24, 18, 16]),
    );
    c.stroke(
        (head.0 - 0.07, head.1 - 0.07),
        (head.0 - 0.1, head.1 + 0.13),
        0.07,
        0.05,
        Paint::lit(ear),
    );
}

fn cat(c: &mut Canvas, mut look: Random, m: Motion) {
    let base = look.pick(&FUR);
    let fur = look.near(base, 12.0);
    let stripe = scaled(fur, 0.62);
    let (striped, bib) = (look.chance(0.6), look.chance(0.4));
    let curl = 0.06 * wave(m.gait * 0.5 + 0.3);
    let sitting = m.pace < 0.05 && look.chance(0.6);
    let p = Paint::lit(fur);
    let head = if sitting {
        c.stroke((-0.2, -0.06), (-0.45, -0.08), 0.045, 0.042, p);
        c.stroke(
            (-0.45, -0.08),
            (-0.52, -0.26 + curl),
            0.042,
            0.036,
            Paint::flat(stripe),
        );
        c.ellipse((-0.02, -0.25), (0.25, 0.26), p);
        c.ellipse((0.02, -0.43), (0.17, 0.24), p);
        for x in [0.02, 0.12] {
            c.stroke(
                (x, -0.36),
                (x + 0.01, -0.04),
                0.05,
                0.042,
                Paint::flat(scaled(fur, 0.92)),
            );
        }
        (0.06, -0.72)
    } else {
        legs(c, [(-0.36, -0.4), (0.24, -0.4)], 0.038, fur, m, true);
        c.stroke((-0.44, -0.5), (-0.68, -0.58), 0.042, 0.04, p);
        c.stroke((-0.68, -0.58), (-0.78 + curl, -0.88), 0.04, 0.038, p);
        c.stroke(
            (-0.78 + curl, -0.88),
            (-0.68 + curl, -1.02),
            0.038,
            0.032,
            Paint::flat(stripe),
        );
        c.stroke((-0.36, -0.46), (0.26, -0.46), 0.125, 0.125, p);
        if striped {
            for x in [-0.3, -0.14, 0.02, 0.18] {
                c.stroke(
                    (x, -0.57),
                    (x + 0.02, -0.44),
                    0.02,
                    0.014,
                    Paint::flat(stripe),
                );
            }
        }
        legs(c, [(-0.4, -0.4), (0.26, -0.4)], 0.04, fur, m, false);
        c.stroke((0.28, -0.52), (0.4, -0.66), 0.1, 0.1, p);
        (0.44, -0.72)
    };
    for (x, shade) in [(-0.1, 0.75), (0.1, 0.95)] {
        let q = Paint::lit(scaled(fur, shade));
        c.polygon(
            &[
                (head.0 + x - 0.075, head.1 - 0.06),
                (head.0 + x * 1.15, head.1 - 0.28),
                (head.0 + x + 0.075, head.1 - 0.06),
            ],
            q,
        );
    }
    c.ellipse(head, (0.175, 0.15), p);
    if bib {
        c.ellipse(
            (head.0 + 0.05, head.1 + 0.07),
            (0.09, 0.06),
            Paint::flat([236, 230, 222]),
        );
    }
    if striped {
        c.stroke(
            (head.0, head.1 - 0.14),
            (head.0, head.1 - 0.07),
            0.014,
            0.01,
            Paint::flat(stripe),
        );
    }
    for x in [-0.045, 0.085] {
        c.ellipse(
            (head.0 + x, head.1 - 0.015),
            (0.03, 0.026),
            Paint::flat([188, 204, 86]),
        );
        c.ellipse(
            (head.0 + x + 0.006, head.1 - 0.015),
            (0.009, 0.024),
            Paint::flat([16, 16, 14]),
        );
    }
    c.ellipse(
        (head.0 + 0.03, head.1 + 0.045),
        (0.02, 0.014),
        Paint::flat([196, 120, 116]),
    );
}

const FEATHERS: [(Colour, Colour); 6] = [
    ([40, 42, 48], [52, 54, 62]),
    ([84, 120, 176], [228, 214, 180]),
    ([112, 84, 62], [206, 96, 58]),
    ([130, 134, 140], [186, 188, 190]),
    ([196, 176, 60], [230, 220, 130]),
    ([96, 80, 64], [188, 172, 148]),
];

fn bird(c: &mut Canvas, mut look: Random, m: Motion) {
    let (back, belly) = look.pick(&FEATHERS);
    let back = look.near(back, 10.0);
    let beak = look.pick(&[[226, 160, 50], [70, 64, 60]]);
    let plump = look.range(0.9, 1.15);
    let lit = Paint::lit(back);
    let (body, head) = if m.aloft {
        ((0.0, -0.5), (0.36, -0.58))
    } else {
        ((0.0, -0.46), (0.24, -0.8))
    };
    let flap = wave(m.gait);
    let wing = |c: &mut Canvas, side: f32, shade: f32| {
        let tip = (-0.24, body.1 - 0.1 - 0.62 * flap * side.abs());
        c.polygon(
            &[
                (-0.2, body.1 - 0.04),
                (0.2, body.1 - 0.06),
                (tip.0 + 0.2, tip.1 + 0.02),
                tip,
            ],
            Paint::lit(scaled(back, shade)),
        );
    };
    if m.aloft {
        wing(c, 0.85, 0.66);
        c.polygon(
            &[
                (-0.28, body.1 - 0.06),
                (-0.82, body.1 - 0.1),
                (-0.78, body.1 + 0.08),
                (-0.28, body.1 + 0.05),
            ],
            Paint::flat(scaled(back, 0.75)),
        );
        c.ellipse(body, (0.42, 0.17 * plump), Paint::gradient(back, belly));
        c.stroke((0.2, body.1 - 0.02), head, 0.13, 0.12, lit);
    } else {
        for x in [0.0, 0.09] {
            c.stroke(
                (x, -0.22),
                (x + 0.03, -0.02),
                0.02,
                0.016,
                Paint::flat(scaled(beak, 0.8)),
            );
            c.stroke(
                (x + 0.03, -0.02),
                (x + 0.12, -0.015),
                0.016,
                0.012,
                Paint::flat(scaled(beak, 0.8)),
            );
        }
        c.polygon(
            &[(-0.2, -0.42), (-0.72, -0.2), (-0.68, -0.1), (-0.16, -0.28)],
            Paint::flat(scaled(back, 0.72)),
        );
        c.stroke(
            (-0.16, -0.36),
            (0.12, -0.54),
            0.17 * plump,
            0.22 * plump,
            Paint::gradient(back, belly),
        );
        c.stroke(
            (-0.36, -0.3),
            (0.04, -0.52),
            0.05,
            0.12,
            Paint::flat(scaled(back, 0.8)),
        );
        c.stroke((0.14, -0.62), head, 0.15, 0.135, lit);
    }
    c.polygon(
        &[
            (head.0 + 0.1, head.1 - 0.05),
            (head.0 + 0.32, head.1 + 0.02),
            (head.0 + 0.1, head.1 + 0.06),
        ],
        Paint::flat(beak),
    );
    c.ellipse(head, (0.135, 0.125), lit);
    c.ellipse(
        (head.0 + 0.05, head.1 - 0.03),
        (0.026, 0.026),
        Paint::flat([16, 16, 18]),
    );
    if m.aloft {
        wing(c, 1.0, 0.88);
    }
}

fn parcel(c: &mut Canvas, mut look: Random) {
    let card = [
        [186, 140, 92],
        [170, 122, 78],
        [204, 164, 112],
        [222, 218, 208],
        [96, 122, 150],
    ];
    let base = look.pick(&card);
    let front = look.near(base, 10.0);
    let half = look.range(0.5, 0.85);
    let (depth, lift) = (look.range(0.2, 0.4), look.range(0.14, 0.26));
    let top = -1.0 + lift;
    let tape = look.pick(&[
        [216, 190, 140],
        [240, 236, 226],
        [60, 96, 170],
        [170, 60, 50],
    ]);
    let seam = look.range(-0.15, 0.15);
    c.polygon(
        &[
            (-half, top),
            (-half + depth, -1.0),
            (half + depth, -1.0),
            (half, top),
        ],
        Paint::flat(scaled(front, 1.13)),
    );
    c.polygon(
        &[
            (half, top),
            (half + depth, -1.0),
            (half + depth, -lift),
            (half, 0.0),
        ],
        Paint::flat(scaled(front, 0.68)),
    );
    c.rect(
        [-half, top, half, 0.0],
        Paint::gradient(front, scaled(front, 0.86)),
    );
    let w = 0.07;
    c.polygon(
        &[
            (seam - w, top),
            (seam - w + depth, -1.0),
            (seam + w + depth, -1.0),
            (seam + w, top),
        ],
        Paint::flat(scaled(tape, 1.05)),
    );
    c.rect([seam - w, top, seam + w, top + 0.24], Paint::flat(tape));
    if look.chance(0.75) {
        let (x, y) = (look.range(0.12, 0.2), look.range(-0.42, -0.34));
        c.rect([x, y, x + 0.26, y + 0.2], Paint::flat([240, 240, 236]));
        for i in 0..3 {
            let ly = y + 0.05 + 0.05 * i as f32;
            c.rect(
                [x + 0.03, ly, x + 0.22, ly + 0.018],
                Paint::flat([70, 70, 74]),
            );
        }
    }
}
