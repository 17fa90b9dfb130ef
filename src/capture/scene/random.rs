//! Random numbers that are the same on every architecture, and smooth periodic motion without libm.

/// Streams of numbers that must not depend on each other.
#[derive(Debug, Clone, Copy)]
pub(super) enum Stream {
    Place = 1,
    Order,
    Visit,
    Light,
    Gain,
    Noise,
    NoiseRow,
}

/// SplitMix64.
#[derive(Debug, Clone)]
pub(super) struct Random(u64);

impl Random {
    /// The numbers of the scene `seed`, stream `stream`, element `index`.
    pub(super) fn new(seed: u64, stream: Stream, index: u64) -> Self {
        let mut r = Self(seed ^ (stream as u64).wrapping_mul(0xd1b5_4a32_d192_ed03));
        r.0 = r.next().wrapping_add(index);
        r.0 = r.next();
        r
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// 0 ≤ x < 1, on a grid of 2⁻²⁴ so that the float is exact.
    pub(super) fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / 16_777_216.0
    }

    pub(super) fn range(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.unit()
    }

    pub(super) fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    pub(super) fn chance(&mut self, p: f32) -> bool {
        self.unit() < p
    }

    pub(super) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// `base`, each channel moved by up to `spread`.
    pub(super) fn near(&mut self, base: [u8; 3], spread: f32) -> [u8; 3] {
        base.map(|c| (c as f32 + self.range(-spread, spread)) as u8)
    }
}

/// A sine in all but name: period 1, between −1 and 1, made of two parabolas.
pub(super) fn wave(turns: f32) -> f32 {
    let t = turns - turns.floor();
    let half = |u: f32| 16.0 * u * (0.5 - u);
    if t < 0.5 { half(t) } else { -half(t - 0.5) }
}

/// 0 at 0, 1 at 1, level at both ends.
pub(super) fn smooth(t: f32) -> f32 {
    let t = t.clamp(0.0, 1.0);
    t * t * (3.0 - 2.0 * t)
}
