//! How often a classifier is right on labelled images.

use std::io::Write;

use serde::Serialize;

use super::{Args, Measured};
use crate::cli::classify::Classifier;
use crate::cli::model::dataset::Dataset;
use crate::cli::progress;
use crate::model::Model;

#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    measured: Measured,
    /// Shares of 0 to 1.
    top1: f64,
    top5: f64,
    classes: Vec<ClassRow>,
}

/// How one class fared; counts of images.
#[derive(Serialize)]
struct ClassRow {
    index: usize,
    label: String,
    images: usize,
    top1: usize,
    top5: usize,
    /// What it was taken for most often, and how often.
    #[serde(skip_serializing_if = "Option::is_none")]
    taken_for: Option<(String, usize)>,
    #[serde(skip)]
    mistakes: std::collections::BTreeMap<usize, usize>,
}

pub(super) fn run(model: &Model, args: &Args) -> anyhow::Result<()> {
    let dataset = Dataset::read(&args.images, model.info())?;
    let report = evaluate(model, &dataset)?;
    args.print(&report)?;
    report.measured.all_read()
}

fn evaluate(model: &Model, dataset: &Dataset) -> anyhow::Result<Report> {
    let info = model.info();
    let mut classifier = Classifier::new(model, info.input.clone(), 5)?;
    let mut rows: std::collections::BTreeMap<usize, ClassRow> = Default::default();
    let (mut top1, mut top5, mut failed) = (0, 0, 0);
    let bar = progress::counting(dataset.images.len() as u64, "images");
    for (path, class) in &dataset.images {
        bar.inc(1);
        let best = match classifier.classify(path) {
            Ok(best) => best,
            Err(e) => {
                failed += 1;
                bar.suspend(|| eprintln!("{}: {e:#}", path.display()));
                continue;
            }
        };
        let row = rows.entry(*class).or_insert_with(|| ClassRow {
            index: *class,
            label: info.labels.get(*class).to_string(),
            images: 0,
            top1: 0,
            top5: 0,
            taken_for: None,
            mistakes: Default::default(),
        });
        let first = best.first().map(|c| c.index);
        let hit = first == Some(*class);
        let near = best.iter().any(|c| c.index == *class);
        row.images += 1;
        row.top1 += usize::from(hit);
        row.top5 += usize::from(near);
        top1 += usize::from(hit);
        top5 += usize::from(near);
        if let Some(wrong) = first.filter(|_| !hit) {
            *row.mistakes.entry(wrong).or_insert(0) += 1;
        }
    }
    bar.finish_and_clear();
    for row in rows.values_mut() {
        let most = row
            .mistakes
            .iter()
            .max_by_key(|(class, n)| (**n, std::cmp::Reverse(**class)));
        row.taken_for = most.map(|(class, n)| (info.labels.get(*class).to_string(), *n));
    }
    let images = dataset.images.len() - failed;
    let share = |n: usize| n as f64 / images.max(1) as f64;
    Ok(Report {
        measured: Measured::of(info, dataset.images.len(), failed),
        top1: share(top1),
        top5: share(top5),
        classes: rows.into_values().collect(),
    })
}

impl super::Report for Report {
    fn write_table(&self, out: &mut dyn Write) -> std::io::Result<()> {
        let r = self;
        writeln!(
            out,
            "{} on {} images: top-1 {:.2} %, top-5 {:.2} %\n",
            r.measured.model,
            r.measured.images,
            100.0 * r.top1,
            100.0 * r.top5
        )?;
        writeln!(
            out,
            "{:<32}{:>8}{:>9}{:>9}  most often taken for",
            "class", "images", "top-1 %", "top-5 %"
        )?;
        for c in &r.classes {
            let percent = |n: usize| 100.0 * n as f64 / c.images.max(1) as f64;
            let taken_for = c
                .taken_for
                .as_ref()
                .map(|(label, n)| format!("{label} ({n})"));
            let label: String = c.label.chars().take(30).collect();
            writeln!(
                out,
                "{label:<32}{:>8}{:>9.1}{:>9.1}  {}",
                c.images,
                percent(c.top1),
                percent(c.top5),
                taken_for.unwrap_or_default()
            )?;
        }
        Ok(())
    }
}
