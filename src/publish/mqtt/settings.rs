//! How to reach the broker and what to send: `[mqtt]` of the configuration.
//!
//! Always holds: a secret is never in a setting, a log, an error or a `Debug`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::address::Address;
use super::link::{ACK_LIMIT, LISTEN_AGAIN, LinkOptions, Tls, TlsSettings, Version};
use super::topic::valid_prefix;
use crate::publish::valid_id;
use crate::secret::{Login, Secret, is_open_to_all};

/// The environment variable that holds the password.
pub const PASSWORD_ENV: &str = "OCELLUS_MQTT_PASSWORD";
/// The environment variable that holds the PEM text of the client certificate's key.
pub const KEY_ENV: &str = "OCELLUS_MQTT_KEY";
/// The systemd credentials of the same.
const PASSWORD_CREDENTIAL: &str = "mqtt-password";
const KEY_CREDENTIAL: &str = "mqtt-key";

/// `[mqtt]`: the broker and what is sent to it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MqttSettings {
    /// `mqtt://host[:port]`, or `mqtts://host[:port]` for TLS; the port is 1883 or 8883 if it is not said.
    pub url: String,
    /// 3 (MQTT 3.1.1) or 5.
    pub version: u8,
    /// First part of every topic.
    pub prefix: String,
    /// Client id; `ocellus-<device>` if it is not said. No two clients of a broker may share one.
    pub client_id: Option<String>,
    /// User name. Its password comes from the environment (`OCELLUS_MQTT_PASSWORD`), from `password_file` or from the systemd
    /// credential `mqtt-password`.
    pub username: Option<String>,
    /// A file that holds the password.
    pub password_file: Option<PathBuf>,
    /// Whether a password may go unencrypted over a network that is not this house's.
    pub allow_plaintext_password: bool,
    /// PEM file of the authorities that the broker's certificate may be signed by; the system's if it is not said.
    pub ca_file: Option<PathBuf>,
    /// PEM file of this client's certificate. Its key comes from the environment (`OCELLUS_MQTT_KEY`), from `key_file` or from the
    /// systemd credential `mqtt-key`.
    pub cert_file: Option<PathBuf>,
    /// PEM file of the client certificate's key.
    pub key_file: Option<PathBuf>,
    /// The name that must be in the broker's certificate, if not that in `url`.
    pub server_name: Option<String>,
    /// MQTT 5: seconds that the broker keeps subscriptions, and messages for them, while this client is away.
    pub session_expiry_s: u32,
    /// MQTT 5: seconds after which the broker forgets an observation that it could not deliver; 0: never.
    pub observation_expiry_s: u32,
    /// QoS of observations: 0 or 1.
    pub qos: u8,
    /// Seconds between signs of life; a silent broker is given up after twice as long.
    pub keep_alive_s: u16,
    /// Longest wait between attempts to reach the broker, in seconds.
    pub reconnect_max_s: f64,
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
    /// Given by the program, not by the file; goes before `username` and its password.
    #[serde(skip)]
    pub login: Option<Login>,
    /// Whether commands and settings are taken from the broker.
    pub commands: bool,
    /// Whether settings that came by `…/set` hold over a restart.
    pub persist_settings: bool,
}

