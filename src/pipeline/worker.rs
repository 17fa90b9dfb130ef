//! The inference thread: frame → tensor → network → results → observation → sinks.
//!
//! In: frames from [`LatestSlots`]. Out: [`Observation`]s, handed to every sink. On `infer-<n>`. Always holds: each
//! frame that is taken is counted once: inferred, undecodable, failed, disabled where inference is off, or still where nothing
//! moved; what a privacy mask covers
//! is black before anything else is done with the frame.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use anyhow::Context;

use super::camera::CameraState;
use crate::config::Plan;
use crate::controls::{CameraSettings, Controls, Request};
use crate::frame::{Frame, FramePool, LatestSlots, Taken};
use crate::model::{Model, Session};
use crate::observe::{ModelRef, Observation, Publication, Timing};
use crate::preprocess::{InputTensor, Preprocessor, apply_mask};
use crate::publish::Sink;
use crate::shutdown::Shutdown;
use crate::stats::{Stage, Stats};
use crate::task::detect::{is_right, strongest};
use crate::task::{self, Task, TaskKind, TaskResult};
use crate::watchdog::Heartbeat;

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
            self.end_tracks_of_the_absent();
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

    /// A camera that is away, or whose frames are not inferred, shows no more of what was followed.
    fn end_tracks_of_the_absent(&self) {
        for camera in self.cameras.iter() {
            let online = self.stats.cameras[camera.index].online.load(Relaxed);
            if !online || !self.controls.settings(camera.index).inference {
                publish(&self.sinks, camera.is_away(Instant::now()));
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
        // A detector's state is the surest of what it found; a classifier's goes before it.
        let found = results.iter().find_map(|r| match r {
            TaskResult::Detections(found) => Some(found.as_slice()),
            _ => None,
        });
        // While an object comes or goes its frame has no label: then nothing is right or wrong.
        let truth = frame.meta.truth.as_ref();
        if let Some((truth, label)) = truth.and_then(|t| Some((t, t.label.as_deref()?))) {
            let there = truth.objects.iter().map(|o| (&*o.label, o.bbox.into()));
            let best = classes.and_then(|c| c.first()).map(|b| *b.label == *label);
            let boxes = found.map(|f| is_right(f.iter().map(|d| (&*d.label, d.bbox)), there));
            if let Some(right) = best.or(boxes) {
                let stats = &self.stats.cameras[camera.index];
                stats.judged.inc();
                stats.right.add(u64::from(right));
            }
        }
        let surest = found.filter(|_| !classified).map(strongest);
        let noted = camera.note(
            nth,
            (&frame.meta, prepared.mapping.frame),
            classes.or(surest.as_deref()),
            found,
            settings.smoothing,
            inferred_at,
        );
        Ok(Observation {
            meta: frame.meta.clone(),
            seq: noted.seq,
            frame_size: prepared.mapping.frame,
            model: runner.reference.clone(),
            results,
            timing,
            fps: noted.fps,
            state: noted.state,
            change: noted.change,
            followed: noted.followed,
            requested: false,
        })
    }
}

/// Hands observations to every sink.
pub(super) fn publish(sinks: &[Arc<dyn Sink>], observations: Vec<Observation>) {
    for observation in observations {
        let publication = Publication::Observation(Arc::new(observation));
        sinks.iter().for_each(|s| s.publish(&publication));
    }
}

fn record(stats: &Stats, t: &Timing) {
    stats.record(Stage::Age, t.age);
    stats.record(Stage::Decode, t.decode);
    stats.record(Stage::Preprocess, t.preprocess);
    stats.record(Stage::Infer, t.infer);
    stats.record(Stage::DecodeOutput, t.decode_output);
}
