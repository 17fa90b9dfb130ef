//! `ocellus model inspect`: what a model is made of. Works on models that cannot run, too.

use std::io::Write;

use crate::model::{Anatomy, Layer, Placement, TensorInfo};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    model: super::ModelPath,
    /// Also list the operators that cost next to nothing
    #[arg(long)]
    all: bool,
    /// For programs: a JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: Args) -> anyhow::Result<()> {
    let path = args.model.resolve()?;
    let anatomy = Anatomy::read(&path)?;
    let mut out = std::io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &anatomy)?;
        writeln!(out)?;
        return Ok(());
    }
    writeln!(out, "{}", path.display())?;
    print(&mut out, &anatomy, args.all)
}

fn print(out: &mut impl Write, a: &Anatomy, all: bool) -> anyhow::Result<()> {
    writeln!(
        out,
        "  file        {:.1} MB, SHA-256 {}",
        a.file_bytes as f64 / 1e6,
        a.sha256
    )?;
    writeln!(
        out,
        "  written by  {}, operator set {}",
        or_unknown(&a.producer),
        a.opset
    )?;
    for (what, tensors) in [("input", &a.inputs), ("output", &a.outputs)] {
        for t in tensors {
            writeln!(out, "  {what:<10}  {}", describe(t))?;
        }
    }
    writeln!(out, "  form        {}", a.form)?;
    writeln!(out, "  parameters  {}", grouped(a.parameters))?;
    writeln!(
        out,
        "  cost        {:.1} million multiply-accumulates a picture, {:.1} % of them quantized",
        a.macs as f64 / 1e6,
        100.0 * a.integer_share
    )?;
    let operators: Vec<String> = a
        .operators
        .iter()
        .map(|(op, n)| format!("{op} {n}"))
        .collect();
    writeln!(out, "  operators   {}", operators.join(", "))?;
    for (what, why) in [("left out", &a.left_out), ("refused", &a.refused)] {
        if let Some(why) = why {
            writeln!(out, "  {what:<10}  {why}")?;
        }
    }
    for problem in &a.problems {
        writeln!(out, "  unknown     {problem}")?;
    }
    let shown: Vec<&Layer> = a
        .layers
        .iter()
        .filter(|l| all || l.macs > 0 || l.parameters > 0)
        .collect();
    let width = shown
        .iter()
        .map(|l| l.name.chars().count())
        .max()
        .unwrap_or(0)
        .clamp(5, 48);
    writeln!(
        out,
        "\n{:width$}  {:<20}{:<18}{:>12}{:>10}{:>8}  runs on",
        "layer", "operator", "output", "parameters", "MACs (M)", "share"
    )?;
    for l in shown {
        let shape = l.output_shape.as_ref().map_or("?".into(), |s| by(s));
        let runs_on = match &l.placement {
            Placement::Integer => "integers",
            Placement::Float(_) | Placement::Free => "floats",
        };
        writeln!(
            out,
            "{:width$}  {:<20}{shape:<18}{:>12}{:>10.2}{:>6.1} %  {runs_on}",
            shortened(&l.name, width),
            l.op,
            grouped(l.parameters),
            l.macs as f64 / 1e6,
            100.0 * l.macs as f64 / a.macs.max(1) as f64
        )?;
    }
    Ok(())
}

/// The end of a long name tells more than its beginning.
fn shortened(name: &str, width: usize) -> String {
    let length = name.chars().count();
    match length > width {
        true => format!(
            "…{}",
            name.chars().skip(length + 1 - width).collect::<String>()
        ),
        false => name.into(),
    }
}

fn describe(t: &TensorInfo) -> String {
    let shape = t.shape.as_ref().map_or("shape unknown".into(), |s| by(s));
    format!("{} {} {shape}", t.name, t.element)
}

fn by(shape: &[usize]) -> String {
    let lengths: Vec<String> = shape.iter().map(|d| d.to_string()).collect();
    lengths.join("x")
}

fn or_unknown(text: &str) -> &str {
    if text.is_empty() {
        "an unknown program"
    } else {
        text
    }
}

/// 11689512 → `11 689 512`.
fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}
