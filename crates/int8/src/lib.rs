//! Quantized ONNX models on integers, inside tract.
//!
//! tract runs a quantized model (QDQ or QOperator) by dequantizing it. This crate finds the parts of such a model that
//! can be computed on integers, as onnxruntime does, and makes each maximal part one operator of tract. tract keeps what
//! it is good at: shapes, every float operator, the plan.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use tract_onnx::prelude::*;
//!
//! let bytes = std::fs::read("resnet18-int8.onnx")?;
//! let loaded = ocellus_int8::load(&bytes, &Default::default())?;
//! println!("{}", loaded.report);
//! let mut session = loaded.model.into_runnable()?.spawn()?;
//! let picture = Tensor::zero::<f32>(&[1, 3, 224, 224])?;
//! let outputs = session.run(tvec!(picture.into()))?;
//! # Ok(())
//! # }
//! ```
//!
//! The way of a model: `normalize` (form) → `qoperator` (one form: QDQ) → `import` (the integer graph) → `partition`
//! (regions) → tract's import, in which a region is one node → `plan` (shapes known: kernels, packed weights, buffers) →
//! `region` (tract's operator). Loading happens on the calling thread; an inference on the thread that runs the session,
//! and on the threads of the pool that all sessions of the model share.

mod copy;
mod fuse;
mod graph;
mod import;
mod memory;
mod normalize;
mod partition;
mod plan;
mod pool;
mod proto;
mod qoperator;
mod region;
mod report;
mod shapes;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

pub use normalize::normalize;
pub use ocellus_int8_kernels::Isa;
use prost::Message;
pub use report::{Left, Report, Taken};
use tract_onnx::pb::ModelProto;
use tract_onnx::prelude::*;
use tract_onnx::tract_hir::internal::*;

use import::Import;
use partition::{REGION, partition};
use pool::Pool;
use region::{RegionExpansion, RegionOp};

/// Why a model cannot be loaded.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Error {
    /// It is no ONNX file.
    #[error("it is not an ONNX file, or it is truncated: {0}")]
    NotOnnx(String),
    /// A node or a constant makes no sense.
    #[error("the model is malformed: {node}: {problem}")]
    Malformed {
        /// Which.
        node: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A node's operator is one that neither this crate nor tract has.
    #[error("the node `{node}` is an operator that cannot run here: {operator}")]
    UnknownOperator {
        /// The node.
        node: String,
        /// Its operator.
        operator: String,
    },
    /// The instruction set that was asked for is not there.
    #[error("{0}")]
    Isa(String),
    /// tract refused the model.
    #[error("{0}")]
    Tract(String),
}

/// How a model is to run.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The instruction set of the kernels; the best that the processor has, if `None`.
    pub isa: Option<Isa>,
    /// Threads that share one inference; 0 is taken as 1.
    pub threads: usize,
    /// Where the model's one input is a float picture that is only read to be quantized: make it an input of bytes
    /// (u8, `[batch, height, width, channels]`) that are already quantized as [`Loaded::input`] says.
    pub byte_input: bool,
}

/// How an input's bytes stand for numbers: `(byte - zero_point) · scale`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct InputQuantization {
    /// Size of a step.
    pub scale: f32,
    /// The byte for 0.
    pub zero_point: u8,
}

impl InputQuantization {
    /// The byte for a number, exactly as the model quantizes its float input.
    pub fn quantize(self, value: f32) -> u8 {
        graph::Quant {
            scale: self.scale,
            zero: self.zero_point,
        }
        .quantize(value)
    }
}

/// A model that is ready.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// Optimized by tract; make a runnable of it.
    pub model: TypedModel,
    /// What runs on integers, and what does not.
    pub report: Report,
    /// The quantization of the input, where [`Options::byte_input`] made it one of bytes.
    pub input: Option<InputQuantization>,
}

/// Loads an ONNX file.
///
/// # Errors
/// What is wrong with the file, with the name of the node.
pub fn load(bytes: &[u8], options: &Options) -> Result<Loaded, Error> {
    let proto = ModelProto::decode(bytes).map_err(|e| Error::NotOnnx(e.to_string()))?;
    load_proto(proto, options)
}

