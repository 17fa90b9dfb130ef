//! What strangers may send: bytes flipped, fields changed. An error that names the node, or a result; never a panic, and
//! memory within the bounds of the file.

use ocellus_int8::{Error, Options, load_proto};
use proptest::prelude::*;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::tensor_shape_proto::{Dimension, dimension::Value as DimValue};
use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto,
    TensorShapeProto, TypeProto, ValueInfoProto, type_proto,
};
use tract_onnx::prelude::*;

fn node(op: &str, inputs: &[&str], output: &str, ints: &[(&str, &[i64])]) -> NodeProto {
    let attribute = |(name, ints): &(&str, &[i64])| AttributeProto {
        name: (*name).into(),
        r#type: 7,
        ints: ints.to_vec(),
        ..Default::default()
    };
    NodeProto {
        name: format!("{op} of {output}"),
        op_type: op.into(),
        input: inputs.iter().map(|i| i.to_string()).collect(),
        output: vec![output.into()],
        attribute: ints.iter().map(attribute).collect(),
        ..Default::default()
    }
}

fn floats(name: &str, dims: &[i64], values: &[f32]) -> TensorProto {
    TensorProto {
        name: name.into(),
        dims: dims.to_vec(),
        data_type: DataType::Float as i32,
        float_data: values.to_vec(),
        ..Default::default()
    }
}

fn bytes(name: &str, kind: DataType, dims: &[i64], values: &[u8]) -> TensorProto {
    TensorProto {
        name: name.into(),
        dims: dims.to_vec(),
        data_type: kind as i32,
        raw_data: values.to_vec(),
        ..Default::default()
    }
}

/// A small ResNet: convolution, pool, residual addition, global average, fully connected.
fn model() -> ModelProto {
    let dim = |n: i64| Dimension {
        value: Some(DimValue::DimValue(n)),
        ..Default::default()
    };
    let input = type_proto::Tensor {
        elem_type: DataType::Float as i32,
        shape: Some(TensorShapeProto {
            dim: [1, 3, 8, 8].map(dim).to_vec(),
        }),
    };
    let input = ValueInfoProto {
        name: "x".into(),
        r#type: Some(TypeProto {
            value: Some(type_proto::Value::TensorType(input)),
            ..Default::default()
        }),
        ..Default::default()
    };
    let weights = |n: usize| (0..n).map(|i| (i * 37 % 251) as u8).collect::<Vec<_>>();
    let quantize = |x: &str, q: &str, f: &str| {
        [
            node("QuantizeLinear", &[x, "s", "z"], q, &[]),
            node("DequantizeLinear", &[q, "s", "z"], f, &[]),
        ]
    };
    let mut nodes = vec![
        node("DequantizeLinear", &["w1", "ws", "wz"], "w1f", &[]),
        node("DequantizeLinear", &["w2", "ws", "wz"], "w2f", &[]),
        node("DequantizeLinear", &["w3", "ws", "wz"], "w3f", &[]),
    ];
    nodes.extend(quantize("x", "q0", "f0"));
    nodes.push(node(
        "Conv",
        &["f0", "w1f"],
        "c1",
        &[("pads", &[1, 1, 1, 1]), ("strides", &[1, 1])],
    ));
    nodes.push(node("Relu", &["c1"], "r1", &[]));
    nodes.extend(quantize("r1", "q1", "f1"));
    nodes.push(node(
        "MaxPool",
        &["f1"],
        "m",
        &[("kernel_shape", &[2, 2]), ("strides", &[2, 2])],
    ));
    nodes.push(node(
        "Conv",
        &["m", "w2f"],
        "c2",
        &[("pads", &[1, 1, 1, 1])],
    ));
    nodes.extend(quantize("c2", "q2", "f2"));
    nodes.push(node("Add", &["f2", "m"], "a", &[]));
    nodes.extend(quantize("a", "q3", "f3"));
    nodes.push(node("GlobalAveragePool", &["f3"], "g", &[]));
    nodes.extend(quantize("g", "q4", "f4"));
    nodes.push(node("Reshape", &["f4", "shape"], "flat", &[]));
    nodes.push(node("MatMul", &["flat", "w3f"], "y", &[]));
    let shape = TensorProto {
        name: "shape".into(),
        dims: vec![2],
        data_type: DataType::Int64 as i32,
        int64_data: vec![1, -1],
        ..Default::default()
    };
    ModelProto {
        ir_version: 8,
        opset_import: vec![OperatorSetIdProto {
            domain: String::new(),
            version: 13,
        }],
        graph: Some(GraphProto {
            name: "small".into(),
            node: nodes,
            initializer: vec![
                bytes("w1", DataType::Int8, &[4, 3, 3, 3], &weights(108)),
                bytes("w2", DataType::Int8, &[4, 4, 3, 3], &weights(144)),
                bytes("w3", DataType::Int8, &[4, 5], &weights(20)),
                floats("ws", &[], &[0.01]),
                bytes("wz", DataType::Int8, &[], &[0]),
                floats("s", &[], &[0.05]),
                bytes("z", DataType::Uint8, &[], &[100]),
                shape,
            ],
            input: vec![input],
            output: vec![ValueInfoProto {
                name: "y".into(),
                ..Default::default()
            }],
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn graph(model: &mut ModelProto) -> &mut GraphProto {
    model.graph.as_mut().unwrap()
}

fn constant<'a>(model: &'a mut ModelProto, name: &str) -> &'a mut TensorProto {
    graph(model)
        .initializer
        .iter_mut()
        .find(|t| t.name == name)
        .unwrap()
}

fn run(model: ModelProto) -> Result<(), Error> {
    let loaded = load_proto(model, &Options::default())?;
    let Ok(plan) = loaded.model.into_runnable() else {
        return Ok(());
    };
    let fact = plan.model().input_fact(0).unwrap().clone();
    if let (Some(shape), true) = (
        fact.shape.as_concrete(),
        fact.datum_type == f32::datum_type(),
    ) && shape.iter().product::<usize>() < 1 << 20
    {
        let input = Tensor::zero::<f32>(shape).unwrap();
        let _ = plan.run(tvec!(input.into()));
    }
    Ok(())
}

#[test]
fn the_model_itself_runs_on_integers() {
    let report = load_proto(model(), &Options::default()).unwrap().report;
    assert!(report.left.is_empty(), "{report}");
    assert_eq!(report.integer_share(), 1.0);
    run(model()).unwrap();
}

/// The change, and what the message must say.
type Broken = (fn(&mut ModelProto), &'static [&'static str]);

