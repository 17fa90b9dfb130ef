//! The rows of a picture as floats, made when a window first comes to them.

use crate::{Shape, lookup::FloatLut};

/// How rows are laid out: `left` columns of zeros, the picture's, `right` columns of zeros; each pixel's channels
/// rounded up to whole vectors (zeros at first, never read for a result).
#[derive(Clone, Debug)]
pub(super) struct Layout {
    pub input: Shape,
    pub left: usize,
    pub right: usize,
    /// As many rows as a window needs at once.
    pub rows: usize,
    /// Floats of a vector.
    pub lanes: usize,
}

impl Layout {
    /// Floats from one pixel to the next.
    pub(super) fn pixel(&self) -> usize {
        self.input.c.next_multiple_of(self.lanes)
    }

    fn row(&self) -> usize {
        (self.left + self.input.w + self.right) * self.pixel()
    }

    /// Bytes of scratch; a line more, because scratch begins anywhere.
    pub(super) fn scratch_bytes(&self) -> usize {
        self.rows * self.row() * size_of::<f32>() + LINE
    }
}

/// Bytes of a cache line.
const LINE: usize = 64;

/// The floats of `layout.rows` rows; row `r` of the picture lies in place `r % layout.rows`.
pub(super) struct Rows<'a> {
    layout: &'a Layout,
    numbers: &'a FloatLut,
    input: &'a [u8],
    floats: &'a mut [f32],
    /// The row of the picture in each place; `None` for zeros.
    held: [Held; MAX_ROWS],
}

/// A taller window has no place here.
pub(super) const MAX_ROWS: usize = 64;

#[derive(Clone, Copy, PartialEq)]
enum Held {
    Nothing,
    Row(isize),
}

impl<'a> Rows<'a> {
    /// `input` is the whole picture; `scratch` has [`Layout::scratch_bytes`], or more: also returns the floats that are left.
    pub(super) fn new(
        layout: &'a Layout,
        numbers: &'a FloatLut,
        input: &'a [u8],
        scratch: &'a mut [u8],
    ) -> (Self, &'a mut [f32]) {
        // Vectors that lie in two cache lines are read half as fast.
        let aligned = scratch.as_ptr().align_offset(LINE).min(LINE);
        let scratch = &mut scratch[aligned..];
        // SAFETY: every pattern of bits is a float, and bytes have no padding.
        let (_, floats, _) = unsafe { scratch.align_to_mut::<f32>() };
        let (floats, rest) = floats.split_at_mut(layout.rows * layout.row());
        floats.fill(0.0);
        let rows = Self {
            layout,
            numbers,
            input,
            floats,
            held: [Held::Nothing; MAX_ROWS],
        };
        (rows, rest)
    }

    /// Makes row `row` of the picture floats; one outside it is of zeros.
    #[inline(always)]
    pub(super) fn load(&mut self, row: isize) {
        let Layout { input, left, .. } = *self.layout;
        let place = self.place(row);
        if self.held[place] == Held::Row(row) {
            return;
        }
        self.held[place] = Held::Row(row);
        let (length, pixel) = (self.layout.row(), self.layout.pixel());
        let floats = &mut self.floats[place * length..][..length];
        let floats = &mut floats[left * pixel..][..input.w * pixel];
        let Some(row) = usize::try_from(row).ok().filter(|r| *r < input.h) else {
            floats.fill(0.0);
            return;
        };
        let bytes = &self.input[row * input.w * input.c..][..input.w * input.c];
        if pixel == input.c {
            self.numbers.floats(bytes, floats);
            return;
        }
        let pixels = floats.chunks_exact_mut(pixel);
        for (floats, bytes) in pixels.zip(bytes.chunks_exact(input.c)) {
            self.numbers.floats(bytes, floats);
        }
    }

    /// A row that was loaded, from its left padding on.
    #[inline(always)]
    pub(super) fn row(&self, row: isize) -> &[f32] {
        let length = self.layout.row();
        &self.floats[self.place(row) * length..][..length]
    }

    #[inline(always)]
    fn place(&self, row: isize) -> usize {
        row.rem_euclid(self.layout.rows as isize) as usize
    }
}

/// The output's rows of a range of pixels: each row, and its columns.
pub(super) fn rows_of(
    pixels: std::ops::Range<usize>,
    width: usize,
) -> impl Iterator<Item = (usize, std::ops::Range<usize>)> {
    let (first, end) = (pixels.start / width, pixels.end.div_ceil(width));
    (first..end).map(move |y| {
        let start = pixels.start.saturating_sub(y * width);
        let end = (pixels.end - y * width).min(width);
        (y, start..end)
    })
}
