//! Operators that multiply and accumulate: Conv, Gemm, MatMul, and the biases added after them.

use std::rc::Rc;

use tract_onnx::pb::NodeProto;
use tract_onnx::pb::tensor_proto::DataType;

use super::{Dequantized, Expr, Import, Outcome, Value};
use crate::Error;
use crate::graph::{Convolution, NO_LIMITS, Padding, TensorId, Weights, Window};
use crate::proto::{
    Constant, float, input, int, malformed, node_name, required_input, sizes, text,
};

/// The input, and the weights with what their constant says of them.
struct Operands {
    x: TensorId,
    weights: Rc<Dequantized>,
    dims: Vec<usize>,
    signed: bool,
}

pub(super) const NOT_QUANTIZED: &str = "its input is not quantized";
pub(super) const WEIGHTS_NOT_QUANTIZED: &str = "its weights are not quantized";

impl Import<'_> {
    pub(super) fn convolution(&mut self, node: &NodeProto) -> Outcome {
        let o = match self.operands(node)? {
            Ok(operands) => operands,
            Err(WEIGHTS_NOT_QUANTIZED) => return self.float_depthwise(node),
            Err(reason) => return Ok(Some(reason)),
        };
        let &[outputs, depth, kh, kw] = o.dims.as_slice() else {
            return Ok(Some("it is no convolution over height and width"));
        };
        if o.weights.scales.len() > 1 && o.weights.axis != 0 {
            return Ok(Some("the scales of its weights are not by output channel"));
        }
        let kernel = sizes(node, "kernel_shape")?.unwrap_or([kh, kw]);
        if kernel != [kh, kw] {
            return Err(malformed(
                node,
                format!(
                    "kernel_shape is {kernel:?}, but its weights are {:?}",
                    o.dims
                ),
            ));
        }
        let groups = int(node, "group", 1);
        if groups < 1 || outputs % groups as usize != 0 {
            return Err(malformed(
                node,
                format!("{groups} groups do not divide {outputs} output channels"),
            ));
        }
        let window = window(node, kernel)?;
        self.product(node, &o, window, groups as usize, [outputs, depth], false)
    }

    pub(super) fn gemm(&mut self, node: &NodeProto) -> Outcome {
        if int(node, "transA", 0) != 0
            || float(node, "alpha", 1.0) != 1.0
            || float(node, "beta", 1.0) != 1.0
        {
            return Ok(Some("it transposes its input, or scales (alpha, beta)"));
        }
        self.matrix_product(node, int(node, "transB", 0) == 0)
    }

    pub(super) fn matmul(&mut self, node: &NodeProto) -> Outcome {
        self.matrix_product(node, true)
    }

    fn matrix_product(&mut self, node: &NodeProto, inputs_first: bool) -> Outcome {
        let o = match self.operands(node)? {
            Ok(operands) => operands,
            Err(reason) => return Ok(Some(reason)),
        };
        let &[rows, columns] = o.dims.as_slice() else {
            return Ok(Some("its weights are no matrix"));
        };
        let inputs_first = inputs_first != o.weights.transposed;
        let (inputs, outputs) = if inputs_first {
            (rows, columns)
        } else {
            (columns, rows)
        };
        if o.weights.scales.len() > 1 && o.weights.axis != usize::from(inputs_first) {
            return Ok(Some("the scales of its weights are not by output channel"));
        }
        let window = Window {
            kernel: [1, 1],
            stride: [1, 1],
            dilation: [1, 1],
            padding: Padding::Explicit([0; 4]),
            ceil: false,
        };
        self.product(node, &o, window, 1, [outputs, inputs], inputs_first)
    }

    fn operands(&self, node: &NodeProto) -> Result<Result<Operands, &'static str>, Error> {
        let (x, w) = (required_input(node, 0)?, required_input(node, 1)?);
        let Some(Value::Dequantized(weights)) = self.values.get(w) else {
            return Ok(Err(WEIGHTS_NOT_QUANTIZED));
        };
        let Some(x) = self.direct(x) else {
            return Ok(Err(NOT_QUANTIZED));
        };
        let constant = Constant(self.constants[weights.tensor.as_str()]);
        let signed = match constant.kind() {
            Some(DataType::Int8) => true,
            Some(DataType::Uint8) => false,
            _ => return Ok(Err("its weights are not of 8 bits")),
        };
        let dims = constant.dims()?;
        if dims.contains(&0) {
            return Err(malformed(node, format!("its weights are empty: {dims:?}")));
        }
        Ok(Ok(Operands {
            x,
            weights: weights.clone(),
            dims,
            signed,
        }))
    }

    fn product(
        &mut self,
        node: &NodeProto,
        o: &Operands,
        window: Window,
        groups: usize,
        [outputs, depth]: [usize; 2],
        inputs_first: bool,
    ) -> Outcome {
        let offset = if o.signed { 0 } else { 128 };
        let zeros = o.weights.zeros.iter().map(|z| (z - offset) as i8);
        let mut weight_zeros: Vec<i8> = zeros.collect();
        if weight_zeros.is_empty() && !o.signed {
            weight_zeros.push(-128);
        }
        if weight_zeros.iter().all(|z| *z == 0) {
            weight_zeros.clear();
        }
        let mut convolution = Convolution {
            window,
            groups,
            outputs,
            depth,
            weights: Weights::Named {
                name: o.weights.tensor.clone(),
                inputs_first,
                signed: o.signed,
            },
            weight_zeros,
            weight_scales: o.weights.scales.clone(),
            bias: Vec::new(),
            limits: NO_LIMITS,
            residual: None,
        };
        if let Some(bias) = input(node, 2) {
            match self.bias(node, bias, &convolution, o.x)? {
                Some(bias) => convolution.bias = bias,
                None => return Ok(Some("its bias is not a constant for each output")),
            }
        }
        let fully_connected = node.op_type != "Conv";
        let name = node_name(node).to_string();
        let convolution = Rc::new(convolution);
        self.set_expr(
            node,
            Expr::Convolution {
                x: o.x,
                convolution,
                fully_connected,
                name,
            },
        )
    }

    /// A bias in steps of input scale · weight scale.
    fn bias(
        &self,
        node: &NodeProto,
        name: &str,
        c: &Convolution,
        x: TensorId,
    ) -> Result<Option<Vec<i32>>, Error> {
        let input_scale = self.quant(x).scale;
        let scale = |o: usize| {
            f64::from(input_scale)
                * f64::from(*c.weight_scales.get(o).unwrap_or(&c.weight_scales[0]))
        };
        let length = |n: usize| {
            if n == c.outputs {
                return Ok(());
            }
            Err(malformed(
                node,
                format!(
                    "its bias `{name}` has {n} elements for {} outputs",
                    c.outputs
                ),
            ))
        };
        if let Some(Value::Dequantized(d)) = self.values.get(name) {
            let t = Constant(self.constants[d.tensor.as_str()]);
            let ints = t.ints()?;
            let same = |o: usize| {
                let own = f64::from(*d.scales.get(o).unwrap_or(&d.scales[0]));
                (own - scale(o)).abs() <= 1e-5 * own
            };
            if t.kind() == Some(DataType::Int32)
                && d.zeros.iter().all(|z| *z == 0)
                && (0..c.outputs).all(same)
            {
                length(ints.len())?;
                return Ok(Some(ints.into_iter().map(|v| v as i32).collect()));
            }
        }
        let Some((floats, dims)) = self.floats(name)? else {
            return Ok(None);
        };
        if dims.len() == 1 || dims.is_empty() {
            length(floats.len())?;
        } else if floats.len() != c.outputs {
            return Ok(None);
        }
        // `as` saturates.
        let steps = |(o, v): (usize, &f32)| (f64::from(*v) / scale(o)).round_ties_even() as i32;
        Ok(Some(floats.iter().enumerate().map(steps).collect()))
    }

    /// `product + constant`, by output channel: the bias of a product that has none.
    pub(super) fn added_bias(
        &mut self,
        node: &NodeProto,
        x: &str,
        constant: &str,
    ) -> Result<bool, Error> {
        let Some(e) = self.real(x) else {
            return Ok(false);
        };
        let Expr::Convolution {
            x,
            convolution,
            fully_connected,
            name,
        } = self.exprs[e].clone()
        else {
            return Ok(false);
        };
        let channels = convolution.outputs;
        let dims = match self.floats(constant)? {
            Some((_, dims)) if convolution.bias.is_empty() => dims,
            _ => return Ok(false),
        };
        let channel_axis = if fully_connected { 1 } else { 3 };
        let by_channel = dims.len() >= channel_axis
            && dims[dims.len() - channel_axis] == channels
            && dims.iter().product::<usize>() == channels;
        if !by_channel {
            return Ok(false);
        }
        let Some(bias) = self.bias(node, constant, &convolution, x)? else {
            return Ok(false);
        };
        let convolution = Rc::new(Convolution {
            bias,
            ..(*convolution).clone()
        });
        self.set_expr(
            node,
            Expr::Convolution {
                x,
                convolution,
                fully_connected,
                name,
            },
        )?;
        Ok(true)
    }
}

/// The window of a Conv or a pool.
pub(super) fn window(node: &NodeProto, kernel: [usize; 2]) -> Result<Window, Error> {
    let padding = match text(node, "auto_pad").as_deref() {
        None | Some("NOTSET" | "") => Padding::Explicit(sizes(node, "pads")?.unwrap_or([0; 4])),
        Some("VALID") => Padding::Explicit([0; 4]),
        Some("SAME_UPPER") => Padding::SameUpper,
        Some("SAME_LOWER") => Padding::SameLower,
        Some(other) => return Err(malformed(node, format!("auto_pad is `{other}`"))),
    };
    let window = Window {
        kernel,
        stride: sizes(node, "strides")?.unwrap_or([1, 1]),
        dilation: sizes(node, "dilations")?.unwrap_or([1, 1]),
        padding,
        ceil: int(node, "ceil_mode", 0) != 0,
    };
    if [window.kernel, window.stride, window.dilation]
        .concat()
        .contains(&0)
    {
        return Err(malformed(node, "a size of its window is 0"));
    }
    Ok(window)
}
