//! QOperator nodes (`QLinearConv`, com.microsoft's `QLinearAdd`, …) written as QDQ: DequantizeLinear, the float operator,
//! QuantizeLinear. One form is left for all that follows, and what is not taken as integers runs in tract as floats.
//!
//! In: the graph of a file. Out: the same function. Also here, for the same reason: constants that the file quantizes
//! when it runs (PyTorch's exports of weights) are quantized now.

use std::collections::HashMap;

use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{
    AttributeProto, GraphProto, NodeProto, TensorProto, attribute_proto::AttributeType,
};

use crate::Error;
use crate::proto::{Constant, attribute, input, int, malformed, output, required_input};

/// Rewrites every QOperator node that is known; returns how many.
pub(crate) fn qoperators_to_qdq(graph: &mut GraphProto) -> Result<usize, Error> {
    let nodes = std::mem::take(&mut graph.node);
    let constants = graph
        .initializer
        .iter()
        .map(|t| (t.name.as_str(), t))
        .collect();
    let mut rewriter = Rewriter {
        constants,
        nodes: Vec::with_capacity(nodes.len()),
        added: Vec::new(),
    };
    let mut rewritten = 0;
    for node in nodes {
        if rewriter.rewrite(&node)? {
            rewritten += 1;
        } else {
            rewriter.nodes.push(node);
        }
    }
    let Rewriter {
        nodes, mut added, ..
    } = rewriter;
    graph.node = nodes;
    graph.initializer.append(&mut added);
    Ok(rewritten)
}

struct Rewriter<'a> {
    constants: HashMap<&'a str, &'a TensorProto>,
    nodes: Vec<NodeProto>,
    added: Vec<TensorProto>,
}

/// Where a node has a tensor, its scale and its zero point.
type Triple = [usize; 3];

