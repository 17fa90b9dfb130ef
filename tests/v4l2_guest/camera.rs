//! A camera of the library, open in the test itself.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ocellus::capture::{CaptureContext, CaptureSettings, Source, open};
use ocellus::clock::SystemClock;
use ocellus::frame::{Frame, FramePool};
use ocellus::shutdown::Shutdown;
use ocellus::stats::CameraStats;

/// How long a test waits for what must happen; it ends the test, it does not measure.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until `look` has something.
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "did not happen: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub fn context() -> CaptureContext {
    CaptureContext {
        camera: "porch".into(),
        pool: FramePool::default(),
        clock: Arc::new(SystemClock),
        shutdown: Shutdown::new(),
        stats: Arc::new(CameraStats::new("porch".into())),
    }
}

/// Opens it and takes `frames` good frames; returns the last, and how the source describes itself.
pub fn take(settings: &CaptureSettings, frames: usize) -> (Frame, String) {
    let mut source = open(settings, context()).unwrap();
    let last = good_frames(&mut *source, frames).pop().unwrap();
    (last, source.describe())
}

/// The next good frames; no bad one may come between.
pub fn good_frames(source: &mut dyn Source, frames: usize) -> Vec<Frame> {
    (0..frames).map(|_| source.next().unwrap()).collect()
}
