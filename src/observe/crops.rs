//! Which detections a second model looks at, and what it said of them.
//!
//! In: each frame's detections and their tracks. Out: a [`Choice`]: which crops are to be looked at now, and what is known of the
//! others. Pure; time is that of the frames. Always holds: the same frames give the same choices; at most `per_frame` crops a frame;
//! a result ends with its track, so that no more are kept than things are followed; a track that stays is looked at after at
//! most as many frames as it takes to look at all that came before it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::ModelRef;
use super::track::{TrackChange, TrackEvent};
use crate::preprocess::Region;
use crate::task::{Detection, TaskResult};

/// `[model.crops]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CropSettings {
    /// The id of the model whose detections are looked at.
    pub of: String,
    /// The detector's labels that are looked at; all if empty.
    pub only: Vec<String>,
    /// What is added to the box on each side, in parts of its size.
    pub margin: f32,
    /// How many crops of a frame are looked at, at most.
    pub per_frame: usize,
    /// The same thing is looked at again after so many seconds, at the earliest.
    pub refresh_s: f64,
    /// A box whose shorter side has fewer pixels of the frame is not looked at.
    pub min_side_px: u32,
}

impl Default for CropSettings {
    fn default() -> Self {
        Self {
            of: String::new(),
            only: Vec::new(),
            margin: 0.1,
            per_frame: 4,
            refresh_s: 2.0,
            min_side_px: 32,
        }
    }
}

impl CropSettings {
    /// Values that can never work: key and message.
    pub fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        if self.of.is_empty() {
            let fix = "missing; write the id of the model whose detections are looked at";
            problems.push(("of", fix.into()));
        }
        if !(0.0..=2.0).contains(&self.margin) {
            let message = format!("{} is not between 0 and 2", self.margin);
            problems.push(("margin", message));
        }
        if !(1..=100).contains(&self.per_frame) {
            let message = format!("{} is not between 1 and 100", self.per_frame);
            problems.push(("per_frame", message));
        }
        if !(0.0..=86_400.0).contains(&self.refresh_s) {
            let message = format!("{} is not between 0 and 86400", self.refresh_s);
            problems.push(("refresh_s", message));
        }
        if self.min_side_px > 16_384 {
            let message = format!("{} is more than 16384", self.min_side_px);
            problems.push(("min_side_px", message));
        }
        problems
    }
}

/// What a second model said of a detection's crop.
#[derive(Debug, Clone)]
pub struct CropResult {
    /// Which model, with its digest.
    pub model: Arc<ModelRef>,
    /// When the frame was captured that the crop is of.
    pub captured_at: Instant,
    /// One for each of the model's tasks.
    pub results: Vec<TaskResult>,
}

/// What is to be done with one frame's detections.
#[derive(Debug, Default)]
pub struct Choice {
    /// What is to be looked at now: which detection, and where its crop is.
    pub now: Vec<(usize, Region)>,
    /// How many more were due, and have to wait.
    pub deferred: usize,
    /// For each detection, what was said of its track before.
    pub known: Vec<Option<Arc<CropResult>>>,
}

/// Chooses for one camera, detector and second model.
#[derive(Debug)]
pub struct Chooser {
    settings: CropSettings,
    refresh: Duration,
    /// For each of the detector's classes, whether it is looked at; empty: all are.
    wanted: Vec<bool>,
    /// By track; `None` where nothing is tracked.
    tracks: Option<BTreeMap<u64, Known>>,
}

/// A track that is looked at, or is to be.
#[derive(Debug)]
struct Known {
    looked: bool,
    /// When it was looked at last, or was first there to be.
    since: Instant,
    result: Option<Arc<CropResult>>,
}

impl Chooser {
    /// `tracked`: whether the detections have tracks.
    pub fn new(settings: CropSettings, wanted: Vec<bool>, tracked: bool) -> Self {
        Self {
            refresh: Duration::from_secs_f64(settings.refresh_s),
            settings,
            wanted,
            tracks: tracked.then(BTreeMap::new),
        }
    }

