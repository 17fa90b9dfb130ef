//! What is remembered of a camera from frame to frame: what moved, states, tracks, counts.
//!
//! In: a camera's plan; then the frames and results of whichever worker has its frame. Out: whether a frame is inferred, and what follows
//! from its results. On the `infer-<n>` threads, and at the end on the thread that stops them. Always holds: one worker at a time.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};
use std::time::{Duration, Instant, SystemTime};

use crate::config::{CameraPlan, Plan};
use crate::frame::{CameraId, Frame, FrameMeta, Mask};
use crate::model::ModelInfo;
use crate::motion::MotionGate;
use crate::observe::crops::{Choice, Chooser, CropResult};
use crate::observe::sequence::{OBSERVATIONS, TRACKS};
use crate::observe::zones::{Counts, Zones};
use crate::observe::{
    Followed, Follower, ModelRef, Observation, Sequence, Sequences, Smoother, SmoothingSettings,
    State, StateChange, Tally, Timing,
};
use crate::task::{Class, Detection, TaskKind};

use super::crops;

/// Window over which a camera's inferences a second are counted.
const FPS_WINDOW: Duration = Duration::from_secs(5);

/// What of it survives the program: in files, where there is a directory for them.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    observations: Sequences,
    tracks: Sequences,
    tally: Tally,
    now: SystemTime,
}

impl Kept {
    pub fn open(plan: &Plan, now: SystemTime) -> Self {
        let directory = plan.spool_dir.as_deref();
        let cameras = plan.cameras.iter().map(|c| c.id.clone());
        let name =
            |c: &CameraPlan, m: &usize| Arc::from(format!("{}/{}", c.id, plan.models[*m].id));
        let names = |c: &CameraPlan| c.models.iter().map(|m| name(c, m)).collect::<Vec<_>>();
        Self {
            observations: Sequences::open(directory, OBSERVATIONS, cameras, now),
            tracks: Sequences::open(directory, TRACKS, plan.cameras.iter().flat_map(names), now),
            tally: Tally::open(directory),
            now,
        }
    }

    /// At a clean stop, after the last observation.
    pub fn close(&self) {
        self.observations.close();
        self.tracks.close();
        self.tally.close();
    }
}

/// What is remembered of a camera from frame to frame, by whichever worker has its frame.
pub(super) struct CameraState {
    pub id: CameraId,
    /// Its place in the plan.
    pub index: usize,
    pub mask: Option<Arc<Mask>>,
    /// Those that look at its frames, by their place in the plan.
    pub models: Vec<usize>,
    /// For each of them, those that look at crops of what it finds, by their place in the plan.
    pub crop_models: Vec<Vec<usize>>,
    references: Vec<Arc<ModelRef>>,
    sequence: Sequence,
    tally: Tally,
    /// A track whose camera is away for so long has ended.
    lost: Duration,
    memory: Mutex<Memory>,
    turn: Mutex<()>,
}

/// Whoever has it speaks of the camera; nobody else does until it is dropped.
pub(super) struct Turn<'a>(#[expect(dead_code, reason = "is held")] MutexGuard<'a, ()>);

struct Memory {
    /// `None`: every frame is inferred.
    motion: Option<MotionGate>,
    inferred_at: VecDeque<Instant>,
    /// The newest frame and its size.
    newest: Option<(FrameMeta, (u32, u32))>,
    /// One for each model that looks at this camera.
    smoothers: Vec<Smoother>,
    /// Likewise; `None` where nothing is tracked.
    followers: Vec<Option<Follower>>,
    /// Likewise: one for each model that looks at crops of what it finds.
    choosers: Vec<Vec<Chooser>>,
}

/// What follows from one model's results.
pub(super) struct Noted {
    pub seq: u64,
    pub fps: f32,
    pub state: Option<State>,
    pub change: Option<StateChange>,
    pub followed: Followed,
    /// One for each model that looks at crops of what was found.
    pub choices: Vec<Choice>,
}

impl CameraState {
    /// `references` and `infos`: of the plan's models, in its order.
    ///
    /// # Errors
    /// A model cannot look at the crops that it is to.
    pub fn new(
        plan: &Plan,
        index: usize,
        references: &[Arc<ModelRef>],
        infos: &[&ModelInfo],
        kept: &Kept,
    ) -> Result<Self, String> {
        let camera = &plan.cameras[index];
        let smoother = |_: &usize| Smoother::new(plan.smoothing);
        let smoothers = camera.models.iter().map(smoother).collect();
        let before = kept.tally.get(&camera.id);
        let before = before.map_or_else(|| Counts::since(kept.now), Arc::unwrap_or_clone);
        // A thing that two models find counts once: for the first of them.
        let mut zones = Zones::new(&camera.zones, &camera.lines, before);
        let first: usize = plan.cameras[..index].iter().map(|c| c.models.len()).sum();
        let detects = |m: &usize| infos[*m].tasks.contains(&TaskKind::Detect);
        let follower = |(nth, model): (usize, &usize)| {
            let tracks = plan.tracking.enabled && detects(model);
            let numbers = kept.tracks.of(first + nth);
            tracks.then(|| Follower::new(plan.tracking, numbers, zones.take()))
        };
        let followers = camera.models.iter().enumerate().map(follower).collect();
        if zones.is_some() {
            tracing::warn!(camera = %camera.id, "zones and lines count nothing: no model detects in this camera's frames");
        }
        let seconds = camera.models.iter();
        let seconds = seconds.map(|m| crops::choosers(plan, camera, *m, infos));
        let seconds: Vec<_> = seconds.collect::<Result<_, _>>()?;
        let (crop_models, choosers) = seconds.into_iter().unzip();
        let memory = Memory {
            motion: camera.motion.map(MotionGate::new),
            inferred_at: VecDeque::new(),
            newest: None,
            smoothers,
            followers,
            choosers,
        };
        Ok(Self {
            id: camera.id.clone(),
            index,
            mask: camera.mask.clone(),
            models: camera.models.clone(),
            crop_models,
            references: camera
                .models
                .iter()
                .map(|m| references[*m].clone())
                .collect(),
            sequence: kept.observations.of(index),
            tally: kept.tally.clone(),
            lost: Duration::from_millis(plan.tracking.lost_ms),
            memory: Mutex::new(memory),
            turn: Mutex::new(()),
        })
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// From [`note`](Self::note) to the observation's publication, so that observations go out in the order of their numbers, however
    /// long crops take.
    pub fn turn(&self) -> Turn<'_> {
        Turn(self.turn.lock().unwrap_or_else(|e| e.into_inner()))
    }

