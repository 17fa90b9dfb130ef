//! Commands and settings that come over MQTT: `cmd` and `<cam>/<setting>/set`.
//!
//! In: the broker's messages, and the running pipeline's [`Controls`]. Out: an answer to each command on `cmd/result` (under MQTT 5
//! on the topic that the asker named), the settings' states, pictures. On the `io` thread; files are read and written, and pictures encoded,
//! on threads of their own. Always holds: whatever bytes arrive, there is an answer or a counted drop, never a panic, and nothing waits; a
//! command runs once however often it arrives with its id; what the broker had retained is ignored, or an old command would run again at
//! each reconnect; everything kept here is bounded.

mod jobs;
mod memory;
mod reload;
mod request;
mod saved;
mod setting;
mod snapshot;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::{Map, Value, json};

use crate::clock::{Clock, rfc3339_ms};
use crate::config::Plan;
use crate::controls::Controls;
use crate::limit::Limit;
use crate::publish::mqtt::link::{Message, PICTURE, Properties, Qos};
use crate::publish::mqtt::remote::{Remote, Wish};
use crate::publish::mqtt::{DeviceInfo, Topics, payload};
use crate::shutdown::Shutdown;
use crate::stats::Stats;

use jobs::{Job, Outcome};
use memory::{Known, Memory};
use request::{Id, Op, Refusal};
use setting::Setting;

pub use reload::camera_settings;
pub use saved::SavedSettings;

/// Commands and settings a second, and how many at once before that holds.
const COMMANDS: (f64, f64) = (20.0, 5.0);
/// Refusals that are answered; the rest is counted.
const REFUSALS: (f64, f64) = (20.0, 5.0);
/// Commands under way at most.
const MAX_JOBS: usize = 16;
/// Answers that wait for the broker at most.
const MAX_OUTBOX: usize = 256;
/// A setting's text is shorter.
const MAX_SETTING_BYTES: usize = 64;
/// The answer goes out before the restart.
const RESTART_AFTER: Duration = Duration::from_millis(500);
/// systemd gives a service up that starts five times in ten minutes (`StartLimitBurst=`): nobody may do that from afar.
const RESTART_AGE: Duration = Duration::from_secs(150);

/// Reads the configuration again; every problem in one text.
pub type Reread = Arc<dyn Fn() -> Result<Plan, String> + Send + Sync>;

/// What commands act on.
pub struct Parts {
    /// The plan that the pipeline runs by.
    pub plan: Plan,
    /// What `info` says.
    pub device: DeviceInfo,
    /// The lowest score in messages of each of the plan's models: what a model is for may only be known since it was loaded.
    pub thresholds: Vec<f32>,
    /// The cameras' settings and requests.
    pub controls: Arc<Controls>,
    /// What was kept from before; already put over the plan.
    pub saved: SavedSettings,
    /// Counters.
    pub stats: Arc<Stats>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Requested for a restart.
    pub shutdown: Shutdown,
    /// Set before a restart is requested.
    pub restart: Arc<AtomicBool>,
    /// For `reload`; `None`: there is nothing to read again.
    pub reread: Option<Reread>,
    /// Whether somebody starts the program again who counts starts.
    pub supervised: bool,
}

/// Obeys commands.
pub struct Control {
    parts: Parts,
    topics: Topics,
    /// The plan that was taken over last.
    live: Plan,
    commands: Limit,
    refusals: Limit,
    memory: Memory,
    jobs: Vec<(Asker, Job)>,
    /// Whether what is to be kept differs from the file, or from what is on its way there.
    unsaved: bool,
    to_save: Vec<(Asker, Value)>,
    saving: Option<Saving>,
    outbox: VecDeque<Wish>,
    started: Instant,
    restart_at: Option<Instant>,
}

/// Who wants an answer.
#[derive(Debug, Clone, PartialEq)]
struct Asker {
    id: Option<Id>,
    /// Where it goes; `cmd/result` if nothing else was asked for.
    topic: String,
    correlation: Option<Bytes>,
}

