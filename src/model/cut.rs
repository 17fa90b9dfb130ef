//! A graph, cut at tensors that come before its outputs: for post-processing that is done in Rust.
//!
//! In: a graph, names of its tensors. Out: the same graph with those as its outputs, and without what only led to the old ones.
//! Pure; at load, before anything else looks at the graph.

use std::collections::{HashMap, HashSet};

use tract_onnx::pb::{GraphProto, ValueInfoProto};

/// Makes `tensors` the graph's outputs, in this order. `key` names them in the manifest.
///
/// # Errors
/// A tensor that no node writes.
pub(super) fn at(graph: &mut GraphProto, key: &str, tensors: &[String]) -> Result<(), String> {
    let writers: HashMap<&str, usize> = (graph.node.iter().enumerate())
        .flat_map(|(i, n)| n.output.iter().map(move |o| (o.as_str(), i)))
        .collect();
    if let Some(unknown) = tensors.iter().find(|t| !writers.contains_key(t.as_str())) {
        return Err(format!(
            "{key}: `{unknown}` is no tensor of the graph that an operator writes; `ocellus model inspect` lists the operators"
        ));
    }
    let mut needed: HashSet<String> = HashSet::new();
    let mut nodes: HashSet<usize> = HashSet::new();
    let mut open: Vec<&str> = tensors.iter().map(String::as_str).collect();
    while let Some(tensor) = open.pop() {
        if !needed.insert(tensor.into()) {
            continue;
        }
        if let Some(&node) = writers.get(tensor)
            && nodes.insert(node)
        {
            open.extend(graph.node[node].input.iter().map(String::as_str));
        }
    }
    let known: Vec<ValueInfoProto> = (graph.value_info.iter())
        .chain(&graph.output)
        .cloned()
        .collect();
    let mut place = 0..;
    graph
        .node
        .retain(|_| place.next().is_some_and(|i| nodes.contains(&i)));
    graph.initializer.retain(|i| needed.contains(&i.name));
    graph.input.retain(|i| needed.contains(&i.name));
    let output = |name: &String| {
        let known = known.iter().find(|v| v.name == *name).cloned();
        known.unwrap_or_else(|| ValueInfoProto {
            name: name.clone(),
            ..Default::default()
        })
    };
    graph.output = tensors.iter().map(output).collect();
    Ok(())
}
