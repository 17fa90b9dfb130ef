//! One model at work: a frame, or a region of one → results.
//!
//! In: frames. Out: the results of the model's tasks. Whoever has it runs it: a worker on its `infer-<n>` thread, a command on its own.
//! Always holds: everything that is large is made once and reused.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::frame::Frame;
use crate::model::{Model, Session};
use crate::observe::ModelRef;
use crate::preprocess::{InputTensor, PreprocessError, Preprocessed, Preprocessor, Region};
use crate::task::{self, Task, TaskKind, TaskResult, TaskSettings};

/// A model, what it is fed through and how its outputs are read.
pub(crate) struct ModelRunner {
    pub reference: Arc<ModelRef>,
    preprocessor: Preprocessor,
    input: InputTensor,
    session: Session,
    tasks: Vec<Box<dyn Task>>,
    classifies: bool,
}

/// What one run of a model gave.
pub(crate) struct Run {
    /// One for each of the model's tasks.
    pub results: Vec<TaskResult>,
    pub prepared: Preprocessed,
    pub infer: Duration,
    /// When the network was done.
    pub inferred_at: Instant,
    pub decode_output: Duration,
}

/// Why a frame gave nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("{0}")]
    Undecodable(String),
    #[error("{0}")]
    Inference(String),
}

impl ModelRunner {
    /// # Errors
    /// The model does not have the outputs that its tasks read, or there is no memory for it.
    pub fn new(model: &Model, settings: &TaskSettings) -> anyhow::Result<Self> {
        let info = model.info();
        Ok(Self {
            tasks: task::build_all(info, settings)?,
            reference: Arc::new(info.reference.clone()),
            preprocessor: Preprocessor::new(info.input.clone()),
            input: InputTensor::for_spec(&info.input),
            session: model.session()?,
            classifies: info.tasks.contains(&TaskKind::Classify),
        })
    }

    pub fn classifies(&self) -> bool {
        self.classifies
    }

    /// The lowest score from now on; `None`: as configured.
    pub fn set_threshold(&mut self, threshold: Option<f32>) {
        let tasks = self.tasks.iter_mut();
        tasks.for_each(|t| t.set_threshold(threshold));
    }

    /// On a region of a frame, or on all of it.
    pub fn run(&mut self, frame: &Frame, region: Option<Region>) -> Result<Run, Failure> {
        let prepared = match region {
            None => self.preprocessor.run(frame, &mut self.input),
            Some(region) => self.preprocessor.run_region(frame, region, &mut self.input),
        };
        let undecodable = |e: PreprocessError| Failure::Undecodable(e.to_string());
        let prepared = prepared.map_err(undecodable)?;
        let id = &self.reference.id;
        let failed = |e: &dyn std::fmt::Display| Failure::Inference(format!("{id}: {e}"));
        let started = Instant::now();
        let outputs = self.session.run(&self.input).map_err(|e| failed(&e))?;
        let inferred_at = Instant::now();
        let decode = |t: &mut Box<dyn Task>| {
            let result = t.decode(outputs, &prepared.mapping);
            result.map_err(|e| failed(&e))
        };
        let results = self.tasks.iter_mut().map(decode);
        Ok(Run {
            results: results.collect::<Result<_, _>>()?,
            prepared,
            infer: inferred_at - started,
            inferred_at,
            decode_output: inferred_at.elapsed(),
        })
    }
}
