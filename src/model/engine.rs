//! The only file that names tract: an ONNX file's bytes → a network that runs.
//!
//! In: bytes and a directory for external data. Out: a [`Network`], shared, and its [`NetworkSession`]s, one a thread.

use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use ocellus_int8::Report;
use tract_onnx::pb::tensor_shape_proto::{Dimension, dimension::Value as DimValue};
use tract_onnx::pb::type_proto::Value as TypeValue;
use tract_onnx::pb::{GraphProto, NodeProto, ValueInfoProto};
use tract_onnx::prelude::*;

use super::anatomy::Anatomy;
use super::{OutputTensor, Outputs, cut, onnx_file};
use crate::preprocess::InputData;
use crate::task::detect::Limits;

/// The largest tensor that a model may declare for its input or outputs, in elements: 64 Mi.
const MAX_ELEMENTS: usize = 64 << 20;

/// What the graph says about the model, and the network itself.
#[derive(Debug)]
pub(super) struct Network {
    plan: Arc<TypedRunnableModel>,
    pub input_type: InputElement,
    pub input_shape: [usize; 4],
    /// The input is one of bytes with the channels last, whatever the file says.
    pub byte_input: bool,
    pub outputs: Vec<OutputShape>,
    /// Sentences about what was mended or left out.
    pub notes: Vec<String>,
    /// What runs on integers.
    pub report: Report,
    /// Classes among which an ArgMax chose the first output, if one did.
    pub argmax_of: Option<usize>,
    /// The outputs are what a suppression in the graph would read, and these are its limits.
    pub suppression: Option<Limits>,
}

/// Element type of the graph's input, with the quantization that follows it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum InputElement {
    F32,
    U8 { scale: f32, zero_point: u8 },
    I8 { scale: f32, zero_point: i8 },
}

/// One output of the network.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct OutputShape {
    pub name: String,
    /// The axes' lengths.
    pub shape: Vec<usize>,
    /// Whether the last operation is a softmax.
    pub probabilities: bool,
    /// Whether the sizes of boxes are decoded in the graph.
    pub decoded: bool,
    /// Scale and zero point, where the output is quantized.
    pub quantized: Option<(f32, f32)>,
    /// Whether it has whole numbers that stand for themselves.
    pub is_integer: bool,
    pub embedding: bool,
}

/// How a model is to be loaded.
#[derive(Debug, Clone, Copy)]
pub(super) struct EngineOptions<'a> {
    pub embedding: Embedding<'a>,
    pub threads: usize,
    /// A picture that is only read to be quantized may come as bytes.
    pub byte_input: bool,
    /// Tensors that are read instead of the graph's outputs, if there are any, and the manifest's key of them.
    pub outputs: (&'static str, &'a [String]),
}

/// Reads, mends and optimizes a model.
pub(super) fn load(bytes: &[u8], options: &EngineOptions<'_>) -> Result<Network, String> {
    // tract checks what it reads, but a hostile graph may still reach an assertion: that is a bad model, not a crash.
    let loaded = catch_unwind(AssertUnwindSafe(|| load_graph(bytes, options)));
    loaded
        .unwrap_or_else(|_| Err("the graph is malformed: tract gave up on it (see the log)".into()))
}

/// Whether, and where, an embedding is to be taken from the graph.
#[derive(Debug, Clone, Copy)]
pub(super) enum Embedding<'a> {
    No,
    Find,
    Named(&'a str),
}

