//! The device as Home Assistant's components: pure.

use serde_json::{Map, Value, json};

use crate::publish::mqtt::topic::Topics;

/// What there is to announce.
#[derive(Debug, Clone, PartialEq)]
pub struct Announced {
    /// First part of every topic.
    pub prefix: String,
    /// The cameras that run.
    pub cameras: Vec<CameraComponents>,
    /// Whether commands and settings are taken.
    pub commands: bool,
    /// Whether pictures may leave the device.
    pub images: bool,
    /// Whether the board tells its temperature.
    pub temperature: bool,
    /// Seconds between messages on `<cam>/state`.
    pub heartbeat_s: f64,
    /// Seconds between messages on `health`.
    pub health_s: f64,
}

/// One camera.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CameraComponents {
    /// Its id.
    pub id: String,
    /// Whether a model classifies what it sees; else there is nothing to say of a class.
    pub classified: bool,
    /// Whether what a model finds is tracked.
    pub tracked: bool,
    /// Its zones' ids.
    pub zones: Vec<String>,
    /// Its lines' ids.
    pub lines: Vec<String>,
}

/// One component of Home Assistant.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Component {
    pub platform: &'static str,
    /// Unique in the device. Cameras' keys have a `-` before their last word, the board's have none.
    pub key: String,
    pub config: Map<String, Value>,
}

pub(super) fn components(device: &str, announced: &Announced) -> Vec<Component> {
    let topics = Topics::new(&announced.prefix, device);
    let board = Board {
        device,
        topics: &topics,
        announced,
    };
    let mut all = board.components();
    for camera in &announced.cameras {
        let camera = Camera {
            board: &board,
            camera,
        };
        all.extend(camera.components());
    }
    all
}

struct Board<'a> {
    device: &'a str,
    topics: &'a Topics,
    announced: &'a Announced,
}

struct Camera<'a> {
    board: &'a Board<'a>,
    camera: &'a CameraComponents,
}

