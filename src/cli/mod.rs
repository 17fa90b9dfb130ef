//! The commands of the binary, a file each.
//!
//! In: the command line. Out: text or JSON on standard output, logs on standard error, an exit code:
//! 0 done, 1 failed while working, 2 wrong arguments, 78 (`EX_CONFIG`) wrong configuration, model or label file:
//! starting again without a change is pointless; 75 (`EX_TEMPFAIL`) a restart was asked for by a command.

mod annotate;
mod bench;
#[cfg(feature = "broker")]
mod broker;
mod check;
mod classify;
#[cfg(feature = "broker")]
mod demo;
mod detect;
mod devices;
mod generate;
mod logging;
mod model;
mod progress;
mod run;
mod segment;
mod setup;
mod still;
mod summary;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// `EX_CONFIG` of sysexits.h: the service manager need not try again.
const EXIT_CONFIG: u8 = 78;

/// `EX_TEMPFAIL` of sysexits.h: the service manager starts it again.
const EXIT_RESTART: u8 = 75;

/// A camera that thinks: frames in, classifications, detections, segmentations and embeddings out over MQTT.
///
/// Ocellus takes frames from a camera, runs a quantized ResNet on the CPU and publishes what it sees. Try
/// `ocellus demo`: it needs no camera, no broker and no configuration.
#[derive(Debug, Parser)]
#[command(
    name = "ocellus",
    version,
    max_term_width = 100,
    arg_required_else_help = true
)]
struct Cli {
    #[command(flatten)]
    log: logging::LogArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the pipeline: camera → model → MQTT
    Run(run::Args),
    /// Show everything at work: a synthetic camera, the model that ships, an embedded broker
    #[cfg(feature = "broker")]
    Demo(demo::Args),
    /// Check configuration, models, broker and cameras; all problems in one go
    Check(check::Args),
    /// List cameras with their stable ids, formats, sizes and rates
    Devices(devices::Args),
    /// Classify image files
    Classify(classify::Args),
    /// Find things in image files: boxes with labels
    Detect(detect::Args),
    /// Say of image files which of their pixels are what
    Segment(segment::Args),
    /// Measure each stage of a model on this machine
    Bench(bench::Args),
    /// Look at models, test them, get them
    Model(model::Args),
    /// Run the embedded MQTT broker alone
    #[cfg(feature = "broker")]
    Broker(broker::Args),
    /// Print a shell's completions
    Completions(generate::CompletionsArgs),
    /// Print the manual page (roff)
    Man,
}

impl Command {
    /// What is logged if nothing is said. The demo's own lines are enough; its log would stand between them.
    fn log_level(&self) -> &'static str {
        match self {
            #[cfg(feature = "broker")]
            Self::Demo(_) => "warn",
            _ => "info",
        }
    }
}

/// A configuration, model or label file that is wrong: exit code 78.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct ConfigError(String);

/// A clean end, to be started again.
#[derive(Debug, thiserror::Error)]
#[error("a restart was asked for")]
struct RestartRequested;

/// Runs the command of this process's arguments.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    logging::start(&cli.log, cli.command.log_level());
    let result = match cli.command {
        Command::Run(args) => run::run(args),
        #[cfg(feature = "broker")]
        Command::Demo(args) => demo::run(args),
        Command::Check(args) => check::run(args),
        Command::Devices(args) => devices::run(args),
        Command::Classify(args) => classify::run(args),
        Command::Detect(args) => detect::run(args),
        Command::Segment(args) => segment::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Model(args) => model::run(args),
        #[cfg(feature = "broker")]
        Command::Broker(args) => broker::run(args),
        Command::Completions(args) => generate::completions(args),
        Command::Man => generate::man(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) if is_broken_pipe(&e) => ExitCode::SUCCESS,
        Err(e) if e.is::<RestartRequested>() => ExitCode::from(EXIT_RESTART),
        Err(e) => {
            eprintln!("error: {e:#}");
            let config = e.is::<ConfigError>()
                || e.chain()
                    .any(|c| c.is::<ConfigError>() || c.is::<crate::model::ModelError>());
            ExitCode::from(if config { EXIT_CONFIG } else { 1 })
        }
    }
}

/// `ocellus … | head` is no failure.
fn is_broken_pipe(e: &anyhow::Error) -> bool {
    e.chain()
        .filter_map(|c| c.downcast_ref::<std::io::Error>())
        .any(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
