//! Shapes of the integer graph, by ONNX's rules.
//!
//! In: a node and its inputs' shapes. Out: its output's shape, or what does not fit. Always holds: no shape has more
//! than [`MAX_ELEMENTS`].

use ocellus_int8_kernels::Neighbours;

use crate::graph::{Coordinates, Move, Op, Padding, Resize, ResizeTarget, Rounding, Window};

/// The largest tensor: 256 Mi elements.
const MAX_ELEMENTS: usize = 256 << 20;

type Shape = Vec<usize>;

/// The output's shape.
pub(crate) fn infer(op: &Op, inputs: &[&[usize]]) -> Result<Shape, String> {
    let shape = unchecked(op, inputs)?;
    let elements = shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d));
    match elements {
        Some(0) => Err(format!("the shape {shape:?} is empty")),
        Some(n) if n <= MAX_ELEMENTS => Ok(shape),
        _ => Err(format!("the shape {shape:?} is too large")),
    }
}

fn unchecked(op: &Op, inputs: &[&[usize]]) -> Result<Shape, String> {
    let x = *inputs.first().ok_or("it has no input")?;
    match op {
        Op::Source(_) => Ok(x.to_vec()),
        Op::Convolution(c) => {
            let shape = convolution(&c.window, [c.depth * c.groups, c.outputs], x)?;
            match inputs.get(1) {
                Some(residual) if **residual != shape => {
                    Err(format!("{shape:?} and {residual:?} cannot be added"))
                }
                _ => Ok(shape),
            }
        }
        Op::FloatDepthwise(c, _) => convolution(&c.window, [c.channels; 2], x),
        Op::ResizeLinear { resize, .. } => resized(resize, x),
        Op::FullyConnected(c) => match x.split_last() {
            Some((inputs, rows)) if *inputs == c.depth && !rows.is_empty() => {
                Ok([rows, &[c.outputs]].concat())
            }
            _ => Err(format!(
                "its weights take {} inputs, but its input is {x:?}",
                c.depth
            )),
        },
        Op::Add(_) | Op::Mul(_) | Op::TableSum { .. } => {
            broadcast(x, inputs.get(1).ok_or("it has one input")?)
        }
        Op::MaxPool(window) | Op::AveragePool { window, .. } => {
            let [n, c, h, w] = picture(x)?;
            let [h, w] = output_size(window, [h, w])?;
            Ok(vec![n, c, h, w])
        }
        Op::GlobalAverage { keep_dims } => {
            let [n, c, _, _] = picture(x)?;
            Ok(if *keep_dims {
                vec![n, c, 1, 1]
            } else {
                vec![n, c]
            })
        }
        Op::Table(_) => Ok(x.to_vec()),
        Op::Concat { axis } => concat(inputs, *axis),
        Op::Move(how) => moved(how, x),
    }
}

pub(crate) fn picture(shape: &[usize]) -> Result<[usize; 4], String> {
    shape
        .try_into()
        .map_err(|_| format!("its input {shape:?} is not [batch, channels, height, width]"))
}

fn convolution(
    window: &Window,
    [inputs, outputs]: [usize; 2],
    x: &[usize],
) -> Result<Shape, String> {
    let [n, channels, h, w] = picture(x)?;
    if channels != inputs {
        return Err(format!(
            "its weights take {inputs} channels, but its input is {x:?}"
        ));
    }
    let [h, w] = output_size(window, [h, w])?;
    Ok(vec![n, outputs, h, w])
}

/// Top, left, bottom, right.
pub(crate) fn pads(window: &Window, size: [usize; 2]) -> [usize; 4] {
    let same = |upper: bool| {
        let mut pads = [0; 4];
        for axis in 0..2 {
            let out = size[axis].div_ceil(window.stride[axis]);
            let span = (out - 1) * window.stride[axis] + extent(window, axis);
            let total = span.saturating_sub(size[axis]);
            let small = total / 2;
            let before = if upper { small } else { total - small };
            (pads[axis], pads[axis + 2]) = (before, total - before);
        }
        pads
    };
    match window.padding {
        Padding::Explicit(pads) => pads,
        Padding::SameUpper => same(true),
        Padding::SameLower => same(false),
    }
}

fn extent(window: &Window, axis: usize) -> usize {
    (window.kernel[axis] - 1)
        .saturating_mul(window.dilation[axis])
        .saturating_add(1)
}

fn output_size(window: &Window, size: [usize; 2]) -> Result<[usize; 2], String> {
    const LIMIT: usize = 1 << 20;
    let all = [window.kernel, window.stride, window.dilation, size].concat();
    if all.iter().any(|s| *s > LIMIT) {
        return Err(format!("the window {window:?} over {size:?} is too large"));
    }
    let pads = pads(window, size);
    let mut out = [0; 2];
    for axis in 0..2 {
        let padded = size[axis]
            .saturating_add(pads[axis])
            .saturating_add(pads[axis + 2]);
        let span = extent(window, axis);
        if span > padded || pads.iter().any(|p| *p > LIMIT) {
            return Err(format!(
                "the window {window:?} does not fit a picture of {size:?}"
            ));
        }
        let steps = padded - span;
        let stride = window.stride[axis];
        out[axis] = steps / stride + 1;
        // A window that would begin beyond the picture and its left padding is not counted.
        if window.ceil
            && !steps.is_multiple_of(stride)
            && out[axis] * stride < size[axis] + pads[axis]
        {
            out[axis] += 1;
        }
    }
    Ok(out)
}

