//! A token bucket: bursts pass, floods do not. Pure.

use std::time::{Duration, Instant};

/// How much passes: `burst` at once, `per_second` in the long run.
#[derive(Debug)]
pub struct Limit {
    burst: f64,
    per_second: f64,
    tokens: f64,
    since: Option<Instant>,
}

impl Limit {
    /// A whole burst passes at first.
    pub fn new(burst: f64, per_second: f64) -> Self {
        Self {
            tokens: burst,
            ..Self::empty(burst, per_second)
        }
    }

    /// Nothing passes at first.
    pub fn empty(burst: f64, per_second: f64) -> Self {
        Self {
            burst,
            per_second,
            tokens: 0.0,
            since: None,
        }
    }

    /// Whether one more passes now.
    pub fn pass(&mut self, now: Instant) -> bool {
        self.refill(now);
        self.take()
    }

    /// What passes later counts from now on.
    pub fn refill(&mut self, now: Instant) {
        let passed = self
            .since
            .map_or(Duration::ZERO, |t| now.saturating_duration_since(t));
        self.since = Some(now);
        self.tokens = (self.tokens + passed.as_secs_f64() * self.per_second).min(self.burst);
    }

    /// Whether one more passes of what there was at the last [`refill`](Self::refill).
    pub fn take(&mut self) -> bool {
        let passes = self.tokens >= 1.0;
        if passes {
            self.tokens -= 1.0;
        }
        passes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_a_flood_is_held_to_the_rate() {
        let mut limit = Limit::new(20.0, 5.0);
        let start = Instant::now();
        let passed = (0..1000u32).filter(|_| limit.pass(start)).count();
        assert_eq!(passed, 20);
        let passed = (0..1000u32)
            .filter(|i| limit.pass(start + Duration::from_millis((i * 10).into())))
            .count();
        assert!((49..=51).contains(&passed), "{passed}");
    }
}
