//! The families of detectors: what each is fed, and how its outputs lie in memory.
//!
//! In: shapes of outputs, the input's size. Out: a [`Detector`], or what is wrong with the shapes. Pure; at load.

use serde::{Deserialize, Serialize};

use super::anchors::{Pyramid, retina_sizes};
use super::{Limits, ssd};
use crate::preprocess::{ColourOrder, Normalize, ResizePolicy, UsualInput};

/// Detectors whose outputs are read in the same way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", try_from = "String")]
pub enum Family {
    /// YOLOX, exported with and without `--decode_in_inference`.
    Yolox,
    /// YOLOv5 and YOLOv7 with their grid in the graph; also YOLOv3 as Ultralytics exports it.
    Yolov5,
    /// YOLOv8, YOLOv9, YOLO11.
    Yolov8,
    /// YOLOv10: without suppression.
    Yolov10,
    /// YOLOv3 and its tiny form: the raw heads.
    Yolov3,
    /// YOLOv4 and its tiny form: the raw heads.
    Yolov4,
    /// SSD with ResNet-34 at 1200×1200, as in MLPerf and the ONNX Model Zoo.
    Ssd,
    /// UltraFace: RFB-320, RFB-640, slim.
    Ultraface,
    /// RetinaNet with a feature pyramid, as `ocellus_models export` writes torchvision's.
    Retinanet,
    /// Faster R-CNN with a feature pyramid: two networks, as `ocellus_models export` writes torchvision's.
    #[serde(rename = "faster_rcnn")]
    FasterRcnn,
}

/// As people write them; the first of a family is its name.
const NAMES: [(&str, Family); 14] = [
    ("yolox", Family::Yolox),
    ("yolov5", Family::Yolov5),
    ("yolov8", Family::Yolov8),
    ("yolov10", Family::Yolov10),
    ("yolov3", Family::Yolov3),
    ("yolov4", Family::Yolov4),
    ("ssd", Family::Ssd),
    ("ultraface", Family::Ultraface),
    ("retinanet", Family::Retinanet),
    ("faster_rcnn", Family::FasterRcnn),
    ("yolov7", Family::Yolov5),
    ("yolov9", Family::Yolov8),
    ("yolov11", Family::Yolov8),
    ("yolo11", Family::Yolov8),
];

impl std::fmt::Display for Family {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let own = NAMES.iter().find(|(_, family)| family == self);
        f.write_str(own.map_or("", |(name, _)| name))
    }
}

impl std::str::FromStr for Family {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        let known = NAMES.iter().find(|(name, _)| *name == s);
        known.map(|(_, family)| *family).ok_or_else(|| {
            let names: Vec<&str> = NAMES.iter().map(|(name, _)| *name).collect();
            format!("unknown family `{s}`; known are {}", names.join(", "))
        })
    }
}

impl TryFrom<String> for Family {
    type Error = String;
    fn try_from(s: String) -> Result<Self, String> {
        s.parse()
    }
}

impl Family {
    /// As the family's own code prepares pictures.
    pub fn input(self) -> UsualInput {
        let letterbox = |fill, centre| ResizePolicy::Letterbox { fill, centre };
        let unit = Normalize {
            scale: 1.0 / 255.0,
            ..Normalize::NONE
        };
        let (colour, normalize, resize) = match self {
            Self::Yolox => (ColourOrder::Bgr, Normalize::NONE, letterbox(114, false)),
            Self::Yolov5 | Self::Yolov8 | Self::Yolov10 => {
                (ColourOrder::Rgb, unit, letterbox(114, true))
            }
            Self::Yolov3 | Self::Yolov4 => (ColourOrder::Rgb, unit, letterbox(128, true)),
            Self::Ssd => (ColourOrder::Rgb, Normalize::IMAGENET, ResizePolicy::Stretch),
            Self::Retinanet | Self::FasterRcnn => {
                (ColourOrder::Rgb, Normalize::IMAGENET, ResizePolicy::Pad)
            }
            Self::Ultraface => {
                let normalize = Normalize {
                    scale: 1.0,
                    mean: [127.0; 3],
                    std: [128.0; 3],
                };
                (ColourOrder::Rgb, normalize, ResizePolicy::Stretch)
            }
        };
        UsualInput {
            colour,
            normalize,
            resize,
        }
    }

