//! One flag that asks every thread to finish, and wakes those that sleep on it.
//!
//! Cloned freely; once triggered it stays so.

use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// The request to stop. All clones share one state.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    requested: Mutex<bool>,
    wake: Condvar,
}

impl Shutdown {
    /// Not yet requested.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks everybody to stop. Idempotent.
    pub fn request(&self) {
        *self.inner.requested.lock().unwrap() = true;
        self.inner.wake.notify_all();
    }

    /// Whether a stop was requested.
    pub fn is_requested(&self) -> bool {
        *self.inner.requested.lock().unwrap()
    }

    /// Sleeps for `duration` or until a stop is requested, whichever is first.
    /// Returns whether a stop was requested.
    pub fn sleep(&self, duration: Duration) -> bool {
        let deadline = Instant::now() + duration;
        let mut requested = self.inner.requested.lock().unwrap();
        while !*requested {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            requested = self.inner.wake.wait_timeout(requested, left).unwrap().0;
        }
        *requested
    }
}
