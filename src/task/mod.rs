//! Pure decoders of the model's outputs.
//!
//! In: [`Outputs`] of one inference. Out: a [`TaskResult`]. On the `infer-<n>` threads.
//! Never heard of MQTT.

mod classify;
pub mod detect;
mod embed;
pub mod segment;

pub use classify::{Classify, ClassifySettings};
pub use detect::{BBox, Detect, DetectSettings, Detection};
pub use embed::{Embed, EmbedSettings};
pub use segment::{Segment, SegmentSettings, Segmentation, Segments};

use crate::model::{Labels, ModelInfo, Outputs};
use crate::preprocess::InputMapping;
use crate::toml_read::nearest;

/// What one task read from one inference.
#[derive(Debug, Clone, PartialEq)]
pub enum TaskResult {
    /// The best classes, best first.
    Classification(Vec<Class>),
    /// The picture as a vector.
    Embedding(Embedding),
    /// What was found and where, best first.
    Detections(Vec<Detection>),
    /// What the frame consists of.
    Segmentation(Segmentation),
}

/// One class and how sure the model is.
#[derive(Debug, Clone, PartialEq)]
pub struct Class {
    /// Index in the model's output.
    pub index: usize,
    /// Its name from `labels.txt`, or the index as text.
    pub label: std::sync::Arc<str>,
    /// Probability, 0 to 1.
    pub score: f32,
}

/// A vector that stands for the picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Embedding {
    /// The elements; of Euclidean length 1 if `l2_normalized`.
    pub values: Vec<f32>,
    /// Whether it was scaled to length 1.
    pub l2_normalized: bool,
    /// How it is written in messages.
    pub dtype: EmbeddingType,
}

/// Element type of an embedding on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EmbeddingType {
    /// 32 bits, little-endian.
    F32,
    /// 16 bits (IEEE half), little-endian.
    #[default]
    F16,
}

/// The kinds of task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TaskKind {
    /// The best classes.
    Classify,
    /// The picture as a vector.
    Embed,
    /// What is where.
    Detect,
    /// Which pixels are what.
    Segment,
}

impl TaskKind {
    /// As configurations and messages name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Classify => "classify",
            Self::Embed => "embed",
            Self::Detect => "detect",
            Self::Segment => "segment",
        }
    }
}

/// A task's name that is none of [`TaskKind`].
#[derive(Debug, thiserror::Error)]
#[error("unknown task `{0}`; known are classify, embed, detect and segment")]
pub struct UnknownTask(String);

impl std::str::FromStr for TaskKind {
    type Err = UnknownTask;
    fn from_str(s: &str) -> Result<Self, UnknownTask> {
        match s {
            "classify" => Ok(Self::Classify),
            "embed" => Ok(Self::Embed),
            "detect" => Ok(Self::Detect),
            "segment" => Ok(Self::Segment),
            _ => Err(UnknownTask(s.into())),
        }
    }
}

/// How the outputs are read.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TaskSettings {
    /// `[model.classify]`
    pub classify: ClassifySettings,
    /// `[model.embed]`
    pub embed: EmbedSettings,
    /// `[model.detect]`
    pub detect: DetectSettings,
    /// `[model.segment]`
    pub segment: SegmentSettings,
}

impl TaskSettings {
    /// The lowest score in messages for this model: a detector's, unless it classifies as well.
    pub fn threshold(&self, model: &ModelInfo) -> f32 {
        match &model.detector {
            Some(detector) if !model.tasks.contains(&TaskKind::Classify) => {
                self.detect.limits(detector.own_limits).threshold
            }
            _ => self.classify.threshold,
        }
    }

    /// Values that can never work: key and message.
    pub fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = self.classify.problems();
        problems.extend(self.detect.problems());
        problems.extend(self.segment.problems());
        problems
    }
}

/// Reads one kind of result from the outputs of one inference.
pub trait Task: Send {
    /// `mapping` says where the model's input lies in the frame.
    ///
    /// # Errors
    /// Outputs that are not what the model promised at load.
    fn decode(
        &mut self,
        outputs: &Outputs,
        mapping: &InputMapping,
    ) -> Result<TaskResult, TaskError>;

    /// Lowest score from now on; `None`: as configured.
    fn set_threshold(&mut self, _threshold: Option<f32>) {}
}

/// Why a task cannot be built, or cannot read its outputs.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// The model has no such output.
    #[error("the model has no {0} output; {1}")]
    NoOutput(&'static str, &'static str),
    /// A label that is wanted and not there.
    #[error("the model has no label `{label}`{}", near.as_ref().map(|n| format!("; did you mean `{n}`?")).unwrap_or_default())]
    NoLabel {
        /// What was wanted.
        label: String,
        /// The nearest that there is.
        near: Option<String>,
    },
    /// An output is not as long as the model promised.
    #[error("the output `{name}` has {actual} elements, not {expected}")]
    Length {
        /// The output's name.
        name: String,
        /// Elements there.
        actual: usize,
        /// Elements promised.
        expected: usize,
    },
}

/// For each class, whether its label is among those that are wanted; empty where all are.
pub(crate) fn wanted(labels: &Labels, only: &[String]) -> Result<Vec<bool>, TaskError> {
    let mut wanted = match only {
        [] => Vec::new(),
        _ => vec![false; labels.len()],
    };
    for label in only {
        let mut known = false;
        for (i, _) in labels.iter().enumerate().filter(|(_, l)| l == label) {
            wanted[i] = true;
            known = true;
        }
        if !known {
            return Err(TaskError::NoLabel {
                label: label.clone(),
                near: nearest(label, labels.iter()).map(Into::into),
            });
        }
    }
    Ok(wanted)
}

/// One task on this model.
///
/// # Errors
/// The model does not have the output that the task reads.
pub fn build(
    kind: TaskKind,
    model: &ModelInfo,
    settings: &TaskSettings,
) -> Result<Box<dyn Task>, TaskError> {
    Ok(match kind {
        TaskKind::Classify => Box::new(Classify::new(model, &settings.classify)?),
        TaskKind::Embed => Box::new(Embed::new(model, &settings.embed)?),
        TaskKind::Detect => Box::new(Detect::new(model, &settings.detect)?),
        TaskKind::Segment => Box::new(Segments::new(model, &settings.segment)?),
    })
}

/// Every task that the model was loaded for.
///
/// # Errors
/// As [`build`].
pub fn build_all(
    model: &ModelInfo,
    settings: &TaskSettings,
) -> Result<Vec<Box<dyn Task>>, TaskError> {
    model
        .tasks
        .iter()
        .map(|kind| build(*kind, model, settings))
        .collect()
}
