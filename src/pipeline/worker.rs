//! The inference thread: frame → tensor → network → results → observation → sinks.
//!
//! In: frames from [`LatestSlots`]. Out: [`Observation`]s, handed to every sink. On `infer-<n>`. Always holds: each
//! frame that is taken is counted once: inferred, undecodable, failed, disabled where inference is off, or still where nothing
//! moved; what a privacy mask covers
//! is black before anything else is done with the frame.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Context;

use crate::config::{CameraPlan, Plan};
use crate::controls::{CameraSettings, Controls, Request};
use crate::frame::{CameraId, Frame, FramePool, LatestSlots, Mask, Taken};
use crate::model::{Model, Session};
use crate::motion::MotionGate;
use crate::observe::zones::Zones;
use crate::observe::{
    Followed, Follower, ModelRef, Observation, Publication, Sequences, Smoother, Timing,
};
use crate::preprocess::{InputTensor, Preprocessor, apply_mask};
use crate::publish::Sink;
use crate::shutdown::Shutdown;
use crate::stats::{Stage, Stats};
use crate::task::detect::strongest;
use crate::task::{self, Task, TaskKind, TaskResult};
use crate::watchdog::Heartbeat;

/// Window over which a camera's inferences a second are counted.
const FPS_WINDOW: Duration = Duration::from_secs(5);

/// What is remembered of a camera from frame to frame, by whichever worker has its frame.
pub(super) struct CameraState {
    id: CameraId,
    /// Its place in the plan.
    index: usize,
    mask: Option<Arc<Mask>>,
    models: Vec<usize>,
    sequences: Sequences,
    memory: Mutex<Memory>,
}

struct Memory {
    /// `None`: every frame is inferred.
    motion: Option<MotionGate>,
    inferred_at: VecDeque<Instant>,
    /// One for each model that looks at this camera.
    smoothers: Vec<Smoother>,
    /// Likewise; `None` where nothing is tracked.
    followers: Vec<Option<Follower>>,
}

impl CameraState {
    pub(super) fn new(
        camera: &CameraPlan,
        index: usize,
        sequences: Sequences,
        plan: &Plan,
        detects: &dyn Fn(usize) -> bool,
    ) -> Self {
        let smoother = |_: &usize| Smoother::new(plan.smoothing);
        let smoothers = camera.models.iter().map(smoother).collect();
        // A thing that two models find counts once: for the first of them.
        let mut zones = Zones::new(&camera.zones, &camera.lines);
        let follower = |model: &usize| {
            let tracks = plan.tracking.enabled && detects(*model);
            tracks.then(|| Follower::new(plan.tracking, zones.take()))
        };
        let followers = camera.models.iter().map(follower).collect();
        if zones.is_some() {
            tracing::warn!(camera = %camera.id, "zones and lines count nothing: no model detects in this camera's frames");
        }
        let memory = Memory {
            motion: camera.motion.map(MotionGate::new),
            inferred_at: VecDeque::new(),
            smoothers,
            followers,
        };
        Self {
            id: camera.id.clone(),
            index,
            mask: camera.mask.clone(),
            models: camera.models.clone(),
            sequences,
            memory: Mutex::new(memory),
        }
    }

    /// Whether something has moved, or it is time to look all the same. `anyway`: the frame is inferred in any case.
    fn moved(&self, frame: &Frame, anyway: bool) -> bool {
        let mut memory = self.memory.lock().unwrap();
        let gate = memory.motion.as_mut();
        gate.is_none_or(|g| g.passes(frame, anyway))
    }
}

/// One model as one worker runs it.
struct ModelRunner {
    reference: Arc<ModelRef>,
    preprocessor: Preprocessor,
    input: InputTensor,
    session: Session,
    tasks: Vec<Box<dyn Task>>,
    classifies: bool,
}

pub(super) struct Worker {
    cameras: Arc<[CameraState]>,
    models: Vec<ModelRunner>,
    controls: Arc<Controls>,
    stats: Arc<Stats>,
    sinks: Arc<[Arc<dyn Sink>]>,
}

/// Why a frame gave no observation.
enum Failure {
    Undecodable(String),
    Inference(String),
}