fn load_graph(bytes: &[u8], options: &EngineOptions<'_>) -> Result<Network, String> {
    let mut proto = onnx_file::decode(bytes)?;
    let graph = proto.graph.as_mut().ok_or("it has no graph")?;
    let mut notes = Vec::new();
    let suppression = cut::end(graph, options.outputs)?.before;
    notes.extend(suppression.as_ref().map(|s| {
        format!(
            "the suppression in the graph (`{}`) is left out, ours runs on what it reads (`{}`): unless said otherwise with iou {} and max {}{}",
            s.node,
            s.reads.join("`, `"),
            s.limits.iou,
            s.limits.max,
            (s.limits.per_class.map(|n| format!(", and {n} of a class"))).unwrap_or_default()
        )
    }));
    // What has no known size has no bound either.
    let anatomy = Anatomy::of(&proto)?;
    if let Some(problem) = anatomy.problems.into_iter().next() {
        return Err(problem);
    }
    notes.extend(ocellus_int8::normalize(&mut proto).map_err(|e| e.to_string())?);
    let graph = proto.graph.as_mut().ok_or("it has no graph")?;
    let [input] = graph.input.as_slice() else {
        let names: Vec<&str> = graph.input.iter().map(|i| &*i.name).collect();
        return Err(format!(
            "it has {} inputs ({}), not one picture",
            names.len(),
            names.join(", ")
        ));
    };
    let input_name = input.name.clone();
    let quantized_input = dequantization(graph, &input_name);
    let writers = graph.node.iter();
    let writers: HashMap<&str, &NodeProto> = writers
        .flat_map(|n| n.output.iter().map(move |o| (o.as_str(), n)))
        .collect();
    let classes: Vec<_> = graph
        .output
        .iter()
        .map(|o| {
            (
                o.name.clone(),
                is_softmax(graph, &o.name),
                decodes_sizes(&writers, &o.name),
                quantization(graph, &o.name),
            )
        })
        .collect();
    let embedding =
        match options.embedding {
            Embedding::No => None,
            Embedding::Find => {
                let found = last_fully_connected(graph);
                notes.extend(found.as_ref().map(|f| {
                    format!("embedding: `{f}`, the input of the last fully connected layer")
                }));
                found
            }
            Embedding::Named(name) => {
                let known = graph
                    .node
                    .iter()
                    .any(|n| n.output.iter().any(|o| o == name));
                if !known {
                    return Err(format!("the embedding `{name}` is no tensor of the graph"));
                }
                Some(name.to_string())
            }
        };
    if let Some(name) = &embedding {
        graph.output.push(ValueInfoProto {
            name: name.clone(),
            ..Default::default()
        });
    }

    let first_channels = channels_first(graph);
    let engine = ocellus_int8::Options {
        threads: options.threads,
        byte_input: options.byte_input && first_channels,
        ..Default::default()
    };
    let loaded = ocellus_int8::load_proto(proto, &engine).map_err(|e| e.to_string())?;
    let ocellus_int8::Loaded {
        model,
        report,
        input,
    } = loaded;
    if report.is_accelerated() {
        notes.push(format!(
            "{:.1} % of the multiply-accumulates on integers ({})",
            100.0 * report.integer_share(),
            report.isa
        ));
    }

    let fact = model.input_fact(0).map_err(|e| e.to_string())?;
    let shape: Vec<usize> = concrete(fact)?;
    let input_shape: [usize; 4] = shape.as_slice().try_into().map_err(|_| {
        format!(
            "the input `{input_name}` has the shape {shape:?}, not [batch, channels, height, width]"
        )
    })?;
    let quantized_input = match input {
        Some(q) => Some((q.scale, f32::from(q.zero_point))),
        None => quantized_input,
    };
    let input_type = match (fact.datum_type.unquantized(), quantized_input) {
        (DatumType::F32, _) => InputElement::F32,
        (DatumType::U8, q) => {
            let (scale, zero) = q.unwrap_or((1.0, 0.0));
            InputElement::U8 {
                scale,
                zero_point: zero as u8,
            }
        }
        (DatumType::I8, q) => {
            let (scale, zero) = q.unwrap_or((1.0, 0.0));
            InputElement::I8 {
                scale,
                zero_point: zero as i8,
            }
        }
        (other, _) => {
            return Err(format!(
                "the input `{input_name}` is of type {other:?}; f32, u8 and i8 are known"
            ));
        }
    };
    let mut outputs = Vec::new();
    for (i, (name, probabilities, decoded, quantized)) in classes.into_iter().enumerate() {
        let fact = model.output_fact(i).map_err(|e| e.to_string())?;
        outputs.push(OutputShape {
            name,
            shape: concrete(fact)?,
            probabilities,
            decoded,
            is_integer: quantized.is_none() && fact.datum_type.is_integer(),
            quantized,
            embedding: false,
        });
    }
    if let Some(name) = embedding {
        let fact = model.output_fact(outputs.len());
        let shape = concrete(fact.map_err(|e| e.to_string())?)?;
        outputs.push(OutputShape {
            name,
            shape,
            probabilities: false,
            decoded: false,
            quantized: None,
            is_integer: false,
            embedding: true,
        });
    }
    let plan = model.into_runnable().map_err(|e| format!("{e:#}"))?;
    Ok(Network {
        plan,
        input_type,
        input_shape,
        byte_input: input.is_some(),
        outputs,
        notes,
        report,
        argmax_of: anatomy.graph.argmax_of,
        suppression: suppression.map(|s| s.limits),
    })
}

