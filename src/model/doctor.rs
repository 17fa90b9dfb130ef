//! What is wrong, or looks wrong, with a model and what its manifest says about it; each with what to do.
//!
//! In: a model's path. Out: findings. On the main thread. A wrong mean, a swapped colour order or shifted labels do not
//! stop a network: it answers, and is wrong. Here is what can be told of such mistakes without knowing the answers; with
//! labelled images they can be told for sure ([`Variant`]).

use std::collections::HashSet;
use std::path::Path;

use serde::Serialize;

use super::anatomy::{Anatomy, GraphFacts};
use super::files::ModelFiles;
use super::{
    Labels, LoadOptions, Manifest, ManifestInput, Model, ModelError, OutputRole, Placement,
    SelfTest, read_manifest,
};
use crate::preprocess::{ColourOrder, InputSpec, InputType, Normalize};

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
    let (mut anatomy, mut manifest) = (None, Manifest::default());
    match Anatomy::read(path) {
        Ok(a) => anatomy = Some(a),
        Err(e) => found.push(problem(
            &e,
            "export the model again, as one file with a fixed input size",
        )),
    }
    match ModelFiles::at(path).and_then(|f| Ok((f.is_bundle(), read_manifest(&f)?))) {
        Ok((true, read)) => {
            manifest = read;
            found.extend(completeness(&manifest));
        }
        Ok((false, _)) => {
            let what = "a bare .onnx: colour order, normalization and resize are assumed, and nothing proves the result";
            found.push(Finding::new(
                Severity::Hint,
                what,
                "make a bundle: a directory with model.onnx, model.toml and labels.txt",
            ));
        }
        Err(e) => found.push(problem(
            &e,
            "correct model.toml; docs/models.md has every key",
        )),
    }
    let options = LoadOptions {
        labels: labels.map(Into::into),
        ..LoadOptions::default()
    };
    let loaded = match &anatomy {
        Some(a) => {
            found.extend(normalization(&manifest.input, &a.graph));
            found.extend(softmax(&manifest, a.graph.softmaxes));
            found.extend(quantization(a));
            load(path, &options, &mut found)
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
                ModelError::LabelCount { labels, outputs, .. } => label_count(*labels, *outputs),
                ModelError::Digest { .. } => "copy the bundle again; if the model was changed on purpose, make its bundle again".into(),
                _ => "see the message".into(),
            };
            found.push(Finding::new(Severity::Problem, e.to_string(), fix));
            return None;
        }
    };
    found.extend(label_names(&model.info().labels));
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

/// What a bundle says about itself.
fn completeness(m: &Manifest) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut hint = |missing: bool, what: &str, fix: &str| {
        if missing {
            found.push(Finding::new(Severity::Hint, what, fix));
        }
    };
    hint(
        m.sha256.is_none(),
        "no digest: a damaged or exchanged model.onnx goes unnoticed",
        "sha256 = \"…\" in model.toml (sha256sum model.onnx)",
    );
    hint(
        m.golden.is_none(),
        "no golden output: nothing proves that this machine computes what the training machine did",
        "[golden] in model.toml, with a picture and its output",
    );
    hint(
        m.licence.is_none() || m.origin.is_none(),
        "licence or origin of the weights not stated",
        "licence = \"…\" and origin = \"…\" in model.toml",
    );
    if let Some(g) = &m.golden {
        let low = g.output.iter().copied().fold(f32::INFINITY, f32::min);
        let high = g.output.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        if g.tolerance > (high - low) / 2.0 {
            let what = format!(
                "golden.tolerance {} is wide against outputs of {low} to {high}: the self-test proves nothing",
                g.tolerance
            );
            found.push(Finding::new(
                Severity::Warning,
                what,
                "a tenth of the outputs' span is plenty for int8",
            ));
        }
    }
    found
}