    /// Takes the detections of the frame of this size that was captured at `at`, their tracks, and what changed of tracks.
    ///
    /// First come tracks that were never looked at, those that wait longest first; then those whose look is longest ago; among equals
    /// the better score. Whatever is chosen counts as looked at. Without tracking it is the best scores of each frame.
    pub fn choose(
        &mut self,
        at: Instant,
        frame: (u32, u32),
        found: &[Detection],
        ids: &[Option<u64>],
        changes: &[TrackEvent],
    ) -> Choice {
        if let Some(tracks) = &mut self.tracks {
            let ended = changes.iter().filter(|e| e.change == TrackChange::End);
            ended.for_each(|e| _ = tracks.remove(&e.id));
        }
        let mut due = Vec::new();
        let mut known = vec![None; found.len()];
        for (nth, detection) in found.iter().enumerate() {
            let id = ids.get(nth).copied().flatten();
            let fits = self.fits(frame, detection);
            let (looked, since) = match (&mut self.tracks, id) {
                (None, _) => (false, at),
                // Not sure yet that it is a thing.
                (Some(_), None) => continue,
                (Some(tracks), Some(id)) => {
                    if !fits && !tracks.contains_key(&id) {
                        continue;
                    }
                    let track = tracks.entry(id).or_insert(Known {
                        looked: false,
                        since: at,
                        result: None,
                    });
                    known[nth].clone_from(&track.result);
                    (track.looked, track.since)
                }
            };
            if fits && (!looked || at.saturating_duration_since(since) >= self.refresh) {
                due.push((looked, since, nth));
            }
        }
        // Stable: among equals as they were found.
        due.sort_by(|a, b| {
            let better = || found[b.2].score.total_cmp(&found[a.2].score);
            (a.0, a.1).cmp(&(b.0, b.1)).then_with(better)
        });
        let deferred = due.len().saturating_sub(self.settings.per_frame);
        due.truncate(self.settings.per_frame);
        let now = due.iter().map(|&(_, _, nth)| {
            let id = ids.get(nth).copied().flatten();
            if let Some(track) = self.track(id) {
                (track.looked, track.since) = (true, at);
            }
            let corners = found[nth].bbox.corners();
            (nth, Region::around(corners, self.settings.margin, frame))
        });
        Choice {
            now: now.collect(),
            deferred,
            known,
        }
    }

    /// Keeps what was said of a track, if it is still there and nothing newer is known.
    pub fn keep(&mut self, id: Option<u64>, result: &Arc<CropResult>) {
        let Some(track) = self.track(id) else {
            return;
        };
        let newer = |known: &Arc<CropResult>| known.captured_at > result.captured_at;
        if !track.result.as_ref().is_some_and(newer) {
            track.result = Some(result.clone());
        }
    }

    /// Every track has ended.
    pub fn clear(&mut self) {
        self.tracks.iter_mut().for_each(BTreeMap::clear);
    }

    fn track(&mut self, id: Option<u64>) -> Option<&mut Known> {
        self.tracks.as_mut()?.get_mut(&id?)
    }

