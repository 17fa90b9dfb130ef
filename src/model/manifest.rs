//! `model.toml`: what a bundle says about its model. The format is described in `docs/models.md`.

use std::path::Path;

use serde::Deserialize;

use super::ModelError;
use crate::preprocess::{ColourOrder, Layout, Normalize, ResizePolicy};
use crate::task::TaskKind;

/// The manifest, as written.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Manifest {
    /// The model's id in messages.
    pub id: Option<String>,
    /// SHA-256 of `model.onnx`, hexadecimal.
    pub sha256: Option<String>,
    /// What it can do.
    pub tasks: Vec<TaskKind>,
    /// Licence of the weights (SPDX).
    pub licence: Option<String>,
    /// Where the weights come from.
    pub origin: Option<String>,
    /// `[input]`
    pub input: ManifestInput,
    /// `[output]`
    pub output: ManifestOutput,
    /// `[embedding]`
    pub embedding: Option<ManifestEmbedding>,
    /// `[accuracy]`: measured; free keys, for people.
    pub accuracy: Option<toml::Table>,
    /// `[golden]`
    pub golden: Option<Golden>,
}

/// `[input]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ManifestInput {
    /// Order of the axes; read from the graph if absent.
    pub layout: Option<Layout>,
    /// Order of the channels; RGB if absent.
    pub colour: Option<ColourOrder>,
    /// Factor for the 8-bit pixel.
    pub scale: Option<f32>,
    /// Subtracted after scaling.
    pub mean: Option<[f32; 3]>,
    /// Divided by at the end.
    pub std: Option<[f32; 3]>,
    /// How a frame becomes the input's size.
    pub resize: Option<ResizePolicy>,
}

/// `[output]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ManifestOutput {
    /// What the first output is: `logits` or `probabilities`; read from the graph if absent.
    pub role: Option<super::OutputRole>,
}

/// `[embedding]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManifestEmbedding {
    /// Name of the tensor in the graph.
    pub tensor: String,
}

/// `[golden]`: one picture and what the training machine computed from it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Golden {
    /// An image file in the bundle, exactly of the input's size.
    pub image: String,
    /// The first output: every element.
    pub output: Vec<f32>,
    /// How far an element may be off.
    pub tolerance: f32,
}

impl Manifest {
    /// Reads `model.toml`; every problem in one error.
    pub(super) fn read(path: &Path) -> Result<Self, ModelError> {
        let text = std::fs::read_to_string(path).map_err(|e| ModelError::unreadable(path, e))?;
        let (manifest, problems) = crate::toml_read::read::<Self>(&text);
        if problems.is_empty() {
            return Ok(manifest);
        }
        let lines: Vec<String> = problems.iter().map(|p| p.to_string()).collect();
        Err(ModelError::Manifest {
            path: path.into(),
            problems: lines.join("; "),
        })
    }
}

impl ManifestInput {
    /// The normalization, ImageNet's where nothing is said; `said` tells which.
    pub(super) fn normalize(&self) -> (Normalize, bool) {
        let said = self.scale.is_some() || self.mean.is_some() || self.std.is_some();
        if !said {
            return (Normalize::IMAGENET, false);
        }
        let normalize = Normalize {
            scale: self.scale.unwrap_or(1.0 / 255.0),
            mean: self.mean.unwrap_or([0.0; 3]),
            std: self.std.unwrap_or([1.0; 3]),
        };
        (normalize, true)
    }
}
