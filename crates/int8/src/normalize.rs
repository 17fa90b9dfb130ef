//! Before anything else: real exports differ from what tract takes in matters of form.
//!
//! In: the protobuf as it was read. Out: the same function, in the form that tract loads. Each rule mends one matter:
//!
//! | rule | found in |
//! |---|---|
//! | [`initializers_are_no_inputs`] | opset 9 and older: every initializer is listed as an input too |
//! | [`fix_batch`] | a symbolic batch: plans are for one size, which is 1 unless the file says another |
//! | [`drop_value_info`] | value_info with the symbolic batch (onnxruntime's quantizer): cannot be unified with 1 |
//! | [`pad_value_is_a_scalar`] | `Pad` whose constant value has rank 1 (PyTorch 1.x: ResNet-20) |
//! | [`crate::qoperator`] | com.microsoft's QLinearAdd, QGemm, …, which tract does not have |

use tract_onnx::pb::{
    GraphProto, ModelProto, TensorProto, tensor_shape_proto::Dimension,
    tensor_shape_proto::dimension::Value as DimValue, type_proto::Value as TypeValue,
};

use crate::Error;
use crate::proto::constants_to_initializers;
use crate::qoperator::qoperators_to_qdq;

/// Brings a model into the form that tract and [`load_proto`](crate::load_proto) take (which does it too); returns a
/// sentence for each rule that changed something.
///
/// # Errors
/// An operator lacks something, or a constant makes no sense.
pub fn normalize(model: &mut ModelProto) -> Result<Vec<String>, Error> {
    let graph = model
        .graph
        .as_mut()
        .ok_or_else(|| Error::NotOnnx("it has no graph".into()))?;
    let mut done = Vec::new();
    let mut say = |n: usize, what: &str| {
        if n > 0 {
            done.push(format!("{what} ({n})"));
        }
    };
    constants_to_initializers(graph);
    say(
        initializers_are_no_inputs(graph),
        "initializers taken off the inputs",
    );
    say(fix_batch(graph), "symbolic batch set to 1");
    say(drop_value_info(graph), "value_info dropped");
    say(
        pad_value_is_a_scalar(graph),
        "Pad's constant value made a scalar",
    );
    say(
        qoperators_to_qdq(graph)?,
        "QOperator nodes written as QuantizeLinear and DequantizeLinear",
    );
    Ok(done)
}

fn initializers_are_no_inputs(graph: &mut GraphProto) -> usize {
    let before = graph.input.len();
    let initializers: std::collections::HashSet<&str> =
        graph.initializer.iter().map(|t| &*t.name).collect();
    graph.input.retain(|i| !initializers.contains(&*i.name));
    before - graph.input.len()
}

fn fix_batch(graph: &mut GraphProto) -> usize {
    let mut fixed = 0;
    for input in &mut graph.input {
        let Some(TypeValue::TensorType(tensor)) =
            input.r#type.as_mut().and_then(|t| t.value.as_mut())
        else {
            continue;
        };
        let first = tensor.shape.as_mut().and_then(|s| s.dim.first_mut());
        if let Some(dim) = first.filter(|d| !is_known(d)) {
            dim.value = Some(DimValue::DimValue(1));
            fixed += 1;
        }
    }
    fixed
}

fn is_known(dim: &Dimension) -> bool {
    matches!(dim.value, Some(DimValue::DimValue(n)) if n > 0)
}

fn drop_value_info(graph: &mut GraphProto) -> usize {
    std::mem::take(&mut graph.value_info).len()
}

fn pad_value_is_a_scalar(graph: &mut GraphProto) -> usize {
    let pads = graph.node.iter().filter(|n| n.op_type == "Pad");
    let mut values: Vec<String> = pads.filter_map(|n| n.input.get(2).cloned()).collect();
    // The value itself, or what is dequantized to it.
    let sources = graph
        .node
        .iter()
        .filter(|n| n.op_type == "DequantizeLinear");
    let sources: Vec<String> = sources
        .filter(|n| n.output.iter().any(|o| values.contains(o)))
        .filter_map(|n| n.input.first().cloned())
        .collect();
    values.extend(sources);
    let rank_1 = |t: &TensorProto| t.dims == [1];
    let mut mended = 0;
    for tensor in graph
        .initializer
        .iter_mut()
        .filter(|t| values.contains(&t.name) && rank_1(t))
    {
        tensor.dims.clear();
        mended += 1;
    }
    mended
}

#[cfg(test)]
mod tests;
