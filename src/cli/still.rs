//! Image files through a model, one after the other: what `classify`, `detect` and `model eval` share.

use std::path::Path;

use anyhow::Context;

use crate::frame::{Frame, FrameMeta, FramePool};
use crate::model::{Model, Outputs, Session};
use crate::preprocess::{InputSpec, InputTensor, Preprocessor, frame_from_image_bytes};
use crate::task::{Task, TaskResult};

/// Image files → one task's results. Everything is reused from image to image.
pub(super) struct Stills {
    pool: FramePool,
    preprocessor: Preprocessor,
    input: InputTensor,
    session: Session,
    task: Box<dyn Task>,
}

/// What one image gave.
pub(super) struct Still<'a> {
    pub frame: Frame,
    pub result: TaskResult,
    /// The outputs that the result was read from.
    pub outputs: &'a Outputs,
}

impl Stills {
    /// `spec` is the model's input, or another way to prepare frames of the same shape.
    pub(super) fn new(model: &Model, spec: InputSpec, task: Box<dyn Task>) -> anyhow::Result<Self> {
        Ok(Self {
            pool: FramePool::default(),
            input: InputTensor::for_spec(&spec),
            preprocessor: Preprocessor::new(spec),
            session: model.session()?,
            task,
        })
    }

    pub(super) fn run(&mut self, image: &Path) -> anyhow::Result<Still<'_>> {
        let bytes = std::fs::read(image).context("cannot be read")?;
        let frame = frame_from_image_bytes(&bytes, FrameMeta::of_still("image"), &self.pool)?;
        let prepared = self.preprocessor.run(&frame, &mut self.input)?;
        let outputs = self.session.run(&self.input)?;
        let result = self.task.decode(outputs, &prepared.mapping)?;
        Ok(Still {
            frame,
            result,
            outputs,
        })
    }
}
