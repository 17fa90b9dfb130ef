//! Progress of every thread, so that the service's watchdog is fed only while all of them move.
//!
//! Each thread holds a [`Heartbeat`] and beats once a turn of its loop; [`Watchdog::stalled`] names those that
//! have been silent for longer than they said they ever would be. A missing camera or broker is no stall: the
//! thread that waits for it goes on turning.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// All heartbeats of the process. Cloning shares them.
#[derive(Debug, Clone)]
pub struct Watchdog {
    start: Instant,
    hearts: Arc<Mutex<Vec<Arc<Heart>>>>,
}

#[derive(Debug)]
struct Heart {
    name: String,
    max_silence: Duration,
    last_ms: AtomicU64,
    ended: AtomicBool,
}

/// One thread's sign of life. Dropping it says that the thread ended on purpose.
#[derive(Debug)]
pub struct Heartbeat {
    start: Instant,
    heart: Arc<Heart>,
}

impl Default for Watchdog {
    fn default() -> Self {
        Self {
            start: Instant::now(),
            hearts: Arc::default(),
        }
    }
}

impl Watchdog {
    /// Watches a thread that beats at least every `max_silence`.
    pub fn register(&self, name: impl Into<String>, max_silence: Duration) -> Heartbeat {
        let heart = Arc::new(Heart {
            name: name.into(),
            max_silence,
            last_ms: AtomicU64::new(self.start.elapsed().as_millis() as u64),
            ended: AtomicBool::new(false),
        });
        let mut hearts = self.hearts.lock().unwrap();
        hearts.retain(|h| !h.ended.load(Relaxed));
        hearts.push(heart.clone());
        Heartbeat {
            start: self.start,
            heart,
        }
    }

    /// The threads that have been silent for too long.
    pub fn stalled(&self) -> Vec<String> {
        let now = self.start.elapsed();
        let hearts = self.hearts.lock().unwrap();
        let silent = |h: &Heart| now.saturating_sub(Duration::from_millis(h.last_ms.load(Relaxed)));
        hearts
            .iter()
            .filter(|h| !h.ended.load(Relaxed) && silent(h) > h.max_silence)
            .map(|h| h.name.clone())
            .collect()
    }
}

impl Heartbeat {
    /// This thread made progress.
    pub fn beat(&self) {
        self.heart
            .last_ms
            .store(self.start.elapsed().as_millis() as u64, Relaxed);
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        // A thread that panics has not ended on purpose.
        if !std::thread::panicking() {
            self.heart.ended.store(true, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_thread_is_named_and_an_ended_one_is_not() {
        let dog = Watchdog::default();
        let quick = dog.register("infer-0", Duration::ZERO);
        let _slow = dog.register("io", Duration::from_secs(3600));
        std::thread::sleep(Duration::from_millis(5));
        assert_eq!(dog.stalled(), ["infer-0"]);
        drop(quick);
        assert!(dog.stalled().is_empty());
    }

    #[test]
    fn a_panicked_thread_stays_stalled() {
        let dog = Watchdog::default();
        let heart = dog.register("infer-0", Duration::ZERO);
        let _ = std::thread::spawn(move || {
            let _heart = heart;
            panic!("on purpose");
        })
        .join();
        std::thread::sleep(Duration::from_millis(5));
        assert_eq!(dog.stalled(), ["infer-0"]);
    }
}
