//! The input of the last fully connected layer → a vector that stands for the picture.

use serde::Deserialize;

use super::{Embedding, EmbeddingType, Task, TaskError, TaskResult};
use crate::model::{ModelInfo, OutputRole, Outputs};
use crate::preprocess::InputMapping;

/// `[model.embed]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EmbedSettings {
    /// Element type in messages: `f16` or `f32`.
    pub dtype: EmbeddingType,
    /// Whether the vector is scaled to Euclidean length 1.
    pub normalize: bool,
}

impl Default for EmbedSettings {
    fn default() -> Self {
        Self {
            dtype: EmbeddingType::default(),
            normalize: true,
        }
    }
}

/// The embedding output, flattened.
pub struct Embed {
    output: usize,
    settings: EmbedSettings,
}

impl Embed {
    /// # Errors
    /// No embedding was found in the graph, and none is named in the manifest.
    pub fn new(model: &ModelInfo, settings: &EmbedSettings) -> Result<Self, TaskError> {
        let output = model
            .outputs
            .iter()
            .position(|o| o.role == OutputRole::Embedding);
        let fix = "name the tensor in the manifest's [embedding]";
        let output = output.ok_or(TaskError::NoOutput("embedding", fix))?;
        Ok(Self {
            output,
            settings: settings.clone(),
        })
    }
}

impl Task for Embed {
    fn decode(&mut self, outputs: &Outputs, _: &InputMapping) -> Result<TaskResult, TaskError> {
        let mut values = outputs.get(self.output).values.clone();
        if self.settings.normalize {
            let length = values
                .iter()
                .map(|v| f64::from(*v).powi(2))
                .sum::<f64>()
                .sqrt() as f32;
            // A vector of zeros has no direction: it stays as it is.
            if length > 0.0 {
                values.iter_mut().for_each(|v| *v /= length);
            }
        }
        let (l2_normalized, dtype) = (self.settings.normalize, self.settings.dtype);
        Ok(TaskResult::Embedding(Embedding {
            values,
            l2_normalized,
            dtype,
        }))
    }
}