impl Worker {
    pub(super) fn new(
        plan: &Plan,
        models: &[Model],
        cameras: Arc<[CameraState]>,
        controls: Arc<Controls>,
        stats: Arc<Stats>,
        sinks: Arc<[Arc<dyn Sink>]>,
    ) -> anyhow::Result<Self> {
        let models = plan
            .models
            .iter()
            .zip(models)
            .map(|(p, model)| {
                let info = model.info();
                let tasks = task::build_all(info, &p.task)
                    .with_context(|| format!("the model `{}` does not fit its tasks", p.id))?;
                Ok(ModelRunner {
                    reference: Arc::new(info.reference.clone()),
                    preprocessor: Preprocessor::new(info.input.clone()),
                    input: InputTensor::for_spec(&info.input),
                    session: model.session()?,
                    tasks,
                    classifies: info.tasks.contains(&TaskKind::Classify),
                })
            })
            .collect::<anyhow::Result<_>>()?;
        Ok(Self {
            cameras,
            models,
            controls,
            stats,
            sinks,
        })
    }

    /// Until the slots are closed and empty, or a shutdown is requested.
    pub(super) fn run(mut self, slots: &LatestSlots, shutdown: &Shutdown, heartbeat: &Heartbeat) {
        loop {
            heartbeat.beat();
            match slots.take(Duration::from_millis(500)) {
                Taken::Closed => return,
                Taken::TimedOut => {}
                Taken::Frame(camera, _) if shutdown.is_requested() => {
                    self.stats.cameras[camera].abandoned.inc();
                }
                Taken::Frame(camera, frame) => self.take(camera, frame),
            }
        }
    }

    /// What is wanted of the frame, then inference, if it is on or wanted.
    fn take(&mut self, camera: usize, mut frame: Frame) {
        if let Some(mask) = &self.cameras[camera].mask {
            apply_mask(&mut frame, mask);
        }
        let (settings, requests) = self.controls.take(camera);
        let mut askers = Vec::new();
        for request in requests {
            match request {
                // Whoever asked may have given up.
                Request::Frame(answer) => _ = answer.send(Ok(frame.copy(&FramePool::new(0)))),
                Request::Infer(answer) => askers.push(answer),
            }
        }
        if !settings.inference && askers.is_empty() {
            self.stats.cameras[camera].disabled.inc();
            return;
        }
        if !self.cameras[camera].moved(&frame, !askers.is_empty()) {
            self.stats.cameras[camera].still.inc();
            return;
        }
        let result = self.infer(camera, &frame, &settings, !askers.is_empty());
        for answer in askers {
            let _ = answer.send(result.clone());
        }
    }

    /// Returns the observation of each model, or why one of them gave none.
    fn infer(
        &mut self,
        camera: usize,
        frame: &Frame,
        settings: &CameraSettings,
        requested: bool,
    ) -> Result<Vec<Arc<Observation>>, String> {
        let stats = self.stats.cameras[camera].clone();
        let cameras = self.cameras.clone();
        let mut observations = Vec::new();
        let mut failure = None;
        for (nth, &model) in cameras[camera].models.iter().enumerate() {
            match self.observe(&cameras[camera], nth, model, frame, settings) {
                Ok(mut observation) => {
                    observation.requested = requested;
                    let observation = Arc::new(observation);
                    let publication = Publication::Observation(observation.clone());
                    self.sinks.iter().for_each(|s| s.publish(&publication));
                    observations.push(observation);
                }
                Err(f) => failure = Some(f),
            }
        }
        let id = &cameras[camera].id;
        match &failure {
            None => stats.inferred.inc(),
            Some(Failure::Undecodable(e)) => {
                stats.undecodable.inc();
                tracing::debug!(camera = %id, sequence = frame.meta.sequence, "frame skipped: {e}");
            }
            Some(Failure::Inference(e)) => {
                stats.failed.inc();
                tracing::error!(camera = %id, sequence = frame.meta.sequence, "inference failed: {e}");
            }
        }
        match failure {
            None => Ok(observations),
            Some(Failure::Undecodable(e) | Failure::Inference(e)) => Err(e),
        }
    }

