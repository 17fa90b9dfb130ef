//! The plan → threads: the only place where stages are wired to each other.
//!
//! In: a [`Plan`] and its loaded models. Out: a [`Running`] pipeline, to be waited for. The caller's thread starts
//! and ends everything; the threads are those of the crate's table. Always holds: a stop ends capture first, then
//! the inference in hand, then tracks, then what is queued for the sinks, and the whole within two seconds.

mod camera;
mod crops;
mod io;
mod runner;
mod worker;

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;

use crate::capture::supervisor::{End, Supervisor};
use crate::capture::{CaptureContext, CaptureSettings};
use crate::clock::{Clock, SystemClock};
use crate::config::{ModelPlan, Plan};
use crate::control::{self, Control, SavedSettings};
use crate::controls::Controls;
use crate::frame::{CameraId, FramePool, LatestSlots};
use crate::model::{LoadOptions, Model, ModelInfo};
use crate::observe::{ModelRef, Publication};
use crate::publish::mqtt::discovery::{Announced, CameraComponents, Discovery};
use crate::publish::{Sink, health, jsonl::JsonlSink, mqtt};
use crate::shutdown::Shutdown;
use crate::stats::Stats;
use crate::task::TaskKind;
use crate::watchdog::Watchdog;

use camera::{CameraState, Kept};
pub use crops::check_cascades;
pub(crate) use crops::check_tasks;
pub(crate) use runner::ModelRunner;
use worker::Worker;

/// How long queued messages may take to leave after the last inference.
const FLUSH: Duration = Duration::from_millis(1000);
/// A worker that is silent for so long hangs, unless the service says another time (`WatchdogSec=`). The slowest network
/// on the slowest board takes a few seconds.
const INFER_SILENCE: Duration = Duration::from_secs(60);

/// Loads a plan's model; the self-test is the caller's to run.
pub fn load_model(plan: &ModelPlan, threads: usize) -> anyhow::Result<Model> {
    let options = LoadOptions {
        id: Some(plan.id.clone()),
        labels: plan.labels.clone(),
        tasks: plan.tasks.clone(),
        family: plan.task.detect.family,
        threads,
        ..LoadOptions::default()
    };
    Model::load(&plan.path, &options)
        .with_context(|| format!("cannot load the model `{}`", plan.id))
}

/// What a pipeline is started with, besides the plan.
#[derive(Default)]
pub struct Parts {
    /// The plan's models, in its order.
    pub models: Vec<Model>,
    /// Further sinks: tests and the demo.
    pub sinks: Vec<Arc<dyn Sink>>,
    /// Ends the pipeline when requested.
    pub shutdown: Shutdown,
    /// Reads the configuration again, for the command `reload`.
    pub reread: Option<control::Reread>,
    /// Whether SIGTERM and Ctrl-C request the shutdown, and systemd is told of readiness and progress.
    pub is_service: bool,
}

/// A running pipeline.
pub struct Running {
    /// Its counters.
    pub stats: Arc<Stats>,
    /// Ends it when requested.
    pub shutdown: Shutdown,
    /// The progress of its threads.
    pub watchdog: Watchdog,
    /// Set when the command `restart` ended it.
    pub restart: Arc<AtomicBool>,
    captures: Vec<JoinHandle<End>>,
    workers: Vec<JoinHandle<()>>,
    slots: Arc<LatestSlots>,
    io: Option<JoinHandle<()>>,
    io_shutdown: Shutdown,
    jsonl: Option<Arc<JsonlSink>>,
    cameras: Arc<[CameraState]>,
    sinks: Arc<[Arc<dyn Sink>]>,
    kept: Kept,
}

