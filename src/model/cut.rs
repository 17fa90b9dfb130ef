//! A graph, cut at tensors that come before its outputs: for post-processing that is done in Rust.
//!
//! In: a graph, names of its tensors, or the suppression that is found in it. Out: the same graph with those as its outputs, and without what
//! only led to the old ones. Pure; at load, before anything else looks at the graph. Always holds: a graph that is refused is left as it was; of
//! one that is not, no operator's length depends on what is seen.

use std::collections::{HashMap, HashSet};

use tract_onnx::pb::{AttributeProto, GraphProto, NodeProto, TensorProto, ValueInfoProto};

use super::onnx_file::{self, scalar};
use crate::task::detect::{Limits, MAX_DETECTIONS};

/// Operators of a network: with weights, or between its stages. What follows a suppression otherwise only gathers what it chose.
pub(super) const COMPUTES: [&str; 8] = [
    "Conv",
    "ConvInteger",
    "ConvTranspose",
    "Gemm",
    "MatMul",
    "QLinearConv",
    "QLinearMatMul",
    "RoiAlign",
];

/// Operators that choose: how many, depends on what they read, whose place among their inputs this is.
const CHOOSES: [(&str, usize); 4] = [
    ("Compress", 1),
    ("NonMaxSuppression", 1),
    ("NonZero", 0),
    ("Unique", 0),
];

/// What to do about a suppression that is not read.
pub(super) const EXPORT_WITHOUT: &str =
    "export without it (Ultralytics: nms=False), or name in [detect] outputs what comes before it";

/// A suppression at the end of a graph: what comes out behind it is of no fixed length.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Suppression {
    /// Its name, or its output's if it has none.
    pub node: String,
    /// The tensors with the boxes and the scores.
    pub reads: [String; 2],
    /// What it leaves out; as usual where that is no constant.
    pub limits: Limits,
}

/// The NonMaxSuppression of a graph, if there is one.
///
/// # Errors
/// There are several, the network goes on behind it, or its boxes are in a form that is not read.
fn suppression(graph: &GraphProto) -> Result<Option<Suppression>, String> {
    let mut all = (graph.node.iter()).filter(|n| n.op_type == "NonMaxSuppression");
    let Some(node) = all.next() else {
        return Ok(None);
    };
    let name = name_of(node).to_string();
    let more = all.count();
    if more > 0 {
        return Err(format!(
            "it has {} suppressions (NonMaxSuppression) in the graph, of stages or classes: {EXPORT_WITHOUT}",
            more + 1
        ));
    }
    // In the order of the graph, in which a tensor is read after it is written.
    let mut behind: HashSet<&str> = node.output.iter().map(String::as_str).collect();
    for n in &graph.node {
        if n.input.iter().any(|i| behind.contains(i.as_str())) {
            if COMPUTES.contains(&n.op_type.as_str()) {
                return Err(format!(
                    "the network goes on behind its suppression `{name}` (`{}`, {}), as a detector of two stages does: {EXPORT_WITHOUT}",
                    n.name, n.op_type
                ));
            }
            behind.extend(n.output.iter().map(String::as_str));
        }
    }
    if node
        .attribute
        .iter()
        .any(|a| a.name == "center_point_box" && a.i != 0)
    {
        return Err(format!(
            "the suppression `{name}` reads boxes as centres and sizes (center_point_box = 1), which is not known here: {EXPORT_WITHOUT}"
        ));
    }
    let [boxes, scores, numbers @ ..] = node.input.as_slice() else {
        return Err(format!(
            "the suppression `{name}` reads no boxes and scores"
        ));
    };
    let number = |i: usize| constant(graph, numbers.get(i).filter(|n| !n.is_empty())?);
    let share = |i: usize| number(i).filter(|v| (0.0..=1.0).contains(v));
    let per_class = number(0).filter(|n| *n >= 1.0);
    let per_class = per_class.map(|n| (n as usize).min(MAX_DETECTIONS));
    let usual = Limits::default();
    let limits = Limits {
        iou: share(1).unwrap_or(usual.iou),
        per_class,
        // Of all classes together it says nothing; one alone may have as many as it does.
        max: per_class.map_or(usual.max, |n| n.max(usual.max)),
        // The graph's is for measuring: so low that every picture is full of boxes.
        ..usual
    };
    Ok(Some(Suppression {
        node: name,
        reads: [boxes.clone(), scores.clone()],
        limits,
    }))
}

/// Where a graph was made to end.
#[derive(Debug, Default, PartialEq)]
pub(super) struct End {
    /// The outputs are what this reads.
    pub before: Option<Suppression>,
    /// What is not run, in words, if there is something.
    pub left_out: Option<String>,
}