#[test]
fn what_is_wrong_is_named() {
    let broken: [Broken; 9] = [
        (
            |m| constant(m, "s").float_data = vec![0.0],
            &["`s`", "QuantizeLinear of q0"],
        ),
        (
            |m| constant(m, "s").float_data = vec![f32::NAN],
            &["`s`", "NaN"],
        ),
        (
            |m| constant(m, "ws").float_data = vec![-1.0],
            &["`ws`", "-1"],
        ),
        (|m| constant(m, "s").float_data.clear(), &["`s`"]),
        (
            |m| constant(m, "wz").data_type = DataType::Uint8 as i32,
            &["`wz`", "type"],
        ),
        (
            |m| constant(m, "w1").raw_data.truncate(100),
            &["`w1`", "100"],
        ),
        (
            |m| constant(m, "w2").dims = vec![4, 2, 6, 3],
            &["Conv of c2", "channels"],
        ),
        (
            |m| constant(m, "w3").dims = vec![5, 4],
            &["MatMul of y", "5 inputs"],
        ),
        (
            |m| graph(m).initializer.retain(|t| t.name != "z"),
            &["`z`", "QuantizeLinear of q0"],
        ),
    ];
    for (change, words) in broken {
        let mut model = model();
        change(&mut model);
        let error = load_proto(model, &Options::default())
            .unwrap_err()
            .to_string();
        assert!(
            words.iter().all(|w| error.contains(w)),
            "{error:?} does not say {words:?}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn changed_constants(which in 0usize..8, at in any::<prop::sample::Index>(), byte in any::<u8>(), real in any::<f32>()) {
        let mut model = model();
        let tensor = &mut graph(&mut model).initializer[which];
        if !tensor.raw_data.is_empty() {
            let at = at.index(tensor.raw_data.len());
            tensor.raw_data[at] = byte;
        } else if !tensor.float_data.is_empty() {
            tensor.float_data[0] = real;
        } else {
            tensor.int64_data[at.index(2)] = i64::from(byte) - 128;
        }
        let _ = run(model);
    }

    #[test]
    fn changed_shapes(which in 0usize..8, axis in any::<prop::sample::Index>(), size in prop_oneof![-2i64..12, any::<i64>()], kind in 0i32..20) {
        let mut model = model();
        let tensor = &mut graph(&mut model).initializer[which];
        if tensor.dims.is_empty() {
            tensor.data_type = kind;
        } else {
            let axis = axis.index(tensor.dims.len());
            tensor.dims[axis] = size;
        }
        let _ = run(model);
    }

    #[test]
    fn changed_attributes(which in any::<prop::sample::Index>(), value in prop_oneof![-3i64..9, any::<i64>()]) {
        let mut model = model();
        let mut attributes: Vec<&mut i64> =
            graph(&mut model).node.iter_mut().flat_map(|n| &mut n.attribute).flat_map(|a| &mut a.ints).collect();
        let i = which.index(attributes.len());
        *attributes[i] = value;
        let _ = run(model);
    }

    #[test]
    fn changed_edges(node in any::<prop::sample::Index>(), input in any::<prop::sample::Index>(), other in any::<prop::sample::Index>(), op in any::<prop::sample::Index>(), what in 0..4) {
        let mut model = model();
        let nodes = &mut graph(&mut model).node;
        let (n, o) = (node.index(nodes.len()), other.index(nodes.len()));
        let name = nodes[o].output[0].clone();
        let operator = nodes[op.index(nodes.len())].op_type.clone();
        match what {
            0 => {
                let i = input.index(nodes[n].input.len());
                nodes[n].input[i] = name;
            }
            1 => nodes[n].op_type = operator,
            2 => {
                nodes[n].input.pop();
            }
            _ => {
                nodes.remove(n);
            }
        }
        let _ = run(model);
    }
}