/// Starts every thread of a plan.
///
/// # Errors
/// Only what makes a start pointless: the model does not fit its tasks, the embedded broker's address is taken.
/// A missing camera or broker is a state, not an error.
pub fn start(plan: &Plan, parts: Parts) -> anyhow::Result<Running> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let stats = Arc::new(Stats::new(plan.cameras.iter().map(|c| c.id.clone())));
    let controls = Arc::new(controls(plan));
    let saved = match &plan.state_dir {
        Some(dir) => SavedSettings::load(dir),
        None => SavedSettings::default(),
    };
    saved.apply(&controls);
    let watchdog = Watchdog::default();
    let slots = Arc::new(LatestSlots::new(plan.cameras.len()));
    let shutdown = parts.shutdown;
    let io_shutdown = Shutdown::new();
    let restart = Arc::new(AtomicBool::new(false));

    let mut sinks = parts.sinks;
    let jsonl = match plan.jsonl {
        true => Some(Arc::new(json_lines(plan, &stats, &shutdown)?)),
        false => None,
    };
    sinks.extend(jsonl.clone().map(|s| s as Arc<dyn Sink>));
    let mut client = None;
    if let Some(settings) = &plan.mqtt {
        let device = mqtt::DeviceInfo::new(&plan.device, model_infos(plan, &parts.models));
        let (sink, c) = mqtt::connect(
            settings.clone(),
            device.clone(),
            stats.clone(),
            controls.clone(),
            clock.clone(),
        )?;
        let mut c = match &plan.spool_dir {
            Some(directory) => c
                .with_spool(&plan.spool, directory)
                .context("cannot start the thread spool")?,
            None => c,
        };
        sinks.push(Arc::new(sink));
        if let Some(discovery) = &plan.discovery {
            let announced = announced(plan, settings, &parts.models);
            let state_dir = plan.state_dir.as_deref();
            let discovery = Discovery::new(discovery.clone(), &device, &announced, state_dir);
            c.attach(Box::new(discovery));
        }
        if settings.commands {
            let models = plan.models.iter().zip(&parts.models);
            let parts = control::Parts {
                plan: plan.clone(),
                device,
                thresholds: models.map(|(p, m)| p.task.threshold(m.info())).collect(),
                controls: controls.clone(),
                saved,
                stats: stats.clone(),
                clock: clock.clone(),
                shutdown: shutdown.clone(),
                restart: restart.clone(),
                reread: parts.reread,
                supervised: std::env::var_os("NOTIFY_SOCKET").is_some(),
            };
            c.attach(Box::new(Control::new(parts)));
        }
        client = Some(c);
    }
    let sinks: Arc<[Arc<dyn Sink>]> = sinks.into();

    let io = io::Tasks {
        broker: plan.broker.clone(),
        client,
        stats: stats.clone(),
        watchdog: watchdog.clone(),
        pipeline_shutdown: shutdown.clone(),
        io_shutdown: io_shutdown.clone(),
        is_service: parts.is_service,
    };
    let io = io::spawn(io)?;

    let kept = Kept::open(plan, clock.wall());
    let reference = |m: &Model| Arc::new(m.info().reference.clone());
    let references: Vec<Arc<ModelRef>> = parts.models.iter().map(reference).collect();
    let infos: Vec<&ModelInfo> = parts.models.iter().map(Model::info).collect();
    let cameras: Arc<[CameraState]> = (0..plan.cameras.len())
        .map(|index| CameraState::new(plan, index, &references, &infos, &kept))
        .collect::<Result<_, _>>()
        .map_err(anyhow::Error::msg)?;
    let infer_silence = match parts.is_service {
        true => sd_notify::watchdog_enabled().unwrap_or(INFER_SILENCE),
        false => INFER_SILENCE,
    };
    let workers = (0..plan.workers)
        .map(|n| {
            let worker = Worker::new(
                plan,
                &parts.models,
                cameras.clone(),
                controls.clone(),
                stats.clone(),
                sinks.clone(),
            )?;
            let heartbeat = watchdog.register(format!("infer-{n}"), infer_silence);
            let (slots, shutdown) = (slots.clone(), shutdown.clone());
            spawn(format!("infer-{n}"), move || {
                worker.run(&slots, &shutdown, &heartbeat)
            })
        })
        .collect::<anyhow::Result<_>>()?;

    let captures = plan
        .cameras
        .iter()
        .enumerate()
        .map(|(index, c)| {
            let context = CaptureContext {
                camera: c.id.clone(),
                pool: FramePool::default(),
                clock: clock.clone(),
                shutdown: shutdown.clone(),
                stats: stats.cameras[index].clone(),
            };
            spawn_capture(
                c.capture.clone(),
                context,
                index,
                slots.clone(),
                sinks.clone(),
                &watchdog,
            )
        })
        .collect::<anyhow::Result<_>>()?;

    Ok(Running {
        stats,
        shutdown,
        watchdog,
        restart,
        captures,
        workers,
        slots,
        io: Some(io),
        io_shutdown,
        jsonl,
        cameras,
        sinks,
        kept,
    })
}

/// What each camera starts with.
fn controls(plan: &Plan) -> Controls {
    let settings = control::camera_settings(plan);
    Controls::new(plan.cameras.iter().map(|c| (c.id.clone(), settings)))
}

/// Standard output as a sink; a reader that goes away ends the pipeline.
fn json_lines(plan: &Plan, stats: &Arc<Stats>, shutdown: &Shutdown) -> anyhow::Result<JsonlSink> {
    let shutdown = shutdown.clone();
    let on_closed = move |e: std::io::Error| {
        if e.kind() == std::io::ErrorKind::BrokenPipe {
            tracing::info!("standard output was closed: stopping");
        } else {
            tracing::error!("cannot write to standard output: {e}; stopping");
        }
        shutdown.request();
    };
    JsonlSink::start(std::io::stdout(), &plan.device, stats.clone(), on_closed)
        .context("cannot start the thread jsonl")
}

