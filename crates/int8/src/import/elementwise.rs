//! Elementwise operators: functions of one tensor become tables, Relu and Clip become limits, sums and products of two
//! tensors stay what they are.

use std::sync::Arc;

use ocellus_int8_kernels::logistic;
use tract_onnx::pb::NodeProto;

use super::{Expr, Import, Outcome};
use crate::Error;
use crate::graph::RealTable;
use crate::proto::{attribute, float, input, required_input, text};

type Function = Box<dyn Fn(f32) -> f32>;

impl Import<'_> {
    pub(super) fn clip(&mut self, node: &NodeProto) -> Outcome {
        let x = required_input(node, 0)?;
        let Some(e) = self.real(x) else {
            return Ok(None);
        };
        let mut bounds = [f32::NEG_INFINITY, f32::INFINITY];
        if node.op_type == "Relu" {
            bounds[0] = 0.0;
        } else {
            for (i, name) in ["min", "max"].into_iter().enumerate() {
                if let Some(a) = attribute(node, name) {
                    bounds[i] = a.f;
                } else if let Some(name) = input(node, i + 1) {
                    match self.scalar(name)? {
                        Some(bound) => bounds[i] = bound,
                        None => return Ok(Some("its limits are not constants")),
                    }
                }
            }
        }
        let [min, max] = bounds;
        match self.exprs[e] {
            Expr::Table { .. } => self.map(node, e, &|v| v.max(min).min(max)),
            _ => self.set_expr(node, Expr::Clip { x: e, min, max }),
        }
    }

    /// A function of one tensor, if it is one that is known.
    pub(super) fn unary(&mut self, node: &NodeProto) -> Outcome {
        let Some(e) = input(node, 0).and_then(|x| self.real(x)) else {
            return Ok(None);
        };
        let Some(function) = self.function(node)? else {
            return Ok(Some("this operator is not known on integers"));
        };
        if let Expr::Table { .. } = self.exprs[e] {
            return self.map(node, e, &*function);
        }
        let taken = self.sigmoid_of_float(node, e)?;
        Ok((!taken).then_some("its input is not quantized"))
    }

    fn function(&self, node: &NodeProto) -> Result<Option<Function>, Error> {
        let alpha = |default| float(node, "alpha", default);
        Ok(Some(match node.op_type.as_str() {
            "Sigmoid" => Box::new(logistic),
            "Tanh" => Box::new(f32::tanh),
            "Exp" => Box::new(f32::exp),
            "Log" => Box::new(f32::ln),
            "Sqrt" => Box::new(f32::sqrt),
            "Abs" => Box::new(f32::abs),
            "Neg" => Box::new(|v| -v),
            "Floor" => Box::new(f32::floor),
            "Ceil" => Box::new(f32::ceil),
            "Round" => Box::new(f32::round_ties_even),
            "Reciprocal" => Box::new(f32::recip),
            "Erf" => Box::new(erf),
            "Softplus" => Box::new(softplus),
            "Softsign" => Box::new(|v| v / (1.0 + v.abs())),
            "Mish" => Box::new(|v| v * softplus(v).tanh()),
            "HardSwish" => Box::new(|v| v * (v / 6.0 + 0.5).clamp(0.0, 1.0)),
            "HardSigmoid" => {
                let (alpha, beta) = (alpha(0.2), float(node, "beta", 0.5));
                Box::new(move |v| (alpha * v + beta).clamp(0.0, 1.0))
            }
            "LeakyRelu" => leaky(alpha(0.01)),
            "PRelu" => match self.scalar(required_input(node, 1)?)? {
                Some(slope) => leaky(slope),
                None => return Ok(None),
            },
            "Elu" => {
                let alpha = alpha(1.0);
                Box::new(move |v| if v < 0.0 { alpha * v.exp_m1() } else { v })
            }
            "Celu" => {
                let alpha = alpha(1.0);
                Box::new(move |v| v.max(0.0) + (alpha * (v / alpha).exp_m1()).min(0.0))
            }
            "Selu" => {
                let (alpha, gamma) = (alpha(1.673_263_2), float(node, "gamma", 1.050_701));
                Box::new(move |v| gamma * if v < 0.0 { alpha * v.exp_m1() } else { v })
            }
            "ThresholdedRelu" => {
                let alpha = alpha(1.0);
                Box::new(move |v| if v > alpha { v } else { 0.0 })
            }
            "Gelu" if text(node, "approximate").as_deref().unwrap_or("none") == "none" => {
                Box::new(|v| 0.5 * v * (1.0 + erf(v * std::f32::consts::FRAC_1_SQRT_2)))
            }
            _ => return Ok(None),
        }))
    }

    pub(super) fn binary(&mut self, node: &NodeProto) -> Outcome {
        let (a, b) = (required_input(node, 0)?, required_input(node, 1)?);
        let op = node.op_type.as_str();
        let apply = move |a: f32, b: f32| match op {
            "Add" => a + b,
            "Sub" => a - b,
            "Mul" => a * b,
            "Div" => a / b,
            "Pow" => a.powf(b),
            "Min" => a.min(b),
            _ => a.max(b),
        };
        if op == "Add" && (self.added_bias(node, a, b)? || self.added_bias(node, b, a)?) {
            return Ok(None);
        }
        match (self.table(a), self.table(b)) {
            (Some((e, _)), None) => {
                if let Some(b) = self.scalar(b)? {
                    return self.map(node, e, &|a| apply(a, b));
                }
            }
            (None, Some((e, _))) => {
                if let Some(a) = self.scalar(a)? {
                    return self.map(node, e, &|b| apply(a, b));
                }
            }
            (Some((e, s)), Some((f, t))) if self.tensor(e) == self.tensor(f) => {
                let table: RealTable = Arc::new(std::array::from_fn(|i| apply(s[i], t[i])));
                let tensor = self.tensor(e).expect("it has a table");
                return self.set_expr(
                    node,
                    Expr::Table {
                        tensor,
                        table,
                        direct: false,
                    },
                );
            }
            _ => {}
        }
        if op == "Mul" && (self.silu_of_float(node, a, b)? || self.silu_of_float(node, b, a)?) {
            return Ok(None);
        }
        match (op, self.direct(a), self.direct(b)) {
            ("Add", Some(a), Some(b)) => self.set_expr(node, Expr::Add(a, b)),
            ("Mul", Some(a), Some(b)) => self.set_expr(node, Expr::Mul(a, b)),
            ("Add" | "Mul", _, _) if self.table_sum(node, a, b, op == "Mul")? => Ok(None),
            _ if self.real(a).is_none() && self.real(b).is_none() => Ok(None),
            _ => Ok(Some(
                "it is no sum, no product, and no function of one quantized tensor",
            )),
        }
    }

    pub(super) fn tensor(&self, e: super::ExprId) -> Option<crate::graph::TensorId> {
        match self.exprs[e] {
            Expr::Table { tensor, .. } => Some(tensor),
            _ => None,
        }
    }

    pub(super) fn table(&self, name: &str) -> Option<(super::ExprId, RealTable)> {
        let e = self.real(name)?;
        match &self.exprs[e] {
            Expr::Table { table, .. } => Some((e, table.clone())),
            _ => None,
        }
    }

    /// `function` of a table's numbers.
    fn map(
        &mut self,
        node: &NodeProto,
        e: super::ExprId,
        function: &dyn Fn(f32) -> f32,
    ) -> Outcome {
        let Expr::Table { tensor, table, .. } = &self.exprs[e] else {
            return Ok(Some("its input is not quantized"));
        };
        let (tensor, table) = (*tensor, Arc::new(table.map(function)));
        self.set_expr(
            node,
            Expr::Table {
                tensor,
                table,
                direct: false,
            },
        )
    }
}

fn leaky(slope: f32) -> Function {
    Box::new(move |v| if v < 0.0 { slope * v } else { v })
}

fn softplus(v: f32) -> f32 {
    v.max(0.0) + (-v.abs()).exp().ln_1p()
}

/// Abramowitz and Stegun 7.1.26: within 1.5e-7.
fn erf(v: f32) -> f32 {
    let x = f64::from(v.abs());
    let t = 1.0 / (1.0 + 0.327_591_1 * x);
    let terms = [
        1.061_405_429,
        -1.453_152_027,
        1.421_413_741,
        -0.284_496_736,
        0.254_829_592,
    ];
    let sum = terms.iter().fold(0.0, |sum, term| (sum + term) * t);
    ((1.0 - sum * (-x * x).exp()) as f32).copysign(v)
}
