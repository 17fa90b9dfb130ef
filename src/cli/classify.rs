//! `ocellus classify IMAGE…`: what the model sees in files; a table for people, JSON lines for programs.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use super::setup::single_model;
use super::still::{self, Answer, Stills};
use crate::model::Model;
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

/// The best classes of one image, best first.
#[derive(Serialize)]
struct Answered {
    results: Vec<Scored>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outputs: Option<BTreeMap<String, Vec<f32>>>,
}

#[derive(Serialize)]
struct Scored {
    label: Arc<str>,
    index: usize,
    score: f32,
}

/// Image files → classes.
pub(super) struct Classifier(Stills);

pub(super) fn run(args: Args) -> anyhow::Result<()> {
    let model = single_model(&args.model, &[TaskKind::Classify], None)?;
    let mut classifier = Classifier::new(&model, model.info().input.clone(), args.top_k)?;
    still::each(&args.images, args.json, |image| {
        let still = classifier.0.run(image)?;
        let owned = |(name, values): (&str, &[f32])| (name.to_string(), values.to_vec());
        let outputs = args
            .raw
            .then(|| still.outputs.by_name().map(owned).collect());
        let results = classes(still.result).into_iter().map(|c| Scored {
            label: c.label,
            index: c.index,
            score: c.score,
        });
        let answered = Answered {
            results: results.collect(),
            outputs,
        };
        Ok((answered, still.took))
    })
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
        Ok(classes(self.0.run(image)?.result))
    }
}

fn classes(result: TaskResult) -> Vec<task::Class> {
    match result {
        TaskResult::Classification(classes) => classes,
        _ => unreachable!("a classify task gives classes"),
    }
}

impl Answer for Answered {
    fn write_table(&self, out: &mut dyn Write, image: &Path) -> std::io::Result<()> {
        writeln!(out, "{}", image.display())?;
        for c in &self.results {
            let (percent, label, index) = (100.0 * c.score, &c.label, c.index);
            writeln!(out, "  {percent:>5.1} %  {label} ({index})")?;
        }
        Ok(())
    }
}
