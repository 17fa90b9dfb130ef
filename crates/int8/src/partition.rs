//! What runs where: which nodes stay with tract, and the maximal regions that run on integers.
//!
//! In: an [`Import`]. Out: [`Partition`]: regions, and the graph that is left, in which each region is one node. Always
//! holds: the graph that is left has no cycle, because a region contains what has the same number of crossings between
//! integers and floats on its longest way from the inputs.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::type_proto::Value as TypeValue;
use tract_onnx::pb::{AttributeProto, GraphProto, NodeProto};

use crate::Error;
use crate::graph::{
    Convolution, Node, Op, Quant, Region, Sink, SinkKind, Source, TensorId, Weights,
};
use crate::import::{Expr, Import, Value, float_product};
use crate::proto::{Constant, node_name};

/// The operator type of a region's node.
pub(crate) const REGION: &str = "OcellusInt8Region";

pub(crate) struct Partition {
    pub regions: Vec<Region>,
    /// Whether each ONNX node stays with tract.
    pub kept: Vec<bool>,
    /// Nodes of the quantized part that stay in float: name, operator, reason.
    pub left: Vec<(String, String, &'static str)>,
    /// The quantization of the graph's input, if it is read by regions alone, as floats.
    pub input: Option<(String, Quant)>,
}

pub(crate) fn partition(mut import: Import<'_>) -> Partition {
    let graph = import.graph;
    let mut needed: HashSet<String> = graph.output.iter().map(|o| o.name.clone()).collect();
    let mut sinks: Vec<Sink> = Vec::new();
    let mut live = vec![false; import.nodes.len()];
    let mut kept = vec![false; graph.node.len()];
    let mut by_at: BTreeMap<usize, Vec<TensorId>> = BTreeMap::new();
    for (tensor, node) in import.nodes.iter().enumerate() {
        by_at.entry(node.at).or_default().push(tensor);
    }
    for (at, node) in graph.node.iter().enumerate().rev() {
        let wanted = |o: &String| needed.contains(o);
        if node.output.iter().any(wanted) {
            let only_first = !node.output.iter().skip(1).any(wanted);
            match node
                .output
                .first()
                .filter(|_| only_first)
                .and_then(|o| sink(&mut import, o, at))
            {
                Some(sink) => {
                    live.resize(import.nodes.len(), false);
                    live[sink.tensor] = true;
                    // A product that leaves as floats was made just now, and has no turn of its own.
                    for input in &import.nodes[sink.tensor].inputs {
                        live[*input] = true;
                    }
                    sinks.push(sink);
                }
                None => {
                    kept[at] = true;
                    read_by(node, &mut needed);
                }
            }
        }
        for tensor in by_at.get(&at).into_iter().flatten().rev() {
            if !live[*tensor] {
                continue;
            }
            let node = &import.nodes[*tensor];
            if let Op::Source(source) = &node.op {
                needed.insert(source.name().to_string());
            }
            for input in &node.inputs {
                live[*input] = true;
            }
        }
    }
    let levels = levels(&import, &live, &kept, &sinks);
    let left = left(&import, &kept);
    let input = input_quantization(&import, &live, &kept);
    Partition {
        regions: regions(&import, &live, &levels, sinks),
        kept,
        left,
        input,
    }
}

/// How the regions give a tensor to the rest of the network, if they know it.
fn sink(import: &mut Import<'_>, name: &str, at: usize) -> Option<Sink> {
    let (tensor, kind) = match import.values.get(name)? {
        Value::Bytes { tensor, signed } => (*tensor, SinkKind::Bytes { signed: *signed }),
        Value::Real(e) => match &import.exprs[*e] {
            Expr::Table { tensor, table, .. } => (*tensor, SinkKind::Float(Some(table.clone()))),
            expr => {
                import.nodes.push(float_product(expr, at)?);
                (import.nodes.len() - 1, SinkKind::Float(None))
            }
        },
        Value::Largest {
            tensor,
            keep_dims,
            last,
        } => {
            let (keep_dims, last) = (*keep_dims, *last);
            (*tensor, SinkKind::Largest { keep_dims, last })
        }
        Value::Dequantized(_) | Value::Input { .. } => return None,
    };
    Some(Sink {
        name: name.to_string(),
        tensor,
        kind,
    })
}

/// What a node reads, within its subgraphs too.
fn read_by(node: &NodeProto, names: &mut HashSet<String>) {
    names.extend(node.input.iter().filter(|n| !n.is_empty()).cloned());
    let subgraphs = |a: &AttributeProto| a.g.iter().chain(&a.graphs).cloned().collect::<Vec<_>>();
    for graph in node.attribute.iter().flat_map(subgraphs) {
        names.extend(graph.output.iter().map(|o| o.name.clone()));
        graph.node.iter().for_each(|n| read_by(n, names));
    }
}

/// For each live tensor: the number of its region.
fn levels(import: &Import<'_>, live: &[bool], kept: &[bool], sinks: &[Sink]) -> Vec<usize> {
    let mut levels = vec![0; import.nodes.len()];
    // Regions that a tensor of the remaining graph depends on: one more than the last one's number, or 0.
    let mut names: HashMap<&str, usize> = HashMap::new();
    let mut order: Vec<TensorId> = (0..import.nodes.len()).filter(|t| live[*t]).collect();
    order.sort_by_key(|t| (import.nodes[*t].at, *t));
    let mut next = 0;
    let sinks_of: HashMap<&str, TensorId> =
        sinks.iter().map(|s| (s.name.as_str(), s.tensor)).collect();
    for (at, onnx) in import.graph.node.iter().enumerate() {
        while let Some(tensor) = order.get(next).filter(|t| import.nodes[**t].at <= at) {
            let node = &import.nodes[*tensor];
            let from_inputs = node.inputs.iter().map(|i| levels[*i]);
            let from_name = match &node.op {
                Op::Source(source) => names.get(source.name()).copied(),
                _ => None,
            };
            levels[*tensor] = from_inputs.chain(from_name).max().unwrap_or(0);
            next += 1;
        }
        let depends = if kept[at] {
            let mut read = HashSet::new();
            read_by(onnx, &mut read);
            read.iter()
                .filter_map(|n| names.get(n.as_str()))
                .copied()
                .max()
                .unwrap_or(0)
        } else {
            0
        };
        for name in &onnx.output {
            let depends = sinks_of
                .get(name.as_str())
                .map_or(depends, |t| levels[*t] + 1);
            names.insert(name, depends);
        }
    }
    levels
}

fn regions(import: &Import<'_>, live: &[bool], levels: &[usize], sinks: Vec<Sink>) -> Vec<Region> {
    let mut regions: BTreeMap<usize, Region> = BTreeMap::new();
    // A tensor's number within a region.
    let mut local: HashMap<(usize, TensorId), TensorId> = HashMap::new();
    let mut order: Vec<TensorId> = (0..import.nodes.len()).filter(|t| live[*t]).collect();
    order.sort_by_key(|t| (import.nodes[*t].at, *t));
    for tensor in order {
        let level = levels[tensor];
        let mut node = import.nodes[tensor].clone();
        for input in &mut node.inputs {
            *input = match local.get(&(level, *input)) {
                Some(known) => *known,
                None => import_from(import, *input, level, levels, &mut local, &mut regions),
            };
        }
        let region = regions.entry(level).or_default();
        region.nodes.push(node);
        local.insert((level, tensor), region.nodes.len() - 1);
    }
    for sink in sinks {
        let level = levels[sink.tensor];
        if let Some(region) = regions.get_mut(&level) {
            region.sinks.push(Sink {
                tensor: local[&(level, sink.tensor)],
                ..sink
            });
        }
    }
    regions.into_values().collect()
}

/// A tensor of an earlier region, made a source of this one and a sink of that one.
fn import_from(
    import: &Import<'_>,
    tensor: TensorId,
    level: usize,
    levels: &[usize],
    local: &mut HashMap<(usize, TensorId), TensorId>,
    regions: &mut BTreeMap<usize, Region>,
) -> TensorId {
    let name = format!("{}::int8.{tensor}", import.nodes[tensor].name);
    let producer = levels[tensor];
    let theirs = local[&(producer, tensor)];
    if let Some(region) = regions.get_mut(&producer)
        && !region.sinks.iter().any(|s| s.name == name)
    {
        region.sinks.push(Sink {
            name: name.clone(),
            tensor: theirs,
            kind: SinkKind::Region,
        });
    }
    let op = Op::Source(Source::Region { name });
    let region = regions.entry(level).or_default();
    region.nodes.push(Node {
        op,
        inputs: vec![],
        ..import.nodes[tensor].clone()
    });
    local.insert((level, tensor), region.nodes.len() - 1);
    region.nodes.len() - 1
}

fn left(import: &Import<'_>, kept: &[bool]) -> Vec<(String, String, &'static str)> {
    let nodes = import
        .graph
        .node
        .iter()
        .enumerate()
        .filter(|(at, _)| kept[*at]);
    let known = |name: &String| {
        matches!(
            import.values.get(name),
            Some(Value::Real(_) | Value::Bytes { .. } | Value::Largest { .. })
        )
    };
    let reason = |(at, node): (usize, &NodeProto)| {
        let reason = match import.reasons.get(&at) {
            Some(reason) => reason,
            None if node.output.iter().any(known) => "its output is not quantized",
            None if node.input.iter().any(known) => "this operator is not known on integers",
            None => return None,
        };
        Some((node_name(node).to_string(), node.op_type.clone(), reason))
    };
    nodes.filter_map(reason).collect()
}

/// The one quantization of a float input that only regions read.
fn input_quantization(
    import: &Import<'_>,
    live: &[bool],
    kept: &[bool],
) -> Option<(String, Quant)> {
    let [input] = import.graph.input.as_slice() else {
        return None;
    };
    let mut read = HashSet::new();
    import
        .graph
        .node
        .iter()
        .zip(kept)
        .filter(|(_, k)| **k)
        .for_each(|(n, _)| read_by(n, &mut read));
    let is_output = import.graph.output.iter().any(|o| o.name == input.name);
    if read.contains(&input.name) || is_output {
        return None;
    }
    let source = Source::Float {
        name: input.name.clone(),
    };
    let nodes = import
        .nodes
        .iter()
        .zip(live)
        .filter(|(_, live)| **live)
        .map(|(n, _)| n);
    let readers = nodes.filter(|n| matches!(&n.op, Op::Source(s) if *s == source));
    let mut quants = readers.filter_map(Node::quant);
    let first = quants.next()?;
    quants
        .all(|q| q == first)
        .then(|| (input.name.clone(), first))
}

impl Partition {
    /// Makes the graph's float input one of bytes, `[batch, height, width, channels]`, already quantized.
    pub(crate) fn take_bytes(&mut self, graph: &mut GraphProto) -> Option<Quant> {
        let (name, quant) = self.input.clone()?;
        let TypeValue::TensorType(tensor) =
            graph.input.first_mut()?.r#type.as_mut()?.value.as_mut()?;
        let dims = &mut tensor.shape.as_mut()?.dim;
        if dims.len() != 4 {
            return None;
        }
        dims[1..].rotate_left(1);
        tensor.elem_type = DataType::Uint8 as i32;
        for node in self.regions.iter_mut().flat_map(|r| &mut r.nodes) {
            if matches!(&node.op, Op::Source(Source::Float { name: n }) if *n == name) {
                let name = name.clone();
                node.op = Op::Source(Source::Bytes {
                    name,
                    signed: false,
                    channels_last: true,
                });
            }
        }
        Some(quant)
    }

