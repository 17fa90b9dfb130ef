//! The integer graph: what a quantized region computes, without shapes.
//!
//! In: made by [`crate::import`]. Out: read by [`crate::partition`], [`crate::fuse`] and [`crate::plan`]. Always holds:
//! a node's inputs have smaller numbers than the node itself; each node has one output.
//!
//! Every quantized tensor is counted in u8: an s8 tensor is the same bytes with the top bit flipped and the zero point
//! moved by 128. Signs exist only at the borders.

use std::sync::Arc;

use ocellus_int8_kernels::Function;

/// A node's number, and its output's.
pub(crate) type TensorId = usize;

/// How bytes stand for real numbers: `(byte - zero) · scale`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Quant {
    pub scale: f32,
    pub zero: u8,
}

impl Quant {
    /// As onnxruntime: division, half to even, saturation.
    pub(crate) fn quantize(self, value: f32) -> u8 {
        // `as` saturates, and makes 0 of NaN.
        ((value / self.scale).round_ties_even() + f32::from(self.zero)) as u8
    }

    pub(crate) fn dequantize(self, byte: u8) -> f32 {
        (f32::from(byte) - f32::from(self.zero)) * self.scale
    }

    /// What each byte stands for.
    pub(crate) fn table(self) -> RealTable {
        Arc::new(std::array::from_fn(|byte| self.dequantize(byte as u8)))
    }
}

/// A real number for each byte.
pub(crate) type RealTable = Arc<[f32; 256]>;

/// What a node writes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Element {
    Byte(Quant),
    Float,
}

/// The least and the greatest byte that an operator writes: a Relu or Clip that follows it.
pub(crate) type Limits = (u8, u8);
pub(crate) const NO_LIMITS: Limits = (0, 255);

#[derive(Clone, Debug)]
pub(crate) struct Node {
    /// The ONNX node that it does the work of.
    pub name: String,
    pub op: Op,
    pub inputs: Vec<TensorId>,
    pub element: Element,
    /// Where in the ONNX graph its value was made: the index of a node.
    pub at: usize,
}

impl Node {
    /// The quantization of a node that writes bytes.
    pub(crate) fn quant(&self) -> Option<Quant> {
        match self.element {
            Element::Byte(quant) => Some(quant),
            Element::Float => None,
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) enum Op {
    /// Where values come into the region.
    Source(Source),
    Convolution(Arc<Convolution>),
    /// `[…, inputs]` → `[…, outputs]`.
    FullyConnected(Arc<Convolution>),
    Add(Limits),
    Mul(Limits),
    MaxPool(Window),
    AveragePool {
        window: Window,
        count_include_pad: bool,
    },
    /// The mean over height and width, which stay as 1, or go.
    GlobalAverage {
        keep_dims: bool,
    },
    Table(Arc<[u8; 256]>),
    /// In float, from bytes to bytes.
    FloatDepthwise(Arc<FloatDepthwise>, Limits),
    /// In float, from bytes to bytes.
    ResizeLinear {
        resize: Resize,
        numbers: RealTable,
        limits: Limits,
    },
    /// A sum (or product) of functions of two tensors.
    TableSum {
        numbers: [RealTable; 2],
        product: bool,
        limits: Limits,
    },
    Concat {
        axis: i64,
    },
    Move(Move),
}

/// Where a region's bytes come from.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Source {
    /// An f32 tensor of the ONNX graph, to be quantized.
    Float { name: String },
    /// An integer tensor of the ONNX graph.
    Bytes {
        name: String,
        signed: bool,
        /// Its shape is that of the picture with the channels last, whatever the graph says.
        channels_last: bool,
    },
    /// A tensor of another region, in the layout and sign of the engine.
    Region { name: String },
}

impl Source {
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Float { name } | Self::Bytes { name, .. } | Self::Region { name } => name,
        }
    }
}

