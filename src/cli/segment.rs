//! `ocellus segment IMAGE…`: how much of each picture is what; a table for people, JSON lines for programs, pictures with the classes
//! in colours.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Map, Value};

use super::setup::{ModelArgs, check_flags, named_model};
use super::still::{Annotated, Answer, Size, Stills};
use super::{ConfigError, annotate, still};
use crate::publish::mqtt::payload;
use crate::task::segment::{MapSize, SegmentSettings, Segmentation, Shape};
use crate::task::{self, TaskKind, TaskResult};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// JPEG, PNG, BMP or WebP files
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<PathBuf>,
    #[command(flatten)]
    model: ModelArgs,
    /// In whose pixels classes are counted, masks and polygons made: `model` or `frame`
    #[arg(long, value_name = "SIZE", default_value = "model")]
    size: MapSize,
    /// Lowest share of the picture
    #[arg(long, value_name = "SHARE", default_value_t = SegmentSettings::default().min_area)]
    min_area: f32,
    /// Only this label; may be repeated
    #[arg(long, value_name = "LABEL")]
    only: Vec<String>,
    /// Write each image as a JPEG with the classes in colours into this directory, by the same name
    #[arg(long, value_name = "DIR")]
    annotate: Option<PathBuf>,
    /// For programs: a JSON object a line
    #[arg(long)]
    json: bool,
    /// With --json: each class's pixels, as COCO's compressed run lengths
    #[arg(long, requires = "json")]
    rle: bool,
    /// With --json: each class's outlines
    #[arg(long, requires = "json")]
    polygons: bool,
    /// How far an outline may be from the border, as a share of the longer side
    #[arg(long, value_name = "SHARE", default_value_t = SegmentSettings::default().tolerance)]
    tolerance: f32,
}

/// What one image consists of, as on MQTT.
#[derive(Serialize)]
struct Answered {
    frame: Size,
    #[serde(flatten)]
    segments: Map<String, Value>,
    #[serde(skip)]
    found: Segmentation,
}

pub(super) fn run(args: Args) -> anyhow::Result<()> {
    let settings = settings(&args)?;
    let model = named_model(&args.model, "segmenter", TaskKind::Segment, None)?;
    let task = task::build(TaskKind::Segment, model.info(), &settings)
        .map_err(|e| ConfigError(e.to_string()))?;
    let mut stills = Stills::new(&model, model.info().input.clone(), task)?;
    let annotated = args.annotate.as_deref().map(Annotated::into).transpose()?;
    still::each(&args.images, args.json, |image| {
        let still = stills.run(image)?;
        let TaskResult::Segmentation(mut found) = still.result else {
            unreachable!("a segment task gives a segmentation")
        };
        if let Some(annotated) = &annotated {
            annotated.write(image, &annotate::areas(&still.frame, &found)?)?;
        }
        if !args.rle {
            found.segments.iter_mut().for_each(|s| s.rle = None);
        }
        let answered = Answered {
            frame: still.size,
            segments: payload::segments(&found),
            found,
        };
        Ok((answered, still.took))
    })
}

fn settings(args: &Args) -> anyhow::Result<task::TaskSettings> {
    let rle = (args.rle || args.annotate.is_some()).then_some(Shape::Rle);
    let polygons = args.polygons.then_some(Shape::Polygons);
    let segment = SegmentSettings {
        shapes: rle.into_iter().chain(polygons).collect(),
        size: args.size,
        min_area: args.min_area,
        tolerance: args.tolerance,
        only: args.only.clone(),
    };
    check_flags(segment.problems())?;
    Ok(task::TaskSettings {
        segment,
        ..Default::default()
    })
}

impl Answer for Answered {
    fn write_table(&self, out: &mut dyn Write, image: &Path) -> std::io::Result<()> {
        let Size { width, height } = self.frame;
        writeln!(out, "{} ({width}x{height})", image.display())?;
        for s in &self.found.segments {
            writeln!(out, "  {:>5.1} %  {}", 100.0 * s.area, s.label)?;
        }
        if self.found.segments.is_empty() {
            writeln!(out, "  nothing")?;
        }
        Ok(())
    }
}