/// Ends a graph where it is read: at the tensors that the manifest names (with the key that names them), else before its suppression, else
/// where it ends itself.
///
/// # Errors
/// As [`suppression`]; a name is no tensor's that an operator writes; or what comes out is of no fixed length.
pub(super) fn end(graph: &mut GraphProto, (key, named): (&str, &[String])) -> Result<End, String> {
    const NO_LENGTH: &str = "by what is in the picture: what comes out has no fixed length";
    if !named.is_empty() {
        let found = suppression(graph).ok().flatten();
        let rest = leading_to(graph, named).map_err(|unknown| {
            format!("{key}: `{unknown}` is no tensor of the graph that an operator writes; `ocellus model inspect` lists the operators")
        })?;
        if let Some(node) = chooses(graph, |i| rest.nodes.contains(&i)) {
            return Err(format!(
                "{key}: before them {node} chooses {NO_LENGTH}; name what comes before it"
            ));
        }
        let goes_on = rest.nodes.len() < graph.node.len();
        keep(graph, &rest, named);
        return Ok(End {
            before: found.filter(|s| s.reads == named),
            left_out: goes_on.then(|| format!("what does not lead to {key}")),
        });
    }
    let Some(found) = suppression(graph)? else {
        return match chooses(graph, |_| true) {
            Some(node) => Err(format!(
                "{node} chooses {NO_LENGTH}, as behind a suppression; {EXPORT_WITHOUT}"
            )),
            None => Ok(End::default()),
        };
    };
    let name = &found.node;
    let rest = leading_to(graph, &found.reads).map_err(|unknown| {
        format!("the suppression `{name}` reads `{unknown}`, which no operator writes")
    })?;
    if let Some(node) = chooses(graph, |i| rest.nodes.contains(&i)) {
        return Err(format!(
            "before the suppression `{name}` {node} chooses {NO_LENGTH}; {EXPORT_WITHOUT}"
        ));
    }
    keep(graph, &rest, &found.reads);
    Ok(End {
        left_out: Some(format!("the suppression `{name}` and what follows it")),
        before: Some(found),
    })
}

/// The first of some nodes, told by their places, that chooses by what is in the picture: its name and operator.
fn chooses(graph: &GraphProto, among: impl Fn(usize) -> bool) -> Option<String> {
    let mut seen: HashSet<&str> = onnx_file::pictures(graph)
        .map(|i| i.name.as_str())
        .collect();
    // In the order of the graph, in which a tensor is read after it is written.
    for (i, node) in graph.node.iter().enumerate() {
        let op = node.op_type.as_str();
        let choice = CHOOSES.iter().find(|(choice, _)| *choice == op);
        let by = choice.and_then(|(_, by)| node.input.get(*by));
        if by.is_some_and(|by| seen.contains(by.as_str())) && among(i) {
            return Some(format!("`{}` ({op})", name_of(node)));
        }
        // Sizes are the same for every picture.
        if op != "Shape" && op != "Size" && node.input.iter().any(|i| seen.contains(i.as_str())) {
            seen.extend(node.output.iter().map(String::as_str));
        }
    }
    None
}

/// A node's name, or its output's if it has none.
fn name_of(node: &NodeProto) -> &str {
    let mut names = [&node.name].into_iter().chain(&node.output);
    names.find(|n| !n.is_empty()).map_or("", |n| n)
}

/// A number that is the same for every picture, however an exporter writes it down.
fn constant(graph: &GraphProto, tensor: &str) -> Option<f32> {
    let mut tensor = tensor;
    // Exporters put a cast or two before it; the bound is for files with cycles.
    for _ in 0..8 {
        if let Some(found) = graph.initializer.iter().find(|t| t.name == tensor) {
            return one(found);
        }
        let writes = |n: &&NodeProto| n.output.iter().any(|o| o == tensor);
        let node = graph.node.iter().find(writes)?;
        let attribute = |name: &str| node.attribute.iter().find(|a| a.name == name);
        let value = |a: &AttributeProto| one(a.t.as_ref()?);
        match node.op_type.as_str() {
            "Constant" => {
                let number = || attribute("value_float").map(|a| a.f);
                let whole = || attribute("value_int").map(|a| a.i as f32);
                return attribute("value")
                    .and_then(value)
                    .or_else(number)
                    .or_else(whole);
            }
            "ConstantOfShape" => return attribute("value").map_or(Some(0.0), value),
            "Cast" | "Identity" | "Reshape" | "Squeeze" | "Unsqueeze" => {
                tensor = node.input.first()?;
            }
            _ => return None,
        }
    }
    None
}

fn one(t: &TensorProto) -> Option<f32> {
    t.dims.iter().all(|d| *d == 1).then(|| scalar(t))?
}

/// What leads to some tensors: themselves and all that are read on the way, and the nodes by their places.
struct Rest {
    tensors: HashSet<String>,
    nodes: HashSet<usize>,
}

