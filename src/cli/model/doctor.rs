//! `ocellus model doctor`: what is wrong, or looks wrong, with a model; what runs on integers and what does not.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::path::PathBuf;

use serde::Serialize;

use super::dataset::Dataset;
use crate::cli::classify::Classifier;
use crate::cli::{ConfigError, progress};
use crate::model::doctor::{self, Finding, Severity, Variant};
use crate::model::{self, Anatomy, Layer, Model};

/// Labelled images that every variant is tried on; more change nothing that is worth a warning.
const TRIAL_IMAGES: usize = 50;
/// By how much a variant must be better to be named.
const CLEARLY_BETTER: f64 = 0.1;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    model: super::ModelPath,
    /// Labelled images, as for `eval`: colour order, normalization and labels are then tried out on some of them
    #[arg(long, value_name = "DIR")]
    images: Option<PathBuf>,
    /// Labels of a bare .onnx file, one a line
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,
    /// For programs: a JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report<'a> {
    findings: &'a [Finding],
    trials: &'a [Trial],
    layers: &'a [Layer],
    /// What the engine made of it; absent if the model does not load.
    #[serde(skip_serializing_if = "Option::is_none")]
    engine: Option<Engine<'a>>,
}

/// Where the operators run.
#[derive(Serialize)]
struct Engine<'a> {
    instruction_set: String,
    /// The share of multiply-accumulates on integers, 0 to 1.
    integer_share: f64,
    on_integers: Vec<&'a str>,
    in_float: Vec<InFloat<'a>>,
}

#[derive(Serialize)]
struct InFloat<'a> {
    node: &'a str,
    operator: &'a str,
    why: &'a str,
}

impl<'a> From<&'a model::Report> for Engine<'a> {
    fn from(report: &'a model::Report) -> Self {
        let integers = report.taken.iter().filter(|t| !t.float);
        Self {
            instruction_set: report.isa.to_string(),
            integer_share: report.integer_share(),
            on_integers: integers.map(|t| t.node.as_str()).collect(),
            in_float: in_float(report).collect(),
        }
    }
}

/// What runs in float: what the engine leaves, and what it computes so between integers.
fn in_float(report: &model::Report) -> impl Iterator<Item = InFloat<'_>> {
    let left = report.left.iter().map(|l| InFloat {
        node: &l.node,
        operator: &l.operator,
        why: &l.reason,
    });
    let taken = report.taken.iter().filter(|t| t.float);
    left.chain(taken.map(|t| InFloat {
        node: &t.node,
        operator: t.kernel,
        why: "it is float in the file; the engine computes it between integers",
    }))
}

/// How a variant did.
#[derive(Serialize)]
struct Trial {
    name: String,
    top1: f64,
    #[serde(skip)]
    fix: String,
}

pub(super) fn run(args: Args) -> anyhow::Result<()> {
    let path = args.model.resolve()?;
    let diagnosis = doctor::examine(&path, args.labels.as_deref());
    let mut findings = diagnosis.findings;
    let mut trials = Vec::new();
    if let Some((directory, model)) = args.images.as_ref().zip(diagnosis.model.as_ref()) {
        trials = try_out(model, &Dataset::read(directory, model.info())?)?;
        findings.push(judge(&trials));
    }
    let layers = diagnosis
        .anatomy
        .as_ref()
        .map(|a| a.layers.as_slice())
        .unwrap_or_default();
    let mut out = std::io::stdout().lock();
    if args.json {
        let report = Report {
            findings: &findings,
            trials: &trials,
            layers,
            engine: diagnosis.model.as_ref().map(|m| m.placement().into()),
        };
        serde_json::to_writer_pretty(&mut out, &report)?;
        writeln!(out)?;
    } else {
        writeln!(out, "{}", path.display())?;
        print(&mut out, &findings, &trials)?;
        if let Some((model, anatomy)) = diagnosis.model.as_ref().zip(diagnosis.anatomy.as_ref()) {
            print_floats(&mut out, model.placement(), anatomy)?;
        }
    }
    let count = |severity: Severity| findings.iter().filter(|f| f.severity == severity).count();
    match (count(Severity::Problem), count(Severity::Warning)) {
        (0, 0) => Ok(()),
        (0, n) => {
            anyhow::bail!("{n} suspicion(s): the model runs, but its results are probably wrong")
        }
        (n, _) => Err(ConfigError(format!("{n} problem(s): the model does not start")).into()),
    }
}