/// Whether the graph's input is `[batch, channels, height, width]` with 1 or 3 channels.
fn channels_first(graph: &GraphProto) -> bool {
    let known = |d: &Dimension| match d.value {
        Some(DimValue::DimValue(n)) => n,
        _ => 0,
    };
    let shape = graph
        .input
        .first()
        .and_then(|i| i.r#type.as_ref()?.value.as_ref());
    match shape {
        Some(TypeValue::TensorType(t)) => t
            .shape
            .as_ref()
            .is_some_and(|s| s.dim.len() == 4 && [1, 3].contains(&known(&s.dim[1]))),
        None => false,
    }
}

/// A fact's shape, if it depends on nothing and is of a sane size.
fn concrete(fact: &TypedFact) -> Result<Vec<usize>, String> {
    let shape = fact
        .shape
        .as_concrete()
        .ok_or_else(|| format!("the shape {:?} is not fixed", fact.shape))?;
    let elements = shape
        .iter()
        .try_fold(1usize, |n, d| n.checked_mul(*d))
        .filter(|n| *n <= MAX_ELEMENTS);
    elements
        .map(|_| shape.to_vec())
        .ok_or_else(|| format!("the shape {shape:?} is too large"))
}

fn producer<'a>(graph: &'a GraphProto, tensor: &str) -> Option<&'a NodeProto> {
    graph
        .node
        .iter()
        .find(|n| n.output.iter().any(|o| o == tensor))
}

/// Operators that only move or requantize a tensor.
const PASSES: [&str; 7] = [
    "QuantizeLinear",
    "DequantizeLinear",
    "Identity",
    "Flatten",
    "Reshape",
    "Squeeze",
    "Cast",
];

/// The node that computes a tensor, looking through what only moves or requantizes it.
fn computed_by<'a>(graph: &'a GraphProto, tensor: &str) -> Option<&'a NodeProto> {
    let mut node = producer(graph, tensor)?;
    // A graph has no cycles; the bound is for files that do.
    for _ in 0..64 {
        if !PASSES.contains(&&*node.op_type) {
            break;
        }
        node = producer(graph, node.input.first()?)?;
    }
    Some(node)
}

fn is_softmax(graph: &GraphProto, output: &str) -> bool {
    computed_by(graph, output).is_some_and(|n| n.op_type == "Softmax")
}

/// Whether an exponential is multiplied with something behind the last operators with weights, as YOLOX's sizes are with their strides. An
/// exponential that is added to something is a part of another function.
fn decodes_sizes(writers: &HashMap<&str, &NodeProto>, output: &str) -> bool {
    let mut seen = HashSet::new();
    let mut open = vec![(output, false)];
    while let Some((tensor, multiplied)) = open.pop() {
        let Some(node) = writers.get(tensor) else {
            continue;
        };
        match node.op_type.as_str() {
            "Exp" if multiplied => return true,
            op if cut::COMPUTES.contains(&op) || !seen.insert((tensor, multiplied)) => {}
            op => {
                let multiplied =
                    matches!(op, "Mul" | "QLinearMul") || multiplied && PASSES.contains(&op);
                open.extend(node.input.iter().map(|i| (i.as_str(), multiplied)));
            }
        }
    }
    false
}

/// Scale and zero point of a QuantizeLinear that writes this output.
fn quantization(graph: &GraphProto, output: &str) -> Option<(f32, f32)> {
    let node = producer(graph, output).filter(|n| n.op_type == "QuantizeLinear")?;
    onnx_file::scale_and_zero(graph, node)
}

