//! Files of a data set.
//!
//! In: a directory. Out: its entries, by name. On the main thread.

use std::path::{Path, PathBuf};

use anyhow::Context;

/// Files that are taken for images.
const EXTENSIONS: [&str; 5] = ["jpg", "jpeg", "png", "bmp", "webp"];

/// What is in a directory, by name; nothing hidden.
///
/// # Errors
/// It cannot be read.
pub fn sorted(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let read = || -> std::io::Result<Vec<PathBuf>> {
        let entries: Result<Vec<_>, _> = std::fs::read_dir(directory)?.collect();
        Ok(entries?.into_iter().map(|e| e.path()).collect())
    };
    let mut paths = read().with_context(|| format!("cannot read {}", directory.display()))?;
    paths.retain(|p| !name_of(p).starts_with('.'));
    paths.sort();
    Ok(paths)
}

/// A directory's images, by name; at least one.
///
/// # Errors
/// It cannot be read, or has none.
pub fn images(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = sorted(directory)?;
    files.retain(|f| is_image(f));
    anyhow::ensure!(!files.is_empty(), "{}: no images", directory.display());
    Ok(files)
}

/// The last part of a path.
pub fn name_of(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

/// Whether it is a file with an image's name.
pub fn is_image(path: &Path) -> bool {
    let extension = path
        .extension()
        .unwrap_or_default()
        .to_string_lossy()
        .to_lowercase();
    EXTENSIONS.contains(&&*extension) && path.is_file()
}
