//! The scene itself: what happens when, in what light, and what is true of it.
//!
//! Time is counted in frames, 15 to a second of the scene. It is divided into visits of [`VISIT_FRAMES`]: one object
//! comes, stays or passes, and goes. In each round of six visits every class comes once; each round is at another
//! place.

use super::canvas::{Canvas, Paint};
use super::objects::{self, Kind, Motion};
use super::places::Place;
use super::random::{Random, Stream, smooth, wave};
use crate::frame::{Truth, TruthObject};

/// The classes, in the order in which models number them. The first means that nothing is there.
pub const CLASSES: [&str; 7] = ["empty", "person", "car", "dog", "cat", "bird", "parcel"];

/// Frames from one object's time to the next one's.
pub const VISIT_FRAMES: u64 = 90;

/// Visits at one place.
const ROUND: u64 = Kind::ALL.len() as u64;

/// An object is the picture's class when at least this share of its bounding box is in the picture.
const SEEN: f32 = 0.5;

/// A picture is `empty` when no more than this share of an object's bounding box is in it.
const UNSEEN: f32 = 0.05;

/// Length of the period of the noise.
const NOISE_PERIOD: usize = 1 << 16;

/// Standard deviation of the noise table's values.
const NOISE_UNIT: f32 = 37.0;

/// A synthetic scene. The same seed, size and frame index give the same bytes, on every machine and in any order.
#[derive(Debug)]
pub struct Scene {
    seed: u64,
    width: usize,
    height: usize,
    noise: Vec<i8>,
    background: Option<(u64, Vec<u8>)>,
}

/// The light and the camera's answer to it.
#[derive(Debug, Clone, Copy)]
struct Light {
    /// 0 night, 1 day.
    day: f32,
    /// Factor for each channel.
    gain: [f32; 3],
    /// Added near the lamp, as a factor.
    lamp: f32,
    /// Standard deviation of the noise, in 8-bit steps.
    noise: f32,
}

/// One object's time in front of the camera.
#[derive(Debug, Clone)]
struct Visit {
    kind: Kind,
    look: Random,
    /// First and last frame, from the start of its visit.
    from: f32,
    until: f32,
    /// How long it takes to come to its place, and to leave it.
    enters: f32,
    leaves: f32,
    way: Way,
    /// Height in picture heights.
    size: f32,
    /// Where its feet are, in picture heights from the top.
    foot: f32,
    /// Where it stays, in picture heights from the left.
    stays_at: f32,
    /// 1: comes from the left. −1: from the right.
    heading: f32,
    /// Goes back to where it came from.
    returns: bool,
    /// Height at which birds fly.
    sky: f32,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Way {
    /// From one side to the other.
    Passes,
    /// Comes from a side, stays, goes.
    Stays,
    /// Put down from above, later taken away (parcels).
    Dropped,
}

/// Where an object is, and how it moves.
struct Pose {
    x: f32,
    y: f32,
    facing: f32,
    motion: Motion,
}

impl Scene {
    /// The scene of `seed`, drawn at `width × height` pixels.
    pub fn new(seed: u64, width: u32, height: u32) -> Self {
        let (width, height) = (width as usize, height as usize);
        let mut r = Random::new(seed, Stream::Noise, 0);
        // Each value is the sum of four uniform ones, near enough to a normal distribution.
        let noise = (0..NOISE_PERIOD + width * 3)
            .map(|_| {
                let bits = r.next();
                (0..4)
                    .map(|i| ((bits >> (16 * i)) & 63) as i32 - 32)
                    .sum::<i32>() as i8
            })
            .collect();
        Self {
            seed,
            width,
            height,
            noise,
            background: None,
        }
    }