impl Default for MqttSettings {
    fn default() -> Self {
        Self {
            url: "mqtt://127.0.0.1:1883".into(),
            version: 3,
            prefix: "ocellus".into(),
            client_id: None,
            username: None,
            password_file: None,
            allow_plaintext_password: false,
            ca_file: None,
            cert_file: None,
            key_file: None,
            server_name: None,
            session_expiry_s: 0,
            observation_expiry_s: 86_400,
            qos: 0,
            keep_alive_s: 30,
            reconnect_max_s: 30.0,
            queue: 256,
            max_rate: 10.0,
            heartbeat_s: 10.0,
            health_s: 30.0,
            embeddings: true,
            login: None,
            commands: true,
            persist_settings: false,
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
        let address = Address::parse(&self.url);
        if let Err(message) = address {
            check(false, "url", message);
        }
        check(
            [3, 5].contains(&self.version),
            "version",
            "must be 3 (MQTT 3.1.1) or 5",
        );
        check(
            self.version == 5 || self.session_expiry_s == 0,
            "session_expiry_s",
            "needs `version = 5`",
        );
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
            (1..=3600).contains(&self.keep_alive_s)
                && (self.version != 5 || self.keep_alive_s >= 5),
            "keep_alive_s",
            "must be 1 to 3600 seconds, with MQTT 5 at least 5",
        );
        check(
            (0.1..=3600.0).contains(&self.reconnect_max_s),
            "reconnect_max_s",
            "must be 0.1 to 3600 seconds",
        );
        check(
            (1..=100_000).contains(&self.queue),
            "queue",
            "must be 1 to 100000 observations",
        );
        check(
            self.max_rate == 0.0 || (0.001..=1000.0).contains(&self.max_rate),
            "max_rate",
            "must be 0 (no limit) or 0.001 to 1000 observations a second",
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
        let login = self.login().map_err(|p| problems.push(p)).ok().flatten();
        if let Ok(address) = address {
            if !address.tls {
                for (key, set) in [
                    ("ca_file", self.ca_file.is_some()),
                    ("cert_file", self.cert_file.is_some()),
                    ("key_file", self.key_file.is_some()),
                    ("server_name", self.server_name.is_some()),
                ] {
                    if set {
                        let message = "means nothing without TLS: use mqtts:// in `url`".into();
                        problems.push(SettingsProblem { key, message });
                    }
                }
                if login.is_some() && !address.is_local() && !self.allow_plaintext_password {
                    let host = &address.host;
                    let message = format!(
                        "the password would go to {host} unencrypted, readable on the way: use mqtts://, or, if you must, set `allow_plaintext_password = true`"
                    );
                    problems.push(SettingsProblem {
                        key: "url",
                        message,
                    });
                }
            } else if let Err(problem) = self.tls() {
                problems.push(problem);
            }
        }
        problems
    }

    /// What works and is not as safe as it should be.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if let Ok(a) = Address::parse(&self.url)
            && !a.tls
            && !a.is_local()
        {
            let what = match self.login() {
                Ok(Some(_)) => "the password and everything that is published go",
                _ => "everything that is published goes",
            };
            warnings.push(format!(
                "mqtt.url: {what} to {} unencrypted, readable and changeable on the way: use mqtts://",
                a.host
            ));
        }
        for (key, file) in [
            ("password_file", &self.password_file),
            ("key_file", &self.key_file),
        ] {
            if let Some(path) = file.as_ref().filter(|p| is_open_to_all(p)) {
                let path = path.display();
                warnings.push(format!(
                    "mqtt.{key}: every user of this machine can read {path}: chmod 600 {path}"
                ));
            }
        }
        warnings
    }

    /// Takes relative paths from `base`.
    pub fn resolve(&mut self, base: &Path) {
        let paths = [
            &mut self.password_file,
            &mut self.ca_file,
            &mut self.cert_file,
            &mut self.key_file,
        ];
        for path in paths.into_iter().flatten() {
            *path = base.join(&*path);
        }
    }

    fn tls(&self) -> Result<Tls, SettingsProblem> {
        let problem = |key, message| SettingsProblem { key, message };
        let key = Secret::find(KEY_ENV, self.key_file.as_deref(), KEY_CREDENTIAL)
            .map_err(|e| problem("key_file", e))?;
        // A key in the environment or from systemd may be there for another program.
        let key = key.filter(|_| self.cert_file.is_some() || self.key_file.is_some());
        Tls::new(&TlsSettings {
            ca_file: self.ca_file.as_deref(),
            cert_file: self.cert_file.as_deref(),
            key: key.as_ref(),
            server_name: self.server_name.as_deref(),
        })
        .map_err(|(key, message)| problem(key, message))
    }