pub(crate) fn broadcast(a: &[usize], b: &[usize]) -> Result<Shape, String> {
    let rank = a.len().max(b.len());
    let at = |s: &[usize], i: usize| (i + s.len()).checked_sub(rank).map_or(1, |i| s[i]);
    (0..rank)
        .map(|i| match (at(a, i), at(b, i)) {
            (p, q) if p == q || q == 1 => Ok(p),
            (1, q) => Ok(q),
            _ => Err(format!("the shapes {a:?} and {b:?} do not fit")),
        })
        .collect()
}

/// An axis that may count from the end.
pub(crate) fn axis(axis: i64, rank: usize) -> Result<usize, String> {
    let at = if axis < 0 { axis + rank as i64 } else { axis };
    usize::try_from(at)
        .ok()
        .filter(|a| *a < rank)
        .ok_or_else(|| format!("axis {axis} is none of {rank}"))
}

fn concat(inputs: &[&[usize]], at: i64) -> Result<Shape, String> {
    let mut shape = inputs[0].to_vec();
    let at = axis(at, shape.len())?;
    for other in &inputs[1..] {
        let same =
            other.len() == shape.len() && (0..shape.len()).all(|i| i == at || other[i] == shape[i]);
        if !same {
            return Err(format!(
                "{:?} and {other:?} cannot be joined along axis {at}",
                inputs[0]
            ));
        }
        shape[at] = shape[at].saturating_add(other[at]);
    }
    Ok(shape)
}

fn moved(how: &Move, x: &[usize]) -> Result<Shape, String> {
    let rank = x.len();
    match how {
        Move::Reinterpret => Ok(x.to_vec()),
        Move::Transpose(perm) => {
            let mut sorted = perm.clone();
            sorted.sort_unstable();
            if !sorted.into_iter().eq(0..rank) {
                return Err(format!("{perm:?} is no permutation of the axes of {x:?}"));
            }
            Ok(perm.iter().map(|i| x[*i]).collect())
        }
        Move::Reshape { shape, allow_zero } => reshape(x, shape, *allow_zero),
        Move::Flatten { axis: at } => {
            let at = if *at == rank as i64 {
                rank
            } else {
                axis(*at, rank)?
            };
            Ok(vec![x[..at].iter().product(), x[at..].iter().product()])
        }
        Move::Squeeze(None) => Ok(x.iter().copied().filter(|d| *d != 1).collect()),
        Move::Squeeze(Some(axes)) => {
            let axes = axes
                .iter()
                .map(|a| axis(*a, rank))
                .collect::<Result<Vec<_>, _>>()?;
            match axes.iter().find(|a| x[**a] != 1) {
                Some(a) => Err(format!("axis {a} of {x:?} cannot be squeezed")),
                None => Ok((0..rank)
                    .filter(|i| !axes.contains(i))
                    .map(|i| x[i])
                    .collect()),
            }
        }
        Move::Unsqueeze(axes) => {
            let rank = rank + axes.len();
            let axes = axes
                .iter()
                .map(|a| axis(*a, rank))
                .collect::<Result<Vec<_>, _>>()?;
            let mut old = x.iter();
            let new = (0..rank).map(|i| {
                if axes.contains(&i) {
                    Some(1)
                } else {
                    old.next().copied()
                }
            });
            new.collect::<Option<_>>()
                .ok_or_else(|| format!("the axes {axes:?} do not fit {x:?}"))
        }
        Move::Slice(cuts) => {
            let mut shape = x.to_vec();
            for (at, range, step) in slices(cuts, x)? {
                shape[at] = range.len().div_ceil(step);
            }
            Ok(shape)
        }
        Move::Pad { pads, .. } => {
            if pads.len() != 2 * rank {
                return Err(format!("the pads {pads:?} do not fit {x:?}"));
            }
            Ok((0..rank)
                .map(|i| {
                    x[i].saturating_add(pads[i] as usize)
                        .saturating_add(pads[i + rank] as usize)
                })
                .collect())
        }
        Move::ResizeNearest(resize, _) => resized(resize, x),
        Move::SpaceToDepth(block) => {
            let [n, c, h, w] = picture(x)?;
            if h % block != 0 || w % block != 0 {
                return Err(format!("blocks of {block} do not divide {x:?}"));
            }
            Ok(vec![n, c * block * block, h / block, w / block])
        }
        Move::Select { axis: along, at } => {
            let mut shape = x.to_vec();
            let (axis, positions) = selected(*along, at, x)?;
            shape[axis] = positions.len();
            Ok(shape)
        }
    }
}