    fn observe(
        &mut self,
        camera: &CameraState,
        nth: usize,
        model: usize,
        frame: &Frame,
        settings: &CameraSettings,
    ) -> Result<Observation, Failure> {
        let classified = camera.models.iter().any(|m| self.models[*m].classifies);
        let runner = &mut self.models[model];
        let undecodable =
            |e: crate::preprocess::PreprocessError| Failure::Undecodable(e.to_string());
        let prepared = runner
            .preprocessor
            .run(frame, &mut runner.input)
            .map_err(undecodable)?;
        let started = Instant::now();
        let failed =
            |e: &dyn std::fmt::Display| Failure::Inference(format!("{}: {e}", runner.reference.id));
        let outputs = runner.session.run(&runner.input).map_err(|e| failed(&e))?;
        let inferred_at = Instant::now();
        let decode = |t: &mut Box<dyn Task>| {
            // A camera's own goes before the configured one.
            t.set_threshold(settings.threshold);
            t.decode(outputs, &prepared.mapping).map_err(|e| failed(&e))
        };
        let results: Vec<TaskResult> = runner
            .tasks
            .iter_mut()
            .map(decode)
            .collect::<Result<_, _>>()?;
        let timing = Timing {
            age: inferred_at.saturating_duration_since(frame.meta.captured_at),
            decode: prepared.decode,
            preprocess: prepared.preprocess,
            infer: inferred_at - started,
            decode_output: inferred_at.elapsed(),
        };
        record(&self.stats, &timing);
        let classes = results.iter().find_map(|r| match r {
            TaskResult::Classification(classes) => Some(classes.as_slice()),
            _ => None,
        });
        let truth = frame.meta.truth.as_ref().and_then(|t| t.label.as_deref());
        if let (Some(truth), Some(best)) = (truth, classes.and_then(|c| c.first())) {
            let stats = &self.stats.cameras[camera.index];
            stats.judged.inc();
            stats.right.add(u64::from(*truth == *best.label));
        }
        let mut memory = camera.memory.lock().unwrap();
        // A detector's state is the surest of what it found; a classifier's goes before it.
        let found = results.iter().find_map(|r| match r {
            TaskResult::Detections(found) if !classified => Some(strongest(found)),
            _ => None,
        });
        let (state, change) = match classes.or(found.as_deref()) {
            Some(classes) => {
                memory.smoothers[nth].set(settings.smoothing);
                memory.smoothers[nth].update(frame.meta.captured_at, classes)
            }
            None => (None, None),
        };
        let found = results.iter().find_map(|r| match r {
            TaskResult::Detections(found) => Some(found),
            _ => None,
        });
        let followed = match (found, &mut memory.followers[nth]) {
            (Some(found), Some(follower)) => follower.update(frame.meta.captured_at, found),
            _ => Followed::default(),
        };
        let seq = camera.sequences.next(camera.index);
        if nth == 0 {
            memory.inferred_at.push_back(inferred_at);
        }
        let fps = frames_a_second(&mut memory.inferred_at, inferred_at);
        drop(memory);
        Ok(Observation {
            meta: frame.meta.clone(),
            seq,
            frame_size: prepared.mapping.frame,
            model: runner.reference.clone(),
            results,
            timing,
            fps,
            state,
            change,
            followed,
            requested: false,
        })
    }
}

fn record(stats: &Stats, t: &Timing) {
    stats.record(Stage::Age, t.age);
    stats.record(Stage::Decode, t.decode);
    stats.record(Stage::Preprocess, t.preprocess);
    stats.record(Stage::Infer, t.infer);
    stats.record(Stage::DecodeOutput, t.decode_output);
}

/// Over the window that ends at `now`; what is older is forgotten.
fn frames_a_second(inferred_at: &mut VecDeque<Instant>, now: Instant) -> f32 {
    while inferred_at
        .front()
        .is_some_and(|t| now.duration_since(*t) > FPS_WINDOW)
    {
        inferred_at.pop_front();
    }
    match inferred_at.front() {
        Some(first) if inferred_at.len() > 1 => {
            (inferred_at.len() - 1) as f32 / now.duration_since(*first).as_secs_f32().max(1e-6)
        }
        _ => 0.0,
    }
}
