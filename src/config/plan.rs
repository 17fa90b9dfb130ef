//! `Config` → [`Plan`]: defaults filled in, everything checked that can be checked without opening anything.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::cascades::cascades;
use super::{CameraConfig, Config, ModelConfig, Problem, SelfTestWhen, SnapshotSettings};
use crate::capture::{CaptureSettings, SourceSpec};
use crate::frame::{CameraId, Mask};
use crate::motion::MotionSettings;
use crate::observe::SmoothingSettings;
use crate::observe::crops::CropSettings;
use crate::observe::track::TrackSettings;
use crate::observe::zones::{LineSettings, MAX_PLACES, ZoneSettings};
use crate::publish::mqtt::{DiscoverySettings, MqttSettings};
use crate::publish::spool::{SpoolMode, SpoolSettings};
use crate::secret::{Login, Secret};
use crate::task::{TaskKind, TaskSettings};
use crate::toml_read::nearest;

/// What will run. Made by [`Plan::new`] alone, so that a plan is always consistent.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The device's id in topics.
    pub device: String,
    /// The cameras, ids unique.
    pub cameras: Vec<CameraPlan>,
    /// The models, ids unique.
    pub models: Vec<ModelPlan>,
    /// Threads that compute one inference together, at least 1.
    pub engine_threads: usize,
    /// Inferences at a time, at least 1.
    pub workers: usize,
    /// Hysteresis of `state` and `event`.
    pub smoothing: SmoothingSettings,
    /// How detections are followed.
    pub tracking: TrackSettings,
    /// What is kept over a restart; `None` where there is no place for it.
    pub state_dir: Option<PathBuf>,
    /// How pictures are made on request; `None`: no picture leaves the device.
    pub snapshot: Option<SnapshotSettings>,
    /// How Home Assistant is told; `None`: it is not.
    pub discovery: Option<DiscoverySettings>,
    /// The broker to publish to.
    pub mqtt: Option<MqttSettings>,
    /// How messages wait on disk for the broker, in `spool_dir`.
    pub spool: SpoolSettings,
    /// Where the spool and the numbers of observations are kept; nothing is kept without it.
    pub spool_dir: Option<PathBuf>,
    /// The embedded broker, if it runs.
    pub broker: Option<BrokerPlan>,
    /// Every observation as a line of JSON on standard output.
    pub jsonl: bool,
}

/// The embedded broker.
#[derive(Debug, Clone, PartialEq)]
pub struct BrokerPlan {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Who may connect; everybody on this machine if nobody is named.
    pub login: Option<Login>,
}

impl BrokerPlan {
    /// The environment variable that holds the password.
    pub const PASSWORD_ENV: &str = "OCELLUS_BROKER_PASSWORD";

    /// Refuses to let everybody in who can reach this machine. A problem names the key and the fix.
    pub fn new(
        listen: Option<SocketAddr>,
        username: Option<String>,
        password_file: Option<&Path>,
    ) -> Result<Self, (&'static str, String)> {
        let listen = listen.unwrap_or_else(default_broker_address);
        let login = match username {
            None if password_file.is_some() => {
                return Err(("password_file", "needs a `username`".into()));
            }
            None => None,
            Some(user) if user.is_empty() => {
                return Err((
                    "username",
                    "must not be empty: leave the key out for no user".into(),
                ));
            }
            Some(user) => {
                let found = Secret::find(Self::PASSWORD_ENV, password_file, "broker-password");
                let password = found.map_err(|e| ("password_file", e))?.ok_or_else(|| {
                    let fix = "needs a password: `password_file`, OCELLUS_BROKER_PASSWORD or the credential broker-password";
                    ("username", fix.into())
                })?;
                Some(Login { user, password })
            }
        };
        if login.is_none() && !listen.ip().is_loopback() {
            let fix = format!(
                "{listen} can be reached from outside this machine, and nobody is asked for a password: set `username` and a password, or listen on 127.0.0.1"
            );
            return Err(("listen", fix));
        }
        Ok(Self { listen, login })
    }

