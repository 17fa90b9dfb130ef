//! What an ONNX file is made of: inputs, outputs, every operator with its size and cost, and its form of quantization.
//!
//! In: an ONNX file. Out: an [`Anatomy`]. On the main thread; nothing of the network is computed, so that a model can be
//! looked at which cannot run. At load the same look refuses what would take unbounded memory or time.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{GraphProto, ModelProto, NodeProto, TensorProto};

use super::files::ModelFiles;
use super::placement::{Neighbours, Placement};
use super::shapes::{self, Shapes};
use super::{Manifest, ModelError, cut, onnx_file, read_manifest, sha256};

/// Multiply-accumulates of one inference: 2⁴⁰, a hundred times ResNet-152 at 224×224. A small board would take minutes.
const MAX_MACS: u64 = 1 << 40;
/// Elements of one convolution's unrolled input (its windows side by side): 256 Mi.
const MAX_WINDOW_ELEMENTS: u64 = 256 << 20;

/// What a file is made of.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Anatomy {
    /// The file's size.
    pub file_bytes: u64,
    /// Its digest, hexadecimal.
    pub sha256: String,
    /// Program and version that wrote it.
    pub producer: String,
    /// Version of the ONNX operator set.
    pub opset: i64,
    /// What it is fed.
    pub inputs: Vec<TensorInfo>,
    /// What it gives.
    pub outputs: Vec<TensorInfo>,
    /// How it is quantized, in words.
    pub form: String,
    /// Numbers that were learnt: weights and biases.
    pub parameters: u64,
    /// Multiply-accumulates of one inference.
    pub macs: u64,
    /// The share of them that can run on integers, 0 to 1.
    pub integer_share: f64,
    /// How many operators there are of each kind.
    pub operators: BTreeMap<String, usize>,
    /// The operators that compute something, in the graph's order.
    pub layers: Vec<Layer>,
    /// What could not be found out, a sentence each; of a graph that is refused nothing is said.
    pub problems: Vec<String>,
    /// What of the file is not run and not looked at, in words: a suppression at its end, or what the manifest cuts off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left_out: Option<String>,
    /// Why the graph cannot be cut where it would have to be: then all of it is looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    #[serde(skip)]
    pub(super) graph: GraphFacts,
}

/// One input or output.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct TensorInfo {
    /// Its name in the graph.
    pub name: String,
    /// `f32`, `u8`, …; empty if it could not be found.
    pub element: String,
    /// The axes' lengths; `None` if they could not be found.
    pub shape: Option<Vec<usize>>,
}

/// One operator.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Layer {
    /// The node's name, or its output's if it has none.
    pub name: String,
    /// The operator.
    pub op: String,
    /// The output's shape.
    pub output_shape: Option<Vec<usize>>,
    /// Numbers that were learnt.
    pub parameters: u64,
    /// Multiply-accumulates of one inference.
    pub macs: u64,
    /// Where it runs.
    #[serde(flatten)]
    pub placement: Placement,
}

/// What the checks of a manifest read from the graph.
#[derive(Debug, Clone, Default)]
pub(super) struct GraphFacts {
    /// Lowest and highest input value that the first QuantizeLinear can write.
    pub input_range: Option<(f32, f32)>,
    /// Softmax operators in a row before the first output.
    pub softmaxes: usize,
    /// The first operator, if it shifts or scales the picture by constants.
    pub normalizes_by: Option<String>,
    /// Classes among which an ArgMax chose the first output, if one did.
    pub argmax_of: Option<usize>,
    /// The step of the quantizer that wrote the first output, if one did for all its elements.
    pub output_step: Option<f32>,
}

impl Anatomy {
    /// Looks at a bundle's `model.onnx` or a bare file, as far as it would be run.
    ///
    /// # Errors
    /// The manifest or the file cannot be read, is none, or is one that would not be run for its size.
    pub fn read(path: &Path) -> Result<Self, ModelError> {
        let files = ModelFiles::at(path)?;
        let manifest = read_manifest(&files)?;
        Self::of_files(&files, &manifest)
    }

