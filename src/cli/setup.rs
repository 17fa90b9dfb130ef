//! What several commands need: a configuration from a file and flags, and its models.

use std::path::{Path, PathBuf};

use anyhow::Context;

use super::ConfigError;
use crate::config::{CameraConfig, Config, ModelConfig, Plan, Problem};
use crate::model::{LoadOptions, Model, store};
use crate::publish::mqtt::MqttSettings;
use crate::task::TaskKind;
use crate::task::detect::Family;

/// The file that is read when none is named.
const DEFAULT_CONFIG: &str = "/etc/ocellus/ocellus.toml";

/// What a command classifies with if no model is named.
pub(super) const CLASSIFIER: &str = "scene-resnet10-int8";

/// Flags that make, or change, a configuration.
#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct ConfigArgs {
    /// The configuration file (default: /etc/ocellus/ocellus.toml, if it is there)
    #[arg(short, long, value_name = "FILE", env = "OCELLUS_CONFIG")]
    pub config: Option<PathBuf>,
    /// A camera instead of the file's: v4l2:[DEVICE], exec:COMMAND, files:PATH, scene:[SEED], nokhwa:INDEX;
    /// may be repeated
    #[arg(long, value_name = "SOURCE")]
    pub camera: Vec<String>,
    /// A model instead of the file's: a bundle's directory, an .onnx file, or the name of a pulled model
    #[arg(long, value_name = "PATH")]
    pub model: Option<PathBuf>,
    /// Labels of a bare .onnx file, one a line
    #[arg(long, value_name = "FILE", requires = "model")]
    pub labels: Option<PathBuf>,
    /// The broker to publish to: mqtt://HOST[:PORT]
    #[arg(long, value_name = "URL")]
    pub mqtt: Option<String>,
    /// The device's id in topics
    #[arg(long, value_name = "ID")]
    pub device_id: Option<String>,
    /// Frames a second that the cameras given by --camera are asked for
    #[arg(long, value_name = "N", requires = "camera")]
    pub fps: Option<f64>,
    /// Size that the cameras given by --camera are asked for
    #[arg(long, value_name = "WxH", value_parser = parse_size, requires = "camera")]
    pub size: Option<(u32, u32)>,
}

fn parse_size(s: &str) -> Result<(u32, u32), String> {
    let parts = s.split_once(['x', 'X', '×']);
    parts
        .and_then(|(w, h)| Some((w.parse().ok()?, h.parse().ok()?)))
        .ok_or_else(|| format!("`{s}` is no size; write it as 1280x720"))
}

/// The configuration as a plan; every problem in one error.
pub(super) fn plan(args: &ConfigArgs) -> anyhow::Result<Plan> {
    let (config, source, mut problems) = read(args)?;
    let base = source.parent().unwrap_or(Path::new("")).to_path_buf();
    match Plan::new(config, &base) {
        Ok(plan) if problems.is_empty() => return Ok(plan),
        Ok(_) => {}
        Err(more) => problems.extend(more),
    }
    Err(refusal(&source, &problems).into())
}

/// All problems as one message: the file first, then a line each.
fn refusal(source: &Path, problems: &[Problem]) -> ConfigError {
    let name = if source.as_os_str().is_empty() {
        "the command line".into()
    } else {
        source.display().to_string()
    };
    let lines: Vec<String> = problems.iter().map(|p| format!("  {p}")).collect();
    ConfigError(format!(
        "the configuration is not valid ({name}):\n{}",
        lines.join("\n")
    ))
}