    /// Whether a client that connects to `host` and `port` reaches this broker.
    pub fn is_at(&self, host: &str, port: u16) -> bool {
        let here = match host.trim_matches(['[', ']']).parse::<IpAddr>() {
            Ok(a) => a.is_loopback() || a.is_unspecified() || a == self.listen.ip(),
            Err(_) => host == "localhost",
        };
        here && self.listen.port() == port
    }
}

/// One camera.
#[derive(Debug, Clone, PartialEq)]
pub struct CameraPlan {
    /// Its id in topics.
    pub id: CameraId,
    /// How it is opened.
    pub capture: CaptureSettings,
    /// What nobody may see of its pictures.
    pub mask: Option<Arc<Mask>>,
    /// Its frames are inferred only if something moved.
    pub motion: Option<MotionSettings>,
    /// Where its things are counted; ids unique, with those of the lines.
    pub zones: Vec<ZoneSettings>,
    /// Where they cross.
    pub lines: Vec<LineSettings>,
    /// Indices of the models that look at its frames.
    pub models: Vec<usize>,
    /// Indices of those that look at crops of what these find.
    pub crop_models: Vec<usize>,
}

/// One model.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelPlan {
    /// Its id in messages.
    pub id: String,
    /// A bundle's directory or a bare `.onnx`.
    pub path: PathBuf,
    /// Labels for a bare `.onnx`.
    pub labels: Option<PathBuf>,
    /// The tasks; as the manifest says if empty.
    pub tasks: Vec<TaskKind>,
    /// How the outputs are read.
    pub task: TaskSettings,
    /// When the golden input is computed.
    pub self_test: SelfTestWhen,
    /// Which detections' crops it looks at; `None`: it looks at frames.
    pub crops: Option<CropSettings>,
}

impl Plan {
    /// Checks a configuration and fills in the defaults; all problems at once. Relative paths are taken from `base`.
    pub fn new(config: Config, base: &Path) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let device = config.device.id.unwrap_or_else(default_device_id);
        check_id("device.id", &device, &mut problems);
        let models = models(&config.model, base, &mut problems);
        let cameras = cameras(&config.camera, &config.model, &models, &mut problems);
        if cameras.is_empty() && config.camera.is_empty() {
            let fix = "no camera: add a [[camera]] section or --camera (`ocellus devices` lists what there is)";
            problems.push(Problem::new("camera", fix));
        }
        if models.is_empty() && config.model.is_empty() {
            let fix = "no model: add a [[model]] section or --model with a bundle or an .onnx file";
            problems.push(Problem::new("model", fix));
        }
        for (key, value) in [
            ("engine.threads", config.engine.threads),
            ("engine.workers", config.engine.workers),
        ] {
            if !(1..=64).contains(&value) {
                problems.push(Problem::new(
                    key,
                    format!("{value} is not between 1 and 64"),
                ));
            }
        }
        for (section, found) in [
            ("smoothing", config.smoothing.problems()),
            ("tracking", config.tracking.problems()),
            ("snapshot", config.snapshot.problems()),
            ("discovery", config.discovery.problems()),
        ] {
            problems.extend(found.into_iter().map(|p| in_section(section, p)));
        }
        let broker = config.broker.map(|b| {
            let file = b.password_file.map(|f| base.join(f));
            BrokerPlan::new(b.listen, b.username, file.as_deref())
        });
        let broker =
            broker.and_then(|b| b.map_err(|p| problems.push(in_section("broker", p))).ok());
        let mut mqtt = config.mqtt;
        if let Some(mqtt) = &mut mqtt {
            mqtt.resolve(base);
            // Our own broker lets our own client in.
            if let Some(broker) = &broker
                && let Ok((host, port)) = mqtt.address()
                && broker.is_at(&host, port)
            {
                if mqtt.username.is_none() {
                    mqtt.login = broker.login.clone();
                }
                if mqtt.version == 5 {
                    let fix = "the embedded broker speaks MQTT 3.1.1 only: leave `version` out";
                    problems.push(Problem::new("mqtt.version", fix));
                }
            }
            problems.extend(
                mqtt.problems()
                    .into_iter()
                    .map(|p| in_section("mqtt", (p.key, p.message))),
            );
        }
        let wants_spool = config
            .spool
            .as_ref()
            .is_some_and(|s| s.mode != SpoolMode::Off);
        let spool = config.spool.unwrap_or_default();
        problems.extend(spool.problems().into_iter().map(|p| in_section("spool", p)));
        let spool_dir = match &spool.path {
            Some(path) => Some(base.join(path)),
            None => {
                let own = config.device.state_dir.clone();
                own.or_else(state_directory).map(|d| d.join("spool"))
            }
        };
        if wants_spool && spool_dir.is_none() {
            let fix = "missing; write a directory (a systemd service has one in $STATE_DIRECTORY), or mode = \"off\"";
            problems.push(Problem::new("spool.path", fix));
        }
        if !config.tracking.enabled
            && let Some(c) = cameras
                .iter()
                .find(|c| !c.zones.is_empty() || !c.lines.is_empty())
        {
            let message = format!("the zones and lines of camera `{}` need it", c.id);
            problems.push(Problem::new("tracking.enabled", message));
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(Self {
            device,
            cameras,
            models,
            engine_threads: config.engine.threads,
            workers: config.engine.workers,
            smoothing: config.smoothing,
            tracking: config.tracking,
            state_dir: config.device.state_dir.or_else(default_state_dir),
            snapshot: config.privacy.images.then_some(config.snapshot),
            discovery: config.discovery.enabled.then_some(config.discovery),
            mqtt,
            spool,
            spool_dir,
            broker,
            jsonl: config.output.jsonl,
        })
    }
}

