//! Import: ONNX in QDQ form → the integer graph.
//!
//! In: a graph whose QOperator nodes were rewritten ([`crate::qoperator`]). Out: [`Import`], which knows for each tensor
//! what it is in integers, if anything. Nothing is decided here about what runs where: [`crate::partition`] does that.
//!
//! A float tensor between DequantizeLinear and QuantizeLinear becomes an [`Expr`]: what would have to be computed. The
//! QuantizeLinear that ends it gives the scale, and [`Import::lower`] makes integer nodes of it. Quantization is
//! monotone, so it moves through Relu, Clip, maxima and all that moves elements without a difference in the result.

mod elementwise;
mod floats;
mod lower;
mod moves;
mod products;

pub(crate) use lower::float_product;

use std::collections::HashMap;
use std::rc::Rc;

use ocellus_int8_kernels::Function;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::type_proto::Value as TypeValue;
use tract_onnx::pb::{GraphProto, NodeProto, TensorProto};

use crate::Error;
use crate::graph::{
    Convolution, Element, FloatDepthwise, Move, Node, Op, Quant, RealTable, Resize, Source,
    TensorId, Window,
};
use crate::proto::{Constant, input, int, malformed, output, required_input};

/// Longer chains of operators between two QuantizeLinear stay in float: recursion is bounded.
const MAX_DEPTH: usize = 64;

pub(crate) type ExprId = usize;

/// Values and shape.
type FloatConstant = (Vec<f32>, Vec<usize>);

/// What is known about a tensor of the ONNX graph. A tensor without a value is one that only tract knows.
#[derive(Clone)]
pub(crate) enum Value {
    /// The dequantization of a constant.
    Dequantized(Rc<Dequantized>),
    /// An integer tensor.
    Bytes { tensor: TensorId, signed: bool },
    /// An integer input of the graph, whose scale only a DequantizeLinear will tell.
    Input {
        name: String,
        signed: bool,
        moves: Vec<Move>,
    },
    /// A float tensor.
    Real(ExprId),
    /// Of each pixel of a picture, the channel with the greatest number.
    Largest {
        tensor: TensorId,
        keep_dims: bool,
        last: bool,
    },
}

/// A constant with its scales: weights, a bias, a scalar.
pub(crate) struct Dequantized {
    pub tensor: String,
    pub scales: Vec<f32>,
    pub zeros: Vec<i64>,
    /// The axis of scales, where there are several.
    pub axis: usize,
    /// A matrix that was transposed since.
    pub transposed: bool,
}

/// A float tensor as what would compute it.
#[derive(Clone)]
pub(crate) enum Expr {
    /// A number for each byte of a tensor.
    Table {
        tensor: TensorId,
        table: RealTable,
        /// The table is the tensor's own quantization.
        direct: bool,
    },
    Convolution {
        x: TensorId,
        convolution: Rc<Convolution>,
        fully_connected: bool,
        name: String,
    },
    /// The convolution's own function is not looked at.
    FloatDepthwise {
        x: TensorId,
        convolution: Rc<FloatDepthwise>,
        function: Function,
        name: String,
    },
    ResizeLinear {
        x: TensorId,
        numbers: RealTable,
        resize: Resize,
    },
    TableSum {
        xs: [TensorId; 2],
        numbers: [RealTable; 2],
        product: bool,
    },
    Add(TensorId, TensorId),
    Mul(TensorId, TensorId),
    AveragePool {
        x: TensorId,
        window: Window,
        count_include_pad: bool,
    },
    GlobalAverage {
        x: TensorId,
        keep_dims: bool,
    },
    Clip {
        x: ExprId,
        min: f32,
        max: f32,
    },
    MaxPool {
        x: ExprId,
        window: Window,
    },
    Concat {
        xs: Vec<ExprId>,
        axis: i64,
    },
    Move {
        x: ExprId,
        how: Move,
    },
    /// A tensor that only tract knows, beside others that are known here.
    Source(String),
}

/// What became of a node: nothing but a value, or a reason why it stays in float.
pub(crate) type Outcome = Result<Option<&'static str>, Error>;

