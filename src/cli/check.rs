//! `ocellus check`: would `ocellus run` work here? Everything is tried, and every problem is told in one go.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use serde::Serialize;

use super::ConfigError;
use super::setup::{ConfigArgs, plan};
use crate::capture::{self, CaptureContext, CaptureError};
use crate::clock::SystemClock;
use crate::config::{CameraPlan, ModelPlan, Plan, SelfTestWhen};
use crate::frame::FramePool;
use crate::model::ModelInfo;
use crate::publish::mqtt::{self, MqttSettings};
use crate::shutdown::Shutdown;
use crate::stats::CameraStats;
use crate::{pipeline, task};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    config: ConfigArgs,
    /// Do not open cameras or connect to the broker: what is on disk only
    #[arg(long)]
    offline: bool,
    /// For programs: a JSON array
    #[arg(long)]
    json: bool,
}

/// What was tried, and how it went.
#[derive(Serialize)]
struct Finding {
    what: String,
    ok: bool,
    message: String,
    /// Whether a start would be refused; a missing camera or broker is a state that a run waits out.
    fatal: bool,
    /// Works, and should not stay so.
    warning: bool,
}

pub(super) fn run(args: Args) -> anyhow::Result<()> {
    let mut findings = Vec::new();
    match plan(&args.config) {
        Err(e) => findings.push(Finding {
            what: "configuration".into(),
            ok: false,
            message: format!("{e:#}"),
            fatal: true,
            warning: false,
        }),
        Ok(plan) => {
            let message = format!(
                "device {}, {} camera(s), {} model(s)",
                plan.device,
                plan.cameras.len(),
                plan.models.len()
            );
            findings.push(Finding {
                what: "configuration".into(),
                ok: true,
                message,
                fatal: true,
                warning: false,
            });
            let warnings = plan.mqtt.iter().flat_map(MqttSettings::warnings);
            findings.extend(warnings.map(|message| Finding {
                what: "security".into(),
                ok: true,
                message,
                fatal: false,
                warning: true,
            }));
            findings.extend(check_models(&plan));
            if !args.offline {
                findings.extend(
                    plan.cameras
                        .iter()
                        .map(|c| finding(format!("camera {}", c.id), false, check_camera(c))),
                );
                findings.extend(
                    plan.spool_dir
                        .as_ref()
                        .map(|d| finding("state directory".into(), false, check_directory(d))),
                );
                findings.extend(
                    plan.mqtt
                        .as_ref()
                        .map(|m| finding("broker".into(), false, check_broker(m, &plan))),
                );
            }
        }
    }
    report(&findings, args.json)?;
    let wrong: Vec<&Finding> = findings.iter().filter(|f| !f.ok).collect();
    match wrong.len() {
        0 => Ok(()),
        n if wrong.iter().any(|f| f.fatal) => {
            Err(ConfigError(format!("{n} problem(s); a start would be refused")).into())
        }
        n => anyhow::bail!("{n} problem(s); a start would wait for them to go away"),
    }
}

fn finding(what: String, fatal: bool, result: anyhow::Result<String>) -> Finding {
    match result {
        Ok(message) => Finding {
            what,
            ok: true,
            message,
            fatal,
            warning: false,
        },
        Err(e) => Finding {
            what,
            ok: false,
            message: format!("{e:#}"),
            fatal,
            warning: false,
        },
    }
}

fn report(findings: &[Finding], json: bool) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    if json {
        serde_json::to_writer_pretty(&mut out, findings)?;
        writeln!(out)?;
        return Ok(());
    }
    for f in findings {
        writeln!(
            out,
            "{}  {}: {}",
            match (f.ok, f.warning) {
                (false, _) => "FAIL",
                (true, true) => "warn",
                (true, false) => "ok  ",
            },
            f.what,
            f.message
        )?;
    }
    Ok(())
}

/// Each model, and whether those that look at crops fit the others.
fn check_models(plan: &Plan) -> Vec<Finding> {
    let mut infos = Vec::new();
    let mut findings: Vec<Finding> = Vec::new();
    for m in &plan.models {
        let checked = check_model(m, plan).map(|(info, message)| {
            infos.push(info);
            message
        });
        findings.push(finding(format!("model {}", m.id), true, checked));
    }
    let cascades = plan.models.iter().filter(|m| m.crops.is_some()).count();
    if cascades > 0 && infos.len() == plan.models.len() {
        let fit = pipeline::check_cascades(plan, &infos.iter().collect::<Vec<_>>());
        let fit = fit.map_err(anyhow::Error::msg);
        let message = format!("{cascades} model(s) look at what others find");
        findings.push(finding("cascades".into(), true, fit.map(|()| message)));
    }
    findings
}

fn check_model(m: &ModelPlan, plan: &Plan) -> anyhow::Result<(ModelInfo, String)> {
    let model = pipeline::load_model(m, plan.engine_threads)?;
    task::build_all(model.info(), &m.task)?;
    let golden = match m.self_test {
        SelfTestWhen::Off => "self-test off".into(),
        SelfTestWhen::Start | SelfTestWhen::Check => model.self_test()?.to_string(),
    };
    let info = model.info();
    let i = &info.input;
    let (width, height, labels) = (i.width, i.height, info.labels.len());
    let message = format!("{width}x{height} input, {labels} labels, {golden}");
    Ok((info.clone(), message))
}

/// Where the spool and the numbers of observations are kept.
fn check_directory(directory: &Path) -> anyhow::Result<String> {
    let try_it = || {
        std::fs::create_dir_all(directory)?;
        let file = directory.join(".check");
        std::fs::write(&file, "x")?;
        std::fs::remove_file(&file)
    };
    try_it().with_context(|| format!("cannot write in {}", directory.display()))?;
    Ok(format!("{} can be written", directory.display()))
}

/// Opens the camera and waits for one whole frame.
fn check_camera(c: &CameraPlan) -> anyhow::Result<String> {
    let context = CaptureContext {
        camera: c.id.clone(),
        pool: FramePool::default(),
        clock: Arc::new(SystemClock),
        shutdown: Shutdown::new(),
        stats: Arc::new(CameraStats::new(c.id.clone())),
    };
    let deadline = Instant::now() + c.capture.timeout + Duration::from_secs(1);
    let mut source = capture::open(&c.capture, context)?;
    loop {
        match source.next() {
            Ok(frame) => {
                let g = frame.geometry;
                return Ok(format!(
                    "{}: a {} frame of {}x{}",
                    source.describe(),
                    frame.format,
                    g.width,
                    g.height
                ));
            }
            Err(CaptureError::Skip(_)) if Instant::now() < deadline => {}
            Err(e) => anyhow::bail!("{}: {e}", c.capture.source),
        }
    }
}

/// Whether the broker lets us in; the embedded one will, once it runs.
fn check_broker(settings: &MqttSettings, plan: &Plan) -> anyhow::Result<String> {
    let (host, port) = settings.address()?;
    if plan.broker.as_ref().is_some_and(|b| b.is_at(&host, port)) {
        return Ok("the embedded one".into());
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let answer = runtime.block_on(mqtt::probe(settings, &plan.device));
    // The system's resolver may hang.
    runtime.shutdown_background();
    match answer {
        Ok(()) => Ok(format!("{host}:{port} lets us in")),
        Err(why) => anyhow::bail!("{host}:{port}: {why}"),
    }
}
