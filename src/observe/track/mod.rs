//! Tracks: the same thing has the same number from frame to frame.
//!
//! In: a frame's detections and its time of capture. Out: a number for each of them, and events: a thing came, moved, went. Pure; time
//! is that of the frames. Always holds: the same frames give the same events; at most [`MAX_TRACKS`] things are followed and
//! [`MAX_POINTS`] points of each path are kept; each number has one `new`, at most one `end`, and `update`s only between them.
//!
//! As ByteTrack: sure detections are assigned first, then the doubtful ones to what is left, so that a thing half hidden stays itself;
//! only a sure one begins a track. What is compared is where the Kalman filter expects a thing to be. As in C-BIoU boxes are widened
//! for it: a board infers few frames a second, and small things are then beside where they were.

mod assign;
mod kalman;

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::sequence::Sequence;
use crate::task::detect::{BBox, Detection};
use assign::assign;
use kalman::MovingBox;

/// Things that are followed at most, for one camera and model.
pub const MAX_TRACKS: usize = 256;
/// Points of a path that are kept: beyond that, every other one.
pub const MAX_POINTS: usize = 64;
/// Boxes are widened by this part of their size on each side before they are compared.
const WIDEN: f32 = 0.25;
/// The smallest overlap, of widened boxes, of what may be the same thing.
const LEAST_IOU: f32 = 0.15;
/// After so long without a look at the scene everything in it is new.
const LONGEST_GAP: Duration = Duration::from_secs(60);
/// A path's points are apart at first by this part of the frame.
const PATH_STEP: f32 = 0.01;
/// A box has changed if one of its edges has moved by this part of the frame.
const MOVED: f32 = 0.02;

/// `[tracking]`
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrackSettings {
    /// Whether detections are tracked.
    pub enabled: bool,
    /// A detection with this score or a higher one begins a track.
    pub begin: f32,
    /// In so many frames in a row a thing must be found to be told of.
    pub min_hits: u32,
    /// A thing that is not found for so long has gone, in milliseconds.
    pub lost_ms: u64,
    /// Least time between two updates of a track, in milliseconds.
    pub update_ms: u64,
}

impl Default for TrackSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            begin: 0.5,
            min_hits: 2,
            lost_ms: 1500,
            update_ms: 1000,
        }
    }
}

impl TrackSettings {
    /// Values that can never work: key and message.
    pub fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        if !(0.0..=1.0).contains(&self.begin) {
            problems.push(("begin", format!("{} is not between 0 and 1", self.begin)));
        }
        if !(1..=100).contains(&self.min_hits) {
            let message = format!("{} is not between 1 and 100", self.min_hits);
            problems.push(("min_hits", message));
        }
        for (key, ms) in [("lost_ms", self.lost_ms), ("update_ms", self.update_ms)] {
            if ms > 600_000 {
                problems.push((key, format!("{ms} is more than 600000")));
            }
        }
        problems
    }
}

/// What became of a thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrackChange {
    /// It came.
    New,
    /// It moved.
    Update,
    /// It went.
    End,
}

/// A change of one track.
#[derive(Debug, Clone, PartialEq)]
pub struct TrackEvent {
    /// What happened.
    pub change: TrackChange,
    /// The track's number.
    pub id: u64,
    /// Its class.
    pub label: Arc<str>,
    /// Its class's index.
    pub index: usize,
    /// Score when it was found last.
    pub score: f32,
    /// The highest score so far.
    pub best_score: f32,
    /// Where it was found last.
    pub bbox: BBox,
    /// From when it was found first to when it was found last.
    pub lasted: Duration,
    /// Centres, the first and the last included; only of `End`.
    pub path: Vec<(f32, f32)>,
}

/// A tracked thing that was found in the newest frame.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// The track's number.
    pub id: u64,
    /// Its class.
    pub label: &'a Arc<str>,
    /// Where it was found.
    pub bbox: BBox,
}

/// Follows what one model finds in one camera's frames.
#[derive(Debug)]
pub struct Tracker {
    settings: TrackSettings,
    tracks: Vec<Track>,
    last: Option<Instant>,
    numbers: Sequence,
}

