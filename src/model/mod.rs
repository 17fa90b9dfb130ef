//! Models: bundles and bare ONNX files, the pass that mends them, the engine that runs them.
//!
//! In: a path. Out: a [`Model`], shared by all cameras; each inference thread has its own [`Session`].
//! Always holds: a model that is not what its manifest says does not start.

mod anatomy;
pub mod catalogue;
pub mod doctor;
mod engine;
mod error;
mod files;
mod golden;
mod input;
mod labels;
mod manifest;
mod onnx_file;
mod placement;
#[cfg(feature = "pull")]
pub mod pull;
mod shapes;
pub mod store;
mod wire;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};

pub use anatomy::{Anatomy, Layer, TensorInfo};
pub use error::ModelError;
pub use golden::SelfTest;
pub use labels::Labels;
pub use manifest::{Golden, Manifest, ManifestEmbedding, ManifestInput, ManifestOutput};

pub use ocellus_int8::Report;
pub use placement::Placement;

use crate::observe::ModelRef;
use crate::preprocess::{InputSpec, InputTensor, Layout};
use crate::task::TaskKind;
use engine::{Embedding, EngineOptions, Network, NetworkSession};
use files::ModelFiles;

/// How a model is to be loaded.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// The id in messages; the manifest's, or the file's name, if absent.
    pub id: Option<String>,
    /// Labels of a bare `.onnx`, one a line.
    pub labels: Option<PathBuf>,
    /// The tasks; the manifest's, or `classify`, if empty.
    pub tasks: Vec<TaskKind>,
    /// Threads that compute one inference together; 0 is taken as 1.
    pub threads: usize,
    /// Feed floats even where the model only quantizes them: for comparisons with other engines.
    pub float_input: bool,
}

/// What an output of the model is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OutputRole {
    /// A score a class, before the softmax.
    Logits,
    /// A probability a class.
    Probabilities,
    /// The picture as a vector.
    Embedding,
}

/// One output.
#[derive(Debug, Clone, PartialEq)]
pub struct OutputInfo {
    /// The tensor's name in the graph.
    pub name: String,
    /// What it is.
    pub role: OutputRole,
    /// How many elements it has.
    pub elements: usize,
}

/// Everything that is known about a loaded model.
#[derive(Debug, Clone)]
pub struct ModelInfo {
    /// Id and digest.
    pub reference: ModelRef,
    /// What it is used for.
    pub tasks: Vec<TaskKind>,
    /// What it is fed.
    pub input: InputSpec,
    /// Class names.
    pub labels: Labels,
    /// Its outputs, in the order of [`Outputs`].
    pub outputs: Vec<OutputInfo>,
    /// What was assumed or mended, a sentence each.
    pub notes: Vec<String>,
}

/// The outputs of one inference, as floats (dequantized where the model quantizes them).
#[derive(Debug, Clone, PartialEq)]
pub struct Outputs {
    tensors: Vec<OutputTensor>,
}

/// One output of one inference.
#[derive(Debug, Clone, PartialEq)]
pub struct OutputTensor {
    /// The tensor's name in the graph.
    pub name: String,
    /// The elements, row-major.
    pub values: Vec<f32>,
}

impl Outputs {
    /// By index, in the order of [`ModelInfo::outputs`].
    pub fn get(&self, index: usize) -> &OutputTensor {
        &self.tensors[index]
    }

    /// Names and elements of all.
    pub fn by_name(&self) -> impl Iterator<Item = (&str, &[f32])> {
        self.tensors.iter().map(|t| (&*t.name, &*t.values))
    }
}

/// A loaded model. Cheap to clone; all clones share the weights.
#[derive(Debug, Clone)]
pub struct Model {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    files: ModelFiles,
    info: ModelInfo,
    network: Arc<Network>,
    golden: Option<Golden>,
}

/// One thread's working memory for a model.
pub struct Session {
    session: NetworkSession,
}

impl Session {
    /// Runs the network on one input.
    ///
    /// # Errors
    /// [`ModelError::Inference`]: the engine refused the input.
    pub fn run(&mut self, input: &InputTensor) -> Result<&Outputs, ModelError> {
        self.session.run(input).map_err(ModelError::Inference)
    }
}

