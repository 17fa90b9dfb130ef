//! Home Assistant's MQTT discovery: what is on the broker so that it shows the device by itself.
//!
//! In: Home Assistant's birth message and what we had said before, from the broker. Out: retained messages below the discovery
//! prefix. On the `io` thread. Always holds: after each connect and each start of Home Assistant exactly the components that there
//! are now are announced. What was announced before is read back from the broker first, and remembered in the state directory for a
//! broker that forgot it, so that a camera that left the configuration leaves Home Assistant too, whichever form it was
//! announced in.

mod components;
mod former;

use std::collections::{BTreeSet, VecDeque};
use std::path::Path;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::{Map, Value, json};

pub use components::{Announced, CameraComponents};
use components::{Component, components};
use former::{Platforms, former};

use super::link::Message;
use super::payload::DeviceInfo;
use super::remote::{Remote, Wish};
use super::topic::valid_prefix;
use crate::clock::jitter;

/// How long what was announced before may take to come back from the broker.
const READ_BACK: Duration = Duration::from_millis(1000);
/// A fleet must not answer a start of Home Assistant at once.
const LONGEST_DELAY: Duration = Duration::from_millis(3000);
/// Home Assistant subscribes to a component's topics once it knows of it; what is not retained goes again after this.
const REFRESH_AFTER: Duration = Duration::from_millis(2000);
/// Components and topics that are cleared at most: whoever wrote more of them below our name was not us.
const MAX_OLD_COMPONENTS: usize = 4096;

/// `[discovery]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DiscoverySettings {
    /// Whether Home Assistant is told of this device.
    pub enabled: bool,
    /// How.
    pub format: DiscoveryFormat,
    /// Home Assistant's discovery prefix.
    pub prefix: String,
}

/// How a device is announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DiscoveryFormat {
    /// One message for all components; Home Assistant 2024.12 and later.
    #[default]
    Device,
    /// One message a component; every Home Assistant.
    Component,
}

impl Default for DiscoverySettings {
    fn default() -> Self {
        Self {
            enabled: true,
            format: DiscoveryFormat::default(),
            prefix: "homeassistant".into(),
        }
    }
}

impl DiscoverySettings {
    /// Values that can never work: key and message.
    pub fn problems(&self) -> Vec<(&'static str, String)> {
        if valid_prefix(&self.prefix) {
            return Vec::new();
        }
        let message = format!(
            "`{}` must be levels of [a-zA-Z0-9_-] joined by `/`, such as `homeassistant`",
            self.prefix
        );
        vec![("prefix", message)]
    }
}

/// Announces the device.
pub struct Discovery {
    settings: DiscoverySettings,
    /// The device in discovery topics: `ocellus_<dev>`.
    node: String,
    device: Value,
    origin: Value,
    components: Vec<Component>,
    /// Announced in an earlier life.
    former: Platforms,
    /// Announced once, and not there now. Home Assistant forgets them when it is told.
    gone: Platforms,
    /// Topics of the other form, and of the component form what is gone.
    clear: BTreeSet<String>,
    announce_at: Option<Instant>,
    refresh_at: Option<Instant>,
    outbox: VecDeque<Message>,
}

impl Discovery {
    /// For a device as it runs now. Reads and writes in `state_dir` what was announced; without it only the broker knows.
    pub fn new(
        settings: DiscoverySettings,
        device: &DeviceInfo,
        announced: &Announced,
        state_dir: Option<&Path>,
    ) -> Self {
        let components = components(&device.id, announced);
        let present = components
            .iter()
            .map(|c| (c.key.clone(), c.platform.to_owned()))
            .collect();
        let model = device.board.as_deref().unwrap_or(&device.target);
        Self {
            node: format!("ocellus_{}", device.id),
            device: json!({
                "identifiers": [format!("ocellus_{}", device.id)],
                "name": device.id,
                "manufacturer": "Ocellus",
                "model": model,
                "sw_version": device.version,
            }),
            origin: json!({ "name": "ocellus", "sw_version": device.version }),
            former: state_dir.map_or_else(Platforms::new, |dir| former(dir, &present)),
            components,
            settings,
            gone: Platforms::new(),
            clear: BTreeSet::new(),
            announce_at: None,
            refresh_at: None,
            outbox: VecDeque::new(),
        }
    }

    fn birth_topic(&self) -> String {
        format!("{}/status", self.settings.prefix)
    }

    fn device_topic(&self) -> String {
        format!("{}/device/{}/config", self.settings.prefix, self.node)
    }

    fn component_topic(&self, platform: &str, key: &str) -> String {
        format!(
            "{}/{platform}/{}/{key}/config",
            self.settings.prefix, self.node
        )
    }

