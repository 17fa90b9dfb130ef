//! The default boxes of SSD with ResNet-34 at 1200×1200 (MLPerf's), in the order of its outputs.
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

/// Centre x, centre y, width, height in 0–1 of the input.
pub(super) fn default_boxes() -> Vec<[f32; 4]> {
    let mut boxes = Vec::with_capacity(BOXES);
    for (i, (cells, ratios)) in GRIDS.iter().enumerate() {
        // The step is cut to whole pixels: the last cells of some grids lie beyond the edge, and are brought back.
        let step = (SIDE / cells) as f64 / SIDE as f64;
        let size = SIZES[i] / 300.0;
        let between = (size * SIZES[i + 1] / 300.0).sqrt();
        let mut shapes = vec![(size, size), (between, between)];
        for ratio in ratios.iter().map(|r| r.sqrt()) {
            shapes.extend([(size * ratio, size / ratio), (size / ratio, size * ratio)]);
        }
        for (w, h) in shapes {
            for y in 0..*cells {
                for x in 0..*cells {
                    let centre = |at: usize| (at as f64 + 0.5) * step;
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
        assert_eq!(boxes[0], [0.01, 0.01, 0.07, 0.07]);
        // The second shape begins behind all cells of the first.
        assert_eq!(boxes[2500][..2], [0.01, 0.01]);
        assert!((boxes[2500][2] - (0.07f32 * 0.15).sqrt()).abs() < 1e-6);
    }
}
