//! The input's shape and type in the graph, and what the manifest says → how frames are prepared.

use super::ManifestInput;
use super::engine::{InputElement, Network};
use crate::preprocess::{ColourOrder, InputSpec, InputType, Layout, ResizePolicy, UsualInput};

/// The input's axes.
fn axes(network: &Network, said: &ManifestInput) -> Result<(Layout, [usize; 3]), String> {
    let [_, a, b, c] = network.input_shape;
    let channels = |n: usize| n == 1 || n == 3;
    let layout = match said.layout {
        _ if network.byte_input => Layout::Nhwc,
        Some(layout) => layout,
        None if channels(a) => Layout::Nchw,
        None if channels(c) => Layout::Nhwc,
        None => {
            return Err(format!(
                "no axis of the input {:?} has 1 or 3 channels",
                network.input_shape
            ));
        }
    };
    let axes = match layout {
        Layout::Nchw => [a, b, c],
        Layout::Nhwc => [c, a, b],
    };
    if !channels(axes[0]) || network.input_shape[0] != 1 {
        return Err(format!(
            "the input {:?} is not one picture of 1 or 3 channels",
            network.input_shape
        ));
    }
    Ok((layout, axes))
}

/// Width and height of the input.
pub(super) fn size(network: &Network, said: &ManifestInput) -> Result<(usize, usize), String> {
    let (_, [_, height, width]) = axes(network, said)?;
    Ok((width, height))
}

/// Whether the picture's last axis is the channels, in the file.
pub(super) fn channels_last(network: &Network, said: &ManifestInput) -> Result<bool, String> {
    let (layout, _) = axes(network, said)?;
    Ok(layout == Layout::Nhwc && !network.byte_input)
}

/// What the model is fed: as the manifest says, then as is usual for such a network, the rest from the graph. What was
/// assumed goes into `notes`.
pub(super) fn spec(
    network: &Network,
    said: &ManifestInput,
    usual: Option<UsualInput>,
    notes: &mut Vec<String>,
) -> Result<InputSpec, String> {
    let (layout, [channel_count, height, width]) = axes(network, said)?;
    let mut said = said.or(usual);
    if channel_count == 1 && usual.is_some_and(|u| said.colour == Some(u.colour)) {
        said.colour = None;
    }
    let colour = match said.colour {
        Some(colour) if colour.channels() != channel_count => {
            return Err(format!(
                "model.toml says {colour:?}, but the input has {channel_count} channel(s)"
            ));
        }
        Some(colour) => colour,
        None if channel_count == 1 => ColourOrder::Grey,
        None => ColourOrder::Rgb,
    };
    let (normalize, is_said) = said.normalize();
    if !is_said {
        notes.push(
            "normalization not stated: ImageNet's mean and standard deviation are assumed".into(),
        );
    }
    let (width, height) = (width as u32, height as u32);
    let resize = said.resize.unwrap_or_else(|| {
        // ImageNet's evaluation keeps 224 of 256; pictures as small as CIFAR's are shown whole.
        if width.min(height) <= 64 {
            ResizePolicy::Stretch
        } else {
            ResizePolicy::ShortSideCrop {
                short_side: (width.max(height) * 256).div_ceil(224),
            }
        }
    });
    let dtype = match network.input_type {
        InputElement::F32 => InputType::F32,
        InputElement::U8 { scale, zero_point } => InputType::U8 { scale, zero_point },
        InputElement::I8 { scale, zero_point } => InputType::I8 { scale, zero_point },
    };
    Ok(InputSpec {
        width,
        height,
        layout,
        colour,
        dtype,
        resize,
        normalize,
    })
}
