//! `ocellus detect IMAGE…`: what the model finds in files, and where; a table for people, JSON lines for programs, pictures
//! with the boxes drawn.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context;
use serde::Serialize;

use super::setup::{ModelArgs, single_model};
use super::still::Stills;
use super::{ConfigError, annotate};
use crate::frame::Frame;
use crate::preprocess::frame_size;
use crate::task::detect::{DetectSettings, Detection, Family, Suppression};
use crate::task::{self, TaskKind, TaskResult};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// JPEG, PNG, BMP or WebP files
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<PathBuf>,
    #[command(flatten)]
    model: ModelArgs,
    /// How the outputs are read, where neither the bundle nor their shapes tell: yolox, yolov3, yolov4, yolov5, yolov7,
    /// yolov8, yolov9, yolov10, yolo11, ssd, ultraface
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

#[derive(Serialize)]
struct Record<'a> {
    image: &'a Path,
    #[serde(skip_serializing_if = "Option::is_none")]
    frame: Option<Size>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detections: Option<Vec<Found<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    took_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

#[derive(Serialize)]
struct Size {
    width: u32,
    height: u32,
}

/// As on MQTT, not rounded.
#[derive(Serialize)]
struct Found<'a> {
    label: &'a str,
    index: usize,
    score: f32,
    /// x0, y0, x1, y1 in 0–1 of the frame.
    r#box: [f32; 4],
}

pub(super) fn run(args: Args) -> anyhow::Result<()> {
    if args.model.model.is_none() {
        let fix = "which detector? give --model: a bundle's directory, an .onnx file, or the name of a pulled model";
        return Err(ConfigError(fix.into()).into());
    }
    let settings = settings(&args)?;
    let model = single_model(&args.model, &[TaskKind::Detect], args.family)?;
    let task = task::build(TaskKind::Detect, model.info(), &settings)
        .map_err(|e| ConfigError(e.to_string()))?;
    let mut stills = Stills::new(&model, model.info().input.clone(), task)?;
    if let Some(directory) = &args.annotate {
        std::fs::create_dir_all(directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
    }
    let mut failed = 0;
    let mut out = std::io::stdout().lock();
    for image in &args.images {
        let started = Instant::now();
        let found = stills.run(image).and_then(|still| {
            let ms = started.elapsed().as_secs_f64() * 1e3;
            let TaskResult::Detections(found) = still.result else {
                unreachable!("a detect task gives detections")
            };
            let size = frame_size(&still.frame)?;
            if let Some(directory) = &args.annotate {
                write_annotated(&still.frame, &found, image, directory)?;
            }
            Ok((found, size, ms))
        });
        failed += usize::from(found.is_err());
        match (&found, args.json) {
            (_, true) => write_json(&mut out, image, &found)?,
            (Ok((found, size, _)), false) => write_table(&mut out, image, found, *size)?,
            (Err(e), false) => eprintln!("{}: {e:#}", image.display()),
        }
    }
    anyhow::ensure!(
        failed == 0,
        "{failed} of {} images could not be looked at",
        args.images.len()
    );
    Ok(())
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
    if let Some((key, problem)) = detect.problems().into_iter().next() {
        let flag = key.trim_start_matches("detect.");
        return Err(ConfigError(format!("--{flag}: {problem}")).into());
    }
    Ok(task::TaskSettings {
        detect,
        ..Default::default()
    })
}

fn write_annotated(
    frame: &Frame,
    found: &[Detection],
    image: &Path,
    directory: &Path,
) -> anyhow::Result<()> {
    let name = image.file_name().context("the image has no name")?;
    let path = directory.join(name).with_extension("jpg");
    // Never over the picture that was looked at.
    let is_source = std::fs::canonicalize(&path)
        .is_ok_and(|p| std::fs::canonicalize(image).is_ok_and(|source| p == source));
    anyhow::ensure!(
        !is_source,
        "{} would be overwritten: give --annotate another directory",
        path.display()
    );
    let jpeg = annotate::jpeg(frame, found)?;
    std::fs::write(&path, jpeg).with_context(|| format!("cannot write {}", path.display()))
}

type Looked = anyhow::Result<(Vec<Detection>, (u32, u32), f64)>;

fn write_json(out: &mut impl Write, image: &Path, found: &Looked) -> anyhow::Result<()> {
    let record = match found {
        Ok((found, (width, height), ms)) => Record {
            image,
            frame: Some(Size {
                width: *width,
                height: *height,
            }),
            detections: Some(
                found
                    .iter()
                    .map(|d| Found {
                        label: &d.label,
                        index: d.index,
                        score: d.score,
                        r#box: d.bbox.corners(),
                    })
                    .collect(),
            ),
            took_ms: Some((ms * 10.0).round() / 10.0),
            error: None,
        },
        Err(e) => Record {
            image,
            error: Some(format!("{e:#}")),
            frame: None,
            detections: None,
            took_ms: None,
        },
    };
    serde_json::to_writer(&mut *out, &record)?;
    writeln!(out)?;
    Ok(())
}

fn write_table(
    out: &mut impl Write,
    image: &Path,
    found: &[Detection],
    (width, height): (u32, u32),
) -> anyhow::Result<()> {
    writeln!(out, "{} ({width}x{height})", image.display())?;
    for d in found {
        let [x0, y0, x1, y1] = d.bbox.corners();
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
    if found.is_empty() {
        writeln!(out, "  nothing")?;
    }
    Ok(())
}
