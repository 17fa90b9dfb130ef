//! `ocellus run`: the pipeline, until it is stopped.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::setup::{ConfigArgs, plan};
use super::{ConfigError, RestartRequested, summary};
use crate::config::SelfTestWhen;
use crate::config::plan::Plan;
use crate::control::Reread;
use crate::model::{Model, ModelInfo};
use crate::pipeline::{self, Parts};
use crate::shutdown::Shutdown;

/// From the request to stop to the end of the process, whatever hangs.
const STOP_LIMIT: Duration = Duration::from_millis(1900);

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    config: ConfigArgs,
    /// Also write observations to standard output, as lines of JSON
    #[arg(long, value_enum, value_name = "FORMAT")]
    output: Option<Output>,
    /// Stop after so many seconds
    #[arg(long, value_name = "N")]
    seconds: Option<f64>,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Output {
    /// One JSON object a line
    Jsonl,
}

pub(super) fn run(args: Args) -> anyhow::Result<()> {
    let mut plan = plan(&args.config)?;
    plan.jsonl |= args.output.is_some();
    if plan.mqtt.is_none() && !plan.jsonl {
        tracing::warn!(
            "nothing is published: give --mqtt URL, an [mqtt] section, or --output jsonl"
        );
    }
    let models = load_models(&plan)?;
    let reread = reread(args.config.clone());
    for camera in &plan.cameras {
        tracing::info!(camera = %camera.id, source = %camera.capture.source, "camera");
    }
    let shutdown = Shutdown::new();
    stop_after(&shutdown, args.seconds);
    let running = pipeline::start(
        &plan,
        Parts {
            models,
            shutdown,
            reread: Some(reread),
            is_service: true,
            ..Parts::default()
        },
    )?;
    let restart = running.restart.clone();
    let stats = running.wait()?;
    summary::log(&stats);
    match restart.load(Relaxed) {
        true => Err(RestartRequested.into()),
        false => Ok(()),
    }
}

/// The configuration as it is then, with the same flags over it.
fn reread(config: ConfigArgs) -> Reread {
    Arc::new(move || plan(&config).map_err(|e| format!("{e:#}")))
}

/// Loads every model of a plan and lets those that should prove themselves.
pub(super) fn load_models(plan: &Plan) -> anyhow::Result<Vec<Model>> {
    let mut models = Vec::new();
    for m in &plan.models {
        let model = pipeline::load_model(m, plan.engine_threads)?;
        let info = model.info();
        tracing::info!(model = %m.id, sha256 = %info.reference.sha256.get(..12).unwrap_or_default(), "model loaded");
        for note in &info.notes {
            tracing::info!(model = %m.id, "{note}");
        }
        if m.self_test == SelfTestWhen::Start {
            model.self_test()?;
        }
        models.push(model);
    }
    let infos: Vec<&ModelInfo> = models.iter().map(Model::info).collect();
    pipeline::check_cascades(plan, &infos).map_err(ConfigError)?;
    Ok(models)
}

/// Requests a stop after `seconds`, and ends the process when a stop was requested and something hangs: the broker
/// then publishes the will.
pub(super) fn stop_after(shutdown: &Shutdown, seconds: Option<f64>) {
    let shutdown = shutdown.clone();
    std::thread::Builder::new()
        .name("stop".into())
        .spawn(move || {
            let limit = Duration::try_from_secs_f64(seconds.unwrap_or(f64::INFINITY)).ok();
            match limit {
                Some(limit) => _ = shutdown.sleep(limit),
                None => while !shutdown.sleep(Duration::from_secs(3600)) {},
            }
            shutdown.request();
            std::thread::sleep(STOP_LIMIT);
            tracing::error!(
                "the stop took longer than {} ms: leaving",
                STOP_LIMIT.as_millis()
            );
            std::process::exit(1);
        })
        .expect("a thread can be started");
}
