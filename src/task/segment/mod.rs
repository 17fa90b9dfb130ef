//! A segmenter's output → the share of the frame that each class covers, and where: masks and polygons, if they are asked for.
//!
//! In: [`Outputs`] of one inference, and where the input lies in the frame. Out: a [`Segmentation`]. On the `infer-<n>` threads. Always
//! holds: the map of classes itself stays here; shares add up to no more than 1.

mod map;
mod polygon;
mod rle;

use std::sync::Arc;

use serde::Deserialize;

pub use polygon::{Polygon, Ring};
pub use rle::Rle;

use super::{Task, TaskError, TaskResult, wanted};
use crate::model::{Labels, ModelInfo, OutputTensor, Outputs};
use crate::preprocess::{ColourOrder, InputMapping, Normalize, ResizePolicy, UsualInput};
use map::ClassMap;

/// What a frame consists of.
#[derive(Debug, Clone, PartialEq)]
pub struct Segmentation {
    /// Width and height of the map of classes, in its pixels.
    pub size: (u32, u32),
    /// Where that map lies in the frame, `[x0, y0, x1, y1]` in 0 to 1: all of it, unless the input is a crop.
    pub covers: [f32; 4],
    /// The classes that are there, the largest first.
    pub segments: Vec<Segment>,
}

/// One class of a frame.
#[derive(Debug, Clone, PartialEq)]
pub struct Segment {
    /// Its name from `labels.txt`, or the index as text.
    pub label: Arc<str>,
    /// Its number in the map.
    pub index: usize,
    /// Its share of the frame, 0 to 1.
    pub area: f32,
    /// Its pixels, if asked for.
    pub rle: Option<Rle>,
    /// Its outlines, if asked for.
    pub polygons: Option<Vec<Polygon>>,
}

impl Segmentation {
    /// The class of each pixel of the map, row by row, from the masks; `None` where there is none.
    pub fn classes(&self) -> Vec<Option<usize>> {
        let width = self.size.0 as usize;
        let mut classes = vec![None; width * self.size.1 as usize];
        for s in &self.segments {
            for (x, rows) in s.rle.iter().flat_map(Rle::runs) {
                for y in rows {
                    classes[y * width + x] = Some(s.index);
                }
            }
        }
        classes
    }
}

/// How a segmenter's output is to be read.
#[derive(Debug, Clone, PartialEq)]
pub struct Segmenter {
    /// How many classes there are; 0 if the output does not tell.
    pub classes: usize,
    values: Values,
    /// Width and height of the output.
    size: (usize, usize),
    /// Width and height of the input.
    input: (usize, usize),
}

/// What the output's numbers are.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Values {
    /// A score of each class for each pixel; the highest counts.
    Scores { channels_last: bool },
    /// Class numbers.
    Classes,
}

/// The output, as far as it tells how it is to be read.
#[derive(Debug, Clone)]
pub struct MapOutput {
    /// The axes' lengths.
    pub shape: Vec<usize>,
    /// Whether it has whole numbers.
    pub is_integer: bool,
    /// Classes among which an ArgMax chose it, if one did.
    pub argmax_of: Option<usize>,
}

/// The names that torchvision's FCN and DeepLab were trained with, and most others for 21 classes: Pascal VOC's.
const VOC: &str = "background\naeroplane\nbicycle\nbird\nboat\nbottle\nbus\ncar\ncat\nchair\ncow\ndining table\ndog\nhorse\nmotorbike\nperson\npotted plant\nsheep\nsofa\ntrain\ntv monitor\n";

impl Segmenter {
    /// Whether the output is surely one: whole numbers, or scores of 2 or more classes that are no colours, for each pixel of the input.
    pub fn recognize(output: &MapOutput, input: (usize, usize), channels_last: bool) -> bool {
        let found = Self::new(output, input, channels_last);
        found.is_ok_and(|s| s.size == input && s.classes != 3 && s.classes != 4)
    }

    /// # Errors
    /// The output's shape is none of a segmenter.
    pub fn new(
        output: &MapOutput,
        input: (usize, usize),
        channels_last: bool,
    ) -> Result<Self, String> {
        let (values, classes, height, width) = match (output.shape.as_slice(), output.is_integer) {
            ([1, h, w] | [h, w] | [1, 1, h, w] | [1, h, w, 1], true) => {
                (Values::Classes, output.argmax_of.unwrap_or(0), *h, *w)
            }
            ([1, c, h, w], false) if !channels_last => {
                (Values::Scores { channels_last }, *c, *h, *w)
            }
            ([1, h, w, c], false) if channels_last => {
                (Values::Scores { channels_last }, *c, *h, *w)
            }
            (shape, _) => {
                return Err(format!(
                    "its output {shape:?} is none of a segmenter: scores [1, classes, height, width] or whole numbers [1, height, width]; say the tensor by [segment] output in model.toml"
                ));
            }
        };
        if width * height < 2 || matches!(values, Values::Scores { .. }) && classes < 2 {
            return Err(format!(
                "its output {:?} has no scores of two classes or more for several pixels",
                output.shape
            ));
        }
        if classes >= usize::from(map::NONE) {
            return Err(format!("{classes} classes are too many"));
        }
        Ok(Self {
            classes,
            values,
            size: (width, height),
            input,
        })
    }

