//! Models: bundles and bare ONNX files, the pass that mends them, the engine that runs them.
//!
//! In: a path. Out: a [`Model`], shared by all cameras; each inference thread has its own [`Session`].
//! Always holds: a model that is not what its manifest says does not start.

mod anatomy;
pub mod catalogue;
mod cut;
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
mod regions;
mod shapes;
pub mod store;
mod wire;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};

pub use anatomy::{Anatomy, Layer, TensorInfo};
pub use error::ModelError;
pub use golden::SelfTest;
pub use labels::{Labels, stands_for_something};
pub use manifest::{
    Golden, Manifest, ManifestDetect, ManifestEmbedding, ManifestInput, ManifestOutput,
    ManifestSegment,
};

pub use ocellus_int8::Report;
pub use placement::Placement;

use crate::observe::ModelRef;
use crate::preprocess::{InputSpec, InputTensor, InputType, Layout, UsualInput};
use crate::task::TaskKind;
use crate::task::detect::{Detector, Family, HeadOutput};
use crate::task::segment::{MapOutput, Segmenter};
use engine::{Embedding, EngineOptions, Network, NetworkSession, OutputShape};
use files::ModelFiles;
use regions::{RegionSession, Regions};

/// How a model is to be loaded.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// The id in messages; the manifest's, or the file's name, if absent.
    pub id: Option<String>,
    /// Labels of a bare `.onnx`, one a line.
    pub labels: Option<PathBuf>,
    /// The tasks; the manifest's, or what the outputs look like, if empty.
    pub tasks: Vec<TaskKind>,
    /// How a detector's outputs are read; as the manifest or the outputs say if absent.
    pub family: Option<Family>,
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
    /// A part of what the task `detect` reads.
    #[serde(skip)]
    Detections,
    /// What the task `segment` reads.
    #[serde(skip)]
    Segments,
}

/// One output.
#[derive(Debug, Clone, PartialEq)]
pub struct OutputInfo {
    /// The tensor's name in the graph.
    pub name: String,
    /// What it is.
    pub role: OutputRole,
    /// The axes' lengths.
    pub shape: Vec<usize>,
}

impl OutputInfo {
    /// How many elements it has.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
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
    /// How they are read, if it is loaded as a detector.
    pub detector: Option<Detector>,
    /// How the first one is read, if it is loaded as a segmenter.
    pub segmenter: Option<Segmenter>,
    /// What was assumed or mended, a sentence each.
    pub notes: Vec<String>,
}

impl ModelInfo {
    /// How it is fed where its manifest says nothing, if that is known of its kind.
    fn usual_input(&self) -> Option<UsualInput> {
        let raw = InputType::U8 {
            scale: 1.0,
            zero_point: 0,
        };
        match (&self.detector, &self.segmenter) {
            (Some(d), _) => Some(d.family.input()),
            (None, Some(_)) => Some(Segmenter::usual_input(self.input.dtype == raw)),
            (None, None) => None,
        }
    }
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
    /// Of another engine, or made for a test.
    pub fn new(tensors: Vec<OutputTensor>) -> Self {
        Self { tensors }
    }

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
    regions: Option<Arc<Regions>>,
    /// Of all networks.
    report: Report,
    golden: Option<Golden>,
}

/// One thread's working memory for a model.
pub struct Session {
    session: NetworkSession,
    regions: Option<RegionSession>,
}

