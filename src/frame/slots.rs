//! One slot a camera, holding its newest frame.
//!
//! The newest frame wins and the loser is handed back to the caller to count, so the age of a frame that is
//! taken stays below one frame period plus one inference, however overloaded the board is.

use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

use super::Frame;

/// The slots of all cameras that share a worker pool. Written by capture threads, emptied by inference threads.
#[derive(Debug)]
pub struct LatestSlots {
    state: Mutex<State>,
    filled: Condvar,
    emptied: Condvar,
}

#[derive(Debug)]
struct State {
    slots: Vec<Option<Frame>>,
    closed: bool,
}

/// What [`LatestSlots::take`] found.
#[derive(Debug)]
pub enum Taken {
    /// The frame that waited longest, and the index of its camera.
    Frame(usize, Frame),
    /// Nothing came within the time given.
    TimedOut,
    /// No more frames will come, and none is left.
    Closed,
}

impl LatestSlots {
    /// Slots for `cameras` cameras, addressed by index.
    pub fn new(cameras: usize) -> Self {
        let state = State {
            slots: (0..cameras).map(|_| None).collect(),
            closed: false,
        };
        Self {
            state: Mutex::new(state),
            filled: Condvar::new(),
            emptied: Condvar::new(),
        }
    }

    /// Puts a camera's newest frame; returns the one that it replaces, never looked at.
    pub fn put(&self, camera: usize, frame: Frame) -> Option<Frame> {
        let mut state = self.state.lock().unwrap();
        if state.closed {
            return Some(frame);
        }
        let replaced = state.slots[camera].replace(frame);
        drop(state);
        self.filled.notify_one();
        replaced
    }

    /// Takes the frame that waited longest (fair between cameras), waiting up to `timeout` for one.
    pub fn take(&self, timeout: Duration) -> Taken {
        let deadline = Instant::now() + timeout;
        let mut state = self.state.lock().unwrap();
        loop {
            let oldest = (0..state.slots.len())
                .filter_map(|i| state.slots[i].as_ref().map(|f| (f.meta.captured_at, i)))
                .min();
            if let Some((_, camera)) = oldest {
                let frame = state.slots[camera]
                    .take()
                    .expect("the slot was just seen full");
                self.emptied.notify_all();
                return Taken::Frame(camera, frame);
            }
            if state.closed {
                return Taken::Closed;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Taken::TimedOut;
            }
            state = self.filled.wait_timeout(state, left).unwrap().0;
        }
    }

    /// Waits until this camera's last frame was taken; `false` if it was not within `timeout`.
    /// For sources that lose nothing: files played once.
    pub fn wait_empty(&self, camera: usize, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        let mut state = self.state.lock().unwrap();
        while state.slots[camera].is_some() && !state.closed {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = self.emptied.wait_timeout(state, left).unwrap().0;
        }
        true
    }

    /// No more frames: wakes every waiting worker. Frames already here can still be taken.
    pub fn close(&self) {
        self.state.lock().unwrap().closed = true;
        self.filled.notify_all();
        self.emptied.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::super::{FrameMeta, FramePool, Geometry, PixelFormat};
    use super::*;
    use std::sync::Arc;
    use std::time::SystemTime;

    fn frame(sequence: u64, at: Instant) -> Frame {
        Frame {
            format: PixelFormat::Grey,
            geometry: Geometry::packed(1, 1, PixelFormat::Grey),
            data: FramePool::default().take(),
            meta: FrameMeta {
                camera: Arc::from("c"),
                sequence,
                captured_at: at,
                wall_time: SystemTime::UNIX_EPOCH,
                truth: None,
            },
            mask: None,
        }
    }

    #[test]
    fn the_newest_wins_and_the_longest_waiting_goes_first() {
        let slots = LatestSlots::new(2);
        let t = Instant::now();
        assert!(slots.put(0, frame(1, t)).is_none());
        assert!(
            slots
                .put(1, frame(2, t + Duration::from_millis(1)))
                .is_none()
        );
        let lost = slots
            .put(0, frame(3, t + Duration::from_millis(2)))
            .unwrap();
        assert_eq!(lost.meta.sequence, 1);
        let mut order = vec![];
        while let Taken::Frame(camera, f) = slots.take(Duration::ZERO) {
            order.push((camera, f.meta.sequence));
        }
        assert_eq!(order, [(1, 2), (0, 3)]);
    }

    #[test]
    fn closing_lets_the_last_frames_out_and_wakes_the_waiting() {
        let slots = Arc::new(LatestSlots::new(1));
        slots.put(0, frame(1, Instant::now()));
        let s = slots.clone();
        let worker = std::thread::spawn(move || {
            let first = matches!(s.take(Duration::from_secs(10)), Taken::Frame(0, _));
            first && matches!(s.take(Duration::from_secs(10)), Taken::Closed)
        });
        assert!(slots.wait_empty(0, Duration::from_secs(10)));
        slots.close();
        assert!(worker.join().unwrap());
        assert!(slots.put(0, frame(2, Instant::now())).is_some());
    }
}
