//! torchvision's anchors: boxes of a few sizes and shapes at every cell of a feature pyramid, and offsets to them.
//!
//! In: a level's raw heads. Out: its best boxes, in pixels of the input. Pure; on the `infer-<n>` threads. Always holds: memory is bounded
//! by the number that is asked for, whatever the heads say.

use super::HeadOutput;

/// Levels of a pyramid, those of torchvision's ResNets.
pub const LEVELS: usize = 5;
/// Height over width of a cell's anchors, for each of their sizes.
const RATIOS: [f32; 3] = [0.5, 1.0, 2.0];
/// The longest that a box may be, as a logarithm of multiples of its anchor: ln(1000 / 16).
const MAX_LOG_SIZE: f32 = 4.135_166_6;

/// The heads of a pyramid, the finest level first.
#[derive(Debug, Clone, PartialEq)]
pub struct Pyramid {
    pub levels: Vec<Level>,
    /// Logits of an anchor.
    pub classes: usize,
}

/// One level: a grid of cells, each with the same anchors.
#[derive(Debug, Clone, PartialEq)]
pub struct Level {
    /// Index of the output `[1, anchors · 4, height, width]`.
    pub offsets: usize,
    /// Index of the output `[1, anchors · classes, height, width]`.
    pub logits: usize,
    width: usize,
    cells: usize,
    /// Pixels of the input from one cell to the next, along x and y.
    stride: [f32; 2],
    /// Corners in pixels, from the cell's own.
    anchors: Vec<[f32; 4]>,
}

/// One box of a level.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Found {
    /// x0, y0, x1, y1 in pixels of the input, not cut.
    pub corners: [f32; 4],
    pub logit: f32,
    pub class: usize,
}

/// Sizes of RetinaNet's anchors at each level: three, a third of an octave apart, in whole pixels.
pub fn retina_sizes() -> [Vec<f32>; LEVELS] {
    let third = |size: f64, n: f64| (size * 2f64.powf(n / 3.0)).floor() as f32;
    sizes().map(|s| [0.0, 1.0, 2.0].map(|n| third(s, n)).to_vec())
}

/// Sizes of a proposal network's anchors at each level: one.
pub fn region_sizes() -> [Vec<f32>; LEVELS] {
    sizes().map(|s| vec![s as f32])
}

fn sizes() -> [f64; LEVELS] {
    [32.0, 64.0, 128.0, 256.0, 512.0]
}

impl Pyramid {
    /// `outputs`: offsets and logits of each level, the coarsest first. `sizes`: the anchors' at each level, in pixels, the finest first.
    /// `None`: they are not of such shapes.
    pub fn new(
        outputs: &[HeadOutput],
        sizes: &[Vec<f32>; LEVELS],
        input: (usize, usize),
    ) -> Option<Self> {
        if outputs.len() != 2 * LEVELS {
            return None;
        }
        let mut classes = None;
        let mut levels = Vec::new();
        for (level, sizes) in sizes.iter().enumerate() {
            let at = 2 * (LEVELS - 1 - level);
            let anchors = anchors(sizes);
            let (&[1, offsets, height, width], &[1, logits, h, w]) =
                (&*outputs[at].shape, &*outputs[at + 1].shape)
            else {
                return None;
            };
            let fits = (h, w) == (height, width)
                && (1..=input.1).contains(&h)
                && (1..=input.0).contains(&w)
                && offsets == 4 * anchors.len()
                && logits % anchors.len() == 0
                && *classes.get_or_insert(logits / anchors.len()) == logits / anchors.len();
            if !fits {
                return None;
            }
            levels.push(Level {
                offsets: at,
                logits: at + 1,
                width,
                cells: width * height,
                stride: [(input.0 / width) as f32, (input.1 / height) as f32],
                anchors,
            });
        }
        let classes = classes.filter(|n| *n > 0)?;
        Some(Self { levels, classes })
    }
}

/// The anchors of a cell, ratio by ratio.
fn anchors(sizes: &[f32]) -> Vec<[f32; 4]> {
    let of = |ratio: f32| {
        let (h, w) = (ratio.sqrt(), 1.0 / ratio.sqrt());
        let corners = move |size: &f32| {
            let (x, y) = (
                (w * size / 2.0).round_ties_even(),
                (h * size / 2.0).round_ties_even(),
            );
            [-x, -y, x, y]
        };
        sizes.iter().map(corners)
    };
    RATIOS.into_iter().flat_map(of).collect()
}

