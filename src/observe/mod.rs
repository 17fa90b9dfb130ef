//! What was seen: the observation of one frame, and the smoothed state of a camera.
//!
//! In: task results. Out: [`Observation`]s, shared with every sink. On the `infer-<n>` threads.

pub mod crops;
mod follow;
pub mod sequence;
mod smoothing;
mod tally;
pub mod track;
pub mod zones;

pub use follow::{Followed, Follower};
pub use sequence::{Sequence, Sequences};
pub use smoothing::{Smoother, SmoothingSettings};
pub use tally::Tally;

use std::sync::Arc;
use std::time::Duration;

use crate::frame::FrameMeta;
use crate::task::TaskResult;
use crops::CropResult;

/// Everything known about one inferred frame.
#[derive(Debug, Clone)]
pub struct Observation {
    /// Camera, driver's sequence, time of capture, truth if known.
    pub meta: FrameMeta,
    /// Counted a camera from 1: a consumer finds gaps and duplicates with it.
    pub seq: u64,
    /// Width and height of the decoded frame, in pixels.
    pub frame_size: (u32, u32),
    /// Which model, with its digest.
    pub model: Arc<ModelRef>,
    /// One for each of the model's tasks.
    pub results: Vec<TaskResult>,
    /// How long each stage took.
    pub timing: Timing,
    /// Inferences a second of this camera, over the last seconds.
    pub fps: f32,
    /// The camera's state after smoothing; `None` until the first one is entered.
    pub state: Option<State>,
    /// The change of state that this frame caused, if it did.
    pub change: Option<StateChange>,
    /// Tracks, zones and lines, of a model that detects.
    pub followed: Followed,
    /// For each detection what other models said of its crop, in this frame or before; empty where none look at crops.
    pub crops: Vec<Vec<Arc<CropResult>>>,
    /// Whether somebody asked for it: no rate limit holds it back, and the state goes out with it.
    pub requested: bool,
}

impl Observation {
    /// Whether it says something that must not be lost: a change of state, of a track, in a zone or at a line.
    pub fn has_event(&self) -> bool {
        let f = &self.followed;
        self.change.is_some() || !f.tracks.is_empty() || !f.zones.is_empty()
    }
}

/// Identifies a model in messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelRef {
    /// The configured id.
    pub id: String,
    /// SHA-256 of the ONNX file, hexadecimal.
    pub sha256: String,
}

/// How long each stage took.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Timing {
    /// From capture to the end of inference, that of crops included.
    pub age: Duration,
    /// Frame bytes → pixels.
    pub decode: Duration,
    /// Pixels → input tensor.
    pub preprocess: Duration,
    /// The network.
    pub infer: Duration,
    /// Outputs → results.
    pub decode_output: Duration,
    /// All of that for the crops of what was found; `None` where no model looks at crops.
    pub crops: Option<Duration>,
}

/// A camera's state after smoothing.
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    /// The label; `None` means that nothing is above the threshold.
    pub label: Option<Arc<str>>,
    /// Its smoothed score.
    pub score: f32,
}

/// A camera's state changed.
#[derive(Debug, Clone, PartialEq)]
pub struct StateChange {
    /// The label before, if there was one.
    pub from: Option<Arc<str>>,
    /// The label now, if there is one.
    pub to: Option<Arc<str>>,
    /// The smoothed score of the label now.
    pub score: f32,
    /// How long the state before had lasted.
    pub lasted: Duration,
}

/// Something that sinks are told.
#[derive(Debug, Clone)]
pub enum Publication {
    /// A frame was inferred.
    Observation(Arc<Observation>),
    /// A camera came or went.
    CameraStatus {
        /// Which camera.
        camera: crate::frame::CameraId,
        /// Whether it delivers frames now.
        online: bool,
    },
}
