//! What waits for the broker, between the inference threads and `io`.
//!
//! In: publications, from any thread, never blocking. Out: messages, taken by the client while it is connected.
//! Always holds: at most `queue` observations wait; statuses, states and counts are a table in which the newest wins, so
//! they are never lost and never stale. When the queue is full the oldest observation that caused no event goes,
//! then the oldest at all; each is counted in `queue_full`.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::controls::{CameraSettings, Controls};
use crate::frame::CameraId;
use crate::observe::{ModelRef, Observation, Publication};
use crate::stats::Stats;

/// One thing to send.
#[derive(Debug)]
pub(super) enum Item {
    /// A camera came, went, or stopped or went on inferring.
    Status(CameraId, CameraStatus),
    /// The state of a camera, from its newest observation.
    State(Arc<Observation>),
    /// What was counted in a camera's zones and at its lines, from the observation that counted last.
    Counts(Arc<Observation>),
    /// A queued observation.
    Observation(Waiting),
}

/// An observation that waits.
#[derive(Debug, Clone)]
pub(super) struct Waiting {
    pub observation: Arc<Observation>,
    /// Whether its results go out.
    pub sections: bool,
    /// Whether its events go out, if it caused any.
    pub event: bool,
}

/// The payload of a camera's `status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CameraStatus {
    Online,
    Offline,
    /// Online, and inference is off.
    Disabled,
}

#[derive(Debug)]
pub(super) struct Queue {
    capacity: usize,
    controls: Arc<Controls>,
    waiting: VecDeque<Waiting>,
    cameras: HashMap<CameraId, Camera>,
}

#[derive(Debug, Default)]
struct Camera {
    online: bool,
    status_sent: Option<CameraStatus>,
    latest: Option<Arc<Observation>>,
    state_due: bool,
    counts: Option<Arc<Observation>>,
    counts_due: bool,
    state_sent: Option<Instant>,
    /// For each model that looks at it: when its next observation may go if the rate were exact.
    rate_due: Vec<(Arc<ModelRef>, Instant)>,
}

impl Queue {
    /// For the cameras of `controls`, whose `max_rate` and `inference` it heeds.
    pub fn new(capacity: usize, controls: Arc<Controls>) -> Self {
        let cameras = controls.ids().map(|id| (id.clone(), Camera::default()));
        Self {
            capacity,
            waiting: VecDeque::new(),
            cameras: cameras.collect(),
            controls,
        }
    }

    fn settings(&self, camera: &str) -> CameraSettings {
        let index = self.controls.index(camera);
        index.map_or_else(CameraSettings::default, |i| self.controls.settings(i))
    }

    pub fn push(&mut self, publication: &Publication, now: Instant, stats: &Stats) {
        match publication {
            Publication::CameraStatus { camera, online } => {
                let camera = self.cameras.entry(camera.clone()).or_default();
                camera.online = *online;
            }
            Publication::Observation(o) => self.push_observation(o, now, stats),
        }
    }

    fn push_observation(&mut self, o: &Arc<Observation>, now: Instant, stats: &Stats) {
        let max_rate = self.settings(&o.meta.camera).max_rate;
        let period = Duration::try_from_secs_f64(1.0 / max_rate).ok();
        let camera = self.cameras.entry(o.meta.camera.clone()).or_default();
        // An observation of another model, which gives no state, does not replace one that does.
        let stateless = |l: &Arc<Observation>| l.state.is_none();
        let is_first = camera.latest.as_ref().is_none_or(stateless) && o.state.is_some();
        camera.state_due |= camera.latest.is_none() || is_first || o.change.is_some();
        camera.state_due |= o.requested;
        if o.state.is_some() || camera.latest.as_ref().is_none_or(stateless) {
            camera.latest = Some(o.clone());
        }
        if o.followed.counted {
            camera.counts = Some(o.clone());
            camera.counts_due = true;
        }
        let sections = camera.may_go(&o.model, period, now) || o.requested;
        if !sections {
            stats.rate_limited.inc();
            if !o.has_event() {
                return;
            }
        }
        if self.waiting.len() >= self.capacity {
            let eventless = self.waiting.iter().position(|w| !w.has_event());
            self.waiting.remove(eventless.unwrap_or(0));
            stats.queue_full.inc();
        }
        self.waiting.push_back(Waiting {
            observation: o.clone(),
            sections,
            event: true,
        });
    }

