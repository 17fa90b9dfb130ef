//! Labelled images on disk: a folder a class, or class numbers in the files' names.

use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::eval::files::{is_image, name_of, sorted};
use crate::model::{Labels, ModelInfo, OutputInfo, OutputRole};
use crate::toml_read::nearest;

/// Images with the class that each shows.
pub(super) struct Dataset {
    pub images: Vec<(PathBuf, usize)>,
}

impl Dataset {
    /// `DIR/class name/*.jpg` (or a class number as the folder's name), or `DIR/NNNN_anything.jpg`.
    pub(super) fn read(directory: &Path, model: &ModelInfo) -> anyhow::Result<Self> {
        let classes = model
            .outputs
            .iter()
            .find(|o| o.role != OutputRole::Embedding)
            .map_or(0, OutputInfo::elements);
        let mut images = Vec::new();
        let entries = sorted(directory)?;
        let folders = entries.iter().filter(|e| e.is_dir());
        for folder in folders {
            let name = name_of(folder);
            let class = class_of_folder(&name, &model.labels, classes)
                .with_context(|| format!("{}", folder.display()))?;
            images.extend(
                sorted(folder)?
                    .into_iter()
                    .filter(|f| is_image(f))
                    .map(|f| (f, class)),
            );
        }
        if images.is_empty() {
            for file in entries.into_iter().filter(|f| is_image(f)) {
                let class = class_of_file(&name_of(&file), classes)
                    .with_context(|| format!("{}", file.display()))?;
                images.push((file, class));
            }
        }
        anyhow::ensure!(
            !images.is_empty(),
            "{}: no images; a folder a class, or files named NNNN_….jpg by their class number, are needed",
            directory.display()
        );
        Ok(Self { images })
    }

    /// At most `n` images, spread over all.
    pub(super) fn sample(&self, n: usize) -> Vec<&(PathBuf, usize)> {
        let step = self.images.len().div_ceil(n.max(1));
        self.images.iter().step_by(step).collect()
    }
}

/// The class of that name, of that name before a comma (`tench, Tinca tinca`), of that WordNet id, or of that number.
fn class_of_folder(name: &str, labels: &Labels, classes: usize) -> anyhow::Result<usize> {
    let lower = name.to_lowercase();
    let first = |label: &str| {
        label
            .to_lowercase()
            .split(',')
            .next()
            .unwrap_or_default()
            .trim()
            .to_string()
    };
    let named = labels.iter().position(|l| l.to_lowercase() == lower);
    let named = named.or_else(|| labels.iter().position(|l| first(l) == lower));
    let named = named.or_else(|| {
        labels
            .iter()
            .position(|l| l.split_whitespace().next() == Some(name))
    });
    if let Some(class) = named {
        return Ok(class);
    }
    if let Ok(number) = name.parse::<usize>() {
        anyhow::ensure!(
            number < classes,
            "class {number} is none of the model's {classes}"
        );
        return Ok(number);
    }
    anyhow::ensure!(
        !labels.is_empty(),
        "the model has no labels: name the folders by class number, or give --labels"
    );
    match nearest(name, labels.iter()) {
        Some(near) => anyhow::bail!("no label `{name}`; did you mean `{near}`?"),
        None => anyhow::bail!("the model has no label `{name}`"),
    }
}

/// The class number that a file's name begins with.
fn class_of_file(name: &str, classes: usize) -> anyhow::Result<usize> {
    let digits: String = name.chars().take_while(|c| c.is_ascii_digit()).collect();
    let class: usize = digits
        .parse()
        .ok()
        .context("the name does not begin with a class number, as 0042_….jpg does")?;
    anyhow::ensure!(
        class < classes,
        "class {class} is none of the model's {classes}"
    );
    Ok(class)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_classes_by_name_synonym_id_or_number() {
        let labels =
            Labels::parse("tench, Tinca tinca\nn01443537 goldfish\nGreat White\n").unwrap();
        for (name, class) in [
            ("tench", 0),
            ("Tench, tinca tinca", 0),
            ("n01443537", 1),
            ("great white", 2),
            ("0002", 2),
        ] {
            assert_eq!(class_of_folder(name, &labels, 3).unwrap(), class, "{name}");
        }
        let problem = class_of_folder("grat white", &labels, 3)
            .unwrap_err()
            .to_string();
        assert!(problem.contains("did you mean `Great White`"), "{problem}");
        assert!(class_of_folder("3", &labels, 3).is_err());
    }

    #[test]
    fn files_are_classes_by_the_number_in_front() {
        assert_eq!(class_of_file("0042_n01_agama.JPEG", 1000).unwrap(), 42);
        assert!(class_of_file("agama.jpg", 1000).is_err());
        assert!(class_of_file("1000_x.jpg", 1000).is_err());
    }
}