/// # Errors
/// The tensor that no node writes.
fn leading_to<'a>(graph: &GraphProto, tensors: &'a [String]) -> Result<Rest, &'a str> {
    let writers: HashMap<&str, usize> = (graph.node.iter().enumerate())
        .flat_map(|(i, n)| n.output.iter().map(move |o| (o.as_str(), i)))
        .collect();
    if let Some(unknown) = tensors.iter().find(|t| !writers.contains_key(t.as_str())) {
        return Err(unknown);
    }
    let mut rest = Rest {
        tensors: HashSet::new(),
        nodes: HashSet::new(),
    };
    let mut open: Vec<&str> = tensors.iter().map(String::as_str).collect();
    while let Some(tensor) = open.pop() {
        if !rest.tensors.insert(tensor.into()) {
            continue;
        }
        if let Some(&node) = writers.get(tensor)
            && rest.nodes.insert(node)
        {
            open.extend(graph.node[node].input.iter().map(String::as_str));
        }
    }
    Ok(rest)
}

/// Makes `tensors` the graph's outputs, in this order, and drops what does not lead to them.
fn keep(graph: &mut GraphProto, rest: &Rest, tensors: &[String]) {
    let known: Vec<ValueInfoProto> = (graph.value_info.iter())
        .chain(&graph.output)
        .cloned()
        .collect();
    let mut place = 0..;
    graph
        .node
        .retain(|_| place.next().is_some_and(|i| rest.nodes.contains(&i)));
    graph.initializer.retain(|i| rest.tensors.contains(&i.name));
    graph.input.retain(|i| rest.tensors.contains(&i.name));
    let output = |name: &String| {
        let known = known.iter().find(|v| v.name == *name).cloned();
        known.unwrap_or_else(|| ValueInfoProto {
            name: name.clone(),
            ..Default::default()
        })
    };
    graph.output = tensors.iter().map(output).collect();
}

#[cfg(test)]
mod tests {
    use tract_onnx::pb::tensor_proto::DataType;

    use super::*;

    fn node(op: &str, inputs: &[&str], output: &str) -> NodeProto {
        NodeProto {
            op_type: op.into(),
            input: inputs.iter().map(|i| i.to_string()).collect(),
            output: vec![output.into()],
            ..Default::default()
        }
    }

    fn number(name: &str, dims: &[i64], value: f32) -> TensorProto {
        TensorProto {
            name: name.into(),
            dims: dims.to_vec(),
            data_type: DataType::Float as i32,
            float_data: vec![value],
            ..Default::default()
        }
    }

    fn with_value(mut node: NodeProto, value: TensorProto) -> NodeProto {
        node.attribute.push(AttributeProto {
            name: "value".into(),
            t: Some(value),
            ..Default::default()
        });
        node
    }

    /// Boxes and scores of a picture, and a suppression whose numbers are written in as many ways.
    fn graph() -> GraphProto {
        let length = with_value(node("Constant", &[], "length"), number("", &[1], 1.0));
        GraphProto {
            node: vec![
                node("Conv", &["picture"], "boxes"),
                node("Softmax", &["picture"], "scores"),
                length,
                with_value(
                    node("ConstantOfShape", &["length"], "max"),
                    number("", &[1], 200.0),
                ),
                with_value(node("Constant", &[], "iou"), number("", &[], 0.5)),
                node("Unsqueeze", &["iou"], "iou1"),
                node("Cast", &["score"], "score1"),
                node(
                    "NonMaxSuppression",
                    &["boxes", "scores", "max", "iou1", "score1"],
                    "chosen",
                ),
                node("Gather", &["boxes", "chosen"], "found"),
            ],
            initializer: vec![number("score", &[1], 0.05)],
            input: vec![ValueInfoProto {
                name: "picture".into(),
                ..Default::default()
            }],
            ..Default::default()
        }
    }

    #[test]
    fn a_graph_ends_before_its_suppression() {
        let mut whole = graph();
        let end_of = |graph: &mut GraphProto| end(graph, ("", &[]));
        let found = end_of(&mut whole).unwrap();
        let left_out = "the suppression `chosen` and what follows it";
        assert_eq!(found.left_out.as_deref(), Some(left_out));
        let found = found.before.unwrap();
        let Limits {
            threshold,
            iou,
            max,
            per_class,
        } = found.limits;
        assert_eq!((threshold, iou, max), (0.5, 0.5, 200));
        assert_eq!(per_class, Some(200));
        let outputs: Vec<_> = whole.output.iter().map(|o| o.name.as_str()).collect();
        assert_eq!(outputs, ["boxes", "scores"]);
        assert_eq!(whole.node.len(), 2);
        assert_eq!(end_of(&mut whole), Ok(End::default()));
    }