    /// Whether it is of a class that is looked at, and large enough.
    fn fits(&self, (width, height): (u32, u32), d: &Detection) -> bool {
        let is_wanted = self.wanted.is_empty() || self.wanted.get(d.index) == Some(&true);
        let (w, h) = (d.bbox.x1 - d.bbox.x0, d.bbox.y1 - d.bbox.y0);
        let shorter = (w * width as f32).min(h * height as f32);
        // A box that fills so many pixels exactly, found in floats.
        is_wanted && shorter + 0.01 >= self.settings.min_side_px as f32
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::task::BBox;

    const FRAME: (u32, u32) = (1000, 1000);

    fn chooser(per_frame: usize, refresh_s: f64, tracked: bool) -> Chooser {
        let settings = CropSettings {
            of: "d".into(),
            per_frame,
            refresh_s,
            ..CropSettings::default()
        };
        assert_eq!(settings.problems(), []);
        Chooser::new(settings, Vec::new(), tracked)
    }

    fn detection(index: usize, score: f32, side: f32) -> Detection {
        Detection {
            label: "x".into(),
            index,
            score,
            bbox: BBox {
                x0: 0.0,
                y0: 0.0,
                x1: side,
                y1: 0.5,
            },
        }
    }

    fn end(id: u64) -> TrackEvent {
        TrackEvent {
            change: TrackChange::End,
            id,
            label: "x".into(),
            index: 0,
            score: 0.5,
            best_score: 0.5,
            bbox: detection(0, 0.5, 0.5).bbox,
            lasted: Duration::ZERO,
            path: Vec::new(),
        }
    }

    /// A scene of tracks with scores, a frame every 100 ms.
    struct Scene {
        chooser: Chooser,
        start: Instant,
        nth: u32,
    }

    impl Scene {
        fn new(chooser: Chooser) -> Self {
            Self {
                chooser,
                start: Instant::now(),
                nth: 0,
            }
        }

        /// The tracks that are looked at, which are then given a result, and how many wait.
        fn frame(&mut self, tracks: &[(u64, f32)], ended: &[u64]) -> (Vec<u64>, usize) {
            let at = self.start + Duration::from_millis(100) * self.nth;
            self.nth += 1;
            let found: Vec<_> = tracks.iter().map(|t| detection(0, t.1, 0.5)).collect();
            let ids: Vec<_> = tracks.iter().map(|t| Some(t.0)).collect();
            let ended: Vec<_> = ended.iter().map(|id| end(*id)).collect();
            let choice = self.chooser.choose(at, FRAME, &found, &ids, &ended);
            let now: Vec<u64> = choice.now.iter().map(|(nth, _)| tracks[*nth].0).collect();
            for id in &now {
                self.chooser.keep(Some(*id), &result(at));
            }
            (now, choice.deferred)
        }
    }

    fn result(captured_at: Instant) -> Arc<CropResult> {
        Arc::new(CropResult {
            model: Arc::new(ModelRef {
                id: "m".into(),
                sha256: "00".into(),
            }),
            captured_at,
            results: Vec::new(),
        })
    }

    #[test]
    fn new_tracks_first_then_the_oldest_result_then_the_score() {
        let mut scene = Scene::new(chooser(2, 0.0, true));
        let three = [(1, 0.6), (2, 0.9), (3, 0.7)];
        assert_eq!(scene.frame(&three, &[]), (vec![2, 3], 1));
        // 4 and 5 are new, too, but 1 waits for longer.
        let five = [(1, 0.6), (2, 0.9), (3, 0.7), (4, 0.99), (5, 0.95)];
        assert_eq!(scene.frame(&five, &[]), (vec![1, 4], 3));
        assert_eq!(scene.frame(&five, &[]), (vec![5, 2], 3));
        assert_eq!(scene.frame(&five, &[]), (vec![3, 4], 3));
        assert_eq!(scene.frame(&five, &[]), (vec![1, 5], 3));
    }

    #[test]
    fn a_result_is_refreshed_when_it_is_old_enough_and_ends_with_its_track() {
        let mut scene = Scene::new(chooser(4, 0.3, true));
        let one = [(7, 0.9)];
        let looks: Vec<_> = (0..8).map(|_| scene.frame(&one, &[]).0.len()).collect();
        assert_eq!(looks, [1, 0, 0, 1, 0, 0, 1, 0]);
        let at = scene.start + Duration::from_millis(800);
        let found = [detection(0, 0.9, 0.5)];
        let choice = scene.chooser.choose(at, FRAME, &found, &[Some(7)], &[]);
        let known = choice.known[0].as_ref().unwrap();
        assert_eq!(at - known.captured_at, Duration::from_millis(200));
        // What comes late does not replace what is newer.
        let old = result(scene.start);
        scene.chooser.keep(Some(7), &old);
        let choice = scene.chooser.choose(at, FRAME, &found, &[Some(7)], &[]);
        assert!(choice.known[0].as_ref().unwrap().captured_at > old.captured_at);
        let choice = scene.chooser.choose(at, FRAME, &[], &[], &[end(7)]);
        assert!(choice.known.is_empty() && scene.chooser.tracks.as_ref().unwrap().is_empty());
        // Whose track has ended meanwhile is not remembered.
        scene.chooser.keep(Some(7), &result(at));
        assert!(scene.chooser.tracks.as_ref().unwrap().is_empty());
    }

    #[test]
    fn without_tracks_it_is_the_best_of_each_frame() {
        let mut chooser = chooser(2, 5.0, false);
        let found = [0.5, 0.9, 0.7].map(|score| detection(0, score, 0.5));
        for _ in 0..3 {
            let choice = chooser.choose(Instant::now(), FRAME, &found, &[], &[]);
            let now: Vec<usize> = choice.now.iter().map(|n| n.0).collect();
            assert_eq!((now, choice.deferred), (vec![1, 2], 1));
            assert!(choice.known.iter().all(Option::is_none));
        }
    }

    #[test]
    fn what_is_too_small_of_another_class_or_no_thing_yet_is_not_looked_at() {
        let mut chooser = chooser(4, 0.0, true);
        chooser.wanted = vec![false, true];
        let found = [
            detection(0, 0.9, 0.5),
            detection(1, 0.8, 0.031),
            detection(1, 0.7, 0.032),
            detection(1, 0.6, 0.5),
        ];
        let ids = [Some(1), Some(2), Some(3), None];
        let choice = chooser.choose(Instant::now(), FRAME, &found, &ids, &[]);
        let now: Vec<usize> = choice.now.iter().map(|n| n.0).collect();
        assert_eq!((now, choice.deferred), (vec![2], 0));
        assert_eq!(chooser.tracks.as_ref().unwrap().len(), 1);
    }

    proptest! {
        /// Tracks come and go; whatever happens, the budget holds, nothing of the past is kept, and who stays is served.
        #[test]
        fn the_budget_holds_and_nobody_starves(
            per_frame in 1usize..6,
            comes in prop::collection::vec((0usize..60, 1usize..60, 0f32..1.0), 1..40),
        ) {
            let mut scene = Scene::new(chooser(per_frame, 0.0, true));
            let mut again = Scene::new(chooser(per_frame, 0.0, true));
            let there = |frame: usize| -> Vec<(u64, f32)> {
                let tracks = comes.iter().enumerate();
                let is = |(_, c): &(usize, &(usize, usize, f32))| (c.0..c.0 + c.1).contains(&frame);
                tracks.filter(is).map(|(id, c)| (id as u64, c.2)).collect()
            };
            let mut waits = vec![0; comes.len()];
            for frame in 0..120 {
                let now = there(frame);
                let gone: Vec<u64> = there(frame.wrapping_sub(1)).iter().map(|t| t.0)
                    .filter(|id| now.iter().all(|t| t.0 != *id)).collect();
                let (looked, deferred) = scene.frame(&now, &gone);
                prop_assert_eq!(&looked, &again.frame(&now, &gone).0);
                prop_assert!(looked.len() <= per_frame);
                // Nothing of the budget is left while somebody waits.
                prop_assert_eq!(looked.len() + deferred, now.len());
                prop_assert!(deferred == 0 || looked.len() == per_frame);
                let kept = scene.chooser.tracks.as_ref().unwrap();
                prop_assert!(kept.keys().copied().eq(now.iter().map(|t| t.0)));
                for (id, _) in &now {
                    let wait = &mut waits[*id as usize];
                    *wait = if looked.contains(id) { 0 } else { *wait + 1 };
                    // Each of the others goes before it once at most.
                    prop_assert!(*wait <= (comes.len() - 1) / per_frame, "{} waits {}", id, wait);
                }
            }
        }
    }
}