/// Top-1 of every variant, and of labels that are one off, on the same images.
fn try_out(model: &Model, dataset: &Dataset) -> anyhow::Result<Vec<Trial>> {
    let variants = doctor::variants(&model.info().input);
    let images = dataset.sample(TRIAL_IMAGES);
    let bar = progress::counting((variants.len() * images.len()) as u64, "images");
    let mut trials = Vec::new();
    for Variant { name, fix, input } in variants {
        let mut classifier = Classifier::new(model, input, 1)?;
        let mut found = Vec::new();
        for (path, class) in &images {
            bar.inc(1);
            // An unreadable image tells nothing about the model; `eval` names it.
            let best = classifier
                .classify(path)
                .ok()
                .and_then(|best| best.first().map(|c| c.index));
            found.extend(best.map(|b| (b, *class)));
        }
        let top1 = |offset: i64| {
            let hits = found
                .iter()
                .filter(|(best, class)| *best as i64 == *class as i64 + offset);
            hits.count() as f64 / found.len().max(1) as f64
        };
        if trials.is_empty() {
            let shifted = [
                (
                    1,
                    "labels one later",
                    "the labels lack a first line (`background`)",
                ),
                (
                    -1,
                    "labels one earlier",
                    "the labels have a first line too many (`background`)",
                ),
            ];
            trials.push(Trial {
                name,
                top1: top1(0),
                fix,
            });
            trials.extend(shifted.map(|(offset, name, fix)| Trial {
                name: name.into(),
                top1: top1(offset),
                fix: fix.into(),
            }));
        } else {
            trials.push(Trial {
                name,
                top1: top1(0),
                fix,
            });
        }
    }
    bar.finish_and_clear();
    Ok(trials)
}

fn judge(trials: &[Trial]) -> Finding {
    let stated = trials.first().map_or(0.0, |t| t.top1);
    let best = trials.iter().max_by(|a, b| a.top1.total_cmp(&b.top1));
    match best.filter(|b| b.top1 > stated + CLEARLY_BETTER) {
        Some(better) => {
            let (name, percent) = (&better.name, 100.0 * better.top1);
            let what = format!(
                "{name}: {percent:.0} % right on the images, but {:.0} % as it is",
                100.0 * stated
            );
            Finding::new(Severity::Warning, what, better.fix.clone())
        }
        None => Finding::good(format!(
            "nothing that was tried does better on the images than model.toml ({:.0} % right)",
            100.0 * stated
        )),
    }
}

fn print(out: &mut impl Write, findings: &[Finding], trials: &[Trial]) -> anyhow::Result<()> {
    for f in findings {
        let mark = match f.severity {
            Severity::Good => "ok  ",
            Severity::Hint => "hint",
            Severity::Warning => "WARN",
            Severity::Problem => "FAIL",
        };
        writeln!(out, "{mark}  {}", f.what)?;
        if let Some(fix) = &f.fix {
            writeln!(out, "      → {fix}")?;
        }
    }
    if !trials.is_empty() {
        writeln!(out, "\n{:<44}top-1 %", "tried on the images")?;
    }
    for t in trials {
        writeln!(out, "{:<44}{:>7.1}", t.name, 100.0 * t.top1)?;
    }
    Ok(())
}

/// What runs in float of a model that the engine takes, by reason.
fn print_floats(out: &mut impl Write, report: &model::Report, a: &Anatomy) -> anyhow::Result<()> {
    if !report.is_accelerated() || in_float(report).next().is_none() {
        return Ok(());
    }
    let macs: HashMap<&str, u64> = a.layers.iter().map(|l| (l.name.as_str(), l.macs)).collect();
    let mut reasons: BTreeMap<(&str, String), (usize, u64, &str)> = BTreeMap::new();
    for f in in_float(report) {
        let reason = reasons
            .entry((f.operator, generic(f.why)))
            .or_insert((0, 0, f.node));
        reason.0 += 1;
        reason.1 += macs.get(f.node).copied().unwrap_or_default();
    }
    writeln!(out, "\nin float:")?;
    for ((op, why), (n, macs, example)) in reasons {
        let share = 100.0 * macs as f64 / a.macs.max(1) as f64;
        writeln!(
            out,
            "  {op:<28}{n:>4} ×{share:>6.1} % of the cost  {why} (first: {example})"
        )?;
    }
    Ok(())
}

/// A reason without the tensor's name, so that equal ones are counted together.
fn generic(why: &str) -> String {
    let mut parts = why.split('`');
    let before = parts.next().unwrap_or_default();
    match parts.nth(1) {
        Some(after) => format!("{}{}", before, after.trim_start()),
        None => before.into(),
    }
}
