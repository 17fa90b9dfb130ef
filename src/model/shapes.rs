//! The shape of every tensor of a graph, found without its weights and without running anything large.
//!
//! In: a decoded graph. Out: [`Shapes`] by tensor name, or that the graph is too large to run. On the main thread, at
//! load, before the engine. Always holds: no operator is evaluated before its output's size is known to be small.
//!
//! tract's own analysis evaluates whatever is constant as it goes: one `ConstantOfShape`, or thirty `Concat` of a tensor
//! with itself, would take all memory. Here the same rules run operator by operator, with a look at the result in between.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use tract_onnx::pb::{
    GraphProto, ModelProto, NodeProto, TensorProto, TensorShapeProto, TypeProto, ValueInfoProto,
    tensor_shape_proto::Dimension, tensor_shape_proto::dimension::Value as DimValue, type_proto,
};
use tract_onnx::prelude::*;
use tract_onnx::tract_hir::infer::{Factoid, InferenceOp};

use ocellus_int8::normalize;

/// The largest tensor, in elements: 64 Mi.
const MAX_ELEMENTS: usize = 64 << 20;
/// All tensors that the operators write, in elements: 1 Gi. ResNet-152 at 224×224 has 60 Mi, Faster R-CNN-ResNet-50 in int8 (QDQ) at 640×480
/// 417 Mi, SSD-ResNet-34 at 1200×1200 533 Mi and in int8 (QDQ) 723 Mi.
const MAX_TOTAL_ELEMENTS: usize = 1 << 30;
/// Those of them that depend on no picture, and are computed and kept at load: 256 Mi.
const MAX_CONSTANT_ELEMENTS: usize = 256 << 20;
/// Operators whose output grows with the numbers that they read as a constant.
const GROWING: [&str; 9] = [
    "ConstantOfShape",
    "Expand",
    "OneHot",
    "Pad",
    "Range",
    "Reshape",
    "Resize",
    "Tile",
    "Upsample",
];
/// The largest such number: products with it must not run over.
const MAX_EXTENT: u64 = 1 << 31;
/// Constants up to this size keep their values, which may be shapes, pads, scales or biases; larger ones are weights.
const VALUE_BYTES: usize = 256 << 10;

/// What is known of a graph's tensors.
#[derive(Debug, Default)]
pub(super) struct Shapes {
    tensors: HashMap<String, TensorFact>,
    /// Operators whose output's shape could not be found, with the reason.
    pub problems: Vec<String>,
}

/// Type and shape of one tensor.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct TensorFact {
    /// As ONNX's documents name it in short: `f32`, `u8`.
    pub element: String,
    pub shape: Vec<usize>,
}

impl Shapes {
    /// `None` if the shape could not be found.
    pub(super) fn get(&self, tensor: &str) -> Option<&TensorFact> {
        self.tensors.get(tensor)
    }
}

/// Finds the shapes of all tensors.
///
/// # Errors
/// A tensor, or all of them together, would be too large; or the graph is malformed.
pub(super) fn infer(model: &ModelProto) -> Result<Shapes, String> {
    let light = without_weights(model);
    catch_unwind(AssertUnwindSafe(|| infer_light(light)))
        .unwrap_or_else(|_| Err("the graph is malformed: its shapes cannot be found".into()))
}