    /// Draws frame `index` into `out` as packed RGB24, replacing what was there, and says what it shows.
    ///
    /// [`Truth::objects`] has the object's bounding box, clipped to the picture, if more than a twentieth of it can be
    /// seen. [`Truth::label`] is its class if at least half can be seen, `empty` if no more than a twentieth
    /// can, and `None` between: on its way in or out, what a picture shows is a matter of opinion.
    pub fn render(&mut self, index: u64, out: &mut Vec<u8>) -> Truth {
        let (slot, frame) = (index / VISIT_FRAMES, (index % VISIT_FRAMES) as f32);
        let place = Place::new(self.seed, slot / ROUND);
        let aspect = self.width as f32 / self.height as f32;
        out.clear();
        out.extend_from_slice(self.background(slot / ROUND, &place, aspect));

        let light = self.light(index, &place);
        let visit = self.visit(slot, &place, aspect);
        let mut canvas = Canvas::new(out, self.width, self.height);
        let bounds = visit.draw(&mut canvas, frame, aspect, light.day);
        self.expose(out, index, light);
        truth(visit.kind, bounds, self.width as f32, self.height as f32)
    }

    fn background(&mut self, round: u64, place: &Place, aspect: f32) -> &[u8] {
        if self.background.as_ref().is_none_or(|(r, _)| *r != round) {
            let mut pixels = self.background.take().map(|(_, p)| p).unwrap_or_default();
            pixels.clear();
            pixels.resize(self.width * self.height * 3, 0);
            let mut canvas = Canvas::new(&mut pixels, self.width, self.height);
            place.draw(&mut canvas, aspect, self.height);
            self.background = Some((round, pixels));
        }
        self.background.as_ref().map_or(&[], |(_, p)| p)
    }

    /// The hour moves from visit to visit; the camera's gain wanders within a few hundredths.
    fn light(&self, index: u64, place: &Place) -> Light {
        let hour = |slot: u64| {
            Random::new(self.seed, Stream::Light, slot).pick(&[1.0, 1.0, 0.8, 0.6, 0.3, 0.0])
        };
        let slot = index / VISIT_FRAMES;
        let t = smooth((index % VISIT_FRAMES) as f32 / VISIT_FRAMES as f32);
        let day = hour(slot) + (hour(slot + 1) - hour(slot)) * t;

        const STEP: u64 = 24;
        let drift = |i: u64| Random::new(self.seed, Stream::Gain, i).range(-0.06, 0.06);
        let t = smooth((index % STEP) as f32 / STEP as f32);
        let wander = drift(index / STEP) * (1.0 - t) + drift(index / STEP + 1) * t;

        let (dark, bright) = if place.kind.indoors() {
            (0.45, 0.95)
        } else {
            (0.28, 1.05)
        };
        let level = (dark + (bright - dark) * day) * (1.0 + wander);
        // Evening is warm, night is blue, lamps indoors are warm.
        let evening = (1.0 - (day - 0.45).abs() * 2.2).max(0.0);
        let night = (1.0 - day * 2.0).max(0.0);
        let tint = if place.kind.indoors() {
            [1.0 + 0.08 * night, 1.0, 1.0 - 0.16 * night]
        } else {
            [
                1.0 + 0.12 * evening - 0.16 * night,
                1.0 - 0.04 * evening - 0.06 * night,
                1.0 - 0.18 * evening + 0.10 * night,
            ]
        };
        Light {
            day,
            gain: tint.map(|t| t * level),
            lamp: 0.5 * (1.0 - day),
            noise: 1.5 + 5.0 * (1.0 - day),
        }
    }

