//! `ocellus detect IMAGE…`: what the model finds in files, and where; a table for people, JSON lines for programs, pictures
//! with the boxes drawn.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use super::setup::{ModelArgs, check_flags, named_model};
use super::still::{Annotated, Answer, Size, Stills};
use super::{ConfigError, annotate, still};
use crate::task::detect::{DetectSettings, Family, Suppression};
use crate::task::{self, TaskKind, TaskResult};

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
    /// Lowest score
    #[arg(long, value_name = "SHARE", default_value_t = DetectSettings::default().threshold)]
    threshold: f32,
    /// A box goes if it overlaps a better one by more than this (intersection over union)
    #[arg(long, value_name = "SHARE", default_value_t = DetectSettings::default().iou)]
    iou: f32,
    /// Boxes of different classes suppress each other, too
    #[arg(long)]
    agnostic: bool,
    /// How many boxes an image has at most
    #[arg(long, value_name = "N", default_value_t = DetectSettings::default().max)]
    max: usize,
    /// Only this label; may be repeated
    #[arg(long, value_name = "LABEL")]
    only: Vec<String>,
    /// Write each image as a JPEG with boxes and labels into this directory, by the same name
    #[arg(long, value_name = "DIR")]
    annotate: Option<PathBuf>,
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
}

pub(super) fn run(args: Args) -> anyhow::Result<()> {
    let settings = settings(&args)?;
    let model = named_model(&args.model, "detector", TaskKind::Detect, args.family)?;
    let task = task::build(TaskKind::Detect, model.info(), &settings)
        .map_err(|e| ConfigError(e.to_string()))?;
    let mut stills = Stills::new(&model, model.info().input.clone(), task)?;
    let annotated = args.annotate.as_deref().map(Annotated::into).transpose()?;
    still::each(&args.images, args.json, |image| {
        let still = stills.run(image)?;
        let TaskResult::Detections(found) = still.result else {
            unreachable!("a detect task gives detections")
        };
        if let Some(annotated) = &annotated {
            annotated.write(image, &annotate::boxes(&still.frame, &found)?)?;
        }
        let found = found.into_iter().map(|d| Found {
            label: d.label,
            index: d.index,
            score: d.score,
            r#box: d.bbox.corners(),
        });
        let answered = Answered {
            frame: still.size,
            detections: found.collect(),
        };
        Ok((answered, still.took))
    })
}

fn settings(args: &Args) -> anyhow::Result<task::TaskSettings> {
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
    Ok(task::TaskSettings {
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
        }
        if self.detections.is_empty() {
            writeln!(out, "  nothing")?;
        }
        Ok(())
    }
}
