//! Copies that pick and repeat: nearest-neighbour resize, strided slices, and concatenation along channels.

use std::ops::Range;

use crate::{KernelError, Shape, error::check_len};

/// Output pixel (y, x) is input pixel (`rows[y]`, `columns[x]`), restricted to a range of channels.
#[derive(Clone, Debug)]
pub struct Gather {
    input: Shape,
    rows: Vec<usize>,
    columns: Vec<usize>,
    channels: Range<usize>,
}

impl Gather {
    /// A copy that takes these rows, columns and channels of the input picture.
    pub fn new(
        input: Shape,
        rows: Vec<usize>,
        columns: Vec<usize>,
        channels: Range<usize>,
    ) -> Result<Self, KernelError> {
        let out_of_range = |what: &str, index: usize, size: usize| {
            Err(KernelError::Geometry(format!(
                "{what} {index} is not in a picture of {size}"
            )))
        };
        if let Some(&row) = rows.iter().find(|&&row| row >= input.h) {
            return out_of_range("row", row, input.h);
        }
        if let Some(&column) = columns.iter().find(|&&column| column >= input.w) {
            return out_of_range("column", column, input.w);
        }
        if channels.start > channels.end || channels.end > input.c {
            return out_of_range("channel", channels.end, input.c);
        }
        Ok(Self {
            input,
            rows,
            columns,
            channels,
        })
    }

    /// A copy of the whole picture: an input of a concatenation.
    pub fn all(input: Shape) -> Self {
        Self {
            input,
            rows: (0..input.h).collect(),
            columns: (0..input.w).collect(),
            channels: 0..input.c,
        }
    }

    /// The shape of what is copied.
    pub fn output(&self) -> Shape {
        Shape::new(self.rows.len(), self.columns.len(), self.channels.len())
    }

    /// Copies. `out` is the whole output picture with `out_channels` channels; the
    /// copied channels are written from channel `at` on, and the others stay (they are another input's).
    pub fn run(
        &self,
        input: &[u8],
        out: &mut [u8],
        out_channels: usize,
        at: usize,
    ) -> Result<(), KernelError> {
        let shape = self.output();
        check_len("input", self.input.bytes(), input.len())?;
        check_len("out", shape.pixels() * out_channels, out.len())?;
        if at + shape.c > out_channels {
            return Err(KernelError::Geometry(format!(
                "channels {at}..{} are not in an output of {out_channels}",
                at + shape.c
            )));
        }
        if shape.bytes() == 0 {
            return Ok(());
        }
        let picked = self.rows.iter().flat_map(|row| {
            self.columns
                .iter()
                .map(move |column| row * self.input.w + column)
        });
        for (out, pixel) in out.chunks_exact_mut(out_channels).zip(picked) {
            let out = &mut out[at..at + shape.c];
            let start = pixel * self.input.c + self.channels.start;
            let input = &input[start..start + shape.c];
            out.copy_from_slice(input);
        }
        Ok(())
    }
}