    /// Class names of the weights that everybody has, where the number of classes is theirs.
    pub fn usual_labels(self, classes: usize) -> Option<&'static str> {
        match (self, classes) {
            (Self::Ultraface, 1) => Some("face"),
            (Self::Ultraface, _) => None,
            // torchvision keeps COCO's own numbers, of which ten stand for nothing.
            (Self::Retinanet, 91) => Some(concat!("__background__\n", include_str!("coco90.txt"))),
            (Self::FasterRcnn, 90) => Some(include_str!("coco90.txt")),
            (_, 80) => Some(include_str!("coco.txt")),
            _ => None,
        }
    }

    /// Whether a second network looks at regions that the first proposes.
    pub fn has_box_head(self) -> bool {
        self == Self::FasterRcnn
    }

    /// The family, if only one has outputs of these shapes for an input of this size. Raw heads with anchors look the
    /// same in several families, and are not recognized. `suppressed`: they are what a suppression in the graph reads.
    pub fn recognize(
        outputs: &[HeadOutput],
        input: (usize, usize),
        suppressed: bool,
    ) -> Option<Self> {
        let counts = cell_counts(input);
        let shapes: Vec<&[usize]> = outputs.iter().map(|o| &*o.shape).collect();
        match shapes[..] {
            [[1, n, 4], [1, _, m]] if suppressed => {
                (n == m && ssd::boxes(input) == Some(*n)).then_some(Self::Ssd)
            }
            _ if suppressed => None,
            [[1, n, values]] if *values > 5 && *n == counts[0] => Some(Self::Yolox),
            [[1, n, values]] if *values > 5 && n % 3 == 0 && counts.contains(&(n / 3)) => {
                Some(Self::Yolov5)
            }
            [[1, values, n]] if *values > 4 && counts.contains(n) => Some(Self::Yolov8),
            [[1, n, 6]] if *n <= 1000 => Some(Self::Yolov10),
            [[1, n, a], [1, m, b]] if n == m && *n == ultraface_boxes(input) => {
                ([*a, *b] == [2, 4] || [*a, *b] == [4, 2]).then_some(Self::Ultraface)
            }
            _ => None,
        }
    }
}

/// One output of the network.
#[derive(Debug, Clone, PartialEq)]
pub struct HeadOutput {
    /// The axes' lengths.
    pub shape: Vec<usize>,
    /// Whether it went through a softmax.
    pub probabilities: bool,
    /// Whether the sizes of boxes went through an exponential: YOLOX's are in pixels then, though the shape is the same.
    pub decoded: bool,
}

/// How the outputs of one detector are read.
#[derive(Debug, Clone, PartialEq)]
pub struct Detector {
    /// The family.
    pub family: Family,
    /// How many classes there are, a background class not counted.
    pub classes: usize,
    /// The input's width and height in pixels.
    pub input: (usize, usize),
    /// Those of a suppression in the graph, which is not run: ours is, and they hold where nothing else is said.
    pub own_limits: Option<Limits>,
    pub(super) head: Head,
}