impl Rewriter<'_> {
    /// Writes the node as QDQ; `false` if it is none of ours.
    fn rewrite(&mut self, node: &NodeProto) -> Result<bool, Error> {
        match (node.domain.as_str(), node.op_type.as_str()) {
            ("" | "ai.onnx", "QLinearConv") => {
                let x = self.dequantize(node, [0, 1, 2], None)?;
                let w = self.dequantize(node, [3, 4, 5], Some(0))?;
                let bias = self.bias(node, 8, 1, 4)?;
                let inputs = [x, w].into_iter().chain(bias).collect();
                self.quantized(node, "Conv", inputs, [6, 7], node.attribute.clone())?;
            }
            ("" | "ai.onnx", "QLinearMatMul") => {
                let a = self.dequantize(node, [0, 1, 2], None)?;
                let b = self.dequantize(node, [3, 4, 5], Some(1))?;
                self.quantized(node, "MatMul", vec![a, b], [6, 7], vec![])?;
            }
            ("com.microsoft", "QLinearAdd") => {
                self.float(node, "Add", &[[0, 1, 2], [3, 4, 5]], [6, 7], vec![])?
            }
            ("com.microsoft", "QLinearMul") => {
                self.float(node, "Mul", &[[0, 1, 2], [3, 4, 5]], [6, 7], vec![])?
            }
            ("com.microsoft", "QLinearSigmoid") => {
                self.float(node, "Sigmoid", &[[0, 1, 2]], [3, 4], vec![])?
            }
            ("com.microsoft", "QLinearLeakyRelu") => {
                self.float(
                    node,
                    "LeakyRelu",
                    &[[0, 1, 2]],
                    [3, 4],
                    node.attribute.clone(),
                )?;
            }
            ("com.microsoft", "QLinearGlobalAveragePool") => {
                channels_first(node)?;
                self.float(node, "GlobalAveragePool", &[[0, 1, 2]], [3, 4], vec![])?;
            }
            ("com.microsoft", "QLinearAveragePool") => {
                channels_first(node)?;
                let others = node.attribute.iter().filter(|a| a.name != "channels_last");
                self.float(
                    node,
                    "AveragePool",
                    &[[0, 1, 2]],
                    [3, 4],
                    others.cloned().collect(),
                )?;
            }
            ("com.microsoft", "QLinearConcat") => {
                let triples: Vec<Triple> = (2..node.input.len())
                    .step_by(3)
                    .map(|i| [i, i + 1, i + 2])
                    .collect();
                self.float(node, "Concat", &triples, [0, 1], node.attribute.clone())?;
            }
            ("com.microsoft", "QGemm") => self.gemm(node)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Dequantized inputs → the float operator → quantized output.
    fn float(
        &mut self,
        node: &NodeProto,
        op: &str,
        inputs: &[Triple],
        output: [usize; 2],
        attributes: Vec<AttributeProto>,
    ) -> Result<(), Error> {
        let floats = inputs.iter().map(|i| self.dequantize(node, *i, None));
        let floats = floats.collect::<Result<_, _>>()?;
        self.quantized(node, op, floats, output, attributes)
    }

    fn quantized(
        &mut self,
        node: &NodeProto,
        op: &str,
        inputs: Vec<String>,
        [scale, zero]: [usize; 2],
        attributes: Vec<AttributeProto>,
    ) -> Result<(), Error> {
        let name = output(node)?;
        let result = format!("{name}::float");
        self.push(node, op, inputs, &result, attributes);
        let mut inputs = vec![result, required_input(node, scale)?.to_string()];
        inputs.extend(input(node, zero).map(str::to_string));
        self.push(node, "QuantizeLinear", inputs, name, vec![]);
        Ok(())
    }

    fn gemm(&mut self, node: &NodeProto) -> Result<(), Error> {
        let transposed = int(node, "transB", 0) != 0;
        let a = self.dequantize(node, [0, 1, 2], None)?;
        let b = self.dequantize(node, [3, 4, 5], Some(i64::from(!transposed)))?;
        let bias = self.bias(node, 6, 1, 4)?;
        let inputs = [a, b].into_iter().chain(bias).collect();
        if input(node, 7).is_some() {
            self.quantized(node, "Gemm", inputs, [7, 8], node.attribute.clone())
        } else {
            self.push(node, "Gemm", inputs, output(node)?, node.attribute.clone());
            Ok(())
        }
    }

    /// The dequantization of an i32 bias, whose scale is that of the input times that of the weights.
    fn bias(
        &mut self,
        node: &NodeProto,
        bias: usize,
        x: usize,
        w: usize,
    ) -> Result<Option<String>, Error> {
        let Some(bias) = input(node, bias) else {
            return Ok(None);
        };
        let constant = |i: usize| -> Result<Vec<f32>, Error> {
            let name = required_input(node, i)?;
            let tensor = self.constants.get(name);
            let tensor = tensor
                .ok_or_else(|| malformed(node, format!("its scale `{name}` is not a constant")))?;
            Constant(tensor).floats()
        };
        let (x, w) = (constant(x)?, constant(w)?);
        let [x] = x.as_slice() else {
            return Err(malformed(node, format!("its input has {} scales", x.len())));
        };
        let scales: Vec<f32> = w.iter().map(|w| w * x).collect();
        let name = format!("{}::bias", output(node)?);
        let scale = TensorProto {
            name: format!("{name}_scale"),
            dims: if scales.len() == 1 {
                vec![]
            } else {
                vec![scales.len() as i64]
            },
            data_type: DataType::Float as i32,
            float_data: scales,
            ..Default::default()
        };
        let inputs = vec![bias.to_string(), scale.name.clone()];
        self.added.push(scale);
        self.push(node, "DequantizeLinear", inputs, &name, vec![axis(0)]);
        Ok(Some(name))
    }

    /// `by_channel`: the axis of the scales, where there are several.
    fn dequantize(
        &mut self,
        node: &NodeProto,
        at: Triple,
        by_channel: Option<i64>,
    ) -> Result<String, Error> {
        let name = format!("{}::input{}", output(node)?, at[0]);
        let mut inputs = vec![
            required_input(node, at[0])?.to_string(),
            required_input(node, at[1])?.to_string(),
        ];
        inputs.extend(input(node, at[2]).map(str::to_string));
        let several = self
            .constants
            .get(inputs[1].as_str())
            .is_some_and(|s| s.dims.iter().any(|d| *d > 1));
        let attributes = by_channel
            .filter(|_| several)
            .map(axis)
            .into_iter()
            .collect();
        self.push(node, "DequantizeLinear", inputs, &name, attributes);
        Ok(name)
    }

    /// A node whose name, in messages and reports, is that of the node that it stands for.
    fn push(
        &mut self,
        of: &NodeProto,
        op: &str,
        input: Vec<String>,
        output: &str,
        attribute: Vec<AttributeProto>,
    ) {
        let prefix = crate::proto::node_name(of);
        let name = match op {
            "DequantizeLinear" => output.to_string(),
            "QuantizeLinear" => format!("{prefix}::quantize"),
            _ => prefix.to_string(),
        };
        let output = vec![output.to_string()];
        self.nodes.push(NodeProto {
            name,
            op_type: op.into(),
            input,
            output,
            attribute,
            ..Default::default()
        });
    }
}

fn axis(i: i64) -> AttributeProto {
    AttributeProto {
        name: "axis".into(),
        r#type: AttributeType::Int as i32,
        i,
        ..Default::default()
    }
}

fn channels_first(node: &NodeProto) -> Result<(), Error> {
    match int(node, "channels_last", 0) {
        0 => Ok(()),
        _ => Err(malformed(node, "channels_last is not known here")),
    }
}

/// QuantizeLinear of a constant float → a constant of bytes.
pub(crate) fn quantize_constants(graph: &mut GraphProto) -> Result<(), Error> {
    let constants: HashMap<&str, &TensorProto> = graph
        .initializer
        .iter()
        .map(|t| (t.name.as_str(), t))
        .collect();
    let mut quantized = Vec::new();
    for (i, node) in graph
        .node
        .iter()
        .enumerate()
        .filter(|(_, n)| n.op_type == "QuantizeLinear")
    {
        if let Some(tensor) = quantize_constant(&constants, node)? {
            quantized.push((i, tensor));
        }
    }
    for (i, tensor) in quantized.into_iter().rev() {
        graph.node.remove(i);
        graph.initializer.push(tensor);
    }
    Ok(())
}

fn quantize_constant(
    constants: &HashMap<&str, &TensorProto>,
    node: &NodeProto,
) -> Result<Option<TensorProto>, Error> {
    let constant = |i: usize| {
        input(node, i)
            .and_then(|n| constants.get(n))
            .map(|t| Constant(t))
    };
    let (Some(x), Some(scale)) = (constant(0), constant(1)) else {
        return Ok(None);
    };
    if [x.kind(), scale.kind()] != [Some(DataType::Float); 2]
        || attribute(node, "block_size").is_some()
    {
        return Ok(None);
    }
    let (kind, zeros) = match (input(node, 2), constant(2)) {
        (None, _) => (DataType::Uint8, vec![]),
        (_, Some(zero)) => match zero.kind() {
            Some(kind @ (DataType::Int8 | DataType::Uint8 | DataType::Int32)) => {
                (kind, zero.ints()?)
            }
            _ => return Ok(None),
        },
        _ => return Ok(None),
    };
    let (values, dims, scales) = (x.floats()?, x.dims()?, scale.floats()?);
    if let Some(scale) = scales.iter().find(|s| !(s.is_finite() && **s > 0.0)) {
        return Err(malformed(node, format!("its scale holds {scale}")));
    }
    let axis = int(node, "axis", 1);
    let axis = if axis < 0 {
        axis + dims.len() as i64
    } else {
        axis
    } as usize;
    // Elements between two neighbours along the axis.
    let inner: usize = dims.iter().skip(axis.saturating_add(1)).product();
    let channels = scales.len();
    if channels == 0 || (channels > 1 && dims.get(axis) != Some(&channels)) {
        return Err(malformed(
            node,
            format!("it has {channels} scales for a constant {dims:?}, axis {axis}"),
        ));
    }
    let (min, max) = match kind {
        DataType::Int8 => (-128.0, 127.0),
        DataType::Uint8 => (0.0, 255.0),
        _ => (f64::from(i32::MIN), f64::from(i32::MAX)),
    };
    let ints = values.iter().enumerate().map(|(i, v)| {
        let channel = if channels == 1 {
            0
        } else {
            i / inner.max(1) % channels
        };
        let zero = zeros.get(channel).or(zeros.first()).copied().unwrap_or(0);
        (f64::from((v / scales[channel]).round_ties_even()) + zero as f64).clamp(min, max) as i32
    });
    let mut tensor = TensorProto {
        name: output(node)?.to_string(),
        dims: x.0.dims.clone(),
        data_type: kind as i32,
        ..Default::default()
    };
    if kind == DataType::Int32 {
        tensor.int32_data = ints.collect();
    } else {
        tensor.raw_data = ints.map(|v| v as u8).collect();
    }
    Ok(Some(tensor))
}