pub(super) fn in_section(section: &str, (key, message): (&'static str, String)) -> Problem {
    Problem::new(format!("{section}.{key}"), message)
}

fn default_broker_address() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 1883))
}

/// The directory that systemd made for the service (`StateDirectory=`).
fn state_directory() -> Option<PathBuf> {
    let all = std::env::var_os("STATE_DIRECTORY")?;
    // Several are joined by colons.
    let first = all.to_str()?.split(':').next()?;
    (!first.is_empty()).then(|| first.into())
}

/// systemd's, else the user's own.
fn default_state_dir() -> Option<PathBuf> {
    let path = |name| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|p| p.is_absolute())
    };
    state_directory()
        .or_else(|| path("XDG_STATE_HOME").map(|p| p.join("ocellus")))
        .or_else(|| path("HOME").map(|p| p.join(".local/state/ocellus")))
}

/// `ocellus-` and six hexadecimal digits that depend on the machine id, without giving it away.
fn default_device_id() -> String {
    let machine = [
        "/etc/machine-id",
        "/var/lib/dbus/machine-id",
        "/etc/hostname",
    ]
    .iter()
    .find_map(|p| {
        std::fs::read_to_string(p)
            .ok()
            .filter(|s| !s.trim().is_empty())
    });
    match machine {
        Some(id) => {
            let digest = Sha256::digest(format!("ocellus:{}", id.trim()));
            format!(
                "ocellus-{:02x}{:02x}{:02x}",
                digest[0], digest[1], digest[2]
            )
        }
        None => "ocellus".into(),
    }
}

fn check_id(key: &str, id: &str, problems: &mut Vec<Problem>) {
    let ok = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    if id.is_empty() || id.len() > 64 || !id.bytes().all(ok) {
        let fix = "ids become parts of topics: 1 to 64 of a-z A-Z 0-9 _ -";
        problems.push(Problem::new(key, format!("`{id}` cannot be an id; {fix}")));
    }
}

fn models(configs: &[ModelConfig], base: &Path, problems: &mut Vec<Problem>) -> Vec<ModelPlan> {
    let mut ids = HashSet::new();
    let mut plans = Vec::new();
    for (i, c) in configs.iter().enumerate() {
        let Some(path) = &c.path else {
            let fix = "missing; write the path of a bundle's directory or of an .onnx file";
            problems.push(Problem::new(format!("model.{i}.path"), fix));
            continue;
        };
        let id = c.id.clone().unwrap_or_else(|| id_of_path(path));
        check_id(&format!("model.{i}.id"), &id, problems);
        if !ids.insert(id.clone()) {
            problems.push(Problem::new(
                format!("model.{i}.id"),
                format!("`{id}` is used twice"),
            ));
        }
        let mut tasks = Vec::new();
        for task in &c.tasks {
            match task.parse::<TaskKind>() {
                Ok(kind) if tasks.contains(&kind) => {}
                Ok(kind) => tasks.push(kind),
                Err(e) => problems.push(Problem::new(format!("model.{i}.tasks"), e.to_string())),
            }
        }
        let task = TaskSettings {
            classify: c.classify.clone(),
            embed: c.embed.clone(),
            detect: c.detect.clone(),
            segment: c.segment.clone(),
        };
        problems.extend(
            task.problems()
                .into_iter()
                .map(|p| in_section(&format!("model.{i}"), p)),
        );
        plans.push(ModelPlan {
            id,
            path: base.join(path),
            labels: c.labels.as_ref().map(|l| base.join(l)),
            tasks,
            task,
            self_test: c.self_test,
            crops: c.crops.clone(),
        });
    }
    plans
}