    /// Light, lamp and noise, over the whole picture: 16-bit integers, of which the compiler makes SIMD.
    fn expose(&self, pixels: &mut [u8], index: u64, light: Light) {
        let (w, h) = (self.width as f32, self.height as f32);
        let mut r = Random::new(self.seed, Stream::Light, !(index / (VISIT_FRAMES * ROUND)));
        let (lamp_x, lamp_y) = (r.range(0.2, 0.8), r.range(0.1, 0.5));
        let fall_off = |d: f32| 1.0 / (1.0 + 9.0 * d * d);
        // Gains have 15 fractional bits and stay below 2; lit pixels have 6, which the noise dithers away.
        let fixed = |gain: f32| (gain * 32_768.0).clamp(0.0, 65_535.0) as u16;
        let base: Vec<u16> = (0..self.width * 3)
            .map(|i| {
                let edge = (i / 3) as f32 / w - 0.5;
                fixed(light.gain[i % 3] * (1.0 - 0.35 * edge * edge))
            })
            .collect();
        let lamp: Vec<u16> = (0..self.width * 3)
            .map(|i| {
                let warm = [1.1, 0.95, 0.7][i % 3];
                fixed(light.lamp * warm * fall_off((i / 3) as f32 / w - lamp_x))
            })
            .collect();
        let strength = (light.noise / NOISE_UNIT * 64.0 + 0.5) as i16;
        for (y, row) in pixels.chunks_exact_mut(self.width * 3).enumerate() {
            let near = (fall_off(y as f32 / h - lamp_y) * 65_535.0) as u32;
            let start = Random::new(
                self.seed,
                Stream::NoiseRow,
                index.wrapping_mul(65_536).wrapping_add(y as u64),
            )
            .below(NOISE_PERIOD);
            let noise = &self.noise[start..start + row.len()];
            for (((p, n), b), l) in row.iter_mut().zip(noise).zip(&base).zip(&lamp) {
                let gain = b.saturating_add(((*l as u32 * near) >> 16) as u16);
                let lit = (((*p as u16) << 7) as u32 * gain as u32) >> 16;
                let noisy = (lit as i16).saturating_add(*n as i16 * strength);
                *p = (noisy >> 6).clamp(0, 255) as u8;
            }
        }
    }

    fn visit(&self, slot: u64, place: &Place, aspect: f32) -> Visit {
        // Each class once a round, in an order of the round's own.
        let mut order = Kind::ALL;
        let mut r = Random::new(self.seed, Stream::Order, slot / ROUND);
        for i in (1..order.len()).rev() {
            order.swap(i, r.below(i + 1));
        }
        let kind = order[(slot % ROUND) as usize];

        let mut r = Random::new(self.seed, Stream::Visit, slot);
        let (smallest, largest) = match kind {
            Kind::Person => (0.48, 0.82),
            // Where no road leads, cars are toys.
            Kind::Car if !place.kind.has_cars() => (0.16, 0.23),
            Kind::Car => (0.24, 0.38),
            Kind::Dog => (0.26, 0.44),
            Kind::Cat => (0.24, 0.38),
            Kind::Bird => (0.19, 0.32),
            Kind::Parcel => (0.16, 0.32),
        };
        let near = r.unit();
        let size = smallest + (largest - smallest) * near;
        // What is near is large and low in the picture.
        let depth = (near * 0.7 + r.unit() * 0.3).clamp(0.0, 1.0);
        let far = place.horizon + 0.1;
        let way = match kind {
            Kind::Parcel if r.chance(0.6) => Way::Dropped,
            Kind::Car if r.chance(0.7) => Way::Passes,
            Kind::Parcel => Way::Stays,
            _ if r.chance(0.4) => Way::Passes,
            _ => Way::Stays,
        };
        Visit {
            kind,
            from: r.range(6.0, 18.0),
            until: r.range(74.0, 86.0),
            enters: r.range(10.0, 18.0),
            leaves: r.range(8.0, 16.0),
            way,
            size,
            foot: far + (0.97 - far) * depth,
            stays_at: aspect * r.range(0.22, 0.78),
            heading: r.pick(&[1.0, -1.0]),
            returns: r.chance(0.4),
            sky: r.range(0.25, 0.5),
            look: r,
        }
    }
}

impl Visit {
    /// Draws the object as it is at `frame`; returns its bounding box in pixels, not clipped.
    fn draw(&self, canvas: &mut Canvas, frame: f32, aspect: f32, day: f32) -> Option<[f32; 4]> {
        if frame < self.from || frame > self.until {
            return None;
        }
        let pose = self.pose(frame, aspect);
        let above = (self.foot - pose.y).max(0.0);
        let shadow = (0.16 + 0.2 * day) / (1.0 + 6.0 * above);
        canvas.place(pose.x, self.foot, self.size, pose.facing);
        canvas.ellipse(
            (0.0, 0.0),
            (self.half_width() * 0.9, 0.055),
            Paint::flat([20, 20, 26]).see_through(shadow),
        );
        canvas.place(pose.x, pose.y, self.size, pose.facing);
        objects::draw(self.kind, canvas, self.look.clone(), pose.motion);
        canvas.bounds()
    }

