//! One camera's detections, followed: tracks, then zones and lines.
//!
//! In: what one model found in each frame. Out: [`Followed`]. Pure. Always holds: a frame that is not newer than the last one changes
//! nothing.

use std::sync::Arc;
use std::time::Instant;

use super::sequence::Sequence;
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
    /// With the camera's zones and lines, if this model's detections count there; tracks get their numbers from `numbers`.
    pub fn new(settings: TrackSettings, numbers: Sequence, zones: Option<Zones>) -> Self {
        Self {
            tracker: Tracker::new(settings, numbers),
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
        self.count(at, ids, tracks)
    }

    /// When the newest frame was captured that was taken.
    pub fn last(&self) -> Option<Instant> {
        self.tracker.last()
    }

    /// Ends every track, as of the newest frame: nothing more will come. `None` where nothing was followed.
    pub fn finish(&mut self) -> Option<Followed> {
        let at = self.tracker.last()?;
        let ends = self.tracker.finish();
        (!ends.is_empty()).then(|| self.count(at, Vec::new(), ends))
    }

    /// What the tracks' changes mean in zones and at lines.
    fn count(&mut self, at: Instant, ids: Vec<Option<u64>>, tracks: Vec<TrackEvent>) -> Followed {
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