/// The path's last part without its extension, what cannot stand in an id replaced.
fn id_of_path(path: &Path) -> String {
    let stem = path
        .file_stem()
        .map(|s| s.to_string_lossy().into_owned())
        .unwrap_or_default();
    let ok = |c: char| {
        if c.is_ascii_alphanumeric() || c == '_' {
            c
        } else {
            '-'
        }
    };
    let id: String = stem.chars().map(ok).take(64).collect();
    if id.is_empty() { "model".into() } else { id }
}

fn cameras(
    configs: &[CameraConfig],
    model_configs: &[ModelConfig],
    models: &[ModelPlan],
    problems: &mut Vec<Problem>,
) -> Vec<CameraPlan> {
    let detectors = cascades(model_configs, models, problems);
    let mut plans: Vec<CameraPlan> = Vec::new();
    for (i, c) in configs.iter().enumerate() {
        let key = |name: &str| format!("camera.{i}.{name}");
        let id = match (&c.id, configs.len()) {
            (Some(id), _) => id.clone(),
            (None, 1) => "camera".into(),
            (None, _) => format!("camera{i}"),
        };
        check_id(&key("id"), &id, problems);
        if plans.iter().any(|p| *p.id == *id) {
            problems.push(Problem::new(key("id"), format!("`{id}` is used twice")));
        }
        let source = c.source.clone().unwrap_or_else(|| "v4l2:".into());
        match source.parse::<SourceSpec>() {
            Err(e) => problems.push(Problem::new(key("source"), e.to_string())),
            Ok(source) => {
                let capture = capture_settings(c, source, &key, problems);
                let mask = mask(c, &key, problems);
                places(c, &key, problems);
                let motion = c.motion.iter().flat_map(MotionSettings::problems);
                problems.extend(motion.map(|p| in_section(&key("motion"), p)));
                plans.push(CameraPlan {
                    id: id.into(),
                    capture,
                    mask,
                    motion: c.motion,
                    zones: c.zone.clone(),
                    lines: c.line.clone(),
                    models: vec![],
                    crop_models: vec![],
                });
            }
        }
    }
    let ids: Vec<CameraId> = plans.iter().map(|p| p.id.clone()).collect();
    // A model whose path is missing has no plan: then the indices do not match, and a problem says so already.
    if models.len() == model_configs.len() {
        for (m, c) in model_configs.iter().enumerate() {
            for wanted in c
                .cameras
                .iter()
                .filter(|w| !ids.iter().any(|id| **id == ***w))
            {
                let hint = match nearest(wanted, ids.iter().map(|id| &**id)) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("there are {}", ids.join(", ")),
                };
                let message = format!("no camera has the id `{wanted}`; {hint}");
                problems.push(Problem::new(format!("model.{m}.cameras"), message));
            }
            let looks_at = |m: usize, id: &str| {
                let named = &model_configs[m].cameras;
                named.is_empty() || named.iter().any(|w| w == id)
            };
            for p in plans.iter_mut().filter(|p| looks_at(m, &p.id)) {
                match (&models[m].crops, detectors[m]) {
                    (None, _) => p.models.push(m),
                    (Some(_), Some(d)) if looks_at(d, &p.id) => p.crop_models.push(m),
                    (Some(_), _) => {}
                }
            }
        }
    }
    plans
}

