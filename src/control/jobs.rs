//! Commands that take their time: frames to wait for, pictures to encode, files to read.
//!
//! Always holds: each is looked at and never waited for; each ends by itself, or at its deadline.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

use super::snapshot::{self, Jpeg};
use crate::clock::rfc3339_ms;
use crate::config::Plan;
use crate::controls::{Controls, Request};
use crate::frame::Frame;
use crate::observe::Observation;
use crate::publish::mqtt::payload;

/// How long a camera may take to give a frame, and a network to look at it.
const FRAME_LIMIT: Duration = Duration::from_secs(15);
/// How long a picture may take to be encoded.
const ENCODE_LIMIT: Duration = Duration::from_secs(15);

/// What another thread will say.
pub(super) type Aside<T> = oneshot::Receiver<Result<T, String>>;

pub(super) enum Job {
    Infer {
        waiting: Vec<Aside<Vec<Arc<Observation>>>>,
        done: Vec<Arc<Observation>>,
        deadline: Instant,
    },
    Frame {
        camera: usize,
        frame: Aside<Frame>,
        quality: u8,
        max_side_px: u32,
        deadline: Instant,
    },
    Encode {
        camera: usize,
        jpeg: Aside<Jpeg>,
        deadline: Instant,
    },
    Reload(Aside<Box<Plan>>),
}

pub(super) enum Outcome {
    Pending(Job),
    Done(Result<Value, String>),
    Picture(usize, Jpeg),
    Reread(Result<Box<Plan>, String>),
}

/// Runs something on a thread of its own.
pub(super) fn aside<T: Send + 'static>(
    name: &str,
    run: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Aside<T> {
    let (tell, told) = oneshot::channel();
    // Where no thread can be had, `tell` is dropped, and that is seen.
    let _ = std::thread::Builder::new()
        .name(name.into())
        .spawn(move || tell.send(run()));
    told
}

/// What the other thread said, once it has.
pub(super) fn finished<T>(aside: &mut Aside<T>) -> Option<Result<T, String>> {
    match aside.try_recv() {
        Ok(result) => Some(result),
        Err(TryRecvError::Empty) => None,
        Err(TryRecvError::Closed) => Some(Err("it was given up".into())),
    }
}

pub(super) fn infer(controls: &Controls, cameras: &[usize], now: Instant) -> Result<Job, String> {
    let mut waiting = Vec::new();
    for &camera in cameras {
        let (answer, told) = oneshot::channel();
        ask(controls, camera, Request::Infer(answer))?;
        waiting.push(told);
    }
    Ok(Job::Infer {
        waiting,
        done: Vec::new(),
        deadline: now + FRAME_LIMIT,
    })
}

pub(super) fn picture(
    controls: &Controls,
    camera: usize,
    quality: u8,
    max_side_px: u32,
    now: Instant,
) -> Result<Job, String> {
    let (answer, frame) = oneshot::channel();
    ask(controls, camera, Request::Frame(answer))?;
    Ok(Job::Frame {
        camera,
        frame,
        quality,
        max_side_px,
        deadline: now + FRAME_LIMIT,
    })
}

fn ask(controls: &Controls, camera: usize, request: Request) -> Result<(), String> {
    match controls.request(camera, request) {
        true => Ok(()),
        false => Err("too much is asked of the camera's next frame; try again".into()),
    }
}

fn too_late<T>(what: &str, limit: Duration) -> Result<T, String> {
    Err(format!("{what} within {} s", limit.as_secs()))
}

impl Job {
    pub fn is_picture(&self) -> bool {
        matches!(self, Self::Frame { .. } | Self::Encode { .. })
    }

    pub fn advance(self, now: Instant) -> Outcome {
        match self {
            Self::Infer {
                mut waiting,
                mut done,
                deadline,
            } => {
                let mut failure = None;
                waiting.retain_mut(|w| match finished(w) {
                    None => true,
                    Some(Ok(observations)) => {
                        done.extend(observations);
                        false
                    }
                    Some(Err(e)) => {
                        failure = Some(e);
                        false
                    }
                });
                if let Some(e) = failure {
                    return Outcome::Done(Err(e));
                }
                if waiting.is_empty() {
                    return Outcome::Done(Ok(observed(&done)));
                }
                if now >= deadline {
                    return Outcome::Done(too_late("no frame was inferred", FRAME_LIMIT));
                }
                Outcome::Pending(Self::Infer {
                    waiting,
                    done,
                    deadline,
                })
            }
            Self::Frame {
                camera,
                mut frame,
                quality,
                max_side_px,
                deadline,
            } => match finished(&mut frame) {
                Some(Ok(frame)) => Outcome::Pending(Self::Encode {
                    camera,
                    jpeg: aside("snapshot", move || {
                        snapshot::encode(&frame, quality, max_side_px)
                    }),
                    deadline: now + ENCODE_LIMIT,
                }),
                Some(Err(e)) => Outcome::Done(Err(e)),
                None if now >= deadline => Outcome::Done(too_late("no frame came", FRAME_LIMIT)),
                None => Outcome::Pending(Self::Frame {
                    camera,
                    frame,
                    quality,
                    max_side_px,
                    deadline,
                }),
            },
            Self::Encode {
                camera,
                mut jpeg,
                deadline,
            } => match finished(&mut jpeg) {
                Some(Ok(jpeg)) => Outcome::Picture(camera, jpeg),
                Some(Err(e)) => Outcome::Done(Err(e)),
                None if now >= deadline => {
                    Outcome::Done(too_late("no picture was made", ENCODE_LIMIT))
                }
                None => Outcome::Pending(Self::Encode {
                    camera,
                    jpeg,
                    deadline,
                }),
            },
            Self::Reload(mut plan) => match finished(&mut plan) {
                Some(plan) => Outcome::Reread(plan),
                None => Outcome::Pending(Self::Reload(plan)),
            },
        }
    }
}

/// What an `infer` is answered with: the essence; the whole goes over the camera's own topics.
fn observed(observations: &[Arc<Observation>]) -> Value {
    let one = |o: &Arc<Observation>| {
        json!({
            "camera": &*o.meta.camera,
            "seq": o.seq,
            "ts": rfc3339_ms(o.meta.wall_time),
            "model": o.model.id,
            "results": payload::classes(&o.results),
            "detections": payload::found(&o.results),
            "segments": payload::areas(&o.results),
        })
    };
    json!({ "observations": observations.iter().map(one).collect::<Vec<_>>() })
}