    /// Platform and key of one of our topics in the component form.
    fn parse_component_topic<'a>(&self, topic: &'a str) -> Option<(&'a str, &'a str)> {
        let rest = topic
            .strip_prefix(&self.settings.prefix)?
            .strip_prefix('/')?;
        let mut levels = rest.split('/');
        let (platform, node, key) = (levels.next()?, levels.next()?, levels.next()?);
        let ours = node == self.node && levels.next() == Some("config") && levels.next().is_none();
        ours.then_some((platform, key))
    }

    fn has(&self, platform: &str, key: &str) -> bool {
        self.components
            .iter()
            .any(|c| c.platform == platform && c.key == key)
    }

    /// What the broker had kept of our announcements.
    fn read_back(&mut self, topic: &str, payload: &[u8]) {
        if topic == self.device_topic() {
            if self.settings.format == DiscoveryFormat::Component {
                self.clear.insert(topic.into());
                return;
            }
            let Ok(Value::Object(old)) = serde_json::from_slice(payload) else {
                return;
            };
            let Some(Value::Object(old)) = old.get("components") else {
                return;
            };
            for (key, component) in old.iter().take(MAX_OLD_COMPONENTS) {
                let platform = component.get("platform").or_else(|| component.get("p"));
                let Some(platform) = platform.and_then(Value::as_str) else {
                    continue;
                };
                if !self.has(platform, key) && self.gone.len() < MAX_OLD_COMPONENTS {
                    self.gone.insert(key.clone(), platform.into());
                }
            }
        } else if let Some((platform, key)) = self.parse_component_topic(topic) {
            let kept =
                self.settings.format == DiscoveryFormat::Component && self.has(platform, key);
            if !kept && self.clear.len() < MAX_OLD_COMPONENTS {
                self.clear.insert(topic.into());
            }
        }
    }

    fn announce(&mut self) {
        // First what must go: a component that only changed its form is then new, and keeps its history by its unique id.
        let clear = std::mem::take(&mut self.clear);
        self.outbox
            .extend(clear.into_iter().map(|t| Message::retained(t, "")));
        match self.settings.format {
            DiscoveryFormat::Device => {
                let gone = self
                    .gone
                    .iter()
                    .map(|(key, platform)| (key.clone(), json!({ "platform": platform })));
                let here = self.components.iter().map(|c| {
                    let mut config = c.config.clone();
                    config.insert("platform".into(), json!(c.platform));
                    (c.key.clone(), Value::Object(config))
                });
                // What is here goes over what is gone: a key may have changed its platform.
                let all: Map<String, Value> = gone.chain(here).collect();
                let message = json!({
                    "device": self.device,
                    "origin": self.origin,
                    "components": all,
                });
                self.outbox
                    .push_back(Message::retained(self.device_topic(), message.to_string()));
            }
            DiscoveryFormat::Component => {
                for c in &self.components {
                    let mut config = c.config.clone();
                    config.insert("device".into(), self.device.clone());
                    config.insert("origin".into(), self.origin.clone());
                    let topic = self.component_topic(c.platform, &c.key);
                    let config = Value::Object(config).to_string();
                    self.outbox.push_back(Message::retained(topic, config));
                }
            }
        }
    }
}

impl Remote for Discovery {
    fn filters(&self) -> Vec<String> {
        vec![
            self.birth_topic(),
            self.device_topic(),
            self.component_topic("+", "+"),
        ]
    }

    fn connected(&mut self, now: Instant) {
        self.outbox.clear();
        match self.settings.format {
            DiscoveryFormat::Device => self.gone.extend(self.former.clone()),
            DiscoveryFormat::Component => {
                for (key, platform) in &self.former {
                    let topic = self.component_topic(platform, key);
                    self.clear.insert(topic);
                }
            }
        }
        self.announce_at = Some(now + READ_BACK);
    }

    fn incoming(&mut self, message: &Message, now: Instant) {
        if message.topic == self.birth_topic() {
            if &*message.payload == b"online" && !message.retain && self.announce_at.is_none() {
                self.announce_at = Some(now + LONGEST_DELAY.mul_f64(jitter()));
            }
        } else if message.retain && !message.payload.is_empty() {
            let before = (self.gone.len(), self.clear.len());
            self.read_back(&message.topic, &message.payload);
            // A slow broker: it was announced already, without this.
            if before != (self.gone.len(), self.clear.len()) && self.announce_at.is_none() {
                self.announce_at = Some(now + READ_BACK);
            }
        }
    }

    fn poll(&mut self, now: Instant) -> Option<Wish> {
        if self.announce_at.is_some_and(|at| now >= at) {
            self.announce_at = None;
            self.announce();
            self.refresh_at = Some(now + REFRESH_AFTER);
        }
        if let Some(message) = self.outbox.pop_front() {
            return Some(Wish::Send(message));
        }
        let refresh = self.refresh_at.is_some_and(|at| now >= at);
        refresh.then(|| {
            self.refresh_at = None;
            Wish::Refresh
        })
    }
}

#[cfg(test)]
mod tests;
