//! Smoothing with hysteresis, so that `state` and `event` do not flap.
//!
//! Each label's score is averaged over a sliding window; a label is entered above `enter`, left below `leave`, and a
//! state lasts at least `min_duration_ms`. The window is sliding rather than exponential, so that nothing older than
//! the window can hold a state.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::{State, StateChange};
use crate::task::Class;

/// `[smoothing]`
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SmoothingSettings {
    /// Length of the window in milliseconds; 0 looks at the newest frame alone.
    pub window_ms: u64,
    /// A label is entered when its average score reaches this.
    pub enter: f32,
    /// And left when it falls below this.
    pub leave: f32,
    /// A state lasts at least so long, in milliseconds.
    pub min_duration_ms: u64,
}

impl Default for SmoothingSettings {
    fn default() -> Self {
        Self {
            window_ms: 1000,
            enter: 0.6,
            leave: 0.4,
            min_duration_ms: 1000,
        }
    }
}

impl SmoothingSettings {
    /// Values that can never work: key and message.
    pub fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        if self.window_ms > 600_000 {
            problems.push((
                "window_ms",
                format!("{} is more than 600000", self.window_ms),
            ));
        }
        for (key, value) in [("enter", self.enter), ("leave", self.leave)] {
            if !(0.0..=1.0).contains(&value) {
                problems.push((key, format!("{value} is not between 0 and 1")));
            }
        }
        if self.leave > self.enter {
            let message = format!(
                "{} is above enter ({}): the state would flap",
                self.leave, self.enter
            );
            problems.push(("leave", message));
        }
        problems
    }
}

/// A frame's labels and their scores.
type Scores = Vec<(Arc<str>, f32)>;

/// A camera's state, from its classifications.
#[derive(Debug)]
pub struct Smoother {
    settings: SmoothingSettings,
    window: VecDeque<(Instant, Scores)>,
    state: Option<(State, Instant)>,
}

/// Frames that a window holds at most, so that memory stays bounded at any rate.
const MAX_FRAMES: usize = 1024;

impl Smoother {
    /// Nothing seen yet.
    pub fn new(settings: SmoothingSettings) -> Self {
        Self {
            settings,
            window: VecDeque::new(),
            state: None,
        }
    }

    /// Changes the settings; what was seen stays.
    pub fn set(&mut self, settings: SmoothingSettings) {
        self.settings = settings;
    }

    /// Takes one frame's classes; returns the state after it, and the change if it changed.
    pub fn update(
        &mut self,
        now: Instant,
        classes: &[Class],
    ) -> (Option<State>, Option<StateChange>) {
        self.window.push_back((
            now,
            classes.iter().map(|c| (c.label.clone(), c.score)).collect(),
        ));
        let length = Duration::from_millis(self.settings.window_ms);
        while self.window.len() > MAX_FRAMES
            || self
                .window
                .front()
                .is_some_and(|(t, _)| now.saturating_duration_since(*t) > length)
        {
            self.window.pop_front();
        }
        let wanted = self.wanted();
        let change = match &mut self.state {
            None => {
                self.state = Some((wanted, now));
                None
            }
            Some((state, _)) if state.label == wanted.label => {
                state.score = wanted.score;
                None
            }
            Some((_, since))
                if now.saturating_duration_since(*since)
                    < Duration::from_millis(self.settings.min_duration_ms) =>
            {
                None
            }
            Some((state, since)) => {
                let change = StateChange {
                    from: state.label.clone(),
                    to: wanted.label.clone(),
                    score: wanted.score,
                    lasted: now.saturating_duration_since(*since),
                };
                (*state, *since) = (wanted, now);
                Some(change)
            }
        };
        (self.state.as_ref().map(|(s, _)| s.clone()), change)
    }

    /// What the state should be now, were there no minimum duration.
    fn wanted(&self) -> State {
        let held = self.state.as_ref().and_then(|(s, _)| s.label.clone());
        let best = self.best();
        if let Some(held) = held {
            let score = self.average(&held);
            let replaced = best
                .as_ref()
                .is_some_and(|(l, s)| *l != held && *s >= self.settings.enter && *s > score);
            if score >= self.settings.leave && !replaced {
                return State {
                    label: Some(held),
                    score,
                };
            }
        }
        match best {
            Some((label, score)) if score >= self.settings.enter => State {
                label: Some(label),
                score,
            },
            best => State {
                label: None,
                score: best.map_or(0.0, |(_, s)| s),
            },
        }
    }

