//! Motion: whether a picture has changed since the network last looked at it.
//!
//! In: frames, masks already in them. Out: whether inference is worth its time. On the `infer-<n>` threads. Always holds: no frame is
//! decoded whole for it (of a JPEG only the mean of each block of 8×8 is taken), and while nothing moves only one every
//! [`look_every_s`](MotionSettings::look_every_s) is looked at; a still scene is inferred every
//! [`at_least_every_s`](MotionSettings::at_least_every_s) all the same; a frame that cannot be read counts as changed, so that
//! inference tells why.
//!
//! A picture is compared with the one that was inferred last, not with the one before: what creeps is found as soon as it has come
//! far enough, and slow changes of the light cost one inference now and then, without a model of the background.

use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::frame::Frame;
use crate::preprocess::{
    ColourOrder, InputData, InputSpec, InputTensor, Preprocessor, ResizePolicy,
};

/// The small grey image: an eighth of 640×480, so that the blocks of any larger JPEG need no transform.
const WIDTH: u32 = 80;
const HEIGHT: u32 = 60;

/// `[camera.motion]`
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MotionSettings {
    /// A cell of the small grey image has changed if it differs by more than this, of 255.
    pub threshold: u8,
    /// The picture has changed if more than this share of its cells has, 0 to 1.
    pub area: f64,
    /// Seconds that inference goes on after the last change.
    pub hold_s: f64,
    /// A still scene is inferred once in so many seconds.
    pub at_least_every_s: f64,
    /// Seconds from one look for a change to the next while nothing moves; 0: every frame.
    pub look_every_s: f64,
}

impl Default for MotionSettings {
    fn default() -> Self {
        Self {
            threshold: 12,
            area: 0.001,
            hold_s: 2.0,
            at_least_every_s: 10.0,
            look_every_s: 0.2,
        }
    }
}

impl MotionSettings {
    /// Values that can never work: key and message.
    pub fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        if self.threshold == 0 {
            let message = "0 is below the noise of every camera: 1 to 255".to_string();
            problems.push(("threshold", message));
        }
        if !(0.0..1.0).contains(&self.area) {
            let message = format!("{} is not at least 0 and below 1", self.area);
            problems.push(("area", message));
        }
        if !(0.0..=3600.0).contains(&self.hold_s) {
            let message = format!("{} is not between 0 and 3600", self.hold_s);
            problems.push(("hold_s", message));
        }
        if !(0.1..=3600.0).contains(&self.at_least_every_s) {
            let message = format!("{} is not between 0.1 and 3600", self.at_least_every_s);
            problems.push(("at_least_every_s", message));
        }
        if !(0.0..=3600.0).contains(&self.look_every_s) {
            let message = format!("{} is not between 0 and 3600", self.look_every_s);
            problems.push(("look_every_s", message));
        }
        problems
    }
}

/// One camera's gate.
#[derive(Debug)]
pub struct MotionGate {
    settings: MotionSettings,
    preprocessor: Preprocessor,
    now: InputTensor,
    /// The picture that was inferred last, and its frame's time.
    inferred: Option<(Vec<u8>, Instant)>,
    changed_at: Option<Instant>,
    looked_at: Option<Instant>,
}

impl MotionGate {
    /// The first frame passes.
    pub fn new(settings: MotionSettings) -> Self {
        let spec = InputSpec {
            colour: ColourOrder::Grey,
            resize: ResizePolicy::Stretch,
            ..InputSpec::rgb(WIDTH, HEIGHT)
        };
        Self {
            settings,
            now: InputTensor::for_spec(&spec),
            preprocessor: Preprocessor::new(spec),
            inferred: None,
            changed_at: None,
            looked_at: None,
        }
    }

    /// Whether this frame is to be inferred. If so, the next ones are compared with it. `anyway`: it is inferred in any case.
    pub fn passes(&mut self, frame: &Frame, anyway: bool) -> bool {
        let at = frame.meta.captured_at;
        let settings = &self.settings;
        let within = |since: Option<Instant>, s: f64| {
            since.is_some_and(|t| at.saturating_duration_since(t) < Duration::from_secs_f64(s))
        };
        let held = within(self.changed_at, settings.hold_s);
        let inferred_at = self.inferred.as_ref().map(|(_, at)| *at);
        let due = !within(inferred_at, settings.at_least_every_s);
        if !(anyway || held || due) && within(self.looked_at, settings.look_every_s) {
            return false;
        }
        self.looked_at = Some(at);
        if self.preprocessor.run(frame, &mut self.now).is_err() {
            return true;
        }
        let InputData::U8(now) = &self.now.data else {
            return true;
        };
        let cells = settings.area * now.len() as f64;
        let before = self.inferred.as_ref().map(|(before, _)| before);
        let moved = before.is_some_and(|before| changed(before, now, settings.threshold) > cells);
        if moved {
            self.changed_at = Some(at);
        }
        let passes = anyway || moved || held || due;
        if passes {
            let (before, inferred_at) = self.inferred.get_or_insert_with(|| (Vec::new(), at));
            before.clone_from(now);
            *inferred_at = at;
        }
        passes
    }
}

