//! A detector's outputs → boxes with labels.
//!
//! In: [`Outputs`] of one inference, and where the input lies in the frame. Out: [`Detection`]s, best first, in 0–1 coordinates of
//! the frame. On the `infer-<n>` threads. Always holds: boxes lie within the frame and have an area; at most `max` of them.

pub(crate) mod anchors;
mod family;
mod heads;
pub mod nms;
mod ssd;
mod truth;

use std::sync::Arc;

use serde::Deserialize;

pub use family::{Anchors, Detector, Family, HeadOutput};
pub use nms::Suppression;
pub use truth::is_right;

use super::{Class, Task, TaskError, TaskResult, wanted};
use crate::model::{Labels, ModelInfo, Outputs};
use crate::preprocess::InputMapping;
use nms::{Candidates, Nms};

/// One thing that was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Detection {
    /// Its class's name from `labels.txt`, or the index as text.
    pub label: Arc<str>,
    /// Its class: index in the model's classes, a background class not counted.
    pub index: usize,
    /// 0 to 1.
    pub score: f32,
    /// Where it is.
    pub bbox: BBox,
}

/// A box in 0–1 coordinates of the frame: (0, 0) is its top left corner, (1, 1) its bottom right one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BBox {
    /// Left edge.
    pub x0: f32,
    /// Top edge.
    pub y0: f32,
    /// Right edge, above `x0`.
    pub x1: f32,
    /// Bottom edge, above `y0`.
    pub y1: f32,
}

impl From<[f32; 4]> for BBox {
    fn from([x0, y0, x1, y1]: [f32; 4]) -> Self {
        Self { x0, y0, x1, y1 }
    }
}

impl BBox {
    /// As messages have it: `[x0, y0, x1, y1]`.
    pub fn corners(&self) -> [f32; 4] {
        [self.x0, self.y0, self.x1, self.y1]
    }

    /// Share of the frame.
    pub fn area(&self) -> f32 {
        (self.x1 - self.x0) * (self.y1 - self.y0)
    }

    /// The middle.
    pub fn centre(&self) -> (f32, f32) {
        ((self.x0 + self.x1) / 2.0, (self.y0 + self.y1) / 2.0)
    }

    /// Intersection over union, 0 to 1.
    pub fn iou(&self, other: &Self) -> f32 {
        let w = self.x1.min(other.x1) - self.x0.max(other.x0);
        let h = self.y1.min(other.y1) - self.y0.max(other.y0);
        let both = w.max(0.0) * h.max(0.0);
        let either = self.area() + other.area() - both;
        if either > 0.0 { both / either } else { 0.0 }
    }

    /// Corners in pixels of the input, brought to the frame and cut at its edges; `None` if nothing of it is in the frame.
    pub fn from_input([x0, y0, x1, y1]: [f32; 4], mapping: &InputMapping) -> Option<Self> {
        let (w, h) = (mapping.frame.0 as f32, mapping.frame.1 as f32);
        let (x0, y0) = mapping.to_frame(x0, y0);
        let (x1, y1) = mapping.to_frame(x1, y1);
        let share = |v: f32, of: f32| (v / of).clamp(0.0, 1.0);
        let b = Self {
            x0: share(x0, w),
            y0: share(y0, h),
            x1: share(x1, w),
            y1: share(y1, h),
        };
        (b.x1 > b.x0 && b.y1 > b.y0).then_some(b)
    }
}

/// The best detection of each label, best first: what a picture shows.
pub fn strongest(detections: &[Detection]) -> Vec<Class> {
    let mut classes: Vec<Class> = Vec::new();
    for d in detections {
        if classes.iter().all(|c| c.index != d.index) {
            classes.push(Class {
                index: d.index,
                label: d.label.clone(),
                score: d.score,
            });
        }
    }
    classes
}

/// The most detections that a message may have.
pub const MAX_DETECTIONS: usize = 1000;

