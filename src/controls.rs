//! What can be changed of a running pipeline, and what can be asked of it.
//!
//! In: settings and requests, from the `io` thread. Out: the same, read once a frame by the `infer-<n>` threads and by the
//! MQTT queue. Always holds: nobody waits for a lock longer than a copy takes; `leave` is never above `enter`; at most
//! [`MAX_REQUESTS`] requests wait at a camera, and each is answered or its asker sees it dropped.

use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::oneshot;

use crate::frame::{CameraId, Frame};
use crate::observe::{Observation, SmoothingSettings};

/// Requests that wait for one camera's next frame at most.
pub const MAX_REQUESTS: usize = 8;

/// What can be changed of a camera while it runs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CameraSettings {
    /// Whether frames are inferred. Capture goes on without, so that it can be on again at once.
    pub inference: bool,
    /// Hysteresis of `state` and `event`.
    pub smoothing: SmoothingSettings,
    /// Classes less probable than this are left out, whatever the models' configuration says; `None`: as it says.
    pub threshold: Option<f32>,
    /// Observations a second to MQTT at most; 0: no limit.
    pub max_rate: f64,
}

impl Default for CameraSettings {
    fn default() -> Self {
        Self {
            inference: true,
            smoothing: SmoothingSettings::default(),
            threshold: None,
            max_rate: 0.0,
        }
    }
}

/// Something wanted of a camera's next frame.
#[derive(Debug)]
pub enum Request {
    /// Infer it, also if inference is off; the observations of every model come back.
    Infer(Answer<Vec<Arc<Observation>>>),
    /// A copy of it.
    Frame(Answer<Frame>),
}

/// Where a result goes, or why there is none.
pub type Answer<T> = oneshot::Sender<Result<T, String>>;

/// Every camera's settings and requests, in the plan's order.
#[derive(Debug)]
pub struct Controls {
    cameras: Vec<Camera>,
}

#[derive(Debug)]
struct Camera {
    id: CameraId,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    settings: CameraSettings,
    requests: Vec<Request>,
}

impl Controls {
    /// Cameras with what they start with.
    pub fn new(cameras: impl IntoIterator<Item = (CameraId, CameraSettings)>) -> Self {
        let camera = |(id, settings)| {
            let requests = Vec::new();
            let inner = Mutex::new(Inner { settings, requests });
            Camera { id, inner }
        };
        Self {
            cameras: cameras.into_iter().map(camera).collect(),
        }
    }

    /// The cameras' ids.
    pub fn ids(&self) -> impl Iterator<Item = &CameraId> {
        self.cameras.iter().map(|c| &c.id)
    }

    /// A camera's place in the plan.
    pub fn index(&self, id: &str) -> Option<usize> {
        self.cameras.iter().position(|c| &*c.id == id)
    }

    /// A camera's settings now. `camera` is its place in the plan.
    pub fn settings(&self, camera: usize) -> CameraSettings {
        self.inner(camera).settings
    }

    /// From the next frame on.
    pub fn set(&self, camera: usize, settings: CameraSettings) {
        self.inner(camera).settings = settings;
    }

    /// Asks for something of the camera's next frame. Returns whether there was room.
    pub fn request(&self, camera: usize, request: Request) -> bool {
        let mut inner = self.inner(camera);
        inner.requests.retain(|r| match r {
            Request::Infer(answer) => !answer.is_closed(),
            Request::Frame(answer) => !answer.is_closed(),
        });
        let room = inner.requests.len() < MAX_REQUESTS;
        if room {
            inner.requests.push(request);
        }
        room
    }

    /// For the thread that has a frame: the settings that hold for it, and what is wanted of it.
    pub fn take(&self, camera: usize) -> (CameraSettings, Vec<Request>) {
        let mut inner = self.inner(camera);
        (inner.settings, std::mem::take(&mut inner.requests))
    }

    fn inner(&self, camera: usize) -> MutexGuard<'_, Inner> {
        self.cameras[camera]
            .inner
            .lock()
            .unwrap_or_else(|e| e.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_bounded_and_those_that_nobody_waits_for_make_room() {
        let controls = Controls::new([("a".into(), CameraSettings::default())]);
        let mut waiting = Vec::new();
        for _ in 0..MAX_REQUESTS {
            let (answer, rx) = oneshot::channel();
            assert!(controls.request(0, Request::Infer(answer)));
            waiting.push(rx);
        }
        let (answer, _rx) = oneshot::channel();
        assert!(!controls.request(0, Request::Infer(answer)));
        waiting.pop();
        let (answer, _rx) = oneshot::channel();
        assert!(controls.request(0, Request::Infer(answer)));
        assert_eq!(controls.take(0).1.len(), MAX_REQUESTS);
        assert!(controls.take(0).1.is_empty());
    }
}
