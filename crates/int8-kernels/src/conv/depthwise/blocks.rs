//! The numbers of a depthwise convolution, laid out for kernels that compute so many channels at a time.

use crate::conv::ConvSpec;

/// By blocks of LANES channels; after the last channel there are zeros.
#[derive(Clone, Debug)]
pub(super) struct Blocks<W, const LANES: usize> {
    /// How many a channel has.
    each: usize,
    weights: Vec<[W; LANES]>,
    bias: Vec<[i32; LANES]>,
    multipliers: Vec<[f32; LANES]>,
}

impl<W: Copy + Default, const LANES: usize> Blocks<W, LANES> {
    /// `weight` gives each of a channel's `each` weights, `bias` its bias.
    pub(super) fn new(
        spec: &ConvSpec,
        each: usize,
        weight: impl Fn(usize, usize) -> W,
        bias: impl Fn(usize) -> i32,
    ) -> Self {
        let channels = spec.geometry.output.c;
        let mut blocks = Self {
            each,
            weights: Vec::new(),
            bias: Vec::new(),
            multipliers: Vec::new(),
        };
        for first in (0..channels).step_by(LANES) {
            for at in 0..each {
                let weights = lanes(first, channels, |c| weight(c, at));
                blocks.weights.push(weights);
            }
            blocks.bias.push(lanes(first, channels, &bias));
            let multipliers = lanes(first, channels, |c| spec.multiplier(c));
            blocks.multipliers.push(multipliers);
        }
        blocks
    }

    /// With the channels of each block in another order: lane `i` gets the number of channel `order(i)`.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn reordered(mut self, order: fn(usize) -> usize) -> Self {
        fn reorder<T: Copy, const LANES: usize>(all: &mut [[T; LANES]], order: fn(usize) -> usize) {
            for lanes in all {
                *lanes = std::array::from_fn(|i| lanes[order(i)]);
            }
        }
        reorder(&mut self.weights, order);
        reorder(&mut self.bias, order);
        reorder(&mut self.multipliers, order);
        self
    }

    /// Weights, bias and multipliers of each block.
    #[inline(always)]
    pub(super) fn iter(
        &self,
    ) -> impl Iterator<Item = (&[[W; LANES]], &[i32; LANES], &[f32; LANES])> {
        let blocks = self.bias.iter().zip(&self.multipliers);
        let blocks = blocks.zip(self.weights.chunks_exact(self.each));
        blocks.map(|((bias, multipliers), weights)| (weights, bias, multipliers))
    }

    pub(super) fn weight_bytes(&self) -> usize {
        size_of_val(&self.weights[..])
    }
}

/// A number for each channel from `first` on, and zeros after the last one.
fn lanes<T: Default, const LANES: usize>(
    first: usize,
    channels: usize,
    number: impl Fn(usize) -> T,
) -> [T; LANES] {
    std::array::from_fn(|i| match first + i {
        channel if channel < channels => number(channel),
        _ => T::default(),
    })
}
