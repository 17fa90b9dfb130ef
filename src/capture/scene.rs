//! `scene:` — a synthetic camera, drawn by the program.

use super::{CaptureContext, CaptureError, CaptureSettings, Source};
use crate::frame::Frame;

/// Stands in until the scene is merged.
pub struct SceneSource;

impl SceneSource {
    /// Not yet.
    pub fn open(_: &CaptureSettings, _: CaptureContext) -> Result<Self, CaptureError> {
        Err(CaptureError::Invalid("no scene yet".into()))
    }
}

impl Source for SceneSource {
    fn next(&mut self) -> Result<Frame, CaptureError> {
        Err(CaptureError::Ended)
    }

    fn describe(&self) -> String {
        String::new()
    }
}
