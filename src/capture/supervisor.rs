//! Keeps a camera delivering: opens it, hands its frames on, opens it again when it is lost.
//!
//! In: an [`Opener`]. Out: frames in [`LatestSlots`], counters, and whether the camera is online. It is the loop of the
//! thread `capture-<camera>`. Always holds: what was lost is closed before it is opened again; a missing camera is
//! waited for, never given up; the heart beats every turn, during back-off too; a change is logged once.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::{CaptureContext, CaptureError, CaptureSettings, Opener, Source, TURN, opener};
use crate::clock::jitter;
use crate::frame::{Frame, LatestSlots};
use crate::watchdog::Heartbeat;

/// Why a [`Supervisor`] ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// Everything was played.
    Ended,
    /// A shutdown was requested.
    Stopped,
    /// The settings can never work.
    Invalid(String),
}

/// One camera's loop.
pub struct Supervisor {
    opener: Opener,
    context: CaptureContext,
    /// The camera's index in `slots`.
    camera: usize,
    slots: Arc<LatestSlots>,
    heartbeat: Heartbeat,
    /// A source that gives only bad frames for so long is lost.
    patience: Duration,
    log: ChangeLog,
}

/// What a stay of the source ended with.
struct Stay {
    why: CaptureError,
    /// How long it delivered; zero if it gave no frame.
    delivered_for: Duration,
}

impl Supervisor {
    /// For a camera as configured. `camera` is its index in `slots`; the heartbeat is to be registered with
    /// [`max_silence`](Self::max_silence).
    pub fn new(
        settings: CaptureSettings,
        context: CaptureContext,
        camera: usize,
        slots: Arc<LatestSlots>,
        heartbeat: Heartbeat,
    ) -> Self {
        let patience = settings.timeout;
        let opener = opener(settings, context.clone());
        Self::with_opener(opener, patience, context, camera, slots, heartbeat)
    }

    /// For any opener: a camera of another kind, or a fake. `patience` is how long only bad frames are borne.
    pub fn with_opener(
        opener: Opener,
        patience: Duration,
        context: CaptureContext,
        camera: usize,
        slots: Arc<LatestSlots>,
        heartbeat: Heartbeat,
    ) -> Self {
        Self {
            opener,
            context,
            camera,
            slots,
            heartbeat,
            patience,
            log: ChangeLog::default(),
        }
    }

    /// The longest that the heart of a camera with these settings may be silent: a wait for a frame, and the opening
    /// and closing of a slow device.
    pub fn max_silence(settings: &CaptureSettings) -> Duration {
        settings.timeout + Duration::from_secs(20)
    }

    /// Runs until the source ends, the settings prove invalid, or a shutdown is requested. `on_status` is told each
    /// time that the camera came (`true`, with its first frame) or went, and once at the start if it is missing.
    pub fn run(mut self, on_status: &mut dyn FnMut(bool)) -> End {
        let mut backoff = Backoff::default();
        let mut online = None;
        loop {
            self.heartbeat.beat();
            if self.context.shutdown.is_requested() {
                return self.end(online, End::Stopped, on_status);
            }
            let stay = match (self.opener)() {
                Ok(source) => self.deliver(source, &mut online, on_status),
                Err(why) => Stay {
                    why,
                    delivered_for: Duration::ZERO,
                },
            };
            match stay.why {
                CaptureError::Stopped => return self.end(online, End::Stopped, on_status),
                CaptureError::Ended => return self.end(online, End::Ended, on_status),
                CaptureError::Invalid(why) => {
                    return self.end(online, End::Invalid(why), on_status);
                }
                CaptureError::Lost(why) | CaptureError::Skip(why) => {
                    self.log.went(&self.context, &why);
                    if online != Some(false) {
                        self.set_online(false, on_status);
                    }
                    online = Some(false);
                    let was_there = self.log.times_came > 0;
                    let delay = backoff.next(was_there, stay.delivered_for);
                    if self.pause(delay) {
                        return self.end(online, End::Stopped, on_status);
                    }
                }
            }
        }
    }

    /// Hands frames on until there are no more. The source is closed when this returns.
    fn deliver(
        &mut self,
        mut source: Box<dyn Source>,
        online: &mut Option<bool>,
        on_status: &mut dyn FnMut(bool),
    ) -> Stay {
        let lossless = source.lossless();
        let stats = self.context.stats.clone();
        let mut began = None;
        let mut last_good = Instant::now();
        let mut skips_in_stay = 0u64;
        let why = loop {
            self.heartbeat.beat();
            match source.next() {
                Ok(frame) => {
                    last_good = Instant::now();
                    if began.is_none() {
                        began = Some(last_good);
                        self.log.came(&self.context, &source.describe());
                        if self.log.times_came > 1 {
                            stats.reopened.inc();
                        }
                        *online = Some(true);
                        self.set_online(true, on_status);
                    }
                    stats.captured.inc();
                    self.put(frame);
                    if lossless && self.wait_until_taken() {
                        break CaptureError::Stopped;
                    }
                }
                Err(CaptureError::Skip(why)) => {
                    stats.rejected.inc();
                    skips_in_stay += 1;
                    // The first says what is wrong; the counter tells how often.
                    if skips_in_stay == 1 {
                        tracing::warn!(camera = %self.context.camera, "frame skipped: {why}");
                    } else {
                        tracing::debug!(camera = %self.context.camera, "frame skipped: {why}");
                    }
                    if self.context.shutdown.is_requested() {
                        break CaptureError::Stopped;
                    }
                    if !lossless && last_good.elapsed() > self.patience {
                        let patience = self.patience;
                        break CaptureError::Lost(format!(
                            "only bad frames for {patience:?}: {why}"
                        ));
                    }
                }
                Err(why) => break why,
            }
        };
        drop(source);
        Stay {
            why,
            delivered_for: began.map_or(Duration::ZERO, |b| last_good.duration_since(b)),
        }
    }