impl Control {
    /// Nothing is obeyed before the first message.
    pub fn new(parts: Parts) -> Self {
        let prefix = parts.plan.mqtt.as_ref().map_or("", |m| &m.prefix);
        Self {
            topics: Topics::new(prefix, &parts.device.id),
            live: parts.plan.clone(),
            commands: Limit::new(COMMANDS.0, COMMANDS.1),
            refusals: Limit::new(REFUSALS.0, REFUSALS.1),
            memory: Memory::default(),
            jobs: Vec::new(),
            unsaved: false,
            to_save: Vec::new(),
            saving: None,
            outbox: VecDeque::new(),
            started: parts.clock.now(),
            restart_at: None,
            parts,
        }
    }

    fn command(&mut self, message: &Message, now: Instant) {
        let mut asker = self.asker(message);
        let (id, op) = match request::parse(&message.payload) {
            Ok(command) => command,
            Err(Refusal { id, error }) => {
                asker.id = id;
                return self.refuse(asker, error, now);
            }
        };
        asker.id = Some(id.clone());
        match self.memory.get(&id) {
            Some(Known::Running) => return,
            Some(Known::Answered(answer)) => {
                if self.refusals.pass(now) {
                    self.send(&asker, answer);
                } else {
                    self.parts.stats.commands_dropped.inc();
                }
                return;
            }
            None => {}
        }
        if !self.commands.pass(now) {
            let error = format!("too many commands: {} a second; try again", COMMANDS.1);
            return self.refuse(asker, error, now);
        }
        self.parts.stats.commands.inc();
        self.memory.begin(&id);
        match self.start(op, now) {
            Ok(Started::Done(result)) => self.answer(asker, Ok(result)),
            Ok(Started::Job(job)) => self.jobs.push((asker, job)),
            Ok(Started::Saved(result)) => self.to_save.push((asker, result)),
            Err(error) => self.answer(asker, Err(error)),
        }
    }

    fn start(&mut self, op: Op, now: Instant) -> Result<Started, String> {
        if self.jobs.len() + self.to_save.len() >= MAX_JOBS {
            return Err(format!("{MAX_JOBS} commands are under way; try again"));
        }
        match op {
            Op::Ping => Ok(Started::Done(json!({}))),
            Op::Info => Ok(Started::Done(self.info())),
            Op::Infer { camera } => {
                let cameras = match camera {
                    Some(id) => vec![self.camera(Some(&id))?],
                    None => (0..self.parts.plan.cameras.len()).collect(),
                };
                for &camera in &cameras {
                    self.must_be_online(camera)?;
                }
                jobs::infer(&self.parts.controls, &cameras, now).map(Started::Job)
            }
            Op::Snapshot(args) => {
                let Some(limits) = self.live.snapshot else {
                    let why = "pictures are turned off here (privacy.images = false)";
                    return Err(why.into());
                };
                let camera = self.camera(args.camera.as_deref())?;
                self.must_be_online(camera)?;
                let within = |name, value: u32, least: u32, limit: u32| {
                    if (least..=limit).contains(&value) {
                        return Ok(value);
                    }
                    Err(format!(
                        "{name}: {value} is not between {least} and {limit} (snapshot.{name})"
                    ))
                };
                let quality = args.quality.unwrap_or(limits.quality).into();
                let quality = within("quality", quality, 1, limits.quality.into())? as u8;
                let side = args.max_side_px.unwrap_or(limits.max_side_px);
                let side = within("max_side_px", side, 16, limits.max_side_px)?;
                if self.jobs.iter().any(|(_, j)| j.is_picture()) {
                    return Err("another picture is being made; try again".into());
                }
                jobs::picture(&self.parts.controls, camera, quality, side, now).map(Started::Job)
            }
            Op::Set {
                camera,
                settings,
                persist,
            } => {
                let camera = self.camera(camera.as_deref())?;
                if persist && self.parts.plan.state_dir.is_none() {
                    return Err(NO_STATE_DIR.into());
                }
                self.change(camera, &settings, persist)?;
                let result = self.settings_of(camera);
                Ok(match persist {
                    true => Started::Saved(result),
                    false => Started::Done(result),
                })
            }
            Op::Reload => {
                let Some(reread) = self.parts.reread.clone() else {
                    return Err("there is no configuration to read again".into());
                };
                if self.jobs.iter().any(|(_, j)| matches!(j, Job::Reload(_))) {
                    return Err("the configuration is being read; try again".into());
                }
                let reread = jobs::aside("reload", move || reread().map(Box::new));
                Ok(Started::Job(Job::Reload(reread)))
            }
            Op::Restart => {
                let age = self
                    .parts
                    .clock
                    .now()
                    .saturating_duration_since(self.started);
                if self.parts.supervised && age < RESTART_AGE {
                    return Err(format!(
                        "started {} s ago: a restart is possible {} s after the last one, or the service manager gives up",
                        age.as_secs(),
                        RESTART_AGE.as_secs()
                    ));
                }
                tracing::info!("a restart was asked for");
                self.restart_at = Some(now + RESTART_AFTER);
                Ok(Started::Done(json!({})))
            }
        }
    }