pub(crate) struct Import<'a> {
    pub graph: &'a GraphProto,
    pub constants: HashMap<&'a str, &'a TensorProto>,
    pub values: HashMap<String, Value>,
    pub exprs: Vec<Expr>,
    depths: Vec<usize>,
    pub nodes: Vec<Node>,
    /// For each ONNX node that could not be taken: why.
    pub reasons: HashMap<usize, &'static str>,
    lowered: HashMap<lower::Key, TensorId>,
    /// The index of the ONNX node in work.
    at: usize,
}

impl<'a> Import<'a> {
    pub(crate) fn new(graph: &'a GraphProto) -> Result<Self, Error> {
        let constants = graph
            .initializer
            .iter()
            .map(|t| (t.name.as_str(), t))
            .collect();
        let mut import = Self {
            graph,
            constants,
            values: HashMap::new(),
            exprs: Vec::new(),
            depths: Vec::new(),
            nodes: Vec::new(),
            reasons: HashMap::new(),
            lowered: HashMap::new(),
            at: 0,
        };
        for i in &graph.input {
            let element = i
                .r#type
                .as_ref()
                .and_then(|t| t.value.as_ref())
                .map(|v| match v {
                    TypeValue::TensorType(t) => t.elem_type,
                });
            let signed = match element.and_then(|e| DataType::try_from(e).ok()) {
                Some(DataType::Uint8) => false,
                Some(DataType::Int8) => true,
                _ => continue,
            };
            let value = Value::Input {
                name: i.name.clone(),
                signed,
                moves: Vec::new(),
            };
            import.values.insert(i.name.clone(), value);
        }
        import.check_order()?;
        for (at, node) in graph.node.iter().enumerate() {
            import.at = at;
            if let Some(reason) = import.node(node)? {
                import.reasons.insert(at, reason);
            }
        }
        Ok(import)
    }

    /// ONNX wants each tensor to be computed, once, before it is read; all that follows relies on it.
    fn check_order(&self) -> Result<(), Error> {
        let inputs = self.graph.input.iter().map(|i| i.name.as_str());
        let mut known: std::collections::HashSet<&str> =
            inputs.chain(self.constants.keys().copied()).collect();
        for node in &self.graph.node {
            for name in node.input.iter().filter(|n| !n.is_empty()) {
                if !known.contains(name.as_str()) {
                    let problem = format!(
                        "its input `{name}` is no input of the graph, no constant and no output of a node before it"
                    );
                    return Err(malformed(node, problem));
                }
            }
            for name in node.output.iter().filter(|n| !n.is_empty()) {
                if !known.insert(name) {
                    return Err(malformed(node, format!("`{name}` exists already")));
                }
            }
        }
        match self
            .graph
            .output
            .iter()
            .find(|o| !known.contains(o.name.as_str()))
        {
            Some(o) => Err(Error::Malformed {
                node: format!("output `{}`", o.name),
                problem: "no node computes it".into(),
            }),
            None => Ok(()),
        }
    }

    fn node(&mut self, node: &NodeProto) -> Outcome {
        if !["", "ai.onnx"].contains(&node.domain.as_str()) {
            return Ok(None);
        }
        match node.op_type.as_str() {
            "QuantizeLinear" => self.quantize_linear(node),
            "DequantizeLinear" => self.dequantize_linear(node),
            "Identity" | "Dropout" => self.identity(node),
            "Conv" => self.convolution(node),
            "Gemm" => self.gemm(node),
            "MatMul" => self.matmul(node),
            "Add" | "Sub" | "Mul" | "Div" | "Pow" | "Min" | "Max" if node.input.len() == 2 => {
                self.binary(node)
            }
            "Clip" | "Relu" => self.clip(node),
            "MaxPool" => self.max_pool(node),
            "AveragePool" => self.average_pool(node),
            "GlobalAveragePool" | "ReduceMean" => self.global_average(node),
            "ArgMax" => self.largest(node),
            "Concat" => self.concat(node),
            "Transpose" | "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze" | "Slice" | "Pad"
            | "SpaceToDepth" | "Gather" => self.movement(node),
            "Resize" => self.resize(node),
            _ => self.unary(node),
        }
    }