fn reshape(x: &[usize], target: &[i64], allow_zero: bool) -> Result<Shape, String> {
    let wrong = || format!("{x:?} cannot be reshaped to {target:?}");
    let total: usize = x.iter().product();
    let mut shape = Vec::with_capacity(target.len());
    let mut rest = None;
    for (i, size) in target.iter().enumerate() {
        match size {
            0 if !allow_zero => shape.push(*x.get(i).ok_or_else(wrong)?),
            -1 if rest.is_none() => {
                rest = Some(i);
                shape.push(1);
            }
            size => shape.push(usize::try_from(*size).map_err(|_| wrong())?),
        }
    }
    let known = shape
        .iter()
        .try_fold(1usize, |n, d| n.checked_mul(*d))
        .filter(|n| *n > 0)
        .ok_or_else(wrong)?;
    match rest {
        Some(i) if total.is_multiple_of(known) => shape[i] = total / known,
        None if total == known => {}
        _ => return Err(wrong()),
    }
    Ok(shape)
}

/// For each cut: axis, range, step.
pub(crate) fn slices(
    cuts: &[[i64; 4]],
    x: &[usize],
) -> Result<Vec<(usize, std::ops::Range<usize>, usize)>, String> {
    let cut = |[start, end, at, step]: &[i64; 4]| {
        let at = axis(*at, x.len())?;
        let size = x[at] as i64;
        let place =
            |v: i64| (if v < 0 { v.saturating_add(size) } else { v }).clamp(0, size) as usize;
        let range = place(*start)..place(*end).max(place(*start));
        Ok((at, range, (*step).min(size.max(1)) as usize))
    };
    cuts.iter().map(cut).collect()
}

/// The axis, and the positions along it.
pub(crate) fn selected(along: i64, at: &[i64], x: &[usize]) -> Result<(usize, Vec<usize>), String> {
    let along = axis(along, x.len())?;
    let place = |at: &i64| {
        let place = if *at < 0 { at + x[along] as i64 } else { *at };
        usize::try_from(place)
            .ok()
            .filter(|p| *p < x[along])
            .ok_or_else(|| format!("position {at} is not on axis {along} of {x:?}"))
    };
    Ok((along, at.iter().map(place).collect::<Result<_, _>>()?))
}

fn resized(resize: &Resize, x: &[usize]) -> Result<Shape, String> {
    match &resize.target {
        ResizeTarget::Sizes(sizes) if sizes.len() == x.len() => Ok(sizes.clone()),
        ResizeTarget::Scales(scales)
            if scales.len() == x.len() && scales.iter().all(|s| s.is_finite() && *s > 0.0) =>
        {
            Ok(x.iter()
                .zip(scales)
                .map(|(d, s)| (*d as f64 * f64::from(*s)).floor() as usize)
                .collect())
        }
        target => Err(format!("{target:?} does not fit {x:?}")),
    }
}

/// For each output position along an axis, where it lies on the input.
fn positions(resize: &Resize, at: usize, input: usize, output: usize) -> impl Iterator<Item = f32> {
    let scale = match &resize.target {
        ResizeTarget::Scales(scales) => scales[at],
        ResizeTarget::Sizes(_) => output as f32 / input as f32,
    };
    let coordinates = resize.coordinates;
    (0..output).map(move |i| {
        let i = i as f32;
        match coordinates {
            Coordinates::Asymmetric => i / scale,
            Coordinates::HalfPixel => (i + 0.5) / scale - 0.5,
            Coordinates::PytorchHalfPixel if output > 1 => (i + 0.5) / scale - 0.5,
            Coordinates::PytorchHalfPixel => 0.0,
            Coordinates::AlignCorners if output > 1 => i * (input - 1) as f32 / (output - 1) as f32,
            Coordinates::AlignCorners => 0.0,
        }
    })
}

/// For each output position along an axis, the input position.
pub(crate) fn nearest(
    (resize, rounding): (&Resize, Rounding),
    at: usize,
    input: usize,
    output: usize,
) -> Vec<usize> {
    let place = |x: f32| {
        let nearest = match rounding {
            Rounding::Floor => x.floor(),
            Rounding::Ceil => x.ceil(),
            Rounding::PreferFloor => (x - 0.5).ceil(),
            Rounding::PreferCeil => (x + 0.5).floor(),
        };
        (nearest.max(0.0) as usize).min(input - 1)
    };
    positions(resize, at, input, output).map(place).collect()
}

/// For each output position along an axis, the input positions around it. At the last one both are the same, and each
/// has half the weight.
pub(crate) fn neighbours(
    resize: &Resize,
    at: usize,
    input: usize,
    output: usize,
) -> Vec<Neighbours> {
    let around = |x: f32| {
        let x = x.max(0.0).min((input - 1) as f32);
        let before = (x as usize).min(input - 1);
        let after = (before + 1).min(input - 1);
        let weight = if before == after {
            [0.5; 2]
        } else {
            [after as f32 - x, x - before as f32]
        };
        Neighbours {
            at: [before, after],
            weight,
        }
    };
    positions(resize, at, input, output).map(around).collect()
}