    /// `None` if another worker has it.
    pub fn try_turn(&self) -> Option<Turn<'_>> {
        match self.turn.try_lock() {
            Ok(turn) => Some(Turn(turn)),
            Err(TryLockError::Poisoned(e)) => Some(Turn(e.into_inner())),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Whether something has moved, or it is time to look all the same. `anyway`: the frame is inferred in any case.
    pub fn moved(&self, frame: &Frame, anyway: bool) -> bool {
        let mut memory = self.memory();
        let gate = memory.motion.as_mut();
        gate.is_none_or(|g| g.passes(frame, anyway))
    }

    /// Takes what the camera's `nth` model said of a frame of this size at `inferred_at`. `classes`: what its state is made of.
    pub fn note(
        &self,
        nth: usize,
        frame: (&FrameMeta, (u32, u32)),
        classes: Option<&[Class]>,
        found: Option<&[Detection]>,
        smoothing: SmoothingSettings,
        inferred_at: Instant,
    ) -> Noted {
        let mut memory = self.memory();
        let memory = &mut *memory;
        let (meta, size) = frame;
        let (state, change) = match classes {
            Some(classes) => {
                memory.smoothers[nth].set(smoothing);
                memory.smoothers[nth].update(meta.captured_at, classes)
            }
            None => (None, None),
        };
        let followed = match (found, &mut memory.followers[nth]) {
            (Some(found), Some(follower)) => follower.update(meta.captured_at, found),
            _ => Followed::default(),
        };
        self.keep(&followed);
        let (at, found) = (meta.captured_at, found.unwrap_or_default());
        let choosers = memory.choosers[nth].iter_mut();
        let choices = choosers.map(|c| c.choose(at, size, found, &followed.ids, &followed.tracks));
        let choices = choices.collect();
        if nth == 0 {
            memory.inferred_at.push_back(inferred_at);
            memory.newest = Some((meta.clone(), size));
        }
        Noted {
            seq: self.sequence.next(),
            fps: frames_a_second(&mut memory.inferred_at, inferred_at),
            state,
            change,
            followed,
            choices,
        }
    }

    /// Takes what a model said of a crop of what the camera's `nth` model found.
    pub fn keep_crop(
        &self,
        nth: usize,
        which: usize,
        track: Option<u64>,
        result: &Arc<CropResult>,
    ) {
        self.memory().choosers[nth][which].keep(track, result);
    }

    fn keep(&self, followed: &Followed) {
        if let (true, Some(counts)) = (followed.counted, &followed.counts) {
            self.tally.put(&self.id, counts.clone());
        }
    }

    /// No frame comes, or none is inferred: the tracks end when that has lasted as long as a thing may be out of sight.
    pub fn is_away(&self, now: Instant) -> Vec<Observation> {
        self.end(|last| now.saturating_duration_since(last) > self.lost)
    }

    /// Nothing more comes: every track ends.
    pub fn finish(&self) -> Vec<Observation> {
        self.end(|_| true)
    }

    /// Ends the tracks of those followers whose newest frame is so old. Without results, observations of the newest frame.
    fn end(&self, ends: impl Fn(Instant) -> bool) -> Vec<Observation> {
        let mut memory = self.memory();
        let Some((meta, frame_size)) = memory.newest.clone() else {
            return Vec::new();
        };
        // What is in the picture is in its own observation.
        let meta = FrameMeta {
            truth: None,
            ..meta
        };
        let memory = &mut *memory;
        let followers = memory.followers.iter_mut().zip(&mut memory.choosers);
        let followers = followers.zip(&self.references);
        let end = |((follower, choosers), model): (
            (&mut Option<Follower>, &mut Vec<Chooser>),
            &Arc<ModelRef>,
        )| {
            let follower = follower.as_mut().filter(|f| f.last().is_some_and(&ends))?;
            let followed = follower.finish()?;
            self.keep(&followed);
            choosers.iter_mut().for_each(Chooser::clear);
            Some(Observation {
                meta: meta.clone(),
                seq: self.sequence.next(),
                frame_size,
                model: model.clone(),
                results: Vec::new(),
                timing: Timing::default(),
                fps: 0.0,
                state: None,
                change: None,
                followed,
                crops: Vec::new(),
                requested: false,
            })
        };
        followers.filter_map(end).collect()
    }
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
