//! The settings of a camera that can be changed while it runs: names, texts, limits. Pure.

use serde_json::{Map, Value};

use crate::controls::CameraSettings;

/// One setting; its name is the topic's level and the key in files and commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Setting {
    Inference,
    Enter,
    Leave,
    Threshold,
    MaxRate,
}

impl Setting {
    pub const ALL: [Self; 5] = [
        Self::Inference,
        Self::Enter,
        Self::Leave,
        Self::Threshold,
        Self::MaxRate,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Inference => "inference",
            Self::Enter => "enter",
            Self::Leave => "leave",
            Self::Threshold => "threshold",
            Self::MaxRate => "max_rate",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.name() == name)
    }

    /// The value, as it stands in files and answers. `configured` is the models' threshold.
    pub fn value(self, settings: &CameraSettings, configured: f32) -> Value {
        match self {
            Self::Inference => settings.inference.into(),
            Self::Enter => number(settings.smoothing.enter),
            Self::Leave => number(settings.smoothing.leave),
            Self::Threshold => number(settings.threshold.unwrap_or(configured)),
            Self::MaxRate => settings.max_rate.into(),
        }
    }

    /// The payload of `<cam>/<setting>/state`.
    pub fn text(self, settings: &CameraSettings, configured: f32) -> String {
        match self.value(settings, configured) {
            Value::Bool(true) => "ON".into(),
            Value::Bool(false) => "OFF".into(),
            other => other.to_string(),
        }
    }

    /// The payload of `<cam>/<setting>/set` as a value.
    pub fn parse(self, payload: &[u8]) -> Result<Value, String> {
        let text = std::str::from_utf8(payload)
            .map_err(|_| "not text".to_string())?
            .trim();
        match self {
            Self::Inference => match text.to_ascii_lowercase().as_str() {
                "on" | "true" | "1" => Ok(true.into()),
                "off" | "false" | "0" => Ok(false.into()),
                _ => Err("must be ON or OFF".into()),
            },
            _ => {
                let value: f64 = text.parse().map_err(|_| "must be a number".to_string())?;
                serde_json::Number::from_f64(value)
                    .map(Value::Number)
                    .ok_or_else(|| "must be a finite number".into())
            }
        }
    }

    fn put(self, settings: &mut CameraSettings, value: &Value) -> Result<(), String> {
        let share = || match value.as_f64() {
            Some(v) if (0.0..=1.0).contains(&v) => Ok(v as f32),
            _ => Err(format!("{}: must be a number from 0 to 1", self.name())),
        };
        match self {
            Self::Inference => {
                settings.inference = value
                    .as_bool()
                    .ok_or_else(|| "inference: must be true or false".to_string())?;
            }
            Self::Enter => settings.smoothing.enter = share()?,
            Self::Leave => settings.smoothing.leave = share()?,
            Self::Threshold => settings.threshold = Some(share()?),
            Self::MaxRate => match value.as_f64() {
                Some(rate) if rate == 0.0 || (0.001..=1000.0).contains(&rate) => {
                    settings.max_rate = rate;
                }
                _ => {
                    let fix =
                        "max_rate: must be 0 (no limit) or 0.001 to 1000 observations a second";
                    return Err(fix.into());
                }
            },
        }
        Ok(())
    }
}

/// All of `values`, or none of them.
pub(super) fn change(
    settings: &CameraSettings,
    values: &Map<String, Value>,
) -> Result<CameraSettings, String> {
    let mut changed = *settings;
    for (name, value) in values {
        let Some(setting) = Setting::named(name) else {
            let names: Vec<_> = Setting::ALL.iter().map(|s| s.name()).collect();
            let name = super::request::short(name);
            return Err(format!(
                "unknown setting `{name}`; there are {}",
                names.join(", ")
            ));
        };
        setting.put(&mut changed, value)?;
    }
    let (enter, leave) = (changed.smoothing.enter, changed.smoothing.leave);
    if leave > enter {
        return Err(format!(
            "leave ({}) must not be above enter ({}): the state would flap",
            number(leave),
            number(enter)
        ));
    }
    Ok(changed)
}

/// A share without the digits that `f32` adds: 0.6, not 0.6000000238418579.
fn number(value: f32) -> Value {
    ((f64::from(value) * 1e6).round() / 1e6).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_go_round() {
        let mut settings = CameraSettings::default();
        for (setting, text) in [
            (Setting::Inference, "OFF"),
            (Setting::Enter, "0.7"),
            (Setting::Leave, "0.25"),
            (Setting::Threshold, "0.1"),
            (Setting::MaxRate, "2.5"),
        ] {
            let value = setting.parse(text.as_bytes()).unwrap();
            let values = Map::from_iter([(setting.name().to_string(), value)]);
            settings = change(&settings, &values).unwrap();
            assert_eq!(setting.text(&settings, 0.0), text);
        }
    }

    #[test]
    fn what_cannot_be_changes_nothing_and_is_told() {
        let settings = CameraSettings::default();
        let refused = |json: &str| {
            let values: Map<String, Value> = serde_json::from_str(json).unwrap();
            change(&settings, &values).unwrap_err()
        };
        assert!(refused(r#"{"enter":1.1}"#).contains("from 0 to 1"));
        assert!(refused(r#"{"enter":"0.5"}"#).contains("from 0 to 1"));
        assert!(refused(r#"{"leave":0.9}"#).contains("above enter"));
        assert!(refused(r#"{"inference":1}"#).contains("true or false"));
        assert!(refused(r#"{"max_rate":-1}"#).contains("max_rate"));
        assert!(refused(r#"{"max_rate":1e-300}"#).contains("max_rate"));
        assert!(refused(r#"{"brightness":1}"#).contains("unknown setting `brightness`"));
        for text in ["", "NaN", "inf", "1e999", "0,5", "\u{fffd}"] {
            assert!(Setting::Enter.parse(text.as_bytes()).is_err(), "{text}");
        }
        assert!(Setting::Inference.parse(b"\xff").is_err());
    }
}
