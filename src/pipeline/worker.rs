//! The inference thread: frame → tensor → network → results → crops → observation → sinks.
//!
//! In: frames from [`LatestSlots`]. Out: [`Observation`]s, handed to every sink. On `infer-<n>`. Always holds: each
//! frame that is taken is counted once: inferred, undecodable, failed, disabled where inference is off, or still where nothing
//! moved; what a privacy mask covers
//! is black before anything else is done with the frame.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use anyhow::Context;

use super::camera::{CameraState, Turn};
use super::crops;
use super::runner::{Failure, ModelRunner, Run};
use crate::config::Plan;
use crate::controls::{CameraSettings, Controls, Request};
use crate::frame::{Frame, FramePool, LatestSlots, Taken};
use crate::model::Model;
use crate::observe::{Observation, Publication, Timing};
use crate::preprocess::apply_mask;
use crate::publish::Sink;
use crate::shutdown::Shutdown;
use crate::stats::{Stage, Stats};
use crate::task::TaskResult;
use crate::task::detect::{is_right, strongest};
use crate::watchdog::Heartbeat;

pub(super) struct Worker {
    cameras: Arc<[CameraState]>,
    models: Vec<ModelRunner>,
    controls: Arc<Controls>,
    stats: Arc<Stats>,
    sinks: Arc<[Arc<dyn Sink>]>,
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
                ModelRunner::new(model, &p.task)
                    .with_context(|| format!("the model `{}` does not fit its tasks", p.id))
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
            if (!online || !self.controls.settings(camera.index).inference)
                && let Some(_turn) = camera.try_turn()
            {
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
                Ok((mut observation, _turn)) => {
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

    /// The observation, and the turn in which it is to be published.
    fn observe<'a>(
        &mut self,
        camera: &'a CameraState,
        nth: usize,
        model: usize,
        frame: &Frame,
        settings: &CameraSettings,
    ) -> Result<(Observation, Turn<'a>), Failure> {
        let classified = camera.models.iter().any(|m| self.models[*m].classifies());
        let runner = &mut self.models[model];
        // A camera's own goes before the configured one.
        runner.set_threshold(settings.threshold);
        let Run {
            results,
            prepared,
            infer,
            inferred_at,
            decode_output,
        } = runner.run(frame, None)?;
        let reference = runner.reference.clone();
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
        let turn = camera.turn();
        let mut noted = camera.note(
            nth,
            (&frame.meta, prepared.mapping.frame),
            classes.or(surest.as_deref()),
            found,
            settings.smoothing,
            inferred_at,
        );
        let stats = &self.stats.cameras[camera.index];
        let started = Instant::now();
        let (crops, looked) = crops::look(&mut self.models, stats, camera, nth, frame, &mut noted);
        let looked_for = looked.then(|| started.elapsed());
        let ended = looked_for.map_or(inferred_at, |took| started + took);
        let timing = Timing {
            age: ended.saturating_duration_since(frame.meta.captured_at),
            decode: prepared.decode,
            preprocess: prepared.preprocess,
            infer,
            decode_output,
            crops: looked_for,
        };
        record(&self.stats, &timing);
        let observation = Observation {
            meta: frame.meta.clone(),
            seq: noted.seq,
            frame_size: prepared.mapping.frame,
            model: reference,
            results,
            timing,
            fps: noted.fps,
            state: noted.state,
            change: noted.change,
            followed: noted.followed,
            crops,
            requested: false,
        };
        Ok((observation, turn))
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
    if let Some(crops) = t.crops {
        stats.record(Stage::Crops, crops);
    }
}