/// Mean and standard deviation in the order of `colour`, with the names that people know.
const KNOWN: [(&str, Normalize); 5] = [
    ("ImageNet's (torchvision, timm)", Normalize::IMAGENET),
    (
        "pixels to 0..1",
        Normalize {
            scale: 1.0 / 255.0,
            mean: [0.0; 3],
            std: [1.0; 3],
        },
    ),
    (
        "pixels to -1..1 (TensorFlow, Inception)",
        Normalize {
            scale: 1.0 / 255.0,
            mean: [0.5; 3],
            std: [0.5; 3],
        },
    ),
    (
        "pixels less the mean (Caffe, in RGB)",
        Normalize {
            scale: 1.0,
            mean: [123.68, 116.779, 103.939],
            std: [1.0; 3],
        },
    ),
    ("raw pixels", Normalize::NONE),
];

/// As it is written in model.toml.
fn as_toml(n: &Normalize) -> String {
    let list = |v: [f32; 3]| format!("[{}, {}, {}]", v[0], v[1], v[2]);
    let scale = if n.scale == 1.0 {
        "1.0".into()
    } else {
        n.scale.to_string()
    };
    format!(
        "[input] scale = {scale}, mean = {}, std = {}",
        list(n.mean),
        list(n.std)
    )
}

fn normalization(said: &ManifestInput, graph: &GraphFacts) -> Vec<Finding> {
    let mut found = Vec::new();
    let (n, is_said) = said.normalize();
    if !is_said {
        let fix = format!(
            "say what the model was trained with, for example {}",
            as_toml(&Normalize::IMAGENET)
        );
        found.push(Finding::new(
            Severity::Hint,
            "normalization not stated: ImageNet's mean and standard deviation are assumed",
            fix,
        ));
    }
    let warn = |what: String, fix: String| Finding::new(Severity::Warning, what, fix);
    let largest = |v: [f32; 3]| v.iter().fold(0f32, |a, b| a.max(b.abs()));
    // Pixels of 0..1 cannot have a mean of 100; pixels of 0..255 have none of 0.4.
    if n.scale < 0.1 && largest(n.mean) > 4.0 {
        found.push(warn(
            format!(
                "mean {:?} is for pixels of 0..255, but scale {} makes them 0..1",
                n.mean, n.scale
            ),
            "scale = 1.0, or divide mean and std by 255".into(),
        ));
    }
    if n.scale > 0.5 && n.mean != [0.0; 3] && largest(n.mean) <= 1.0 {
        found.push(warn(
            format!(
                "mean {:?} is for pixels of 0..1, but scale {} leaves them 0..255",
                n.mean, n.scale
            ),
            "scale = 0.00392156862745098 (1/255)".into(),
        ));
    }
    found.extend(order(&n, said.colour));
    if let Some(op) = &graph.normalizes_by
        && n != Normalize::NONE
    {
        found.push(warn(
            format!(
                "the graph itself begins with {op} by constants: pixels may be normalized twice"
            ),
            format!(
                "if the export contains the normalization: {}",
                as_toml(&Normalize::NONE)
            ),
        ));
    }
    if let Some(range) = graph.input_range
        && found.iter().all(|f| f.severity != Severity::Warning)
    {
        found.push(calibrated(&n, range));
    }
    found
}

