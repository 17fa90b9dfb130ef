//! Where a frame lies in the input: the arithmetic of the resize policies.

use std::ops::Range;

use super::{InputMapping, InputSpec, ResizePolicy};

/// A frame resized to `resized` and laid with its origin at `offset` of the input; what the input does not see is
/// cut off, what the frame does not cover is [`Border`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Placement {
    frame: (u32, u32),
    /// Width and height of the whole resized frame, in input pixels.
    pub resized: (u64, u64),
    offset: (i64, i64),
    input: (u32, u32),
    pub border: Border,
}

/// What the frame does not cover.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Border {
    /// Pixels of this value.
    Pixel(u8),
    /// 0 in the tensor, after the normalization.
    Zero,
}

impl Placement {
    /// `frame` is not empty.
    pub fn new(spec: &InputSpec, frame: (u32, u32)) -> Self {
        let input = (spec.width, spec.height);
        let black = Border::Pixel(0);
        let (resized, centre, border) = match spec.resize {
            ResizePolicy::Stretch => ((input.0.into(), input.1.into()), false, black),
            ResizePolicy::ShortSideCrop { short_side } => {
                (short_side_to(short_side, frame), true, black)
            }
            ResizePolicy::Letterbox { fill, centre } => {
                (fit(input, frame, centre), centre, Border::Pixel(fill))
            }
            ResizePolicy::Pad => (fit(input, frame, false), false, Border::Zero),
        };
        let offset = |input: u32, resized: u64| {
            if centre {
                centre_offset(input, resized)
            } else {
                0
            }
        };
        Self {
            frame,
            resized,
            offset: (offset(input.0, resized.0), offset(input.1, resized.1)),
            input,
            border,
        }
    }

    /// The input's columns that the frame covers, and the resized frame's column that lies in the first of them.
    pub fn columns(&self) -> (Range<usize>, u64) {
        covered(self.input.0, self.resized.0, self.offset.0)
    }

    /// As [`columns`](Self::columns), for rows.
    pub fn rows(&self) -> (Range<usize>, u64) {
        covered(self.input.1, self.resized.1, self.offset.1)
    }

    /// How many frame pixels make one input pixel, on the axis that shrinks less.
    pub fn reduction(&self) -> f64 {
        let x = self.frame.0 as f64 / self.resized.0 as f64;
        let y = self.frame.1 as f64 / self.resized.1 as f64;
        x.min(y)
    }

    pub fn mapping(&self) -> InputMapping {
        InputMapping {
            frame: self.frame,
            scale: (
                (self.resized.0 as f64 / self.frame.0 as f64) as f32,
                (self.resized.1 as f64 / self.frame.1 as f64) as f32,
            ),
            offset: (self.offset.0 as f32, self.offset.1 as f32),
        }
    }
}

/// torchvision's `Resize(int)`: the long side is cut to whole pixels, not rounded.
fn short_side_to(short_side: u32, (w, h): (u32, u32)) -> (u64, u64) {
    let side = u64::from(short_side.max(1));
    let (w, h) = (u64::from(w), u64::from(h));
    if w <= h {
        (side, side * h / w)
    } else {
        (side * w / h, side)
    }
}

/// The largest size of the frame's shape within the input. Whole pixels as the models' own code has them:
/// rounded where the picture is centred (YOLOv5), cut where it is not (YOLOX, torchvision).
fn fit(input: (u32, u32), frame: (u32, u32), round: bool) -> (u64, u64) {
    let [iw, ih, fw, fh] = [input.0, input.1, frame.0, frame.1].map(u64::from);
    let other = |side: u64, num: u64, den: u64| {
        let half = if round { den / 2 } else { 0 };
        ((side * num + half) / den).max(1)
    };
    if iw * fh <= ih * fw {
        (iw, other(iw, fh, fw).min(ih))
    } else {
        (other(ih, fw, fh).min(iw), ih)
    }
}

/// torchvision's `CenterCrop`: Python's `round` (half to even) where it cuts, floor where it pads.
fn centre_offset(input: u32, resized: u64) -> i64 {
    let (input, resized) = (i64::from(input), resized as i64);
    if resized >= input {
        let twice = resized - input;
        let half = twice / 2;
        -(half + (twice % 2) * (half % 2))
    } else {
        (input - resized) / 2
    }
}