    fn put(&self, frame: Frame) {
        if self.slots.put(self.camera, frame).is_some() {
            self.context.stats.overwritten.inc();
        }
    }

    /// Returns whether a stop was requested meanwhile.
    fn wait_until_taken(&self) -> bool {
        loop {
            self.heartbeat.beat();
            if self.slots.wait_empty(self.camera, TURN) {
                return false;
            }
            if self.context.shutdown.is_requested() {
                return true;
            }
        }
    }

    /// Sleeps, beating. Returns whether a stop was requested.
    fn pause(&self, duration: Duration) -> bool {
        let deadline = Instant::now() + duration;
        loop {
            self.heartbeat.beat();
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return self.context.shutdown.is_requested();
            }
            if self.context.shutdown.sleep(left.min(TURN)) {
                return true;
            }
        }
    }

    fn set_online(&self, online: bool, on_status: &mut dyn FnMut(bool)) {
        self.context.stats.online.store(online, Relaxed);
        on_status(online);
    }

    fn end(self, online: Option<bool>, end: End, on_status: &mut dyn FnMut(bool)) -> End {
        if online == Some(true) {
            self.set_online(false, on_status);
        }
        end
    }
}

/// Delays between attempts: they double up to a cap and are jittered, so that cameras do not come in step.
#[derive(Debug)]
struct Backoff {
    delay: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { delay: Self::FIRST }
    }
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(100);
    /// A device is to be back within two seconds of its return.
    const CAP: Duration = Duration::from_secs(1);
    /// One that was never there is not promised anything.
    const CAP_NEVER_THERE: Duration = Duration::from_secs(2);
    /// A source that fails sooner than this, again and again, is not restarted ten times a second.
    const STEADY: Duration = Duration::from_secs(1);

    fn next(&mut self, was_there: bool, delivered_for: Duration) -> Duration {
        if delivered_for >= Self::STEADY {
            self.delay = Self::FIRST;
        }
        let cap = if was_there {
            Self::CAP
        } else {
            Self::CAP_NEVER_THERE
        };
        let delay = self.delay.min(cap);
        self.delay = (delay * 2).min(cap);
        // Down only: the cap is a promise.
        delay.mul_f64(0.75 + 0.25 * jitter())
    }
}

/// Logs a camera's coming and going: once a change, not once an attempt.
#[derive(Debug, Default)]
struct ChangeLog {
    /// What the camera's absence was last put down to, and when that was logged.
    said: Option<(String, Instant)>,
    times_came: u64,
}

impl ChangeLog {
    /// Another reason is news, but not more often than this: some programs never fail twice in the same words.
    const NEWS: Duration = Duration::from_secs(30);

    fn went(&mut self, context: &CaptureContext, why: &str) {
        let camera = &context.camera;
        // Numbers change from attempt to attempt: process ids, times.
        let gist: String = why.chars().filter(|c| !c.is_ascii_digit()).collect();
        let news = match &self.said {
            None => true,
            Some((said, at)) => *said != gist && at.elapsed() >= Self::NEWS,
        };
        if news {
            tracing::warn!(%camera, "camera lost, retrying: {why}");
            self.said = Some((gist, Instant::now()));
        } else {
            tracing::debug!(%camera, "camera still lost: {why}");
        }
    }

    fn came(&mut self, context: &CaptureContext, what: &str) {
        self.said = None;
        self.times_came += 1;
        tracing::info!(camera = %context.camera, "camera online: {what}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_their_cap_and_start_anew_after_a_steady_stay() {
        let mut b = Backoff::default();
        let within = |d: Duration, ms: u64| {
            assert!(
                d <= Duration::from_millis(ms) && d >= Duration::from_millis(ms * 3 / 4),
                "{d:?} for {ms}"
            );
        };
        for ms in [100, 200, 400, 800, 1000, 1000] {
            within(b.next(true, Duration::from_millis(10)), ms);
        }
        within(b.next(true, Duration::from_secs(5)), 100);
        let mut b = Backoff::default();
        for ms in [100, 200, 400, 800, 1600, 2000, 2000] {
            within(b.next(false, Duration::ZERO), ms);
        }
        // It came at last, and went.
        within(b.next(true, Duration::ZERO), 1000);
    }
}