/// Whether mean and standard deviation are in the order of the colours.
fn order(n: &Normalize, colour: Option<ColourOrder>) -> Option<Finding> {
    let is_bgr = match colour {
        Some(ColourOrder::Grey) => return None,
        colour => colour == Some(ColourOrder::Bgr),
    };
    let near = |a: [f32; 3], b: [f32; 3], unit: f32| {
        a.iter().zip(b).all(|(a, b)| (a * unit - b).abs() < 0.002)
    };
    let reversed = |v: [f32; 3]| [v[2], v[1], v[0]];
    let warn = |what: String, fix: &str| Some(Finding::new(Severity::Warning, what, fix));
    // In units of 0..1, whatever the scale is.
    let unit = if n.scale > 0.5 { 1.0 / 255.0 } else { 1.0 };
    let (mean, std) = (Normalize::IMAGENET.mean, Normalize::IMAGENET.std);
    if near(n.mean, std, unit) && near(n.std, mean, unit) {
        return warn(
            format!("mean {:?} and std {:?} are exchanged", n.mean, n.std),
            "mean = [0.485, 0.456, 0.406], std = [0.229, 0.224, 0.225]",
        );
    }
    let caffe = [123.68, 116.779, 103.939].map(|v| v / 255.0);
    for known in [mean, caffe] {
        let in_rgb = near(n.mean, known, unit);
        let in_bgr = near(n.mean, reversed(known), unit);
        let (name, other) = if is_bgr {
            ("bgr", "rgb")
        } else {
            ("rgb", "bgr")
        };
        if (in_rgb && is_bgr) || (in_bgr && !is_bgr) {
            let what = format!(
                "mean {:?} is ImageNet's in the order of {other}, but colour is {name}",
                n.mean
            );
            return warn(
                what,
                &format!("colour = \"{other}\", or mean and std in the order of {name}"),
            );
        }
        let std_reversed = near(n.std, if is_bgr { std } else { reversed(std) }, unit);
        if (in_rgb || in_bgr) && std_reversed {
            return warn(
                format!("std {:?} is in another order than mean {:?}", n.std, n.mean),
                "the same order for both",
            );
        }
    }
    None
}

/// The lowest and the highest value that a pixel becomes.
fn span(n: &Normalize) -> (f32, f32) {
    let at = |pixel: f32| (0..3).map(move |c| (pixel * n.scale - n.mean[c]) / n.std[c]);
    let low = at(0.0).fold(f32::INFINITY, f32::min);
    (low, at(255.0).fold(f32::NEG_INFINITY, f32::max))
}

/// How well a normalization fills what the input's quantizer can represent: 1 exactly, 0 not at all.
fn fit(n: &Normalize, range: (f32, f32)) -> f32 {
    let (low, high) = span(n);
    let symmetric = (range.0 + range.1).abs() < 0.02 * (range.1 - range.0);
    let (low, high) = match symmetric {
        // A symmetric quantizer covers the larger side on both.
        true => (-high.max(-low), high.max(-low)),
        false => (low, high),
    };
    let overlap = (high.min(range.1) - low.max(range.0)).max(0.0);
    overlap / (high.max(range.1) - low.min(range.0))
}

/// The input's quantizer was set by the calibration images: it tells how they were normalized.
fn calibrated(n: &Normalize, range: (f32, f32)) -> Finding {
    let (low, high) = span(n);
    let covers = format!(
        "the input's quantizer covers {:.2} to {:.2}, pixels become {low:.2} to {high:.2}",
        range.0, range.1
    );
    if fit(n, range) >= 0.6 {
        return Finding::good(covers);
    }
    let best = KNOWN
        .iter()
        .map(|(name, k)| (fit(k, range), name, k))
        .max_by(|a, b| a.0.total_cmp(&b.0));
    let fix = match best.filter(|b| b.0 >= 0.8) {
        Some((_, name, known)) => format!("{name} would fit: {}", as_toml(known)),
        None => "use the normalization that the calibration images had".into(),
    };
    Finding::new(
        Severity::Warning,
        format!("mean, std or scale are not those of the calibration: {covers}"),
        fix,
    )
}

fn softmax(m: &Manifest, in_graph: usize) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut warn = |what: &str, fix: &str| found.push(Finding::new(Severity::Warning, what, fix));
    let role = m.output.role;
    if in_graph >= 2 {
        warn(
            "the graph ends in two softmaxes: every probability is near 1 / classes",
            "export the model without its own softmax",
        );
    }
    if role == Some(OutputRole::Logits) && in_graph >= 1 {
        warn(
            "softmax twice: the graph ends in one, and role = \"logits\" adds another",
            "role = \"probabilities\", or leave [output] out",
        );
    }
    let golden = m
        .golden
        .as_ref()
        .map(|g| g.output.as_slice())
        .unwrap_or_default();
    let are_probabilities = golden.len() > 1
        && golden.iter().all(|v| (0.0..=1.0).contains(v))
        && (golden.iter().sum::<f32>() - 1.0).abs() < 0.02;
    if in_graph == 0 && are_probabilities && role != Some(OutputRole::Probabilities) {
        warn(
            "softmax twice: the golden output is probabilities already (they sum to 1)",
            "role = \"probabilities\" in [output]",
        );
    }
    if in_graph == 0
        && !are_probabilities
        && !golden.is_empty()
        && role == Some(OutputRole::Probabilities)
    {
        warn(
            "role = \"probabilities\", but the graph ends in no softmax and the golden output does not sum to 1",
            "role = \"logits\", or leave [output] out",
        );
    }
    found
}

