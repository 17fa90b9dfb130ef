//! Agreement of a segmenter with masks that somebody drew.

use std::io::Write;
use std::path::Path;

use anyhow::Context;
use serde::Serialize;

use super::{Args, Measured, percent};
use crate::cli::progress;
use crate::cli::still::Stills;
use crate::eval::files;
use crate::eval::masks::{self, Agreement};
use crate::model::Model;
use crate::task::segment::{MapSize, SegmentSettings, Shape};
use crate::task::{self, TaskKind, TaskResult, TaskSettings};

#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    measured: Measured,
    mean_iou: Option<f64>,
    pixel_accuracy: Option<f64>,
    classes: Vec<ClassRow>,
}

/// One class that is somewhere.
#[derive(Serialize)]
struct ClassRow {
    index: usize,
    label: String,
    /// Pixels in the masks.
    pixels: u64,
    /// Of them, the share that was found.
    found: Option<f64>,
    iou: Option<f64>,
}

pub(super) fn run(model: &Model, args: &Args, directory: &Path) -> anyhow::Result<()> {
    let info = model.info();
    // Every pixel of the image, as the masks have it.
    let settings = TaskSettings {
        segment: SegmentSettings {
            shapes: vec![Shape::Rle],
            size: MapSize::Frame,
            ..SegmentSettings::default()
        },
        ..TaskSettings::default()
    };
    let task = task::build(TaskKind::Segment, info, &settings)?;
    let images = files::images(&args.images)?;
    let mask_of = |image: &Path| {
        let name = image.file_stem().unwrap_or_default();
        // `b.v2.jpg` has `b.v2.png`.
        directory.join(format!("{}.png", name.to_string_lossy()))
    };
    let missing: Vec<_> = images.iter().filter(|i| !mask_of(i).is_file()).collect();
    if let Some(first) = missing.first() {
        anyhow::bail!(
            "{} of {} images have no mask; the first is {}: there is no {}",
            missing.len(),
            images.len(),
            first.display(),
            mask_of(first).display()
        );
    }
    let known = info.segmenter.as_ref().map_or(0, |s| s.classes);
    let classes = known.max(info.labels.len());
    anyhow::ensure!(
        classes > 0,
        "{}: how many classes it has is not known: give --labels",
        info.reference.id
    );
    let mut stills = Stills::new(model, info.input.clone(), task)?;
    let mut agreement = Agreement::new(classes, args.void);
    let mut failed = 0;
    let bar = progress::counting(images.len() as u64, "images");
    for image in &images {
        bar.inc(1);
        let still = match stills.run(image) {
            Ok(still) => still,
            Err(e) => {
                failed += 1;
                bar.suspend(|| eprintln!("{}: {e:#}", image.display()));
                continue;
            }
        };
        let TaskResult::Segmentation(found) = still.result else {
            unreachable!("a segment task gives a segmentation")
        };
        let mask = mask_of(image);
        masks::read(&mask)
            .and_then(|drawing| agreement.add(&drawing, found.size, &found.classes()))
            .with_context(|| format!("{}", mask.display()))?;
    }
    bar.finish_and_clear();
    let counts = agreement.classes().iter().enumerate();
    let rows = counts.map(|(index, c)| ClassRow {
        index,
        label: info.labels.get(index).to_string(),
        pixels: c.drawn,
        found: (c.drawn > 0).then(|| c.both as f64 / c.drawn as f64),
        iou: c.iou(),
    });
    let report = Report {
        measured: Measured::of(info, images.len(), failed),
        mean_iou: agreement.mean_iou(),
        pixel_accuracy: agreement.pixel_accuracy(),
        classes: rows.filter(|r| r.iou.is_some()).collect(),
    };
    args.print(&report)?;
    report.measured.all_read()
}

impl super::Report for Report {
    fn write_table(&self, out: &mut dyn Write) -> std::io::Result<()> {
        writeln!(
            out,
            "{} on {} images: mean IoU {} %, right pixels {} %\n",
            self.measured.model,
            self.measured.images,
            percent(self.mean_iou),
            percent(self.pixel_accuracy)
        )?;
        writeln!(
            out,
            "{:<32}{:>12}{:>9}{:>9}",
            "class", "pixels", "found %", "IoU %"
        )?;
        for c in &self.classes {
            let label: String = c.label.chars().take(30).collect();
            writeln!(
                out,
                "{label:<32}{:>12}{:>9}{:>9}",
                c.pixels,
                percent(c.found),
                percent(c.iou)
            )?;
        }
        Ok(())
    }
}