    /// As [`Self::read`], by a manifest that was read already.
    pub(super) fn of_files(files: &ModelFiles, manifest: &Manifest) -> Result<Self, ModelError> {
        let bytes = files.onnx()?;
        let unusable = |problem| ModelError::Unusable {
            path: files.onnx_path(),
            problem,
        };
        let mut proto = onnx_file::decode(&bytes).map_err(unusable)?;
        let graph = proto.graph.as_mut();
        let end = graph.map_or(Ok(cut::End::default()), |g| {
            cut::end(g, manifest.named_outputs())
        });
        let mut anatomy = Self::of(&proto).map_err(unusable)?;
        match end {
            Ok(end) => anatomy.left_out = end.left_out,
            Err(refused) => {
                anatomy.refused = Some(refused);
                // What is behind a choice has no shape.
                anatomy.problems.clear();
            }
        }
        anatomy.file_bytes = bytes.len() as u64;
        anatomy.sha256 = sha256(&bytes);
        Ok(anatomy)
    }

    /// Looks at a decoded graph.
    pub(super) fn of(model: &ModelProto) -> Result<Self, String> {
        let graph = model.graph.as_ref().ok_or("the ONNX file has no graph")?;
        let shapes = shapes::infer(model)?;
        let neighbours = Neighbours::of(graph);
        let layers = layers(graph, &shapes, &neighbours)?;
        let macs = layers.iter().map(|l| l.macs).sum::<u64>();
        if macs > MAX_MACS {
            return Err(format!(
                "one inference takes {macs} multiply-accumulates: too many to run here"
            ));
        }
        let on_integers = layers.iter().filter(|l| l.placement == Placement::Integer);
        let integer_macs: u64 = on_integers.map(|l| l.macs).sum();
        let mut operators = BTreeMap::new();
        for node in &graph.node {
            *operators.entry(node.op_type.clone()).or_insert(0) += 1;
        }
        let info = |name: &str| TensorInfo {
            name: name.into(),
            element: shapes
                .get(name)
                .map(|f| f.element.clone())
                .unwrap_or_default(),
            shape: shapes.get(name).map(|f| f.shape.clone()),
        };
        let version = model
            .opset_import
            .iter()
            .find(|o| o.domain.is_empty() || o.domain == "ai.onnx");
        Ok(Self {
            file_bytes: 0,
            sha256: String::new(),
            producer: format!("{} {}", model.producer_name, model.producer_version)
                .trim()
                .into(),
            opset: version.map_or(0, |o| o.version),
            inputs: onnx_file::pictures(graph).map(|i| info(&i.name)).collect(),
            outputs: graph.output.iter().map(|o| info(&o.name)).collect(),
            form: form(graph, &neighbours),
            parameters: layers.iter().map(|l| l.parameters).sum(),
            macs,
            integer_share: integer_macs as f64 / macs.max(1) as f64,
            operators,
            graph: facts(graph, &neighbours, &shapes),
            layers,
            problems: shapes.problems,
            left_out: None,
            refused: None,
        })
    }
}

fn layers(
    graph: &GraphProto,
    shapes: &Shapes,
    neighbours: &Neighbours<'_>,
) -> Result<Vec<Layer>, String> {
    let elements: HashMap<&str, &TensorProto> = constants(graph).collect();
    // A constant that two operators share is counted once.
    let mut counted = HashSet::new();
    let mut layers = Vec::new();
    for node in &graph.node {
        let placement = neighbours.placement(node);
        if placement == Placement::Free {
            continue;
        }
        let output = node.output.first().and_then(|o| shapes.get(o));
        let (macs, windows) = cost(node, shapes).unwrap_or_default();
        let name = [&node.name]
            .into_iter()
            .chain(&node.output)
            .find(|n| !n.is_empty());
        let name = name.cloned().unwrap_or_default();
        if windows > MAX_WINDOW_ELEMENTS {
            return Err(format!(
                "the node `{name}` ({}) looks at {windows} elements at a time: too many to run here",
                node.op_type
            ));
        }
        let learnt = learnt_inputs(node).filter_map(|i| neighbours.constant(i));
        let parameters = learnt
            .filter(|c| counted.insert(*c))
            .filter_map(|c| elements.get(c))
            .filter(|t| t.data_type != DataType::Int64 as i32)
            .map(|t| t.dims.iter().product::<i64>() as u64)
            .sum();
        layers.push(Layer {
            name,
            op: node.op_type.clone(),
            output_shape: output.map(|f| f.shape.clone()),
            parameters,
            macs,
            placement,
        });
    }
    Ok(layers)
}

