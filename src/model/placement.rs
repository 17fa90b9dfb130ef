//! Which operators can run on integers, and for those that cannot, why.
//!
//! In: a graph. Out: a [`Placement`] for a node, from what quantization left around it. Pure; nothing is computed.
//! The rules are those of a static QDQ or QOperator file: an operator runs on integers if every tensor that it reads is
//! quantized, and what it writes is quantized again (or is the network's result).

use std::collections::{HashMap, HashSet};

use tract_onnx::pb::{GraphProto, NodeProto};

/// Where an operator runs.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase", tag = "runs", content = "why")]
pub enum Placement {
    /// On 8-bit integers.
    Integer,
    /// On floats, for this reason.
    Float(String),
    /// It moves, converts or shapes tensors, and computes nothing.
    Free,
}

/// Operators that compute nothing.
const FREE: [&str; 21] = [
    "QuantizeLinear",
    "DequantizeLinear",
    "Constant",
    "Identity",
    "Shape",
    "Reshape",
    "Flatten",
    "Squeeze",
    "Unsqueeze",
    "Transpose",
    "Slice",
    "Gather",
    "Concat",
    "QLinearConcat",
    "Cast",
    "Dropout",
    "Expand",
    "Split",
    "Pad",
    "ConstantOfShape",
    "Range",
];
/// Operators that have an integer form when they are quantized around.
const QUANTIZABLE: [&str; 22] = [
    "Conv",
    "ConvTranspose",
    "Gemm",
    "MatMul",
    "Add",
    "Mul",
    "MaxPool",
    "AveragePool",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "ReduceMean",
    "Relu",
    "Clip",
    "LeakyRelu",
    "PRelu",
    "Sigmoid",
    "HardSigmoid",
    "HardSwish",
    "Tanh",
    "Elu",
    "Resize",
    "Upsample",
];
/// Operators that a convolution before them takes over, so that the tensor between them needs no quantization.
const FUSED: [&str; 3] = ["Relu", "Clip", "BatchNormalization"];

/// How far is looked along a graph: further than any exporter's chain, and an end for graphs that have none.
const MAX_STEPS: usize = 12;

/// A graph's tensors by who writes and who reads them.
pub(super) struct Neighbours<'a> {
    writer: HashMap<&'a str, &'a NodeProto>,
    readers: HashMap<&'a str, Vec<&'a NodeProto>>,
    constants: HashSet<&'a str>,
    outputs: HashSet<&'a str>,
}

impl<'a> Neighbours<'a> {
    pub(super) fn of(graph: &'a GraphProto) -> Self {
        let mut writer = HashMap::new();
        let mut readers: HashMap<&str, Vec<&NodeProto>> = HashMap::new();
        for node in &graph.node {
            writer.extend(node.output.iter().map(|o| (o.as_str(), node)));
            for input in &node.input {
                readers.entry(input).or_default().push(node);
            }
        }
        Self {
            writer,
            readers,
            constants: graph.initializer.iter().map(|t| &*t.name).collect(),
            outputs: graph.output.iter().map(|o| &*o.name).collect(),
        }
    }

    /// The node that writes a tensor.
    pub(super) fn writer(&self, tensor: &str) -> Option<&'a NodeProto> {
        self.writer.get(tensor).copied()
    }

    /// The nodes that read a tensor.
    pub(super) fn readers(&self, tensor: &str) -> &[&'a NodeProto] {
        self.readers.get(tensor).map_or(&[], |r| r)
    }

    /// The constant that a tensor is, looking through its quantization; `None` for what depends on the picture.
    pub(super) fn constant(&self, tensor: &'a str) -> Option<&'a str> {
        let mut at = tensor;
        for _ in 0..MAX_STEPS {
            if self.constants.contains(at) {
                return Some(at);
            }
            let node = self.writer(at)?;
            match node.op_type.as_str() {
                "Constant" => return Some(at),
                "DequantizeLinear" | "QuantizeLinear" | "Identity" => at = node.input.first()?,
                _ => return None,
            }
        }
        None
    }

    /// Where a node would run.
    pub(super) fn placement(&self, node: &'a NodeProto) -> Placement {
        let op = node.op_type.as_str();
        if FREE.contains(&op) {
            return Placement::Free;
        }
        if op.starts_with("QLinear") || op == "QGemm" {
            return Placement::Integer;
        }
        let float = |why: String| Placement::Float(why);
        if ["ConvInteger", "MatMulInteger", "DynamicQuantizeLinear"].contains(&op) {
            return float(
                "dynamic quantization: ranges are measured at every inference; quantize statically"
                    .into(),
            );
        }
        if !QUANTIZABLE.contains(&op) && !FUSED.contains(&op) {
            return float(format!("{op} has no integer form"));
        }
        let quantized = |i: &&'a String| self.arrives_quantized(i, MAX_STEPS);
        let read = |i: &&'a String| !i.is_empty() && self.constant(i).is_none();
        if let Some(open) = node.input.iter().filter(read).find(|i| !quantized(i)) {
            return float(format!("its input `{open}` is not quantized"));
        }
        let weights = node.input.get(1).filter(|_| has_weights(op));
        if let Some(weights) = weights.filter(|w| self.constants.contains(w.as_str())) {
            return float(format!("its weights `{weights}` are not quantized"));
        }
        let leaves = |o: &&'a String| self.leaves_quantized(o, has_weights(op), MAX_STEPS);
        match node.output.iter().find(|o| !leaves(o)) {
            Some(open) => float(format!("its output `{open}` is not quantized")),
            None => Placement::Integer,
        }
    }

    /// Whether a tensor is read as integers: dequantized just before, or handed over by the operator that it is fused with.
    fn arrives_quantized(&self, tensor: &'a str, steps: usize) -> bool {
        let Some(writer) = self.writer(tensor).filter(|_| steps > 0) else {
            return false;
        };
        let before = || {
            let first = writer.input.first();
            first.is_some_and(|i| self.arrives_quantized(i, steps - 1))
        };
        match writer.op_type.as_str() {
            "DequantizeLinear" => true,
            op if FREE.contains(&op) => before(),
            op if QUANTIZABLE.contains(&op) || FUSED.contains(&op) => {
                let readers = self.readers(tensor);
                let fused = readers.len() == 1 && FUSED.contains(&&*readers[0].op_type);
                fused && before()
            }
            _ => false,
        }
    }

    /// Whether a tensor goes on as integers; sums of products may also end as the network's float result.
    fn leaves_quantized(&self, tensor: &'a str, may_end: bool, steps: usize) -> bool {
        let readers = self.readers(tensor);
        if readers.is_empty() || self.outputs.contains(tensor) {
            return may_end;
        }
        readers.iter().all(|r| match r.op_type.as_str() {
            "QuantizeLinear" => true,
            "Softmax" | "LogSoftmax" => may_end,
            op if steps > 0 && (FUSED.contains(&op) || FREE.contains(&op)) => {
                let mut outputs = r.output.iter();
                outputs.all(|o| self.leaves_quantized(o, may_end, steps - 1))
            }
            _ => false,
        })
    }
}

/// Whether an operator sums products with weights.
fn has_weights(op: &str) -> bool {
    ["Conv", "ConvTranspose", "Gemm", "MatMul"].contains(&op)
}
