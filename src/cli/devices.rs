//! `ocellus devices`: cameras with their stable ids, formats, sizes and rates.

use std::io::Write;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// For programs: a JSON array
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: Args) -> anyhow::Result<()> {
    let devices = crate::capture::devices();
    let mut out = std::io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &devices)?;
        writeln!(out)?;
        return Ok(());
    }
    for d in &devices {
        writeln!(out, "{d}")?;
    }
    if devices.is_empty() {
        writeln!(
            out,
            "No V4L2 capture device. A USB camera appears as /dev/video0 and needs the group `video`."
        )?;
        writeln!(
            out,
            "CSI cameras and RTSP come in by --camera exec:… (docs/cameras.md); without any: --camera scene:"
        )?;
    }
    Ok(())
}
