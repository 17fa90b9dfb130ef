//! Fusion: fewer passes over memory, the same bytes.
//!
//! In: a region and its nodes' shapes. Out: the region with the work of some nodes done by others; nodes that nothing
//! reads any more stay, and are skipped by [`crate::plan`]. Two rules: a table that only limits becomes the limits of
//! the operator before it (Relu after a quantized sum), and a residual addition becomes part of the convolution before.

use std::sync::Arc;

use crate::graph::{Convolution, Limits, Node, Op, Region, Residual, TensorId};

pub(crate) fn fuse(region: &mut Region, shapes: &[Vec<usize>]) {
    for tensor in 0..region.nodes.len() {
        limits_of_table(region, tensor);
        residual_addition(region, tensor, shapes);
    }
}

/// How often a tensor is read; outputs count too.
pub(crate) fn readers(region: &Region, tensor: TensorId) -> usize {
    let nodes = region
        .nodes
        .iter()
        .flat_map(|n| &n.inputs)
        .filter(|i| **i == tensor)
        .count();
    nodes + region.sinks.iter().filter(|s| s.tensor == tensor).count()
}

/// What a table limits to, if that is all it does.
fn limits(table: &[u8; 256]) -> Option<Limits> {
    let limits = (table[0], table[255]);
    let clamps = |(i, b): (usize, &u8)| *b == (i as u8).max(limits.0).min(limits.1);
    (limits.0 <= limits.1 && table.iter().enumerate().all(clamps)).then_some(limits)
}

fn limits_of_table(region: &mut Region, tensor: TensorId) {
    let Node {
        op: Op::Table(table),
        inputs,
        element,
        ..
    } = &region.nodes[tensor]
    else {
        return;
    };
    let (before, element) = (inputs[0], *element);
    let Some((min, max)) = limits(table) else {
        return;
    };
    if region.nodes[before].element != element || readers(region, before) != 1 {
        return;
    }
    let within = |(a, b): Limits| (a.clamp(min, max), b.clamp(min, max));
    let mut node = region.nodes[before].clone();
    match &mut node.op {
        Op::Add(l)
        | Op::Mul(l)
        | Op::FloatDepthwise(_, l)
        | Op::ResizeLinear { limits: l, .. }
        | Op::TableSum { limits: l, .. } => *l = within(*l),
        Op::Convolution(c) | Op::FullyConnected(c) => {
            let c = Arc::make_mut(c);
            match &mut c.residual {
                Some(residual) => residual.limits = within(residual.limits),
                None => c.limits = within(c.limits),
            }
        }
        _ => return,
    }
    node.at = region.nodes[tensor].at;
    region.nodes[tensor] = node;
    region.nodes[before].inputs.clear();
}

fn residual_addition(region: &mut Region, tensor: TensorId, shapes: &[Vec<usize>]) {
    let Node {
        op: Op::Add(limits),
        inputs,
        ..
    } = &region.nodes[tensor]
    else {
        return;
    };
    let (limits, operands) = (*limits, [inputs[0], inputs[1]]);
    let fusable = |i: &usize| {
        let [conv, other] = [operands[*i], operands[1 - *i]];
        let plain = match &region.nodes[conv].op {
            Op::Convolution(c) => c.residual.is_none(),
            _ => false,
        };
        plain && readers(region, conv) == 1 && shapes[conv] == shapes[other] && conv != other
    };
    // The later one: the other operand is there by then.
    let Some(i) = (0..2).filter(fusable).max_by_key(|i| operands[*i]) else {
        return;
    };
    let [conv, other] = [operands[i], operands[1 - i]];
    let Node {
        op: Op::Convolution(c),
        inputs,
        name,
        ..
    } = &region.nodes[conv]
    else {
        return;
    };
    let Some(own) = region.nodes[conv].quant() else {
        return;
    };
    let residual = Some(Residual {
        conv: own,
        conv_first: i == 0,
        limits,
    });
    let c = Arc::new(Convolution {
        residual,
        ..(**c).clone()
    });
    let (op, inputs, name) = (Op::Convolution(c), vec![inputs[0], other], name.clone());
    let node = &region.nodes[tensor];
    region.nodes[tensor] = Node {
        name,
        op,
        inputs,
        element: node.element,
        at: node.at,
    };
    region.nodes[conv].inputs.clear();
}
