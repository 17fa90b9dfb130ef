//! `ocellus model …`: to look at a model, to test it, to get one.

mod dataset;
mod doctor;
mod eval;
mod inspect;
mod list;
#[cfg(feature = "pull")]
mod pull;
mod verify;

use std::path::PathBuf;

use clap::Subcommand;

use super::setup::{CLASSIFIER, shipped_model};
use crate::model::store;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show what a model is made of: inputs, outputs, operators, parameters, cost, quantization
    Inspect(inspect::Args),
    /// Tell what is wrong or looks wrong, with a fix for each; what runs on integers and what does not, and why
    Doctor(doctor::Args),
    /// Compute the bundle's golden input and compare with what the training machine computed
    Verify(verify::Args),
    /// Measure on labelled images how good a model is: top-1 and top-5, average precision of boxes, mean IoU of class maps
    Eval(eval::Args),
    /// List the models that are here, and those that can be pulled
    List(list::Args),
    /// Fetch a model of the catalogue, or of an address whose digest is known
    #[cfg(feature = "pull")]
    Pull(pull::Args),
}

/// Which model.
#[derive(Debug, clap::Args)]
struct ModelPath {
    /// A bundle's directory, an .onnx file, or the name of a pulled model (default: the model that ships)
    #[arg(value_name = "MODEL")]
    model: Option<PathBuf>,
}

impl ModelPath {
    fn resolve(&self) -> anyhow::Result<PathBuf> {
        match &self.model {
            Some(model) => Ok(store::find(model)),
            None => shipped_model(CLASSIFIER),
        }
    }
}

pub(super) fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::Inspect(args) => inspect::run(args),
        Command::Doctor(args) => doctor::run(args),
        Command::Verify(args) => verify::run(args),
        Command::Eval(args) => eval::run(args),
        Command::List(args) => list::run(args),
        #[cfg(feature = "pull")]
        Command::Pull(args) => pull::run(args),
    }
}
