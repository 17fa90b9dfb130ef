//! `model.toml`: what a bundle says about its model. The format is described in `docs/models.md`.

use std::path::Path;

use serde::Deserialize;

use super::ModelError;
use crate::preprocess::{ColourOrder, Layout, Normalize, ResizePolicy, UsualInput};
use crate::task::TaskKind;
use crate::task::detect::{Anchors, Family};
use crate::toml_read::Problem;

/// The manifest, as written.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Manifest {
    /// The model's id in messages.
    pub id: Option<String>,
    /// SHA-256 of `model.onnx`, hexadecimal.
    pub sha256: Option<String>,
    /// SHA-256 of `labels.txt`, hexadecimal.
    pub labels_sha256: Option<String>,
    /// What it can do.
    pub tasks: Vec<TaskKind>,
    /// Licence of the weights (SPDX).
    pub licence: Option<String>,
    /// Where the weights come from.
    pub origin: Option<String>,
    /// `[input]`
    pub input: ManifestInput,
    /// `[output]`
    pub output: ManifestOutput,
    /// `[embedding]`
    pub embedding: Option<ManifestEmbedding>,
    /// `[detect]`
    pub detect: ManifestDetect,
    /// `[segment]`
    pub segment: ManifestSegment,
    /// `[accuracy]`: measured; free keys, for people.
    pub accuracy: Option<toml::Table>,
    /// `[golden]`
    pub golden: Option<Golden>,
}

/// `[input]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ManifestInput {
    /// Order of the axes; read from the graph if absent.
    pub layout: Option<Layout>,
    /// Order of the channels; RGB if absent.
    pub colour: Option<ColourOrder>,
    /// Factor for the 8-bit pixel.
    pub scale: Option<f32>,
    /// Subtracted after scaling.
    pub mean: Option<[f32; 3]>,
    /// Divided by at the end.
    pub std: Option<[f32; 3]>,
    /// How a frame becomes the input's size.
    pub resize: Option<ResizePolicy>,
}

/// `[output]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ManifestOutput {
    /// What the first output is: `logits` or `probabilities`; read from the graph if absent.
    pub role: Option<super::OutputRole>,
}

/// `[embedding]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManifestEmbedding {
    /// Name of the tensor in the graph.
    pub tensor: String,
}

/// `[detect]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ManifestDetect {
    /// How the outputs are read; by their shapes, where those tell, if absent.
    pub family: Option<Family>,
    /// Tensors of the graph that are read instead of its outputs; what only leads to those is cut off.
    pub outputs: Vec<String>,
    /// YOLOv3's and v4's anchors: three for each output, the finest grid first.
    pub anchors: Option<Vec<Anchors>>,
    /// The second network of a detector that has two: a file in the bundle.
    pub box_head: Option<String>,
    /// SHA-256 of that file, hexadecimal.
    pub box_head_sha256: Option<String>,
    /// How many regions it looks at, at most; 1000 if absent.
    pub proposals: Option<usize>,
}

/// `[segment]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ManifestSegment {
    /// The tensor of the graph that is read, instead of its first output; what only leads to others is cut off.
    pub output: Option<String>,
}

impl Manifest {
    /// Tensors that are read instead of the graph's outputs, and the key that names them.
    pub(super) fn named_outputs(&self) -> (&'static str, &[String]) {
        match &self.segment.output {
            Some(output) => ("[segment] output", std::slice::from_ref(output)),
            None => ("[detect] outputs", &self.detect.outputs),
        }
    }
}

/// `[golden]`: one picture and what the training machine computed from it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Golden {
    /// An image file in the bundle, exactly of the input's size.
    pub image: String,
    /// The first output: every element.
    pub output: Vec<f32>,
    /// How far an element may be off.
    pub tolerance: f32,
}

impl Manifest {
    /// Reads `model.toml`'s text; every problem in one error.
    pub(super) fn parse(text: &str, path: &Path) -> Result<Self, ModelError> {
        let (manifest, mut problems) = crate::toml_read::read::<Self>(text);
        problems.extend(manifest.problems());
        if problems.is_empty() {
            return Ok(manifest);
        }
        let lines: Vec<String> = problems.iter().map(|p| p.to_string()).collect();
        Err(ModelError::Manifest {
            path: path.into(),
            problems: lines.join("; "),
        })
    }

