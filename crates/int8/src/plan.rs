//! The plan of a region: its operators in order, with packed weights, and the buffers that they share.
//!
//! In: a [`Region`] and the shapes that come in. Out: [`Plan`], immutable and shared; each thread that runs it has its own
//! [`State`]. Always holds: a run allocates nothing but the tensors that it gives back.
//!
//! Pictures lie as NHWC, all else row-major. Buffers are few: one is used again as soon as its tensor was read for the
//! last time.

mod compile;
mod run;

use std::sync::Arc;

use ocellus_int8_kernels::{
    Add, AveragePool, Conv, FloatDepthwise, Gather, Interpolate, Isa, Lut, MaxPool, Mul, TableSum,
};

use crate::Error;
use crate::copy::StridedCopy;
use crate::fuse::{fuse, readers};
use crate::graph::{Quant, RealTable, Region};
use crate::shapes;

pub(crate) use run::State;

#[derive(Debug)]
pub(crate) struct Plan {
    pub isa: Isa,
    steps: Vec<Step>,
    /// Where each sink's value comes from.
    results: Vec<Output>,
    /// Sizes of the buffers, in bytes.
    slots: Vec<usize>,
    scratch_bytes: usize,
    /// Elements of the widest average pool's sums.
    sums: usize,
    /// Elements of the largest product that leaves as floats.
    floats: usize,
    /// For each operator that was taken: its ONNX node, its kernel, its multiply-accumulates.
    pub taken: Vec<Taken>,
}

/// An operator of a region.
#[derive(Clone, Debug)]
pub(crate) struct Taken {
    pub node: String,
    pub kernel: &'static str,
    pub macs: u64,
    /// Whether it is computed in float.
    pub float: bool,
}

#[derive(Debug)]
struct Step {
    /// The ONNX node, for errors.
    node: String,
    kernel: Kernel,
    inputs: Vec<Place>,
    output: usize,
    output_bytes: usize,
}

/// Where a tensor's bytes are.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    Slot {
        slot: usize,
        bytes: usize,
    },
    /// An input of the region, read where it is.
    Input(usize),
}

#[derive(Debug)]
enum Kernel {
    Quantize {
        quant: Quant,
        copy: StridedCopy,
        flip: u8,
    },
    Flip,
    Convolution {
        conv: Box<Conv>,
        batch: usize,
        outputs: usize,
    },
    /// Its sums leave as floats.
    Product {
        conv: Box<Conv>,
        batch: usize,
        outputs: usize,
        elements: usize,
    },
    Add(Add),
    Mul(Mul),
    MaxPool {
        pool: MaxPool,
        batch: usize,
        channels: usize,
    },
    AveragePool {
        pool: AveragePool,
        batch: usize,
        channels: usize,
    },
    Table(Lut),
    TableSum(TableSum),
    FloatDepthwise {
        conv: Box<FloatDepthwise>,
        batch: usize,
        channels: usize,
    },
    Interpolate {
        resize: Box<Interpolate>,
        batch: usize,
        channels: usize,
    },
    /// Each input has its copy; what none of them writes is filled.
    Copy {
        copies: Vec<StridedCopy>,
        fill: Option<u8>,
    },
    Resize {
        gather: Gather,
        batch: usize,
        channels: usize,
    },
}

#[derive(Debug)]
struct Output {
    place: Place,
    shape: Vec<usize>,
    kind: OutputKind,
}

#[derive(Debug)]
enum OutputKind {
    /// A number for each byte as it is stored.
    Table { table: RealTable, copy: StridedCopy },
    /// The floats of the product at this step.
    Floats { step: usize, copy: StridedCopy },
    Bytes {
        flip: u8,
        signed: bool,
        copy: StridedCopy,
    },
    /// Of each pixel, the channel with the greatest byte.
    Largest {
        flip: u8,
        last: bool,
        channels: usize,
        pixels: usize,
        /// From one channel to the next, from one pixel to the next.
        strides: [usize; 2],
    },
}

/// Shapes of all tensors of a region.
pub(crate) fn infer(region: &Region, inputs: &[Vec<usize>]) -> Result<Vec<Vec<usize>>, Error> {
    let mut shapes: Vec<Vec<usize>> = Vec::with_capacity(region.nodes.len());
    let mut sources = inputs.iter();
    for node in &region.nodes {
        let of: Vec<&[usize]> = if let crate::graph::Op::Source(_) = node.op {
            sources.next().map(Vec::as_slice).into_iter().collect()
        } else {
            node.inputs.iter().map(|i| shapes[*i].as_slice()).collect()
        };
        let shape = match &node.op {
            crate::graph::Op::Source(source) => source_shape(source, of.first().copied()),
            op => shapes::infer(op, &of),
        };
        shapes.push(shape.map_err(|problem| Error::Malformed {
            node: format!("`{}`", node.name),
            problem,
        })?);
    }
    Ok(shapes)
}

/// A source's shape as ONNX counts it: pictures that come with the channels last have them second.
fn source_shape(
    source: &crate::graph::Source,
    shape: Option<&[usize]>,
) -> Result<Vec<usize>, String> {
    use crate::graph::{Op, Source};
    let shape = shapes::infer(
        &Op::Source(source.clone()),
        &[shape.ok_or("it has no shape")?],
    )?;
    match (source, shape.as_slice()) {
        (
            Source::Region { .. }
            | Source::Bytes {
                channels_last: true,
                ..
            },
            &[n, h, w, c],
        ) => Ok(vec![n, c, h, w]),
        _ => Ok(shape),
    }
}

/// A sink's shape as the rest of the network sees it.
pub(crate) fn sink_shape(kind: &crate::graph::SinkKind, shape: &[usize]) -> Vec<usize> {
    match (kind, shape) {
        (crate::graph::SinkKind::Region, &[n, c, h, w]) => vec![n, h, w, c],
        (
            crate::graph::SinkKind::Largest {
                keep_dims: true, ..
            },
            &[n, _, h, w],
        ) => vec![n, 1, h, w],
        (crate::graph::SinkKind::Largest { .. }, &[n, _, h, w]) => vec![n, h, w],
        _ => shape.to_vec(),
    }
}

impl Plan {
    pub(crate) fn new(
        region: &Region,
        inputs: &[Vec<usize>],
        isa: Isa,
    ) -> Result<Arc<Self>, Error> {
        let shapes = infer(region, inputs)?;
        let mut region = region.clone();
        fuse(&mut region, &shapes);
        let used: Vec<bool> = (0..region.nodes.len())
            .map(|t| readers(&region, t) > 0)
            .collect();
        compile::compile(&region, &shapes, &used, isa).map(Arc::new)
    }

    /// Multiply-accumulates of one run, those on integers or those in float.
    pub(crate) fn macs(&self, float: bool) -> u64 {
        let of_kind = self.taken.iter().filter(|t| t.float == float);
        of_kind.map(|t| t.macs).sum()
    }
}
