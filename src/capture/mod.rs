//! Cameras: anything that gives frames, behind [`Source`].
//!
//! In: a [`CaptureSettings`]. Out: [`Frame`]s, as the camera gave them, put into
//! [`LatestSlots`](crate::frame::LatestSlots) by the supervisor. Each source lives on its own thread
//! `capture-<camera>`. Always holds: a bad frame is skipped and counted, never passed on, never a panic; a lost
//! device is reopened with back-off; no call outlasts a requested shutdown by more than a second.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::frame::{CameraId, Frame, FrameBuf, FrameMeta, FramePool, Geometry, PixelFormat};
use crate::shutdown::Shutdown;
use crate::stats::CameraStats;

mod device;
#[cfg(unix)]
mod exec;
mod files;
#[cfg(any(all(target_os = "linux", feature = "v4l2"), test))]
mod identity;
pub mod mjpeg;
#[cfg(any(all(target_os = "linux", feature = "v4l2"), test))]
mod negotiate;
#[cfg(feature = "nokhwa")]
mod nokhwa;
pub mod scene;
#[cfg(any(all(target_os = "linux", feature = "v4l2"), test))]
mod sequence;
mod spec;
pub mod supervisor;
#[cfg(all(target_os = "linux", feature = "v4l2"))]
mod v4l;

pub use device::{Device, DeviceFormat, DeviceSize, FrameRate, devices, no_such_camera};
pub use spec::{SourceSpec, SpecError};
pub use supervisor::Supervisor;

/// The longest that a source waits before it looks whether a stop was requested.
const TURN: Duration = Duration::from_millis(250);

/// Opens a camera. One that is missing is [`CaptureError::Lost`]: it may come.
pub fn open(
    settings: &CaptureSettings,
    context: CaptureContext,
) -> Result<Box<dyn Source>, CaptureError> {
    opener(settings.clone(), context)()
}

/// Opens a camera again and again. It remembers what the camera was, so as to find it under another number.
pub type Opener = Box<dyn FnMut() -> Result<Box<dyn Source>, CaptureError> + Send>;

/// An [`Opener`] for these settings. Adding a kind of camera is a file and an arm here.
pub fn opener(settings: CaptureSettings, context: CaptureContext) -> Opener {
    match settings.source.clone() {
        #[cfg(all(target_os = "linux", feature = "v4l2"))]
        SourceSpec::V4l2 { device } => {
            let mut finder = v4l::Finder::new(device);
            Box::new(move || Ok(Box::new(finder.open(&settings, context.clone())?)))
        }
        #[cfg(not(all(target_os = "linux", feature = "v4l2")))]
        SourceSpec::V4l2 { .. } => missing(
            "`v4l2:` needs Linux and the cargo feature `v4l2`; use `nokhwa:` or `exec:` here",
        ),
        #[cfg(feature = "nokhwa")]
        SourceSpec::Nokhwa { index } => Box::new(move || {
            Ok(Box::new(nokhwa::NokhwaSource::open(
                index,
                &settings,
                context.clone(),
            )?))
        }),
        #[cfg(not(feature = "nokhwa"))]
        SourceSpec::Nokhwa { .. } => missing(
            "this program was built without `nokhwa:` cameras; build it with `--features nokhwa`, or on Linux use \
             `v4l2:`",
        ),
        #[cfg(unix)]
        SourceSpec::Exec { command } => Box::new(move || {
            Ok(Box::new(exec::ExecSource::open(
                &command,
                &settings,
                context.clone(),
            )?))
        }),
        #[cfg(not(unix))]
        SourceSpec::Exec { .. } => missing("`exec:` needs a Unix system"),
        SourceSpec::Files { pattern } => Box::new(move || {
            Ok(Box::new(files::FilesSource::open(
                &pattern,
                &settings,
                context.clone(),
            )?))
        }),
        SourceSpec::Scene { .. } => Box::new(move || {
            Ok(Box::new(scene::SceneSource::open(
                &settings,
                context.clone(),
            )?))
        }),
    }
}

/// A kind of camera that this build has not.
#[allow(dead_code)]
fn missing(why: &'static str) -> Opener {
    Box::new(move || Err(CaptureError::Invalid(why.into())))
}

/// Held while a program is started, and while a device is open but not yet marked as not to be inherited.
#[cfg(unix)]
fn spawn_guard() -> std::sync::MutexGuard<'static, ()> {
    static SPAWN: std::sync::Mutex<()> = std::sync::Mutex::new(());
    SPAWN.lock().unwrap_or_else(|e| e.into_inner())
}

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

impl CaptureContext {
    /// A frame received now.
    fn frame(
        &self,
        format: PixelFormat,
        geometry: Geometry,
        data: FrameBuf,
        sequence: u64,
    ) -> Frame {
        Frame {
            format,
            geometry,
            data,
            meta: FrameMeta {
                camera: self.camera.clone(),
                sequence,
                captured_at: self.clock.now(),
                wall_time: self.clock.wall(),
                truth: None,
            },
            mask: None,
        }
    }

    #[cfg(test)]
    fn for_tests(camera: &str) -> Self {
        let camera: CameraId = camera.into();
        Self {
            stats: Arc::new(CameraStats::new(camera.clone())),
            camera,
            pool: FramePool::default(),
            clock: Arc::new(crate::clock::SystemClock),
            shutdown: Shutdown::new(),
        }
    }
}
