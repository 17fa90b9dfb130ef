//! The models that are known by name: where they are, what they must be, how they are fed.
//!
//! In: `models/catalogue.toml`, which is part of the program. Out: entries, and the bundle's manifest for each.
//! Always holds: every entry has a digest.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::Deserialize;

pub use super::manifest::is_sha256;
use crate::toml_read::nearest;

/// What may be pulled.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Catalogue {
    source: BTreeMap<String, Source>,
    input: BTreeMap<String, toml::Table>,
    model: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Source {
    addresses: Vec<String>,
    origin: String,
    licence: String,
}

/// One model.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The name that it is pulled by.
    pub name: String,
    /// What it is, in a few words.
    pub about: String,
    source: String,
    path: String,
    /// SHA-256 of the ONNX file.
    pub sha256: String,
    /// Its size.
    pub size_bytes: u64,
    input: String,
    /// Top-1 and top-5 in percent on ImageNet's validation set, as its authors report it.
    #[serde(default)]
    pub reported: Vec<f64>,
}

static CATALOGUE: LazyLock<Catalogue> = LazyLock::new(|| {
    toml::from_str(include_str!("../../models/catalogue.toml")).expect("a test reads the catalogue")
});

impl Catalogue {
    /// The catalogue of this program.
    pub fn get() -> &'static Self {
        &CATALOGUE
    }

    /// All entries, in the file's order.
    pub fn entries(&self) -> &[Entry] {
        &self.model
    }

    /// The entry of a name.
    ///
    /// # Errors
    /// There is none; the message names the nearest.
    pub fn find(&self, name: &str) -> Result<&Entry, String> {
        let found = self.model.iter().find(|m| m.name == name);
        found.ok_or_else(|| {
            let hint = match nearest(name, self.model.iter().map(|m| m.name.as_str())) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "`ocellus model list` shows what there is".into(),
            };
            format!("no model `{name}` in the catalogue; {hint}")
        })
    }

    fn source(&self, entry: &Entry) -> &Source {
        &self.source[&entry.source]
    }

    /// The addresses of an entry; below `mirror`, if one is given.
    pub fn addresses(&self, entry: &Entry, mirror: Option<&str>) -> Vec<String> {
        if let Some(mirror) = mirror {
            return vec![format!("{}/{}", mirror.trim_end_matches('/'), entry.path)];
        }
        let fill = |a: &String| {
            a.replace("{path}", &entry.path)
                .replace("{name}", &entry.name)
        };
        self.source(entry).addresses.iter().map(fill).collect()
    }

    /// The licence of an entry (SPDX).
    pub fn licence(&self, entry: &Entry) -> &str {
        &self.source(entry).licence
    }

    /// The text of the bundle's `model.toml`.
    pub fn manifest(&self, entry: &Entry) -> String {
        let source = self.source(entry);
        let mut manifest = toml::Table::new();
        let mut set = |key: &str, value: toml::Value| manifest.insert(key.into(), value);
        set("id", manifest_id(&entry.name).into());
        set("sha256", entry.sha256.clone().into());
        set("tasks", vec!["classify"].into());
        set("licence", source.licence.clone().into());
        set(
            "origin",
            format!("{}, {}", source.origin, entry.path).into(),
        );
        set("input", self.input[&entry.input].clone().into());
        let keys = ["imagenet_top1_reported", "imagenet_top5_reported"];
        let accuracy = keys.into_iter().zip(&entry.reported);
        let accuracy: toml::Table = accuracy.map(|(k, v)| (k.into(), (*v).into())).collect();
        if !accuracy.is_empty() {
            set("accuracy", accuracy.into());
        }
        manifest.to_string()
    }
}

/// The text of `model.toml` for a file of which nothing but its address and digest is known.
pub fn manifest_of_address(name: &str, address: &str, sha256: &str) -> String {
    let mut manifest = toml::Table::new();
    manifest.insert("id".into(), manifest_id(name).into());
    manifest.insert("sha256".into(), sha256.into());
    manifest.insert("origin".into(), address.into());
    manifest.to_string()
}

/// A name as an id: what cannot stand in an id becomes `_`.
fn manifest_id(name: &str) -> String {
    let ok = |c: char| c.is_ascii_alphanumeric() || c == '-';
    name.chars()
        .map(|c| if ok(c) { c } else { '_' })
        .take(64)
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::path::Path;

    use super::*;
    use crate::model::Manifest;

    #[test]
    fn every_entry_has_a_digest_a_size_and_a_manifest_that_is_read() {
        let catalogue = Catalogue::get();
        let names: HashSet<&str> = catalogue.entries().iter().map(|e| &*e.name).collect();
        assert_eq!(names.len(), catalogue.entries().len());
        for entry in catalogue.entries() {
            assert!(
                is_sha256(&entry.sha256) && entry.size_bytes > 0,
                "{entry:?}"
            );
            let text = catalogue.manifest(entry);
            let manifest = Manifest::parse(&text, Path::new("model.toml")).unwrap();
            assert_eq!(manifest.sha256.as_ref(), Some(&entry.sha256));
            assert!(manifest.input.mean.is_some() && manifest.input.resize.is_some());
            for address in catalogue.addresses(entry, None) {
                assert!(
                    address.starts_with("https://") && !address.contains(['{', '}']),
                    "{address}"
                );
            }
        }
    }

    #[test]
    fn a_name_that_is_nearly_right_is_suggested() {
        let problem = Catalogue::get().find("resnet50-v1-12-int").unwrap_err();
        assert!(problem.contains("`resnet50-v1-12-int8`"), "{problem}");
    }
}
