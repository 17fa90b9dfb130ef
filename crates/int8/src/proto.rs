//! Reading the ONNX protobuf: attributes and constant tensors.
//!
//! In: nodes and tensors of a file that may be anything. Out: values that were checked, or [`Error`]s that name the node
//! or the tensor. Always holds: no more memory is taken than the file itself brought.

use std::borrow::Cow;

use tract_onnx::pb::tensor_proto::{DataLocation, DataType};
use tract_onnx::pb::{AttributeProto, GraphProto, NodeProto, TensorProto};

use crate::Error;

/// The name that messages give a node: its own, or its first output's.
pub(crate) fn node_name(node: &NodeProto) -> &str {
    let output = node.output.first().map_or("", |o| o.as_str());
    if node.name.is_empty() {
        output
    } else {
        &node.name
    }
}

pub(crate) fn malformed(node: &NodeProto, problem: impl Into<String>) -> Error {
    Error::Malformed {
        node: format!("{} `{}`", node.op_type, node_name(node)),
        problem: problem.into(),
    }
}

/// The `i`th input's name, if it is there.
pub(crate) fn input(node: &NodeProto, i: usize) -> Option<&str> {
    node.input
        .get(i)
        .map(String::as_str)
        .filter(|n| !n.is_empty())
}

/// The `i`th input's name, which the operator cannot be without.
pub(crate) fn required_input(node: &NodeProto, i: usize) -> Result<&str, Error> {
    input(node, i).ok_or_else(|| malformed(node, format!("its input {i} is missing")))
}

/// The first output's name.
pub(crate) fn output(node: &NodeProto) -> Result<&str, Error> {
    let name = node.output.first().filter(|n| !n.is_empty());
    name.map(String::as_str)
        .ok_or_else(|| malformed(node, "its output is missing"))
}

pub(crate) fn attribute<'a>(node: &'a NodeProto, name: &str) -> Option<&'a AttributeProto> {
    node.attribute.iter().find(|a| a.name == name)
}

pub(crate) fn int(node: &NodeProto, name: &str, default: i64) -> i64 {
    attribute(node, name).map_or(default, |a| a.i)
}

pub(crate) fn float(node: &NodeProto, name: &str, default: f32) -> f32 {
    attribute(node, name).map_or(default, |a| a.f)
}

pub(crate) fn text<'a>(node: &'a NodeProto, name: &str) -> Option<Cow<'a, str>> {
    attribute(node, name).map(|a| String::from_utf8_lossy(&a.s))
}

/// A list of sizes: `None` if it is absent.
pub(crate) fn sizes<const N: usize>(
    node: &NodeProto,
    name: &str,
) -> Result<Option<[usize; N]>, Error> {
    let Some(a) = attribute(node, name).filter(|a| !a.ints.is_empty()) else {
        return Ok(None);
    };
    let sizes: Vec<usize> = a
        .ints
        .iter()
        .filter_map(|i| usize::try_from(*i).ok())
        .collect();
    let sizes = <[usize; N]>::try_from(sizes).ok();
    sizes.map(Some).ok_or_else(|| {
        malformed(
            node,
            format!("`{name}` is {:?}, not {N} sizes of at least 0", a.ints),
        )
    })
}

/// A constant tensor of the file.
#[derive(Clone, Copy)]
pub(crate) struct Constant<'a>(pub &'a TensorProto);

impl<'a> Constant<'a> {
    fn problem(&self, problem: impl Into<String>) -> Error {
        Error::Malformed {
            node: format!("tensor `{}`", self.0.name),
            problem: problem.into(),
        }
    }

    pub(crate) fn kind(&self) -> Option<DataType> {
        DataType::try_from(self.0.data_type).ok()
    }

    /// The sizes, whose product is the number of elements that the file holds.
    pub(crate) fn dims(&self) -> Result<Vec<usize>, Error> {
        let dims: Option<Vec<usize>> = self
            .0
            .dims
            .iter()
            .map(|d| usize::try_from(*d).ok())
            .collect();
        let dims = dims.ok_or_else(|| self.problem("a size is negative"))?;
        let count = dims.iter().try_fold(1usize, |n, d| n.checked_mul(*d));
        if count != Some(self.len()?) {
            return Err(self.problem(format!(
                "its shape is {dims:?}, but the file holds {} elements",
                self.len()?
            )));
        }
        Ok(dims)
    }