/// Every constant: initializers, and the values of Constant operators.
fn constants(graph: &GraphProto) -> impl Iterator<Item = (&str, &TensorProto)> {
    let nodes = graph.node.iter().filter(|n| n.op_type == "Constant");
    let values = nodes.filter_map(|n| {
        let tensor = n.attribute.iter().flat_map(onnx_file::tensors).next()?;
        Some((n.output.first()?.as_str(), tensor))
    });
    graph
        .initializer
        .iter()
        .map(|t| (&*t.name, t))
        .chain(values)
}

/// The inputs that may be weights or biases; scales, zero points and sizes are none.
fn learnt_inputs(node: &NodeProto) -> impl Iterator<Item = &str> {
    let positions: &[usize] = match node.op_type.as_str() {
        "QLinearConv" => &[3, 8],
        "QGemm" => &[3, 6],
        "QLinearMatMul" => &[3],
        "QLinearAdd" | "QLinearMul" => &[0, 3],
        "Resize" | "Upsample" | "Clip" => &[],
        op if op.starts_with("QLinear") => &[],
        "ConvInteger" | "MatMulInteger" => &[1],
        _ => &[0, 1, 2, 3, 4],
    };
    positions
        .iter()
        .filter_map(|i| node.input.get(*i))
        .map(|i| i.as_str())
}

/// Multiply-accumulates of an operator, and the elements of its unrolled input; `None` if it has none or a shape is open.
fn cost(node: &NodeProto, shapes: &Shapes) -> Option<(u64, u64)> {
    let shape = |i: usize| shapes.get(node.input.get(i)?).map(|f| &f.shape);
    let volume = |s: &[usize]| {
        s.iter()
            .map(|d| *d as u64)
            .try_fold(1u64, |n, d| n.checked_mul(d))
    };
    let output = &shapes.get(node.output.first()?)?.shape;
    let weights = match node.op_type.as_str() {
        "QLinearConv" | "QGemm" | "QLinearMatMul" => 3,
        _ => 1,
    };
    match node.op_type.as_str() {
        // Weights are [out, in / groups, kernel…]: each output element sums one filter.
        "Conv" | "QLinearConv" | "ConvInteger" | "FusedConv" => {
            let filters = shape(weights)?;
            let macs = volume(output)?.saturating_mul(volume(filters.get(1..)?)?);
            Some((macs, macs / (*filters.first()? as u64).max(1)))
        }
        // Weights are [in, out / groups, kernel…]: each input element goes into one filter.
        "ConvTranspose" => {
            let macs = volume(shape(0)?)?.saturating_mul(volume(shape(weights)?.get(1..)?)?);
            Some((macs, 0))
        }
        "Gemm" | "QGemm" => {
            let transposed = node
                .attribute
                .iter()
                .any(|a| a.name == "transA" && a.i != 0);
            let a = shape(0)?;
            let inner = if transposed { a.first()? } else { a.last()? };
            Some((volume(output)?.saturating_mul(*inner as u64), 0))
        }
        "MatMul" | "QLinearMatMul" | "MatMulInteger" => {
            Some((volume(output)?.saturating_mul(*shape(0)?.last()? as u64), 0))
        }
        _ => None,
    }
}

/// How the graph is quantized, in words.
fn form(graph: &GraphProto, neighbours: &Neighbours<'_>) -> String {
    let has = |prefix: &str| graph.node.iter().any(|n| n.op_type.starts_with(prefix));
    let types: HashMap<&str, &TensorProto> = constants(graph).collect();
    let style = if has("ConvInteger") || has("MatMulInteger") {
        "dynamically quantized: ranges are measured at every inference"
    } else if has("QLinearConv") || has("QLinearMatMul") {
        "QOperator"
    } else if has("DequantizeLinear") {
        "QDQ"
    } else {
        let half = graph
            .initializer
            .iter()
            .any(|t| t.data_type == DataType::Float16 as i32);
        return if half { "float16" } else { "float32" }.into();
    };
    let mut weights = Vec::new();
    let mut activations = Vec::new();
    for node in &graph.node {
        let (data, scale, zero) = match node.op_type.as_str() {
            "QLinearConv" => (3, 4, 5),
            "DequantizeLinear" => (0, 1, 2),
            _ => continue,
        };
        let input = |i: usize| node.input.get(i).map(|s| s.as_str()).unwrap_or_default();
        let per_channel = types
            .get(input(scale))
            .is_some_and(|t| t.dims.iter().product::<i64>() > 1);
        match neighbours.constant(input(data)).and_then(|c| types.get(c)) {
            Some(t) if t.data_type == DataType::Int32 as i32 => {}
            Some(t) => {
                let axis = if per_channel {
                    "per output channel"
                } else {
                    "per tensor"
                };
                weights.push(format!("{} {axis}", element_name(t.data_type)));
            }
            None => activations.extend(types.get(input(zero)).map(|t| element_name(t.data_type))),
        }
        if node.op_type == "QLinearConv" {
            activations.extend(types.get(input(2)).map(|t| element_name(t.data_type)));
        }
    }
    let list = |mut names: Vec<String>| {
        names.sort();
        names.dedup();
        names.join(" and ")
    };
    let mut words = style.to_string();
    for (what, names) in [
        ("activations", list(activations)),
        ("weights", list(weights)),
    ] {
        if !names.is_empty() {
            words += &format!(", {what} {names}");
        }
    }
    words
}

