//! The default boxes of SSD with ResNet-34 (MLPerf's): their number for any input, and those at 1200×1200 in the order of its outputs.
//!
//! In: an input's size. Out: boxes. Pure; at load.
//!
//! Six grids; in each, box shape by shape, then row by row. Sizes are 21, 45, 99, 153, 207, 261 and 315 parts of 300 of the side; a grid has a
//! square of its size, one between its size and the next, and a pair of oblongs for each of its aspect ratios.

/// The input's side in pixels.
pub(super) const SIDE: usize = 1200;
/// How many default boxes there are.
pub(super) const BOXES: usize = 15130;

/// Cells a side, and aspect ratios, for each grid.
const GRIDS: [(usize, &[f64]); 6] = [
    (50, &[2.0]),
    (25, &[2.0, 3.0]),
    (13, &[2.0, 3.0]),
    (7, &[2.0, 3.0]),
    (3, &[2.0]),
    (3, &[2.0]),
];
const SIZES: [f64; 7] = [21.0, 45.0, 99.0, 153.0, 207.0, 261.0, 315.0];

/// Lengths of the axis behind a convolution or pooling.
fn behind(length: usize, kernel: usize, stride: usize, pad: usize) -> Option<usize> {
    Some((length + 2 * pad).checked_sub(kernel)? / stride + 1)
}

/// How many default boxes the network has for an input of this size; `None` if it is too small for it.
pub(super) fn boxes((width, height): (usize, usize)) -> Option<usize> {
    // Along one axis: the stem, a pooling and the second stage; five more blocks; a head on each.
    let cells = |side: usize| {
        let stem = behind(side, 7, 2, 3)?;
        let mut length = behind(behind(stem, 3, 2, 1)?, 3, 2, 1)?;
        let mut cells = [0; GRIDS.len()];
        for (i, cells) in cells.iter_mut().enumerate() {
            length = match i {
                0 => length,
                1..=3 => behind(length, 3, 2, 1)?,
                4 => behind(length, 3, 2, 0)?,
                _ => behind(length, 3, 1, 0)?,
            };
            *cells = behind(length, 3, 3, 1)?;
        }
        Some(cells)
    };
    let (columns, rows) = (cells(width)?, cells(height)?);
    let of_grid =
        |(i, (_, ratios)): (usize, &(usize, &[f64]))| columns[i] * rows[i] * (2 + 2 * ratios.len());
    Some(GRIDS.iter().enumerate().map(of_grid).sum())
}

/// Centre x, centre y, width, height in 0–1 of the input.
pub(super) fn default_boxes() -> Vec<[f32; 4]> {
    let mut boxes = Vec::with_capacity(BOXES);
    for (i, (cells, ratios)) in GRIDS.iter().enumerate() {
        let size = SIZES[i] / 300.0;
        let between = (size * SIZES[i + 1] / 300.0).sqrt();
        let mut shapes = vec![(size, size), (between, between)];
        for ratio in ratios.iter().map(|r| r.sqrt()) {
            shapes.extend([(size * ratio, size / ratio), (size / ratio, size * ratio)]);
        }
        for (w, h) in shapes {
            for y in 0..*cells {
                for x in 0..*cells {
                    let centre = |at: usize| (at as f64 + 0.5) / *cells as f64;
                    boxes.push([centre(x), centre(y), w, h].map(|v| v.clamp(0.0, 1.0) as f32));
                }
            }
        }
    }
    boxes
}

#[cfg(test)]
mod tests {
    #[test]
    fn there_is_one_for_each_output() {
        let boxes = super::default_boxes();
        assert_eq!(boxes.len(), super::BOXES);
        assert_eq!(super::boxes((super::SIDE, super::SIDE)), Some(boxes.len()));
        assert_eq!(super::boxes((64, 64)), None);
        assert_eq!(boxes[0], [0.01, 0.01, 0.07, 0.07]);
        // The last shape's last cell of the grid of 13: the cells fill the picture, though 13 does not divide its side.
        assert_eq!(boxes[10000 + 3750 + 6 * 169 - 1][..2], [12.5 / 13.0; 2]);
        // The second shape begins behind all cells of the first.
        assert_eq!(boxes[2500][..2], [0.01, 0.01]);
        assert!((boxes[2500][2] - (0.07f32 * 0.15).sqrt()).abs() < 1e-6);
    }
}
