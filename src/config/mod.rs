//! TOML → [`Config`] (what was written) → [`Plan`] (what will run).
//!
//! In: the text of one file, or command-line flags. Out: a plan that can be started, or every problem at once.
//! On the main thread, before anything starts. Every key is described in `docs/configuration.md`.

mod cascades;
pub mod plan;

use std::path::PathBuf;

use serde::Deserialize;

pub use crate::toml_read::Problem;
pub use plan::{BrokerPlan, CameraPlan, ModelPlan, Plan};

use crate::frame::PixelFormat;
use crate::motion::MotionSettings;
use crate::observe::SmoothingSettings;
use crate::observe::crops::CropSettings;
use crate::observe::track::TrackSettings;
use crate::observe::zones::{LineSettings, ZoneSettings};
use crate::publish::mqtt::{DiscoverySettings, MqttSettings};
use crate::publish::spool::SpoolSettings;
use crate::task::{ClassifySettings, DetectSettings, EmbedSettings, SegmentSettings};

/// The configuration file, as written.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// `[device]`
    pub device: DeviceConfig,
    /// `[[camera]]`
    pub camera: Vec<CameraConfig>,
    /// `[[model]]`
    pub model: Vec<ModelConfig>,
    /// `[engine]`
    pub engine: EngineConfig,
    /// `[smoothing]`
    pub smoothing: SmoothingSettings,
    /// `[tracking]`
    pub tracking: TrackSettings,
    /// `[mqtt]`
    pub mqtt: Option<MqttSettings>,
    /// `[discovery]`
    pub discovery: DiscoverySettings,
    /// `[privacy]`
    pub privacy: PrivacyConfig,
    /// `[snapshot]`
    pub snapshot: SnapshotSettings,
    /// `[spool]`
    pub spool: Option<SpoolSettings>,
    /// `[broker]`
    pub broker: Option<BrokerConfig>,
    /// `[output]`
    pub output: OutputConfig,
}

/// `[device]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DeviceConfig {
    /// The device's id in topics; derived from the machine id if absent.
    pub id: Option<String>,
    /// Where what is kept over a restart lies; systemd's or the user's state directory if absent.
    pub state_dir: Option<PathBuf>,
}

/// `[[camera]]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CameraConfig {
    /// The camera's id in topics.
    pub id: Option<String>,
    /// `v4l2:[DEVICE]`, `exec:COMMAND`, `files:PATH`, `scene:[SEED]`, `nokhwa:INDEX`.
    pub source: Option<String>,
    /// Width and height in pixels.
    pub size: Option<(u32, u32)>,
    /// Frames a second.
    pub fps: Option<f64>,
    /// Pixel format.
    pub format: Option<PixelFormat>,
    /// A device silent for so long is reopened.
    pub timeout_ms: Option<u64>,
    /// Files: play for ever.
    pub repeat: bool,
    /// Polygons that nobody may see: points `[x, y]`, 0 to 1 of the picture.
    pub privacy_masks: Vec<Vec<[f64; 2]>>,
    /// `[camera.motion]`: frames are inferred only if something moved.
    pub motion: Option<MotionSettings>,
    /// `[[camera.zone]]`
    pub zone: Vec<ZoneSettings>,
    /// `[[camera.line]]`
    pub line: Vec<LineSettings>,
}

/// `[[model]]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelConfig {
    /// The model's id in messages; the path's last part if absent.
    pub id: Option<String>,
    /// A bundle's directory or a bare `.onnx`.
    pub path: Option<PathBuf>,
    /// Labels for a bare `.onnx`, one a line.
    pub labels: Option<PathBuf>,
    /// `classify`, `embed`, `detect`, `segment`.
    pub tasks: Vec<String>,
    /// The cameras that it looks at; all if empty.
    pub cameras: Vec<String>,
    /// When the golden input is computed: `start`, `check` or `off`.
    pub self_test: SelfTestWhen,
    /// `[model.classify]`
    pub classify: ClassifySettings,
    /// `[model.embed]`
    pub embed: EmbedSettings,
    /// `[model.detect]`
    pub detect: DetectSettings,
    /// `[model.segment]`
    pub segment: SegmentSettings,
    /// `[model.crops]`: it looks at the crops of what another model finds, not at frames.
    pub crops: Option<CropSettings>,
}

/// When a model proves on its golden input that this machine computes what the training machine did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SelfTestWhen {
    /// At every start.
    #[default]
    Start,
    /// Only by `ocellus check`.
    Check,
    /// Never.
    Off,
}

/// `[engine]`
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EngineConfig {
    /// Threads that compute one inference together.
    pub threads: usize,
    /// Inferences at a time.
    pub workers: usize,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            threads: 1,
            workers: 1,
        }
    }
}

/// `[privacy]`
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PrivacyConfig {
    /// Whether pictures may leave the device, on request.
    pub images: bool,
}

impl Default for PrivacyConfig {
    fn default() -> Self {
        Self { images: true }
    }
}

