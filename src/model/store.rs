//! Where models are kept and found by name.
//!
//! In: what a person wrote after `--model`. Out: a path. Nothing is opened.

use std::path::{Path, PathBuf};

/// The store of an installation.
const SYSTEM_STORE: &str = "/var/lib/ocellus/models";
/// Where a package puts the models that ship.
const SHIPPED: &str = "/usr/share/ocellus/models";

/// The directories that are looked into for a model's name, in this order.
pub fn directories() -> Vec<PathBuf> {
    let beside_sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
    let system = [SYSTEM_STORE.into(), SHIPPED.into(), beside_sources];
    user_store().into_iter().chain(system).collect()
}

/// `$XDG_DATA_HOME/ocellus/models`, or its default below the home directory.
fn user_store() -> Option<PathBuf> {
    let absolute = |name: &str| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|p| p.is_absolute())
    };
    let data = absolute("XDG_DATA_HOME").or_else(|| Some(absolute("HOME")?.join(".local/share")));
    data.map(|d| d.join("ocellus/models"))
}

/// Where models are put: the installation's store for root, the user's for everybody else.
pub fn default_store() -> PathBuf {
    #[cfg(unix)]
    let is_root = rustix::process::geteuid().is_root();
    #[cfg(not(unix))]
    let is_root = false;
    match user_store() {
        Some(store) if !is_root => store,
        _ => SYSTEM_STORE.into(),
    }
}

/// The path that is meant: itself, or the model of that name in the first directory that has it.
pub fn find(model: &Path) -> PathBuf {
    let is_name = model.components().count() == 1 && !model.exists();
    let found = directories()
        .into_iter()
        .map(|d| d.join(model))
        .find(|p| is_name && p.is_dir());
    found.unwrap_or_else(|| model.into())
}

/// The bundles that are there, each store's in the order of their names.
pub fn installed() -> Vec<PathBuf> {
    let mut bundles = Vec::new();
    for directory in directories() {
        let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
        let paths = entries.map(|e| e.path());
        let mut here: Vec<PathBuf> = paths
            .filter(|p| !is_hidden(p) && p.join("model.onnx").is_file())
            .collect();
        here.sort();
        bundles.extend(here);
    }
    bundles
}

/// Unfinished downloads begin with a dot.
fn is_hidden(path: &Path) -> bool {
    path.file_name()
        .is_none_or(|n| n.as_encoded_bytes().starts_with(b"."))
}
