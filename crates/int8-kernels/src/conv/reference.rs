//! The scalar convolution: the specification of every other one, and the kernel where there is no instruction set for one.

use std::ops::Range;

use super::ConvSpec;
use crate::{Geometry, Sign};

#[derive(Clone, Debug)]
pub(super) struct Reference {
    geometry: Geometry,
    pub(super) sign: Sign,
    input_zero: i32,
    weights: Vec<i8>,
    channels: Vec<Channel>,
}

/// The numbers of one output channel.
#[derive(Clone, Copy, Debug)]
struct Channel {
    weight_zero: i32,
    bias: i32,
    multiplier: f32,
}

impl Reference {
    pub(super) fn new(spec: &ConvSpec) -> Self {
        let channel = |o| Channel {
            weight_zero: spec.weight_zero(o),
            bias: spec.bias.get(o).copied().unwrap_or(0),
            multiplier: spec.multiplier(o),
        };
        Self {
            geometry: spec.geometry,
            sign: spec.sign,
            input_zero: spec.input_zero,
            weights: spec.weights.to_vec(),
            channels: (0..spec.geometry.output.c).map(channel).collect(),
        }
    }

    pub(super) fn weight_bytes(&self) -> usize {
        self.weights.len()
    }

    /// Calls `write` with each output's place (counted from the first pixel) and its value in steps of the output's scale.
    pub(super) fn run(
        &self,
        input: &[u8],
        pixels: Range<usize>,
        mut write: impl FnMut(usize, f32),
    ) {
        let Geometry {
            input: shape,
            output,
            groups,
            ..
        } = self.geometry;
        let (depth, group_outputs) = (shape.c / groups, output.c / groups);
        for (row, pixel) in pixels.enumerate() {
            for (o, channel) in self.channels.iter().enumerate() {
                let weights = &self.weights[o * self.geometry.taps() * depth..];
                let first = o / group_outputs * depth;
                let mut acc = channel.bias;
                for (tap, at) in self.geometry.window_at(pixel) {
                    let input = &input[at * shape.c + first..][..depth];
                    let weights = &weights[tap * depth..][..depth];
                    let products = input.iter().zip(weights).map(|(&x, &w)| {
                        (self.sign.value(x) - self.input_zero)
                            * (i32::from(w) - channel.weight_zero)
                    });
                    acc = acc.wrapping_add(products.fold(0, i32::wrapping_add));
                }
                write(row * output.c + o, acc as f32 * channel.multiplier);
            }
        }
    }
}