fn infer_light(mut proto: ModelProto) -> Result<Shapes, String> {
    normalize(&mut proto).map_err(|e| e.to_string())?;
    let mut model = tract_onnx::onnx()
        .model_for_proto_model(&proto)
        .map_err(|e| format!("{e:#}"))?;
    let mut shapes = Shapes::default();
    let (mut total, mut constant) = (0usize, 0usize);
    let written_by = |n: &NodeProto| Some((n.output.first()?.clone(), n.op_type.clone()));
    let nodes = proto.graph.iter().flat_map(|g| &g.node);
    let operators: HashMap<String, String> = nodes.filter_map(written_by).collect();
    for id in model.eval_order().map_err(|e| format!("{e:#}"))? {
        let operator = model
            .outlet_label(OutletId::new(id, 0))
            .and_then(|l| operators.get(l));
        if operator.is_some_and(|o| GROWING.contains(&o.as_str())) {
            check_extents(&model, id)?;
        }
        let found = infer_node(&mut model, id)?;
        let node = model.node(id);
        // The first output alone: others, such as the indices of a MaxPool, are mostly not computed.
        let first = node.outputs.first();
        let size = first.map(|o| elements(&node.name, &o.fact)).transpose()?;
        shapes.problems.extend(match (found, size) {
            (Err(problem), _) => Some(problem),
            (Ok(()), Some(None)) => {
                let (name, op) = (&node.name, node.op.name());
                Some(format!(
                    "the node `{name}` ({op}): its output's shape cannot be found"
                ))
            }
            _ => None,
        });
        if !node.inputs.is_empty() {
            for output in &node.outputs {
                let n = elements(&node.name, &output.fact)?.unwrap_or(0);
                total += n;
                if output.fact.value.concretize().is_some() {
                    constant += n;
                }
            }
        }
        for (n, most) in [
            (total, MAX_TOTAL_ELEMENTS),
            (constant, MAX_CONSTANT_ELEMENTS),
        ] {
            if n > most {
                return Err(format!(
                    "its tensors have more than {most} elements together: too large to run here"
                ));
            }
        }
    }
    for node in model.nodes() {
        for (slot, output) in node.outputs.iter().enumerate() {
            let label = model.outlet_label(OutletId::new(node.id, slot));
            let fact = tensor_fact(&output.fact);
            if let Some(fact) = fact {
                shapes
                    .tensors
                    .insert(label.unwrap_or(&node.name).to_string(), fact);
            }
        }
    }
    Ok(shapes)
}

fn check_extents(model: &InferenceModel, id: usize) -> Result<(), String> {
    let node = model.node(id);
    for input in model.node_input_facts(id).map_err(|e| e.to_string())? {
        let Some(value) = input.value.concretize() else {
            continue;
        };
        let numbers = value.cast_to::<i64>();
        let numbers = numbers
            .as_ref()
            .ok()
            .and_then(|v| v.to_plain_array_view::<i64>().ok());
        let too_far = |v: &&i64| v.unsigned_abs() > MAX_EXTENT;
        if let Some(number) = numbers.iter().flatten().find(too_far) {
            let (name, op) = (&node.name, node.op.name());
            return Err(format!(
                "the node `{name}` ({op}) reads {number}, which is more than the {MAX_EXTENT} that it may"
            ));
        }
    }
    Ok(())
}

/// One operator: its rules first, and its value only if that is small. The outer error ends it all; the inner one
/// leaves the output's shape open.
fn infer_node(model: &mut InferenceModel, id: usize) -> Result<Result<(), String>, String> {
    let describe =
        |m: &InferenceModel| format!("the node `{}` ({})", m.node(id).name, m.node(id).op.name());
    let facts = || -> TractResult<_> {
        let owned =
            |f: TVec<&InferenceFact>| f.into_iter().cloned().collect::<TVec<InferenceFact>>();
        let observed: TVec<InferenceFact> = model
            .node(id)
            .op
            .observe_outlets(model, model.node(id))?
            .into_iter()
            .map(|o| model.outlet_fact(o).cloned())
            .collect::<TractResult<_>>()?;
        Ok((
            owned(model.node_input_facts(id)?),
            owned(model.node_output_facts(id)?),
            observed,
        ))
    };
    let name = describe(model);
    let problem = |e: TractError| format!("{name}: {e:#}");
    let (inputs, outputs, observed) = match facts() {
        Ok(facts) => facts,
        Err(e) => return Ok(Err(problem(e))),
    };
    let op: &mut Box<dyn InferenceOp> = &mut model.node_mut(id).op;
    match op.infer_facts(borrowed(&inputs), borrowed(&outputs), borrowed(&observed)) {
        Err(e) => return Ok(Err(problem(e))),
        Ok((_, found, _)) => {
            for fact in &found {
                elements(&name, fact)?;
            }
        }
    }
    let found = match op.infer(borrowed(&inputs), borrowed(&outputs), borrowed(&observed)) {
        Ok((_, found, _)) => found,
        Err(e) => return Ok(Err(problem(e))),
    };
    for (slot, fact) in found.into_iter().enumerate() {
        let unified = outputs
            .get(slot)
            .map_or(Ok(fact.clone()), |old| old.unify(&fact));
        let set = unified.and_then(|fact| model.set_outlet_fact(OutletId::new(id, slot), fact));
        if let Err(e) = set {
            return Ok(Err(problem(e)));
        }
    }
    Ok(Ok(()))
}

