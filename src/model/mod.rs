//! Models: bundles and bare ONNX files, the pass that mends them, the engine that runs them.
//!
//! In: a path. Out: a [`Model`], shared by all cameras; each inference thread has its own [`Session`].
//! Always holds: a model that is not what its manifest says does not start.

mod engine;
mod manifest;
mod normalize;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};

pub use manifest::{Golden, Manifest, ManifestEmbedding, ManifestInput, ManifestOutput};

use crate::frame::{FrameMeta, FramePool};
use crate::observe::ModelRef;
use crate::preprocess::{
    ColourOrder, InputSpec, InputTensor, InputType, Layout, Preprocessor, ResizePolicy,
    frame_from_image_bytes,
};
use crate::task::TaskKind;
use engine::{Embedding, InputElement, Network, NetworkSession};

/// The largest file that is read as a model: 1 GiB.
const MAX_MODEL_BYTES: u64 = 1 << 30;
/// The largest manifest or label file: 16 MiB.
const MAX_TEXT_BYTES: u64 = 16 << 20;

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
}

/// Why a model does not start.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// A file cannot be read.
    #[error("{path}: {problem}", path = .path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        problem: String,
    },
    /// The ONNX file cannot be run.
    #[error("{path}: {problem}", path = .path.display())]
    Unusable {
        /// Which file.
        path: PathBuf,
        /// What is wrong, with the node's name where there is one.
        problem: String,
    },
    /// The manifest is wrong.
    #[error("{path}: {problems}", path = .path.display())]
    Manifest {
        /// Which file.
        path: PathBuf,
        /// All that is wrong.
        problems: String,
    },
    /// The ONNX file is not the one that the manifest was written for.
    #[error("{path}: its SHA-256 is {actual}, but model.toml says {expected}; copy the bundle again", path = .path.display())]
    Digest {
        /// Which file.
        path: PathBuf,
        /// The file's.
        actual: String,
        /// The manifest's.
        expected: String,
    },
    /// Labels and output do not fit.
    #[error("{path}: {labels} labels for an output of {outputs} classes; one line a class is needed", path = .path.display())]
    LabelCount {
        /// The label file.
        path: PathBuf,
        /// Labels there.
        labels: usize,
        /// Elements of the output.
        outputs: usize,
    },
    /// This machine does not compute what the training machine did.
    #[error("{path}: the golden input gives another result here: {problem}", path = .path.display())]
    Golden {
        /// The bundle.
        path: PathBuf,
        /// By how much.
        problem: String,
    },
    /// An inference failed.
    #[error("inference failed: {0}")]
    Inference(String),
}

impl ModelError {
    fn unreadable(path: &Path, e: impl std::fmt::Display) -> Self {
        Self::Unreadable {
            path: path.into(),
            problem: e.to_string(),
        }
    }
}

/// Class names, in the order of the output. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Labels(Arc<[Arc<str>]>);

impl Labels {
    /// One name a line; blank lines at the end do not count.
    pub fn parse(text: &str) -> Self {
        Self(
            text.trim_end()
                .lines()
                .map(|l| Arc::from(l.trim()))
                .collect(),
        )
    }

    /// How many there are; 0 if the model came without.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether the model came without.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A class's name, or its index as text.
    pub fn get(&self, index: usize) -> Arc<str> {
        self.0
            .get(index)
            .cloned()
            .unwrap_or_else(|| index.to_string().into())
    }
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
}

/// A loaded model. Cheap to clone; all clones share the weights.
#[derive(Debug, Clone)]
pub struct Model {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
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

/// The outcome of a self-test.
#[derive(Debug, Clone, PartialEq)]
pub enum SelfTest {
    /// The golden input gave the golden output; the largest difference of an element.
    Passed(f32),
    /// There is nothing to compare with.
    NoGolden,
}

impl std::fmt::Display for SelfTest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Passed(difference) => write!(
                f,
                "golden output reproduced (largest difference {difference:.4})"
            ),
            Self::NoGolden => f.write_str("no golden output to compare with"),
        }
    }
}