    /// A camera's place in the plan; without a name, the only one's.
    fn camera(&self, id: Option<&str>) -> Result<usize, String> {
        let ids = || {
            let ids: Vec<&str> = self.parts.controls.ids().map(|id| &**id).collect();
            ids.join(", ")
        };
        match id {
            Some(id) => {
                self.parts.controls.index(id).ok_or_else(|| {
                    format!("no camera `{}`; there are {}", request::short(id), ids())
                })
            }
            None if self.parts.plan.cameras.len() == 1 => Ok(0),
            None => Err(format!("args: which `camera`? There are {}", ids())),
        }
    }

    fn must_be_online(&self, camera: usize) -> Result<(), String> {
        let stats = &self.parts.stats.cameras[camera];
        if stats.online.load(Relaxed) {
            return Ok(());
        }
        Err(format!("the camera `{}` is offline", stats.id))
    }

    /// All of `values` or none.
    fn change(
        &mut self,
        camera: usize,
        values: &Map<String, Value>,
        persist: bool,
    ) -> Result<(), String> {
        let old = self.parts.controls.settings(camera);
        let changed = setting::change(&old, values)?;
        self.parts.controls.set(camera, changed);
        let id = self.parts.plan.cameras[camera].id.to_string();
        let text = Value::Object(values.clone());
        tracing::info!(camera = %id, "settings changed: {text}");
        if persist {
            let kept = self.parts.saved.cameras.entry(id).or_default();
            kept.extend(values.clone());
            self.unsaved = true;
        }
        for setting in Setting::ALL {
            if values.contains_key(setting.name()) {
                self.push_setting(camera, setting);
            }
        }
        Ok(())
    }

    /// `<cam>/<setting>/set`
    fn set(&mut self, camera: &str, name: &str, message: &Message, now: Instant) {
        let refuse = |control: &mut Self, error: String| {
            let asker = control.asker(message);
            let error = format!(
                "{}/{}: {error}",
                request::short(camera),
                request::short(name)
            );
            control.refuse(asker, error, now);
        };
        let (index, setting) = match (self.camera(Some(camera)), Setting::named(name)) {
            (Ok(index), Some(setting)) => (index, setting),
            (Err(error), _) => return refuse(self, error),
            (_, None) => return refuse(self, "no such setting".into()),
        };
        let changed = if message.payload.len() > MAX_SETTING_BYTES {
            Err(format!("longer than {MAX_SETTING_BYTES} bytes"))
        } else if !self.commands.pass(now) {
            Err(format!(
                "too many changes: {} a second; try again",
                COMMANDS.1
            ))
        } else {
            self.parts.stats.commands.inc();
            setting.parse(&message.payload).and_then(|value| {
                let persist = self.live.mqtt.as_ref().is_some_and(|m| m.persist_settings)
                    && self.parts.plan.state_dir.is_some();
                self.change(index, &Map::from_iter([(name.into(), value)]), persist)
            })
        };
        if let Err(error) = changed {
            refuse(self, error);
            // Whoever wrote it shows what it wrote; this is what holds.
            self.push_setting(index, setting);
        }
    }