/// `[snapshot]`: pictures on request.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SnapshotSettings {
    /// JPEG quality, 1 to 95: the default of a request, and its limit.
    pub quality: u8,
    /// Longer sides are scaled down to this, in pixels: the default of a request, and its limit.
    pub max_side_px: u32,
    /// Whether the broker keeps the last one.
    pub retain: bool,
}

impl Default for SnapshotSettings {
    fn default() -> Self {
        Self {
            quality: 80,
            max_side_px: 1280,
            retain: false,
        }
    }
}

impl SnapshotSettings {
    /// Values that can never work: key and message.
    pub fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        if !(1..=95).contains(&self.quality) {
            let message = format!("{} is not between 1 and 95", self.quality);
            problems.push(("quality", message));
        }
        if !(16..=4096).contains(&self.max_side_px) {
            let message = format!("{} is not between 16 and 4096 pixels", self.max_side_px);
            problems.push(("max_side_px", message));
        }
        problems
    }
}

/// `[broker]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BrokerConfig {
    /// Where the embedded broker listens; `127.0.0.1:1883` if absent.
    pub listen: Option<std::net::SocketAddr>,
    /// The one user that may connect; everybody if absent. Its password comes from the environment
    /// (`OCELLUS_BROKER_PASSWORD`), from `password_file` or from the systemd credential `broker-password`.
    pub username: Option<String>,
    /// A file that holds the password.
    pub password_file: Option<PathBuf>,
}

/// `[output]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OutputConfig {
    /// Every observation as a line of JSON on standard output.
    pub jsonl: bool,
}

impl Config {
    /// Reads a file's text; keys that offend are left out and named.
    pub fn parse(text: &str) -> (Self, Vec<Problem>) {
        crate::toml_read::read(text)
    }
}

#[cfg(test)]
mod tests {
    use serde::de::DeserializeOwned;

    use super::*;

    /// The keys that serde names when it meets one that it does not know.
    fn keys<T: DeserializeOwned + std::fmt::Debug>() -> Vec<String> {
        let error = toml::from_str::<T>("no-such-key = 0").unwrap_err();
        let (_, expected) = error.message().split_once("expected ").unwrap();
        expected
            .split('`')
            .skip(1)
            .step_by(2)
            .map(Into::into)
            .collect()
    }

    #[test]
    fn every_key_is_in_the_documentation() {
        let text = include_str!("../../docs/configuration.md");
        let section = |heading: &str| {
            let (_, behind) = text
                .split_once(&format!("# `{heading}`\n"))
                .unwrap_or_else(|| panic!("no {heading}"));
            behind.split("\n#").next().unwrap()
        };
        for (heading, keys) in [
            ("[device]", keys::<DeviceConfig>()),
            ("[[camera]]", keys::<CameraConfig>()),
            ("[camera.motion]", keys::<MotionSettings>()),
            ("[[camera.zone]]", keys::<ZoneSettings>()),
            ("[[camera.line]]", keys::<LineSettings>()),
            ("[tracking]", keys::<TrackSettings>()),
            ("[[model]]", keys::<ModelConfig>()),
            ("[model.classify]", keys::<ClassifySettings>()),
            ("[model.embed]", keys::<EmbedSettings>()),
            ("[model.detect]", keys::<DetectSettings>()),
            ("[model.segment]", keys::<SegmentSettings>()),
            ("[model.crops]", keys::<CropSettings>()),
            ("[engine]", keys::<EngineConfig>()),
            ("[smoothing]", keys::<SmoothingSettings>()),
            ("[mqtt]", keys::<MqttSettings>()),
            ("[discovery]", keys::<DiscoverySettings>()),
            ("[privacy]", keys::<PrivacyConfig>()),
            ("[snapshot]", keys::<SnapshotSettings>()),
            ("[spool]", keys::<SpoolSettings>()),
            ("[broker]", keys::<BrokerConfig>()),
            ("[output]", keys::<OutputConfig>()),
        ] {
            assert!(!keys.is_empty());
            let sections = [
                "classify", "embed", "motion", "zone", "line", "detect", "segment", "crops",
            ];
            for key in keys.iter().filter(|k| !sections.contains(&k.as_str())) {
                assert!(
                    section(heading).contains(&format!("| `{key}` |")),
                    "{heading} {key}"
                );
            }
        }
        for key in keys::<Config>() {
            assert!(
                text.contains(&format!("# `[{key}]`")) || text.contains(&format!("# `[[{key}]]`")),
                "{key}"
            );
        }
    }

    #[test]
    fn the_documentations_first_file_is_valid() {
        let text = include_str!("../../docs/configuration.md");
        let example = text
            .split("```toml\n")
            .nth(1)
            .and_then(|t| t.split("```").next())
            .unwrap();
        let (config, problems) = Config::parse(example);
        assert_eq!(problems, []);
        assert!(Plan::new(config, std::path::Path::new("")).is_ok());
    }
}