/// Ways to move bytes without changing them.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Move {
    Transpose(Vec<usize>),
    /// ONNX's rules: 0 keeps a size, -1 is what is left.
    Reshape {
        shape: Vec<i64>,
        allow_zero: bool,
    },
    Flatten {
        axis: i64,
    },
    Squeeze(Option<Vec<i64>>),
    Unsqueeze(Vec<i64>),
    /// Start, end, axis, step.
    Slice(Vec<[i64; 4]>),
    /// Sizes before and after each axis; filled with the byte.
    Pad {
        pads: Vec<i64>,
        fill: u8,
    },
    ResizeNearest(Resize, Rounding),
    /// Blocks of this many rows and columns become channels, block by block.
    SpaceToDepth(usize),
    /// These positions along an axis, in this order.
    Select {
        axis: i64,
        at: Vec<i64>,
    },
    /// The bytes as they are, with another scale.
    Reinterpret,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Resize {
    pub target: ResizeTarget,
    pub coordinates: Coordinates,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum ResizeTarget {
    Scales(Vec<f32>),
    Sizes(Vec<usize>),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Coordinates {
    Asymmetric,
    HalfPixel,
    PytorchHalfPixel,
    AlignCorners,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Rounding {
    Floor,
    Ceil,
    PreferFloor,
    PreferCeil,
}

/// A window's attributes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Window {
    pub kernel: [usize; 2],
    pub stride: [usize; 2],
    pub dilation: [usize; 2],
    pub padding: Padding,
    pub ceil: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Padding {
    /// Top, left, bottom, right.
    Explicit([usize; 4]),
    SameUpper,
    SameLower,
}

/// A convolution, or a fully connected layer (a window of one pixel).
#[derive(Clone, Debug)]
pub(crate) struct Convolution {
    pub window: Window,
    pub groups: usize,
    /// Output channels.
    pub outputs: usize,
    /// Input channels of one group.
    pub depth: usize,
    pub weights: Weights,
    /// None, one, or one an output channel.
    pub weight_zeros: Vec<i8>,
    /// One, or one an output channel.
    pub weight_scales: Vec<f32>,
    /// None, or one an output channel, in steps of input scale · weight scale.
    pub bias: Vec<i32>,
    pub limits: Limits,
    /// An addition that follows: its other operand is the node's second input.
    pub residual: Option<Residual>,
}

/// A depthwise convolution whose weights are floats in the file, and the function after it.
#[derive(Clone, Debug)]
pub(crate) struct FloatDepthwise {
    pub window: Window,
    pub channels: usize,
    /// What the input's bytes stand for.
    pub numbers: RealTable,
    /// `[channels, kernel rows, kernel columns]`
    pub weights: Vec<f32>,
    /// None, or one a channel.
    pub bias: Vec<f32>,
    pub function: Function,
}

/// Weights: as the file has them until a region takes them, then OHWI.
#[derive(Clone, Debug)]
pub(crate) enum Weights {
    /// An initializer: OIHW, or a matrix.
    Named {
        name: String,
        /// A matrix `[inputs, outputs]`.
        inputs_first: bool,
        /// s8, else u8.
        signed: bool,
    },
    Ohwi(Arc<Vec<i8>>),
}

/// An addition done by the convolution before it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Residual {
    /// The convolution's own scale; the node's is the addition's.
    pub conv: Quant,
    /// Whether the convolution is the addition's first operand, the node's second input being the other.
    pub conv_first: bool,
    pub limits: Limits,
}

/// A region's value that the rest of the network reads.
#[derive(Clone, Debug)]
pub(crate) struct Sink {
    pub name: String,
    pub tensor: TensorId,
    pub kind: SinkKind,
}

#[derive(Clone, Debug)]
pub(crate) enum SinkKind {
    /// A number for each byte; `None` for a node that writes floats.
    Float(Option<RealTable>),
    /// The bytes as ONNX has them.
    Bytes { signed: bool },
    /// Bytes for another region.
    Region,
    /// Of each pixel, the channel with the greatest byte: the first of them, or the last.
    Largest { keep_dims: bool, last: bool },
}

/// A piece of the network that runs on integers as one operator.
#[derive(Clone, Debug, Default)]
pub(crate) struct Region {
    pub nodes: Vec<Node>,
    pub sinks: Vec<Sink>,
}

impl Region {
    /// The values that come in, in the order of the operator's inputs.
    pub(crate) fn sources(&self) -> Vec<&Source> {
        let source = |n: &'_ Node| matches!(n.op, Op::Source(_));
        let sources = self.nodes.iter().filter(|n| source(n));
        sources
            .filter_map(|n| match &n.op {
                Op::Source(source) => Some(source),
                _ => None,
            })
            .collect()
    }
}