/// Zones and lines: each can be, and has an id of its own.
fn places(c: &CameraConfig, key: &dyn Fn(&str) -> String, problems: &mut Vec<Problem>) {
    let zones = c.zone.iter().enumerate();
    let lines = c.line.iter().enumerate();
    let all = zones
        .map(|(i, z)| (format!("zone.{i}"), &z.id, z.problems()))
        .chain(lines.map(|(i, l)| (format!("line.{i}"), &l.id, l.problems())));
    let mut ids = HashSet::new();
    for (name, id, found) in all {
        let section = key(&name);
        check_id(&format!("{section}.id"), id, problems);
        // Dashboards' ids of them know no `-`.
        if !ids.insert(id.replace('-', "_")) {
            let message = format!(
                "`{id}` is used twice among the camera's zones and lines (`-` is the same as `_` here)"
            );
            problems.push(Problem::new(format!("{section}.id"), message));
        }
        problems.extend(found.into_iter().map(|p| in_section(&section, p)));
    }
    if c.zone.len() + c.line.len() > MAX_PLACES {
        let message = format!("more than {MAX_PLACES} zones and lines");
        problems.push(Problem::new(key("zone"), message));
    }
}

fn mask(
    c: &CameraConfig,
    key: &dyn Fn(&str) -> String,
    problems: &mut Vec<Problem>,
) -> Option<Arc<Mask>> {
    if c.privacy_masks.is_empty() {
        return None;
    }
    match Mask::new(c.privacy_masks.clone()) {
        Ok(mask) => Some(Arc::new(mask)),
        Err((nth, why)) => {
            problems.push(Problem::new(key(&format!("privacy_masks.{nth}")), why));
            None
        }
    }
}

