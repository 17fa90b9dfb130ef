//! `nokhwa:` — cameras through the platform's own API: macOS, Windows, and a fallback on Linux.
//!
//! In: a camera index. Out: [`Frame`]s. On a thread `nokhwa-<camera>` of its own, since its API waits without a
//! time-out; `capture-<camera>` takes frames from it with one. Always holds: what is wished is the nearest that the
//! platform offers; at most one frame waits between the two threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use nokhwa::Camera;
use nokhwa::utils::{CameraFormat, CameraIndex, FrameFormat, RequestedFormat, RequestedFormatType};

use super::{CaptureContext, CaptureError, CaptureSettings, Source, TURN, mjpeg};
use crate::frame::{Frame, FrameBuf, Geometry, PixelFormat};

/// In the order in which they are preferred where no format is wished.
const FORMATS: [(FrameFormat, PixelFormat); 6] = [
    (FrameFormat::NV12, PixelFormat::Nv12),
    (FrameFormat::YUYV, PixelFormat::Yuyv),
    (FrameFormat::MJPEG, PixelFormat::Mjpeg),
    (FrameFormat::RAWRGB, PixelFormat::Rgb24),
    (FrameFormat::RAWBGR, PixelFormat::Bgr24),
    (FrameFormat::GRAY, PixelFormat::Grey),
];

/// An open camera of the platform.
pub struct NokhwaSource {
    frames: Receiver<Result<Raw, String>>,
    thread: Option<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
    description: String,
    sequence: u64,
    timeout: Duration,
    context: CaptureContext,
}

struct Raw {
    format: PixelFormat,
    width: u32,
    height: u32,
    data: FrameBuf,
}

impl NokhwaSource {
    /// Opens the camera of this index.
    pub fn open(
        index: u32,
        settings: &CaptureSettings,
        context: CaptureContext,
    ) -> Result<Self, CaptureError> {
        let lost = |why: &str| CaptureError::Lost(format!("nokhwa:{index}: {why}"));
        let stop = Arc::new(AtomicBool::new(false));
        let (frames_in, frames) = bounded(1);
        let (opened_in, opened) = bounded(1);
        let thread = {
            let (settings, context, stop) = (settings.clone(), context.clone(), stop.clone());
            std::thread::Builder::new()
                .name(format!("nokhwa-{}", context.camera))
                .spawn(move || match start(index, &settings) {
                    Ok((camera, description)) => {
                        let _ = opened_in.send(Ok(description));
                        deliver(camera, &context, &stop, &frames_in);
                    }
                    Err(why) => {
                        let _ = opened_in.send(Err(why));
                    }
                })
                .map_err(|e| lost(&e.to_string()))?
        };
        let mut source = Self {
            frames,
            thread: Some(thread),
            stop,
            description: String::new(),
            sequence: 0,
            timeout: settings.timeout,
            context,
        };
        source.description = source.receive(&opened)?.map_err(|why| lost(&why))?;
        Ok(source)
    }

    /// Waits for the other thread up to the time-out, minding a stop.
    fn receive<T>(&self, channel: &Receiver<T>) -> Result<T, CaptureError> {
        let deadline = Instant::now() + self.timeout;
        loop {
            if self.context.shutdown.is_requested() {
                return Err(CaptureError::Stopped);
            }
            match channel.recv_timeout(TURN) {
                Ok(value) => return Ok(value),
                Err(RecvTimeoutError::Timeout) if Instant::now() < deadline => {}
                Err(RecvTimeoutError::Timeout) => {
                    let timeout = self.timeout;
                    return Err(CaptureError::Lost(format!("no frame for {timeout:?}")));
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(CaptureError::Lost("the camera's thread ended".into()));
                }
            }
        }
    }
}

impl Source for NokhwaSource {
    fn next(&mut self) -> Result<Frame, CaptureError> {
        let raw = self.receive(&self.frames)?.map_err(CaptureError::Lost)?;
        let sequence = self.sequence;
        self.sequence += 1;
        let mut geometry = Geometry::packed(raw.width, raw.height, raw.format);
        match raw.format.frame_bytes(raw.height, geometry.stride_bytes) {
            None => {
                (geometry.width, geometry.height) =
                    mjpeg::inspect(&raw.data).map_err(|why| CaptureError::Skip(why.into()))?;
            }
            Some(expected) if raw.data.len() < expected => {
                let got = raw.data.len();
                return Err(CaptureError::Skip(format!(
                    "truncated frame: {got} of {expected} bytes"
                )));
            }
            Some(_) => {}
        }
        Ok(self.context.frame(raw.format, geometry, raw.data, sequence))
    }

    fn describe(&self) -> String {
        self.description.clone()
    }
}

impl Drop for NokhwaSource {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        // A thread that the platform never lets go is left behind rather than waited for.
        let deadline = Instant::now() + Duration::from_secs(1);
        if let Some(thread) = self.thread.take() {
            while !thread.is_finished() && Instant::now() < deadline {
                let _ = self.frames.recv_timeout(Duration::from_millis(10));
            }
            if thread.is_finished() {
                let _ = thread.join();
            }
        }
    }
}

fn start(index: u32, settings: &CaptureSettings) -> Result<(Camera, String), String> {
    let known = FORMATS.map(|(theirs, _)| theirs);
    let wished = FORMATS.iter().find(|(_, f)| Some(*f) == settings.format);
    let (width, height) = settings.size.unwrap_or((640, 480));
    let fps = settings.fps.unwrap_or(30.0).round().clamp(1.0, 1000.0) as u32;
    let index = CameraIndex::Index(index);
    let order = wished
        .into_iter()
        .chain(&FORMATS)
        .map(|(theirs, _)| *theirs);
    let mut last = "no format that can be read".to_string();
    for format in order {
        let near = CameraFormat::new_from(width, height, format, fps);
        let request = RequestedFormat::with_formats(RequestedFormatType::Closest(near), &known);
        let opened = Camera::new(index.clone(), request)
            .and_then(|mut camera| camera.open_stream().map(|()| camera));
        match opened {
            Ok(camera) => {
                let description = format!("{} ({})", camera.camera_format(), camera.info());
                return Ok((camera, description));
            }
            Err(e) => last = e.to_string(),
        }
    }
    Err(last)
}

fn deliver(
    mut camera: Camera,
    context: &CaptureContext,
    stop: &AtomicBool,
    frames: &Sender<Result<Raw, String>>,
) {
    while !stop.load(Relaxed) {
        let result = match camera.frame() {
            Ok(buffer) => {
                let theirs = buffer.source_frame_format();
                let Some((_, format)) = FORMATS.iter().find(|(f, _)| *f == theirs) else {
                    continue;
                };
                let mut data = context.pool.take();
                data.extend_from_slice(buffer.buffer());
                Ok(Raw {
                    format: *format,
                    width: buffer.resolution().width(),
                    height: buffer.resolution().height(),
                    data,
                })
            }
            Err(e) => Err(e.to_string()),
        };
        let failed = result.is_err();
        if frames.send(result).is_err() || failed {
            return;
        }
    }
}
