//! How tensors lie in their buffers, and the copies between one way and another.

use crate::copy::{StridedCopy, strides};

/// How a tensor lies in its buffer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Layout {
    /// Row-major, as ONNX has it.
    Plain,
    /// A picture, NHWC.
    ChannelsLast,
}

/// Whether both layouts give the same bytes.
pub(super) fn same_bytes(shape: &[usize]) -> bool {
    match shape {
        [_, c, h, w] => *c == 1 || h * w == 1,
        _ => true,
    }
}

/// The axes in the order in which they lie, the outermost first.
pub(super) fn storage_order(rank: usize, layout: Layout) -> Vec<usize> {
    match (rank, layout) {
        (4, Layout::ChannelsLast) => vec![0, 2, 3, 1],
        _ => (0..rank).collect(),
    }
}

/// For each axis as ONNX counts them, its stride.
pub(super) fn logical_strides(shape: &[usize], layout: Layout) -> Vec<usize> {
    let order = storage_order(shape.len(), layout);
    let stored: Vec<usize> = order.iter().map(|i| shape[*i]).collect();
    let mut logical = vec![0; shape.len()];
    for (axis, stride) in order.into_iter().zip(strides(&stored)) {
        logical[axis] = stride;
    }
    logical
}

/// A copy whose axes are gone through in the order of the output's layout.
pub(super) fn ordered(
    shape: &[usize],
    from: &[usize],
    to: &[usize],
    layout: Layout,
    offsets: [usize; 2],
) -> StridedCopy {
    let order = storage_order(shape.len(), layout);
    let pick = |list: &[usize]| -> Vec<usize> { order.iter().map(|i| list[*i]).collect() };
    StridedCopy::new(&pick(shape), &pick(from), &pick(to), offsets)
}

/// A copy that fills a whole output of this layout.
pub(super) fn in_order(
    shape: &[usize],
    from: &[usize],
    layout: Layout,
    offsets: [usize; 2],
) -> StridedCopy {
    ordered(
        shape,
        from,
        &logical_strides(shape, layout),
        layout,
        offsets,
    )
}

pub(super) fn relayout(shape: &[usize], from: Layout, to: Layout) -> StridedCopy {
    in_order(shape, &logical_strides(shape, from), to, [0, 0])
}
