//! One pass over the ONNX graph, before tract: real exports differ from what tract takes in matters of form.
//!
//! In: the protobuf as it was read. Out: the same function, in the form that tract loads. On the main thread, at load.
//! Each rule mends one matter and has its own fixture in the tests:
//!
//! | rule | found in |
//! |---|---|
//! | [`fix_batch`] | a symbolic batch, against the batch of 1 that a camera has |
//! | [`drop_value_info`] | value_info with the symbolic batch (onnxruntime's quantizer): cannot be unified with 1 |
//! | [`initializers_are_no_inputs`] | opset 9 and older: every initializer is listed as an input too |
//! | [`pad_value_is_a_scalar`] | `Pad` whose constant value has rank 1 (PyTorch 1.x: ResNet-20) |
//! | [`softmax_is_not_quantized`] | TFLite's converters: tract takes a Softmax between quantizations for elementwise |
//! | [`qoperators_to_qdq`] | com.microsoft's QLinearAdd, QGemm, …, which tract does not have |

use std::collections::HashMap;

use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, attribute_proto::AttributeType,
    tensor_shape_proto::Dimension, tensor_shape_proto::dimension::Value as DimValue,
    type_proto::Value as TypeValue,
};

/// Why a graph cannot be mended.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NormalizeError(pub String);

/// Applies every rule; returns a sentence for each that changed something.
pub fn normalize(model: &mut ModelProto) -> Result<Vec<String>, NormalizeError> {
    let graph = model
        .graph
        .as_mut()
        .ok_or_else(|| NormalizeError("the file has no graph".into()))?;
    let mut done = Vec::new();
    let mut say = |n: usize, what: &str| {
        if n > 0 {
            done.push(format!("{what} ({n})"));
        }
    };
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
        softmax_is_not_quantized(graph),
        "probabilities left in float instead of quantized",
    );
    say(
        qoperators_to_qdq(graph)?,
        "com.microsoft operators written as QuantizeLinear and DequantizeLinear",
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
    let mut values: Vec<String> = graph
        .node
        .iter()
        .filter(|n| n.op_type == "Pad")
        .filter_map(|n| n.input.get(2).cloned())
        .collect();
    // A quantized file keeps the value as an integer, behind a DequantizeLinear.
    let quantized = graph
        .node
        .iter()
        .filter(|n| n.op_type == "DequantizeLinear" && n.output.iter().any(|o| values.contains(o)));
    values.extend(
        quantized
            .filter_map(|n| n.input.first().cloned())
            .collect::<Vec<_>>(),
    );
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
    let constants = graph.node.iter_mut().filter(|n| n.op_type == "Constant");
    for constant in constants.filter(|n| n.output.iter().any(|o| values.contains(o))) {
        for tensor in constant
            .attribute
            .iter_mut()
            .filter_map(|a| a.t.as_mut())
            .filter(|t| rank_1(t))
        {
            tensor.dims.clear();
            mended += 1;
        }
    }
    mended
}

/// A `Softmax` whose quantized result is an output becomes the output itself.
///
/// tract 0.23.9 folds every chain of one-to-one axes between DequantizeLinear and QuantizeLinear into a table of 256 entries,
/// Softmax too: each class then has the probability 1.
fn softmax_is_not_quantized(graph: &mut GraphProto) -> usize {
    let mut mended = 0;
    for output in &mut graph.output {
        let writes = |n: &NodeProto, tensor: &str| n.output.iter().any(|o| o == tensor);
        let Some(quantize) = graph
            .node
            .iter()
            .position(|n| n.op_type == "QuantizeLinear" && writes(n, &output.name))
        else {
            continue;
        };
        let input = graph.node[quantize]
            .input
            .first()
            .cloned()
            .unwrap_or_default();
        let Some(softmax) = graph
            .node
            .iter()
            .position(|n| n.op_type == "Softmax" && writes(n, &input))
        else {
            continue;
        };
        graph.node[softmax].output = vec![output.name.clone()];
        graph.node.remove(quantize);
        if let Some(TypeValue::TensorType(t)) =
            output.r#type.as_mut().and_then(|t| t.value.as_mut())
        {
            t.elem_type = DataType::Float as i32;
        }
        mended += 1;
    }
    mended
}