/// One label too many or too few is nearly always the background class.
fn label_count(labels: usize, outputs: usize) -> String {
    if outputs == labels + 1 {
        "the model probably has a background class first: put a line `background` before the others"
            .into()
    } else if labels == outputs + 1 {
        "there is probably a header, or a `background` line that this model does not have: remove the first line".into()
    } else {
        "take the label file that the model was trained with".into()
    }
}

fn label_names(labels: &Labels) -> Vec<Finding> {
    let mut found = Vec::new();
    let names: Vec<&str> = labels.iter().collect();
    if names.is_empty() {
        return vec![Finding::new(
            Severity::Hint,
            "no labels: results are class numbers",
            "labels.txt in the bundle, a name a line",
        )];
    }
    // ImageNet's first class; the order of its thousand is the same everywhere but for a background class.
    if matches!(names.len(), 1000 | 1001) {
        let expected = names.len() - 1000;
        let tench = names
            .iter()
            .take(3)
            .position(|n| n.to_lowercase().contains("tench"));
        if let Some(at) = tench.filter(|at| *at != expected) {
            let what = format!(
                "the labels are shifted by one: `{}` is line {}, and line {} in ImageNet's {} classes",
                names[at],
                at + 1,
                expected + 1,
                names.len()
            );
            let fix = match at > expected {
                true => "remove the first line (`background`)",
                false => "put a line `background` first",
            };
            found.push(Finding::new(Severity::Warning, what, fix));
        }
    }
    let empty = names.iter().position(|n| n.is_empty());
    if let Some(line) = empty {
        found.push(Finding::new(
            Severity::Warning,
            format!("line {} of the labels is empty", line + 1),
            "a name a line, in the order of the output",
        ));
    }
    let mut seen = HashSet::new();
    let twice: Vec<&str> = names
        .iter()
        .filter(|n| !n.is_empty() && !seen.insert(**n))
        .copied()
        .collect();
    if !twice.is_empty() {
        let what = format!(
            "labels that stand for several classes: {}",
            twice[..twice.len().min(5)].join(", ")
        );
        found.push(Finding::new(
            Severity::Hint,
            what,
            "different names, if the classes are",
        ));
    }
    found
}

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
    let is_float = |l: &&super::Layer| matches!(l.placement, Placement::Float(_)) && l.macs > 0;
    match a.layers.iter().any(|l| l.placement == Placement::Integer) {
        false => found.push(Finding::new(Severity::Hint, summary, "an int8 model is a quarter of the size and several times as fast: quantize it (docs/models.md)")),
        true => found.push(Finding { severity: if a.layers.iter().any(|l| is_float(&l)) { Severity::Hint } else { Severity::Good }, what: summary, fix: None }),
    }
    found
}

/// A way to feed a model that a manifest may have got wrong.
#[derive(Debug, Clone)]
pub struct Variant {
    /// What is different.
    pub name: String,
    /// The line of model.toml that makes it so.
    pub fix: String,
    /// How frames are prepared then.
    pub input: InputSpec,
}

