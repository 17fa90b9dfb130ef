//! Normalization and quantization as one 256-entry table a channel.

use super::{InputSpec, InputType};

/// What each 8-bit pixel value becomes in the input tensor, for each channel in the model's order.
///
/// Normalization, the model's input scale and zero point are all in here: nothing else is computed for an element.
#[derive(Debug, Clone, PartialEq)]
pub enum PixelTable {
    /// The normalized value.
    F32(Box<[[f32; 256]; 3]>),
    /// The quantized normalized value.
    U8(Box<[[u8; 256]; 3]>),
    /// The quantized normalized value.
    I8(Box<[[i8; 256]; 3]>),
}

impl PixelTable {
    /// The table for a model's input.
    pub fn new(spec: &InputSpec) -> Self {
        let n = spec.normalize;
        // In f64, rounded once: (pixel · scale − mean) / std.
        let normalized = |channel: usize, pixel: usize| {
            (pixel as f64 * f64::from(n.scale) - f64::from(n.mean[channel]))
                / f64::from(n.std[channel])
        };
        let quantized = |channel: usize, pixel: usize, scale: f32| {
            // In f32, as a model quantizes a float input.
            (normalized(channel, pixel) as f32 / scale).round_ties_even()
        };
        // `as` saturates.
        match spec.dtype {
            InputType::F32 => Self::F32(fill(|c, p| normalized(c, p) as f32)),
            InputType::U8 { scale, zero_point } => Self::U8(fill(|c, p| {
                (quantized(c, p, scale) + f32::from(zero_point)) as u8
            })),
            InputType::I8 { scale, zero_point } => Self::I8(fill(|c, p| {
                (quantized(c, p, scale) + f32::from(zero_point)) as i8
            })),
        }
    }
}

fn fill<T: Copy + Default>(value: impl Fn(usize, usize) -> T) -> Box<[[T; 256]; 3]> {
    let mut table = Box::new([[T::default(); 256]; 3]);
    for (c, channel) in table.iter_mut().enumerate() {
        for (p, entry) in channel.iter_mut().enumerate() {
            *entry = value(c, p);
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::super::{ColourOrder, Layout, Normalize, ResizePolicy};
    use super::*;

    fn table(dtype: InputType, normalize: Normalize) -> PixelTable {
        PixelTable::new(&InputSpec {
            width: 1,
            height: 1,
            layout: Layout::Nhwc,
            colour: ColourOrder::Rgb,
            dtype,
            resize: ResizePolicy::Stretch,
            normalize,
        })
    }

    #[test]
    fn floats_are_normalized() {
        let PixelTable::F32(t) = table(InputType::F32, Normalize::IMAGENET) else {
            panic!()
        };
        assert!((t[0][0] - (-0.485 / 0.229)).abs() < 1e-6);
        assert!((t[2][255] - (1.0 - 0.406) / 0.225).abs() < 1e-6);
    }

    #[test]
    fn bytes_are_quantized_half_to_even_and_saturated() {
        let u8_type = InputType::U8 {
            scale: 2.0,
            zero_point: 0,
        };
        let PixelTable::U8(t) = table(u8_type, Normalize::NONE) else {
            panic!()
        };
        assert_eq!(
            [t[0][1], t[0][2], t[0][3], t[0][5], t[0][255]],
            [0, 1, 2, 2, 128]
        );

        let raw = InputType::U8 {
            scale: 1.0,
            zero_point: 0,
        };
        let PixelTable::U8(t) = table(raw, Normalize::NONE) else {
            panic!()
        };
        assert!((0..256).all(|p| usize::from(t[1][p]) == p));

        let shifted = InputType::I8 {
            scale: 1.0,
            zero_point: -128,
        };
        let PixelTable::I8(t) = table(shifted, Normalize::NONE) else {
            panic!()
        };
        assert_eq!([t[0][0], t[0][128], t[0][255]], [-128, 0, 127]);

        let narrow = InputType::I8 {
            scale: 0.001,
            zero_point: 0,
        };
        let PixelTable::I8(t) = table(narrow, Normalize::IMAGENET) else {
            panic!()
        };
        assert_eq!([t[0][0], t[0][255]], [-128, 127]);
    }
}