/// Where what lies. Indices are those of the outputs.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Head {
    /// `[1, N, 5 + classes]`: cx, cy, w, h, objectness, classes; boxes relative to the cells of strides 8, 16, 32.
    Cells,
    /// `[1, N, 5 + classes]`: cx, cy, w, h in input pixels, objectness, classes.
    Rows,
    /// `[1, 4 + classes, N]`: cx, cy, w, h in input pixels, classes.
    Columns,
    /// `[1, N, 6]`: x0, y0, x1, y1 in input pixels, score, class; suppressed already.
    Final,
    /// Raw grids with three anchors a cell.
    Anchors(Vec<AnchorGrid>),
    /// Raw grids of a feature pyramid with nine anchors a cell.
    Pyramid(Pyramid),
    /// From this output on, a row for each region: `[n, 4]` corners in input pixels, `[n, 1 + classes]` logits with the background first,
    /// `[n, 4 + 4 · classes]` offsets.
    Regions(usize),
    /// Offsets to default boxes, and a score a class with background first.
    Defaults(Defaults),
    /// `[1, N, 2]` background and face, `[1, N, 4]` corners in 0–1 of the input.
    Faces { scores: usize, boxes: usize },
    /// What a suppression in the graph reads: `[1, N, 4]` corners in 0–1 of the input, `[1, classes, N]` scores.
    Suppressed,
}

/// One raw grid of YOLOv3 or v4.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct AnchorGrid {
    pub output: usize,
    pub grid: Grid,
    /// Width and height in input pixels.
    pub anchors: [[f32; 2]; 3],
    /// How far a box's centre may leave its cell: 1 for YOLOv3.
    pub xy_scale: f32,
    /// Elements from one anchor, row, column, value to the next.
    pub steps: [usize; 4],
}

/// SSD's outputs.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Defaults {
    pub locations: usize,
    pub scores: usize,
    /// Whether locations and scores are `[1, values, N]` rather than `[1, N, values]`.
    pub values_first: [bool; 2],
    /// Whether a softmax is still to be applied.
    pub logits: bool,
    pub boxes: Vec<[f32; 4]>,
}

/// The cells of one stride.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Grid {
    pub stride: usize,
    pub width: usize,
    pub height: usize,
}

impl Grid {
    fn new(stride: usize, input: (usize, usize)) -> Self {
        Self {
            stride,
            width: input.0 / stride,
            height: input.1 / stride,
        }
    }

    pub fn cells(self) -> usize {
        self.width * self.height
    }
}

/// Of strides 8, 16 and 32.
pub(super) fn grids(input: (usize, usize)) -> [Grid; 3] {
    [8, 16, 32].map(|stride| Grid::new(stride, input))
}

/// Cells of all strides together: of the usual three; of YOLOv3-tiny's two; with one more for small things (P2) or for large ones (P6).
fn cell_counts(input: (usize, usize)) -> [usize; 4] {
    [
        &[8, 16, 32][..],
        &[16, 32],
        &[4, 8, 16, 32],
        &[8, 16, 32, 64],
    ]
    .map(|strides| {
        let cells = |stride: &usize| Grid::new(*stride, input).cells();
        strides.iter().map(cells).sum()
    })
}

/// Three boxes a cell of strides 8 and 64, two of 16 and 32; cells are counted upwards.
fn ultraface_boxes((width, height): (usize, usize)) -> usize {
    let boxes = |(stride, n): (usize, usize)| width.div_ceil(stride) * height.div_ceil(stride) * n;
    [(8, 3), (16, 2), (32, 2), (64, 3)]
        .into_iter()
        .map(boxes)
        .sum()
}

/// Anchors of an output: width and height in input pixels.
pub type Anchors = [[f32; 2]; 3];

const V3: [Anchors; 3] = [
    [[10.0, 13.0], [16.0, 30.0], [33.0, 23.0]],
    [[30.0, 61.0], [62.0, 45.0], [59.0, 119.0]],
    [[116.0, 90.0], [156.0, 198.0], [373.0, 326.0]],
];
const V3_TINY: [Anchors; 2] = [
    [[10.0, 14.0], [23.0, 27.0], [37.0, 58.0]],
    [[81.0, 82.0], [135.0, 169.0], [344.0, 319.0]],
];
const V4: [Anchors; 3] = [
    [[12.0, 16.0], [19.0, 36.0], [40.0, 28.0]],
    [[36.0, 75.0], [76.0, 55.0], [72.0, 146.0]],
    [[142.0, 110.0], [192.0, 243.0], [459.0, 401.0]],
];
const V4_TINY: [Anchors; 2] = [
    [[23.0, 27.0], [37.0, 58.0], [81.0, 82.0]],
    [[81.0, 82.0], [135.0, 169.0], [344.0, 319.0]],
];

