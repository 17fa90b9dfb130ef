//! A box that moves: where it will be, from where it was.
//!
//! A Kalman filter with constant velocity for the centre and the size. Its noise is proportional to the box's own size, and alike
//! on no two axes: so the joint filter falls apart into four of two states, exactly.

use crate::task::detect::BBox;

/// How much a detector's boxes jitter, in parts of the box's size (standard deviation).
const JITTER: f64 = 0.06;
/// How fast the unknown may be, in box sizes a second,
const SPEED: f64 = 3.0;
/// and how much that changes within a second.
const SPEED_CHANGE: f64 = 1.5;
/// Sizes change this much slower than places.
const SIZE_RATIO: f64 = 0.15;
/// Nothing gets smaller, in parts of the frame.
const SMALLEST: f64 = 1e-3;

/// Position and velocity on one axis, and their covariance.
#[derive(Debug, Clone, Copy)]
struct Axis {
    x: f64,
    v: f64,
    pxx: f64,
    pxv: f64,
    pvv: f64,
}

impl Axis {
    fn new(x: f64, jitter: f64, speed: f64) -> Self {
        Self {
            x,
            v: 0.0,
            pxx: jitter * jitter,
            pxv: 0.0,
            pvv: speed * speed,
        }
    }

    /// White noise of the acceleration, of spectral density `change`².
    fn predict(&mut self, dt: f64, change: f64) {
        let q = change * change;
        self.x += self.v * dt;
        self.pxx += dt * (2.0 * self.pxv + dt * self.pvv) + q * dt.powi(3) / 3.0;
        self.pxv += dt * self.pvv + q * dt * dt / 2.0;
        self.pvv += q * dt;
    }

    fn correct(&mut self, measured: f64, jitter: f64) {
        let s = self.pxx + jitter * jitter;
        let (kx, kv) = (self.pxx / s, self.pxv / s);
        let error = measured - self.x;
        self.x += kx * error;
        self.v += kv * error;
        self.pvv -= kv * self.pxv;
        self.pxv *= 1.0 - kx;
        self.pxx *= 1.0 - kx;
    }
}

/// Centre x, centre y, width, height.
#[derive(Debug, Clone, Copy)]
pub(super) struct MovingBox([Axis; 4]);

fn measured(b: &BBox) -> [f64; 4] {
    let (x, y) = b.centre();
    [x, y, b.x1 - b.x0, b.y1 - b.y0].map(f64::from)
}

impl MovingBox {
    pub fn new(b: &BBox) -> Self {
        let m = measured(b);
        let size = [m[2], m[3], m[2], m[3]];
        Self(std::array::from_fn(|i| {
            let ratio = if i < 2 { 1.0 } else { SIZE_RATIO };
            Axis::new(m[i], JITTER * size[i], SPEED * ratio * size[i])
        }))
    }

    fn size(&self) -> [f64; 4] {
        let (w, h) = (self.0[2].x, self.0[3].x);
        [w, h, w, h]
    }

    pub fn predict(&mut self, dt: f64) {
        let size = self.size();
        for (i, axis) in self.0.iter_mut().enumerate() {
            let ratio = if i < 2 { 1.0 } else { SIZE_RATIO };
            axis.predict(dt, SPEED_CHANGE * ratio * size[i]);
        }
        self.floor();
    }

    pub fn correct(&mut self, b: &BBox) {
        let size = self.size();
        for ((axis, m), size) in self.0.iter_mut().zip(measured(b)).zip(size) {
            axis.correct(m, JITTER * size);
        }
        self.floor();
    }

    /// What is out of sight keeps its size.
    pub fn unseen(&mut self) {
        self.0[2].v = 0.0;
        self.0[3].v = 0.0;
    }

    fn floor(&mut self) {
        for axis in &mut self.0[2..] {
            axis.x = axis.x.max(SMALLEST);
        }
    }

    /// May reach beyond the frame.
    pub fn bbox(&self) -> BBox {
        let [x, y, w, h] = self.0.map(|a| a.x);
        BBox {
            x0: (x - w / 2.0) as f32,
            y0: (y - h / 2.0) as f32,
            x1: (x + w / 2.0) as f32,
            y1: (y + h / 2.0) as f32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_motion_is_learnt_and_foretold() {
        let at = |t: f32| {
            let x = 0.1 + 0.2 * t;
            BBox {
                x0: x,
                y0: 0.4,
                x1: x + 0.1,
                y1: 0.7,
            }
        };
        let mut moving = MovingBox::new(&at(0.0));
        for n in 1..=10 {
            moving.predict(0.1);
            moving.correct(&at(0.1 * n as f32));
        }
        moving.predict(1.0);
        assert!(moving.bbox().iou(&at(2.0)) > 0.9, "{:?}", moving.bbox());
    }

    /// The first correction is the weighted mean of what was foretold and what was measured.
    #[test]
    fn variances_add_up() {
        let mut a = Axis::new(0.0, 1.0, 0.0);
        a.correct(1.0, 1.0);
        assert_eq!((a.x, a.pxx), (0.5, 0.5));
        let mut a = Axis::new(0.0, 1.0, 2.0);
        a.predict(1.0, 0.0);
        assert_eq!((a.pxx, a.pxv, a.pvv), (5.0, 4.0, 4.0));
        a.correct(6.0, 1.0);
        assert_eq!((a.x, a.v), (5.0, 4.0));
    }
}
