//! A frame's bytes → the model's input tensor: decode, crop or letterbox, resize, normalize.
//!
//! In: a [`Frame`] in any [`PixelFormat`], or a [`Region`] of one. Out: an [`InputTensor`]
//! that the caller owns and reuses. On the `infer-<n>` threads. Always holds: no allocation a frame in steady state
//! beyond what a decoder needs; a bad frame is an error, never a panic; what a privacy mask covers goes into no tensor.
//!
//! Colours: raw YUV is BT.601 in video's limited range, as cameras give it; JPEG is BT.601 in full range; grey is
//! full range. EXIF orientation is not applied (nor does Pillow by default): a camera's frames have none.

mod colour;
mod jpeg;
mod mask;
mod placement;
mod plan;
mod raw;
mod region;
mod resample;
mod still;
mod table;

use std::time::{Duration, Instant};

use crate::frame::{Frame, PixelFormat};
pub use mask::apply_mask;
use plan::{Plan, Source};
pub use region::Region;
pub use still::{frame_from_image_bytes, frame_size, image_size};
pub use table::PixelTable;

/// Larger frames are refused, before anything is allocated for them: 64 megapixels.
pub const MAX_PIXELS: u64 = 64 << 20;

/// How a kind of network is usually fed, where nothing else is said.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct UsualInput {
    /// Order of the channels.
    pub colour: ColourOrder,
    /// What is done to the pixels.
    pub normalize: Normalize,
    /// How a frame becomes the input's size.
    pub resize: ResizePolicy,
}

/// What the model wants to be fed.
#[derive(Debug, Clone, PartialEq)]
pub struct InputSpec {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Order of the axes (batch is 1).
    pub layout: Layout,
    /// Order of the channels.
    pub colour: ColourOrder,
    /// Element type.
    pub dtype: InputType,
    /// How a frame becomes width × height.
    pub resize: ResizePolicy,
    /// Per channel, in the model's channel order: `(pixel · scale − mean) / std`.
    pub normalize: Normalize,
}

/// Order of the tensor's axes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// `[1, channels, height, width]`
    Nchw,
    /// `[1, height, width, channels]`
    Nhwc,
}

/// Order of the channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ColourOrder {
    /// Red first.
    Rgb,
    /// Blue first.
    Bgr,
    /// One channel: luma.
    Grey,
}

impl ColourOrder {
    /// 3, or 1 for grey.
    pub fn channels(self) -> usize {
        if self == Self::Grey { 1 } else { 3 }
    }
}

/// Element type of the input tensor.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum InputType {
    /// 32-bit float: the normalized value.
    F32,
    /// `round(normalized / scale) + zero_point`, saturated to 0..=255. Scale 1, zero point 0 and no normalization
    /// is the raw pixel.
    U8 {
        /// Quantization scale.
        scale: f32,
        /// Quantization zero point.
        zero_point: u8,
    },
    /// `round(normalized / scale) + zero_point`, saturated to −128..=127.
    I8 {
        /// Quantization scale.
        scale: f32,
        /// Quantization zero point.
        zero_point: i8,
    },
}

/// How a frame becomes the input's size. Resizing is antialiased bilinear, as Pillow's.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResizePolicy {
    /// Short side to `short_side` pixels, then the centre (ImageNet: 256, then 224×224).
    ShortSideCrop {
        /// Length of the short side after the resize, in pixels.
        short_side: u32,
    },
    /// The whole frame, aspect ratio lost.
    Stretch,
    /// The whole frame, aspect ratio kept, the rest filled.
    Letterbox {
        /// Value of the border's pixels.
        fill: u8,
        /// Whether the picture is centred (YOLOv5 and later) or at the top left (YOLOX).
        centre: bool,
    },
    /// The whole frame at the top left, aspect ratio kept; the rest is 0 after the normalization (torchvision's detectors).
    Pad,
}

/// `(pixel · scale − mean[c]) / std[c]`, in the model's channel order.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Normalize {
    /// Factor for the 8-bit pixel: 1/255 for models trained on 0 to 1.
    pub scale: f32,
    /// Subtracted after scaling.
    pub mean: [f32; 3],
    /// Divided by at the end.
    pub std: [f32; 3],
}

