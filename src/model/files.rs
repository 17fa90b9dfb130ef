//! A model's files on disk: a bundle's directory, or a bare `.onnx`.
//!
//! In: a path. Out: bytes and text of bounded size. On the main thread, at load.
//! Always holds: only regular files are read (a FIFO or a device would hang or never end), and of a bundle only what
//! lies inside its directory, whatever `..` or a symbolic link says.

use std::fs::File;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use super::ModelError;

/// The largest file that is read as a model: 1 GiB.
pub(super) const MAX_MODEL_BYTES: u64 = 1 << 30;
/// The largest manifest: 4 MiB, enough for a golden output of 300,000 elements.
const MAX_MANIFEST_BYTES: u64 = 4 << 20;
/// The largest label file or golden image: 16 MiB.
pub(super) const MAX_PART_BYTES: u64 = 16 << 20;

/// Where a model's parts are read from.
#[derive(Debug, Clone)]
pub(super) struct ModelFiles {
    /// As it was given: for messages.
    path: PathBuf,
    /// A bundle's directory without symbolic links; `None` for a bare file.
    directory: Option<PathBuf>,
}

impl ModelFiles {
    pub(super) fn at(path: &Path) -> Result<Self, ModelError> {
        let directory = match path.is_dir() {
            true => Some(
                path.canonicalize()
                    .map_err(|e| ModelError::unreadable(path, e))?,
            ),
            false => None,
        };
        Ok(Self {
            path: path.into(),
            directory,
        })
    }

    pub(super) fn is_bundle(&self) -> bool {
        self.directory.is_some()
    }

    /// The model's own path, as it was given.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// A part's path, for messages.
    pub(super) fn part(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    pub(super) fn onnx_path(&self) -> PathBuf {
        match self.is_bundle() {
            true => self.part("model.onnx"),
            false => self.path.clone(),
        }
    }

    pub(super) fn onnx(&self) -> Result<Vec<u8>, ModelError> {
        match self.is_bundle() {
            true => self.read_part("model.onnx", MAX_MODEL_BYTES),
            false => read(&self.path, MAX_MODEL_BYTES),
        }
    }

    /// The manifest's text; `None` for a bare file.
    pub(super) fn manifest(&self) -> Result<Option<String>, ModelError> {
        if !self.is_bundle() {
            return Ok(None);
        }
        let bytes = self.read_part("model.toml", MAX_MANIFEST_BYTES)?;
        text(bytes, &self.part("model.toml")).map(Some)
    }

    /// A bundle's `labels.txt`; `None` if there is none.
    pub(super) fn labels(&self) -> Result<Option<String>, ModelError> {
        let path = self.part("labels.txt");
        if !self.is_bundle() || path.symlink_metadata().is_err() {
            return Ok(None);
        }
        text(self.read_part("labels.txt", MAX_PART_BYTES)?, &path).map(Some)
    }

    /// One file of the bundle, by its name alone.
    pub(super) fn read_part(&self, name: &str, limit: u64) -> Result<Vec<u8>, ModelError> {
        let path = self.part(name);
        let Some(directory) = self.directory.as_ref().filter(|_| is_plain(name)) else {
            let problem =
                format!("`{name}` is no file's name in a bundle; write it without a directory");
            return Err(ModelError::unreadable(&self.path, problem));
        };
        let target = path
            .canonicalize()
            .map_err(|e| ModelError::unreadable(&path, e))?;
        if !target.starts_with(directory) {
            let problem = format!(
                "it is a link to {}, outside the bundle; copy the file into the bundle",
                target.display()
            );
            return Err(ModelError::unreadable(&path, problem));
        }
        read(&path, limit)
    }
}

/// A label file outside a bundle.
pub(super) fn read_text(path: &Path) -> Result<String, ModelError> {
    text(read(path, MAX_PART_BYTES)?, path)
}

fn text(bytes: Vec<u8>, path: &Path) -> Result<String, ModelError> {
    String::from_utf8(bytes).map_err(|_| ModelError::unreadable(path, "not UTF-8 text"))
}

/// A name without a directory.
fn is_plain(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    matches!(
        (parts.next(), parts.next()),
        (Some(Component::Normal(_)), None)
    )
}

fn read(path: &Path, limit: u64) -> Result<Vec<u8>, ModelError> {
    let unreadable = |e: &dyn std::fmt::Display| ModelError::unreadable(path, e);
    // Before the file is opened: opening a FIFO waits for its writer.
    let metadata = path.metadata().map_err(|e| unreadable(&e))?;
    if !metadata.is_file() {
        return Err(unreadable(
            &"not a regular file; a model is an .onnx file, or a directory with model.onnx and model.toml",
        ));
    }
    let too_large = || unreadable(&format!("more than the {limit} bytes that are read"));
    if metadata.len() > limit {
        return Err(too_large());
    }
    let mut bytes = Vec::with_capacity(metadata.len() as usize);
    File::open(path)
        .and_then(|file| file.take(limit + 1).read_to_end(&mut bytes))
        .map_err(|e| unreadable(&e))?;
    match bytes.len() as u64 > limit {
        true => Err(too_large()),
        false => Ok(bytes),
    }
}