    /// Moves the weights out of the graph, and puts the regions in place of their nodes.
    pub(crate) fn apply(&mut self, graph: &mut GraphProto) -> Result<(), Error> {
        self.take_weights(graph)?;
        let mut kept = self.kept.iter();
        graph.node.retain(|_| *kept.next().unwrap_or(&true));
        for (i, region) in self.regions.iter().enumerate() {
            graph.node.push(NodeProto {
                name: format!("int8.{i}"),
                op_type: REGION.into(),
                input: region
                    .sources()
                    .iter()
                    .map(|s| s.name().to_string())
                    .collect(),
                output: region.sinks.iter().map(|s| s.name.clone()).collect(),
                ..Default::default()
            });
        }
        let mut read: HashSet<String> = graph.output.iter().map(|o| o.name.clone()).collect();
        graph.node.iter().for_each(|n| read_by(n, &mut read));
        graph.initializer.retain(|t| read.contains(&t.name));
        Ok(())
    }

    fn take_weights(&mut self, graph: &GraphProto) -> Result<(), Error> {
        let constants: HashMap<&str, _> = graph
            .initializer
            .iter()
            .map(|t| (t.name.as_str(), t))
            .collect();
        let mut packed: HashMap<(String, bool), Arc<Vec<i8>>> = HashMap::new();
        for node in self.regions.iter_mut().flat_map(|r| &mut r.nodes) {
            let (Op::Convolution(c) | Op::FullyConnected(c)) = &mut node.op else {
                continue;
            };
            let Weights::Named {
                name,
                inputs_first,
                signed,
            } = c.weights.clone()
            else {
                continue;
            };
            let ohwi = match packed.get(&(name.clone(), inputs_first)) {
                Some(known) => known.clone(),
                None => {
                    let bytes = Constant(constants[name.as_str()]).bytes()?;
                    let ohwi = Arc::new(to_ohwi(&bytes, c, inputs_first, signed));
                    packed.insert((name, inputs_first), ohwi.clone());
                    ohwi
                }
            };
            Arc::make_mut(c).weights = Weights::Ohwi(ohwi);
        }
        Ok(())
    }
}

/// OIHW, or `[inputs, outputs]` → OHWI; u8 → s8, with its zero point moved by 128 elsewhere.
fn to_ohwi(bytes: &[u8], c: &Convolution, inputs_first: bool, signed: bool) -> Vec<i8> {
    let flip = if signed { 0 } else { 0x80 };
    let taps = c.window.kernel[0] * c.window.kernel[1];
    let [to_output, to_input, to_tap] = if inputs_first {
        [1, c.outputs, 1]
    } else {
        [c.depth * taps, taps, 1]
    };
    if to_input == 1 {
        return bytes.iter().map(|b| (b ^ flip) as i8).collect();
    }
    let mut ohwi = Vec::with_capacity(bytes.len());
    for o in 0..c.outputs {
        for tap in 0..taps {
            let at = o * to_output + tap * to_tap;
            ohwi.extend((0..c.depth).map(|i| (bytes[at + i * to_input] ^ flip) as i8));
        }
    }
    ohwi
}
