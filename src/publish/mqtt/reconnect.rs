//! How long to wait before the next attempt, and what to say about the last one.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::link::{Cause, LinkError};
use crate::clock::jitter;

const FIRST: Duration = Duration::from_millis(250);
/// Where somebody must change something first: brokers lock out clients that knock too often.
const FIRST_REFUSED: Duration = Duration::from_secs(5);
const LONGEST_REFUSED: Duration = Duration::from_secs(120);

/// Refused messages are told of so often.
const REFUSALS_EVERY: Duration = Duration::from_secs(60);

/// Doubles from a quarter of a second to the longest wait, and after a refusal from five seconds to two minutes; with jitter, so
/// that a fleet does not come back at once.
#[derive(Debug)]
pub(super) struct Backoff {
    longest: Duration,
    attempts: u32,
}

impl Backoff {
    pub fn new(longest: Duration) -> Self {
        Self {
            longest,
            attempts: 0,
        }
    }

    /// The wait before the next attempt: between half of the step and all of it.
    pub fn next(&mut self, cause: Cause) -> Duration {
        let (first, longest) = match cause {
            Cause::Refused | Cause::Untrusted => (FIRST_REFUSED, LONGEST_REFUSED),
            Cause::Unreachable | Cause::Lost | Cause::Protocol | Cause::TooLarge => {
                (FIRST, self.longest)
            }
        };
        let step = first
            .saturating_mul(1 << self.attempts.min(16))
            .min(longest);
        self.attempts += 1;
        step.mul_f64(0.5 + 0.5 * jitter())
    }

    /// The connection has lasted.
    pub fn reset(&mut self) {
        self.attempts = 0;
    }
}

/// Says each change of the connection's state once, however many attempts it takes, and refused messages once a minute.
#[derive(Debug)]
pub(super) struct Reporter {
    broker: String,
    said: Option<String>,
    refusals_said: Option<Instant>,
    /// Since then.
    refusals: u64,
    /// Filters whose subscription the broker refused.
    unheard: BTreeSet<String>,
}

impl Reporter {
    pub fn new(broker: String) -> Self {
        Self {
            broker,
            said: None,
            refusals_said: None,
            refusals: 0,
            unheard: BTreeSet::new(),
        }
    }

    pub fn connected(&mut self) {
        if self.said.as_deref() != Some("") {
            info!(broker = self.broker, "MQTT: connected");
            self.said = Some(String::new());
        }
    }

    pub fn failed(&mut self, error: &LinkError) {
        let why = error.to_string();
        if self.said.as_deref() != Some(&why) {
            warn!(broker = self.broker, "MQTT: {why}; trying again for ever");
            self.said = Some(why);
        }
    }

    /// The broker's answer to a subscription. Returns whether something was said.
    pub fn subscribed(&mut self, filter: &str, granted: &Result<(), String>) -> bool {
        match granted {
            Ok(()) if self.unheard.remove(filter) => {
                info!(broker = self.broker, filter, "MQTT: subscribed after all");
                true
            }
            Err(why) if self.unheard.insert(filter.into()) => {
                warn!(
                    broker = self.broker,
                    filter, "MQTT: a subscription was refused: {why}; trying again now and then"
                );
                true
            }
            _ => false,
        }
    }

    /// The broker did not take a message. Returns whether it was said.
    pub fn message_refused(&mut self, why: &str, now: Instant) -> bool {
        self.refusals += 1;
        let is_due = |said: Instant| now.saturating_duration_since(said) >= REFUSALS_EVERY;
        if !self.refusals_said.is_none_or(is_due) {
            return false;
        }
        let count = self.refusals;
        warn!(
            broker = self.broker,
            count, "MQTT: a message was refused: {why}"
        );
        (self.refusals_said, self.refusals) = (Some(now), 0);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_told_once_a_minute() {
        let mut reporter = Reporter::new("broker".into());
        let start = Instant::now();
        let told = (0..600).filter(|&s| {
            let now = start + Duration::from_millis(100) * s;
            reporter.message_refused("not authorized", now)
        });
        assert_eq!(told.collect::<Vec<_>>(), [0]);
        assert!(reporter.message_refused("not authorized", start + REFUSALS_EVERY));
        assert_eq!(reporter.refusals, 0);
    }

    #[test]
    fn a_refused_subscription_is_told_once_and_so_is_its_end() {
        let mut reporter = Reporter::new("broker".into());
        let answers = ["refused", "refused", "", "", "refused"];
        let told = answers.map(|why| {
            let granted = if why.is_empty() {
                Ok(())
            } else {
                Err(why.into())
            };
            reporter.subscribed("dev/cmd", &granted)
        });
        assert_eq!(told, [true, false, true, false, true]);
    }

    #[test]
    fn back_off_grows_is_capped_and_starts_again() {
        let usual = Duration::from_secs(30);
        for (cause, first, longest) in [
            (Cause::Lost, FIRST, usual),
            (Cause::Refused, FIRST_REFUSED, LONGEST_REFUSED),
        ] {
            let mut b = Backoff::new(usual);
            for attempt in 0..60 {
                let step = first.saturating_mul(1 << attempt.min(16)).min(longest);
                let wait = b.next(cause);
                assert!(wait >= step / 2 && wait <= step, "{attempt}: {wait:?}");
            }
            b.reset();
            assert!(b.next(cause) <= first);
        }
    }
}
