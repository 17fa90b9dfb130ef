//! `scene:` — a synthetic camera, drawn by the program.
//!
//! In: a seed. Out: frames of a place where people, cars, dogs, cats, birds and parcels come and go, through day and
//! night, with the truth about each. On the thread `capture-<camera>`. Always holds: the same seed, size and frame
//! index give the same bytes on every architecture (integers, and floats that are only added, multiplied, divided and
//! rooted); the demo's model is trained on these frames and on no others.

mod canvas;
mod convert;
mod objects;
mod places;
mod random;
mod world;

use std::sync::Arc;
use std::time::{Duration, Instant};

pub use world::{CLASSES, Scene, VISIT_FRAMES};

use super::{CaptureContext, CaptureError, CaptureSettings, Source, SourceSpec};
use crate::frame::{Frame, FrameMeta, Geometry, PixelFormat};

/// Rate at which the scene moves as in life.
pub const DEFAULT_FPS: f64 = 15.0;

/// Size of the frames if none is asked for.
pub const DEFAULT_SIZE: (u32, u32) = (640, 480);

/// The camera of a [`Scene`]: frame after frame, paced by the clock, from index 0.
///
/// The scene's time is counted in frames, so at 30 fps everything happens twice as fast. A program that asks too late
/// gets the next frame at once; none is left out.
#[derive(Debug)]
pub struct SceneSource {
    scene: Scene,
    context: CaptureContext,
    format: PixelFormat,
    geometry: Geometry,
    fps: f64,
    period: Duration,
    due: Instant,
    index: u64,
    rgb: Vec<u8>,
}

impl SceneSource {
    /// Opens the camera: 640×480 RGB24 at 15 fps where the settings ask for nothing else.
    ///
    /// # Errors
    ///
    /// [`CaptureError::Invalid`]: another kind of source, MJPEG, a size outside 16×16 to 4096×4096, a rate outside
    /// 0.1 to 1000 fps.
    pub fn open(settings: &CaptureSettings, context: CaptureContext) -> Result<Self, CaptureError> {
        let invalid = |problem: String| {
            Err(CaptureError::Invalid(format!(
                "{}: {problem}",
                settings.source
            )))
        };
        let SourceSpec::Scene { seed } = settings.source else {
            return invalid("not a scene; write scene:SEED".into());
        };
        let (width, height) = settings.size.unwrap_or(DEFAULT_SIZE);
        if !(16..=4096).contains(&width) || !(16..=4096).contains(&height) {
            return invalid(format!(
                "size {width}x{height} is not between 16x16 and 4096x4096"
            ));
        }
        let fps = settings.fps.unwrap_or(DEFAULT_FPS);
        if !(0.1..=1000.0).contains(&fps) {
            return invalid(format!("{fps} fps is not between 0.1 and 1000"));
        }
        let format = settings.format.unwrap_or(PixelFormat::Rgb24);
        if format == PixelFormat::Mjpeg {
            return invalid(
                "the scene is not compressed; ask for rgb24, bgr24, grey, yuyv, uyvy, nv12 or yu12"
                    .into(),
            );
        }
        Ok(Self {
            scene: Scene::new(seed, width, height),
            format,
            geometry: Geometry::packed(width, height, format),
            fps,
            period: Duration::from_secs_f64(1.0 / fps),
            due: context.clock.now(),
            index: 0,
            rgb: Vec::new(),
            context,
        })
    }

    /// Sleeps until the next frame is due.
    fn wait(&mut self) -> Result<(), CaptureError> {
        // A simulated clock moves while nobody sleeps: look at it often.
        const LOOK: Duration = Duration::from_millis(20);
        loop {
            let left = self.due.saturating_duration_since(self.context.clock.now());
            if left.is_zero() {
                break;
            }
            if self.context.shutdown.sleep(left.min(LOOK)) {
                return Err(CaptureError::Stopped);
            }
        }
        if self.context.shutdown.is_requested() {
            return Err(CaptureError::Stopped);
        }
        // After a stall the rhythm starts anew; no burst makes up for it.
        self.due = (self.due + self.period).max(self.context.clock.now());
        Ok(())
    }
}

impl Source for SceneSource {
    fn next(&mut self) -> Result<Frame, CaptureError> {
        self.wait()?;
        let (width, height) = (self.geometry.width as usize, self.geometry.height as usize);
        let mut data = self.context.pool.take();
        let truth = if self.format == PixelFormat::Rgb24 {
            self.scene.render(self.index, &mut data)
        } else {
            let truth = self.scene.render(self.index, &mut self.rgb);
            convert::from_rgb24(&self.rgb, width, height, self.format, &mut data);
            truth
        };
        let sequence = self.index;
        self.index += 1;
        Ok(Frame {
            format: self.format,
            geometry: self.geometry,
            data,
            meta: FrameMeta {
                camera: self.context.camera.clone(),
                sequence,
                captured_at: self.context.clock.now(),
                wall_time: self.context.clock.wall(),
                truth: Some(Arc::new(truth)),
            },
            mask: None,
        })
    }

    fn describe(&self) -> String {
        let Geometry { width, height, .. } = self.geometry;
        format!(
            "{} {width}x{height} at {} fps, drawn",
            self.format, self.fps
        )
    }
}