    fn set(&mut self, node: &NodeProto, value: Value) -> Outcome {
        self.values.insert(output(node)?.to_string(), value);
        Ok(None)
    }

    fn set_expr(&mut self, node: &NodeProto, expr: Expr) -> Outcome {
        let deep = |e: &ExprId| self.depths[*e] + 1;
        let depth = match &expr {
            Expr::Clip { x, .. } | Expr::MaxPool { x, .. } | Expr::Move { x, .. } => deep(x),
            Expr::Concat { xs, .. } => xs.iter().map(deep).max().unwrap_or(0),
            _ => 0,
        };
        if depth > MAX_DEPTH {
            return Ok(Some(
                "the chain of operators without quantization is too long",
            ));
        }
        let id = self.expr(expr, depth);
        self.set(node, Value::Real(id))
    }

    fn expr(&mut self, expr: Expr, depth: usize) -> ExprId {
        self.exprs.push(expr);
        self.depths.push(depth);
        self.exprs.len() - 1
    }

    fn push(&mut self, name: &str, op: Op, inputs: Vec<TensorId>, quant: Quant) -> TensorId {
        let name = name.to_string();
        self.nodes.push(Node {
            name,
            op,
            inputs,
            element: Element::Byte(quant),
            at: self.at,
        });
        self.nodes.len() - 1
    }

    pub(crate) fn quant(&self, tensor: TensorId) -> Quant {
        self.nodes[tensor]
            .quant()
            .expect("floats are written by no node before the partition")
    }

    /// The float tensor's expression, if there is one.
    fn real(&self, name: &str) -> Option<ExprId> {
        match self.values.get(name) {
            Some(Value::Real(e)) => Some(*e),
            _ => None,
        }
    }

    /// The integer tensor that this float tensor is the plain dequantization of.
    fn direct(&self, name: &str) -> Option<TensorId> {
        match self.exprs[self.real(name)?] {
            Expr::Table {
                tensor,
                direct: true,
                ..
            } => Some(tensor),
            _ => None,
        }
    }

    /// A float constant of the file, dequantized if it is not stored as floats, and its shape.
    fn floats(&self, name: &str) -> Result<Option<FloatConstant>, Error> {
        if let Some(t) = self.constants.get(name) {
            let t = Constant(t);
            if t.kind() != Some(DataType::Float) {
                return Ok(None);
            }
            return Ok(Some((t.floats()?, t.dims()?)));
        }
        let Some(Value::Dequantized(d)) = self.values.get(name) else {
            return Ok(None);
        };
        let t = Constant(self.constants[d.tensor.as_str()]);
        let (ints, dims) = (t.ints()?, t.dims()?);
        if d.scales.len() > 1 && dims.len() != 1 {
            return Ok(None);
        }
        let at = |list: &[i64], i: usize| list.get(i).or(list.first()).copied().unwrap_or(0);
        let scale = |i: usize| d.scales.get(i).unwrap_or(&d.scales[0]);
        let floats = ints.iter().enumerate();
        let floats = floats
            .map(|(i, v)| (v - at(&d.zeros, i)) as f32 * scale(i))
            .collect();
        Ok(Some((floats, dims)))
    }

    /// A constant of one element.
    fn scalar(&self, name: &str) -> Result<Option<f32>, Error> {
        // Large constants are not read for this.
        let tensor = match self.values.get(name) {
            Some(Value::Dequantized(d)) => self.constants.get(d.tensor.as_str()),
            _ => self.constants.get(name),
        };
        match tensor {
            Some(t) if t.dims.iter().all(|d| *d == 1) => {
                Ok(self.floats(name)?.and_then(|(v, _)| v.first().copied()))
            }
            _ => Ok(None),
        }
    }

    /// Integers that are a constant of the file.
    fn ints(&self, name: &str) -> Result<Option<Vec<i64>>, Error> {
        self.constants
            .get(name)
            .map(|t| Constant(t).ints())
            .transpose()
    }

    fn identity(&mut self, node: &NodeProto) -> Outcome {
        match self.values.get(required_input(node, 0)?).cloned() {
            Some(value) => self.set(node, value),
            None => Ok(None),
        }
    }

