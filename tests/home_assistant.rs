//! Home Assistant itself (2024.3.3's core with its MQTT integration, headless) shows the device, over every restart; and its
//! own schemas take every discovery message.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use common::device::{Device, configure};
use common::mosquitto::{Observer, mosquitto_or_skip, publish};
use common::onnx::boxes;
use common::schema;
use common::{home_assistant, skip};
use prost::Message;
use serde_json::{Value, json};

/// Discovery, its delays and Home Assistant's own take some seconds.
const DEADLINE: Duration = Duration::from_secs(90);

struct HomeAssistant {
    child: Child,
    orders: ChildStdin,
    answers: Receiver<Value>,
}

impl HomeAssistant {
    fn start(python: &Path, directory: &Path, port: u16) -> Self {
        std::fs::create_dir_all(directory).unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/home_assistant.py");
        let mut child = Command::new(python)
            .arg(script)
            .arg(directory)
            .arg(port.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let orders = child.stdin.take().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (tx, answers) = channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if tx.send(serde_json::from_str(&line).unwrap()).is_err() {
                    return;
                }
            }
        });
        let this = Self {
            child,
            orders,
            answers,
        };
        assert_eq!(this.answer(), json!({"ready": true}));
        this
    }

    fn answer(&self) -> Value {
        self.answers
            .recv_timeout(DEADLINE)
            .expect("no answer from Home Assistant")
    }

    fn order(&mut self, order: Value) -> Value {
        writeln!(self.orders, "{order}").unwrap();
        let answer = self.answer();
        assert!(answer.get("error").is_none(), "{order}: {answer}");
        answer
    }

    fn call(&mut self, service: &str, entity: &str, data: Value) {
        self.order(json!({"do": "call", "service": service, "entity": entity, "data": data}));
    }

    /// Every entity's state.
    fn states(&mut self) -> BTreeMap<String, String> {
        let answer = self.order(json!({"do": "states"}));
        let entities = answer["entities"].as_object().unwrap();
        let state = |e: &Value| e["state"].as_str().unwrap_or("none").to_string();
        entities
            .iter()
            .map(|(id, e)| (id.clone(), state(e)))
            .collect()
    }

    fn wait(
        &mut self,
        what: &str,
        holds: impl Fn(&BTreeMap<String, String>) -> bool,
    ) -> BTreeMap<String, String> {
        let end = Instant::now() + DEADLINE;
        loop {
            let states = self.states();
            if holds(&states) {
                return states;
            }
            assert!(Instant::now() < end, "did not happen: {what}: {states:#?}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Exactly this, by notify.notify, once there is as much.
    fn has_said(&mut self, expected: &[&str]) {
        let end = Instant::now() + DEADLINE;
        loop {
            let said = self.order(json!({"do": "notified"}))["said"].clone();
            if said.as_array().unwrap().len() >= expected.len() {
                return assert_eq!(said, json!(expected));
            }
            assert!(Instant::now() < end, "said too little: {said}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Every entity is there and known; what has not happened yet is unknown by its nature.
    fn wait_until_known(&mut self, what: &str, cameras: &[&str]) -> BTreeSet<String> {
        let expected = expected(cameras);
        let states = self.wait(what, |states| {
            let there: BTreeSet<&str> = states
                .keys()
                .map(String::as_str)
                .filter(|id| !id.ends_with("temperature"))
                .collect();
            let known = |(id, state): (&String, &String)| match id.split_once('.').unwrap().0 {
                "button" | "event" | "image" => state != "unavailable" && state != "none",
                _ => !["unknown", "unavailable", "none"].contains(&state.as_str()),
            };
            there == expected.iter().map(String::as_str).collect() && states.iter().all(known)
        });
        states.into_keys().collect()
    }

    fn stop(mut self) {
        writeln!(self.orders, "{}", json!({"do": "stop"})).unwrap();
        assert_eq!(self.answer(), json!({"stopped": true}));
        self.child.wait().unwrap();
    }
}

impl Drop for HomeAssistant {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn expected(cameras: &[&str]) -> BTreeSet<String> {
    let board = [
        "sensor.dev_1_waiting_messages",
        "sensor.dev_1_memory",
        "button.dev_1_restart",
    ];
    let camera = |c: &&str| {
        [
            ("sensor", "class"),
            ("sensor", "score"),
            ("binary_sensor", "something_seen"),
            ("event", "change"),
            ("sensor", "fps"),
            ("sensor", "inference_time"),
            ("sensor", "frame_age"),
            ("switch", "inference"),
            ("number", "enter"),
            ("number", "leave"),
            ("number", "threshold"),
            ("number", "max_rate"),
            ("button", "infer_now"),
            ("button", "take_snapshot"),
            ("image", "snapshot"),
        ]
        .map(|(platform, name)| format!("{platform}.dev_1_{c}_{name}"))
    };
    board
        .map(String::from)
        .into_iter()
        .chain(cameras.iter().flat_map(camera))
        .collect()
}

#[test]
fn home_assistant_shows_the_device_over_every_restart() {
    let Some(python) = home_assistant() else {
        return skip("Home Assistant is not installed (scripts/test-deps.sh)");
    };
    let Some(mut broker) = mosquitto_or_skip() else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let ha_dir = dir.path().join("home-assistant");
    let format = "[discovery]\nformat = 'component'\n";
    let all = ["porch", "yard", "attic"];
    let device = Device::start(&configure(dir.path(), &all, broker.port, format));
    let mut ha = HomeAssistant::start(&python, &ha_dir, broker.port);
    ha.wait_until_known("everything is there", &all);

    // It can be commanded.
    let class = "sensor.dev_1_porch_class";
    let switch = "switch.dev_1_porch_inference";
    ha.call("switch.turn_off", switch, json!({}));
    ha.wait("off", |s| {
        s[switch] == "off"
            && s[class] == "unavailable"
            && s["sensor.dev_1_yard_class"] != "unavailable"
    });
    ha.call("switch.turn_on", switch, json!({}));
    ha.wait("on", |s| s[switch] == "on" && s[class] != "unavailable");
    ha.call(
        "number.set_value",
        "number.dev_1_porch_enter",
        json!({"value": 0.75}),
    );
    ha.wait("the number", |s| s["number.dev_1_porch_enter"] == "0.75");
    let observer = Observer::start(broker.port, "ocellus/dev-1/cmd/result");
    for _ in 0..2 {
        ha.call("button.press", "button.dev_1_porch_infer_now", json!({}));
        let answer = observer.wait("an answer", |_| true).json();
        assert_eq!(answer["ok"], true, "{answer}");
        assert!(answer["result"]["observations"][0]["seq"].is_number());
    }
    let image = "image.dev_1_porch_snapshot";
    let before = ha.states()[image].clone();
    ha.call(
        "button.press",
        "button.dev_1_porch_take_snapshot",
        json!({}),
    );
    ha.wait("a picture", |s| s[image] != before);

    // The device starts again, with a camera less.
    assert!(device.stop().success());
    ha.wait("offline", |s| {
        s[class] == "unavailable" && s[switch] == "unavailable"
    });
    let two = ["porch", "yard"];
    let device = Device::start(&configure(dir.path(), &two, broker.port, format));
    ha.wait_until_known("without the third camera", &two);

    // Home Assistant starts again.
    ha.stop();
    let mut ha = HomeAssistant::start(&python, &ha_dir, broker.port);
    ha.wait_until_known("after a restart of Home Assistant", &two);

    // The broker starts again and has forgotten everything.
    broker.kill();
    ha.wait("nothing is known", |s| s[class] == "unavailable");
    broker.restart();
    ha.wait_until_known("after a restart of the broker", &two);

    // Both start again, the device with a camera less, of which only the device knows.
    assert!(device.stop().success());
    broker.kill();
    broker.restart();
    let device = Device::start(&configure(dir.path(), &["porch"], broker.port, format));
    ha.wait_until_known("without the second camera", &["porch"]);

    // A device that is killed is not believed.
    drop(device);
    ha.wait("the will", |s| s[class] == "unavailable");
    ha.stop();
}

/// The automation of docs/dashboards.md, for this device.
#[test]
fn the_pages_automation_tells_what_came_once() {
    let Some(python) = home_assistant() else {
        return skip("Home Assistant is not installed (scripts/test-deps.sh)");
    };
    let Some(broker) = mosquitto_or_skip() else {
        return;
    };
    let page = include_str!("../docs/dashboards.md");
    let automation = page.split("```yaml\n").nth(1).unwrap();
    let automation = automation.split("```").next().unwrap();
    assert!(automation.starts_with("alias: "));
    let automation = automation.replace("porch_pi", "dev_1");
    let dir = tempfile::tempdir().unwrap();
    // The device has no events of its own meanwhile.
    let more = "[discovery]\nformat = 'component'\n[smoothing]\nmin_duration_ms = 3600000\n";
    let config = configure(dir.path(), &["porch"], broker.port, more);
    let device = Device::start(&config);
    let ha_dir = dir.path().join("home-assistant");
    let mut ha = HomeAssistant::start(&python, &ha_dir, broker.port);
    ha.wait_until_known("everything is there", &["porch"]);
    ha.order(json!({"do": "automate", "yaml": automation}));

    let answers = Observer::start(broker.port, "ocellus/dev-1/cmd/result");
    let happens = |seq: u64, to: &str, replayed: bool| {
        let event = json!({
            "schema": "1.0", "device": "dev-1", "camera": "porch", "seq": seq, "ts": "2026-11-23T17:34:14.083Z",
            "replayed": replayed, "event_type": "appeared", "from": null, "to": to, "score": 0.9, "lasted_ms": 0.0,
        });
        schema::check("event", &event);
        publish(
            broker.port,
            "ocellus/dev-1/porch/event",
            &event.to_string(),
            false,
        );
    };
    happens(1, "cat", false);
    happens(2, "person", true);
    happens(3, "person", false);
    let picture = answers.wait("a picture was asked for", |_| true).json();
    assert_eq!(
        picture["result"]["topic"], "ocellus/dev-1/porch/snapshot",
        "{picture}"
    );
    ha.has_said(&["person at the porch"]);

    // The device comes back: that is no event.
    let class = "sensor.dev_1_porch_class";
    assert!(device.stop().success());
    ha.wait("offline", |s| s[class] == "unavailable");
    let _device = Device::start(&config);
    ha.wait("online", |s| s[class] != "unavailable");
    happens(4, "cat", false);
    happens(5, "person", false);
    answers.wait("a second picture", |s| {
        s.json()["result"]["topic"] == "ocellus/dev-1/porch/snapshot"
    });
    ha.has_said(&["person at the porch"; 2]);
    ha.stop();
}

#[test]
fn its_own_schemas_take_every_message() {
    let Some(python) = home_assistant() else {
        return skip("Home Assistant is not installed (scripts/test-deps.sh)");
    };
    let Some(broker) = mosquitto_or_skip() else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let detector = dir.path().join("boxes.onnx");
    std::fs::write(&detector, boxes().encode_to_vec()).unwrap();
    // Tracks, a zone, a line and their events; the zone's three counters, the line's two.
    let detects = format!(
        "[[model]]\npath = '{}'\n[[camera.zone]]\nid = 'front-door'\npolygon = [[0, 0], [1, 0], [1, 1]]\n\
         [[camera.line]]\nid = 'gate'\nfrom = [0, 0]\nto = [1, 1]\n",
        detector.display()
    );
    for (format, cameras, with, more_components) in [
        ("component", &["porch", "yard"][..], "", 0),
        ("device", &["porch", "yard"], "", 0),
        ("device", &["porch"], "", 0),
        ("device", &["porch"], &detects, 7),
    ] {
        // The device form is what is announced where nothing is said.
        let said = match format {
            "device" => String::new(),
            _ => format!("[discovery]\nformat = '{format}'\n"),
        };
        let more = said + with;
        let config = configure(dir.path(), cameras, broker.port, &more);
        let observer = Observer::start(broker.port, "homeassistant/#");
        let device = Device::start(&config);
        let last = match format {
            "device" => "homeassistant/device/ocellus_dev-1/config",
            _ => "homeassistant/image/ocellus_dev-1/yard-snapshot/config",
        };
        observer.wait("announced", |s| !s.retained && s.topic == last);
        assert!(device.stop().success());
        // What a Home Assistant that starts now is told.
        let late = Observer::start(broker.port, "homeassistant/#");
        publish(broker.port, "homeassistant/end", "x", false);
        let kept = late.collect("the end", |s| s.topic == "homeassistant/end");
        let messages: BTreeMap<String, String> = kept
            .into_iter()
            .filter(|s| s.retained)
            .map(|s| (s.topic.clone(), s.text()))
            .collect();
        assert_eq!(
            messages.len() == 1,
            format == "device",
            "{:?}",
            messages.keys()
        );

        let script =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/home_assistant_schemas.py");
        let checked = check(&python, &script, &json!(messages));
        assert_eq!(checked["wrong"], json!([]));
        let cameras: Vec<&str> = cameras.to_vec();
        let announced = checked["components"].as_u64().unwrap() as usize;
        let temperature = announced - expected(&cameras).len() - more_components;
        assert!(temperature <= 1, "{checked}");
        // The check itself: it must refuse.
        let mut broken = messages.clone();
        let (topic, payload) = broken.pop_first().unwrap();
        broken.insert(
            topic,
            payload
                .replace("state_topic", "stat_topicc")
                .replace("command_topic", "x"),
        );
        assert_ne!(check(&python, &script, &json!(broken))["wrong"], json!([]));
    }
}

fn check(python: &Path, script: &Path, messages: &Value) -> Value {
    let mut child = Command::new(python)
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    write!(child.stdin.take().unwrap(), "{messages}").unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    serde_json::from_slice(&output.stdout).unwrap()
}
