//! Whether mean, standard deviation, scale and colour order can be what the network was trained and calibrated with.
//!
//! In: the manifest's `[input]` and what the graph tells. Out: findings. Pure.

use super::{Finding, Severity};
use crate::model::ManifestInput;
use crate::model::anatomy::GraphFacts;
use crate::preprocess::{ColourOrder, Normalize};

/// Mean and standard deviation in the order of `colour`, with the names that people know.
pub(super) const KNOWN: [(&str, Normalize); 5] = [
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
pub(super) fn as_toml(n: &Normalize) -> String {
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

pub(super) fn normalization(said: &ManifestInput, graph: &GraphFacts) -> Vec<Finding> {
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

#[cfg(test)]
mod tests {
    use super::super::tests::{manifest, warnings};
    use super::*;

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
}