impl Board<'_> {
    fn components(&self) -> Vec<Component> {
        // A device that is silent for three periods is not believed any more.
        let expire = seconds(3.0 * self.announced.health_s);
        let health = self.topics.health();
        let mut all = Vec::new();
        let mut diagnostic = |key: &str, name: &str, config: Value| {
            let common = json!({
                "state_topic": health,
                "expire_after": expire,
                "entity_category": "diagnostic",
                "state_class": "measurement",
            });
            all.push(self.component("sensor", key, name, vec![common, config]));
        };
        if self.announced.temperature {
            let config = json!({
                "value_template": "{{ value_json.temperature_c }}",
                "device_class": "temperature",
                "unit_of_measurement": "°C",
            });
            diagnostic("temperature", "temperature", config);
        }
        let waiting = json!({
            "value_template": "{{ (value_json.spool or 0) + value_json.queued }}",
            "unit_of_measurement": "messages",
            "icon": "mdi:tray-full",
        });
        diagnostic("waiting", "waiting messages", waiting);
        let memory = json!({
            "value_template": "{{ ((value_json.rss_bytes or 0) / 1048576) | round(1) }}",
            "device_class": "data_size",
            "unit_of_measurement": "MiB",
        });
        diagnostic("memory", "memory", memory);
        if self.announced.commands {
            let config = self.button("restart", None, json!({ "device_class": "restart" }));
            all.push(self.component("button", "restart", "restart", vec![config]));
        }
        all
    }

    fn component(
        &self,
        platform: &'static str,
        key: &str,
        name: &str,
        parts: Vec<Value>,
    ) -> Component {
        let entity = format!("{}_{}", slug(self.device), slug(name));
        let own = json!({
            "name": name,
            "unique_id": format!("ocellus/{}/{key}", self.device),
            "default_entity_id": format!("{platform}.{entity}"),
            "availability": [{ "topic": self.topics.status() }],
            "availability_mode": "all",
        });
        let mut config = Map::new();
        for part in std::iter::once(own).chain(parts) {
            if let Value::Object(part) = part {
                config.extend(part);
            }
        }
        Component {
            platform,
            key: key.into(),
            config,
        }
    }

    /// A press is a command; its id is the moment, so that each press counts and a repeated delivery does not.
    fn button(&self, op: &str, camera: Option<&str>, more: Value) -> Value {
        let args = camera.map_or(String::new(), |c| format!(r#","args":{{"camera":"{c}"}}"#));
        let template = format!(r#"{{"id":"ha-{{{{ now().timestamp() }}}}","op":"{op}"{args}}}"#);
        let mut config = json!({
            "command_topic": self.topics.command(),
            "command_template": template,
            "qos": 1,
            "retain": false,
            "entity_category": "config",
        });
        if let (Value::Object(config), Value::Object(more)) = (&mut config, more) {
            config.extend(more);
        }
        config
    }
}

impl Camera<'_> {
    fn topic(&self, kind: &str) -> String {
        self.board.topics.camera(&self.camera.id, kind)
    }

    fn component(&self, platform: &'static str, word: &str, parts: Vec<Value>) -> Component {
        // Only the camera's id has a `-`.
        let key = format!("{}-{}", self.camera.id, word.replace([' ', '-'], "_"));
        let name = format!("{} {word}", self.camera.id);
        self.board.component(platform, &key, &name, parts)
    }

    /// What a camera sees is known while both the device and the camera are online, and inference is on.
    fn seen_availability(&self) -> Value {
        // `disabled` is neither payload of Home Assistant's, and would be ignored.
        self.availability("{{ 'online' if value == 'online' else 'offline' }}")
    }

    fn availability(&self, template: &str) -> Value {
        json!({ "availability": [
            { "topic": self.board.topics.status() },
            { "topic": self.topic("status"), "value_template": template },
        ]})
    }

    fn components(&self) -> Vec<Component> {
        let announced = self.board.announced;
        let mut all = Vec::new();
        if self.camera.classified {
            self.classes(&mut all);
        }
        if self.camera.tracked {
            self.tracks(&mut all);
        }
        self.diagnostics(&mut all);
        if announced.commands {
            self.controls(&mut all);
        }
        if announced.images {
            let image = json!({
                "image_topic": self.topic("snapshot"),
                "content_type": "image/jpeg",
            });
            let there = self.availability("{{ 'offline' if value == 'offline' else 'online' }}");
            all.push(self.component("image", "snapshot", vec![there, image]));
        }
        all
    }

    fn state(&self, template: &str) -> Value {
        json!({
            "state_topic": self.topic("state"),
            "value_template": template,
            "expire_after": seconds(3.0 * self.board.announced.heartbeat_s),
        })
    }

    fn classes(&self, all: &mut Vec<Component>) {
        let seen = self.seen_availability();
        let class = json!({ "icon": "mdi:eye" });
        let label = self.state("{{ value_json.label or 'nothing' }}");
        all.push(self.component("sensor", "class", vec![seen.clone(), label, class]));
        let score = json!({ "unit_of_measurement": "%", "state_class": "measurement", "icon": "mdi:percent" });
        let percent = self.state("{{ (value_json.score * 100) | round(1) }}");
        all.push(self.component("sensor", "score", vec![seen.clone(), percent, score]));
        let something = json!({ "device_class": "occupancy" });
        let on = self.state("{{ 'ON' if value_json.label else 'OFF' }}");
        all.push(self.component(
            "binary_sensor",
            "something seen",
            vec![seen.clone(), on, something],
        ));
        let event = json!({
            "state_topic": self.topic("event"),
            // What had waited for the broker is history, not an event of now; an empty text is no event.
            "value_template": "{{ '' if value_json.replayed | default(false) else value }}",
            "event_types": ["appeared", "changed", "disappeared"],
            "qos": 1,
            "icon": "mdi:eye-refresh",
        });
        all.push(self.component("event", "change", vec![seen, event]));
    }

    /// Events of tracks, zones and lines, and what was counted there.
    fn tracks(&self, all: &mut Vec<Component>) {
        let event = |kind: &str, types: Value, icon: &str| {
            json!({
                "state_topic": self.topic(kind),
                // What had waited for the broker is history; movements are too many for an event of Home Assistant's.
                "value_template": "{{ '' if value_json.replayed | default(false) or value_json.event_type == 'update' else value }}",
                "event_types": types,
                "qos": 1,
                "icon": icon,
            })
        };
        let seen = self.seen_availability();
        let track = event("track", json!(["new", "end"]), "mdi:motion-sensor");
        all.push(self.component("event", "track", vec![seen.clone(), track]));
        if self.camera.zones.is_empty() && self.camera.lines.is_empty() {
            return;
        }
        let types = json!(["enter", "leave", "dwell", "cross"]);
        let zone = event("zone", types, "mdi:map-marker-path");
        all.push(self.component("event", "zone", vec![seen.clone(), zone]));
        // By class in the attributes; the state is the sum.
        let mut count = |word: String, path: String, class: &str, icon: &str| {
            let counts = json!({
                "state_topic": self.topic("counts"),
                "value_template": format!("{{{{ {path}.values() | sum }}}}"),
                "json_attributes_topic": self.topic("counts"),
                "json_attributes_template": format!("{{{{ {path} | tojson }}}}"),
                "state_class": class,
                "icon": icon,
            });
            all.push(self.component("sensor", &word, vec![seen.clone(), counts]));
        };
        for id in &self.camera.zones {
            let path = |what: &str| format!("value_json.zones['{id}']['{what}']");
            count(
                format!("{id} now"),
                path("now"),
                "measurement",
                "mdi:account-multiple",
            );
            count(
                format!("{id} entered"),
                path("entered"),
                "total_increasing",
                "mdi:location-enter",
            );
            count(
                format!("{id} left"),
                path("left"),
                "total_increasing",
                "mdi:location-exit",
            );
        }
        for id in &self.camera.lines {
            let path = |what: &str| format!("value_json.lines['{id}']['{what}']");
            count(
                format!("{id} to the left"),
                path("left"),
                "total_increasing",
                "mdi:arrow-left",
            );
            count(
                format!("{id} to the right"),
                path("right"),
                "total_increasing",
                "mdi:arrow-right",
            );
        }
    }

    fn diagnostics(&self, all: &mut Vec<Component>) {
        let diagnostic = json!({ "entity_category": "diagnostic", "state_class": "measurement" });
        let ms = json!({ "unit_of_measurement": "ms", "device_class": "duration" });
        for (word, template, more) in [
            (
                "fps",
                "{{ value_json.fps }}",
                json!({ "unit_of_measurement": "fps", "icon": "mdi:speedometer" }),
            ),
            ("inference time", "{{ value_json.infer_ms }}", ms.clone()),
            ("frame age", "{{ value_json.age_ms }}", ms),
        ] {
            let parts = vec![
                self.seen_availability(),
                self.state(template),
                diagnostic.clone(),
                more,
            ];
            all.push(self.component("sensor", word, parts));
        }
    }

    /// These work while inference is off and while the camera is away: only the device must be there.
    fn controls(&self, all: &mut Vec<Component>) {
        let setting = |name: &str| {
            json!({
                "command_topic": self.topic(&format!("{name}/set")),
                "state_topic": self.topic(&format!("{name}/state")),
                "entity_category": "config",
                "qos": 1,
                "retain": false,
            })
        };
        let icon = json!({ "icon": "mdi:brain" });
        all.push(self.component("switch", "inference", vec![setting("inference"), icon]));
        let share = json!({ "min": 0, "max": 1, "step": 0.01, "mode": "slider" });
        if self.camera.classified {
            for name in ["enter", "leave", "threshold"] {
                all.push(self.component("number", name, vec![setting(name), share.clone()]));
            }
        }
        let rate = json!({ "min": 0, "max": 1000, "step": 0.1, "mode": "box", "unit_of_measurement": "1/s" });
        let parts = vec![setting("max_rate"), rate];
        all.push(self.component("number", "max rate", parts));
        let id = Some(&*self.camera.id);
        let infer = self
            .board
            .button("infer", id, json!({ "icon": "mdi:brain" }));
        all.push(self.component("button", "infer now", vec![infer]));
        if self.board.announced.images {
            let snapshot = self
                .board
                .button("snapshot", id, json!({ "icon": "mdi:camera" }));
            all.push(self.component("button", "take snapshot", vec![snapshot]));
        }
    }
}

fn seconds(s: f64) -> u64 {
    (s.ceil() as u64).max(1)
}

/// As Home Assistant makes entity ids of names, for the characters that ids have.
fn slug(name: &str) -> String {
    name.to_lowercase().replace(['-', ' '], "_")
}
