//! Average precision of a detector on annotated images, by COCO's rules.

use std::io::Write;
use std::path::Path;

use anyhow::Context;
use serde::Serialize;

use super::{Args, Measured, percent};
use crate::cli::progress;
use crate::cli::setup::check_flags;
use crate::cli::still::{Size, Stills};
use crate::eval::annotations::Annotations;
use crate::eval::coco::{self, ClassScores, Found, Image, Scores};
use crate::model::Model;
use crate::task::detect::{DetectSettings, Detection};
use crate::task::{self, TaskKind, TaskResult, TaskSettings};

/// COCO counts a hundred boxes of a class in an image; of all classes together so many are kept.
const MOST: usize = 1000;

#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    measured: Measured,
    /// Boxes that were drawn.
    boxes: usize,
    #[serde(flatten)]
    scores: Scores,
    classes: Vec<ClassRow>,
}

/// One class that was drawn.
#[derive(Serialize)]
struct ClassRow {
    index: usize,
    label: String,
    boxes: usize,
    ap: Option<f64>,
    ap50: Option<f64>,
}

/// One line of COCO's results.
#[derive(Serialize)]
struct ResultRow {
    image_id: i64,
    category_id: i64,
    bbox: [f64; 4],
    score: f64,
}

pub(super) fn run(model: &Model, args: &Args, annotations: &Path) -> anyhow::Result<()> {
    let info = model.info();
    let settings = DetectSettings {
        family: args.family,
        threshold: Some(args.threshold),
        iou: Some(args.iou),
        max: Some(MOST),
        ..DetectSettings::default()
    };
    check_flags(settings.problems())?;
    let settings = TaskSettings {
        detect: settings,
        ..TaskSettings::default()
    };
    let task = task::build(TaskKind::Detect, info, &settings)?;
    let known = info.detector.as_ref().map_or(0, |d| d.classes);
    let classes = known.max(info.labels.len());
    let read = Annotations::read(annotations, &args.images, &info.labels, classes, &args.only)?;

    let mut stills = Stills::new(model, info.input.clone(), task)?;
    let mut images = Vec::with_capacity(read.images.len());
    let mut rows = Vec::new();
    let mut failed = 0;
    let bar = progress::counting(read.images.len() as u64, "images");
    for annotated in read.images {
        bar.inc(1);
        let mut found = Vec::new();
        match stills.run(&annotated.path) {
            Ok(still) => {
                let TaskResult::Detections(detections) = still.result else {
                    unreachable!("a detect task gives detections")
                };
                let own = detections.iter().map(|d| in_pixels(d, still.size));
                found.extend(own.filter(|f| read.categories.contains_key(&f.class)));
            }
            Err(e) => {
                failed += 1;
                bar.suspend(|| eprintln!("{}: {e:#}", annotated.path.display()));
            }
        }
        rows.extend(found.iter().map(|f| ResultRow {
            image_id: annotated.id,
            category_id: read.categories[&f.class],
            bbox: f.bbox,
            score: f.score,
        }));
        images.push(Image {
            drawn: annotated.drawn,
            found,
        });
    }
    bar.finish_and_clear();
    if let Some(path) = &args.save {
        let json = serde_json::to_vec(&rows)?;
        std::fs::write(path, json).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let (scores, of_classes) = coco::evaluate(&images, classes);
    let drawn = |class| {
        let all = images.iter().flat_map(|i| &i.drawn);
        all.filter(|d| d.class == class && !d.crowd).count()
    };
    let row = |(index, scores): (usize, ClassScores)| ClassRow {
        index,
        label: info.labels.get(index).to_string(),
        boxes: drawn(index),
        ap: scores.ap,
        ap50: scores.ap50,
    };
    let rows = of_classes.into_iter().enumerate().map(row);
    let rows: Vec<ClassRow> = rows.filter(|r| r.boxes > 0).collect();
    let report = Report {
        measured: Measured::of(info, images.len(), failed),
        boxes: rows.iter().map(|r| r.boxes).sum(),
        scores,
        classes: rows,
    };
    args.print(&report)?;
    report.measured.all_read()
}

fn in_pixels(d: &Detection, size: Size) -> Found {
    let (width, height) = (f64::from(size.width), f64::from(size.height));
    let [x0, y0, x1, y1] = d.bbox.corners().map(f64::from);
    Found {
        class: d.index,
        bbox: [
            x0 * width,
            y0 * height,
            (x1 - x0) * width,
            (y1 - y0) * height,
        ],
        score: f64::from(d.score),
    }
}

impl super::Report for Report {
    fn write_table(&self, out: &mut dyn Write) -> std::io::Result<()> {
        let s = &self.scores;
        writeln!(
            out,
            "{} on {} images with {} boxes: AP50 {} %, AP50:95 {} %\n",
            self.measured.model,
            self.measured.images,
            self.boxes,
            percent(s.ap50),
            percent(s.ap)
        )?;
        writeln!(
            out,
            "{:<24}{:>8}{:>8}{:>8}{:>8}",
            "%", "all", "small", "medium", "large"
        )?;
        for (name, values) in [
            ("AP50:95", [s.ap, s.ap_small, s.ap_medium, s.ap_large]),
            (
                "recall, 100 a class",
                [s.ar_100, s.ar_small, s.ar_medium, s.ar_large],
            ),
        ] {
            write!(out, "{name:<24}")?;
            values
                .iter()
                .try_for_each(|v| write!(out, "{:>8}", percent(*v)))?;
            writeln!(out)?;
        }
        writeln!(
            out,
            "\n{:<32}{:>8}{:>9}{:>9}",
            "class", "boxes", "AP50 %", "AP %"
        )?;
        for c in &self.classes {
            let label: String = c.label.chars().take(30).collect();
            writeln!(
                out,
                "{label:<32}{:>8}{:>9}{:>9}",
                c.boxes,
                percent(c.ap50),
                percent(c.ap)
            )?;
        }
        Ok(())
    }
}
