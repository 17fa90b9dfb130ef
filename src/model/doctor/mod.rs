//! What is wrong, or looks wrong, with a model and what its manifest says about it; each with what to do.
//!
//! In: a model's path. Out: findings. On the main thread. A wrong mean, a swapped colour order or shifted labels do not
//! stop a network: it answers, and is wrong. Here is what can be told of such mistakes without knowing the answers; with
//! labelled images they can be told for sure ([`Variant`]).

mod manifest;
mod normalization;
mod variants;

use std::path::Path;

use serde::Serialize;

pub use self::variants::{Variant, variants};
use super::anatomy::Anatomy;
use super::files::ModelFiles;
use super::{LoadOptions, Manifest, Model, ModelError, Report, SelfTest, read_manifest};

/// Scores of a detector in coarser steps than this say too little.
const COARSEST_SCORE: f32 = 0.02;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// As it should be.
    Good,
    /// Could be better.
    Hint,
    /// Probably a mistake: the results are then wrong without an error.
    Warning,
    /// The model does not start.
    Problem,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What was found.
    pub what: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

impl Finding {
    /// One that needs something done.
    pub fn new(severity: Severity, what: impl Into<String>, fix: impl Into<String>) -> Self {
        let fix = Some(fix.into());
        Self {
            severity,
            what: what.into(),
            fix,
        }
    }

    /// One that is as it should be.
    pub fn good(what: impl Into<String>) -> Self {
        Self {
            severity: Severity::Good,
            what: what.into(),
            fix: None,
        }
    }
}

/// All that was found.
#[derive(Debug)]
pub struct Diagnosis {
    /// In the order in which it was looked at.
    pub findings: Vec<Finding>,
    /// What the graph is made of, if it could be read.
    pub anatomy: Option<Anatomy>,
    /// The model, if it loads.
    pub model: Option<Model>,
}

/// Looks at everything. `labels` is for a bare `.onnx`.
pub fn examine(path: &Path, labels: Option<&Path>) -> Diagnosis {
    let mut found = Vec::new();
    let problem = |e: &ModelError, fix: &str| Finding::new(Severity::Problem, e.to_string(), fix);
    let files = match ModelFiles::at(path) {
        Ok(files) => files,
        Err(e) => {
            return Diagnosis {
                findings: vec![problem(&e, "see the message")],
                anatomy: None,
                model: None,
            };
        }
    };
    let (said, unread) = match read_manifest(&files) {
        Ok(said) => (said, None),
        Err(e) => (Manifest::default(), Some(e)),
    };
    let anatomy = Anatomy::of_files(&files, &said);
    let anatomy = anatomy.map_err(|e| {
        let fix = "export the model again, as one file with a fixed input size";
        found.push(problem(&e, fix));
    });
    let anatomy = anatomy.ok();
    match unread {
        Some(e) => found.push(problem(
            &e,
            "correct model.toml; docs/models.md has every key",
        )),
        None if files.is_bundle() => found.extend(manifest::completeness(&said)),
        None => {
            let what = "a bare .onnx: colour order, normalization and resize are assumed, and nothing proves the result";
            found.push(Finding::new(
                Severity::Hint,
                what,
                "make a bundle: a directory with model.onnx, model.toml and labels.txt",
            ));
        }
    }
    let options = LoadOptions {
        labels: labels.map(Into::into),
        ..LoadOptions::default()
    };
    let loaded = match &anatomy {
        Some(a) => {
            let mut of_load = Vec::new();
            let model = load(path, &options, &mut of_load);
            // A detector's family says what the manifest does not, and so do segmenters.
            let usual = model.as_ref().and_then(|m| m.info().usual_input());
            let input = said.input.or(usual);
            found.extend(normalization::normalization(&input, &a.graph));
            found.extend(manifest::softmax(&said, a.graph.softmaxes));
            found.extend(quantization(a));
            let detector = model.as_ref().and_then(|m| m.info().detector.as_ref());
            let mixes = detector.is_some_and(|d| d.mixes_pixels_and_scores());
            found.extend(a.graph.output_step.filter(|_| mixes).and_then(scores_step));
            found.append(&mut of_load);
            model
        }
        None => None,
    };
    Diagnosis {
        findings: found,
        anatomy,
        model: loaded,
    }
}

fn load(path: &Path, options: &LoadOptions, found: &mut Vec<Finding>) -> Option<Model> {
    let model = match Model::load(path, options) {
        Ok(model) => model,
        Err(e) => {
            let fix = match &e {
                ModelError::LabelCount { labels, outputs, .. } => manifest::label_count(*labels, *outputs),
                ModelError::Digest { .. } => "copy the bundle again; if the model was changed on purpose, make its bundle again".into(),
                _ => "see the message".into(),
            };
            found.push(Finding::new(Severity::Problem, e.to_string(), fix));
            return None;
        }
    };
    found.extend(manifest::label_names(&model.info().labels));
    found.extend(integers(model.placement()));
    match model.self_test() {
        Ok(SelfTest::NoGolden) => {}
        Ok(passed) => found.push(Finding::good(passed.to_string())),
        Err(e) => found.push(Finding::new(
            Severity::Problem,
            e.to_string(),
            "weights, golden input or golden output were altered, or [input] is not what the bundle was made with; make the bundle again",
        )),
    }
    Some(model)
}

/// What the engine made of a quantized model.
fn integers(report: &Report) -> Option<Finding> {
    let share = report.integer_share();
    let what = format!(
        "{} operators, {:.1} % of the multiply-accumulates, run on integers ({})",
        report.taken.iter().filter(|t| !t.float).count(),
        100.0 * share,
        report.isa
    );
    match report.is_accelerated() {
        false => None,
        true if share == 1.0 => Some(Finding::good(what)),
        true => Some(Finding::new(
            Severity::Hint,
            what,
            "the operators in float are listed with their reasons; quantize them as well, if they are worth it",
        )),
    }
}

/// Scores that share their quantizer with boxes in pixels.
fn scores_step(step: f32) -> Option<Finding> {
    (step > COARSEST_SCORE).then(|| {
        let left = match step > 1.0 {
            true => "no score is left",
            false => "scores are rounded to them",
        };
        let what = format!(
            "the output's quantizer, one for boxes in pixels and scores of 0 to 1, has steps of {step:.3}: {left}"
        );
        let fix = "quantize again, and leave what follows the heads' convolutions in float (docs/detection.md)";
        Finding::new(Severity::Warning, what, fix)
    })
}

/// How much of the file is quantized.
fn quantization(a: &Anatomy) -> Vec<Finding> {
    let mut found: Vec<Finding> = a
        .problems
        .iter()
        .map(|p| {
            Finding::new(
                Severity::Warning,
                p.clone(),
                "its cost is unknown, and it may not run",
            )
        })
        .collect();
    let percent = 100.0 * a.integer_share;
    let summary = format!(
        "{}; {percent:.1} % of {:.1} million multiply-accumulates are quantized",
        a.form,
        a.macs as f64 / 1e6
    );
    found.push(match a.integer_share > 0.0 {
        true => Finding::good(summary),
        false => Finding::new(
            Severity::Hint,
            summary,
            "an int8 model is a quarter of the size and several times as fast: quantize it (docs/models.md)",
        ),
    });
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn manifest(text: &str) -> Manifest {
        Manifest::parse(text, Path::new("model.toml")).unwrap()
    }

    pub(super) fn warnings(found: &[Finding]) -> Vec<&str> {
        let warnings = found.iter().filter(|f| f.severity == Severity::Warning);
        warnings.map(|f| f.what.as_str()).collect()
    }
}