    /// In units of its height.
    fn half_width(&self) -> f32 {
        match self.kind {
            Kind::Person => 0.25,
            Kind::Car => 1.4,
            Kind::Dog | Kind::Cat => 0.85,
            Kind::Bird => 0.8,
            Kind::Parcel => 1.1,
        }
    }

    fn pose(&self, frame: f32, aspect: f32) -> Pose {
        let (x, y) = self.position(frame, aspect);
        let (next, _) = self.position(frame + 1.0, aspect);
        let speed = (next - x) / self.size;
        let moving = speed.abs() > 0.004;
        let facing = match moving {
            true if speed < 0.0 => -1.0,
            true => 1.0,
            false => self.heading,
        };
        let stride = match self.kind {
            Kind::Person => 0.62,
            Kind::Dog | Kind::Cat => 1.0,
            _ => 1.3,
        };
        let aloft = self.kind == Kind::Bird && y < self.foot - 0.01;
        let gait = match self.kind {
            Kind::Bird => frame * 0.23,
            // Standing animals still move a little.
            _ if !moving => frame * 0.03,
            _ => x * facing / (self.size * stride),
        };
        let pace = if self.kind == Kind::Car {
            1.0
        } else {
            (speed.abs() * 30.0).min(1.0)
        };
        Pose {
            x,
            y,
            facing,
            motion: Motion { gait, pace, aloft },
        }
    }

    /// Where its feet are at `frame`, in picture heights.
    fn position(&self, frame: f32, aspect: f32) -> (f32, f32) {
        let margin = self.half_width() * self.size;
        let (left, right) = (-margin, aspect + margin);
        let (start, end) = if self.heading > 0.0 {
            (left, right)
        } else {
            (right, left)
        };
        let end = if self.returns { start } else { end };
        let flies = self.kind == Kind::Bird;
        // 0 away, 1 there.
        let come = ((frame - self.from) / self.enters).clamp(0.0, 1.0);
        let come = come * (2.0 - come);
        let go = ((frame - (self.until - self.leaves)) / self.leaves).clamp(0.0, 1.0);
        let go = go * go;
        match self.way {
            Way::Passes => {
                let t = ((frame - self.from) / (self.until - self.from)).clamp(0.0, 1.0);
                let across = if self.heading > 0.0 {
                    (left, right)
                } else {
                    (right, left)
                };
                let y = if flies {
                    self.sky + 0.05 * wave(t * 1.5)
                } else {
                    self.foot
                };
                (across.0 + (across.1 - across.0) * t, y)
            }
            Way::Stays => {
                let x = if go > 0.0 {
                    self.stays_at + (end - self.stays_at) * go
                } else {
                    start + (self.stays_at - start) * come
                };
                let air = if go > 0.0 { go } else { 1.0 - come };
                let y = if flies {
                    self.foot + (self.sky - self.foot) * air
                } else {
                    self.foot
                };
                (x, y)
            }
            Way::Dropped => {
                let up = if go > 0.0 { go } else { 1.0 - come };
                (self.stays_at, self.foot * (1.0 - up) - 0.02 * up)
            }
        }
    }
}

/// What a picture of `width × height` pixels shows, given the object's unclipped bounding box.
fn truth(kind: Kind, bounds: Option<[f32; 4]>, width: f32, height: f32) -> Truth {
    let empty = Truth {
        label: Some(CLASSES[0].into()),
        objects: Vec::new(),
    };
    let Some([x0, y0, x1, y1]) = bounds else {
        return empty;
    };
    let [a, b, c, d] = [x0.max(0.0), y0.max(0.0), x1.min(width), y1.min(height)];
    let whole = ((x1 - x0) * (y1 - y0)).max(1.0);
    let seen = (c - a).max(0.0) * (d - b).max(0.0) / whole;
    if seen <= UNSEEN {
        return empty;
    }
    Truth {
        label: (seen >= SEEN).then(|| kind.label().into()),
        objects: vec![TruthObject {
            label: kind.label().into(),
            bbox: [a / width, b / height, c / width, d / height],
        }],
    }
}