    /// The broker's host (an IPv6 address in brackets) and port.
    pub fn address(&self) -> Result<(String, u16), SettingsProblem> {
        self.parsed().map(|a| (a.host, a.port))
    }

    fn parsed(&self) -> Result<Address, SettingsProblem> {
        Address::parse(&self.url).map_err(|message| SettingsProblem {
            key: "url",
            message: message.into(),
        })
    }

    /// Who this client says that it is.
    fn login(&self) -> Result<Option<Login>, SettingsProblem> {
        if self.login.is_some() {
            return Ok(self.login.clone());
        }
        let Some(user) = &self.username else {
            return Ok(None);
        };
        let file = self.password_file.as_deref();
        let password =
            Secret::find(PASSWORD_ENV, file, PASSWORD_CREDENTIAL).map_err(|message| {
                SettingsProblem {
                    key: "password_file",
                    message,
                }
            })?;
        Ok(Some(Login {
            user: user.clone(),
            password: password.unwrap_or_else(|| String::new().into()),
        }))
    }

    /// How the link reaches the broker. `suffix` is added to the client id: a second client of the same device needs one.
    pub(super) fn link(&self, device: &str, suffix: &str) -> Result<LinkOptions, MqttError> {
        let mut problems = self.problems();
        problems.extend(device_problem(device));
        if !problems.is_empty() {
            return Err(MqttError::Settings(problems));
        }
        let one = |p| MqttError::Settings(vec![p]);
        let address = self.parsed().map_err(one)?;
        let tls = match address.tls {
            true => Some(self.tls().map_err(one)?),
            false => None,
        };
        Ok(LinkOptions {
            host: address.host,
            port: address.port,
            client_id: self.client_id(device) + suffix,
            keep_alive: Duration::from_secs(self.keep_alive_s.into()),
            version: match self.version {
                5 => Version::V5,
                _ => Version::V3,
            },
            session_expiry: Duration::from_secs(self.session_expiry_s.into()),
            tls,
            login: self.login().map_err(one)?,
            will: None,
            ack_limit: ACK_LIMIT,
            listen_again: LISTEN_AGAIN,
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
    fn a_password_stays_at_home_or_goes_encrypted() {
        let problems = |url: &str, allow| {
            let login = Login {
                user: "cam".into(),
                password: String::from("hunter2").into(),
            };
            let settings = MqttSettings {
                url: url.into(),
                login: Some(login),
                allow_plaintext_password: allow,
                ..MqttSettings::default()
            };
            assert!(!format!("{settings:?}").contains("hunter2"));
            (settings.problems(), settings.warnings())
        };
        let (refused, _) = problems("mqtt://broker.example.org", false);
        assert!(refused[0].message.contains("allow_plaintext_password"));
        let (allowed, warned) = problems("mqtt://broker.example.org", true);
        assert_eq!(allowed, []);
        assert!(
            warned[0].contains("the password and everything"),
            "{warned:?}"
        );
        for url in ["mqtt://broker.lan", "mqtt://192.168.1.2"] {
            assert_eq!(problems(url, false), (vec![], vec![]));
        }
    }

    #[test]
    fn all_problems_at_once_and_no_secret_in_them() {
        let settings: MqttSettings = serde_json::from_value(serde_json::json!({
            "url": "mqtt://me:hunter2@broker", "prefix": "a//b", "qos": 2, "queue": 0,
            "max_rate": -1.0, "keep_alive_s": 0, "heartbeat_s": 0.0, "health_s": 1e9,
            "client_id": "", "username": "", "password_file": "/nowhere/at/all", "version": 4,
            "session_expiry_s": 1,
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
            "version",
            "session_expiry_s",
        ] {
            assert!(keys.contains(&key), "{key} in {keys:?}");
        }
        assert!(!format!("{problems:?}").contains("hunter2"));
        assert!(MqttSettings::default().problems().is_empty());
        let unknown = serde_json::from_str::<MqttSettings>(r#"{"password":"x"}"#);
        assert!(unknown.unwrap_err().to_string().contains("password"));
    }
}