    /// The next thing to send: statuses, then counts and states, then observations in their order.
    pub fn pop(&mut self, now: Instant, heartbeat: Duration) -> Option<Item> {
        let controls = &self.controls;
        for (id, camera) in &mut self.cameras {
            let inference = |i| controls.settings(i).inference;
            let status = match camera.online {
                false => CameraStatus::Offline,
                true if controls.index(id).is_none_or(inference) => CameraStatus::Online,
                true => CameraStatus::Disabled,
            };
            if camera.status_sent != Some(status) {
                camera.status_sent = Some(status);
                return Some(Item::Status(id.clone(), status));
            }
        }
        for camera in self.cameras.values_mut() {
            if let (true, Some(o)) = (std::mem::take(&mut camera.counts_due), &camera.counts) {
                return Some(Item::Counts(o.clone()));
            }
            let Some(latest) = &camera.latest else {
                continue;
            };
            let beat = camera.online
                && camera
                    .state_sent
                    .is_none_or(|t| now.saturating_duration_since(t) >= heartbeat);
            if std::mem::take(&mut camera.state_due) || beat {
                camera.state_sent = Some(now);
                return Some(Item::State(latest.clone()));
            }
        }
        self.waiting.pop_front().map(Item::Observation)
    }

    /// Of the oldest observation that has any: the parts that must not be lost, its event and, if `sections`, its results.
    /// The others go on waiting.
    pub fn pop_kept(&mut self, sections: bool) -> Option<Waiting> {
        let is_kept = |w: &Waiting| w.has_event() || (sections && w.sections);
        let index = self.waiting.iter().position(is_kept)?;
        let waiting = &mut self.waiting[index];
        let kept = Waiting {
            sections: sections && waiting.sections,
            ..waiting.clone()
        };
        waiting.event = false;
        waiting.sections &= !sections;
        if !waiting.sections {
            self.waiting.remove(index);
        }
        Some(kept)
    }

    /// After a reconnect: every retained message is due again.
    pub fn all_due(&mut self) {
        for camera in self.cameras.values_mut() {
            camera.status_sent = None;
            camera.state_due = camera.latest.is_some();
            camera.counts_due = camera.counts.is_some();
        }
    }

    /// At the end: every camera goes offline.
    pub fn all_offline(&mut self) {
        for camera in self.cameras.values_mut() {
            camera.online = false;
        }
    }

    pub fn len(&self) -> usize {
        self.waiting.len()
    }
}

impl Waiting {
    fn has_event(&self) -> bool {
        self.event && self.observation.has_event()
    }
}

