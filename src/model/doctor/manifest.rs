//! What a manifest and its labels say, beside each other and beside the graph.
//!
//! In: a manifest, labels. Out: findings. Pure.

use std::collections::HashSet;

use super::{Finding, Severity};
use crate::model::{Labels, Manifest, OutputRole, stands_for_something};

/// What a bundle says about itself.
pub(super) fn completeness(m: &Manifest) -> Vec<Finding> {
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

pub(super) fn softmax(m: &Manifest, in_graph: usize) -> Vec<Finding> {
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
pub(super) fn label_count(labels: usize, outputs: usize) -> String {
    if outputs == labels + 1 {
        "the model probably has a background class first: put a line `background` before the others"
            .into()
    } else if labels == outputs + 1 {
        "there is probably a header, or a `background` line that this model does not have: remove the first line".into()
    } else {
        "take the label file that the model was trained with".into()
    }
}

pub(super) fn label_names(labels: &Labels) -> Vec<Finding> {
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
        .filter(|n| !n.is_empty() && stands_for_something(n) && !seen.insert(**n))
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

#[cfg(test)]
mod tests {
    use super::super::tests::{manifest, warnings};
    use super::*;

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