impl Normalize {
    /// torchvision's: pixels to 0..1, mean .485 .456 .406, std .229 .224 .225 (RGB).
    pub const IMAGENET: Self = Self {
        scale: 1.0 / 255.0,
        mean: [0.485, 0.456, 0.406],
        std: [0.229, 0.224, 0.225],
    };
    /// The raw pixel.
    pub const NONE: Self = Self {
        scale: 1.0,
        mean: [0.0; 3],
        std: [1.0; 3],
    };
}

/// The model's input, batch 1, in the spec's layout.
#[derive(Debug, Clone, PartialEq)]
pub struct InputTensor {
    /// The axes' lengths, in the spec's layout.
    pub shape: [usize; 4],
    /// The elements, row-major.
    pub data: InputData,
    /// Where the frame lies in it: left, top, right and bottom edge in pixels; all of it until a frame was.
    pub picture: [f32; 4],
}

/// Elements of an [`InputTensor`].
#[derive(Debug, Clone, PartialEq)]
pub enum InputData {
    /// Float.
    F32(Vec<f32>),
    /// Unsigned bytes.
    U8(Vec<u8>),
    /// Signed bytes.
    I8(Vec<i8>),
}

/// Where the model's input lies in the frame: to bring boxes back.
/// `frame_px = (input_px − offset) / scale`, for each axis.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct InputMapping {
    /// Frame width and height in pixels (as decoded).
    pub frame: (u32, u32),
    /// Input pixels a frame pixel, x and y.
    pub scale: (f32, f32),
    /// Where the frame's origin lies in the input, in input pixels (negative when cropped).
    pub offset: (f32, f32),
}

impl InputMapping {
    /// A point of the input, in the frame's pixels.
    pub fn to_frame(&self, x: f32, y: f32) -> (f32, f32) {
        (
            (x - self.offset.0) / self.scale.0,
            (y - self.offset.1) / self.scale.1,
        )
    }

    /// The part of an input of this width and height that shows the frame: left, top, right and bottom edge in pixels.
    pub fn picture(&self, input: (usize, usize)) -> [f32; 4] {
        // What is made of a frame has whole pixels.
        let edge = |v: f32, side: usize| v.round().clamp(0.0, side as f32);
        let (x0, y0) = self.to_input(0.0, 0.0);
        let (x1, y1) = self.to_input(self.frame.0 as f32, self.frame.1 as f32);
        [
            edge(x0, input.0),
            edge(y0, input.1),
            edge(x1, input.0),
            edge(y1, input.1),
        ]
    }

    /// A point of the frame, in the input's pixels.
    pub fn to_input(&self, x: f32, y: f32) -> (f32, f32) {
        (
            x * self.scale.0 + self.offset.0,
            y * self.scale.1 + self.offset.1,
        )
    }
}

impl InputSpec {
    /// The whole frame as bytes R G B, row by row.
    pub fn rgb(width: u32, height: u32) -> Self {
        Self {
            width,
            height,
            layout: Layout::Nhwc,
            colour: ColourOrder::Rgb,
            dtype: InputType::U8 {
                scale: 1.0,
                zero_point: 0,
            },
            resize: ResizePolicy::Stretch,
            normalize: Normalize::NONE,
        }
    }

    /// The axes' lengths of the input.
    pub fn shape(&self) -> [usize; 4] {
        let (c, h, w) = (
            self.colour.channels(),
            self.height as usize,
            self.width as usize,
        );
        match self.layout {
            Layout::Nchw => [1, c, h, w],
            Layout::Nhwc => [1, h, w, c],
        }
    }
}

impl InputTensor {
    /// A tensor of the spec's shape and type, all zeroes.
    pub fn for_spec(spec: &InputSpec) -> Self {
        let shape = spec.shape();
        let len = shape.iter().product();
        let data = match spec.dtype {
            InputType::F32 => InputData::F32(vec![0.0; len]),
            InputType::U8 { .. } => InputData::U8(vec![0; len]),
            InputType::I8 { .. } => InputData::I8(vec![0; len]),
        };
        Self {
            shape,
            data,
            picture: [0.0, 0.0, spec.width as f32, spec.height as f32],
        }
    }