    fn quantize_linear(&mut self, node: &NodeProto) -> Outcome {
        let x = required_input(node, 0)?;
        let (quant, signed) = match self.scale(node, None)? {
            Ok(scale) => scale,
            Err(reason) => return Ok(Some(reason)),
        };
        let tensor = match self.values.get(x) {
            Some(Value::Real(e)) => self.lower(*e, quant, crate::graph::NO_LIMITS, node)?,
            Some(_) => return Ok(Some("it quantizes a constant, or integers")),
            None if self.constants.contains_key(x) => {
                return Ok(Some("it quantizes a constant"));
            }
            None => {
                let source = Source::Float {
                    name: x.to_string(),
                };
                self.push(
                    crate::proto::node_name(node),
                    Op::Source(source),
                    vec![],
                    quant,
                )
            }
        };
        self.set(node, Value::Bytes { tensor, signed })
    }

    fn dequantize_linear(&mut self, node: &NodeProto) -> Outcome {
        let x = required_input(node, 0)?;
        if let Some(t) = self.constants.get(x) {
            return self.dequantize_constant(node, Constant(t));
        }
        let known = match self.values.get(x) {
            Some(Value::Bytes { signed, .. } | Value::Input { signed, .. }) => Some(*signed),
            Some(Value::Dequantized(_) | Value::Real(_)) => {
                return Err(malformed(
                    node,
                    format!("its input `{x}` is a float tensor"),
                ));
            }
            Some(Value::Largest { .. }) => {
                return Err(malformed(node, format!("its input `{x}` is of places")));
            }
            None => None,
        };
        let (quant, _) = match self.scale(node, known)? {
            Ok((_, signed)) if known.is_none() && input(node, 2).is_none() => {
                let _ = signed;
                return Ok(Some("whether its input is signed is not known"));
            }
            Ok(scale) => scale,
            Err(reason) => return Ok(Some(reason)),
        };
        let name = crate::proto::node_name(node);
        let tensor = match self.values.get(x).cloned() {
            Some(Value::Bytes { tensor, .. }) if self.quant(tensor) == quant => tensor,
            Some(Value::Bytes { tensor, .. }) => {
                self.push(name, Op::Move(Move::Reinterpret), vec![tensor], quant)
            }
            Some(Value::Input {
                name: source,
                signed,
                moves,
            }) => {
                let source = Source::Bytes {
                    name: source,
                    signed,
                    channels_last: false,
                };
                let tensor = self.push(name, Op::Source(source), vec![], quant);
                moves.into_iter().fold(tensor, |tensor, how| {
                    self.push(name, Op::Move(how), vec![tensor], quant)
                })
            }
            _ => {
                let (_, signed) = match self.scale(node, known)? {
                    Ok(scale) => scale,
                    Err(reason) => return Ok(Some(reason)),
                };
                let source = Source::Bytes {
                    name: x.to_string(),
                    signed,
                    channels_last: false,
                };
                self.push(name, Op::Source(source), vec![], quant)
            }
        };
        self.set_expr(
            node,
            Expr::Table {
                tensor,
                table: quant.table(),
                direct: true,
            },
        )
    }