impl Detector {
    /// `anchors` replaces those of YOLOv3's and v4's usual weights: one for each output, the finest grid first. `own_limits`: the outputs
    /// are what a suppression in the graph reads, and these are its limits.
    ///
    /// # Errors
    /// The outputs are not the family's: what they should be.
    pub fn new(
        family: Family,
        outputs: &[HeadOutput],
        input: (usize, usize),
        anchors: Option<&[Anchors]>,
        own_limits: Option<Limits>,
    ) -> Result<Self, String> {
        let shapes: Vec<&[usize]> = outputs.iter().map(|o| &*o.shape).collect();
        let counts = cell_counts(input);
        let [cells, ..] = counts;
        let wrong = |should: &str| {
            format!(
                "the outputs {shapes:?} are not those of {family} for an input of {}x{}: {should}",
                input.0, input.1
            )
        };
        if anchors.is_some() && !matches!(family, Family::Yolov3 | Family::Yolov4) {
            return Err(format!("{family} has no anchors to be named"));
        }
        let (head, classes) = match (family, &shapes[..]) {
            (Family::Ssd, [[1, n, 4], [1, classes, m]])
                if own_limits.is_some() && n == m && *classes > 0 =>
            {
                (Head::Suppressed, *classes)
            }
            (_, _) if own_limits.is_some() => {
                return Err(wrong(
                    "they are what a suppression in the graph reads, of which only that of ssd is known, [1, boxes, 4] and [1, classes, boxes]; export without the suppression, or name in [detect] outputs what comes before it",
                ));
            }
            (Family::Yolox, [[1, n, values]]) if *n == cells && *values > 5 => {
                let head = match outputs[0].decoded {
                    true => Head::Rows,
                    false => Head::Cells,
                };
                (head, values - 5)
            }
            (Family::Yolox, _) => {
                return Err(wrong(&format!("one output [1, {cells}, 5 + classes]")));
            }
            (Family::Yolov5, [[1, _, values]]) if *values > 5 => (Head::Rows, values - 5),
            (Family::Yolov5, _) => {
                return Err(wrong(
                    "one output [1, boxes, 5 + classes]; export YOLOv7 with --grid, without --end2end",
                ));
            }
            (Family::Yolov8, [[1, values, n]]) if *values > 4 && counts.contains(n) => {
                (Head::Columns, values - 4)
            }
            (Family::Yolov8, _) => {
                return Err(wrong(&format!(
                    "one output [1, 4 + classes, boxes] with as many boxes as there are cells, one of {counts:?}; export without nms=True, and a detector rather than one that segments"
                )));
            }
            // The classes are not in the shape: what labels there are says how many.
            (Family::Yolov10, [[1, _, 6]]) => (Head::Final, 0),
            (Family::Yolov10, _) => return Err(wrong("one output [1, boxes, 6]")),
            (Family::Ultraface, [[1, n, a], [1, m, b]])
                if n == m && [*a, *b].iter().sum::<usize>() == 6 && a.min(b) == &2 =>
            {
                let scores = usize::from(*a != 2);
                let boxes = 1 - scores;
                (Head::Faces { scores, boxes }, 1)
            }
            (Family::Ultraface, _) => {
                return Err(wrong("two outputs, [1, boxes, 2] and [1, boxes, 4]"));
            }
            (Family::Ssd, _) => {
                let (defaults, classes) = defaults(outputs, input).ok_or_else(|| {
                    wrong(&format!(
                        "two outputs before the decoding, [1, 4, {n}] and [1, 1 + classes, {n}] or their transposes, for 1200x1200; name them in [detect] outputs",
                        n = ssd::BOXES
                    ))
                })?;
                (Head::Defaults(defaults), classes)
            }
            (Family::Retinanet, _) => {
                let pyramid = Pyramid::new(outputs, &retina_sizes(), input).ok_or_else(|| {
                    wrong("for each of five levels, the coarsest first, [1, 36, h, w] and [1, 9·classes, h, w], as `python -m ocellus_models export` writes them")
                })?;
                let classes = pyramid.classes;
                (Head::Pyramid(pyramid), classes)
            }
            (Family::FasterRcnn, [.., [_, 4], [_, logits], [_, offsets]])
                if *logits > 1 && *offsets == 4 * logits =>
            {
                (Head::Regions(shapes.len() - 3), logits - 1)
            }
            (Family::FasterRcnn, _) => {
                return Err(wrong(
                    "those of a first stage and of a box head; name the second in [detect] box_head",
                ));
            }
            (Family::Yolov3 | Family::Yolov4, _) => {
                let (grids, classes) = anchor_grids(family, &shapes, input, anchors).ok_or_else(|| {
                    wrong("two or three raw heads of strides 8, 16 and 32 with three anchors each, as [1, 3·(5 + classes), h, w] or with the channels last; name them in [detect] outputs if the graph goes on behind them")
                })?;
                (Head::Anchors(grids), classes)
            }
        };
        Ok(Self {
            family,
            classes,
            input,
            own_limits,
            head,
        })
    }