/// What was written: the file, then the flags over it. An empty path means that there is no file.
fn read(args: &ConfigArgs) -> anyhow::Result<(Config, PathBuf, Vec<Problem>)> {
    let default = Path::new(DEFAULT_CONFIG);
    let file = args
        .config
        .clone()
        .or_else(|| default.exists().then(|| default.to_path_buf()));
    let (mut config, problems) = match &file {
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(|e| {
                ConfigError(format!(
                    "cannot read the configuration {}: {e}",
                    path.display()
                ))
            })?;
            Config::parse(&text)
        }
        None => Default::default(),
    };
    let here = std::env::current_dir().context("cannot tell the current directory")?;
    if !args.camera.is_empty() {
        let camera = |source: &String| CameraConfig {
            source: Some(source.clone()),
            fps: args.fps,
            size: args.size,
            ..CameraConfig::default()
        };
        config.camera = args.camera.iter().map(camera).collect();
        config.model.iter_mut().for_each(|m| m.cameras.clear());
    } else if file.is_none() {
        config.camera = vec![CameraConfig::default()];
    }
    if let Some(path) = &args.model {
        // Flags are relative to where the person stands, not to the file.
        let labels = args.labels.as_ref().map(|l| here.join(l));
        config.model = vec![ModelConfig {
            path: Some(here.join(store::find(path))),
            labels,
            ..ModelConfig::default()
        }];
    }
    if let Some(url) = &args.mqtt {
        config.mqtt = Some(MqttSettings {
            url: url.clone(),
            ..config.mqtt.unwrap_or_default()
        });
    }
    if let Some(id) = &args.device_id {
        config.device.id = Some(id.clone());
    }
    Ok((config, file.unwrap_or_default(), problems))
}

/// The model of a command that needs nothing else.
#[derive(Debug, clap::Args)]
pub(super) struct ModelArgs {
    /// A bundle's directory, an .onnx file, or the name of a pulled model (default: the model that ships)
    #[arg(short, long, value_name = "PATH")]
    pub model: Option<PathBuf>,
    /// Labels of a bare .onnx file, one a line
    #[arg(long, value_name = "FILE", requires = "model")]
    pub labels: Option<PathBuf>,
    /// Threads that compute one inference together
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub threads: usize,
}

/// Loads it.
pub(super) fn single_model(
    args: &ModelArgs,
    tasks: &[TaskKind],
    family: Option<Family>,
) -> anyhow::Result<Model> {
    let path = match &args.model {
        Some(path) => store::find(path),
        None => shipped_model(CLASSIFIER)?,
    };
    let options = LoadOptions {
        labels: args.labels.clone(),
        tasks: tasks.to_vec(),
        family,
        threads: args.threads,
        ..LoadOptions::default()
    };
    let model = Model::load(&path, &options)?;
    for note in &model.info().notes {
        tracing::info!("{note}");
    }
    Ok(model)
}

/// Loads the model for a command that the model that ships is none for. `what` it is to be is said if it is missing.
pub(super) fn named_model(
    args: &ModelArgs,
    what: &str,
    task: TaskKind,
    family: Option<Family>,
) -> anyhow::Result<Model> {
    if args.model.is_none() {
        return Err(ConfigError(format!(
            "which {what}? give --model: a bundle's directory, an .onnx file, or the name of a pulled model"
        ))
        .into());
    }
    single_model(args, &[task], family)
}

/// The first problem of settings that flags have set, by the flag's name.
pub(super) fn check_flags(problems: Vec<(&'static str, String)>) -> Result<(), ConfigError> {
    match problems.into_iter().next() {
        None => Ok(()),
        Some((key, problem)) => {
            let flag = key.rsplit('.').next().unwrap_or(key).replace('_', "-");
            Err(ConfigError(format!("--{flag}: {problem}")))
        }
    }
}

/// A model that ships: beside the sources, or where a package puts it.
pub(super) fn shipped_model(name: &str) -> anyhow::Result<PathBuf> {
    let places = store::directories();
    let found = places.iter().map(|p| p.join(name)).find(|p| p.is_dir());
    found.ok_or_else(|| {
        let places: Vec<String> = places.iter().map(|p| p.display().to_string()).collect();
        ConfigError(format!(
            "the model {name} is in none of {}; give --model",
            places.join(", ")
        ))
        .into()
    })
}