/// Scale and zero point of a DequantizeLinear that reads this input.
fn dequantization(graph: &GraphProto, input: &str) -> Option<(f32, f32)> {
    let reads = |n: &&NodeProto| {
        n.op_type == "DequantizeLinear" && n.input.first().is_some_and(|i| i == input)
    };
    onnx_file::scale_and_zero(graph, graph.node.iter().find(reads)?)
}

/// The data input of the last Gemm, MatMul or 1×1 convolution with constant weights.
fn last_fully_connected(graph: &GraphProto) -> Option<String> {
    let output = graph.output.first()?;
    let mut tensor = output.name.as_str();
    for _ in 0..64 {
        let node = producer(graph, tensor)?;
        match node.op_type.as_str() {
            "Gemm" | "MatMul" | "QLinearMatMul" | "MatMulInteger" => {
                return node.input.first().cloned();
            }
            "Conv" if follows_global_pooling(graph, node) => return node.input.first().cloned(),
            // From a classifier's output back: scores, biases, shapes, quantization.
            "Softmax" | "Add" | "QuantizeLinear" | "DequantizeLinear" | "Identity" | "Flatten"
            | "Reshape" | "Squeeze" | "Cast" => tensor = node.input.first()?,
            _ => return None,
        }
    }
    None
}

fn follows_global_pooling(graph: &GraphProto, conv: &NodeProto) -> bool {
    let pools = [
        "GlobalAveragePool",
        "AveragePool",
        "ReduceMean",
        "QLinearGlobalAveragePool",
    ];
    conv.input
        .first()
        .and_then(|i| computed_by(graph, i))
        .is_some_and(|n| pools.contains(&&*n.op_type))
}

impl Network {
    /// `more`: outputs that something else fills, behind the network's own.
    pub(super) fn session(
        self: &Arc<Self>,
        more: &[OutputShape],
    ) -> Result<NetworkSession, String> {
        let state = self.plan.spawn().map_err(|e| format!("{e:#}"))?;
        let tensor = |o: &OutputShape| OutputTensor {
            name: o.name.clone(),
            values: Vec::with_capacity(o.shape.iter().product()),
        };
        let outputs = Outputs {
            tensors: self.outputs.iter().chain(more).map(tensor).collect(),
        };
        Ok(NetworkSession {
            network: self.clone(),
            state,
            outputs,
        })
    }
}

/// One thread's working memory.
pub(super) struct NetworkSession {
    network: Arc<Network>,
    state: TypedSimpleState,
    outputs: Outputs,
}

impl NetworkSession {
    /// The outputs may have more tensors than the network; those are left as they are.
    pub(super) fn run(
        &mut self,
        shape: &[usize; 4],
        data: &InputData,
    ) -> Result<&mut Outputs, String> {
        let tensor = match data {
            InputData::F32(v) => Tensor::from_shape(shape, v),
            InputData::U8(v) => Tensor::from_shape(shape, v),
            InputData::I8(v) => Tensor::from_shape(shape, v),
        };
        let tensor = tensor.map_err(|e| e.to_string())?;
        let results = self
            .state
            .run(tvec!(tensor.into_tvalue()))
            .map_err(|e| format!("{e:#}"))?;
        for ((shape, slot), result) in self
            .network
            .outputs
            .iter()
            .zip(&mut self.outputs.tensors)
            .zip(results.iter())
        {
            let floats = result.cast_to::<f32>().map_err(|e| format!("{e:#}"))?;
            let values = floats
                .try_as_plain_ram()
                .and_then(|plain| plain.as_slice::<f32>())
                .map_err(|e| format!("{e:#}"))?;
            slot.values.clear();
            match shape.quantized {
                Some((scale, zero)) => {
                    slot.values
                        .extend(values.iter().map(|v| (v - zero) * scale));
                }
                None => slot.values.extend_from_slice(values),
            }
        }
        Ok(&mut self.outputs)
    }
}

impl Network {
    /// Whether it takes bytes as they are in pictures: no quantization follows.
    pub(super) fn takes_pixels(&self) -> bool {
        let raw = InputElement::U8 {
            scale: 1.0,
            zero_point: 0,
        };
        self.input_type == raw
    }
}