    fn push_setting(&mut self, camera: usize, setting: Setting) {
        let plan = &self.parts.plan;
        let settings = self.parts.controls.settings(camera);
        let text = setting.text(&settings, configured_threshold(&self.parts, camera));
        let kind = format!("{}/state", setting.name());
        let topic = self.topics.camera(&plan.cameras[camera].id, &kind);
        let is_older = |w: &Wish| matches!(w, Wish::Send(m) if m.topic == topic);
        self.outbox.retain(|w| !is_older(w));
        let message = Message::retained(topic, text);
        self.outbox.push_back(Wish::Send(message));
    }

    fn settings_of(&self, camera: usize) -> Value {
        let plan = &self.parts.plan;
        let settings = self.parts.controls.settings(camera);
        let threshold = configured_threshold(&self.parts, camera);
        let mut all = Map::new();
        all.insert("camera".into(), json!(&*plan.cameras[camera].id));
        for setting in Setting::ALL {
            all.insert(setting.name().into(), setting.value(&settings, threshold));
        }
        Value::Object(all)
    }

    fn info(&self) -> Value {
        let mut info = serde_json::to_value(&self.parts.device).unwrap_or_default();
        let age = self
            .parts
            .clock
            .now()
            .saturating_duration_since(self.started);
        let cameras = (0..self.parts.plan.cameras.len()).map(|camera| {
            let mut settings = self.settings_of(camera);
            settings["online"] = json!(self.parts.stats.cameras[camera].online.load(Relaxed));
            settings
        });
        info["uptime_s"] = json!(age.as_secs());
        info["cameras"] = cameras.collect();
        let pictures = self.live.snapshot.is_some();
        let ops = request::OPS
            .iter()
            .filter(|op| pictures || **op != "snapshot");
        info["ops"] = ops.copied().collect();
        info
    }

    /// Puts what changed in the file over what runs.
    fn take_over(&mut self, new: Plan) -> Value {
        let changes = reload::compare(&self.parts.plan, &self.live, &new);
        let file = camera_settings(&new);
        for camera in 0..self.parts.plan.cameras.len() {
            let mut settings = self.parts.controls.settings(camera);
            let mut written = Vec::new();
            for key in &changes.applied {
                match *key {
                    "smoothing.window_ms" => {
                        settings.smoothing.window_ms = file.smoothing.window_ms
                    }
                    "smoothing.min_duration_ms" => {
                        settings.smoothing.min_duration_ms = file.smoothing.min_duration_ms;
                    }
                    "smoothing.enter" => {
                        settings.smoothing.enter = file.smoothing.enter;
                        written.push(Setting::Enter);
                    }
                    "smoothing.leave" => {
                        settings.smoothing.leave = file.smoothing.leave;
                        written.push(Setting::Leave);
                    }
                    "mqtt.max_rate" => {
                        settings.max_rate = file.max_rate;
                        written.push(Setting::MaxRate);
                    }
                    _ => {}
                }
            }
            if settings.smoothing.leave > settings.smoothing.enter {
                // One of the two had been set; together they only fit as the file says.
                settings.smoothing = file.smoothing;
                written.extend([Setting::Enter, Setting::Leave]);
            }
            self.parts.controls.set(camera, settings);
            let kept = self
                .parts
                .saved
                .cameras
                .get_mut(&*self.parts.plan.cameras[camera].id);
            if let Some(kept) = kept {
                for setting in &written {
                    self.unsaved |= kept.remove(setting.name()).is_some();
                }
            }
            for setting in written {
                self.push_setting(camera, setting);
            }
        }
        self.live = new;
        if self.live.snapshot.is_none() {
            let is_picture =
                |w: &Wish| matches!(w, Wish::Send(m) | Wish::SendLatest(m) if m.is_picture());
            self.outbox.retain(|wish| !is_picture(wish));
            self.outbox.push_back(Wish::DropPictures);
        }
        tracing::info!(
            "configuration read again: {} taken over, {} only by a restart",
            list(&changes.applied),
            list(&changes.needs_restart)
        );
        json!(changes)
    }

