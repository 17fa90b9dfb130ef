//! Draws frames of the `scene` camera as raw RGB24: the training data of the demo's model.
//!
//! ```text
//! cargo run --release --example render_scene -- --seeds 100..200 --step 9 --truth truth.tsv > frames.rgb
//! ```
//!
//! Of each seed, the frames `0, step, 2·step, …` below `--frames` are written. The truth has a line a frame: seed,
//! frame index, label (`-` where there is none), and `label x0 y0 x1 y1` for each object.

use std::io::{BufWriter, Write};
use std::path::PathBuf;

use anyhow::{Context, ensure};
use clap::Parser;
use ocellus::capture::scene::{Scene, VISIT_FRAMES};

/// Draws frames of the `scene` camera as raw RGB24 to standard output.
#[derive(Parser)]
struct Arguments {
    /// Seeds, as `FIRST..END` (END not included)
    #[arg(long, default_value = "1..2")]
    seeds: String,
    /// Frames of each seed, of which every `--step`th is drawn; default: one round of all classes
    #[arg(long, default_value_t = 6 * VISIT_FRAMES)]
    frames: u64,
    /// Distance between the frames drawn
    #[arg(long, default_value_t = 1)]
    step: u64,
    /// Width and height in pixels
    #[arg(long, default_value = "640x480")]
    size: String,
    /// File for the truth
    #[arg(long)]
    truth: Option<PathBuf>,
}

fn main() -> anyhow::Result<()> {
    let a = Arguments::parse();
    let (first, end) = a
        .seeds
        .split_once("..")
        .context("--seeds: write FIRST..END")?;
    let (first, end): (u64, u64) = (first.parse()?, end.parse()?);
    let (width, height) = a
        .size
        .split_once('x')
        .context("--size: write WIDTHxHEIGHT")?;
    let (width, height): (u32, u32) = (width.parse()?, height.parse()?);
    ensure!(
        (16..=4096).contains(&width) && (16..=4096).contains(&height),
        "--size: 16x16 to 4096x4096"
    );
    ensure!(a.step > 0, "--step: at least 1");

    let mut out = BufWriter::with_capacity(1 << 20, std::io::stdout().lock());
    let mut truth_out: Box<dyn Write> = match &a.truth {
        Some(path) => Box::new(BufWriter::new(
            std::fs::File::create(path)
                .with_context(|| format!("cannot create {}", path.display()))?,
        )),
        None => Box::new(std::io::sink()),
    };
    let mut frame = Vec::new();
    for seed in first..end {
        let mut scene = Scene::new(seed, width, height);
        for index in (0..a.frames).step_by(a.step as usize) {
            let truth = scene.render(index, &mut frame);
            out.write_all(&frame)?;
            write!(
                truth_out,
                "{seed}\t{index}\t{}",
                truth.label.as_deref().unwrap_or("-")
            )?;
            for o in &truth.objects {
                let [x0, y0, x1, y1] = o.bbox;
                write!(truth_out, "\t{} {x0:.4} {y0:.4} {x1:.4} {y1:.4}", o.label)?;
            }
            writeln!(truth_out)?;
        }
    }
    out.flush()?;
    truth_out.flush()?;
    Ok(())
}
