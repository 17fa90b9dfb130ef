//! A fixture for each rule: what plain tract makes of the graph, and what it computes once mended.

use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{
    NodeProto, OperatorSetIdProto, TensorShapeProto, TypeProto, ValueInfoProto, type_proto,
};
use tract_onnx::prelude::*;

use super::*;

/// A graph of the input `x`, f32 `[batch, 2]` or `dims`, and the output `y`.
fn model(
    opset: i64,
    input: &[Option<i64>],
    nodes: Vec<NodeProto>,
    constants: Vec<TensorProto>,
) -> ModelProto {
    let onnx = |domain: &str, version| OperatorSetIdProto {
        domain: domain.into(),
        version,
    };
    ModelProto {
        ir_version: 8,
        opset_import: vec![onnx("", opset), onnx("com.microsoft", 1)],
        graph: Some(GraphProto {
            name: "fixture".into(),
            node: nodes,
            initializer: constants,
            input: vec![value("x", DataType::Float, input)],
            output: vec![ValueInfoProto {
                name: "y".into(),
                ..Default::default()
            }],
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn value(name: &str, of: DataType, dims: &[Option<i64>]) -> ValueInfoProto {
    let dim = |d: &Option<i64>| Dimension {
        value: Some(match d {
            Some(n) => DimValue::DimValue(*n),
            None => DimValue::DimParam("N".into()),
        }),
        ..Default::default()
    };
    ValueInfoProto {
        name: name.into(),
        r#type: Some(TypeProto {
            value: Some(TypeValue::TensorType(type_proto::Tensor {
                elem_type: of as i32,
                shape: Some(TensorShapeProto {
                    dim: dims.iter().map(dim).collect(),
                }),
            })),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn node(op: &str, inputs: &[&str], output: &str) -> NodeProto {
    NodeProto {
        name: output.into(),
        op_type: op.into(),
        input: inputs.iter().map(|i| (*i).into()).collect(),
        output: vec![output.into()],
        ..Default::default()
    }
}

fn microsoft(op: &str, inputs: &[&str], output: &str) -> NodeProto {
    NodeProto {
        domain: "com.microsoft".into(),
        ..node(op, inputs, output)
    }
}

fn floats_of(name: &str, dims: &[i64], values: &[f32]) -> TensorProto {
    TensorProto {
        name: name.into(),
        dims: dims.into(),
        data_type: DataType::Float as i32,
        float_data: values.into(),
        ..Default::default()
    }
}

/// Integers of any type that ONNX keeps in `int32_data`.
fn ints_of(name: &str, of: DataType, dims: &[i64], values: &[i32]) -> TensorProto {
    TensorProto {
        name: name.into(),
        dims: dims.into(),
        data_type: of as i32,
        int32_data: values.into(),
        ..Default::default()
    }
}

fn longs_of(name: &str, values: &[i64]) -> TensorProto {
    TensorProto {
        name: name.into(),
        dims: vec![values.len() as i64],
        data_type: DataType::Int64 as i32,
        int64_data: values.into(),
        ..Default::default()
    }
}

/// The output for `x`, through tract as it is.
fn run(model: &ModelProto, x: Tensor) -> TractResult<Vec<f32>> {
    let plan = tract_onnx::onnx()
        .model_for_proto_model(model)?
        .into_optimized()?
        .into_runnable()?;
    let y = plan.run(tvec!(x.into_tvalue()))?.remove(0);
    let y = y.cast_to::<f32>()?;
    Ok(y.to_plain_array_view::<f32>()?.iter().copied().collect())
}

/// The output once every rule was applied, and what they said.
fn mended(mut model: ModelProto, x: Tensor) -> (Vec<f32>, Vec<String>) {
    let notes = normalize(&mut model).unwrap();
    (run(&model, x).unwrap(), notes)
}

fn row(values: &[f32]) -> Tensor {
    Tensor::from_shape(&[1, values.len()], values).unwrap()
}

#[test]
fn a_symbolic_batch_and_value_info_that_names_it() {
    let mut model = model(
        13,
        &[None, Some(2)],
        vec![node("Relu", &["x"], "r"), node("Neg", &["r"], "y")],
        vec![],
    );
    model.graph.as_mut().unwrap().value_info = vec![value("r", DataType::Float, &[None, Some(2)])];
    let (y, notes) = mended(model, row(&[3.0, -4.0]));
    assert_eq!(y, [-3.0, 0.0]);
    assert_eq!(
        notes,
        ["symbolic batch set to 1 (1)", "value_info dropped (1)"]
    );
}

#[test]
fn initializers_listed_as_inputs() {
    let mut model = model(
        9,
        &[Some(1), Some(2)],
        vec![node("Add", &["x", "c"], "y")],
        vec![floats_of("c", &[2], &[1.0, 2.0])],
    );
    let graph = model.graph.as_mut().unwrap();
    graph.input.push(value("c", DataType::Float, &[Some(2)]));
    let (y, notes) = mended(model, row(&[3.0, 4.0]));
    assert_eq!(y, [4.0, 6.0]);
    assert_eq!(notes, ["initializers taken off the inputs (1)"]);
}

#[test]
fn a_pad_value_of_rank_1() {
    let constants = vec![
        longs_of("pads", &[0, 1, 0, 0]),
        floats_of("v", &[1], &[0.0]),
    ];
    let direct = model(
        13,
        &[Some(1), Some(2)],
        vec![node("Pad", &["x", "pads", "v"], "y")],
        constants,
    );
    assert!(
        run(&direct, row(&[3.0, 4.0])).is_err(),
        "tract takes it now: the rule can go"
    );
    let (y, notes) = mended(direct, row(&[3.0, 4.0]));
    assert_eq!(y, [0.0, 3.0, 4.0]);
    assert_eq!(notes, ["Pad's constant value made a scalar (1)"]);
}

#[test]
fn a_quantized_pad_value_of_rank_1() {
    let constants = vec![
        longs_of("pads", &[0, 1, 0, 0]),
        ints_of("q", DataType::Uint8, &[1], &[3]),
        floats_of("s", &[], &[0.5]),
        ints_of("z", DataType::Uint8, &[], &[1]),
    ];
    let nodes = vec![
        node("DequantizeLinear", &["q", "s", "z"], "v"),
        node("Pad", &["x", "pads", "v"], "y"),
    ];
    let quantized = model(13, &[Some(1), Some(2)], nodes, constants);
    assert!(
        run(&quantized, row(&[3.0, 4.0])).is_err(),
        "tract takes it now: the rule can go"
    );
    assert_eq!(mended(quantized, row(&[3.0, 4.0])).0, [1.0, 3.0, 4.0]);
}

#[test]
fn a_quantized_softmax() {
    let constants = vec![
        floats_of("s", &[], &[1.0]),
        ints_of("z", DataType::Int8, &[], &[0]),
        floats_of("p", &[], &[1.0 / 256.0]),
        ints_of("low", DataType::Int8, &[], &[-128]),
    ];
    let nodes = vec![
        node("QuantizeLinear", &["x", "s", "z"], "q"),
        node("DequantizeLinear", &["q", "s", "z"], "logits"),
        node("Softmax", &["logits"], "probabilities"),
        node("QuantizeLinear", &["probabilities", "p", "low"], "y"),
    ];
    let quantized = model(13, &[Some(1), Some(2)], nodes, constants);
    // Plain tract 0.23.9 takes the Softmax between the quantizations for elementwise: each class has the probability 1.
    let plain = run(&quantized, row(&[2.0, 1.0])).unwrap();
    assert_eq!(plain, [127.0, 127.0], "tract computes it now");
    let model = crate::load_proto(quantized, &Default::default())
        .unwrap()
        .model;
    let y = model
        .into_runnable()
        .unwrap()
        .run(tvec!(row(&[2.0, 1.0]).into_tvalue()))
        .unwrap();
    assert_eq!(
        y[0].to_plain_array_view::<i8>().unwrap().as_slice(),
        Some(&[59, -59][..])
    );
}

/// x is quantized by 0.5 and 10, the operator's result by 0.25 and 20, and dequantized.
fn quantized(op: NodeProto, mut constants: Vec<TensorProto>) -> ModelProto {
    constants.extend([
        floats_of("xs", &[], &[0.5]),
        ints_of("xz", DataType::Uint8, &[], &[10]),
        floats_of("ys", &[], &[0.25]),
        ints_of("yz", DataType::Uint8, &[], &[20]),
    ]);
    let nodes = vec![
        node("QuantizeLinear", &["x", "xs", "xz"], "q"),
        op,
        node("DequantizeLinear", &["r", "ys", "yz"], "y"),
    ];
    model(13, &[Some(1), Some(2)], nodes, constants)
}

#[test]
fn com_microsoft_operators() {
    let add = microsoft(
        "QLinearAdd",
        &["q", "xs", "xz", "q", "xs", "xz", "ys", "yz"],
        "r",
    );
    assert!(
        run(&quantized(add.clone(), vec![]), row(&[1.5, -2.0])).is_err(),
        "tract takes it now: the rule can go"
    );
    let (y, notes) = mended(quantized(add, vec![]), row(&[1.5, -2.0]));
    assert_eq!(y, [3.0, -4.0]);
    assert_eq!(
        notes,
        ["QOperator nodes written as QuantizeLinear and DequantizeLinear (1)"]
    );

    let multiply = microsoft(
        "QLinearMul",
        &["q", "xs", "xz", "q", "xs", "xz", "ys", "yz"],
        "r",
    );
    assert_eq!(
        mended(quantized(multiply, vec![]), row(&[1.5, -2.0])).0,
        [2.25, 4.0]
    );

    let sigmoid = microsoft("QLinearSigmoid", &["q", "xs", "xz", "ys", "yz"], "r");
    assert_eq!(
        mended(quantized(sigmoid, vec![]), row(&[0.0, 50.0])).0,
        [0.5, 1.0]
    );

    // Weights by column: [[1, 2], [3, 4]] · [1, 0.5].
    let gemm = microsoft(
        "QGemm",
        &["q", "xs", "xz", "w", "ws", "wz", "b", "ys", "yz"],
        "r",
    );
    let constants = vec![
        ints_of("w", DataType::Int8, &[2, 2], &[1, 2, 3, 4]),
        floats_of("ws", &[2], &[1.0, 0.5]),
        ints_of("wz", DataType::Int8, &[2], &[0, 0]),
        ints_of("b", DataType::Int32, &[2], &[2, 4]),
    ];
    let (y, _) = mended(quantized(gemm, constants), row(&[1.0, 2.0]));
    // 1·1 + 2·3 + 2·0.5; 1·1 + 2·2 + 4·0.25.
    assert_eq!(y, [8.0, 6.0]);
}

#[test]
fn what_is_missing_is_named() {
    let mut broken = quantized(
        microsoft("QLinearAdd", &["q", "xs", "xz", "q"], "r"),
        vec![],
    );
    let error = normalize(&mut broken).unwrap_err().to_string();
    assert!(
        error.contains("QLinearAdd `r`: its input 4 is missing"),
        "{error}"
    );
}