/// Loads an ONNX model that was read already (and perhaps changed: given another output, for example).
///
/// # Errors
/// What is wrong with the model, with the name of the node.
pub fn load_proto(mut proto: ModelProto, options: &Options) -> Result<Loaded, Error> {
    // A malformed graph may reach an assertion in tract: that is a bad model, not a crash.
    let loaded = catch_unwind(AssertUnwindSafe(|| load_checked(&mut proto, options)));
    drop(proto);
    memory::give_back();
    loaded.unwrap_or_else(|_| {
        Err(Error::Tract(
            "the graph is malformed: tract gave up on it (see the log)".into(),
        ))
    })
}

fn load_checked(proto: &mut ModelProto, options: &Options) -> Result<Loaded, Error> {
    let isa = options.isa.unwrap_or_else(Isa::detect);
    if !isa.is_available() {
        return Err(Error::Isa(format!("this processor has no {isa}")));
    }
    let threads = options.threads.max(1);
    let notes = normalize(proto)?;
    let graph = proto
        .graph
        .as_mut()
        .ok_or_else(|| Error::NotOnnx("it has no graph".into()))?;
    qoperator::quantize_constants(graph)?;
    let mut parts = partition(Import::new(graph)?);
    let input = if options.byte_input {
        parts.take_bytes(graph)
    } else {
        None
    };
    parts.apply(graph)?;

    let pool = Arc::new(Pool::new(threads));
    let model = typed(proto, parts.regions, isa, &pool)?;
    let left = parts.left.into_iter();
    let mut report = Report {
        isa,
        threads: pool.threads(),
        notes,
        taken: Vec::new(),
        left: left
            .map(|(node, operator, reason)| Left {
                node,
                operator,
                reason: reason.into(),
            })
            .collect(),
        integer_macs: 0,
        float_macs: 0,
    };
    count(&model, &mut report);
    let mut model = model;
    model.optimize().map_err(tract)?;
    let input = input.map(|q| InputQuantization {
        scale: q.scale,
        zero_point: q.zero,
    });
    Ok(Loaded {
        model,
        report,
        input,
    })
}

/// tract's import of what is left, with the regions in it.
fn typed(
    proto: &ModelProto,
    regions: Vec<graph::Region>,
    isa: Isa,
    pool: &Arc<Pool>,
) -> Result<TypedModel, Error> {
    let mut model = tract_onnx::onnx()
        .model_for_proto_model(proto)
        .map_err(tract)?;
    let mut regions = regions.into_iter();
    for node in model.nodes_mut() {
        let operator = node.op.name();
        if operator == format!("Unimplemented({REGION})") {
            // tract keeps the order of nodes.
            let region = regions.next().map(Arc::new);
            let region = region.ok_or_else(|| Error::Tract("a region has no node".into()))?;
            node.op = expand(RegionExpansion {
                region,
                isa,
                pool: pool.clone(),
            });
        } else if operator.starts_with("Unimplemented") {
            return Err(Error::UnknownOperator {
                node: node.name.clone(),
                operator: operator.into(),
            });
        }
    }
    let mut model = model.into_typed().map_err(tract)?;
    model.declutter().map_err(tract)?;
    Ok(model)
}

/// What runs where, once tract knows all shapes.
fn count(model: &TypedModel, report: &mut Report) {
    for node in model.nodes() {
        if let Some(region) = node.op_as::<RegionOp>() {
            report.integer_macs += region.plan.macs(false);
            report.float_macs += region.plan.macs(true);
            report.taken.extend(region.plan.taken.iter().map(|t| Taken {
                node: t.node.clone(),
                kernel: t.kernel,
                macs: t.macs,
                float: t.float,
            }));
            continue;
        }
        let Ok(facts) = model.node_input_facts(node.id) else {
            continue;
        };
        let costs = node.op.cost(&facts).unwrap_or_default();
        for (cost, n) in costs {
            if matches!(cost, Cost::FMA(_)) {
                report.float_macs += n.to_i64().unwrap_or(0).max(0) as u64;
            }
        }
    }
}

fn tract(e: TractError) -> Error {
    Error::Tract(format!("{e:#}"))
}
