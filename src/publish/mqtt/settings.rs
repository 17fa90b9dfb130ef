//! How to reach the broker and what to send: `[mqtt]` of the configuration.
//!
//! Always holds: a password is never in a setting, a log, an error or a `Debug`.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::link::{ACK_LIMIT, LinkOptions};
use super::topic::valid_prefix;
use crate::publish::valid_id;

/// The environment variable that holds the password.
pub const PASSWORD_ENV: &str = "OCELLUS_MQTT_PASSWORD";

/// `[mqtt]`: the broker and what is sent to it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MqttSettings {
    /// `mqtt://host` or `mqtt://host:port`; the port is 1883 if it is not said.
    pub url: String,
    /// First part of every topic.
    pub prefix: String,
    /// Client id; `ocellus-<device>` if it is not said. No two clients of a broker may share one.
    pub client_id: Option<String>,
    /// User name. Its password comes from the environment (`OCELLUS_MQTT_PASSWORD`) or from `password_file`.
    pub username: Option<String>,
    /// A file that holds the password.
    pub password_file: Option<PathBuf>,
    /// QoS of observations: 0 or 1.
    pub qos: u8,
    /// Seconds between signs of life; a silent broker is given up after twice as long.
    pub keep_alive_s: u16,
    /// How many observations wait for the broker at most.
    pub queue: usize,
    /// Observations a second and camera at most; 0: no limit. State and events are not limited.
    pub max_rate: f64,
    /// Seconds after which `state` is sent again without a change.
    pub heartbeat_s: f64,
    /// Seconds between messages on `health`.
    pub health_s: f64,
    /// Whether embeddings are sent.
    pub embeddings: bool,
}

impl Default for MqttSettings {
    fn default() -> Self {
        Self {
            url: "mqtt://127.0.0.1:1883".into(),
            prefix: "ocellus".into(),
            client_id: None,
            username: None,
            password_file: None,
            qos: 0,
            keep_alive_s: 30,
            queue: 256,
            max_rate: 10.0,
            heartbeat_s: 10.0,
            health_s: 30.0,
            embeddings: true,
        }
    }
}

/// A setting that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("mqtt.{key}: {message}")]
pub struct SettingsProblem {
    /// The key in `[mqtt]`.
    pub key: &'static str,
    /// What is wrong and what would be right.
    pub message: String,
}

/// A secret, that no `Debug` shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    pub(super) fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Password(…)")
    }
}

/// Why the MQTT client cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum MqttError {
    /// Settings that cannot be.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Settings(Vec<SettingsProblem>),
}

impl MqttSettings {
    /// Everything that is wrong with these settings; empty if they can work.
    pub fn problems(&self) -> Vec<SettingsProblem> {
        let mut problems = Vec::new();
        let mut check = |ok: bool, key, message: &str| {
            if !ok {
                let message = message.into();
                problems.push(SettingsProblem { key, message });
            }
        };
        if let Err(message) = parse_url(&self.url) {
            check(false, "url", message);
        }
        check(
            valid_prefix(&self.prefix),
            "prefix",
            "must be levels of [a-zA-Z0-9_-] joined by `/`, such as `ocellus`",
        );
        let id_ok = self
            .client_id
            .as_ref()
            .is_none_or(|id| !id.is_empty() && id.len() <= 256 && !id.contains(char::is_control));
        check(id_ok, "client_id", "must have 1 to 256 printable bytes");
        check(
            self.username.as_ref().is_none_or(|u| !u.is_empty()),
            "username",
            "must not be empty: leave the key out for no user",
        );
        check(
            self.password_file.is_none() || self.username.is_some(),
            "password_file",
            "needs a `username`: MQTT 3.1.1 has no password without one",
        );
        check(self.qos <= 1, "qos", "must be 0 or 1");
        check(
            (1..=3600).contains(&self.keep_alive_s),
            "keep_alive_s",
            "must be 1 to 3600 seconds",
        );
        check(
            (1..=100_000).contains(&self.queue),
            "queue",
            "must be 1 to 100000 observations",
        );
        check(
            (0.0..=1000.0).contains(&self.max_rate),
            "max_rate",
            "must be 0 (no limit) to 1000 observations a second",
        );
        let period = 0.1..=86_400.0;
        check(
            period.contains(&self.heartbeat_s),
            "heartbeat_s",
            "must be 0.1 to 86400 seconds",
        );
        check(
            period.contains(&self.health_s),
            "health_s",
            "must be 0.1 to 86400 seconds",
        );
        if let Err(problem) = self.password() {
            problems.push(problem);
        }
        problems
    }

    /// The broker's host (an IPv6 address in brackets) and port.
    pub fn address(&self) -> Result<(String, u16), SettingsProblem> {
        parse_url(&self.url).map_err(|message| SettingsProblem {
            key: "url",
            message: message.into(),
        })
    }

    /// The password, from the environment or the file.
    pub fn password(&self) -> Result<Option<Password>, SettingsProblem> {
        if self.username.is_none() {
            return Ok(None);
        }
        if let Ok(password) = std::env::var(PASSWORD_ENV) {
            return Ok(Some(Password(password)));
        }
        let Some(path) = &self.password_file else {
            return Ok(None);
        };
        let text = std::fs::read_to_string(path).map_err(|e| SettingsProblem {
            key: "password_file",
            message: format!("cannot read {}: {e}", path.display()),
        })?;
        Ok(Some(Password(text.trim_end_matches(['\r', '\n']).into())))
    }