/// The input as it is (first), and every other way to feed the model that is worth a try.
pub fn variants(input: &InputSpec) -> Vec<Variant> {
    let mut variants = vec![Variant {
        name: "as model.toml says".into(),
        fix: String::new(),
        input: input.clone(),
    }];
    let swapped = match input.colour {
        ColourOrder::Rgb => Some((ColourOrder::Bgr, "bgr")),
        ColourOrder::Bgr => Some((ColourOrder::Rgb, "rgb")),
        ColourOrder::Grey => None,
    };
    if let Some((colour, name)) = swapped {
        let input = InputSpec {
            colour,
            ..input.clone()
        };
        variants.push(Variant {
            name: format!("colour {name}"),
            fix: format!("colour = \"{name}\""),
            input,
        });
    }
    // A quantized input has its scale in the graph; the pixel's own normalization stays one of these all the same.
    let raw = matches!(input.dtype, InputType::U8 { .. } | InputType::I8 { .. });
    for (name, normalize) in KNOWN.iter().filter(|(_, n)| *n != input.normalize) {
        if raw && *normalize == Normalize::IMAGENET {
            continue;
        }
        let input = InputSpec {
            normalize: *normalize,
            ..input.clone()
        };
        variants.push(Variant {
            name: (*name).into(),
            fix: as_toml(normalize),
            input,
        });
    }
    variants
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(text: &str) -> Manifest {
        Manifest::parse(text, Path::new("model.toml")).unwrap()
    }

    fn warnings(found: &[Finding]) -> Vec<&str> {
        let warnings = found.iter().filter(|f| f.severity == Severity::Warning);
        warnings.map(|f| f.what.as_str()).collect()
    }

    /// The quantizer that calibration with ImageNet's normalization leaves (u8, then symmetric s8).
    const IMAGENET_RANGES: [(f32, f32); 2] = [(-2.12, 2.64), (-2.66, 2.64)];

    fn suspicion(input: &str, range: Option<(f32, f32)>) -> String {
        let graph = GraphFacts {
            input_range: range,
            ..GraphFacts::default()
        };
        let found = normalization(&manifest(&format!("[input]\n{input}")).input, &graph);
        warnings(&found).join("; ")
    }

    #[test]
    fn a_right_normalization_raises_no_suspicion() {
        let imagenet = "mean = [0.485, 0.456, 0.406]\nstd = [0.229, 0.224, 0.225]";
        for range in IMAGENET_RANGES {
            assert_eq!(suspicion(imagenet, Some(range)), "");
        }
        assert_eq!(
            suspicion(
                "scale = 1.0\nmean = [123.675, 116.28, 103.53]\nstd = [58.395, 57.12, 57.375]",
                Some((-2.12, 2.64))
            ),
            ""
        );
        assert_eq!(
            suspicion(
                "colour = 'bgr'\nscale = 1.0\nmean = [103.939, 116.779, 123.68]",
                None
            ),
            ""
        );
        assert_eq!(
            suspicion(
                "mean = [0.5, 0.5, 0.5]\nstd = [0.5, 0.5, 0.5]",
                Some((-1.0, 1.0))
            ),
            ""
        );
        assert_eq!(
            suspicion("scale = 0.00392156862745098", Some((-1.0, 0.99))),
            ""
        );
        assert_eq!(suspicion("scale = 1.0", None), "");
    }

    #[test]
    fn wrong_normalizations_are_suspected_each_with_its_cause() {
        let imagenet = (-2.12, 2.64);
        for (input, range, says) in [
            (
                "mean = [123.675, 116.28, 103.53]\nstd = [58.395, 57.12, 57.375]",
                None,
                "for pixels of 0..255",
            ),
            (
                "scale = 1.0\nmean = [0.485, 0.456, 0.406]\nstd = [0.229, 0.224, 0.225]",
                None,
                "for pixels of 0..1",
            ),
            (
                "mean = [0.229, 0.224, 0.225]\nstd = [0.485, 0.456, 0.406]",
                None,
                "exchanged",
            ),
            (
                "colour = 'bgr'\nmean = [0.485, 0.456, 0.406]\nstd = [0.225, 0.224, 0.229]",
                None,
                "in the order of rgb, but colour is bgr",
            ),
            (
                "mean = [0.406, 0.456, 0.485]\nstd = [0.225, 0.224, 0.229]",
                None,
                "in the order of bgr, but colour is rgb",
            ),
            (
                "scale = 1.0\nmean = [103.939, 116.779, 123.68]",
                None,
                "in the order of bgr, but colour is rgb",
            ),
            (
                "mean = [0.485, 0.456, 0.406]\nstd = [0.225, 0.224, 0.229]",
                None,
                "std",
            ),
            (
                "scale = 0.00392156862745098",
                Some(imagenet),
                "not those of the calibration",
            ),
            (
                "scale = 1.0",
                Some(imagenet),
                "not those of the calibration",
            ),
            (
                "mean = [0.485, 0.456, 0.406]\nstd = [0.229, 0.224, 0.225]",
                Some((0.0, 1.0)),
                "not those of the calibration",
            ),
        ] {
            let suspicion = suspicion(input, range);
            assert!(
                suspicion.contains(says),
                "no `{says}` in `{suspicion}` for {input}"
            );
        }
    }

    #[test]
    fn the_calibration_tells_which_normalization_would_fit() {
        let finding = calibrated(&Normalize::NONE, (-2.12, 2.64));
        assert!(finding.fix.unwrap().starts_with("ImageNet's"));
        let finding = calibrated(&Normalize::IMAGENET, (0.0, 255.0));
        assert!(finding.fix.unwrap().starts_with("raw pixels"));
    }

    #[test]
    fn a_normalization_in_the_graph_is_suspected_unless_pixels_stay_raw() {
        let graph = GraphFacts {
            normalizes_by: Some("Sub".into()),
            ..GraphFacts::default()
        };
        let twice = |text: &str| normalization(&manifest(text).input, &graph);
        assert!(warnings(&twice(""))[0].contains("twice"));
        assert_eq!(warnings(&twice("[input]\nscale = 1.0")), [""; 0]);
    }

    #[test]
    fn softmax_twice_is_suspected() {
        let golden = |output: &str| {
            format!("[golden]\nimage = 'g.png'\ntolerance = 0.1\noutput = {output}\n")
        };
        let probabilities = golden("[0.1, 0.7, 0.2]");
        let logits = golden("[-1.0, 7.0, 2.0]");
        let role = |r: &str| format!("[output]\nrole = '{r}'\n");
        for (text, in_graph, says) in [
            (role("logits"), 1, "softmax twice"),
            (String::new(), 2, "two softmaxes"),
            (probabilities.clone(), 0, "softmax twice"),
            (role("probabilities") + &logits, 0, "no softmax"),
        ] {
            let found = softmax(&manifest(&text), in_graph);
            assert!(warnings(&found)[0].contains(says), "{text}: {found:?}");
        }
        for (text, in_graph) in [
            (String::new(), 0),
            (String::new(), 1),
            (role("probabilities"), 1),
            (role("logits") + &logits, 0),
            (role("probabilities") + &probabilities, 0),
        ] {
            assert_eq!(softmax(&manifest(&text), in_graph), [], "{text}");
        }
    }

    #[test]
    fn labels_shifted_by_the_background_class_are_suspected() {
        let imagenet = |first: &[&str], n: usize| {
            let mut names: Vec<String> = first.iter().map(|s| s.to_string()).collect();
            names.extend((names.len()..n).map(|i| format!("class {i}")));
            label_names(&Labels::parse(&names.join("\n")).unwrap())
        };
        assert!(
            warnings(&imagenet(&["background", "tench, Tinca tinca"], 1000))[0].contains("shifted")
        );
        assert!(warnings(&imagenet(&["tench"], 1001))[0].contains("shifted"));
        assert_eq!(imagenet(&["tench"], 1000), []);
        assert_eq!(imagenet(&["background", "n01440764 tench"], 1001), []);
        assert!(label_count(1000, 1001).contains("background"));
        assert!(label_count(1001, 1000).contains("remove"));
    }

    #[test]
    fn a_tolerance_that_passes_anything_is_suspected() {
        let text = "[golden]\nimage = 'g.png'\ntolerance = 50.0\noutput = [1.0, 9.0]\n";
        let found = completeness(&manifest(text));
        assert!(warnings(&found)[0].contains("proves nothing"), "{found:?}");
    }
}
