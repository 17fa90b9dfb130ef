//! `ocellus model eval`: how good a model is on images that somebody has labelled, through the same code as in a camera's pipeline.

mod boxes;
mod classes;
mod pixels;

use std::io::Write;
use std::path::PathBuf;

use serde::Serialize;

use crate::cli::ConfigError;
use crate::model::{LoadOptions, Model, ModelInfo};
use crate::task::TaskKind;
use crate::task::detect::Family;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    model: super::ModelPath,
    /// The images. For a classifier they are labelled: a folder a class, named as the label or by the class number; or files named
    /// NNNN_….jpg by their class number
    #[arg(long, value_name = "DIR")]
    images: PathBuf,
    /// For a detector: COCO's JSON file, or a directory of YOLO's text files
    #[arg(long, value_name = "PATH", conflicts_with = "masks")]
    annotations: Option<PathBuf>,
    /// For a segmenter: PNG files by the images' names, whose pixels are class numbers
    #[arg(long, value_name = "DIR")]
    masks: Option<PathBuf>,
    /// The number of pixels that are left open in the masks
    #[arg(long, value_name = "N", default_value_t = 255, requires = "masks")]
    void: u16,
    /// Only boxes of this label count; may be repeated
    #[arg(long, value_name = "LABEL", requires = "annotations")]
    only: Vec<String>,
    /// Boxes with a lower score are left out
    #[arg(
        long,
        value_name = "SHARE",
        default_value_t = 0.001,
        requires = "annotations"
    )]
    threshold: f32,
    /// A box goes if it overlaps a better one by more than this (intersection over union)
    #[arg(
        long,
        value_name = "SHARE",
        default_value_t = 0.65,
        requires = "annotations"
    )]
    iou: f32,
    /// How a detector's outputs are read, where neither the bundle nor their shapes tell
    #[arg(long, value_name = "NAME", requires = "annotations")]
    family: Option<Family>,
    /// Write what was found into this file, in COCO's form of results
    #[arg(long, value_name = "FILE", requires = "annotations")]
    save: Option<PathBuf>,
    /// Labels of a bare .onnx file, one a line
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,
    /// Threads that compute one inference together
    #[arg(long, value_name = "N", default_value_t = 1)]
    threads: usize,
    /// For programs: a JSON object
    #[arg(long)]
    json: bool,
}

/// What is said at the end.
trait Report: Serialize {
    fn write_table(&self, out: &mut dyn Write) -> std::io::Result<()>;
}

impl Args {
    fn load(&self, tasks: &[TaskKind]) -> anyhow::Result<Model> {
        let options = LoadOptions {
            labels: self.labels.clone(),
            tasks: tasks.to_vec(),
            family: self.family,
            threads: self.threads,
            ..LoadOptions::default()
        };
        Ok(Model::load(&self.model.resolve()?, &options)?)
    }

    fn print(&self, report: &impl Report) -> anyhow::Result<()> {
        let mut out = std::io::stdout().lock();
        if self.json {
            serde_json::to_writer_pretty(&mut out, report)?;
            writeln!(out)?;
        } else {
            report.write_table(&mut out)?;
        }
        Ok(())
    }
}

pub(super) fn run(args: Args) -> anyhow::Result<()> {
    if let Some(annotations) = &args.annotations {
        return boxes::run(&args.load(&[TaskKind::Detect])?, &args, annotations);
    }
    if let Some(masks) = &args.masks {
        return pixels::run(&args.load(&[TaskKind::Segment])?, &args, masks);
    }
    let model = args.load(&[])?;
    let tasks = &model.info().tasks;
    if tasks.contains(&TaskKind::Classify) {
        return classes::run(&model, &args);
    }
    let missing = |what| Err(ConfigError(format!("{}: {what}", model.info().reference.id)).into());
    match tasks.first() {
        Some(TaskKind::Detect) => missing("a detector; give --annotations"),
        Some(TaskKind::Segment) => missing("a segmenter; give --masks"),
        _ => classes::run(&args.load(&[TaskKind::Classify])?, &args),
    }
}

/// What was measured, and on how many images.
#[derive(Serialize)]
struct Measured {
    model: String,
    sha256: String,
    images: usize,
    /// Images that could not be read, beside the others: nothing was seen on them.
    failed: usize,
}

impl Measured {
    fn of(model: &ModelInfo, all: usize, failed: usize) -> Self {
        Self {
            model: model.reference.id.clone(),
            sha256: model.reference.sha256.clone(),
            images: all - failed,
            failed,
        }
    }

    fn all_read(&self) -> anyhow::Result<()> {
        let (failed, all) = (self.failed, self.images + self.failed);
        anyhow::ensure!(failed == 0, "{failed} of {all} images could not be read");
        Ok(())
    }
}

/// A share as a percentage, or a dash.
fn percent(share: Option<f64>) -> String {
    share.map_or("–".into(), |s| format!("{:.1}", 100.0 * s))
}