    /// Values that can never be right.
    fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if let Some(id) = self.id.as_ref().filter(|id| !is_id(id)) {
            let fix = "1 to 64 of a-z A-Z 0-9 _ -";
            problems.push(Problem::new("id", format!("`{id}` cannot be an id; {fix}")));
        }
        for (key, digest) in [
            ("sha256", &self.sha256),
            ("labels_sha256", &self.labels_sha256),
            ("detect.box_head_sha256", &self.detect.box_head_sha256),
        ] {
            if digest.as_ref().is_some_and(|d| !is_sha256(d)) {
                problems.push(Problem::new(key, "not 64 hexadecimal digits"));
            }
        }
        let i = &self.input;
        let finite = |v: &[f32]| v.iter().all(|v| v.is_finite());
        if !i.scale.is_none_or(|s| s.is_finite() && s != 0.0) {
            problems.push(Problem::new("input.scale", "must be a number other than 0"));
        }
        if !i.mean.is_none_or(|m| finite(&m)) {
            problems.push(Problem::new("input.mean", "must be three finite numbers"));
        }
        if !i
            .std
            .is_none_or(|s| finite(&s) && s.iter().all(|s| *s > 0.0))
        {
            problems.push(Problem::new(
                "input.std",
                "must be three numbers above 0: pixels are divided by them",
            ));
        }
        let anchors = self.detect.anchors.iter().flatten().flatten().flatten();
        if !anchors.into_iter().all(|a| a.is_finite() && *a > 0.0) {
            problems.push(Problem::new(
                "detect.anchors",
                "must be numbers above 0, in pixels",
            ));
        }
        let most = super::regions::MOST_PROPOSALS;
        if self.detect.proposals.is_some_and(|n| n == 0 || n > most) {
            let fix = format!("must be between 1 and {most}");
            problems.push(Problem::new("detect.proposals", fix));
        }
        if self.segment.output.is_some() && !self.detect.outputs.is_empty() {
            problems.push(Problem::new(
                "segment.output",
                "and detect.outputs: a model is a segmenter or a detector",
            ));
        }
        if let Some(golden) = &self.golden {
            if !(golden.tolerance.is_finite() && golden.tolerance >= 0.0) {
                problems.push(Problem::new(
                    "golden.tolerance",
                    "must be a finite number, 0 or more",
                ));
            }
            if golden.output.is_empty() || !finite(&golden.output) {
                problems.push(Problem::new(
                    "golden.output",
                    "must be finite numbers, one an element",
                ));
            }
        }
        problems
    }
}

fn is_id(id: &str) -> bool {
    let ok = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    (1..=64).contains(&id.len()) && id.bytes().all(ok)
}

/// Whether this is a SHA-256 in hexadecimal.
pub fn is_sha256(digest: &str) -> bool {
    digest.len() == 64 && digest.bytes().all(|b| b.is_ascii_hexdigit())
}

impl ManifestInput {
    /// What is not said is as usual.
    pub(super) fn or(&self, usual: Option<UsualInput>) -> Self {
        let Some(usual) = usual else {
            return self.clone();
        };
        let n = usual.normalize;
        let normalize = match self.normalize() {
            (_, true) => (self.scale, self.mean, self.std),
            (_, false) => (Some(n.scale), Some(n.mean), Some(n.std)),
        };
        let (scale, mean, std) = normalize;
        Self {
            layout: self.layout,
            colour: self.colour.or(Some(usual.colour)),
            scale,
            mean,
            std,
            resize: self.resize.or(Some(usual.resize)),
        }
    }

    /// The normalization, ImageNet's where nothing is said; `said` tells which.
    pub(super) fn normalize(&self) -> (Normalize, bool) {
        let said = self.scale.is_some() || self.mean.is_some() || self.std.is_some();
        if !said {
            return (Normalize::IMAGENET, false);
        }
        let normalize = Normalize {
            scale: self.scale.unwrap_or(1.0 / 255.0),
            mean: self.mean.unwrap_or([0.0; 3]),
            std: self.std.unwrap_or([1.0; 3]),
        };
        (normalize, true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> String {
        let e = Manifest::parse(text, Path::new("b/model.toml")).unwrap_err();
        e.to_string()
    }

    #[test]
    fn what_can_never_be_right_is_refused_all_at_once() {
        let text = "id = 'a/b'\nsha256 = 'abc'\n[input]\nscale = 0.0\nmean = [nan, 0.0, 0.0]\nstd = [1.0, 0.0, 1.0]\n
            [detect]\nbox_head_sha256 = '12'\nproposals = 1001\n[golden]\nimage = 'g.png'\noutput = [inf]\ntolerance = inf\n";
        let all = problems(text);
        for key in [
            "id: `a/b`",
            "sha256: ",
            "input.scale: ",
            "input.mean: ",
            "input.std: ",
            "detect.box_head_sha256: ",
            "detect.proposals: must be between 1 and 1000",
            "golden.tolerance: ",
            "golden.output: ",
        ] {
            assert!(all.contains(key), "no `{key}` in {all}");
        }
        assert!(all.starts_with("b/model.toml: "));
    }

    #[test]
    fn a_manifest_of_nothing_but_mistakes_is_told_in_bounded_time_and_length() {
        let text: String = (0..200_000).map(|i| format!("k{i} = 1\n")).collect();
        assert!(problems(&text).len() < 10_000);
        let nested = format!("id = {}1{}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(
            problems(&nested).contains("TOML"),
            "{:.200}",
            problems(&nested)
        );
    }
}