impl Level {
    /// The `most` likeliest boxes with a logit of at least `least`, best first; of equal ones the first by cell, anchor and class.
    /// `wanted` tells the classes that count.
    pub fn best<'a>(
        &'a self,
        offsets: &'a [f32],
        logits: &'a [f32],
        classes: usize,
        (least, most): (f32, usize),
        wanted: impl Fn(usize) -> bool + 'a,
    ) -> impl Iterator<Item = Found> {
        let mut keys: Vec<u64> = Vec::new();
        let mut least = least;
        for (plane, values) in logits.chunks_exact(self.cells).enumerate() {
            let (anchor, class) = (plane / classes, plane % classes);
            if !wanted(class) {
                continue;
            }
            for (cell, logit) in values.iter().enumerate() {
                // Not so of what is no number.
                if *logit >= least {
                    let place = (cell * self.anchors.len() + anchor) * classes + class;
                    keys.push(u64::from(!in_order(*logit)) << 32 | place as u64);
                }
            }
            if keys.len() > 4 * most {
                keys.select_nth_unstable(most - 1);
                keys.truncate(most);
                least = logit_of(keys[most - 1]);
            }
        }
        keys.sort_unstable();
        keys.truncate(most);
        keys.into_iter().map(move |key| {
            let place = (key & u64::from(u32::MAX)) as usize;
            let (class, anchor) = (place % classes, place / classes % self.anchors.len());
            let cell = place / classes / self.anchors.len();
            let offset = |i: usize| offsets[(anchor * 4 + i) * self.cells + cell];
            let anchor = self.anchors[anchor];
            let (x, y) = (
                (cell % self.width) as f32 * self.stride[0],
                (cell / self.width) as f32 * self.stride[1],
            );
            let anchor = [anchor[0] + x, anchor[1] + y, anchor[2] + x, anchor[3] + y];
            Found {
                corners: moved(anchor, [0, 1, 2, 3].map(offset)),
                logit: logit_of(key),
                class,
            }
        })
    }
}

/// Bits in the order of the numbers.
fn in_order(v: f32) -> u32 {
    let bits = v.to_bits();
    if bits >> 31 == 1 {
        !bits
    } else {
        bits | 1 << 31
    }
}

fn logit_of(key: u64) -> f32 {
    let ordered = !(key >> 32) as u32;
    f32::from_bits(if ordered >> 31 == 1 {
        ordered & !(1 << 31)
    } else {
        !ordered
    })
}

/// The probability of a logit.
pub fn sigmoid(v: f32) -> f32 {
    1.0 / (1.0 + (-v).exp())
}

/// A box, moved by parts of its size and stretched by logarithms: `[x, y, width, height]`.
pub fn moved([x0, y0, x1, y1]: [f32; 4], [dx, dy, dw, dh]: [f32; 4]) -> [f32; 4] {
    let (w, h) = (x1 - x0, y1 - y0);
    let (cx, cy) = (dx * w + (x0 + 0.5 * w), dy * h + (y0 + 0.5 * h));
    let half = |d: f32, size: f32| 0.5 * (d.min(MAX_LOG_SIZE).exp() * size);
    let (w, h) = (half(dw, w), half(dh, h));
    [cx - w, cy - h, cx + w, cy + h]
}