fn element_name(data_type: i32) -> String {
    match DataType::try_from(data_type) {
        Ok(DataType::Uint8) => "u8".into(),
        Ok(DataType::Int8) => "s8".into(),
        Ok(other) => other.as_str_name().to_lowercase(),
        Err(_) => format!("type {data_type}"),
    }
}

fn facts(graph: &GraphProto, neighbours: &Neighbours<'_>, shapes: &Shapes) -> GraphFacts {
    let mut facts = GraphFacts::default();
    if let Some(input) = onnx_file::pictures(graph).next() {
        let readers = neighbours.readers(&input.name);
        let quantizer = readers.iter().find(|n| n.op_type == "QuantizeLinear");
        facts.input_range = quantizer.and_then(|n| range(graph, n));
        let shifts = |n: &&&NodeProto| {
            let constants = n.input.iter().filter(|i| neighbours.constant(i).is_some());
            ["Sub", "Add", "Mul", "Div"].contains(&&*n.op_type) && constants.count() == 1
                || n.op_type == "BatchNormalization"
        };
        facts.normalizes_by = readers.iter().find(shifts).map(|n| n.op_type.clone());
    }
    let mut tensor = graph.output.first().map(|o| o.name.as_str());
    for _ in 0..16 {
        let Some(node) = tensor.and_then(|t| neighbours.writer(t)) else {
            break;
        };
        match node.op_type.as_str() {
            "Softmax" | "QLinearSoftmax" => facts.softmaxes += 1,
            "DequantizeLinear" => {
                let quantizer = onnx_file::scale_and_zero(graph, node);
                facts.output_step = facts.output_step.or(quantizer.map(|(scale, _)| scale));
            }
            "QuantizeLinear" | "Identity" | "Flatten" | "Reshape" | "Squeeze" | "Cast" => {}
            "ArgMax" => {
                facts.argmax_of = chosen_from(node, shapes);
                break;
            }
            _ => break,
        }
        tensor = node.input.first().map(|i| i.as_str());
    }
    facts
}

/// The length of the axis that an ArgMax looks along.
fn chosen_from(argmax: &NodeProto, shapes: &Shapes) -> Option<usize> {
    let axis = argmax.attribute.iter().find(|a| a.name == "axis");
    let axis = axis.map_or(0, |a| a.i);
    let shape = &shapes.get(argmax.input.first()?)?.shape;
    let axis = if axis < 0 {
        axis + shape.len() as i64
    } else {
        axis
    };
    shape.get(usize::try_from(axis).ok()?).copied()
}

/// The values that a QuantizeLinear's 8 bits can stand for.
fn range(graph: &GraphProto, quantizer: &NodeProto) -> Option<(f32, f32)> {
    let (scale, zero_point) = onnx_file::scale_and_zero(graph, quantizer)?;
    let name = quantizer.input.get(2)?;
    let zero = graph.initializer.iter().find(|t| t.name == *name)?;
    let (low, high) = match DataType::try_from(zero.data_type).ok()? {
        DataType::Uint8 => (0.0, 255.0),
        DataType::Int8 => (-128.0, 127.0),
        _ => return None,
    };
    Some(((low - zero_point) * scale, (high - zero_point) * scale))
}