    fn asker(&self, message: &Message) -> Asker {
        let Properties {
            response_topic,
            correlation_data,
            ..
        } = &message.properties;
        // An answer must not become a command, a state or a discovery message.
        let fit = |t: &&String| {
            !t.is_empty()
                && !t.contains(['+', '#', '\0'])
                && !t.starts_with('$')
                && self.topics.below(t).is_none_or(|t| t == "cmd/result")
                && !t.ends_with("/config")
                && !t.ends_with("/set")
        };
        let asked = response_topic.as_ref().filter(fit);
        Asker {
            id: None,
            topic: asked
                .cloned()
                .unwrap_or_else(|| self.topics.command_result()),
            correlation: correlation_data.clone(),
        }
    }

    /// Answers a command that does not run; a flood of them is only counted.
    fn refuse(&mut self, asker: Asker, error: String, now: Instant) {
        self.parts.stats.commands_refused.inc();
        if !self.refusals.pass(now) {
            self.parts.stats.commands_dropped.inc();
            return;
        }
        let answer = self.make_answer(&asker, &Err(error));
        self.send(&asker, answer);
    }

    fn answer(&mut self, asker: Asker, result: Result<Value, String>) {
        let answer = self.make_answer(&asker, &result);
        if let Some(id) = &asker.id {
            self.memory.answered(id, &answer);
        }
        self.send(&asker, answer);
    }

    fn make_answer(&self, asker: &Asker, result: &Result<Value, String>) -> Vec<u8> {
        let mut answer = json!({
            "schema": payload::SCHEMA,
            "device": self.parts.device.id,
            "ts": rfc3339_ms(self.parts.clock.wall()),
            "id": asker.id,
            "ok": result.is_ok(),
        });
        match result {
            Ok(result) => answer["result"] = result.clone(),
            Err(error) => answer["error"] = json!(error),
        }
        answer.to_string().into_bytes()
    }

    fn send(&mut self, asker: &Asker, answer: Vec<u8>) {
        if self.outbox.len() >= MAX_OUTBOX {
            self.parts.stats.commands_dropped.inc();
            return;
        }
        let mut message = Message::new(asker.topic.clone(), Qos::AtLeastOnce, answer);
        message.properties.content_type = Some("application/json".into());
        message.properties.correlation_data = asker.correlation.clone();
        self.outbox.push_back(Wish::Send(message));
    }

    /// Goes on with what is under way.
    fn advance(&mut self, now: Instant) {
        let mut finished = Vec::new();
        for (asker, job) in std::mem::take(&mut self.jobs) {
            match job.advance(now) {
                Outcome::Pending(job) => self.jobs.push((asker, job)),
                Outcome::Done(result) => finished.push((asker, result)),
                Outcome::Picture(camera, jpeg) => {
                    let result = self.publish_picture(camera, jpeg);
                    finished.push((asker, result));
                }
                Outcome::Reread(plan) => {
                    let result = plan.map(|plan| self.take_over(*plan));
                    finished.push((asker, result));
                }
            }
        }
        for (asker, result) in finished {
            self.answer(asker, result);
        }
        self.save();
        if self.restart_at.is_some_and(|at| now >= at) {
            self.restart_at = None;
            self.parts.restart.store(true, Relaxed);
            self.parts.shutdown.request();
        }
    }