#[derive(Debug)]
struct Track {
    /// `None` until it was found often enough.
    id: Option<u64>,
    label: Arc<str>,
    index: usize,
    moving: MovingBox,
    hits: u32,
    began: Instant,
    seen: Instant,
    score: f32,
    best_score: f32,
    bbox: BBox,
    path: Path,
    told: Instant,
    told_box: BBox,
}

/// Centres of a track, ever farther apart.
#[derive(Debug)]
struct Path {
    points: Vec<(f32, f32)>,
    step: f32,
}

impl Path {
    fn push(&mut self, point: (f32, f32)) {
        let far = |a: (f32, f32)| (a.0 - point.0).hypot(a.1 - point.1) >= self.step;
        if !self.points.last().is_none_or(|last| far(*last)) {
            return;
        }
        // One place is kept for the end.
        if self.points.len() + 1 >= MAX_POINTS {
            let mut nth = 0;
            self.points.retain(|_| {
                nth += 1;
                nth % 2 == 1
            });
            self.step *= 2.0;
        }
        self.points.push(point);
    }
}

impl Tracker {
    /// Nothing followed yet. Tracks get their numbers from `numbers`.
    pub fn new(settings: TrackSettings, numbers: Sequence) -> Self {
        Self {
            settings,
            tracks: Vec::new(),
            last: None,
            numbers,
        }
    }

    /// Takes one frame's detections, which were found at `at`. Returns each detection's track, where it has one, and what
    /// changed: first what went. A frame that is not newer than the last is passed over.
    pub fn update(
        &mut self,
        at: Instant,
        detections: &[Detection],
    ) -> (Vec<Option<u64>>, Vec<TrackEvent>) {
        let mut ids = vec![None; detections.len()];
        if self.is_late(at) {
            return (ids, Vec::new());
        }
        let gap = self.last.map_or(Duration::ZERO, |last| at - last);
        self.last = Some(at);
        let mut events = Vec::new();
        if gap > LONGEST_GAP {
            events = self.finish();
        }
        // Nobody goes straight on for longer than he may be out of sight.
        let lost = Duration::from_millis(self.settings.lost_ms);
        let dt = gap.min(lost).as_secs_f64();
        for track in &mut self.tracks {
            track.moving.predict(dt);
        }
        let of = self.associate(detections);
        let mut found = vec![false; self.tracks.len()];
        for (detection, track) in detections.iter().zip(&of) {
            if let Some(track) = *track {
                found[track] = true;
                self.tracks[track].found(at, detection);
            }
        }
        for (track, found) in self.tracks.iter_mut().zip(&found) {
            let due = track.id.is_none() && track.hits >= self.settings.min_hits;
            if *found && due {
                track.id = Some(self.numbers.next());
                events.extend(track.event(TrackChange::New, at));
            } else if *found && track.moved(at, self.settings.update_ms) {
                events.extend(track.event(TrackChange::Update, at));
            }
        }
        for (id, track) in ids.iter_mut().zip(&of) {
            *id = track.and_then(|t| self.tracks[t].id);
        }
        let mut ends = Vec::new();
        let mut nth = 0;
        self.tracks.retain_mut(|track| {
            nth += 1;
            if found[nth - 1] {
                return true;
            }
            track.moving.unseen();
            let stays = track.id.is_some() && at - track.seen <= lost;
            if !stays {
                ends.extend(track.event(TrackChange::End, at));
            }
            stays
        });
        let unknown = ids.iter_mut().zip(&of).zip(detections);
        for ((id, _), detection) in unknown.filter(|((_, of), _)| of.is_none()) {
            if detection.score < self.settings.begin || self.tracks.len() >= MAX_TRACKS {
                continue;
            }
            let mut track = Track::new(at, detection);
            if self.settings.min_hits <= 1 {
                track.id = Some(self.numbers.next());
                *id = track.id;
                events.extend(track.event(TrackChange::New, at));
            }
            self.tracks.push(track);
        }
        ends.extend(events);
        (ids, ends)
    }

    /// When the newest frame was captured that was taken.
    pub fn last(&self) -> Option<Instant> {
        self.last
    }

    /// Whether a newer frame was taken already.
    pub fn is_late(&self, at: Instant) -> bool {
        self.last.is_some_and(|last| at <= last)
    }

