//! `ocellus model list`: what is there, and what can be pulled.

use std::io::Write;
use std::path::PathBuf;

use serde::Serialize;

use crate::model::catalogue::Catalogue;
use crate::model::store;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// For programs: a JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct List<'a> {
    installed: Vec<PathBuf>,
    catalogue: Vec<Row<'a>>,
}

#[derive(Serialize)]
struct Row<'a> {
    name: &'a str,
    about: &'a str,
    size_bytes: u64,
    sha256: &'a str,
    licence: &'a str,
    reported: &'a [f64],
}

pub(super) fn run(args: Args) -> anyhow::Result<()> {
    let catalogue = Catalogue::get();
    let row = |e: &'static crate::model::catalogue::Entry| Row {
        name: &e.name,
        about: &e.about,
        size_bytes: e.size_bytes,
        sha256: &e.sha256,
        licence: catalogue.licence(e),
        reported: &e.reported,
    };
    let list = List {
        installed: store::installed(),
        catalogue: catalogue.entries().iter().map(row).collect(),
    };
    let mut out = std::io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &list)?;
        writeln!(out)?;
        return Ok(());
    }
    writeln!(out, "Installed:")?;
    for path in &list.installed {
        writeln!(out, "  {}", path.display())?;
    }
    if list.installed.is_empty() {
        writeln!(out, "  none")?;
    }
    writeln!(
        out,
        "\nCan be pulled (`ocellus model pull NAME`); top-1 is what the authors report on ImageNet:"
    )?;
    writeln!(
        out,
        "  {:<28}{:>8}  {:>6}  {:<12}about",
        "name", "MB", "top-1", "licence"
    )?;
    for row in &list.catalogue {
        let top1 = row
            .reported
            .first()
            .map_or("-".into(), |t| format!("{t:.1}"));
        writeln!(
            out,
            "  {:<28}{:>8.1}  {top1:>6}  {:<12}{}",
            row.name,
            row.size_bytes as f64 / 1e6,
            row.licence,
            row.about
        )?;
    }
    Ok(())
}