    fn fits(&self, spec: &InputSpec) -> bool {
        let len: usize = spec.shape().iter().product();
        self.shape == spec.shape()
            && match (&self.data, spec.dtype) {
                (InputData::F32(d), InputType::F32) => d.len() == len,
                (InputData::U8(d), InputType::U8 { .. }) => d.len() == len,
                (InputData::I8(d), InputType::I8 { .. }) => d.len() == len,
                _ => false,
            }
    }
}

/// Why a frame gave no tensor. The frame is skipped and counted.
#[derive(Debug, thiserror::Error)]
pub enum PreprocessError {
    /// The bytes are no whole image.
    #[error("cannot decode {format} frame: {problem}")]
    Undecodable {
        /// The frame's format.
        format: crate::frame::PixelFormat,
        /// What is wrong with it.
        problem: String,
    },
    /// The frame's size and its bytes do not belong together.
    #[error("{format} frame of {width}x{height}, stride {stride_bytes}: {problem}")]
    Geometry {
        /// The frame's format.
        format: PixelFormat,
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// Bytes from row to row.
        stride_bytes: u32,
        /// What is wrong with it.
        problem: String,
    },
    /// The region is not within the frame.
    #[error("{region:?} is not in the frame of {}x{}", size.0, size.1)]
    Region {
        /// What was wanted.
        region: Region,
        /// Width and height of the frame, as decoded.
        size: (u32, u32),
    },
    /// The bytes are no image file that can be read.
    #[error("no readable JPEG, PNG, BMP or WebP image: {0}")]
    Image(String),
    /// The tensor was not made for the preprocessor's spec.
    #[error("the tensor has the shape {found:?} or another type than the input ({wanted:?})")]
    Tensor {
        /// The tensor's shape.
        found: [usize; 4],
        /// The spec's shape.
        wanted: [usize; 4],
    },
}

/// What was done with a frame.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Preprocessed {
    /// Where the input lies in the frame.
    pub mapping: InputMapping,
    /// Frame width and height in pixels, as decoded.
    pub frame_size: (u32, u32),
    /// From JPEG to samples; next to nothing for raw formats.
    pub decode: Duration,
    /// From samples to the tensor.
    pub preprocess: Duration,
}

/// Frames → input tensors of one model. Owns its buffers; a worker has its own.
#[derive(Debug)]
pub struct Preprocessor {
    spec: InputSpec,
    table: PixelTable,
    plan: Option<Plan>,
    jpeg: jpeg::Decoder,
}

impl Preprocessor {
    /// A preprocessor for a model's input.
    pub fn new(spec: InputSpec) -> Self {
        Self {
            table: PixelTable::new(&spec),
            spec,
            plan: None,
            jpeg: jpeg::Decoder::default(),
        }
    }

    /// The model's input.
    pub fn spec(&self) -> &InputSpec {
        &self.spec
    }

    /// Fills `out`, which [`InputTensor::for_spec`] made. After an error its content is undefined.
    pub fn run(
        &mut self,
        frame: &Frame,
        out: &mut InputTensor,
    ) -> Result<Preprocessed, PreprocessError> {
        self.prepare(frame, None, out)
    }

    /// As [`run`](Self::run), of a frame that was cut to `region`. Nothing is copied; of a JPEG only the region's blocks are
    /// transformed. Chroma that pixels share lies where it lies: of a region that begins between two such pixels it is that of both.
    pub fn run_region(
        &mut self,
        frame: &Frame,
        region: Region,
        out: &mut InputTensor,
    ) -> Result<Preprocessed, PreprocessError> {
        self.prepare(frame, Some(region), out)
    }

