//! `ocellus classify IMAGE…`: what the model sees in files; a table for people, JSON lines for programs.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::Serialize;

use super::setup::single_model;
use super::still::Stills;
use crate::model::{Model, Outputs};
use crate::preprocess::InputSpec;
use crate::task::{self, TaskKind, TaskResult};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// JPEG, PNG, BMP or WebP files
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<PathBuf>,
    #[command(flatten)]
    model: super::setup::ModelArgs,
    /// How many classes are shown for each image
    #[arg(long, value_name = "N", default_value_t = 5)]
    top_k: usize,
    /// For programs: a JSON object a line
    #[arg(long)]
    json: bool,
    /// With --json: the network's outputs too, as they come, by their names. Those of an int8 model are the same on
    /// every machine
    #[arg(long, requires = "json")]
    raw: bool,
}

#[derive(Serialize)]
struct Record<'a> {
    image: &'a Path,
    #[serde(skip_serializing_if = "Option::is_none")]
    results: Option<Vec<Scored<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outputs: Option<BTreeMap<&'a str, &'a [f32]>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    took_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

#[derive(Serialize)]
struct Scored<'a> {
    label: &'a str,
    index: usize,
    score: f32,
}

/// Image files → classes.
pub(super) struct Classifier(Stills);

pub(super) fn run(args: Args) -> anyhow::Result<()> {
    let model = single_model(&args.model, &[TaskKind::Classify], None)?;
    let mut classifier = Classifier::new(&model, model.info().input.clone(), args.top_k)?;
    let mut failed = 0;
    let mut out = std::io::stdout().lock();
    for image in &args.images {
        let started = Instant::now();
        let result = classifier.run(image);
        let ms = started.elapsed().as_secs_f64() * 1e3;
        failed += usize::from(result.is_err());
        if args.json {
            write_json(&mut out, image, &result, ms, args.raw)?;
        } else {
            write_table(&mut out, image, &result)?;
        }
    }
    anyhow::ensure!(
        failed == 0,
        "{failed} of {} images could not be classified",
        args.images.len()
    );
    Ok(())
}

impl Classifier {
    /// `spec` is the model's input, or another way to prepare frames of the same shape.
    pub(super) fn new(model: &Model, spec: InputSpec, top_k: usize) -> anyhow::Result<Self> {
        let mut settings = task::TaskSettings::default();
        settings.classify.top_k = top_k;
        let task = task::build(TaskKind::Classify, model.info(), &settings)?;
        Ok(Self(Stills::new(model, spec, task)?))
    }

    /// The best classes of one image, best first.
    pub(super) fn classify(&mut self, image: &Path) -> anyhow::Result<Vec<task::Class>> {
        self.run(image).map(|(classes, _)| classes)
    }

    /// The best classes, and the outputs they were read from.
    fn run(&mut self, image: &Path) -> anyhow::Result<(Vec<task::Class>, &Outputs)> {
        let still = self.0.run(image)?;
        match still.result {
            TaskResult::Classification(classes) => Ok((classes, still.outputs)),
            _ => unreachable!("a classify task gives classes"),
        }
    }
}

fn write_json(
    out: &mut impl Write,
    image: &Path,
    result: &anyhow::Result<(Vec<task::Class>, &Outputs)>,
    ms: f64,
    raw: bool,
) -> anyhow::Result<()> {
    fn scored(classes: &[task::Class]) -> Vec<Scored<'_>> {
        classes
            .iter()
            .map(|c| Scored {
                label: &c.label,
                index: c.index,
                score: c.score,
            })
            .collect()
    }
    let record = match result {
        Ok((classes, outputs)) => Record {
            image,
            results: Some(scored(classes)),
            outputs: raw.then(|| outputs.by_name().collect()),
            took_ms: Some((ms * 10.0).round() / 10.0),
            error: None,
        },
        Err(e) => Record {
            image,
            results: None,
            outputs: None,
            took_ms: None,
            error: Some(format!("{e:#}")),
        },
    };
    serde_json::to_writer(&mut *out, &record)?;
    writeln!(out)?;
    Ok(())
}

fn write_table(
    out: &mut impl Write,
    image: &Path,
    result: &anyhow::Result<(Vec<task::Class>, &Outputs)>,
) -> anyhow::Result<()> {
    match result {
        Ok((classes, _)) => {
            writeln!(out, "{}", image.display())?;
            for c in classes {
                writeln!(
                    out,
                    "  {:>5.1} %  {} ({})",
                    100.0 * c.score,
                    c.label,
                    c.index
                )?;
            }
        }
        Err(e) => eprintln!("{}: {e:#}", image.display()),
    }
    Ok(())
}
