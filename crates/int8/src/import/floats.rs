//! Operators that stay in float between quantized tensors: depthwise convolutions whose weights a file keeps as floats,
//! the function after them, and sums of functions. They are computed within a region, from bytes to bytes.

use std::rc::Rc;

use ocellus_int8_kernels::Function;
use tract_onnx::pb::NodeProto;

use super::products::{NOT_QUANTIZED, WEIGHTS_NOT_QUANTIZED, window};
use super::{Expr, ExprId, Import, Outcome};
use crate::Error;
use crate::graph::FloatDepthwise;
use crate::proto::{input, int, node_name, required_input, sizes};

pub(super) fn is_finite(numbers: &[f32]) -> bool {
    numbers.iter().all(|v| v.is_finite())
}

impl Import<'_> {
    /// A convolution whose weights are floats: taken where it has a window for each channel.
    pub(super) fn float_depthwise(&mut self, node: &NodeProto) -> Outcome {
        let Some((weights, dims)) = self.floats(required_input(node, 1)?)? else {
            return Ok(Some(WEIGHTS_NOT_QUANTIZED));
        };
        let &[channels, 1, kh, kw] = dims.as_slice() else {
            return Ok(Some(WEIGHTS_NOT_QUANTIZED));
        };
        let Some((e, numbers)) = self.table(required_input(node, 0)?) else {
            return Ok(Some(NOT_QUANTIZED));
        };
        let bias = match input(node, 2) {
            None => Vec::new(),
            Some(name) => match self.floats(name)? {
                Some((bias, dims)) if dims == [channels] => bias,
                _ => return Ok(Some("its bias is not a constant for each output")),
            },
        };
        let kernel = sizes(node, "kernel_shape")?.unwrap_or([kh, kw]);
        let window = window(node, kernel)?;
        let rows = (kh.saturating_sub(1)).saturating_mul(window.dilation[0]);
        let usual = kernel == [kh, kw]
            && int(node, "group", 1) == channels as i64
            && rows < ocellus_int8_kernels::FloatDepthwise::MAX_ROWS
            && [&weights[..], &bias, &numbers[..]]
                .iter()
                .all(|v| is_finite(v));
        if !usual {
            return Ok(Some(WEIGHTS_NOT_QUANTIZED));
        }
        let convolution = FloatDepthwise {
            window,
            channels,
            numbers,
            weights,
            bias,
            function: Function::Identity,
        };
        let expr = Expr::FloatDepthwise {
            x: self.tensor(e).expect("it has a table"),
            convolution: Rc::new(convolution),
            function: Function::Identity,
            name: node_name(node).to_string(),
        };
        self.set_expr(node, expr)
    }

    /// `Sigmoid` of a float convolution: a part of it.
    pub(super) fn sigmoid_of_float(&mut self, node: &NodeProto, e: ExprId) -> Result<bool, Error> {
        match &self.exprs[e] {
            Expr::FloatDepthwise {
                x,
                convolution,
                function: Function::Identity,
                name,
            } if node.op_type == "Sigmoid" => {
                let expr = Expr::FloatDepthwise {
                    x: *x,
                    convolution: convolution.clone(),
                    function: Function::Sigmoid,
                    name: name.clone(),
                };
                self.set_expr(node, expr)?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// `x · sigmoid(x)` of a float convolution: a part of it.
    pub(super) fn silu_of_float(
        &mut self,
        node: &NodeProto,
        x: &str,
        sigmoid: &str,
    ) -> Result<bool, Error> {
        let (Some(x), Some(sigmoid)) = (self.real(x), self.real(sigmoid)) else {
            return Ok(false);
        };
        let (
            Expr::FloatDepthwise {
                x,
                convolution,
                function: Function::Identity,
                name,
            },
            Expr::FloatDepthwise {
                convolution: same,
                function: Function::Sigmoid,
                ..
            },
        ) = (&self.exprs[x], &self.exprs[sigmoid])
        else {
            return Ok(false);
        };
        if !Rc::ptr_eq(convolution, same) {
            return Ok(false);
        }
        let expr = Expr::FloatDepthwise {
            x: *x,
            convolution: convolution.clone(),
            function: Function::Silu,
            name: name.clone(),
        };
        self.set_expr(node, expr)?;
        Ok(true)
    }

    /// A sum or product of functions of two tensors.
    pub(super) fn table_sum(
        &mut self,
        node: &NodeProto,
        a: &str,
        b: &str,
        product: bool,
    ) -> Result<bool, Error> {
        let (Some((a, p)), Some((b, q))) = (self.table(a), self.table(b)) else {
            return Ok(false);
        };
        let (Some(a), Some(b)) = (self.tensor(a), self.tensor(b)) else {
            return Ok(false);
        };
        if !is_finite(&p[..]) || !is_finite(&q[..]) {
            return Ok(false);
        }
        let expr = Expr::TableSum {
            xs: [a, b],
            numbers: [p, q],
            product,
        };
        self.set_expr(node, expr)?;
        Ok(true)
    }
}