impl Session {
    /// Runs the network on one input; of a region-based detector both, and what lies between them.
    ///
    /// # Errors
    /// [`ModelError::Inference`]: the engine refused the input.
    pub fn run(&mut self, input: &InputTensor) -> Result<&Outputs, ModelError> {
        let outputs = self.session.run(&input.shape, &input.data);
        let outputs = outputs.map_err(ModelError::Inference)?;
        if let Some(regions) = &mut self.regions {
            let ran = regions.run(outputs, input.picture);
            ran.map_err(ModelError::Inference)?;
        }
        Ok(outputs)
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
        let mut said = [&options.tasks, &manifest.tasks].into_iter();
        let said = said.find(|t| !t.is_empty()).cloned().unwrap_or_default();
        let embedding = match &manifest.embedding {
            _ if !said.contains(&TaskKind::Embed) => Embedding::No,
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
            outputs: manifest.named_outputs(),
        };
        let network = engine::load(&bytes, &engine).map_err(unusable)?;
        drop(bytes);
        let mut notes = network.notes.clone();
        let size = input::size(&network, &manifest.input).map_err(unusable)?;
        let (tasks, family) =
            tasks_and_family(said, options, &manifest, &network, size, &mut notes)
                .map_err(unusable)?;
        let segmenter = tasks.contains(&TaskKind::Segment);
        let segmenter = segmenter.then(|| segmenter_of(&network, &manifest, size));
        let segmenter = segmenter.transpose().map_err(unusable)?;
        let usual = match (family, &segmenter) {
            (Some(family), _) => Some(family.input()),
            (None, Some(_)) => Some(Segmenter::usual_input(network.takes_pixels())),
            (None, None) => None,
        };
        let input = input::spec(&network, &manifest.input, usual, &mut notes).map_err(unusable)?;
        let regions = regions::load(&files, family, &manifest.detect, options, &network, size)?;
        let mut report = network.report.clone();
        let mut outputs = network.outputs.clone();
        if let Some(regions) = &regions {
            regions.add_to(&mut report);
            outputs.extend(regions.outputs());
            let of_head = |note: &String| format!("box head: {note}");
            notes.extend(regions.network.notes.iter().map(of_head));
        }
        let detector = family
            .map(|f| {
                Detector::new(
                    f,
                    &heads(&outputs, &manifest),
                    size,
                    manifest.detect.anchors.as_deref(),
                    network.suppression,
                )
            })
            .transpose()
            .map_err(unusable)?;
        let classifies = tasks.contains(&TaskKind::Classify);
        let outputs: Vec<OutputInfo> = outputs
            .iter()
            .map(|o| {
                let read_by = (detector.is_some(), segmenter.is_some());
                output_info(o, &manifest, classifies, read_by)
            })
            .collect();
        let classes = match (&detector, &segmenter) {
            // YOLOv10's shapes do not tell, nor do maps that no ArgMax wrote.
            (Some(Detector { classes, .. }), _) | (_, Some(Segmenter { classes, .. })) => {
                Some(*classes).filter(|n| *n > 0)
            }
            (None, None) => {
                let mut outputs = outputs.iter();
                outputs
                    .find(|o| o.role != OutputRole::Embedding)
                    .map(OutputInfo::elements)
            }
        };
        let mut labels = labels::load(&files, options, &manifest, classes)?;
        let usual = detector
            .as_ref()
            .and_then(|d| d.family.usual_labels(d.classes))
            .or_else(|| segmenter.as_ref()?.usual_labels());
        if let Some(usual) = usual.filter(|_| labels.is_empty()) {
            labels = Labels::parse(usual).map_err(unusable)?;
            notes.push(format!(
                "labels not stated: {} usual ones are assumed",
                labels.len()
            ));
        }
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
            detector,
            segmenter,
            notes,
        };
        let inner = Inner {
            files,
            info,
            network: Arc::new(network),
            regions: regions.map(Arc::new),
            report,
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
        let regions = self.inner.regions.as_ref();
        let more = regions.map(|r| r.outputs());
        let more = more.as_ref().map_or(&[][..], |m| m);
        let network = &self.inner.network;
        Ok(Session {
            session: network.session(more).map_err(ModelError::Inference)?,
            regions: regions
                .map(Regions::session)
                .transpose()
                .map_err(ModelError::Inference)?,
        })
    }

    /// What the engine runs on integers, what in float, and why; of all networks, a second one once for a batch of regions.
    pub fn placement(&self) -> &Report {
        &self.inner.report
    }