/// `[model.detect]`
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DetectSettings {
    /// How the outputs are read, where neither the bundle nor their shapes tell.
    pub family: Option<Family>,
    /// As [`Limits::threshold`].
    pub threshold: Option<f32>,
    /// As [`Limits::iou`].
    pub iou: Option<f32>,
    /// Which boxes suppress each other.
    pub nms: Suppression,
    /// As [`Limits::max`].
    pub max: Option<usize>,
    /// The labels that are wanted; all if empty.
    pub only: Vec<String>,
}

/// What is left out of the detections.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Detections with a lower score.
    pub threshold: f32,
    /// Boxes that overlap a better one by more than this (intersection over union).
    pub iou: f32,
    /// All but the best so many.
    pub max: usize,
    /// All but the best so many of a class, if the model's own suppression says so.
    pub per_class: Option<usize>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            threshold: 0.5,
            iou: 0.45,
            max: 100,
            per_class: None,
        }
    }
}

impl DetectSettings {
    /// What is not said is as the model's own suppression has it, else as usual.
    pub fn limits(&self, own: Option<Limits>) -> Limits {
        let usual = own.unwrap_or_default();
        Limits {
            threshold: self.threshold.unwrap_or(usual.threshold),
            iou: self.iou.unwrap_or(usual.iou),
            max: self.max.unwrap_or(usual.max),
            ..usual
        }
    }

    /// Values that can never work: key and message.
    pub fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        for (key, value) in [
            ("detect.threshold", self.threshold),
            ("detect.iou", self.iou),
        ] {
            if let Some(value) = value.filter(|v| !(0.0..=1.0).contains(v)) {
                problems.push((key, format!("{value} is not between 0 and 1")));
            }
        }
        if let Some(max) = self.max.filter(|n| !(1..=MAX_DETECTIONS).contains(n)) {
            let problem = format!("{max} is not between 1 and {MAX_DETECTIONS}");
            problems.push(("detect.max", problem));
        }
        problems
    }
}

/// Boxes of one detector.
pub struct Detect {
    detector: Detector,
    labels: Labels,
    suppression: Suppression,
    limits: Limits,
    /// The lowest score for now.
    threshold: f32,
    /// For each class, whether it is wanted; empty: all are.
    only: Vec<bool>,
    candidates: Candidates,
    nms: Nms,
}

impl Detect {
    /// # Errors
    /// The model is no detector, or a label that is wanted is none of its own.
    pub fn new(model: &ModelInfo, settings: &DetectSettings) -> Result<Self, TaskError> {
        let fix = "it is no detector, or was not loaded as one: put `detect` into its tasks";
        let detector = model
            .detector
            .clone()
            .ok_or(TaskError::NoOutput("detection", fix))?;
        let limits = settings.limits(detector.own_limits);
        Ok(Self {
            detector,
            labels: model.labels.clone(),
            suppression: settings.nms,
            limits,
            threshold: limits.threshold,
            only: wanted(&model.labels, &settings.only)?,
            candidates: Candidates::default(),
            nms: Nms::default(),
        })
    }
}

impl Task for Detect {
    fn set_threshold(&mut self, threshold: Option<f32>) {
        self.threshold = threshold.unwrap_or(self.limits.threshold);
    }

    fn decode(
        &mut self,
        outputs: &Outputs,
        mapping: &InputMapping,
    ) -> Result<TaskResult, TaskError> {
        let wanted = heads::Wanted {
            threshold: self.threshold,
            classes: &self.only,
            picture: mapping.picture(self.detector.input),
        };
        self.candidates.clear();
        heads::read(&self.detector, outputs, &wanted, &mut self.candidates);
        let suppression = self.detector.suppresses().then_some(self.suppression);
        let Limits {
            iou,
            max,
            per_class,
            ..
        } = self.limits;
        let kept = (self.nms).run(&self.candidates, suppression, iou, max, per_class);
        let detections = kept.iter().filter_map(|&i| {
            let (corners, score, index) = self.candidates.get(i);
            Some(Detection {
                label: self.labels.get(index),
                index,
                score: score.min(1.0),
                bbox: BBox::from_input(corners, mapping)?,
            })
        });
        Ok(TaskResult::Detections(detections.collect()))
    }
}

#[cfg(test)]
mod tests;
