//! A frame's bytes → the model's input tensor: decode, crop or letterbox, resize, normalize.
//!
//! In: a [`Frame`](crate::frame::Frame) in any [`PixelFormat`](crate::frame::PixelFormat). Out: an [`InputTensor`]
//! that the caller owns and reuses. On the `infer-<n>` threads. Always holds: no allocation a frame in steady state
//! beyond what a decoder needs; a bad frame is an error, never a panic.

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
}