impl Model {
    /// Loads a bundle's directory or a bare `.onnx` file.
    ///
    /// # Errors
    /// Whatever makes it not the model that it says it is: see [`ModelError`].
    pub fn load(path: &Path, options: &LoadOptions) -> Result<Self, ModelError> {
        let files = ModelFiles::at(path)?;
        let manifest = read_manifest(&files)?;
        let onnx = files.onnx_path();
        let bytes = files.onnx()?;
        let sha256 = sha256(&bytes);
        if let Some(expected) = &manifest.sha256 {
            check_digest(&onnx, expected, &bytes)?;
        }
        let tasks = [&options.tasks, &manifest.tasks]
            .into_iter()
            .find(|t| !t.is_empty())
            .cloned();
        let tasks = tasks.unwrap_or_else(|| vec![TaskKind::Classify]);
        let embedding = match &manifest.embedding {
            _ if !tasks.contains(&TaskKind::Embed) => Embedding::No,
            Some(e) => Embedding::Named(&e.tensor),
            None => Embedding::Find,
        };
        let unusable = |problem| ModelError::Unusable {
            path: onnx.clone(),
            problem,
        };
        let engine = EngineOptions {
            embedding,
            threads: options.threads,
            byte_input: !options.float_input && manifest.input.layout != Some(Layout::Nhwc),
        };
        let network = engine::load(&bytes, &engine).map_err(unusable)?;
        drop(bytes);
        let mut notes = network.notes.clone();
        let input = input::spec(&network, &manifest.input, &mut notes).map_err(unusable)?;
        let outputs: Vec<OutputInfo> = network
            .outputs
            .iter()
            .map(|o| output_info(o, &manifest))
            .collect();
        let labels = labels::load(&files, options, &manifest, &outputs)?;
        let stem = path
            .file_stem()
            .map(|s| s.to_string_lossy().into_owned())
            .unwrap_or_default();
        let id = options.id.clone().or(manifest.id).unwrap_or(stem);
        let info = ModelInfo {
            reference: ModelRef { id, sha256 },
            tasks,
            input,
            labels,
            outputs,
            notes,
        };
        let inner = Inner {
            files,
            info,
            network: Arc::new(network),
            golden: manifest.golden,
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// What is known about it.
    pub fn info(&self) -> &ModelInfo {
        &self.inner.info
    }

    /// Working memory for one thread.
    ///
    /// # Errors
    /// [`ModelError::Inference`]: the engine cannot set it up.
    pub fn session(&self) -> Result<Session, ModelError> {
        Ok(Session {
            session: self
                .inner
                .network
                .session()
                .map_err(ModelError::Inference)?,
        })
    }

    /// What the engine runs on integers, what in float, and why.
    pub fn placement(&self) -> &Report {
        &self.inner.network.report
    }

    /// The engine's name, for reports.
    pub fn engine_name(&self) -> String {
        self.inner.network.engine_name()
    }
}

/// The manifest of a bundle; an empty one for a bare file.
fn read_manifest(files: &ModelFiles) -> Result<Manifest, ModelError> {
    match files.manifest()? {
        Some(text) => Manifest::parse(&text, &files.part("model.toml")),
        None => Ok(Manifest::default()),
    }
}

fn sha256(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}

fn check_digest(path: &Path, expected: &str, bytes: &[u8]) -> Result<(), ModelError> {
    let actual = sha256(bytes);
    match expected.eq_ignore_ascii_case(&actual) {
        true => Ok(()),
        false => Err(ModelError::Digest {
            path: path.into(),
            actual,
            expected: expected.into(),
        }),
    }
}

fn output_info(o: &engine::OutputShape, manifest: &Manifest) -> OutputInfo {
    let read = if o.probabilities {
        OutputRole::Probabilities
    } else {
        OutputRole::Logits
    };
    let role = if o.embedding {
        OutputRole::Embedding
    } else {
        manifest.output.role.unwrap_or(read)
    };
    OutputInfo {
        name: o.name.clone(),
        role,
        elements: o.elements,
    }
}
