//! Time behind a trait, so that tests can simulate it.
//!
//! Monotonic time ([`Instant`]) orders and measures; wall time only labels.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

/// A source of monotonic and wall time. Cheap to share between threads.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// Monotonic time: orders and measures.
    fn now(&self) -> Instant;
    /// Wall time: labels only; it may jump.
    fn wall(&self) -> SystemTime;
}

/// The system's clock.
#[derive(Debug, Default, Clone, Copy)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Instant {
        Instant::now()
    }
    fn wall(&self) -> SystemTime {
        SystemTime::now()
    }
}

/// Anything from 0 to 1, for waits that must not end for everybody at once. The standard library seeds each `RandomState`
/// anew: randomness enough for that.
pub fn jitter() -> f64 {
    let random = RandomState::new().build_hasher().finish();
    random as f64 / u64::MAX as f64
}

/// A clock that moves only when told to. For tests.
#[derive(Debug, Clone)]
pub struct SimulatedClock {
    start: Instant,
    wall_start: SystemTime,
    elapsed: Arc<Mutex<Duration>>,
}

impl SimulatedClock {
    /// A clock standing at `wall_start`.
    pub fn new(wall_start: SystemTime) -> Self {
        Self {
            start: Instant::now(),
            wall_start,
            elapsed: Arc::default(),
        }
    }

    /// Moves time forward.
    pub fn advance(&self, by: Duration) {
        *self.elapsed.lock().unwrap() += by;
    }
}

impl Clock for SimulatedClock {
    fn now(&self) -> Instant {
        self.start + *self.elapsed.lock().unwrap()
    }
    fn wall(&self) -> SystemTime {
        self.wall_start + *self.elapsed.lock().unwrap()
    }
}

/// `2026-11-23T17:34:14.083Z`: RFC 3339 in UTC, milliseconds.
pub fn rfc3339_ms(t: SystemTime) -> String {
    // Out of jiff's range (years beyond ±9999) a broken RTC is the only cause: the epoch says so.
    let ts = jiff::Timestamp::try_from(t).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    format!("{ts:.3}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wall_time_is_rfc3339_with_milliseconds() {
        let t = SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_455_254_083);
        assert_eq!(rfc3339_ms(t), "2026-11-23T17:34:14.083Z");
        assert_eq!(
            rfc3339_ms(SystemTime::UNIX_EPOCH),
            "1970-01-01T00:00:00.000Z"
        );
    }
}