    /// Labels that are assumed if the model comes without: Pascal VOC's for 21 classes.
    pub fn usual_labels(&self) -> Option<&'static str> {
        (self.classes == 21).then_some(VOC)
    }

    /// How pictures are prepared, unless the bundle says otherwise: the whole frame, normalized as torchvision does it; for a network
    /// that takes bytes (`pixels`) as it is.
    pub fn usual_input(pixels: bool) -> UsualInput {
        UsualInput {
            colour: ColourOrder::Rgb,
            normalize: if pixels {
                Normalize::NONE
            } else {
                Normalize::IMAGENET
            },
            resize: ResizePolicy::Stretch,
        }
    }

    fn check(&self, output: &OutputTensor) -> Result<(), TaskError> {
        let pixels = self.size.0 * self.size.1;
        let expected = match self.values {
            Values::Scores { .. } => pixels * self.classes,
            Values::Classes => pixels,
        };
        match output.values.len() {
            n if n == expected => Ok(()),
            actual => Err(TaskError::Length {
                name: output.name.clone(),
                actual,
                expected,
            }),
        }
    }
}

/// `[model.segment]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SegmentSettings {
    /// What is told of a class besides the share of the frame that it covers.
    pub shapes: Vec<Shape>,
    /// In which pixels classes are counted, masks and polygons made.
    pub size: MapSize,
    /// Classes that cover less than this share of the frame are left out.
    pub min_area: f32,
    /// How far a polygon may be from the border, as a share of the frame's longer side.
    pub tolerance: f32,
    /// The labels that are wanted; all if empty.
    pub only: Vec<String>,
}

/// What is told of where a class is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Shape {
    /// COCO's run-length mask.
    Rle,
    /// Outlines.
    Polygons,
}

/// The size of the map of classes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MapSize {
    /// As the network gives it.
    #[default]
    Model,
    /// As the frame: each of its pixels gets the class of the network's pixel that its middle lies in.
    Frame,
}

impl std::str::FromStr for MapSize {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        match s {
            "model" => Ok(Self::Model),
            "frame" => Ok(Self::Frame),
            _ => Err("`model` or `frame`".into()),
        }
    }
}

impl Default for SegmentSettings {
    fn default() -> Self {
        Self {
            shapes: Vec::new(),
            size: MapSize::Model,
            min_area: 0.0,
            tolerance: 0.004,
            only: Vec::new(),
        }
    }
}

impl SegmentSettings {
    /// Values that can never work: key and message.
    pub fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        for (key, value) in [
            ("segment.min_area", self.min_area),
            ("segment.tolerance", self.tolerance),
        ] {
            if !(0.0..=1.0).contains(&value) {
                problems.push((key, format!("{value} is not between 0 and 1")));
            }
        }
        problems
    }
}

/// Classes of one segmenter's pixels.
pub struct Segments {
    segmenter: Segmenter,
    labels: Labels,
    settings: SegmentSettings,
    /// For each class, whether it is wanted; empty: all are.
    only: Vec<bool>,
    map: ClassMap,
    pixels: Vec<usize>,
}

impl Segments {
    /// # Errors
    /// The model is no segmenter, or a label that is wanted is none of its own.
    pub fn new(model: &ModelInfo, settings: &SegmentSettings) -> Result<Self, TaskError> {
        let fix = "it is no segmenter, or was not loaded as one: put `segment` into its tasks";
        let segmenter = model
            .segmenter
            .clone()
            .ok_or(TaskError::NoOutput("segmentation", fix))?;
        Ok(Self {
            segmenter,
            only: wanted(&model.labels, &settings.only)?,
            labels: model.labels.clone(),
            settings: settings.clone(),
            map: ClassMap::default(),
            pixels: Vec::new(),
        })
    }

    /// The share of the frame that a pixel of the map covers.
    fn pixel_area(&self) -> f64 {
        let (x, y) = (self.map.x, self.map.y);
        let pixels = (self.map.width * self.map.height) as f64;
        (x.to - x.from) * (y.to - y.from) / pixels
    }
}

impl Task for Segments {
    fn decode(
        &mut self,
        outputs: &Outputs,
        mapping: &InputMapping,
    ) -> Result<TaskResult, TaskError> {
        let output = outputs.get(0);
        self.segmenter.check(output)?;
        let map = &mut self.map;
        map.read(&self.segmenter, &output.values, mapping, self.settings.size);
        self.pixels.clear();
        for class in map.classes.iter().filter(|c| **c != map::NONE) {
            let class = usize::from(*class);
            if class >= self.pixels.len() {
                self.pixels.resize(class + 1, 0);
            }
            self.pixels[class] += 1;
        }
        let pixel = self.pixel_area();
        let area = |class: usize| (self.pixels[class] as f64 * pixel).min(1.0) as f32;
        let is_wanted = |class: usize| {
            let named = self.only.is_empty() || self.only.get(class) == Some(&true);
            named && self.pixels[class] > 0 && area(class) >= self.settings.min_area
        };
        let wanted: Vec<bool> = (0..self.pixels.len()).map(is_wanted).collect();
        let asked = |shape| self.settings.shapes.contains(&shape);
        let mut masks = match asked(Shape::Rle) {
            true => rle::masks(&self.map, &wanted),
            false => vec![],
        };
        let mut outlines = asked(Shape::Polygons)
            .then(|| polygon::polygons(&self.map, &wanted, mapping.frame, self.settings.tolerance));
        let present = (0..wanted.len()).filter(|c| wanted[*c]);
        let mut segments: Vec<Segment> = present
            .map(|class| Segment {
                label: self.labels.get(class),
                index: class,
                area: area(class),
                rle: masks.get_mut(class).and_then(Option::take),
                polygons: outlines.as_mut().map(|o| std::mem::take(&mut o[class])),
            })
            .collect();
        segments.sort_by(|a, b| b.area.total_cmp(&a.area).then(a.index.cmp(&b.index)));
        let (x, y) = (self.map.x, self.map.y);
        Ok(TaskResult::Segmentation(Segmentation {
            size: (self.map.width as u32, self.map.height as u32),
            covers: [x.from, y.from, x.to, y.to].map(|v| v as f32),
            segments,
        }))
    }
}
