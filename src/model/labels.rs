//! Class names.

use std::sync::Arc;

use super::files::{self, ModelFiles};
use super::{LoadOptions, Manifest, ModelError};

/// Whether a label names a class, and does not fill a gap among the output's numbers: those of torchvision's detectors have two kinds.
pub fn stands_for_something(label: &str) -> bool {
    !["__background__", "N/A"].contains(&label)
}

/// Class names, in the order of the output. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Labels(Arc<[Arc<str>]>);

impl Labels {
    /// One name a line; blank lines at the end do not count.
    ///
    /// # Errors
    /// A control character: names are shown on terminals and go into messages.
    pub fn parse(text: &str) -> Result<Self, String> {
        let name = |(i, line): (usize, &str)| match line.trim() {
            name if name.contains(char::is_control) => {
                Err(format!("line {}: a control character in a label", i + 1))
            }
            name => Ok(Arc::from(name)),
        };
        let names = text.trim_end().lines().enumerate().map(name);
        Ok(Self(names.collect::<Result<_, _>>()?))
    }

    /// The names in order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|l| &**l)
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

/// The labels of a model: the file that was named, or the bundle's own; none is fine, a wrong count is not. `classes`: how
/// many there should be, where the outputs tell.
pub(super) fn load(
    files: &ModelFiles,
    options: &LoadOptions,
    manifest: &Manifest,
    classes: Option<usize>,
) -> Result<Labels, ModelError> {
    let (path, text) = match &options.labels {
        Some(file) => (file.clone(), Some(files::read_text(file)?)),
        None => (files.part("labels.txt"), files.labels()?),
    };
    let expected = manifest.labels_sha256.as_ref();
    let Some(text) = text else {
        return match expected {
            Some(_) => Err(ModelError::unreadable(
                &path,
                "it is not there, but model.toml has its digest",
            )),
            None => Ok(Labels::default()),
        };
    };
    if let Some(expected) = expected.filter(|_| options.labels.is_none()) {
        super::check_digest(&path, expected, text.as_bytes())?;
    }
    let labels = Labels::parse(&text).map_err(|e| ModelError::unreadable(&path, e))?;
    match classes {
        Some(outputs) if outputs != labels.len() => Err(ModelError::LabelCount {
            path,
            labels: labels.len(),
            outputs,
        }),
        _ => Ok(labels),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blank_lines_at_the_end_do_not_count() {
        let labels = Labels::parse("cat\r\n\n dog \n\n").unwrap();
        let names: Vec<_> = (0..4).map(|i| labels.get(i)).collect();
        assert_eq!(labels.len(), 3);
        assert_eq!(
            names.iter().map(|n| &**n).collect::<Vec<_>>(),
            ["cat", "", "dog", "3"]
        );
    }

    #[test]
    fn terminal_escapes_are_no_names() {
        let problem = Labels::parse("cat\n\x1b[2Jdog\n").unwrap_err();
        assert!(problem.starts_with("line 2: "), "{problem}");
    }
}
