//! `ocellus detect IMAGE…`: what the model finds in files, and where, and what a second one says of it; a table for people, JSON
//! lines for programs, pictures with the boxes drawn.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;
use serde_json::Value;

use super::setup::{ModelArgs, check_flags, named_model, single_model};
use super::still::{Annotated, Answer, Size, Stills};
use super::{ConfigError, annotate, still};
use crate::frame::Frame;
use crate::observe::crops::{CropResult, CropSettings};
use crate::pipeline::{self, ModelRunner};
use crate::preprocess::Region;
use crate::publish::mqtt::payload;
use crate::task::detect::{DetectSettings, Family, Suppression};
use crate::task::{self, Class, Detection, TaskKind, TaskResult, TaskSettings};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// JPEG, PNG, BMP or WebP files
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<PathBuf>,
    #[command(flatten)]
    model: ModelArgs,
    /// How the outputs are read, where neither the bundle nor their shapes tell: yolox, yolov3, yolov4, yolov5, yolov7,
    /// yolov8, yolov9, yolov10, yolo11, ssd, ultraface, retinanet, faster_rcnn
    #[arg(long, value_name = "NAME")]
    family: Option<Family>,
    /// Lowest score (default: 0.5)
    #[arg(long, value_name = "SHARE")]
    threshold: Option<f32>,
    /// A box goes if it overlaps a better one by more than this, as intersection over union (default: as a suppression in the graph has it,
    /// else 0.45)
    #[arg(long, value_name = "SHARE")]
    iou: Option<f32>,
    /// Boxes of different classes suppress each other, too
    #[arg(long)]
    agnostic: bool,
    /// How many boxes an image has at most (default: as a suppression in the graph has it, else 100)
    #[arg(long, value_name = "N")]
    max: Option<usize>,
    /// Only this label; may be repeated
    #[arg(long, value_name = "LABEL")]
    only: Vec<String>,
    /// Write each image as a JPEG with boxes and labels into this directory, by the same name
    #[arg(long, value_name = "DIR")]
    annotate: Option<PathBuf>,
    /// A second model that looks at the crop of each box: classes or an embedding of what is in it
    #[arg(long, value_name = "PATH")]
    then: Option<PathBuf>,
    /// Labels of the second model, if it is a bare .onnx file, one a line
    #[arg(long, value_name = "FILE", requires = "then")]
    then_labels: Option<PathBuf>,
    /// What is added to the box for its crop on each side, in parts of its size
    #[arg(long, value_name = "SHARE", default_value_t = CropSettings::default().margin)]
    margin: f32,
    /// For programs: a JSON object a line
    #[arg(long)]
    json: bool,
}

/// What was found in one image, best first.
#[derive(Serialize)]
struct Answered {
    frame: Size,
    detections: Vec<Found>,
}

/// As on MQTT, not rounded.
#[derive(Serialize)]
struct Found {
    label: Arc<str>,
    index: usize,
    score: f32,
    /// x0, y0, x1, y1 in 0–1 of the frame.
    r#box: [f32; 4],
    /// As on MQTT.
    #[serde(skip_serializing_if = "Option::is_none")]
    crops: Option<[Value; 1]>,
    /// For the table.
    #[serde(skip)]
    said: Vec<String>,
}

/// Looks at the crops of what was found.
struct Second {
    runner: ModelRunner,
    margin: f32,
}

impl Second {
    fn load(args: &Args) -> anyhow::Result<Option<Self>> {
        let Some(path) = &args.then else {
            return Ok(None);
        };
        let model = ModelArgs {
            model: Some(path.clone()),
            labels: args.then_labels.clone(),
            threads: args.model.threads,
        };
        let model = single_model(&model, &[], None)?;
        pipeline::check_tasks(model.info()).map_err(|e| ConfigError(format!("--then: {e}")))?;
        Ok(Some(Self {
            runner: ModelRunner::new(&model, &TaskSettings::default())?,
            margin: args.margin,
        }))
    }

    fn look(&mut self, frame: &Frame, size: Size, d: &Detection) -> anyhow::Result<CropResult> {
        let size = (size.width, size.height);
        let region = Region::around(d.bbox.corners(), self.margin, size);
        Ok(CropResult {
            results: self.runner.run(frame, Some(region))?.results,
            model: self.runner.reference.clone(),
            captured_at: frame.meta.captured_at,
        })
    }
}

