//! `ocellus bench`: how long each stage of a model takes on this machine.

use std::io::Write;
use std::time::Instant;

use anyhow::Context;
use serde::Serialize;

use super::progress;
use super::setup::{ModelArgs, single_model};
use crate::capture::scene::Scene;
use crate::frame::{Frame, FrameMeta, FramePool, Geometry, PixelFormat};
use crate::preprocess::{InputTensor, Preprocessor, frame_from_image_bytes};
use crate::stats::{LatencySummary, Stage, Stats};
use crate::task;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// An image file as the frame (a JPEG stands for an MJPEG camera); else a drawn 1280x720 RGB frame
    #[arg(long, value_name = "FILE")]
    image: Option<std::path::PathBuf>,
    /// Measured frames, after a warm-up of a tenth as many
    #[arg(short = 'n', long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    iterations: u64,
    /// For programs: a JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    model: String,
    sha256: String,
    engine: String,
    threads: usize,
    frame: String,
    load_ms: f64,
    stages: Vec<LatencySummary>,
    rss_bytes: Option<u64>,
}

pub(super) fn run(args: Args) -> anyhow::Result<()> {
    let started = Instant::now();
    let model = single_model(&args.model, &[], None)?;
    let load_ms = started.elapsed().as_secs_f64() * 1e3;
    let info = model.info();
    let frame = match &args.image {
        Some(path) => {
            let bytes =
                std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
            frame_from_image_bytes(&bytes, FrameMeta::of_still("bench"), &FramePool::default())?
        }
        None => drawn_frame(),
    };
    let mut preprocessor = Preprocessor::new(info.input.clone());
    let mut input = InputTensor::for_spec(&info.input);
    let mut session = model.session()?;
    let mut tasks = task::build_all(info, &task::TaskSettings::default())?;

    let warm_up = args.iterations.div_ceil(10);
    let bar = progress::counting(args.iterations + warm_up, "frames");
    let stats = Stats::new([]);
    for i in 0..args.iterations + warm_up {
        let frame_started = Instant::now();
        let prepared = preprocessor.run(&frame, &mut input)?;
        let infer_started = Instant::now();
        let outputs = session.run(&input)?;
        let infer = infer_started.elapsed();
        let decode_started = Instant::now();
        for t in &mut tasks {
            t.decode(outputs, &prepared.mapping)?;
        }
        if i >= warm_up {
            stats.record(Stage::Decode, prepared.decode);
            stats.record(Stage::Preprocess, prepared.preprocess);
            stats.record(Stage::Infer, infer);
            stats.record(Stage::DecodeOutput, decode_started.elapsed());
            stats.record(Stage::Age, frame_started.elapsed());
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    let report = Report {
        model: info.reference.id.clone(),
        sha256: info.reference.sha256.clone(),
        engine: model.engine_name(),
        threads: args.model.threads,
        frame: format!(
            "{} {}x{}",
            frame.format, frame.geometry.width, frame.geometry.height
        ),
        load_ms,
        stages: stats.latencies(),
        rss_bytes: crate::stats::resident_bytes(),
    };
    print(&report, args.json)
}

fn drawn_frame() -> Frame {
    let (width, height) = (1280, 720);
    let mut data = FramePool::default().take();
    let truth = Scene::new(1, width, height).render(40, &mut data);
    let meta = FrameMeta {
        truth: Some(truth.into()),
        ..FrameMeta::of_still("bench")
    };
    Frame {
        format: PixelFormat::Rgb24,
        geometry: Geometry::packed(width, height, PixelFormat::Rgb24),
        data,
        meta,
        mask: None,
    }
}

fn print(r: &Report, json: bool) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    if json {
        serde_json::to_writer_pretty(&mut out, r)?;
        writeln!(out)?;
        return Ok(());
    }
    writeln!(
        out,
        "{} ({}) on {} thread(s), {}",
        r.model, r.engine, r.threads, r.frame
    )?;
    writeln!(out, "loaded in {:.0} ms", r.load_ms)?;
    writeln!(
        out,
        "\n{:<14}{:>10}{:>10}{:>10}",
        "stage (ms)", "p50", "p99", "max"
    )?;
    for l in &r.stages {
        let name = if l.stage == Stage::Age {
            "whole frame"
        } else {
            l.stage.name()
        };
        writeln!(
            out,
            "{name:<14}{:>10.2}{:>10.2}{:>10.2}",
            l.p50_ms, l.p99_ms, l.max_ms
        )?;
    }
    let whole = r
        .stages
        .iter()
        .find(|l| l.stage == Stage::Age)
        .map_or(0.0, |l| l.p50_ms);
    writeln!(
        out,
        "\n{:.1} frames a second on one worker",
        1e3 / whole.max(1e-3)
    )?;
    if let Some(rss) = r.rss_bytes {
        writeln!(out, "{:.0} MB resident", rss as f64 / 1e6)?;
    }
    Ok(())
}