    /// Whether overlapping boxes are still to be suppressed.
    pub fn suppresses(&self) -> bool {
        self.head != Head::Final
    }

    /// Whether one output has both boxes in pixels of the input and scores of 0 to 1.
    pub fn mixes_pixels_and_scores(&self) -> bool {
        matches!(self.head, Head::Rows | Head::Columns | Head::Final)
    }
}

/// The heads, the finest grid first, and the number of classes.
fn anchor_grids(
    family: Family,
    shapes: &[&[usize]],
    input: (usize, usize),
    anchors: Option<&[Anchors]>,
) -> Option<(Vec<AnchorGrid>, usize)> {
    let tiny = shapes.len() == 2;
    let usual: &[Anchors] = match (family, tiny) {
        (Family::Yolov3, false) => &V3,
        (Family::Yolov3, true) => &V3_TINY,
        (_, false) => &V4,
        (_, true) => &V4_TINY,
    };
    let anchors = anchors.unwrap_or(usual);
    let strides: &[usize] = if tiny { &[16, 32] } else { &[8, 16, 32] };
    if shapes.len() != strides.len() || anchors.len() != strides.len() {
        return None;
    }
    let mut classes = None;
    let mut found = Vec::new();
    for (i, &stride) in strides.iter().enumerate() {
        let grid = Grid::new(stride, input);
        let layout = |(output, s): (usize, &&[usize])| Some((output, head_layout(s, grid)?));
        let (output, (steps, values)) = shapes.iter().enumerate().find_map(layout)?;
        if *classes.get_or_insert(values - 5) != values - 5 {
            return None;
        }
        let xy_scale = match (family, tiny) {
            (Family::Yolov4, false) => [1.2, 1.1, 1.05][i],
            (Family::Yolov4, true) => 1.05,
            _ => 1.0,
        };
        found.push(AnchorGrid {
            output,
            grid,
            anchors: anchors[i],
            xy_scale,
            steps,
        });
    }
    Some((found, classes?))
}