/// What is shown of a crop: its best classes, the length of its embedding.
fn said(crop: &CropResult) -> Vec<String> {
    let one = |r: &TaskResult| match r {
        TaskResult::Classification(classes) => {
            let class = |c: &Class| format!("{:.1} % {}", 100.0 * c.score, c.label);
            let best: Vec<_> = classes.iter().take(3).map(class).collect();
            best.join(", ")
        }
        TaskResult::Embedding(e) => format!("an embedding of {}", e.values.len()),
        _ => unreachable!("tasks for crops classify and embed"),
    };
    crop.results.iter().map(one).collect()
}

/// Behind the detection's own label in a picture.
fn caption(crop: &CropResult) -> Option<String> {
    let best = crop.results.iter().find_map(|r| match r {
        TaskResult::Classification(classes) => classes.first(),
        _ => None,
    });
    best.map(|c| format!("{} {:.0}%", c.label, 100.0 * c.score))
}

pub(super) fn run(args: Args) -> anyhow::Result<()> {
    let settings = settings(&args)?;
    let model = named_model(&args.model, "detector", TaskKind::Detect, args.family)?;
    let task = task::build(TaskKind::Detect, model.info(), &settings)
        .map_err(|e| ConfigError(e.to_string()))?;
    let mut second = Second::load(&args)?;
    let mut stills = Stills::new(&model, model.info().input.clone(), task)?;
    let annotated = args.annotate.as_deref().map(Annotated::into).transpose()?;
    still::each(&args.images, args.json, |image| {
        let started = Instant::now();
        let still = stills.run(image)?;
        let TaskResult::Detections(found) = still.result else {
            unreachable!("a detect task gives detections")
        };
        let mut crops = Vec::new();
        if let Some(second) = &mut second {
            for d in &found {
                crops.push(second.look(&still.frame, still.size, d)?);
            }
        }
        let took = started.elapsed();
        if let Some(annotated) = &annotated {
            let captions: Vec<_> = crops.iter().map(caption).collect();
            let drawn = annotate::boxes(&still.frame, &found, &captions)?;
            annotated.write(image, &drawn)?;
        }
        let found = found.into_iter().enumerate().map(|(nth, d)| {
            let crop = crops.get(nth);
            Found {
                label: d.label,
                index: d.index,
                score: d.score,
                r#box: d.bbox.corners(),
                crops: crop.map(|c| [payload::crop(c, c.captured_at)]),
                said: crop.map(said).unwrap_or_default(),
            }
        });
        let answered = Answered {
            frame: still.size,
            detections: found.collect(),
        };
        Ok((answered, took))
    })
}

fn settings(args: &Args) -> anyhow::Result<TaskSettings> {
    let detect = DetectSettings {
        family: args.family,
        threshold: args.threshold,
        iou: args.iou,
        nms: match args.agnostic {
            true => Suppression::Agnostic,
            false => Suppression::Class,
        },
        max: args.max,
        only: args.only.clone(),
    };
    check_flags(detect.problems())?;
    let crops = CropSettings {
        of: "the detector".into(),
        margin: args.margin,
        ..CropSettings::default()
    };
    check_flags(crops.problems())?;
    Ok(TaskSettings {
        detect,
        ..Default::default()
    })
}

impl Answer for Answered {
    fn write_table(&self, out: &mut dyn Write, image: &Path) -> std::io::Result<()> {
        let Size { width, height } = self.frame;
        writeln!(out, "{} ({width}x{height})", image.display())?;
        for d in &self.detections {
            let [x0, y0, x1, y1] = d.r#box;
            let px = |share: f32, side: u32| (share * side as f32).round() as u32;
            writeln!(
                out,
                "  {:>5.1} %  {:<20} {:>5}, {:>5}  to {:>5}, {:>5}",
                100.0 * d.score,
                d.label,
                px(x0, width),
                px(y0, height),
                px(x1, width),
                px(y1, height)
            )?;
            for said in &d.said {
                writeln!(out, "           {said}")?;
            }
        }
        if self.detections.is_empty() {
            writeln!(out, "  nothing")?;
        }
        Ok(())
    }
}