    /// The label with the best average over the window.
    fn best(&self) -> Option<(Arc<str>, f32)> {
        let mut sums: Vec<(Arc<str>, f32)> = Vec::new();
        for (label, score) in self.window.iter().flat_map(|(_, classes)| classes) {
            match sums.iter_mut().find(|(l, _)| l == label) {
                Some((_, sum)) => *sum += score,
                None => sums.push((label.clone(), *score)),
            }
        }
        let frames = self.window.len() as f32;
        sums.into_iter()
            .map(|(l, s)| (l, s / frames))
            .max_by(|a, b| a.1.total_cmp(&b.1))
    }

    /// A label's average score; frames that do not name it count as 0.
    fn average(&self, label: &str) -> f32 {
        let named = self
            .window
            .iter()
            .flat_map(|(_, classes)| classes)
            .filter(|(l, _)| **l == *label);
        named.map(|(_, s)| s).sum::<f32>() / self.window.len().max(1) as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn seen(label: &str, score: f32) -> Vec<Class> {
        vec![Class {
            index: 0,
            label: label.into(),
            score,
        }]
    }

    /// Runs `(milliseconds, label, score)` and returns the changes as `from>to`.
    fn changes(settings: SmoothingSettings, frames: &[(u64, &str, f32)]) -> Vec<String> {
        let start = Instant::now();
        let mut smoother = Smoother::new(settings);
        let name = |l: &Option<Arc<str>>| l.as_deref().unwrap_or("-").to_string();
        let at = |ms: &u64| start + Duration::from_millis(*ms);
        frames
            .iter()
            .filter_map(|(ms, label, score)| smoother.update(at(ms), &seen(label, *score)).1)
            .map(|c| format!("{}>{}", name(&c.from), name(&c.to)))
            .collect()
    }

    #[test]
    fn a_steady_label_is_entered_and_left_once() {
        let settings = SmoothingSettings {
            window_ms: 300,
            enter: 0.6,
            leave: 0.4,
            min_duration_ms: 0,
        };
        let mut frames = vec![(0, "empty", 0.1)];
        frames.extend((1..20).map(|i| (i * 100, "cat", 0.9)));
        frames.extend((20..40).map(|i| (i * 100, "cat", 0.2)));
        assert_eq!(changes(settings, &frames), ["->cat", "cat>-"]);
    }

    #[test]
    fn one_odd_frame_changes_nothing() {
        let frames: Vec<_> = (0..30)
            .map(|i| (i * 100, if i == 15 { "dog" } else { "cat" }, 0.95))
            .collect();
        assert_eq!(
            changes(SmoothingSettings::default(), &frames),
            Vec::<String>::new()
        );
    }

    #[test]
    fn scores_between_leave_and_enter_hold_the_state() {
        let settings = SmoothingSettings {
            window_ms: 0,
            enter: 0.6,
            leave: 0.4,
            min_duration_ms: 0,
        };
        let scores = [0.1, 0.5, 0.7, 0.5, 0.59, 0.41, 0.39, 0.5];
        let frames: Vec<_> = scores
            .iter()
            .enumerate()
            .map(|(i, s)| (i as u64 * 100, "cat", *s))
            .collect();
        assert_eq!(changes(settings, &frames), ["->cat", "cat>-"]);
    }

    proptest! {
        /// Whatever comes, a state lasts at least its minimum duration.
        #[test]
        fn states_never_flap_faster_than_the_minimum(
            scores in proptest::collection::vec((0usize..3, 0.0f32..1.0, 1u64..200), 1..200),
            min_duration_ms in 0u64..2000,
            window_ms in 0u64..2000,
        ) {
            let settings = SmoothingSettings { window_ms, enter: 0.5, leave: 0.5, min_duration_ms };
            let mut smoother = Smoother::new(settings);
            let mut now = Instant::now();
            for (label, score, ms) in scores {
                now += Duration::from_millis(ms);
                let (_, change) = smoother.update(now, &seen(["a", "b", "c"][label], score));
                if let Some(change) = change {
                    prop_assert!(change.lasted >= Duration::from_millis(min_duration_ms));
                    prop_assert_ne!(change.from, change.to);
                }
            }
        }
    }
}