fn capture_settings(
    c: &CameraConfig,
    source: SourceSpec,
    key: &dyn Fn(&str) -> String,
    problems: &mut Vec<Problem>,
) -> CaptureSettings {
    let mut capture = CaptureSettings::new(source);
    if let Some((w, h)) = c.size
        && (!(16..=16384).contains(&w) || !(16..=16384).contains(&h))
    {
        let message = format!("{w}×{h} is not between 16×16 and 16384×16384");
        problems.push(Problem::new(key("size"), message));
    }
    if let Some(fps) = c.fps
        && !(fps > 0.0 && fps <= 1000.0)
    {
        problems.push(Problem::new(
            key("fps"),
            format!("{fps} is not above 0 and at most 1000"),
        ));
    }
    if let Some(ms) = c.timeout_ms {
        if !(100..=600_000).contains(&ms) {
            problems.push(Problem::new(
                key("timeout_ms"),
                format!("{ms} is not between 100 and 600000"),
            ));
        }
        capture.timeout = Duration::from_millis(ms);
    }
    capture.size = c.size;
    capture.fps = c.fps;
    capture.format = c.format;
    capture.repeat = c.repeat;
    capture
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(text: &str) -> Result<Plan, Vec<String>> {
        let (config, problems) = Config::parse(text);
        assert_eq!(problems, []);
        Plan::new(config, Path::new("/etc/ocellus"))
            .map_err(|p| p.iter().map(|p| p.to_string()).collect())
    }

    #[test]
    fn defaults_are_filled_in() {
        let p =
            plan("[[camera]]\nsource = 'scene:3'\n[[model]]\npath = 'nets/resnet18 int8.onnx'\n")
                .unwrap();
        assert_eq!(&*p.cameras[0].id, "camera");
        assert_eq!(p.cameras[0].models, [0]);
        assert_eq!(p.models[0].id, "resnet18-int8");
        assert_eq!(
            p.models[0].path,
            Path::new("/etc/ocellus/nets/resnet18 int8.onnx")
        );
        assert_eq!((p.workers, p.engine_threads), (1, 1));
        assert!(p.mqtt.is_none() && p.broker.is_none());
        assert_eq!(
            plan("[broker]\n[[camera]]\n[[model]]\npath='m'")
                .unwrap()
                .broker
                .unwrap()
                .listen,
            SocketAddr::from(([127, 0, 0, 1], 1883))
        );
    }

    #[test]
    fn the_embedded_broker_is_not_open_to_everybody() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("password");
        std::fs::write(&file, "hunter2\n").unwrap();
        let plan = |broker: &str, mqtt: &str| {
            let text =
                format!("[[camera]]\n[[model]]\npath='m'\n[broker]\n{broker}\n[mqtt]\n{mqtt}");
            plan(&text)
        };
        let open = plan("listen = '0.0.0.0:1883'", "").unwrap_err();
        assert!(open[0].starts_with("broker.listen: ") && open[0].contains("set `username`"));
        let no_password = plan("username = 'cam'", "").unwrap_err();
        assert!(no_password[0].contains("OCELLUS_BROKER_PASSWORD"));
        let told = format!(
            "listen = '0.0.0.0:1884'\nusername = 'cam'\npassword_file = '{}'",
            file.display()
        );
        // Our own client is let in; a client of another broker does not learn the password.
        for (url, lets_in) in [
            ("mqtt://127.0.0.1:1884", true),
            ("mqtt://localhost:1884", true),
            ("mqtt://127.0.0.1:1883", false),
            ("mqtt://broker.lan:1884", false),
        ] {
            let p = plan(&told, &format!("url = '{url}'")).unwrap();
            let login = p.broker.as_ref().unwrap().login.as_ref().unwrap();
            assert_eq!((&*login.user, login.password.reveal()), ("cam", "hunter2"));
            assert_eq!(p.mqtt.as_ref().unwrap().login.is_some(), lets_in, "{url}");
            assert!(!format!("{p:?}").contains("hunter2"));
        }
        let five = plan("", "version = 5").unwrap_err();
        assert!(five[0].starts_with("mqtt.version: "), "{five:?}");
    }

    #[test]
    fn models_look_at_the_cameras_they_name() {
        let text = "[[camera]]\nid='a'\n[[camera]]\nid='b'\n[[model]]\npath='x'\ncameras=['b']\n[[model]]\npath='y'\n";
        let p = plan(text).unwrap();
        assert_eq!(p.cameras[0].models, [1]);
        assert_eq!(p.cameras[1].models, [0, 1]);
    }

    #[test]
    fn all_problems_at_once_each_with_its_fix() {
        let text = "
            [device]
            id = 'front door'
            [engine]
            threads = 0
            [[camera]]
            id = 'porch'
            source = 'rtsp://x'
            [[camera]]
            id = 'yard'
            fps = -1.0
            size = [4, 4]
            privacy_masks = [[[0, 0], [0.5, 0], [0, 0.5]], [[0, 0], [320, 240], [0, 240]]]
            zone = [{ id = 'door', polygon = [[0, 0], [1, 1]] }]
            line = [{ id = 'door', from = [0, 0] }]
            motion = { threshold = 0, area = 1, hold_s = -1, at_least_every_s = 0, look_every_s = -1 }
            [[model]]
            id = 'm'
            [[model]]
            path = 'x'
            tasks = ['clasify']
            cameras = ['yrad']
        ";
        let problems = plan(text).unwrap_err().join("\n");
        for says in [
            "device.id: `front door` cannot be an id",
            "engine.threads: 0",
            "camera.0.source: `rtsp://x` is no camera source",
            "camera.1.fps: -1",
            "camera.1.size: 4×4",
            "camera.1.zone.0.polygon: 2 points",
            "camera.1.line.0.id: `door` is used twice",
            "camera.1.line.0.to: missing",
            "camera.1.motion.threshold: 0 is below",
            "camera.1.motion.area: 1 is not",
            "camera.1.motion.hold_s: -1",
            "camera.1.motion.at_least_every_s: 0",
            "camera.1.motion.look_every_s: -1",
            "camera.1.privacy_masks.1: [320, 240] is outside the picture",
            "model.0.path: missing",
            "model.1.tasks: ",
        ] {
            assert!(problems.contains(says), "no `{says}` in\n{problems}");
        }
        let problems =
            plan("[[camera]]\nid='yard'\n[[model]]\npath='x'\ncameras=['yrad']\n").unwrap_err();
        assert_eq!(
            problems,
            ["model.0.cameras: no camera has the id `yrad`; did you mean `yard`?"]
        );
        assert_eq!(plan("").unwrap_err().len(), 2);
    }

    #[test]
    fn the_default_device_id_is_valid_and_stable() {
        let mut problems = vec![];
        check_id("device.id", &default_device_id(), &mut problems);
        assert_eq!(problems, []);
        assert_eq!(default_device_id(), default_device_id());
    }
}