fn covered(input: u32, resized: u64, offset: i64) -> (Range<usize>, u64) {
    let first = offset.max(0);
    let end = (offset + resized as i64).min(i64::from(input));
    (first as usize..end as usize, (first - offset) as u64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{ColourOrder, InputType, Layout, Normalize};
    use super::*;

    fn spec(width: u32, height: u32, resize: ResizePolicy) -> InputSpec {
        InputSpec {
            width,
            height,
            layout: Layout::Nchw,
            colour: ColourOrder::Rgb,
            dtype: InputType::F32,
            resize,
            normalize: Normalize::NONE,
        }
    }

    #[test]
    fn sizes_and_offsets_are_torchvisions() {
        let crop = ResizePolicy::ShortSideCrop { short_side: 256 };
        // frame, resized, offset: Resize(256) and CenterCrop(224) of torchvision.
        for (frame, resized, offset) in [
            ((1280, 720), (455, 256), (-116, -16)), // 115.5 → 116
            ((500, 375), (341, 256), (-58, -16)),   // 58.5 → 58
            ((375, 500), (256, 341), (-16, -58)),
            ((256, 256), (256, 256), (-16, -16)),
            ((3, 1000), (256, 85_333), (-16, -42_554)), // 42554.5 → 42554
        ] {
            let p = Placement::new(&spec(224, 224, crop), frame);
            assert_eq!((p.resized, p.offset), (resized, offset), "{frame:?}");
        }
    }

    #[test]
    fn a_crop_larger_than_the_resized_frame_is_padded() {
        let crop = ResizePolicy::ShortSideCrop { short_side: 100 };
        let p = Placement::new(&spec(224, 224, crop), (400, 100));
        assert_eq!(p.columns(), (0..224, 88));
        assert_eq!(p.rows(), (62..162, 0));
    }

    #[test]
    fn letterboxes_are_the_models_own() {
        let at = |centre, frame| {
            Placement::new(
                &spec(416, 416, ResizePolicy::Letterbox { fill: 114, centre }),
                frame,
            )
        };
        let yolox = at(false, (640, 427));
        assert_eq!((yolox.resized, yolox.offset), ((416, 277), (0, 0)));
        let padded = Placement::new(&spec(416, 416, ResizePolicy::Pad), (640, 427));
        assert_eq!((padded.resized, padded.offset), ((416, 277), (0, 0)));
        let yolov5 = at(true, (640, 427));
        assert_eq!((yolov5.resized, yolov5.offset), ((416, 278), (0, 69)));
    }

    proptest! {
        #[test]
        fn a_letterbox_holds_the_whole_frame_and_maps_back(
            fw in 1u32..5000, fh in 1u32..5000, iw in 1u32..900, ih in 1u32..900, centre: bool,
            x in 0f32..1.0, y in 0f32..1.0,
        ) {
            let p = Placement::new(&spec(iw, ih, ResizePolicy::Letterbox { fill: 0, centre }), (fw, fh));
            prop_assert!(p.resized.0 == u64::from(iw) || p.resized.1 == u64::from(ih));
            let (columns, first) = p.columns();
            prop_assert_eq!((columns.len() as u64, first), (p.resized.0, 0));
            let (rows, first) = p.rows();
            prop_assert_eq!((rows.len() as u64, first), (p.resized.1, 0));
            let m = p.mapping();
            // The frame's corners are the corners of what it covers.
            for (at, end) in [(0.0, 0.0), (1.0, 1.0)] {
                let (ix, iy) = m.to_input(at * fw as f32, at * fh as f32);
                let cx = columns.start as f32 + end * columns.len() as f32;
                let cy = rows.start as f32 + end * rows.len() as f32;
                prop_assert!((ix - cx).abs() < 1e-3 * iw as f32 && (iy - cy).abs() < 1e-3 * ih as f32);
            }
            let (fx, fy) = (x * fw as f32, y * fh as f32);
            let (ix, iy) = m.to_input(fx, fy);
            let (bx, by) = m.to_frame(ix, iy);
            // f32: an offset of up to 900 pixels costs its last bits, magnified by 1/scale.
            prop_assert!((bx - fx).abs() <= 2e-4 * (1.0 + fw as f32 + 1.0 / m.scale.0), "{} {}", bx, fx);
            prop_assert!((by - fy).abs() <= 2e-4 * (1.0 + fh as f32 + 1.0 / m.scale.1), "{} {}", by, fy);
        }
    }
}
