//! Pools, concatenation and what moves elements: on integer tensors as they are, on float tensors before their
//! quantization is known.

use tract_onnx::pb::NodeProto;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::type_proto::Value as TypeValue;

use super::floats::is_finite;
use super::products::{NOT_QUANTIZED, window};
use super::{Expr, Import, Outcome, Value};
use crate::Error;
use crate::graph::{Coordinates, Move, Op, Resize, ResizeTarget, Rounding, TensorId};
use crate::proto::{
    Constant, attribute, input, int, malformed, node_name, required_input, sizes, text,
};

const UNKNOWN_SHAPE: &str = "its shape, axes or pads are not constants";

impl Import<'_> {
    pub(super) fn movement(&mut self, node: &NodeProto) -> Outcome {
        let x = required_input(node, 0)?;
        if let Some(Value::Dequantized(d)) = self.values.get(x) {
            return match (
                node.op_type.as_str(),
                attribute(node, "perm").map(|a| a.ints.as_slice()),
            ) {
                ("Transpose", None | Some([1, 0]))
                    if Constant(self.constants[d.tensor.as_str()]).0.dims.len() == 2 =>
                {
                    let d = super::Dequantized {
                        tensor: d.tensor.clone(),
                        scales: d.scales.clone(),
                        zeros: d.zeros.clone(),
                        axis: d.axis,
                        transposed: !d.transposed,
                    };
                    self.set(node, Value::Dequantized(d.into()))
                }
                _ => Ok(None),
            };
        }
        let known = match self.values.get(x) {
            Some(value) => Some(value.clone()),
            // Quantized after it was moved is moved after it was quantized.
            None if self.is_float_input(x) => {
                Some(Value::Real(self.expr(Expr::Source(x.to_string()), 0)))
            }
            None => None,
        };
        let Some(value) = known else {
            return Ok(None);
        };
        match self.how(node)? {
            Ok(how) => self.moved_value(node, value, how),
            Err(reason) => Ok(Some(reason)),
        }
    }

    fn is_float_input(&self, name: &str) -> bool {
        let input = self.graph.input.iter().find(|i| i.name == name);
        let kind = input.and_then(|i| i.r#type.as_ref()?.value.as_ref());
        matches!(kind, Some(TypeValue::TensorType(t)) if t.elem_type == DataType::Float as i32)
    }

    fn moved_value(&mut self, node: &NodeProto, value: Value, how: Move) -> Outcome {
        match value {
            Value::Input {
                name,
                signed,
                mut moves,
            } => {
                if matches!(how, Move::Pad { .. }) {
                    return Ok(Some("its input has no scale yet"));
                }
                moves.push(how);
                self.set(
                    node,
                    Value::Input {
                        name,
                        signed,
                        moves,
                    },
                )
            }
            Value::Bytes { tensor, signed } => {
                let how = match how {
                    // The graph pads integers with an integer: 0 where nothing is said.
                    Move::Pad { pads, .. } => {
                        let fill = match input(node, 2) {
                            Some(name) => self.ints(name)?.and_then(|v| v.first().copied()),
                            None => Some(0),
                        };
                        let fill = fill.map(|v| v + if signed { 128 } else { 0 });
                        match fill.and_then(|v| u8::try_from(v).ok()) {
                            Some(fill) => Move::Pad { pads, fill },
                            None => return Ok(Some(UNKNOWN_SHAPE)),
                        }
                    }
                    how => how,
                };
                let tensor = self.moved(node, tensor, Op::Move(how));
                self.set(node, Value::Bytes { tensor, signed })
            }
            Value::Real(e) => match self.exprs[e].clone() {
                // What a byte stands for does not change when it moves.
                Expr::Table {
                    tensor,
                    table,
                    direct,
                } => {
                    let quant = self.quant(tensor);
                    let how = match how {
                        Move::Pad { .. } if !direct => {
                            return Ok(Some("it pads a function of a quantized tensor"));
                        }
                        Move::Pad { pads, .. } => Move::Pad {
                            pads,
                            fill: quant.zero,
                        },
                        how => how,
                    };
                    let tensor = self.moved(node, tensor, Op::Move(how));
                    self.set_expr(
                        node,
                        Expr::Table {
                            tensor,
                            table,
                            direct,
                        },
                    )
                }
                _ => self.set_expr(node, Expr::Move { x: e, how }),
            },
            Value::Dequantized(_) | Value::Largest { .. } => Ok(None),
        }
    }

    fn how(&self, node: &NodeProto) -> Result<Result<Move, &'static str>, Error> {
        let list = |name: &str, i: usize| -> Result<Option<Vec<i64>>, Error> {
            match (attribute(node, name), input(node, i)) {
                (Some(a), _) => Ok(Some(a.ints.clone())),
                (None, Some(tensor)) => self.ints(tensor),
                (None, None) => Ok(None),
            }
        };
        let absent =
            |name: &str, i: usize| attribute(node, name).is_none() && input(node, i).is_none();
        Ok(Ok(match node.op_type.as_str() {
            "Transpose" => {
                let perm = attribute(node, "perm").map(|a| a.ints.as_slice());
                let perm: Option<Vec<usize>> =
                    perm.map(|p| p.iter().map(|i| *i as usize).collect());
                match perm {
                    Some(perm) => Move::Transpose(perm),
                    None => return Ok(Err("its permutation is not stated")),
                }
            }
            "Reshape" => match list("shape", 1)? {
                Some(shape) => Move::Reshape {
                    shape,
                    allow_zero: int(node, "allowzero", 0) != 0,
                },
                None => return Ok(Err(UNKNOWN_SHAPE)),
            },
            "Flatten" => Move::Flatten {
                axis: int(node, "axis", 1),
            },
            "Squeeze" if absent("axes", 1) => Move::Squeeze(None),
            "Squeeze" => match list("axes", 1)? {
                Some(axes) => Move::Squeeze(Some(axes)),
                None => return Ok(Err(UNKNOWN_SHAPE)),
            },
            "Unsqueeze" => match list("axes", 1)? {
                Some(axes) => Move::Unsqueeze(axes),
                None => return Ok(Err(UNKNOWN_SHAPE)),
            },
            "Slice" => {
                let (Some(starts), Some(ends)) = (list("starts", 1)?, list("ends", 2)?) else {
                    return Ok(Err(UNKNOWN_SHAPE));
                };
                let axes = match list("axes", 3)? {
                    Some(axes) => axes,
                    None if absent("axes", 3) => (0..starts.len() as i64).collect(),
                    None => return Ok(Err(UNKNOWN_SHAPE)),
                };
                let steps = match list("steps", 4)? {
                    Some(steps) => steps,
                    None if absent("steps", 4) => vec![1; starts.len()],
                    None => return Ok(Err(UNKNOWN_SHAPE)),
                };
                let n = starts.len();
                if [ends.len(), axes.len(), steps.len()] != [n; 3] {
                    return Err(malformed(
                        node,
                        "starts, ends, axes and steps are not of one length",
                    ));
                }
                if steps.iter().any(|s| *s < 1) {
                    return Ok(Err("it steps backwards"));
                }
                Move::Slice(
                    (0..n)
                        .map(|i| [starts[i], ends[i], axes[i], steps[i]])
                        .collect(),
                )
            }
            "Pad" => {
                if text(node, "mode").is_some_and(|m| m != "constant") || input(node, 3).is_some() {
                    return Ok(Err(
                        "it pads with something else than a constant, or by axes",
                    ));
                }
                let value = match (attribute(node, "value"), input(node, 2)) {
                    (Some(a), _) => Some(a.f),
                    (None, Some(name)) => self.scalar(name)?,
                    (None, None) => Some(0.0),
                };
                let integers = matches!(self.values.get(&node.input[0]), Some(Value::Bytes { .. }));
                if value != Some(0.0) && !integers {
                    return Ok(Err("it pads with another number than 0"));
                }
                match list("pads", 1)? {
                    // The fill is known when the scale is.
                    Some(pads) if pads.iter().all(|p| *p >= 0) => Move::Pad { pads, fill: 0 },
                    _ => return Ok(Err(UNKNOWN_SHAPE)),
                }
            }
            "SpaceToDepth" => match usize::try_from(int(node, "blocksize", 0)) {
                Ok(block @ 1..) => Move::SpaceToDepth(block),
                _ => return Err(malformed(node, "its blocksize is less than 1")),
            },
            "Gather" => {
                let indices = required_input(node, 1)?;
                let Some(tensor) = self.constants.get(indices) else {
                    return Ok(Err("its indices are not constants"));
                };
                let tensor = Constant(tensor);
                if tensor.dims()?.len() != 1 {
                    return Ok(Err("its indices are no list"));
                }
                Move::Select {
                    axis: int(node, "axis", 0),
                    at: tensor.ints()?,
                }
            }
            _ => return Ok(Err("this operator is not known on integers")),
        }))
    }

    pub(super) fn resize(&mut self, node: &NodeProto) -> Outcome {
        let x = required_input(node, 0)?;
        let Some(value) = self.values.get(x).cloned() else {
            return Ok(None);
        };
        let (resize, rounding) = match self.resize_of(node)? {
            Ok(resize) => resize,
            Err(reason) => return Ok(Some(reason)),
        };
        if let Some(rounding) = rounding {
            return self.moved_value(node, value, Move::ResizeNearest(resize, rounding));
        }
        let spatial = match &resize.target {
            ResizeTarget::Scales(scales) => matches!(scales[..], [1.0, 1.0, _, _]),
            ResizeTarget::Sizes(sizes) => sizes.len() == 4,
        };
        match self.table(x) {
            Some((e, numbers)) if spatial && is_finite(&numbers[..]) => {
                let tensor = self.tensor(e).expect("it has a table");
                let expr = Expr::ResizeLinear {
                    x: tensor,
                    numbers,
                    resize,
                };
                self.set_expr(node, expr)
            }
            Some(_) => Ok(Some(
                "it interpolates along other axes than height and width",
            )),
            None => Ok(Some(NOT_QUANTIZED)),
        }
    }

    /// Nearest with its rounding, or linear.
    fn resize_of(
        &self,
        node: &NodeProto,
    ) -> Result<Result<(Resize, Option<Rounding>), &'static str>, Error> {
        let said = |name: &str, default: &'static str| {
            text(node, name).map_or(default.to_string(), |t| t.into_owned())
        };
        let linear = match said("mode", "nearest").as_str() {
            "nearest" => false,
            "linear" => true,
            _ => return Ok(Err("it interpolates otherwise than linearly")),
        };
        let antialias = int(node, "antialias", 0) != 0;
        let policy = said("keep_aspect_ratio_policy", "stretch");
        if antialias || policy != "stretch" || attribute(node, "axes").is_some() {
            return Ok(Err(
                "its antialias, axes or aspect ratio are not known on integers",
            ));
        }
        let coordinates = match said("coordinate_transformation_mode", "half_pixel").as_str() {
            "asymmetric" => Coordinates::Asymmetric,
            "half_pixel" => Coordinates::HalfPixel,
            "pytorch_half_pixel" => Coordinates::PytorchHalfPixel,
            "align_corners" => Coordinates::AlignCorners,
            _ => return Ok(Err("its coordinates are not known on integers")),
        };
        let rounding = match said("nearest_mode", "round_prefer_floor").as_str() {
            "floor" => Rounding::Floor,
            "ceil" => Rounding::Ceil,
            "round_prefer_ceil" => Rounding::PreferCeil,
            _ => Rounding::PreferFloor,
        };
        // Opset 10 has the scales second; later, third, and sizes fourth.
        let scales = if node.input.len() == 2 {
            input(node, 1)
        } else {
            input(node, 2)
        };
        let target = if let Some(sizes) = input(node, 3) {
            let sizes = self.ints(sizes)?.unwrap_or_default();
            ResizeTarget::Sizes(
                sizes
                    .iter()
                    .filter_map(|s| usize::try_from(*s).ok())
                    .collect(),
            )
        } else {
            match scales.map(|name| self.floats(name)).transpose()?.flatten() {
                Some((scales, _)) => ResizeTarget::Scales(scales),
                None => return Ok(Err("its scales are not constants")),
            }
        };
        let resize = Resize {
            target,
            coordinates,
        };
        Ok(Ok((resize, (!linear).then_some(rounding))))
    }

    pub(super) fn max_pool(&mut self, node: &NodeProto) -> Outcome {
        let x = required_input(node, 0)?;
        let Some(value) = self.values.get(x).cloned() else {
            return Ok(None);
        };
        if node.output.get(1).is_some_and(|o| !o.is_empty()) || int(node, "storage_order", 0) != 0 {
            return Ok(Some("its indices are read"));
        }
        let Some(kernel) = kernel(node)? else {
            return Ok(Some("it is no pool over height and width"));
        };
        let window = window(node, kernel)?;
        match value {
            Value::Bytes { tensor, signed } => {
                let tensor = self.moved(node, tensor, Op::MaxPool(window));
                self.set(node, Value::Bytes { tensor, signed })
            }
            Value::Real(e) => match self.exprs[e].clone() {
                Expr::Table {
                    tensor,
                    table,
                    direct,
                } if table.is_sorted() => {
                    let tensor = self.moved(node, tensor, Op::MaxPool(window));
                    self.set_expr(
                        node,
                        Expr::Table {
                            tensor,
                            table,
                            direct,
                        },
                    )
                }
                _ => self.set_expr(node, Expr::MaxPool { x: e, window }),
            },
            _ => Ok(None),
        }
    }

    pub(super) fn average_pool(&mut self, node: &NodeProto) -> Outcome {
        let x = required_input(node, 0)?;
        let Some(tensor) = self.direct(x) else {
            return Ok(self.real(x).map(|_| "its input is not quantized"));
        };
        let Some(kernel) = kernel(node)? else {
            return Ok(Some("it is no pool over height and width"));
        };
        let (window, count_include_pad) = (
            window(node, kernel)?,
            int(node, "count_include_pad", 0) != 0,
        );
        self.set_expr(
            node,
            Expr::AveragePool {
                x: tensor,
                window,
                count_include_pad,
            },
        )
    }

    pub(super) fn global_average(&mut self, node: &NodeProto) -> Outcome {
        let x = required_input(node, 0)?;
        let Some(tensor) = self.direct(x) else {
            return Ok(self.real(x).map(|_| "its input is not quantized"));
        };
        let mut keep_dims = true;
        if node.op_type == "ReduceMean" {
            keep_dims = int(node, "keepdims", 1) != 0;
            let axes = match (attribute(node, "axes"), input(node, 1)) {
                (Some(a), _) => Some(a.ints.clone()),
                (None, Some(name)) => self.ints(name)?,
                (None, None) => None,
            };
            let axes = axes.unwrap_or_default();
            if ![[2, 3], [-2, -1], [3, 2], [-1, -2]]
                .iter()
                .any(|a| *a == axes[..])
            {
                return Ok(Some("it is no mean over height and width"));
            }
        }
        self.set_expr(
            node,
            Expr::GlobalAverage {
                x: tensor,
                keep_dims,
            },
        )
    }

    /// The place of the greatest number is that of the greatest byte.
    pub(super) fn largest(&mut self, node: &NodeProto) -> Outcome {
        let x = required_input(node, 0)?;
        let Some(tensor) = self.direct(x) else {
            return Ok(self.real(x).map(|_| NOT_QUANTIZED));
        };
        // -3 is this axis of a picture alone; how many axes there are is not known yet.
        if int(node, "axis", 0) != 1 || !self.is_picture(tensor) {
            return Ok(Some("it is no choice among the channels of a picture"));
        }
        self.set(
            node,
            Value::Largest {
                tensor,
                keep_dims: int(node, "keepdims", 1) != 0,
                last: int(node, "select_last_index", 0) != 0,
            },
        )
    }

    /// Whether what wrote a tensor writes pictures: `[batch, channels, height, width]`.
    fn is_picture(&self, tensor: TensorId) -> bool {
        let node = &self.nodes[tensor];
        match &node.op {
            Op::Convolution(_)
            | Op::FloatDepthwise(..)
            | Op::ResizeLinear { .. }
            | Op::MaxPool(_)
            | Op::AveragePool { .. }
            | Op::Move(Move::ResizeNearest(..)) => true,
            Op::Table(_) | Op::Move(Move::Reinterpret) => self.is_picture(node.inputs[0]),
            _ => false,
        }
    }

    pub(super) fn concat(&mut self, node: &NodeProto) -> Outcome {
        let Some(axis) = attribute(node, "axis").map(|a| a.i) else {
            return Ok(None);
        };
        let values: Vec<Option<Value>> = node
            .input
            .iter()
            .map(|i| self.values.get(i).cloned())
            .collect();
        if values
            .iter()
            .all(|v| matches!(v, Some(Value::Bytes { .. })))
        {
            return self.concat_bytes(node, &values, axis);
        }
        if !values.iter().any(|v| matches!(v, Some(Value::Real(_)))) {
            return Ok(None);
        }
        let mut xs = Vec::new();
        for (name, value) in node.input.iter().zip(values) {
            xs.push(match value {
                Some(Value::Real(e)) => e,
                None if !self.constants.contains_key(name.as_str()) => {
                    self.expr(Expr::Source(name.clone()), 0)
                }
                _ => return Ok(Some("one of its inputs is a constant")),
            });
        }
        self.set_expr(node, Expr::Concat { xs, axis })
    }

    fn concat_bytes(&mut self, node: &NodeProto, values: &[Option<Value>], axis: i64) -> Outcome {
        let tensors: Vec<(usize, bool)> = values
            .iter()
            .filter_map(|v| match v {
                Some(Value::Bytes { tensor, signed }) => Some((*tensor, *signed)),
                _ => None,
            })
            .collect();
        let Some((first, signed)) = tensors.first().copied() else {
            return Ok(None);
        };
        let quant = self.quant(first);
        if tensors
            .iter()
            .any(|(t, s)| self.quant(*t) != quant || *s != signed)
        {
            return Ok(Some("its inputs have different scales"));
        }
        let xs = tensors.into_iter().map(|(t, _)| t).collect();
        let tensor = self.push(node_name(node), Op::Concat { axis }, xs, quant);
        self.set(node, Value::Bytes { tensor, signed })
    }
}

fn kernel(node: &NodeProto) -> Result<Option<[usize; 2]>, Error> {
    match attribute(node, "kernel_shape") {
        Some(a) if a.ints.len() == 2 => sizes(node, "kernel_shape"),
        _ => Ok(None),
    }
}