impl Camera {
    /// Holds the mean rate, and lets a camera whose frames jitter around that rate through: it may be early by half
    /// a period.
    fn may_go(&mut self, model: &Arc<ModelRef>, period: Option<Duration>, now: Instant) -> bool {
        let Some(period) = period else { return true };
        let Some((_, due)) = self.rate_due.iter_mut().find(|(m, _)| m == model) else {
            self.rate_due.push((model.clone(), now + period));
            return true;
        };
        if now + period / 2 < *due {
            return false;
        }
        *due = (*due).max(now) + period;
        true
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::frame::FrameMeta;
    use crate::observe::{Followed, State, StateChange, Timing};
    use std::time::SystemTime;

    pub fn observation(camera: &str, seq: u64, change: bool) -> Arc<Observation> {
        Arc::new(Observation {
            meta: FrameMeta {
                camera: camera.into(),
                sequence: seq,
                captured_at: Instant::now(),
                wall_time: SystemTime::UNIX_EPOCH,
                truth: None,
            },
            seq,
            frame_size: (640, 480),
            model: Arc::new(ModelRef {
                id: "m".into(),
                sha256: "00".into(),
            }),
            results: vec![],
            timing: Timing::default(),
            fps: 1.0,
            state: None,
            change: change.then(|| StateChange {
                from: None,
                to: Some("cat".into()),
                score: 0.9,
                lasted: Duration::ZERO,
            }),
            followed: Followed::default(),
            crops: Vec::new(),
            requested: false,
        })
    }

    fn queue(capacity: usize, max_rate: f64) -> Queue {
        let settings = CameraSettings {
            max_rate,
            ..CameraSettings::default()
        };
        Queue::new(capacity, Arc::new(Controls::new([("a".into(), settings)])))
    }

    fn drain(q: &mut Queue, now: Instant) -> Vec<u64> {
        let mut seqs = vec![];
        while let Some(item) = q.pop(now, Duration::from_secs(10)) {
            if let Item::Observation(w) = item {
                seqs.push(w.observation.seq);
            }
        }
        seqs
    }

    #[test]
    fn a_full_queue_drops_the_oldest_without_an_event() {
        let stats = Stats::new(["a".into()]);
        let mut q = queue(3, 0.0);
        let now = Instant::now();
        for (seq, change) in [(1, true), (2, false), (3, false), (4, false), (5, true)] {
            q.push(
                &Publication::Observation(observation("a", seq, change)),
                now,
                &stats,
            );
        }
        assert_eq!(stats.queue_full.get(), 2);
        assert_eq!(drain(&mut q, now), [1, 4, 5]);
    }

    #[test]
    fn the_rate_holds_and_events_pass() {
        let stats = Stats::new(["a".into()]);
        let mut q = queue(1000, 10.0);
        let start = Instant::now();
        for i in 0..300u64 {
            let now = start + Duration::from_millis(i * 10);
            let o = observation("a", i, i % 100 == 55);
            q.push(&Publication::Observation(o), now, &stats);
        }
        let sections = q.waiting.iter().filter(|w| w.sections).count();
        assert!((30..=31).contains(&sections), "{sections}");
        assert_eq!(stats.rate_limited.get() as usize + sections, 300);
        let events = q.waiting.iter().filter(|w| w.has_event());
        assert_eq!(events.count(), 3);
    }

    #[test]
    fn two_models_of_a_camera_have_a_rate_each_and_one_state() {
        let stats = Stats::new(["a".into()]);
        let mut q = queue(1000, 10.0);
        let start = Instant::now();
        for i in 0..10u64 {
            let mut seen = Observation::clone(&observation("a", 2 * i, false));
            seen.state = Some(State {
                label: Some("cat".into()),
                score: 0.9,
            });
            let mut other = Observation::clone(&observation("a", 2 * i + 1, false));
            other.model = Arc::new(ModelRef {
                id: "other".into(),
                ..ModelRef::clone(&other.model)
            });
            for o in [seen, other] {
                let now = start + Duration::from_millis(i * 100);
                q.push(&Publication::Observation(Arc::new(o)), now, &stats);
            }
        }
        assert_eq!((q.len(), stats.rate_limited.get()), (20, 0));
        let latest = q.cameras["a"].latest.as_ref().unwrap();
        assert!(latest.state.is_some());
    }

    #[test]
    fn what_must_not_be_lost_is_taken_out_before_the_rest() {
        let stats = Stats::new(["a".into()]);
        let mut q = queue(10, 0.0);
        let now = Instant::now();
        for (seq, change) in [(1, false), (2, true), (3, true)] {
            let o = Publication::Observation(observation("a", seq, change));
            q.push(&o, now, &stats);
        }
        let kept = |q: &mut Queue, sections| {
            let w = q.pop_kept(sections)?;
            Some((w.observation.seq, w.sections, w.event))
        };
        assert_eq!(kept(&mut q, false), Some((2, false, true)));
        assert_eq!(kept(&mut q, true), Some((1, true, true)));
        assert_eq!(kept(&mut q, true), Some((2, true, false)));
        assert_eq!(kept(&mut q, true), Some((3, true, true)));
        assert!(kept(&mut q, true).is_none());
        assert_eq!(q.len(), 0);
    }

    #[test]
    fn a_camera_that_jitters_at_the_limit_is_not_halved() {
        let stats = Stats::new(["a".into()]);
        let mut q = queue(1000, 10.0);
        let start = Instant::now();
        for i in 0..100u64 {
            let jitter = if i % 2 == 0 { 0 } else { 30 };
            let now = start + Duration::from_millis(i * 100 + jitter);
            let o = Publication::Observation(observation("a", i, false));
            q.push(&o, now, &stats);
        }
        assert!(q.len() >= 95, "{}", q.len());
    }

    #[test]
    fn states_are_sent_at_first_on_change_and_by_heartbeat() {
        let stats = Stats::new(["a".into()]);
        let mut q = queue(10, 0.0);
        let now = Instant::now();
        let online = Publication::CameraStatus {
            camera: "a".into(),
            online: true,
        };
        q.push(&online, now, &stats);
        let states = |q: &mut Queue, now| {
            let mut n = 0;
            while let Some(item) = q.pop(now, Duration::from_secs(10)) {
                n += usize::from(matches!(item, Item::State(_)));
            }
            n
        };
        for (seq, change, expected) in [(1, false, 1), (2, false, 0), (3, true, 1)] {
            let o = Publication::Observation(observation("a", seq, change));
            q.push(&o, now, &stats);
            assert_eq!(states(&mut q, now), expected, "seq {seq}");
        }
        assert_eq!(states(&mut q, now + Duration::from_secs(9)), 0);
        assert_eq!(states(&mut q, now + Duration::from_secs(11)), 1);
        q.all_due();
        assert_eq!(states(&mut q, now + Duration::from_secs(12)), 1);
    }
}