/// What the device says of its models.
fn model_infos(plan: &Plan, models: &[Model]) -> Vec<mqtt::ModelInfo> {
    let info = |(index, m): (usize, &Model)| mqtt::ModelInfo {
        id: m.info().reference.id.clone(),
        sha256: m.info().reference.sha256.clone(),
        tasks: m
            .info()
            .tasks
            .iter()
            .map(|t| t.name().to_string())
            .collect(),
        cameras: plan
            .cameras
            .iter()
            .filter(|c| c.models.contains(&index) || c.crop_models.contains(&index))
            .map(|c| c.id.to_string())
            .collect(),
        crops_of: plan.models[index].crops.as_ref().map(|c| c.of.clone()),
    };
    models.iter().enumerate().map(info).collect()
}

/// What Home Assistant is to show.
fn announced(plan: &Plan, mqtt: &mqtt::MqttSettings, models: &[Model]) -> Announced {
    // Both have a state.
    let has_state = |kind: &TaskKind| [TaskKind::Classify, TaskKind::Detect].contains(kind);
    let classifies = |m: &usize| models[*m].info().tasks.iter().any(has_state);
    let detects = |m: &usize| models[*m].info().tasks.contains(&TaskKind::Detect);
    let camera = |c: &crate::config::CameraPlan| CameraComponents {
        id: c.id.to_string(),
        classified: c.models.iter().any(classifies),
        tracked: plan.tracking.enabled && c.models.iter().any(detects),
        zones: c.zones.iter().map(|z| z.id.clone()).collect(),
        lines: c.lines.iter().map(|l| l.id.clone()).collect(),
    };
    Announced {
        prefix: mqtt.prefix.clone(),
        cameras: plan.cameras.iter().map(camera).collect(),
        commands: mqtt.commands,
        images: plan.snapshot.is_some(),
        temperature: health::HealthReader::default()
            .read()
            .temperature_c
            .is_some(),
        heartbeat_s: mqtt.heartbeat_s,
        health_s: mqtt.health_s,
    }
}

fn spawn_capture(
    settings: CaptureSettings,
    context: CaptureContext,
    index: usize,
    slots: Arc<LatestSlots>,
    sinks: Arc<[Arc<dyn Sink>]>,
    watchdog: &Watchdog,
) -> anyhow::Result<JoinHandle<End>> {
    let name = format!("capture-{}", context.camera);
    let heartbeat = watchdog.register(name.clone(), Supervisor::max_silence(&settings));
    let camera: CameraId = context.camera.clone();
    let supervisor = Supervisor::new(settings, context, index, slots, heartbeat);
    spawn(name, move || {
        supervisor.run(&mut |online| {
            let status = Publication::CameraStatus {
                camera: camera.clone(),
                online,
            };
            sinks.iter().for_each(|s| s.publish(&status));
        })
    })
}

fn spawn<T: Send + 'static>(
    name: String,
    run: impl FnOnce() -> T + Send + 'static,
) -> anyhow::Result<JoinHandle<T>> {
    let what = format!("cannot start the thread {name}");
    std::thread::Builder::new()
        .name(name)
        .spawn(run)
        .context(what)
}

impl Running {
    /// Waits until a shutdown is requested or every camera has ended (files played once), then stops in order.
    ///
    /// # Errors
    /// A camera whose settings can never work; a thread that panicked; a reader of standard output that went away
    /// is a normal end.
    pub fn wait(mut self) -> anyhow::Result<Arc<Stats>> {
        let panicked = |w: &[JoinHandle<()>]| w.iter().any(|w| w.is_finished());
        while !self.captures.iter().all(|c| c.is_finished()) && !panicked(&self.workers) {
            if self.shutdown.sleep(Duration::from_millis(50)) {
                break;
            }
        }
        let ended_by_itself = self.captures.iter().all(|c| c.is_finished());
        if !ended_by_itself {
            self.shutdown.request();
        }
        let mut outcome = Ok(());
        for capture in self.captures.drain(..) {
            let name = capture.thread().name().unwrap_or("capture").to_string();
            match capture.join() {
                Ok(End::Invalid(message)) => outcome = Err(anyhow::anyhow!("{name}: {message}")),
                Ok(_) => {}
                Err(_) => outcome = Err(anyhow::anyhow!("the thread {name} panicked")),
            }
        }
        self.slots.close();
        for worker in self.workers.drain(..) {
            if worker.join().is_err() {
                outcome = Err(anyhow::anyhow!("an inference thread panicked"));
            }
        }
        for camera in self.cameras.iter() {
            worker::publish(&self.sinks, camera.finish());
        }
        self.kept.close();
        self.shutdown.request();
        if let Some(jsonl) = &self.jsonl {
            jsonl.finish(FLUSH);
        }
        let _ = std::io::stdout().flush();
        self.io_shutdown.request();
        if let Some(io) = self.io.take() {
            let _ = io.join();
        }
        outcome.map(|()| self.stats.clone())
    }
}
