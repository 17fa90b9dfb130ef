//! Why a model does not start, each with what to do about it.

use std::path::{Path, PathBuf};

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
    pub(super) fn unreadable(path: &Path, e: impl std::fmt::Display) -> Self {
        Self::Unreadable {
            path: path.into(),
            problem: e.to_string(),
        }
    }
}