    /// Ends every track: nothing more will come.
    pub fn finish(&mut self) -> Vec<TrackEvent> {
        let mut tracks = std::mem::take(&mut self.tracks);
        tracks
            .iter_mut()
            .filter_map(|t| t.event(TrackChange::End, t.seen))
            .collect()
    }

    /// The things that were found in the newest frame.
    pub fn seen(&self) -> impl Iterator<Item = Seen<'_>> {
        let newest = |t: &&Track| Some(t.seen) == self.last;
        self.tracks.iter().filter(newest).filter_map(|t| {
            Some(Seen {
                id: t.id?,
                label: &t.label,
                bbox: t.bbox,
            })
        })
    }

    /// For each detection the track that it belongs to.
    fn associate(&self, detections: &[Detection]) -> Vec<Option<usize>> {
        let mut of = vec![None; detections.len()];
        let mut free: Vec<usize> = (0..self.tracks.len()).collect();
        let expected: Vec<BBox> = self
            .tracks
            .iter()
            .map(|t| widened(&t.moving.bbox()))
            .collect();
        for sure in [true, false] {
            let wanted: Vec<usize> = (0..detections.len())
                .filter(|d| (detections[*d].score >= self.settings.begin) == sure)
                .collect();
            let weight = |d: usize, t: usize| {
                let (detection, track) = (&detections[d], &self.tracks[t]);
                // What is in doubt begins nothing, and goes on with nothing that is itself in doubt.
                let fits = detection.index == track.index && (sure || track.id.is_some());
                let iou = widened(&detection.bbox).iou(&expected[t]);
                if fits && iou >= LEAST_IOU { iou } else { 0.0 }
            };
            let weights: Vec<f32> = wanted
                .iter()
                .flat_map(|d| free.iter().map(|t| weight(*d, *t)))
                .collect();
            for (d, t) in wanted.iter().zip(assign(&weights, free.len())) {
                of[*d] = t.map(|t| free[t]);
            }
            free.retain(|t| !of.contains(&Some(*t)));
        }
        of
    }
}

fn widened(b: &BBox) -> BBox {
    let (w, h) = (WIDEN * (b.x1 - b.x0), WIDEN * (b.y1 - b.y0));
    BBox {
        x0: b.x0 - w,
        y0: b.y0 - h,
        x1: b.x1 + w,
        y1: b.y1 + h,
    }
}

impl Track {
    fn new(at: Instant, d: &Detection) -> Self {
        let mut path = Path {
            points: Vec::new(),
            step: PATH_STEP,
        };
        path.push(d.bbox.centre());
        Self {
            id: None,
            label: d.label.clone(),
            index: d.index,
            moving: MovingBox::new(&d.bbox),
            hits: 1,
            began: at,
            seen: at,
            score: d.score,
            best_score: d.score,
            bbox: d.bbox,
            path,
            told: at,
            told_box: d.bbox,
        }
    }

    fn found(&mut self, at: Instant, d: &Detection) {
        self.moving.correct(&d.bbox);
        self.hits = self.hits.saturating_add(1);
        self.seen = at;
        self.score = d.score;
        self.best_score = self.best_score.max(d.score);
        self.bbox = d.bbox;
        self.path.push(d.bbox.centre());
    }

    fn moved(&self, at: Instant, update_ms: u64) -> bool {
        let (a, b) = (self.bbox.corners(), self.told_box.corners());
        let far = a.iter().zip(b).any(|(a, b)| (a - b).abs() >= MOVED);
        self.id.is_some() && far && at - self.told >= Duration::from_millis(update_ms)
    }

    /// `None` if it was never told of.
    fn event(&mut self, change: TrackChange, at: Instant) -> Option<TrackEvent> {
        (self.told, self.told_box) = (at, self.bbox);
        let mut path = Vec::new();
        if change == TrackChange::End {
            path = std::mem::take(&mut self.path.points);
            let last = self.bbox.centre();
            if path.last() != Some(&last) {
                path.push(last);
            }
        }
        Some(TrackEvent {
            change,
            id: self.id?,
            label: self.label.clone(),
            index: self.index,
            score: self.score,
            best_score: self.best_score,
            bbox: self.bbox,
            lasted: self.seen - self.began,
            path,
        })
    }
}

#[cfg(test)]
mod tests;
