//! Copies with strides: transposition, slices, padding, concatenation, broadcasting, between layouts.
//!
//! In and out: buffers of whole tensors, of the sizes that the strides were made from.

/// A tile of a transposition: elements that are read side by side, and that are written side by side.
const A_TILE: usize = 64;
const B_TILE: usize = 16;

/// A copy of `sizes` elements, read and written with their own strides.
#[derive(Clone, Debug)]
pub(crate) struct StridedCopy {
    sizes: Vec<usize>,
    from: Vec<usize>,
    to: Vec<usize>,
    from_offset: usize,
    to_offset: usize,
}

impl StridedCopy {
    /// `from` and `to` are the strides of the axes of `sizes`, in elements.
    pub(crate) fn new(sizes: &[usize], from: &[usize], to: &[usize], offsets: [usize; 2]) -> Self {
        // Axes that follow each other in both are one axis.
        let mut merged: Vec<[usize; 3]> = Vec::new();
        for ((&size, &f), &t) in sizes
            .iter()
            .zip(from)
            .zip(to)
            .filter(|((s, _), _)| **s != 1)
        {
            match merged.last_mut() {
                Some([s, lf, lt]) if *lf == f * size && *lt == t * size => {
                    (*s, *lf, *lt) = (*s * size, f, t);
                }
                _ => merged.push([size, f, t]),
            }
        }
        if merged.is_empty() {
            merged.push([1, 1, 1]);
        }
        let column = |i: usize| merged.iter().map(|m| m[i]).collect();
        Self {
            sizes: column(0),
            from: column(1),
            to: column(2),
            from_offset: offsets[0],
            to_offset: offsets[1],
        }
    }

    pub(crate) fn run<A: Copy, B: Copy + Default>(
        &self,
        from: &[A],
        to: &mut [B],
        convert: impl Fn(A) -> B + Copy,
    ) {
        self.axis(0, from, self.from_offset, to, self.to_offset, convert);
    }

    fn axis<A: Copy, B: Copy + Default>(
        &self,
        axis: usize,
        from: &[A],
        mut f: usize,
        to: &mut [B],
        mut t: usize,
        convert: impl Fn(A) -> B + Copy,
    ) {
        let (size, from_stride, to_stride) = (self.sizes[axis], self.from[axis], self.to[axis]);
        if axis + 2 == self.sizes.len() && (from_stride == 1 || to_stride == 1) {
            let other = (self.sizes[axis + 1], self.from[axis + 1], self.to[axis + 1]);
            if from_stride == 1 && other.2 == 1 {
                return transpose(
                    &from[f..],
                    [size, to_stride],
                    &mut to[t..],
                    [other.0, other.1],
                    convert,
                );
            }
            if to_stride == 1 && other.1 == 1 {
                return transpose(
                    &from[f..],
                    [other.0, other.2],
                    &mut to[t..],
                    [size, from_stride],
                    convert,
                );
            }
        }
        if axis + 1 < self.sizes.len() {
            for _ in 0..size {
                self.axis(axis + 1, from, f, to, t, convert);
                f += from_stride;
                t += to_stride;
            }
        } else if from_stride == 1 && to_stride == 1 {
            to[t..t + size]
                .iter_mut()
                .zip(&from[f..f + size])
                .for_each(|(to, from)| *to = convert(*from));
        } else {
            for i in 0..size {
                to[t + i * to_stride] = convert(from[f + i * from_stride]);
            }
        }
    }
}

/// Copies a matrix whose elements are neighbours along `a` where they are read and along `b` where they are written; each axis
/// as its size and its stride on the other side. In tiles that stay in the cache, each converted as it is read, in vectors.
fn transpose<A: Copy, B: Copy + Default>(
    from: &[A],
    [a_size, a_stride]: [usize; 2],
    to: &mut [B],
    [b_size, b_stride]: [usize; 2],
    convert: impl Fn(A) -> B,
) {
    let mut tile = [[B::default(); A_TILE]; B_TILE];
    for b in (0..b_size).step_by(B_TILE) {
        let bs = B_TILE.min(b_size - b);
        for a in (0..a_size).step_by(A_TILE) {
            let length = A_TILE.min(a_size - a);
            for (i, tile) in tile[..bs].iter_mut().enumerate() {
                let from = &from[(b + i) * b_stride + a..][..length];
                for (to, from) in tile.iter_mut().zip(from) {
                    *to = convert(*from);
                }
            }
            for i in 0..length {
                let to = &mut to[(a + i) * a_stride + b..][..bs];
                for (to, tile) in to.iter_mut().zip(&tile) {
                    *to = tile[i];
                }
            }
        }
    }
}

/// Row-major strides.
pub(crate) fn strides(sizes: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; sizes.len()];
    for i in (1..sizes.len()).rev() {
        strides[i - 1] = strides[i] * sizes[i];
    }
    strides
}