    /// How the link reaches the broker. `suffix` is added to the client id: a second client of the same device needs one.
    pub(super) fn link(&self, device: &str, suffix: &str) -> Result<LinkOptions, MqttError> {
        let mut problems = self.problems();
        problems.extend(device_problem(device));
        if !problems.is_empty() {
            return Err(MqttError::Settings(problems));
        }
        let one = |p| MqttError::Settings(vec![p]);
        let (host, port) = self.address().map_err(one)?;
        let password = self.password().map_err(one)?;
        let password = password.unwrap_or_else(|| Password(String::new()));
        Ok(LinkOptions {
            host,
            port,
            client_id: self.client_id(device) + suffix,
            keep_alive: Duration::from_secs(self.keep_alive_s.into()),
            credentials: self.username.clone().map(|user| (user, password)),
            will: None,
            ack_limit: ACK_LIMIT,
        })
    }

    /// The client id in use.
    pub fn client_id(&self, device: &str) -> String {
        self.client_id
            .clone()
            .unwrap_or_else(|| format!("ocellus-{device}"))
    }

    pub(super) fn heartbeat(&self) -> Duration {
        Duration::from_secs_f64(self.heartbeat_s)
    }

    pub(super) fn health(&self) -> Duration {
        Duration::from_secs_f64(self.health_s)
    }
}

/// Host and port of `mqtt://host[:port]`. The messages never repeat the URL: somebody may have put a password in.
fn parse_url(url: &str) -> Result<(String, u16), &'static str> {
    let rest = match url.split_once("://") {
        Some(("mqtt", rest)) => rest,
        Some(("mqtts", _)) => return Err("TLS (mqtts://) is not there yet; use mqtt://"),
        _ => return Err("must be mqtt://host or mqtt://host:port"),
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.contains('@') {
        return Err(
            "must not hold a user or password: use `username` and OCELLUS_MQTT_PASSWORD or `password_file`",
        );
    }
    let (host, port) = match rest.rsplit_once(':') {
        // The colons of [::1] are not the port's.
        Some((host, port)) if !port.ends_with(']') => {
            let port = port.parse().ok().filter(|p| *p > 0);
            (host, port.ok_or("has a port that is not 1 to 65535")?)
        }
        _ => (rest, 1883),
    };
    let v6 = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    let host_ok = match v6 {
        Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            let name = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
            !host.is_empty() && host.bytes().all(name)
        }
    };
    if !host_ok {
        return Err("has a host that is neither a name nor an address (IPv6 goes in brackets)");
    }
    Ok((host.into(), port))
}

/// Checks a device's id.
fn device_problem(device: &str) -> Option<SettingsProblem> {
    (!valid_id(device)).then(|| SettingsProblem {
        key: "device",
        message: format!("device id `{device}` must be made of [a-zA-Z0-9_-]"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let ok = |url| parse_url(url).unwrap();
        assert_eq!(ok("mqtt://broker.lan"), ("broker.lan".into(), 1883));
        assert_eq!(ok("mqtt://10.0.0.2:1884/"), ("10.0.0.2".into(), 1884));
        assert_eq!(ok("mqtt://[::1]:1884"), ("[::1]".into(), 1884));
        assert_eq!(ok("mqtt://[fe80::1]"), ("[fe80::1]".into(), 1883));
        for bad in [
            "",
            "broker",
            "http://b",
            "mqtts://b",
            "mqtt://",
            "mqtt://b:0",
            "mqtt://b:99999",
            "mqtt://b:x",
            "mqtt://b/topic",
            "mqtt://[::1",
            "mqtt://::1:1883",
            "mqtt://a b",
        ] {
            assert!(parse_url(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn all_problems_at_once_and_no_secret_in_them() {
        let settings: MqttSettings = serde_json::from_value(serde_json::json!({
            "url": "mqtt://me:hunter2@broker", "prefix": "a//b", "qos": 2, "queue": 0,
            "max_rate": -1.0, "keep_alive_s": 0, "heartbeat_s": 0.0, "health_s": 1e9,
            "client_id": "", "username": "", "password_file": "/nowhere/at/all",
        }))
        .unwrap();
        let problems = settings.problems();
        let keys: Vec<_> = problems.iter().map(|p| p.key).collect();
        for key in [
            "url",
            "prefix",
            "qos",
            "queue",
            "max_rate",
            "keep_alive_s",
            "heartbeat_s",
            "health_s",
            "client_id",
            "username",
            "password_file",
        ] {
            assert!(keys.contains(&key), "{key} in {keys:?}");
        }
        assert!(!format!("{problems:?}").contains("hunter2"));
        assert!(MqttSettings::default().problems().is_empty());
        let unknown = serde_json::from_str::<MqttSettings>(r#"{"password":"x"}"#);
        assert!(unknown.unwrap_err().to_string().contains("password"));
        assert!(!format!("{:?}", Password("hunter2".into())).contains("hunter2"));
    }
}
