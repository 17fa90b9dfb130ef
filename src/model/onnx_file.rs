//! An ONNX file's bytes → the protobuf, if it is one that can be run here at all.
//!
//! In: bytes that anybody may have made. Out: a graph whose constants are as large as they say, that needs no other
//! file and has no sub-graphs. On the main thread, at load. Always holds: memory and time are bounded by the file's size.

use prost::Message;
use tract_onnx::pb::tensor_proto::{DataLocation, DataType};
use tract_onnx::pb::tensor_shape_proto::dimension::Value as DimValue;
use tract_onnx::pb::type_proto::Value as TypeValue;
use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto,
};

use super::wire;

/// Decodes an ONNX file and checks what nothing behind this checks.
pub(super) fn decode(bytes: &[u8]) -> Result<ModelProto, String> {
    wire::check(bytes)?;
    let model = ModelProto::decode(bytes)
        .map_err(|e| format!("it is not an ONNX file, or it is truncated: {e}"))?;
    check(&model)?;
    Ok(model)
}

fn check(model: &ModelProto) -> Result<(), String> {
    let graph = model.graph.as_ref().ok_or("the ONNX file has no graph")?;
    if graph.node.is_empty() {
        return Err("the ONNX graph has no operators".into());
    }
    graph.initializer.iter().try_for_each(check_tensor)?;
    for node in &graph.node {
        for attribute in &node.attribute {
            if attribute.g.is_some() || !attribute.graphs.is_empty() {
                return Err(format!(
                    "the node `{}` ({}) has a sub-graph, which cannot run here; export the model without loops and branches",
                    node.name, node.op_type
                ));
            }
            check_extent(attribute)
                .map_err(|e| format!("the node `{}` ({}): {e}", node.name, node.op_type))?;
            tensors(attribute).try_for_each(check_tensor)?;
        }
    }
    pictures(graph).try_for_each(check_input)
}

/// Attributes that are lengths in pixels or counts of channels: sums with them must not run over, and loops over them end.
const EXTENTS: [&str; 8] = [
    "pads",
    "strides",
    "dilations",
    "kernel_shape",
    "output_padding",
    "output_shape",
    "group",
    "blocksize",
];
/// The largest of them.
const MAX_EXTENT: u64 = 1 << 14;
/// Elements of one window: a table of them is made, whatever the picture's size is.
const MAX_KERNEL_ELEMENTS: u64 = 1 << 20;

fn check_extent(attribute: &AttributeProto) -> Result<(), String> {
    let name = attribute.name.as_str();
    let mut values = attribute.ints.iter().chain([&attribute.i]);
    if let Some(value) = values.find(|v| EXTENTS.contains(&name) && v.unsigned_abs() > MAX_EXTENT) {
        return Err(format!("{name} of {value} is more than any picture needs"));
    }
    let kernel = attribute
        .ints
        .iter()
        .try_fold(1u64, |n, v| n.checked_mul(v.unsigned_abs()));
    match name == "kernel_shape" && kernel.is_none_or(|k| k > MAX_KERNEL_ELEMENTS) {
        true => Err(format!(
            "{name} of {:?} is more than any picture needs",
            attribute.ints
        )),
        false => Ok(()),
    }
}

/// The inputs that are no initializers: those that get a picture.
pub(super) fn pictures(graph: &GraphProto) -> impl Iterator<Item = &ValueInfoProto> {
    let constants: std::collections::HashSet<&str> =
        graph.initializer.iter().map(|t| &*t.name).collect();
    graph
        .input
        .iter()
        .filter(move |i| !constants.contains(&*i.name))
}

/// The tensors of an attribute.
pub(super) fn tensors(attribute: &AttributeProto) -> impl Iterator<Item = &TensorProto> {
    attribute.t.iter().chain(&attribute.tensors)
}

