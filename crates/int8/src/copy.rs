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

    /// This copy of what `first` writes, as one copy of what `first` reads. `None` where it cannot be said with strides, or
    /// `first` leaves gaps.
    pub(crate) fn after(&self, first: &Self) -> Option<Self> {
        // What `first` writes, as digits: the place of an element is the sum of digit · `to`, and it comes from digit · `from`.
        let mut digits: Vec<Digit> = (0..first.sizes.len())
            .map(|axis| Digit {
                size: first.sizes[axis],
                from: first.from[axis],
                to: first.to[axis],
                most: 0,
            })
            .collect();
        digits.sort_by_key(|d| std::cmp::Reverse(d.to));
        let sizes: Vec<usize> = digits.iter().map(|d| d.size).collect();
        if first.to_offset != 0 || !digits.iter().map(|d| d.to).eq(strides(&sizes)) {
            return None;
        }
        let (mut from_offset, mut rest) = (first.from_offset, self.from_offset);
        for digit in &mut digits {
            digit.most = rest / digit.to;
            rest %= digit.to;
            from_offset += digit.most * digit.from;
        }
        let (mut sizes, mut from, mut to) = (Vec::new(), Vec::new(), Vec::new());
        for axis in 0..self.sizes.len() {
            // From the inside out, for one axis may run through several digits.
            let (mut parts, mut size) = (Vec::new(), self.sizes[axis]);
            let (mut stride, mut out) = (self.from[axis], self.to[axis]);
            while size > 1 {
                let digit = digits.iter_mut().rev();
                let mut held = digit.filter(|d| stride % d.to == 0 && stride < d.to * d.size);
                let digit = held.next()?;
                let step = stride / digit.to;
                let here = if digit.most + (size - 1) * step < digit.size {
                    size
                } else if step == 1 && digit.most == 0 && size % digit.size == 0 {
                    digit.size
                } else {
                    return None;
                };
                digit.most += (here - 1) * step;
                parts.push([here, step * digit.from, out]);
                (size, stride, out) = (size / here, digit.to * digit.size, out * here);
            }
            for [size, f, t] in parts.into_iter().rev() {
                sizes.push(size);
                from.push(f);
                to.push(t);
            }
        }
        let offsets = [from_offset, self.to_offset];
        Some(Self::new(&sizes, &from, &to, offsets))
    }

    /// Whether it moves runs of neighbours, not single elements.
    pub(crate) fn has_runs(&self) -> bool {
        (self.from.last(), self.to.last()) == (Some(&1), Some(&1))
    }

    /// Copies bytes as they are. Short runs, such as a pixel, are moved without a call.
    pub(crate) fn run_bytes(&self, from: &[u8], to: &mut [u8]) {
        let run = self.sizes.last().filter(|_| self.has_runs());
        match run.copied().unwrap_or(0) {
            3 => self.runs::<3>(from, to),
            6 => self.runs::<6>(from, to),
            8 => self.runs::<8>(from, to),
            12 => self.runs::<12>(from, to),
            16 => self.runs::<16>(from, to),
            24 => self.runs::<24>(from, to),
            32 => self.runs::<32>(from, to),
            64 => self.runs::<64>(from, to),
            _ => self.run(from, to, |byte| byte),
        }
    }

    fn runs<const LENGTH: usize>(&self, from: &[u8], to: &mut [u8]) {
        self.each_run(0, self.from_offset, self.to_offset, &mut |f, t| {
            to[t..t + LENGTH].copy_from_slice(&from[f..f + LENGTH]);
        });
    }

    fn each_run(&self, axis: usize, f: usize, t: usize, run: &mut impl FnMut(usize, usize)) {
        let left = self.sizes.len() - axis;
        if left == 1 {
            return run(f, t);
        }
        let (from, to) = (self.from[axis], self.to[axis]);
        for i in 0..self.sizes[axis] {
            let (f, t) = (f + i * from, t + i * to);
            if left == 2 {
                run(f, t);
            } else {
                self.each_run(axis + 1, f, t, run);
            }
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

/// An axis of what a copy writes, and what another copy takes of it.
struct Digit {
    size: usize,
    from: usize,
    to: usize,
    /// The greatest that is read so far.
    most: usize,
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What a copy writes over zeros.
    fn written(copy: &StridedCopy, from: &[u8], length: usize) -> Vec<u8> {
        let mut to = vec![0; length];
        copy.run_bytes(from, &mut to);
        let mut same = vec![0; length];
        copy.run(from, &mut same, |byte| byte);
        assert_eq!(to, same);
        to
    }

    #[test]
    fn two_copies_are_one() {
        let bytes: Vec<u8> = (0..8 * 6 * 3).collect();
        let dense = |sizes: &[usize], from: &[usize]| {
            StridedCopy::new(sizes, from, &strides(sizes), [0, 0])
        };
        // Blocks of 2 × 2 of a picture of 8 × 6 pixels become channels: 4 × 3 pixels of 12.
        let blocks = dense(&[4, 3, 2, 2, 3], &[36, 6, 18, 3, 1]);
        let transposed = dense(&[6, 8, 3], &[3, 18, 1]);
        let middle = |copy: &StridedCopy| written(copy, &bytes, bytes.len());
        for (first, second, expected) in [
            // Channels 6 to 8 of each: the block's lower left pixel.
            (
                &blocks,
                StridedCopy::new(&[12, 3], &[12, 1], &[3, 1], [6, 0]),
                true,
            ),
            (
                &blocks,
                StridedCopy::new(&[12, 3], &[12, 1], &[12, 1], [9, 3]),
                true,
            ),
            (&blocks, dense(&[12, 12], &[1, 12]), true),
            // Every other row of blocks.
            (&blocks, dense(&[2, 36], &[72, 1]), true),
            // Channels 5 to 7 are of two rows.
            (
                &blocks,
                StridedCopy::new(&[12, 3], &[12, 1], &[3, 1], [5, 0]),
                false,
            ),
            (&transposed, dense(&[8, 6, 3], &[3, 24, 1]), true),
            (&transposed, dense(&[48, 3], &[3, 1]), true),
            (
                &transposed,
                StridedCopy::new(&[3, 5, 3], &[24, 3, 1], &[15, 3, 1], [27, 0]),
                true,
            ),
            // From the middle of one row into the next.
            (
                &transposed,
                StridedCopy::new(&[10, 3], &[3, 1], &[3, 1], [3, 0]),
                false,
            ),
            // A repetition.
            (&transposed, dense(&[4, 48, 3], &[0, 3, 1]), true),
        ] {
            let both = second.after(first);
            assert_eq!(both.is_some(), expected, "{second:?}");
            if let Some(both) = both {
                let length = 4 * bytes.len();
                let twice = written(&second, &middle(first), length);
                assert_eq!(written(&both, &bytes, length), twice, "{second:?}");
            }
        }
        // What leaves gaps is not read through.
        let gaps = StridedCopy::new(&[12, 3], &[3, 1], &[6, 1], [0, 0]);
        assert!(dense(&[12, 3], &[6, 1]).after(&gaps).is_none());
    }
}