    /// Elements that the file holds.
    pub(crate) fn len(&self) -> Result<usize, Error> {
        let t = self.0;
        if t.data_location == Some(DataLocation::External as i32) {
            return Err(self.problem("its data lies in another file; save the model in one file"));
        }
        if !t.raw_data.is_empty() {
            let size = match self.kind() {
                Some(DataType::Uint8 | DataType::Int8 | DataType::Bool) => 1,
                Some(DataType::Float16 | DataType::Bfloat16 | DataType::Int16) => 2,
                Some(DataType::Int64 | DataType::Double | DataType::Uint64) => 8,
                _ => 4,
            };
            return Ok(t.raw_data.len() / size);
        }
        let lengths = [
            t.float_data.len(),
            t.int32_data.len(),
            t.int64_data.len(),
            t.double_data.len(),
        ];
        Ok(lengths.into_iter().max().unwrap_or(0))
    }

    /// The elements of an f32 tensor.
    pub(crate) fn floats(&self) -> Result<Vec<f32>, Error> {
        self.dims()?;
        match self.kind() {
            Some(DataType::Float) if self.0.raw_data.is_empty() => Ok(self.0.float_data.clone()),
            Some(DataType::Float) => Ok(chunks(&self.0.raw_data).map(f32::from_le_bytes).collect()),
            other => Err(self.problem(format!("it is of type {other:?}, not of 32-bit floats"))),
        }
    }

    /// The elements of an integer tensor.
    pub(crate) fn ints(&self) -> Result<Vec<i64>, Error> {
        self.dims()?;
        let t = self.0;
        let raw = &t.raw_data;
        match self.kind() {
            Some(DataType::Int64) if raw.is_empty() => Ok(t.int64_data.clone()),
            Some(DataType::Int64) => Ok(chunks(raw).map(i64::from_le_bytes).collect()),
            Some(DataType::Int32 | DataType::Int8 | DataType::Uint8) if raw.is_empty() => {
                Ok(t.int32_data.iter().map(|v| i64::from(*v)).collect())
            }
            Some(DataType::Int32) => Ok(chunks(raw)
                .map(|b| i64::from(i32::from_le_bytes(b)))
                .collect()),
            Some(DataType::Int8) => Ok(raw.iter().map(|b| i64::from(*b as i8)).collect()),
            Some(DataType::Uint8) => Ok(raw.iter().map(|b| i64::from(*b)).collect()),
            other => Err(self.problem(format!("it is of type {other:?}, not of integers"))),
        }
    }

    /// The bytes of a u8 or s8 tensor.
    pub(crate) fn bytes(&self) -> Result<Cow<'a, [u8]>, Error> {
        self.dims()?;
        match self.kind() {
            Some(DataType::Int8 | DataType::Uint8) if self.0.raw_data.is_empty() => {
                Ok(self.0.int32_data.iter().map(|v| *v as u8).collect())
            }
            Some(DataType::Int8 | DataType::Uint8) => Ok(Cow::Borrowed(&self.0.raw_data)),
            other => Err(self.problem(format!("it is of type {other:?}, not of 8-bit integers"))),
        }
    }
}

fn chunks<const N: usize>(bytes: &[u8]) -> impl Iterator<Item = [u8; N]> {
    bytes
        .chunks_exact(N)
        .map(|c| c.try_into().expect("chunks of N bytes"))
}

/// Turns `Constant` nodes that hold a tensor into initializers, so that constants are of one kind.
pub(crate) fn constants_to_initializers(graph: &mut GraphProto) {
    let holds_tensor = |n: &NodeProto| {
        n.op_type == "Constant"
            && n.output.len() == 1
            && attribute(n, "value").is_some_and(|a| a.t.is_some())
    };
    let (constants, nodes) = std::mem::take(&mut graph.node)
        .into_iter()
        .partition(holds_tensor);
    graph.node = nodes;
    for mut node in constants {
        let tensor = node
            .attribute
            .iter_mut()
            .find(|a| a.name == "value")
            .and_then(|a| a.t.take());
        if let (Some(mut tensor), Some(name)) = (tensor, node.output.pop()) {
            tensor.name = name;
            graph.initializer.push(tensor);
        }
    }
}
