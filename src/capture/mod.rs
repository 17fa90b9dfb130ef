//! Cameras: anything that gives frames, behind [`Source`].
//!
//! In: a [`CaptureSettings`]. Out: [`Frame`]s, as the camera gave them, put into
//! [`LatestSlots`](crate::frame::LatestSlots) by the supervisor. Each source lives on its own thread
//! `capture-<camera>`. Always holds: a bad frame is skipped and counted, never passed on, never a panic; a lost
//! device is reopened with back-off; no call outlasts a requested shutdown by more than a second.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::frame::{CameraId, Frame, FramePool, PixelFormat};
use crate::shutdown::Shutdown;
use crate::stats::CameraStats;

pub mod scene;
mod spec;

pub use spec::{SourceSpec, SpecError};

/// An open camera.
pub trait Source: Send {
    /// The next frame; blocks until it is there. Returns [`CaptureError::Stopped`] within a second of a
    /// shutdown, and [`CaptureError::Lost`] when the device gives nothing for the settings' time-out.
    fn next(&mut self) -> Result<Frame, CaptureError>;

    /// What was negotiated, for logs and people: `mjpeg 1280x720 at 30 fps`.
    fn describe(&self) -> String;

    /// Whether the source waits until each frame was taken, so that none is ever overwritten
    /// (files played once); cameras do not wait.
    fn lossless(&self) -> bool {
        false
    }
}

/// Why there is no frame. The variant says what the caller can do.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// This frame is bad: skip it, count it, go on.
    #[error("bad frame: {0}")]
    Skip(String),
    /// The device is gone, wedged or ended: close it, back off, open it again.
    #[error("{0}")]
    Lost(String),
    /// No more frames will come: everything was played.
    #[error("end of stream")]
    Ended,
    /// A shutdown was requested.
    #[error("stopped")]
    Stopped,
    /// The settings can never work (a path that is no image, a format the program cannot read): stop the start.
    #[error("{0}")]
    Invalid(String),
}

/// How a camera is to be opened.
#[derive(Debug, Clone, PartialEq)]
pub struct CaptureSettings {
    /// Which camera.
    pub source: SourceSpec,
    /// Wanted width and height in pixels; the best affordable if `None`. Required for raw `exec` frames.
    pub size: Option<(u32, u32)>,
    /// Wanted frames a second.
    pub fps: Option<f64>,
    /// Wanted pixel format; `exec` reads MJPEG if `None`.
    pub format: Option<PixelFormat>,
    /// A device that gives no frame for so long is lost.
    pub timeout: Duration,
    /// Files: play again from the start for ever.
    pub repeat: bool,
}

impl CaptureSettings {
    /// Defaults for a source: nothing asked for, five seconds of patience.
    pub fn new(source: SourceSpec) -> Self {
        Self {
            source,
            size: None,
            fps: None,
            format: None,
            timeout: Duration::from_secs(5),
            repeat: false,
        }
    }
}

/// What every source is given when it is opened.
#[derive(Debug, Clone)]
pub struct CaptureContext {
    /// The camera's id, for frames and logs.
    pub camera: CameraId,
    /// Where frame buffers come from.
    pub pool: FramePool,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// The request to stop.
    pub shutdown: Shutdown,
    /// The camera's counters (`device_gaps` is counted by the source; the supervisor counts the rest).
    pub stats: Arc<CameraStats>,
}
