//! A captured image as the camera gave it, and where it waits for inference.
//!
//! In: bytes from a driver, a pipe or a file. Out: [`Frame`]s, taken from [`LatestSlots`] by the
//! inference thread. Always holds: a buffer returns to its [`FramePool`] when its frame is dropped;
//! a frame is never decoded here.

mod format;
pub mod mask;
mod pool;
mod slots;

use std::sync::Arc;
use std::time::{Instant, SystemTime};

pub use format::{PixelFormat, UnknownPixelFormat};
pub use mask::Mask;
pub use pool::{FrameBuf, FramePool};
pub use slots::{LatestSlots, Taken};

/// A camera's id as configured (`[a-zA-Z0-9_-]+`); shared, cheap to clone.
pub type CameraId = Arc<str>;

/// Width, height and stride of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Geometry {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Bytes from the start of one row of the first plane to the next; 0 for compressed formats.
    pub stride_bytes: u32,
}

impl Geometry {
    /// A geometry whose rows follow each other without padding.
    pub fn packed(width: u32, height: u32, format: PixelFormat) -> Self {
        Self {
            width,
            height,
            stride_bytes: format.packed_stride(width),
        }
    }
}

/// Where and when a frame was captured.
#[derive(Debug, Clone)]
pub struct FrameMeta {
    /// The camera it came from.
    pub camera: CameraId,
    /// The driver's sequence number (or the source's own count); gaps are frames that the device lost.
    pub sequence: u64,
    /// Monotonic time at which the capture thread received it.
    pub captured_at: Instant,
    /// Wall time at which the capture thread received it.
    pub wall_time: SystemTime,
    /// What the picture shows, where its source knows: the `scene` camera, files named by class.
    pub truth: Option<Arc<Truth>>,
}

impl Frame {
    /// The same picture in a buffer of another pool.
    pub fn copy(&self, pool: &FramePool) -> Self {
        let mut data = pool.take();
        data.extend_from_slice(&self.data);
        Self {
            format: self.format,
            geometry: self.geometry,
            data,
            meta: self.meta.clone(),
            mask: self.mask.clone(),
        }
    }
}

impl FrameMeta {
    /// A picture that no camera took, received now.
    pub fn of_still(name: &str) -> Self {
        Self {
            camera: name.into(),
            sequence: 0,
            captured_at: Instant::now(),
            wall_time: SystemTime::now(),
            truth: None,
        }
    }
}

/// What a frame is known to show.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Truth {
    /// The class of the whole picture, as the source names it.
    pub label: Option<String>,
    /// The objects in the picture.
    pub objects: Vec<TruthObject>,
}

/// One object of a [`Truth`].
#[derive(Debug, Clone, PartialEq)]
pub struct TruthObject {
    /// The object's class.
    pub label: String,
    /// `[x0, y0, x1, y1]`, 0 to 1 of the frame.
    pub bbox: [f32; 4],
}

/// One captured image, as the camera gave it. Its bytes return to the pool on drop.
#[derive(Debug)]
pub struct Frame {
    /// How the bytes are to be read.
    pub format: PixelFormat,
    /// Size and stride. For MJPEG the size is the negotiated one; the JPEG's header has the last word.
    pub geometry: Geometry,
    /// The bytes: exactly those that the device wrote (`bytesused`), never the whole mapping.
    pub data: FrameBuf,
    /// Where and when.
    pub meta: FrameMeta,
    /// Of an MJPEG frame: what becomes black when the bytes become pixels. Raw frames are black there already
    /// ([`apply_mask`](crate::preprocess::apply_mask)).
    pub mask: Option<Arc<Mask>>,
}