    fn publish_picture(&mut self, camera: usize, jpeg: snapshot::Jpeg) -> Result<Value, String> {
        // Turned off while the picture was made.
        let Some(limits) = self.live.snapshot else {
            return Err("pictures were turned off".into());
        };
        let camera = &self.parts.plan.cameras[camera].id;
        let topic = self.topics.camera(camera, "snapshot");
        let result = json!({
            "camera": &**camera,
            "topic": topic,
            "width": jpeg.width,
            "height": jpeg.height,
            "bytes": jpeg.bytes.len(),
        });
        let mut message = match limits.retain {
            true => Message::retained(topic, jpeg.bytes),
            false => Message::new(topic, Qos::AtMostOnce, jpeg.bytes),
        };
        message.properties.content_type = Some(PICTURE.into());
        self.outbox.push_back(match limits.retain {
            true => Wish::SendLatest(message),
            false => Wish::Send(message),
        });
        Ok(result)
    }

    /// One write at a time; those who asked meanwhile wait for the next.
    fn save(&mut self) {
        if let Some(saving) = &mut self.saving {
            let Some(result) = jobs::finished(&mut saving.done) else {
                return;
            };
            if let Err(e) = &result {
                tracing::warn!("settings are not kept: {e}");
            }
            for (asker, settings) in self.saving.take().into_iter().flat_map(|s| s.waiting) {
                self.answer(asker, result.clone().map(|()| settings));
            }
        }
        if std::mem::take(&mut self.unsaved)
            && let Some(dir) = self.parts.plan.state_dir.clone()
        {
            let saved = self.parts.saved.clone();
            let save = move || {
                let told = |e| format!("cannot write to {}: {e}", dir.display());
                saved.save(&dir).map_err(told)
            };
            self.saving = Some(Saving {
                done: jobs::aside("settings", save),
                waiting: std::mem::take(&mut self.to_save),
            });
        }
    }
}

/// What a command's start came to.
enum Started {
    Done(Value),
    Job(Job),
    /// Done once it is on the disk.
    Saved(Value),
}

/// Settings on their way to the disk, and who is told when they are there.
struct Saving {
    done: jobs::Aside<()>,
    waiting: Vec<(Asker, Value)>,
}

const NO_STATE_DIR: &str = "there is no place to keep settings: set device.state_dir";

/// The threshold of the first model that looks at the camera.
fn configured_threshold(parts: &Parts, camera: usize) -> f32 {
    let Some(&model) = parts.plan.cameras[camera].models.first() else {
        return 0.0;
    };
    parts.thresholds.get(model).copied().unwrap_or(0.0)
}

fn list<T: AsRef<str>>(keys: &[T]) -> String {
    match keys.len() {
        0 => "nothing".into(),
        _ => keys
            .iter()
            .map(AsRef::as_ref)
            .collect::<Vec<_>>()
            .join(", "),
    }
}

impl Remote for Control {
    fn filters(&self) -> Vec<String> {
        vec![self.topics.command(), self.topics.camera("+", "+/set")]
    }

    fn connected(&mut self, _: Instant) {
        // Answers of before belong to nobody who still waits, and states are made anew.
        self.outbox.clear();
        for camera in 0..self.parts.plan.cameras.len() {
            for setting in Setting::ALL {
                self.push_setting(camera, setting);
            }
        }
    }

    fn incoming(&mut self, message: &Message, now: Instant) {
        let topic = message.topic.clone();
        let Some(below) = self.topics.below(&topic) else {
            return;
        };
        let mut levels = below.split('/');
        let levels = (levels.next(), levels.next(), levels.next(), levels.next());
        let set = match levels {
            (Some("cmd"), None, ..) => None,
            (Some(camera), Some(name), Some("set"), None) => Some((camera, name)),
            _ => return,
        };
        if message.retain || self.live.mqtt.as_ref().is_some_and(|m| !m.commands) {
            self.parts.stats.commands_dropped.inc();
            return;
        }
        match set {
            None => self.command(message, now),
            Some((camera, name)) => self.set(camera, name, message, now),
        }
    }

    fn poll(&mut self, now: Instant) -> Option<Wish> {
        self.advance(now);
        self.outbox.pop_front()
    }
}

#[cfg(test)]
mod tests;