    /// The engine's name, for reports.
    pub fn engine_name(&self) -> String {
        let report = self.placement();
        match report.is_accelerated() {
            false => "tract".into(),
            true => format!(
                "int8 on {}, {:.1} % of the multiply-accumulates",
                report.isa,
                100.0 * report.integer_share()
            ),
        }
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

/// What the model is for, and as which detector. Without a word it is a detector or a segmenter if its outputs look like one, else a
/// classifier.
fn tasks_and_family(
    said: Vec<TaskKind>,
    options: &LoadOptions,
    manifest: &Manifest,
    network: &Network,
    size: (usize, usize),
    notes: &mut Vec<String>,
) -> Result<(Vec<TaskKind>, Option<Family>), String> {
    let named = options.family.or(manifest.detect.family);
    let suppressed = network.suppression.is_some();
    let detects = said.contains(&TaskKind::Detect);
    if !said.is_empty() && !detects {
        return Ok((said, None));
    }
    let wants = detects || suppressed;
    let heads = heads(&network.outputs, manifest);
    let family = named.or_else(|| {
        let found = Family::recognize(&heads, size, suppressed)?;
        notes.push(format!("recognized by its outputs: family {found}"));
        Some(found)
    });
    match family {
        None if suppressed => Err(format!(
            "a suppression in the graph is read of SSD-ResNet-34 alone: {}",
            cut::EXPORT_WITHOUT
        )),
        None if wants => {
            let shapes: Vec<_> = heads.iter().map(|h| &h.shape).collect();
            Err(format!(
                "which detector it is cannot be told from its outputs {shapes:?}: say [detect] family in model.toml, or [model.detect] family, or --family"
            ))
        }
        None => {
            let last = input::channels_last(network, &manifest.input)?;
            let segments = Segmenter::recognize(&map_output(network)?, size, last);
            if segments {
                notes.push("recognized by its output: it segments".into());
            }
            let task = match segments {
                true => TaskKind::Segment,
                false => TaskKind::Classify,
            };
            Ok((vec![task], None))
        }
        Some(_) if said.is_empty() => Ok((vec![TaskKind::Detect], family)),
        Some(_) => Ok((said, family)),
    }
}

/// The first output as a segmenter's.
fn map_output(network: &Network) -> Result<MapOutput, String> {
    let mut own = network.outputs.iter().filter(|o| !o.embedding);
    let first = own.next().ok_or("it has no output")?;
    Ok(MapOutput {
        shape: first.shape.clone(),
        is_integer: first.is_integer,
        argmax_of: network.argmax_of,
    })
}

fn segmenter_of(
    network: &Network,
    manifest: &Manifest,
    size: (usize, usize),
) -> Result<Segmenter, String> {
    let last = input::channels_last(network, &manifest.input)?;
    Segmenter::new(&map_output(network)?, size, last)
}

/// The outputs as a detector's.
fn heads(outputs: &[OutputShape], manifest: &Manifest) -> Vec<HeadOutput> {
    let own = outputs.iter().filter(|o| !o.embedding);
    let head = |o: &OutputShape| HeadOutput {
        shape: o.shape.clone(),
        probabilities: match manifest.output.role {
            Some(role) => role == OutputRole::Probabilities,
            None => o.probabilities,
        },
        decoded: o.decoded,
    };
    own.map(head).collect()
}

fn output_info(
    o: &OutputShape,
    manifest: &Manifest,
    classifies: bool,
    (detects, segments): (bool, bool),
) -> OutputInfo {
    let read = if o.probabilities {
        OutputRole::Probabilities
    } else {
        OutputRole::Logits
    };
    let role = match o.embedding {
        true => OutputRole::Embedding,
        false if segments => OutputRole::Segments,
        false if detects && !classifies => OutputRole::Detections,
        false => manifest.output.role.unwrap_or(read),
    };
    OutputInfo {
        name: o.name.clone(),
        role,
        shape: o.shape.clone(),
    }
}