impl Model {
    /// Loads a bundle's directory or a bare `.onnx` file.
    ///
    /// # Errors
    /// Whatever makes it not the model that it says it is: see [`ModelError`].
    pub fn load(path: &Path, options: &LoadOptions) -> Result<Self, ModelError> {
        let is_bundle = path.is_dir();
        let manifest = if is_bundle {
            Manifest::read(&path.join("model.toml"))?
        } else {
            Manifest::default()
        };
        let onnx = if is_bundle {
            path.join("model.onnx")
        } else {
            path.to_path_buf()
        };
        let bytes = read_bounded(&onnx, MAX_MODEL_BYTES)?;
        let sha256 = format!("{:x}", Sha256::digest(&bytes));
        if let Some(expected) = manifest
            .sha256
            .as_ref()
            .filter(|e| !e.eq_ignore_ascii_case(&sha256))
        {
            return Err(ModelError::Digest {
                path: onnx,
                actual: sha256,
                expected: expected.clone(),
            });
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
        let network = engine::load(&bytes, embedding).map_err(unusable)?;
        drop(bytes);
        let mut notes = network.notes.clone();
        let input = input_spec(&network, &manifest.input, &mut notes).map_err(unusable)?;
        let outputs: Vec<OutputInfo> = network
            .outputs
            .iter()
            .map(|o| output_info(o, &manifest))
            .collect();
        let labels = labels(path, is_bundle, options, &outputs)?;
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
            path: path.into(),
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

    /// The engine's name, for reports.
    pub fn engine_name(&self) -> String {
        engine::name()
    }

    /// Computes the bundle's golden input and compares.
    ///
    /// # Errors
    /// [`ModelError::Golden`]: this machine computes something else. [`ModelError::Unreadable`]: the picture is not there.
    pub fn self_test(&self) -> Result<SelfTest, ModelError> {
        let Some(golden) = &self.inner.golden else {
            return Ok(SelfTest::NoGolden);
        };
        let wrong = |problem: String| ModelError::Golden {
            path: self.inner.path.clone(),
            problem,
        };
        let image = plain_name(&golden.image)
            .ok_or_else(|| wrong(format!("`{}` is no file name", golden.image)))?;
        let file = self.inner.path.join(image);
        let bytes = read_bounded(&file, MAX_TEXT_BYTES)?;
        let frame =
            frame_from_image_bytes(&bytes, FrameMeta::of_still("golden"), &FramePool::default())
                .map_err(|e| ModelError::unreadable(&file, e))?;
        let spec = InputSpec {
            resize: ResizePolicy::Stretch,
            ..self.inner.info.input.clone()
        };
        let mut input = InputTensor::for_spec(&spec);
        Preprocessor::new(spec)
            .run(&frame, &mut input)
            .map_err(|e| ModelError::unreadable(&file, e))?;
        let mut session = self.session()?;
        let actual = &session.run(&input)?.get(0).values;
        if actual.len() != golden.output.len() {
            return Err(wrong(format!(
                "{} elements instead of {}",
                actual.len(),
                golden.output.len()
            )));
        }
        let difference = actual
            .iter()
            .zip(&golden.output)
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f32::max);
        match difference <= golden.tolerance {
            true => Ok(SelfTest::Passed(difference)),
            false => Err(wrong(format!(
                "an element is off by {difference}, more than {}",
                golden.tolerance
            ))),
        }
    }
}

/// A file's name without a directory: nothing outside the bundle is read.
fn plain_name(name: &str) -> Option<&str> {
    let mut parts = Path::new(name).components();
    match (parts.next(), parts.next()) {
        (Some(std::path::Component::Normal(_)), None) => Some(name),
        _ => None,
    }
}

fn read_bounded(path: &Path, limit: u64) -> Result<Vec<u8>, ModelError> {
    let unreadable = |e: &dyn std::fmt::Display| ModelError::unreadable(path, e);
    let file = File::open(path).map_err(|e| unreadable(&e))?;
    let metadata = file.metadata().map_err(|e| unreadable(&e))?;
    if !metadata.is_file() {
        return Err(unreadable(
            &"not a file; a bundle is a directory with model.onnx and model.toml",
        ));
    }
    if metadata.len() > limit {
        return Err(unreadable(&format!(
            "{} bytes are more than the {limit} that are read",
            metadata.len()
        )));
    }
    let mut bytes = Vec::with_capacity(metadata.len() as usize);
    file.take(limit)
        .read_to_end(&mut bytes)
        .map_err(|e| unreadable(&e))?;
    Ok(bytes)
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

fn labels(
    path: &Path,
    is_bundle: bool,
    options: &LoadOptions,
    outputs: &[OutputInfo],
) -> Result<Labels, ModelError> {
    let file = match &options.labels {
        Some(file) => file.clone(),
        None if is_bundle => path.join("labels.txt"),
        None => return Ok(Labels::default()),
    };
    if is_bundle && options.labels.is_none() && !file.exists() {
        return Ok(Labels::default());
    }
    let bytes = read_bounded(&file, MAX_TEXT_BYTES)?;
    let text =
        String::from_utf8(bytes).map_err(|_| ModelError::unreadable(&file, "not UTF-8 text"))?;
    let labels = Labels::parse(&text);
    match outputs.iter().find(|o| o.role != OutputRole::Embedding) {
        Some(o) if o.elements != labels.len() => Err(ModelError::LabelCount {
            path: file,
            labels: labels.len(),
            outputs: o.elements,
        }),
        _ => Ok(labels),
    }
}

fn input_spec(
    network: &Network,
    said: &ManifestInput,
    notes: &mut Vec<String>,
) -> Result<InputSpec, String> {
    let [_, a, b, c] = network.input_shape;
    let channels = |n: usize| n == 1 || n == 3;
    let layout = match said.layout {
        Some(layout) => layout,
        None if channels(a) => Layout::Nchw,
        None if channels(c) => Layout::Nhwc,
        None => {
            return Err(format!(
                "no axis of the input {:?} has 1 or 3 channels",
                network.input_shape
            ));
        }
    };
    let (channel_count, height, width) = match layout {
        Layout::Nchw => (a, b, c),
        Layout::Nhwc => (c, a, b),
    };
    if !channels(channel_count) || network.input_shape[0] != 1 {
        return Err(format!(
            "the input {:?} is not one picture of 1 or 3 channels",
            network.input_shape
        ));
    }
    let colour = match said.colour {
        Some(colour) if colour.channels() != channel_count => {
            return Err(format!(
                "model.toml says {colour:?}, but the input has {channel_count} channel(s)"
            ));
        }
        Some(colour) => colour,
        None if channel_count == 1 => ColourOrder::Grey,
        None => ColourOrder::Rgb,
    };
    let (normalize, is_said) = said.normalize();
    if !is_said {
        notes.push(
            "normalization not stated: ImageNet's mean and standard deviation are assumed".into(),
        );
    }
    let (width, height) = (width as u32, height as u32);
    let resize = said.resize.unwrap_or_else(|| {
        // ImageNet's evaluation keeps 224 of 256; pictures as small as CIFAR's are shown whole.
        if width.min(height) <= 64 {
            ResizePolicy::Stretch
        } else {
            ResizePolicy::ShortSideCrop {
                short_side: (width.max(height) * 256).div_ceil(224),
            }
        }
    });
    let dtype = match network.input_type {
        InputElement::F32 => InputType::F32,
        InputElement::U8 { scale, zero_point } => InputType::U8 { scale, zero_point },
        InputElement::I8 { scale, zero_point } => InputType::I8 { scale, zero_point },
    };
    Ok(InputSpec {
        width,
        height,
        layout,
        colour,
        dtype,
        resize,
        normalize,
    })
}
