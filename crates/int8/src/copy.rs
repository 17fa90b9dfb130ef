//! Copies with strides: transposition, slices, padding, concatenation, broadcasting, between layouts.
//!
//! In and out: buffers of whole tensors, of the sizes that the strides were made from.

/// Elements that are converted at a time.
const PIECE: usize = 256;

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
        // The order of the axes changes nothing but the time: a long last axis is fast. Those of 1 in both strides come last anyway.
        if merged.last().is_some_and(|&[_, f, t]| (f, t) != (1, 1)) {
            let longest = (0..merged.len())
                .filter(|&i| merged[i][1] == 1 || merged[i][2] == 1)
                .max_by_key(|&i| merged[i][0]);
            if let Some(longest) = longest {
                let axis = merged.remove(longest);
                merged.push(axis);
            }
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
        } else if from_stride == 1 {
            // Converted a piece at a time, which the compiler does in vectors, and then dealt out.
            let mut piece = [B::default(); PIECE];
            for from in from[f..f + size].chunks(PIECE) {
                for (piece, from) in piece.iter_mut().zip(from) {
                    *piece = convert(*from);
                }
                let places = to[t..].iter_mut().step_by(to_stride);
                for (to, piece) in places.zip(&piece[..from.len()]) {
                    *to = *piece;
                }
                t += from.len() * to_stride;
            }
        } else {
            for i in 0..size {
                to[t + i * to_stride] = convert(from[f + i * from_stride]);
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