    fn dequantize_constant(&mut self, node: &NodeProto, constant: Constant<'_>) -> Outcome {
        let bad = |problem: String| Err(malformed(node, problem));
        match constant.kind() {
            Some(DataType::Int8 | DataType::Uint8 | DataType::Int32) => {}
            _ => {
                return Ok(Some(
                    "it dequantizes a constant that is not of 8-bit or 32-bit integers",
                ));
            }
        }
        if int(node, "block_size", 0) != 0 {
            return Ok(Some("its scales are by block"));
        }
        let dims = constant.dims()?;
        let scale_name = required_input(node, 1)?;
        let Some(scales) = self.constants.get(scale_name) else {
            return Ok(Some("its scale is not a constant"));
        };
        if Constant(scales).kind() != Some(DataType::Float) {
            return Ok(Some("its scale is not of 32-bit floats"));
        }
        let scales = Constant(scales).floats()?;
        if let Some(scale) = scales.iter().find(|s| !(s.is_finite() && **s > 0.0)) {
            return bad(format!("its scale `{scale_name}` holds {scale}"));
        }
        let zeros = match input(node, 2) {
            None => Vec::new(),
            Some(name) => {
                let Some(zeros) = self.constants.get(name) else {
                    return Ok(Some("its zero point is not a constant"));
                };
                if zeros.data_type != constant.0.data_type {
                    return bad(format!(
                        "its zero point `{name}` is of another type than the constant"
                    ));
                }
                let range = match constant.kind() {
                    Some(DataType::Int8) => -128..=127,
                    Some(DataType::Uint8) => 0..=255,
                    _ => i64::from(i32::MIN)..=i64::from(i32::MAX),
                };
                let zeros = Constant(zeros).ints()?;
                if let Some(zero) = zeros.iter().find(|z| !range.contains(z)) {
                    return bad(format!("its zero point `{name}` holds {zero}"));
                }
                if zeros.len() != scales.len() {
                    return bad(format!(
                        "it has {} scales, but {} zero points",
                        scales.len(),
                        zeros.len()
                    ));
                }
                zeros
            }
        };
        let mut axis = int(node, "axis", 1);
        if axis < 0 {
            axis += dims.len() as i64;
        }
        let axis = axis as usize;
        if scales.is_empty() || (scales.len() > 1 && dims.get(axis) != Some(&scales.len())) {
            return bad(format!(
                "it has {} scales for a constant {dims:?}, axis {axis}",
                scales.len()
            ));
        }
        let tensor = constant.0.name.clone();
        let value = Dequantized {
            tensor,
            scales,
            zeros,
            axis,
            transposed: false,
        };
        self.set(node, Value::Dequantized(Rc::new(value)))
    }

    /// Scale and zero point of a QuantizeLinear or DequantizeLinear of one scale, and whether its integers are signed.
    fn scale(
        &self,
        node: &NodeProto,
        signed: Option<bool>,
    ) -> Result<Result<(Quant, bool), &'static str>, Error> {
        let name = required_input(node, 1)?;
        let Some(scale) = self.constants.get(name).map(|t| Constant(t)) else {
            return Ok(Err("its scale is not a constant"));
        };
        if scale.kind() != Some(DataType::Float) {
            return Ok(Err("its scale is not of 32-bit floats"));
        }
        let scale = match scale.floats()?.as_slice() {
            [one] => *one,
            [] => return Err(malformed(node, format!("its scale `{name}` is empty"))),
            _ => return Ok(Err("its activations have several scales")),
        };
        if !(scale.is_finite() && scale > 0.0) {
            return Err(malformed(node, format!("its scale `{name}` is {scale}")));
        }
        let (kind, zero) = match input(node, 2) {
            None => {
                let kind = match int(node, "output_dtype", 0) {
                    0 if signed == Some(true) => DataType::Int8,
                    0 => DataType::Uint8,
                    n => DataType::try_from(n as i32).unwrap_or(DataType::Undefined),
                };
                (kind, 0)
            }
            Some(name) => {
                let Some(t) = self.constants.get(name).map(|t| Constant(t)) else {
                    return Ok(Err("its zero point is not a constant"));
                };
                match t.kind() {
                    Some(kind @ (DataType::Uint8 | DataType::Int8)) => match t.ints()?.as_slice() {
                        [zero] => (kind, *zero),
                        zeros => {
                            let problem = format!(
                                "its zero point `{name}` has {} elements, its scale 1",
                                zeros.len()
                            );
                            return Err(malformed(node, problem));
                        }
                    },
                    _ => return Ok(Err("it does not quantize to 8 bits")),
                }
            }
        };
        let is_signed = match kind {
            DataType::Uint8 => false,
            DataType::Int8 => true,
            _ => return Ok(Err("it does not quantize to 8 bits")),
        };
        if signed.is_some_and(|s| s != is_signed) {
            return Err(malformed(
                node,
                "its zero point is of another type than its input",
            ));
        }
        let canonical = zero + if is_signed { 128 } else { 0 };
        let zero = u8::try_from(canonical)
            .map_err(|_| malformed(node, format!("its zero point is {zero}")))?;
        Ok(Ok((Quant { scale, zero }, is_signed)))
    }
}