fn borrowed(facts: &TVec<InferenceFact>) -> TVec<&InferenceFact> {
    facts.iter().collect()
}

/// How many elements a tensor has, if its shape is known.
fn elements(name: &str, fact: &InferenceFact) -> Result<Option<usize>, String> {
    let Some(dims) = fact.shape.concretize() else {
        return Ok(None);
    };
    let mut product = Some(1usize);
    for dim in &dims {
        let Ok(dim) = dim.to_i64() else {
            return Ok(None);
        };
        let dim = usize::try_from(dim).ok();
        product = product.zip(dim).and_then(|(p, d)| p.checked_mul(d));
    }
    match product.filter(|p| *p <= MAX_ELEMENTS) {
        Some(product) => Ok(Some(product)),
        None => Err(format!(
            "{name} writes a tensor of the shape {dims:?}: more than the {MAX_ELEMENTS} elements that one may have"
        )),
    }
}

fn tensor_fact(fact: &InferenceFact) -> Option<TensorFact> {
    let shape = fact.shape.as_concrete_finite().ok().flatten()?;
    let element = fact.datum_type.concretize()?;
    Some(TensorFact {
        element: format!("{:?}", element.unquantized()).to_lowercase(),
        shape: shape.to_vec(),
    })
}

/// The same graph with its weights as inputs: of them only the shapes count.
fn without_weights(model: &ModelProto) -> ModelProto {
    let Some(graph) = &model.graph else {
        return ModelProto::default();
    };
    let is_weight = |t: &&TensorProto| {
        t.raw_data.len() + 4 * t.float_data.len() + 4 * t.int32_data.len() > VALUE_BYTES
    };
    let (weights, values): (Vec<&TensorProto>, Vec<&TensorProto>) =
        graph.initializer.iter().partition(is_weight);
    let names: std::collections::HashSet<&str> = weights.iter().map(|t| &*t.name).collect();
    let pictures = graph.input.iter().filter(|i| !names.contains(&*i.name));
    let graph = GraphProto {
        node: graph.node.clone(),
        initializer: values.into_iter().cloned().collect(),
        input: pictures
            .cloned()
            .chain(weights.iter().map(|t| declaration(t)))
            .collect(),
        output: graph.output.clone(),
        ..GraphProto::default()
    };
    ModelProto {
        opset_import: model.opset_import.clone(),
        graph: Some(graph),
        ..ModelProto::default()
    }
}

/// A constant's type and shape, as an input has them.
fn declaration(t: &TensorProto) -> ValueInfoProto {
    let dim = t.dims.iter().map(|d| Dimension {
        value: Some(DimValue::DimValue(*d)),
        ..Dimension::default()
    });
    let tensor = type_proto::Tensor {
        elem_type: t.data_type,
        shape: Some(TensorShapeProto { dim: dim.collect() }),
    };
    ValueInfoProto {
        name: t.name.clone(),
        r#type: Some(TypeProto {
            value: Some(type_proto::Value::TensorType(tensor)),
            ..TypeProto::default()
        }),
        ..ValueInfoProto::default()
    }
}