/// A box, cut at the picture's edges; what is no number stays none.
pub fn cut(corners: [f32; 4], [x0, y0, x1, y1]: [f32; 4]) -> [f32; 4] {
    let within = |v: f32, low: f32, high: f32| match v {
        v if v < low => low,
        v if v > high => high,
        v => v,
    };
    let [a, b, c, d] = corners;
    [
        within(a, x0, x1),
        within(b, y0, y1),
        within(c, x0, x1),
        within(d, y0, y1),
    ]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pyramid(input: (usize, usize), classes: usize) -> Option<Pyramid> {
        let level = |stride: usize| {
            let (h, w) = (input.1.div_ceil(stride), input.0.div_ceil(stride));
            [4, classes].map(|values| HeadOutput {
                shape: vec![1, 9 * values, h, w],
                probabilities: false,
                decoded: false,
            })
        };
        let outputs: Vec<_> = [128, 64, 32, 16, 8].into_iter().flat_map(level).collect();
        Pyramid::new(&outputs, &retina_sizes(), input)
    }

    /// By hand, and by torchvision's `AnchorGenerator`.
    #[test]
    fn anchors_are_torchvisions() {
        let p = pyramid((320, 256), 91).unwrap();
        assert_eq!(p.classes, 91);
        let finest = &p.levels[0];
        assert_eq!((finest.offsets, finest.logits), (8, 9));
        // 32·√2 / 2 = 22.6 and 32/√2 / 2 = 11.3; 40 and 50 are a third and two thirds of an octave up.
        assert_eq!(finest.anchors[0], [-23.0, -11.0, 23.0, 11.0]);
        assert_eq!(finest.anchors[4], [-20.0, -20.0, 20.0, 20.0]);
        assert_eq!(finest.anchors[8], [-18.0, -35.0, 18.0, 35.0]);
        // Three cells over 320 pixels: 106 whole pixels, not 128.
        let coarsest = &p.levels[4];
        assert_eq!((coarsest.width, coarsest.cells), (3, 6));
        assert_eq!(coarsest.stride, [106.0, 128.0]);
        assert_eq!(coarsest.anchors[5], [-406.0, -406.0, 406.0, 406.0]);
        assert!(Pyramid::new(&[], &retina_sizes(), (320, 256)).is_none());
    }

    #[test]
    fn boxes_are_moved_and_stretched() {
        assert_eq!(
            moved([0.0, 0.0, 10.0, 20.0], [0.0; 4]),
            [0.0, 0.0, 10.0, 20.0]
        );
        let d = [0.5, -0.25, 2f32.ln(), 0.5f32.ln()];
        let b = moved([0.0, 0.0, 10.0, 20.0], d);
        for (v, expected) in b.into_iter().zip([0.0, 0.0, 20.0, 10.0]) {
            assert!((v - expected).abs() < 1e-5, "{b:?}");
        }
        // Never more than 1000 / 16 times as large.
        let [x0, _, x1, _] = moved([0.0, 0.0, 16.0, 16.0], [0.0, 0.0, 1e9, 0.0]);
        assert!((x1 - x0 - 1000.0).abs() < 0.01);
        assert_eq!(
            cut([-5.0, 3.0, 99.0, f32::INFINITY], [0.0, 0.0, 50.0, 40.0]),
            [0.0, 3.0, 50.0, 40.0]
        );
        assert!(cut([f32::NAN; 4], [0.0, 0.0, 1.0, 1.0])[0].is_nan());
    }

    proptest! {
        /// Beside a sort of everything, with many equal logits.
        #[test]
        fn the_best_of_a_level_are_the_first_of_all_in_order(
            coarse in prop::collection::vec(-20i8..20, 4 * 9 * 6), most in 1usize..40, least in -3f32..3.0, only in 0usize..5,
        ) {
            let p = pyramid((320, 256), 4).unwrap();
            let level = &p.levels[4];
            let logits: Vec<f32> = coarse.iter().map(|v| f32::from(*v) / 4.0).collect();
            let offsets: Vec<f32> = (0..4 * 9 * 6).map(|i| i as f32 / 1000.0).collect();
            // 4: all.
            let wanted = |class: usize| only == 4 || class == only;
            let found: Vec<Found> = level.best(&offsets, &logits, 4, (least, most), wanted).collect();

            let mut all = Vec::new();
            for cell in 0..6 {
                for anchor in 0..9 {
                    for class in (0..4).filter(|c| wanted(*c)) {
                        let logit = logits[(anchor * 4 + class) * 6 + cell];
                        let [a, b, c, d] = level.anchors[anchor];
                        let (x, y) = ((cell % 3) as f32 * 106.0, (cell / 3) as f32 * 128.0);
                        let offset = [0, 1, 2, 3].map(|i| offsets[(anchor * 4 + i) * 6 + cell]);
                        let corners = moved([a + x, b + y, c + x, d + y], offset);
                        all.push(Found { corners, logit, class });
                    }
                }
            }
            all.retain(|f| f.logit >= least);
            all.sort_by(|a, b| b.logit.total_cmp(&a.logit));
            all.truncate(most);
            prop_assert_eq!(found, all);
        }
    }
}