/// Steps from one anchor, row, column and value to the next, and the number of values.
fn head_layout(shape: &[usize], grid: Grid) -> Option<([usize; 4], usize)> {
    let (h, w) = (grid.height, grid.width);
    let (steps, values) = match *shape {
        [1, c, y, x] if (y, x) == (h, w) && c % 3 == 0 => ([c / 3 * h * w, w, 1, h * w], c / 3),
        [1, y, x, c] if (y, x) == (h, w) && c % 3 == 0 => ([c / 3, w * c, c, 1], c / 3),
        [1, y, x, 3, v] if (y, x) == (h, w) => ([v, w * 3 * v, 3 * v, 1], v),
        [1, 3, y, x, v] if (y, x) == (h, w) => ([h * w * v, w * v, v, 1], v),
        [1, 3, v, y, x] if (y, x) == (h, w) => ([v * h * w, w, 1, h * w], v),
        _ => return None,
    };
    (values > 5).then_some((steps, values))
}

fn defaults(outputs: &[HeadOutput], input: (usize, usize)) -> Option<(Defaults, usize)> {
    if outputs.len() != 2 || input != (ssd::SIDE, ssd::SIDE) {
        return None;
    }
    // Values an output has for each box, and whether they are on the first axis.
    let values = |o: &HeadOutput| match o.shape[..] {
        [1, values, n] if n == ssd::BOXES => Some((values, true)),
        [1, n, values] if n == ssd::BOXES => Some((values, false)),
        _ => None,
    };
    let both = [values(&outputs[0])?, values(&outputs[1])?];
    let locations = both.iter().position(|v| v.0 == 4)?;
    let scores = 1 - locations;
    let defaults = Defaults {
        locations,
        scores,
        values_first: [both[locations].1, both[scores].1],
        logits: !outputs[scores].probabilities,
        boxes: ssd::default_boxes(),
    };
    (both[scores].0 > 1).then(|| (defaults, both[scores].0 - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outputs(shapes: &[&[usize]]) -> Vec<HeadOutput> {
        let output = |s: &&[usize]| HeadOutput {
            shape: s.to_vec(),
            probabilities: false,
            decoded: false,
        };
        shapes.iter().map(output).collect()
    }

    #[test]
    fn only_shapes_that_one_family_has_are_recognized() {
        let at = |side: usize, shapes: &[&[usize]]| {
            Family::recognize(&outputs(shapes), (side, side), false)
        };
        assert_eq!(at(416, &[&[1, 3549, 85]]), Some(Family::Yolox));
        assert_eq!(at(640, &[&[1, 25200, 85]]), Some(Family::Yolov5));
        assert_eq!(at(640, &[&[1, 84, 8400]]), Some(Family::Yolov8));
        // Two strides, and four: as many cells as Ultralytics' YOLOv3-tiny, -P2 and -P6 have.
        for cells in [2000, 34_000, 8500] {
            assert_eq!(at(640, &[&[1, 84, cells]]), Some(Family::Yolov8));
            assert_eq!(at(640, &[&[1, 3 * cells, 85]]), Some(Family::Yolov5));
        }
        assert_eq!(at(640, &[&[1, 300, 6]]), Some(Family::Yolov10));
        let faces = outputs(&[&[1, 4420, 2], &[1, 4420, 4]]);
        assert_eq!(
            Family::recognize(&faces, (320, 240), false),
            Some(Family::Ultraface)
        );
        // A classifier, a class map, raw heads, another size.
        for shapes in [
            &[&[1, 1000][..]][..],
            &[&[1, 513, 513]],
            &[&[1, 255, 80, 80], &[1, 255, 40, 40], &[1, 255, 20, 20]],
            &[&[1, 3549, 85]],
        ] {
            assert_eq!(at(640, shapes), None, "{shapes:?}");
        }
    }

    #[test]
    fn outputs_that_are_not_the_familys_are_told() {
        for (name, shape) in [
            ("yolox", &[1, 8400, 85][..]),
            ("yolov5", &[1, 84, 8400, 1]),
            ("yolov8", &[1, 116, 8401]),
            ("yolov10", &[1, 300, 7]),
            ("yolov3", &[1, 255, 52, 52]),
            ("yolov4", &[1, 255, 52, 52]),
            ("ssd", &[1, 15130, 4]),
            ("ultraface", &[1, 4420, 4]),
            ("retinanet", &[1, 36, 52, 52]),
            ("faster_rcnn", &[1, 12, 52, 52]),
        ] {
            let family: Family = name.parse().unwrap();
            let e = Detector::new(family, &outputs(&[shape]), (416, 416), None, None).unwrap_err();
            assert!(e.contains(&format!("not those of {name} ")), "{e}");
        }
        assert!("yolo".parse::<Family>().unwrap_err().contains("yolov8"));
    }

    #[test]
    fn yoloxs_boxes_are_read_as_the_graph_leaves_them() {
        let side = (416, 416);
        for (decoded, head) in [(false, Head::Cells), (true, Head::Rows)] {
            let mut outputs = outputs(&[&[1, 3549, 85]]);
            outputs[0].decoded = decoded;
            assert_eq!(
                Family::recognize(&outputs, side, false),
                Some(Family::Yolox)
            );
            let yolox = Detector::new(Family::Yolox, &outputs, side, None, None).unwrap();
            assert_eq!((yolox.classes, &yolox.head), (80, &head));
            assert_eq!(yolox.mixes_pixels_and_scores(), decoded);
            // Who says the other family is believed.
            let said = Detector::new(Family::Yolov5, &outputs, side, None, None).unwrap();
            assert_eq!(said.head, Head::Rows);
        }
    }

    #[test]
    fn what_a_suppression_in_the_graph_reads_is_ssds_alone() {
        let side = (1200, 1200);
        let read = outputs(&[&[1, 15130, 4], &[1, 80, 15130]]);
        assert_eq!(Family::recognize(&read, side, true), Some(Family::Ssd));
        assert_eq!(Family::recognize(&read, side, false), None);
        assert_eq!(Family::recognize(&read, (1100, 1100), true), None);
        let limits = Some(Limits::default());
        let ssd = Detector::new(Family::Ssd, &read, side, None, limits).unwrap();
        assert_eq!((ssd.classes, ssd.head), (80, Head::Suppressed));
        for (family, shapes) in [
            (Family::Ssd, &[&[1, 15130, 4][..], &[1, 15130, 80]][..]),
            (Family::Ssd, &[&[1, 15130, 4]]),
            (Family::Yolox, &[&[1, 3549, 85]]),
        ] {
            let outputs = outputs(shapes);
            assert_eq!(Family::recognize(&outputs, (416, 416), true), None);
            let e = Detector::new(family, &outputs, (416, 416), None, limits).unwrap_err();
            assert!(e.contains("export without the suppression"), "{e}");
        }
    }

    #[test]
    fn raw_heads_are_found_in_any_layout_and_order() {
        for shapes in [
            [&[1, 255, 52, 52][..], &[1, 255, 26, 26], &[1, 255, 13, 13]],
            [
                &[1, 13, 13, 3, 85],
                &[1, 52, 52, 3, 85],
                &[1, 26, 26, 3, 85],
            ],
            [
                &[1, 3, 52, 52, 85],
                &[1, 3, 26, 26, 85],
                &[1, 3, 13, 13, 85],
            ],
            [&[1, 52, 52, 255], &[1, 26, 26, 255], &[1, 13, 13, 255]],
        ] {
            let d =
                Detector::new(Family::Yolov4, &outputs(&shapes), (416, 416), None, None).unwrap();
            assert_eq!(d.classes, 80);
            let Head::Anchors(grids) = d.head else {
                panic!("{:?}", d.head)
            };
            let strides: Vec<_> = grids.iter().map(|g| g.grid.stride).collect();
            assert_eq!(strides, [8, 16, 32]);
        }
    }
}