    /// `region`: all of the frame if `None`.
    fn prepare(
        &mut self,
        frame: &Frame,
        region: Option<Region>,
        out: &mut InputTensor,
    ) -> Result<Preprocessed, PreprocessError> {
        if !out.fits(&self.spec) {
            return Err(PreprocessError::Tensor {
                found: out.shape,
                wanted: self.spec.shape(),
            });
        }
        let start = Instant::now();
        let compressed = frame.format == PixelFormat::Mjpeg;
        let (plan, planes, size);
        if compressed {
            let undecodable = |problem| PreprocessError::Undecodable {
                format: frame.format,
                problem,
            };
            let header = jpeg::parse(&frame.data).map_err(undecodable)?;
            size = header.size;
            if u64::from(size.0) * u64::from(size.1) > MAX_PIXELS {
                return Err(undecodable(format!(
                    "{}x{} is more than 64 megapixels",
                    size.0, size.1
                )));
            }
            let kind = header.kind();
            plan = plan_for(&mut self.plan, &self.spec, Source { kind, size }, region)?;
            self.jpeg
                .decode(&header, &frame.data, plan)
                .map_err(undecodable)?;
            if let Some(mask) = &frame.mask {
                self.jpeg.blacken(&header, plan, mask);
            }
            planes = self.jpeg.planes();
        } else {
            planes = raw::planes(frame)?;
            size = (frame.geometry.width, frame.geometry.height);
            let kind = plan::Kind::Raw(frame.format);
            plan = plan_for(&mut self.plan, &self.spec, Source { kind, size }, region)?;
        }
        let decoded = Instant::now();
        plan.render(&planes, &self.spec, &self.table, out);
        let in_tensor = plan.placement.mapping();
        out.picture = in_tensor.picture((self.spec.width as usize, self.spec.height as usize));
        Ok(Preprocessed {
            mapping: plan.mapping(),
            frame_size: size,
            decode: decoded - start,
            preprocess: decoded.elapsed(),
        })
    }
}

/// The plan at hand, or a new one if the source or the region has changed.
fn plan_for<'a>(
    plan: &'a mut Option<Plan>,
    spec: &InputSpec,
    source: Source,
    region: Option<Region>,
) -> Result<&'a mut Plan, PreprocessError> {
    let size = source.size;
    let region = region.unwrap_or(Region::whole(size));
    if !region.lies_in(size) {
        return Err(PreprocessError::Region { region, size });
    }
    if plan
        .as_ref()
        .is_some_and(|p| (p.source, p.region) != (source, region))
    {
        *plan = None;
    }
    Ok(plan.get_or_insert_with(|| Plan::new(spec, source, region)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{FrameMeta, FramePool, Geometry};

    fn white(width: u32, height: u32) -> Frame {
        let mut data = FramePool::new(0).take();
        data.resize((width * height) as usize, 255);
        Frame {
            format: PixelFormat::Grey,
            geometry: Geometry::packed(width, height, PixelFormat::Grey),
            data,
            meta: FrameMeta::of_still("white"),
            mask: None,
        }
    }

    /// As torchvision's batches: the picture at the top left in whole pixels, the rest 0 whatever the normalization.
    #[test]
    fn padding_is_zero_after_the_normalization() {
        let spec = |dtype, layout| InputSpec {
            width: 64,
            height: 32,
            layout,
            colour: ColourOrder::Rgb,
            dtype,
            resize: ResizePolicy::Pad,
            normalize: Normalize::IMAGENET,
        };
        let bytes = InputType::U8 {
            scale: 0.02,
            zero_point: 106,
        };
        for (frame, columns, rows) in [((50, 100), 16, 32), ((200, 63), 64, 20), ((64, 32), 64, 32)]
        {
            for (dtype, layout) in [
                (InputType::F32, Layout::Nchw),
                (bytes, Layout::Nhwc),
                (bytes, Layout::Nchw),
            ] {
                let spec = spec(dtype, layout);
                let mut out = InputTensor::for_spec(&spec);
                let frame = white(frame.0, frame.1);
                Preprocessor::new(spec).run(&frame, &mut out).unwrap();
                assert_eq!(out.picture, [0.0, 0.0, columns as f32, rows as f32]);
                for i in 0..3 * 64 * 32 {
                    let pixel = match layout {
                        Layout::Nchw => i % (64 * 32),
                        Layout::Nhwc => i / 3,
                    };
                    let is_picture = pixel % 64 < columns && pixel / 64 < rows;
                    let is_zero = match &out.data {
                        InputData::F32(v) => v[i] == 0.0,
                        InputData::U8(v) => v[i] == 106,
                        InputData::I8(_) => panic!("not asked for"),
                    };
                    assert_eq!(is_zero, !is_picture, "{dtype:?} {layout:?} {i}");
                }
            }
        }
    }
}
