//! One camera's detections, followed: tracks, then zones and lines.
//!
//! In: what one model found in each frame. Out: [`Followed`]. Pure. Always holds: a frame that is not newer than the last one changes
//! nothing.

use std::sync::Arc;
use std::time::Instant;

use super::track::{TrackChange, TrackEvent, TrackSettings, Tracker};
use super::zones::{Counts, ZoneEvent, Zones};
use crate::task::detect::Detection;

/// What following a frame's detections gave.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Followed {
    /// The track of each detection, where it has one; empty where nothing is tracked.
    pub ids: Vec<Option<u64>>,
    /// What changed of tracks.
    pub tracks: Vec<TrackEvent>,
    /// What happened in zones and at lines.
    pub zones: Vec<ZoneEvent>,
    /// What was counted so far; `None` without zones and lines.
    pub counts: Option<Arc<Counts>>,
    /// Whether that is news.
    pub counted: bool,
}

/// Follows what one model finds in one camera's frames.
#[derive(Debug)]
pub struct Follower {
    tracker: Tracker,
    zones: Option<Zones>,
    told: Option<Arc<Counts>>,
}

impl Follower {
    /// With the camera's zones and lines, if this model's detections count there.
    pub fn new(settings: TrackSettings, zones: Option<Zones>) -> Self {
        Self {
            tracker: Tracker::new(settings),
            zones,
            told: None,
        }
    }

    /// Takes what was found in the frame that was captured at `at`.
    pub fn update(&mut self, at: Instant, detections: &[Detection]) -> Followed {
        if self.tracker.is_late(at) {
            return Followed {
                ids: vec![None; detections.len()],
                ..Followed::default()
            };
        }
        let (ids, tracks) = self.tracker.update(at, detections);
        let mut followed = Followed {
            ids,
            tracks,
            ..Followed::default()
        };
        if let Some(zones) = &mut self.zones {
            let ends = followed.tracks.iter();
            let ended = ends.filter(|e| e.change == TrackChange::End).map(|e| e.id);
            followed.zones = zones.update(at, self.tracker.seen(), ended);
            followed.counts = Some(zones.counts());
            followed.counted = followed.counts != self.told;
            self.told.clone_from(&followed.counts);
        }
        followed
    }
}