fn qoperators_to_qdq(graph: &mut GraphProto) -> Result<usize, NormalizeError> {
    let mut rewritten = 0;
    let initializers: HashMap<String, TensorProto> = graph
        .initializer
        .iter()
        .map(|t| (t.name.clone(), t.clone()))
        .collect();
    let mut new = Rewriter {
        initializers,
        nodes: Vec::new(),
        added: Vec::new(),
    };
    for node in std::mem::take(&mut graph.node) {
        if node.domain == "com.microsoft" && new.rewrite(&node)? {
            rewritten += 1;
        } else {
            new.nodes.push(node);
        }
    }
    graph.node = new.nodes;
    graph.initializer.append(&mut new.added);
    Ok(rewritten)
}

struct Rewriter {
    initializers: HashMap<String, TensorProto>,
    nodes: Vec<NodeProto>,
    added: Vec<TensorProto>,
}

impl Rewriter {
    /// Writes the node in its standard form; `false` if it is none of ours.
    fn rewrite(&mut self, node: &NodeProto) -> Result<bool, NormalizeError> {
        match node.op_type.as_str() {
            "QLinearAdd" => self.float(node, "Add", &[[0, 1, 2], [3, 4, 5]], [6, 7], vec![])?,
            "QLinearMul" => self.float(node, "Mul", &[[0, 1, 2], [3, 4, 5]], [6, 7], vec![])?,
            "QLinearSigmoid" => self.float(node, "Sigmoid", &[[0, 1, 2]], [3, 4], vec![])?,
            "QLinearLeakyRelu" => self.float(
                node,
                "LeakyRelu",
                &[[0, 1, 2]],
                [3, 4],
                node.attribute.clone(),
            )?,
            "QLinearGlobalAveragePool" => {
                channels_first(node)?;
                self.float(node, "GlobalAveragePool", &[[0, 1, 2]], [3, 4], vec![])?
            }
            "QLinearAveragePool" => {
                channels_first(node)?;
                let keep = node
                    .attribute
                    .iter()
                    .filter(|a| a.name != "channels_last")
                    .cloned()
                    .collect();
                self.float(node, "AveragePool", &[[0, 1, 2]], [3, 4], keep)?
            }
            "QLinearConcat" => {
                let triples: Vec<[usize; 3]> = (2..node.input.len())
                    .step_by(3)
                    .map(|i| [i, i + 1, i + 2])
                    .collect();
                self.float(node, "Concat", &triples, [0, 1], node.attribute.clone())?
            }
            "QGemm" => self.gemm(node)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Dequantized inputs → the float operator → quantized output.
    fn float(
        &mut self,
        node: &NodeProto,
        op: &str,
        inputs: &[[usize; 3]],
        output: [usize; 2],
        attributes: Vec<AttributeProto>,
    ) -> Result<(), NormalizeError> {
        let floats: Vec<String> = inputs
            .iter()
            .map(|i| self.dequantize(node, *i, None))
            .collect::<Result<_, _>>()?;
        let result = format!("{}::float", output_name(node)?);
        self.push(op, floats, &result, attributes);
        self.quantize(node, &result, output)
    }

    fn gemm(&mut self, node: &NodeProto) -> Result<(), NormalizeError> {
        let transposed = node
            .attribute
            .iter()
            .any(|a| a.name == "transB" && a.i != 0);
        let a = self.dequantize(node, [0, 1, 2], None)?;
        let b = self.dequantize(node, [3, 4, 5], Some(i64::from(!transposed)))?;
        let mut inputs = vec![a, b];
        if node.input.get(6).is_some_and(|c| !c.is_empty()) {
            inputs.push(self.gemm_bias(node)?);
        }
        let name = output_name(node)?.to_string();
        let quantized = node.input.get(7).is_some_and(|s| !s.is_empty());
        let result = if quantized {
            format!("{name}::float")
        } else {
            name
        };
        self.push("Gemm", inputs, &result, node.attribute.clone());
        if quantized {
            self.quantize(node, &result, [7, 8])
        } else {
            Ok(())
        }
    }

    /// i32 with the scale `a_scale · b_scale` (for each column where the weights are per-channel) → float constant.
    fn gemm_bias(&mut self, node: &NodeProto) -> Result<String, NormalizeError> {
        let constant = |i: usize| {
            let name = input(node, i)?;
            self.initializers.get(name).ok_or_else(|| {
                NormalizeError(format!("QGemm {}: `{name}` is not a constant", node.name))
            })
        };
        let (a, b, bias) = (
            floats(constant(1)?),
            floats(constant(4)?),
            ints(constant(6)?),
        );
        let (Some(&a), false) = (a.first(), b.is_empty()) else {
            return Err(NormalizeError(format!(
                "QGemm {}: a scale is empty",
                node.name
            )));
        };
        let float = bias
            .iter()
            .enumerate()
            .map(|(i, v)| *v as f32 * a * b[i % b.len()])
            .collect();
        let name = format!("{}::bias", output_name(node)?);
        let dims = vec![bias.len() as i64];
        let tensor = TensorProto {
            name: name.clone(),
            dims,
            data_type: DataType::Float as i32,
            float_data: float,
            ..Default::default()
        };
        self.added.push(tensor);
        Ok(name)
    }

    fn dequantize(
        &mut self,
        node: &NodeProto,
        at: [usize; 3],
        axis: Option<i64>,
    ) -> Result<String, NormalizeError> {
        let name = format!("{}::input{}", output_name(node)?, at[0]);
        let mut inputs = vec![
            input(node, at[0])?.to_string(),
            input(node, at[1])?.to_string(),
        ];
        inputs.extend(node.input.get(at[2]).filter(|z| !z.is_empty()).cloned());
        let per_channel = self
            .initializers
            .get(&inputs[1])
            .is_some_and(|s| s.dims.iter().product::<i64>() > 1);
        let axis = axis.filter(|_| per_channel).map(|i| AttributeProto {
            name: "axis".into(),
            r#type: AttributeType::Int as i32,
            i,
            ..Default::default()
        });
        self.push(
            "DequantizeLinear",
            inputs,
            &name,
            axis.into_iter().collect(),
        );
        Ok(name)
    }

    fn quantize(
        &mut self,
        node: &NodeProto,
        value: &str,
        at: [usize; 2],
    ) -> Result<(), NormalizeError> {
        let mut inputs = vec![value.to_string(), input(node, at[0])?.to_string()];
        inputs.extend(node.input.get(at[1]).filter(|z| !z.is_empty()).cloned());
        let name = output_name(node)?.to_string();
        self.push("QuantizeLinear", inputs, &name, vec![]);
        Ok(())
    }

    fn push(&mut self, op: &str, input: Vec<String>, output: &str, attribute: Vec<AttributeProto>) {
        self.nodes.push(NodeProto {
            name: output.into(),
            op_type: op.into(),
            input,
            output: vec![output.into()],
            attribute,
            ..Default::default()
        });
    }
}

fn input(node: &NodeProto, i: usize) -> Result<&str, NormalizeError> {
    let missing = || {
        NormalizeError(format!(
            "{} {}: input {i} is missing",
            node.op_type, node.name
        ))
    };
    node.input
        .get(i)
        .filter(|n| !n.is_empty())
        .map(|n| &**n)
        .ok_or_else(missing)
}

fn output_name(node: &NodeProto) -> Result<&str, NormalizeError> {
    let missing = || {
        NormalizeError(format!(
            "{} {}: the output is missing",
            node.op_type, node.name
        ))
    };
    node.output
        .first()
        .filter(|n| !n.is_empty())
        .map(|n| &**n)
        .ok_or_else(missing)
}

fn channels_first(node: &NodeProto) -> Result<(), NormalizeError> {
    match node
        .attribute
        .iter()
        .any(|a| a.name == "channels_last" && a.i != 0)
    {
        false => Ok(()),
        true => Err(NormalizeError(format!(
            "{} {}: channels_last is not known here",
            node.op_type, node.name
        ))),
    }
}

fn floats(t: &TensorProto) -> Vec<f32> {
    if !t.float_data.is_empty() {
        return t.float_data.clone();
    }
    t.raw_data
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
        .collect()
}

fn ints(t: &TensorProto) -> Vec<i32> {
    if !t.int32_data.is_empty() {
        return t.int32_data.clone();
    }
    t.raw_data
        .chunks_exact(4)
        .map(|b| i32::from_le_bytes([b[0], b[1], b[2], b[3]]))
        .collect()
}

#[cfg(test)]
mod tests;