/// Every axis but the batch must be known: memory is planned by it, and tract parses what is written instead.
/// The value of a constant of one element.
pub(super) fn scalar(t: &TensorProto) -> Option<f32> {
    let tensor = tract_onnx::tensor::load_tensor(&*tract_onnx::onnx().provider, t, None).ok()?;
    tensor.cast_to_scalar::<f32>().ok()
}

/// Scale and zero point of a QuantizeLinear or DequantizeLinear, where they are constants.
pub(super) fn scale_and_zero(graph: &GraphProto, node: &NodeProto) -> Option<(f32, f32)> {
    let constant = |name: &String| graph.initializer.iter().find(|t| t.name == *name);
    let scale = scalar(constant(node.input.get(1)?)?)?;
    let zero = node
        .input
        .get(2)
        .and_then(constant)
        .and_then(scalar)
        .unwrap_or(0.0);
    Some((scale, zero))
}

fn check_input(input: &ValueInfoProto) -> Result<(), String> {
    let shape = match input.r#type.as_ref().and_then(|t| t.value.as_ref()) {
        Some(TypeValue::TensorType(t)) => t.shape.as_ref(),
        None => None,
    };
    let Some(shape) = shape else {
        return Err(format!(
            "the input `{}` has no shape; export the model with a fixed one",
            input.name
        ));
    };
    for (axis, dim) in shape.dim.iter().enumerate().skip(1) {
        if !matches!(dim.value, Some(DimValue::DimValue(n)) if n > 0) {
            let what = match &dim.value {
                Some(DimValue::DimParam(name)) => format!("`{name:.32}`"),
                Some(DimValue::DimValue(n)) => n.to_string(),
                None => "unknown".into(),
            };
            return Err(format!(
                "axis {axis} of the input `{}` is {what}, not a fixed length; export the model with a fixed input size",
                input.name
            ));
        }
    }
    Ok(())
}

/// Whether a constant is in the file, and as large as its shape says.
fn check_tensor(t: &TensorProto) -> Result<(), String> {
    let name = &t.name;
    if t.data_location == Some(DataLocation::External as i32) {
        return Err(format!(
            "`{name}` is stored in another file; save the model as one file \
             (torch.onnx.export(..., external_data=False), or onnx.save(onnx.load(PATH), PATH))"
        ));
    }
    let elements = t
        .dims
        .iter()
        .try_fold(1usize, |n, d| n.checked_mul(usize::try_from(*d).ok()?))
        .ok_or_else(|| format!("the constant `{name}` cannot have the shape {:?}", t.dims))?;
    let stored = match (t.raw_data.len(), element_bytes(t.data_type)) {
        (0, _) => {
            let typed = [t.float_data.len(), t.int32_data.len(), t.int64_data.len()];
            let rest = [
                t.double_data.len(),
                t.uint64_data.len(),
                t.string_data.len(),
            ];
            typed.into_iter().chain(rest).max().unwrap_or(0)
        }
        (bytes, Some(size)) if bytes % size == 0 => bytes / size,
        (bytes, Some(_)) => {
            let problem = "which is no whole number of elements";
            return Err(format!(
                "the constant `{name}` has {bytes} bytes, {problem}"
            ));
        }
        (_, None) => {
            return Err(format!(
                "the constant `{name}` is of a type that is not known here ({})",
                t.data_type
            ));
        }
    };
    if stored != elements {
        return Err(format!(
            "the constant `{name}` has {stored} elements, but its shape {:?} needs {elements}",
            t.dims
        ));
    }
    Ok(())
}

/// Bytes of one element in `raw_data`; `None` for types that cannot be there, or that nothing here reads.
fn element_bytes(data_type: i32) -> Option<usize> {
    match DataType::try_from(data_type).ok()? {
        DataType::Bool | DataType::Int8 | DataType::Uint8 => Some(1),
        DataType::Int16 | DataType::Uint16 | DataType::Float16 | DataType::Bfloat16 => Some(2),
        DataType::Int32 | DataType::Uint32 | DataType::Float => Some(4),
        DataType::Int64 | DataType::Uint64 | DataType::Double => Some(8),
        _ => None,
    }
}
