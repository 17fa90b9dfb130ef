//! Other ways to feed a model, to be tried on labelled images.
//!
//! In: how the model is fed. Out: every way that a manifest gets wrong often. Pure.

use super::normalization::{KNOWN, as_toml};
use crate::preprocess::{ColourOrder, InputSpec, InputType, Normalize};

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