/// How many cells differ by more than `threshold`.
fn changed(before: &[u8], now: &[u8], threshold: u8) -> f64 {
    let cells = before.iter().zip(now);
    cells.filter(|(a, b)| a.abs_diff(**b) > threshold).count() as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{FrameMeta, FramePool, Geometry, PixelFormat};

    const SIZE: (u32, u32) = (1280, 720);

    /// A grey gradient with noise of ±`noise` and a brighter box of `side` pixels at `x`.
    fn frame(at: Instant, nth: u32, noise: u32, object: Option<(u32, u32)>) -> Frame {
        let mut data = FramePool::new(0).take();
        for y in 0..SIZE.1 {
            for x in 0..SIZE.0 {
                let inside = object.is_some_and(|(left, side)| {
                    (left..left + side).contains(&x) && (300..300 + side).contains(&y)
                });
                let hash = (x * 31 + y * 17 + nth * 101).wrapping_mul(2_654_435_761) >> 16;
                let level = 60 + x / 16 + if inside { 40 } else { 0 };
                data.push((level + hash % (2 * noise + 1) - noise) as u8);
            }
        }
        Frame {
            format: PixelFormat::Grey,
            geometry: Geometry::packed(SIZE.0, SIZE.1, PixelFormat::Grey),
            data,
            meta: FrameMeta {
                captured_at: at,
                ..FrameMeta::of_still("motion")
            },
            mask: None,
        }
    }

    const PERIOD: Duration = Duration::from_millis(100);

    fn gate() -> MotionGate {
        MotionGate::new(MotionSettings::default())
    }

    #[test]
    fn a_still_scene_is_looked_at_now_and_then_however_noisy() {
        let (mut gate, start) = (gate(), Instant::now());
        let passed: Vec<u32> = (0..250)
            .filter(|n| gate.passes(&frame(start + PERIOD * *n, *n, 25, None), false))
            .collect();
        assert_eq!(passed, [0, 100, 200]);
    }

    #[test]
    fn what_comes_and_goes_is_seen_and_inference_goes_on_for_a_while() {
        let (mut gate, start) = (gate(), Instant::now());
        let passed: Vec<u32> = (0..80)
            .filter(|n| {
                let object = (20..30).contains(n).then_some((600, 60));
                gate.passes(&frame(start + PERIOD * *n, *n, 5, object), false)
            })
            .collect();
        // It comes with frame 20 and is gone with frame 30; each change is held for 2 s.
        let expected: Vec<u32> = std::iter::once(0).chain(20..50).collect();
        assert_eq!(passed, expected);
    }

    #[test]
    fn what_comes_is_seen_with_the_next_look() {
        let (mut gate, start) = (gate(), Instant::now());
        let passed: Vec<u32> = (0..40)
            .filter(|n| {
                let object = (*n >= 11).then_some((600, 60));
                gate.passes(&frame(start + PERIOD / 2 * *n, *n, 5, object), false)
            })
            .collect();
        // Looks are 0.2 s apart: at frames 8 and 12.
        let expected: Vec<u32> = std::iter::once(0).chain(12..40).collect();
        assert_eq!(passed, expected);
    }

    #[test]
    fn what_creeps_is_found() {
        let (mut gate, start) = (gate(), Instant::now());
        gate.passes(&frame(start, 0, 5, Some((100, 80))), false);
        let first = (1..90).find(|n| {
            gate.passes(
                &frame(start + PERIOD * *n, *n, 5, Some((100 + n / 2, 80))),
                false,
            )
        });
        assert!(first.is_some_and(|n| n < 40), "{first:?}");
    }

    #[test]
    fn a_frame_that_is_inferred_anyway_is_what_the_next_are_compared_with() {
        let (mut gate, start) = (gate(), Instant::now());
        assert!(gate.passes(&frame(start, 0, 0, None), false));
        assert!(gate.passes(&frame(start + PERIOD * 90, 1, 0, None), true));
        assert!(!gate.passes(&frame(start + PERIOD * 120, 2, 0, None), false));
        assert!(gate.passes(&frame(start + PERIOD * 190, 2, 0, None), false));
    }

    #[test]
    fn what_cannot_be_read_passes() {
        let (mut gate, start) = (gate(), Instant::now());
        for n in 0..3 {
            let mut broken = frame(start + PERIOD * n, n, 0, None);
            broken.data.truncate(10);
            assert!(gate.passes(&broken, false));
        }
    }
}
