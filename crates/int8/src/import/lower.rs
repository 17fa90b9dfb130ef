//! Expressions → integer nodes, once a QuantizeLinear has given the scale.

use std::sync::Arc;

use tract_onnx::pb::NodeProto;

use super::{Expr, ExprId, Import};
use crate::Error;
use crate::graph::{
    Convolution, FloatDepthwise, Limits, Move, NO_LIMITS, Node, Op, Quant, Source, TensorId,
};
use crate::proto::{malformed, node_name};

/// What was asked for: an expression, its scale's bits and zero point, its limits.
pub(super) type Key = (ExprId, u32, u8, Limits);

impl Import<'_> {
    /// The tensor that holds the quantization of the expression, held to the limits. `node` is the QuantizeLinear.
    pub(super) fn lower(
        &mut self,
        e: ExprId,
        quant: Quant,
        limits: Limits,
        node: &NodeProto,
    ) -> Result<TensorId, Error> {
        let key = (e, quant.scale.to_bits(), quant.zero, limits);
        if let Some(tensor) = self.lowered.get(&key) {
            return Ok(*tensor);
        }
        let name = node_name(node);
        let tensor = match self.exprs[e].clone() {
            Expr::Table { tensor, table, .. } => {
                let bytes = table.map(|v| quant.quantize(v).clamp(limits.0, limits.1));
                self.table_of(tensor, bytes, quant, name)
            }
            Expr::Convolution {
                x,
                convolution,
                fully_connected,
                name,
            } => {
                let c = Arc::new(Convolution {
                    limits,
                    ..(*convolution).clone()
                });
                let op = if fully_connected {
                    Op::FullyConnected(c)
                } else {
                    Op::Convolution(c)
                };
                self.push(&name, op, vec![x], quant)
            }
            Expr::Add(a, b) => self.push(name, Op::Add(limits), vec![a, b], quant),
            Expr::Mul(a, b) => self.push(name, Op::Mul(limits), vec![a, b], quant),
            Expr::FloatDepthwise {
                x,
                convolution,
                function,
                name,
            } => {
                let c = Arc::new(FloatDepthwise {
                    function,
                    ..(*convolution).clone()
                });
                self.push(&name, Op::FloatDepthwise(c, limits), vec![x], quant)
            }
            Expr::ResizeLinear { x, numbers, resize } => {
                let op = Op::ResizeLinear {
                    resize,
                    numbers,
                    limits,
                };
                self.push(name, op, vec![x], quant)
            }
            Expr::TableSum {
                xs,
                numbers,
                product,
            } => {
                let op = Op::TableSum {
                    numbers,
                    product,
                    limits,
                };
                self.push(name, op, xs.to_vec(), quant)
            }
            Expr::AveragePool {
                x,
                window,
                count_include_pad,
            } => {
                let op = Op::AveragePool {
                    window,
                    count_include_pad,
                };
                let tensor = self.push(name, op, vec![x], quant);
                self.limited(tensor, limits, name)
            }
            Expr::GlobalAverage { x, keep_dims } => {
                let tensor = self.push(name, Op::GlobalAverage { keep_dims }, vec![x], quant);
                self.limited(tensor, limits, name)
            }
            Expr::Clip { x, min, max } => {
                if min > max || min.is_nan() || max.is_nan() {
                    return Err(malformed(
                        node,
                        format!("the limits before it are {min} to {max}"),
                    ));
                }
                let bound = |v: f32| quant.quantize(v).clamp(limits.0, limits.1);
                self.lower(x, quant, (bound(min), bound(max)), node)?
            }
            Expr::MaxPool { x, window } => {
                let x = self.lower(x, quant, limits, node)?;
                self.push(name, Op::MaxPool(window), vec![x], quant)
            }
            Expr::Concat { xs, axis } => {
                let xs = xs.into_iter().map(|x| self.lower(x, quant, limits, node));
                let xs = xs.collect::<Result<_, _>>()?;
                self.push(name, Op::Concat { axis }, xs, quant)
            }
            Expr::Move { x, how } => {
                let x = self.lower(x, quant, limits, node)?;
                let how = match how {
                    Move::Pad { pads, .. } => Move::Pad {
                        pads,
                        fill: quant.zero.clamp(limits.0, limits.1),
                    },
                    how => how,
                };
                self.push(name, Op::Move(how), vec![x], quant)
            }
            Expr::Source(source) => {
                let tensor = self.push(
                    name,
                    Op::Source(Source::Float { name: source }),
                    vec![],
                    quant,
                );
                self.limited(tensor, limits, name)
            }
        };
        self.lowered.insert(key, tensor);
        Ok(tensor)
    }

    fn limited(&mut self, tensor: TensorId, limits: Limits, name: &str) -> TensorId {
        let bytes = std::array::from_fn(|byte| (byte as u8).clamp(limits.0, limits.1));
        self.table_of(tensor, bytes, self.quant(tensor), name)
    }

    /// The tensor through a table; the tensor itself where the table changes nothing.
    fn table_of(
        &mut self,
        tensor: TensorId,
        bytes: [u8; 256],
        quant: Quant,
        name: &str,
    ) -> TensorId {
        let changes = bytes.iter().enumerate().any(|(i, b)| i != usize::from(*b));
        match (changes, self.quant(tensor) == quant) {
            (false, true) => tensor,
            (false, false) => self.push(name, Op::Move(Move::Reinterpret), vec![tensor], quant),
            (true, _) => self.push(name, Op::Table(Arc::new(bytes)), vec![tensor], quant),
        }
    }

    /// Like [`Import::lower`] where the tensor's own scale stays: an operator that moves elements.
    pub(super) fn moved(&mut self, node: &NodeProto, x: TensorId, op: Op) -> TensorId {
        let quant = self.quant(x);
        self.push(node_name(node), op, vec![x], quant)
    }
}

/// A convolution whose sums leave as floats, with no QuantizeLinear after it.
pub(crate) fn float_product(expr: &Expr, at: usize) -> Option<Node> {
    let Expr::Convolution {
        x,
        convolution,
        fully_connected,
        name,
    } = expr
    else {
        return None;
    };
    let c = Arc::new(Convolution {
        limits: NO_LIMITS,
        ..(**convolution).clone()
    });
    let op = if *fully_connected {
        Op::FullyConnected(c)
    } else {
        Op::Convolution(c)
    };
    let element = crate::graph::Element::Float;
    Some(Node {
        name: name.clone(),
        op,
        inputs: vec![*x],
        element,
        at,
    })
}