    #[test]
    fn a_graph_ends_at_the_tensors_that_are_named() {
        let key = "[detect] outputs";
        let end_at = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|n| n.to_string()).collect();
            let mut whole = graph();
            let end = end(&mut whole, (key, &names));
            (end, whole)
        };
        // What the suppression reads; one of it alone; behind it.
        let (found, cut) = end_at(&["boxes", "scores"]);
        assert_eq!(found.unwrap().before.unwrap().node, "chosen");
        assert_eq!(cut.node.len(), 2);
        let (found, cut) = end_at(&["scores"]);
        let found = found.unwrap();
        assert_eq!((found.before, cut.node.len()), (None, 1));
        assert!(found.left_out.unwrap().contains(key));
        for (name, says) in [
            ("found", "before them `chosen` (NonMaxSuppression) chooses"),
            ("fuond", "`fuond` is no tensor"),
        ] {
            let (found, whole) = end_at(&[name]);
            let e = found.unwrap_err();
            assert!(e.contains(key) && e.contains(says), "no `{says}` in {e}");
            assert_eq!(whole, graph());
        }
    }

    #[test]
    fn what_chooses_by_the_picture_is_told() {
        let chooses = |change: &dyn Fn(&mut GraphProto)| {
            let mut whole = graph();
            change(&mut whole);
            end(&mut whole, ("", &[])).map_err(|e| {
                assert!(e.contains("nms=False"), "{e}");
                e
            })
        };
        // Boxes that are sure enough, as Ultralytics' exports choose them; without a suppression; ones for what has a size.
        let sure = |g: &mut GraphProto| {
            g.node[0] = node("Conv", &["picture"], "all");
            g.node.insert(1, node("NonZero", &["all"], "sure"));
            let gather = node("GatherND", &["all", "sure"], "boxes");
            g.node.insert(2, gather);
        };
        let e = chooses(&sure).unwrap_err();
        assert!(
            e.starts_with("before the suppression `chosen` `sure` (NonZero) chooses"),
            "{e}"
        );
        let alone = |g: &mut GraphProto| {
            g.node = vec![node("Compress", &["length", "picture"], "found")];
        };
        let e = chooses(&alone).unwrap_err();
        assert!(e.starts_with("`found` (Compress) chooses"), "{e}");
        let by_size = |g: &mut GraphProto| {
            g.node = vec![
                node("Shape", &["picture"], "size"),
                node("ConstantOfShape", &["size"], "ones"),
                node("NonZero", &["ones"], "places"),
                node("Compress", &["picture", "size"], "found"),
            ];
        };
        assert_eq!(chooses(&by_size), Ok(End::default()));
    }

    #[test]
    fn few_of_a_class_are_not_few_of_all() {
        let mut whole = graph();
        if let Some(t) = &mut whole.node[3].attribute[0].t {
            t.float_data = vec![20.0];
        }
        let limits = suppression(&whole).unwrap().unwrap().limits;
        assert_eq!((limits.per_class, limits.max), (Some(20), 100));
    }

    #[test]
    fn numbers_that_depend_on_the_picture_or_cannot_be_are_as_usual() {
        let mut whole = graph();
        whole.node[3] = node("Shape", &["picture"], "max");
        whole.node[6] = node("Cast", &["score1"], "score1");
        if let Some(t) = &mut whole.node[4].attribute[0].t {
            t.float_data = vec![f32::NAN];
        }
        let found = suppression(&whole).unwrap().unwrap();
        assert_eq!(found.limits, Limits::default());
        whole.node[7].input.truncate(2);
        let found = suppression(&whole).unwrap().unwrap();
        assert_eq!(found.limits, Limits::default());
    }

    #[test]
    fn what_cannot_be_cut_off_is_told() {
        let refused = |change: &dyn Fn(&mut GraphProto), says: &str| {
            let mut whole = graph();
            change(&mut whole);
            let e = suppression(&whole).unwrap_err();
            assert!(e.contains(says), "no `{says}` in {e}");
            assert_eq!(end(&mut whole, ("", &[])), Err(e));
        };
        let again = |g: &mut GraphProto| g.node.push(g.node[7].clone());
        refused(&again, "it has 2 suppressions");
        let goes_on = |g: &mut GraphProto| g.node.push(node("Conv", &["found"], "more"));
        refused(
            &goes_on,
            "the network goes on behind its suppression `chosen`",
        );
        let centres = |g: &mut GraphProto| {
            g.node[7].attribute.push(AttributeProto {
                name: "center_point_box".into(),
                i: 1,
                ..Default::default()
            });
        };
        refused(&centres, "centres and sizes");
        refused(&|g| g.node[7].input.truncate(1), "no boxes and scores");
    }
}
