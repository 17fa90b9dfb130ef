//! Commands and settings: the program itself and a real mosquitto; every answer against the schema.

mod common;

use std::path::Path;

use common::device::{Device, configure};
use common::mosquitto::{DEADLINE, Mosquitto, Observer, mosquitto_or_skip, publish};
use common::proxy::{Proxy, Trap};
use common::schema::check;
use serde_json::{Value, json};

/// Asks and hears.
struct Asker<'a> {
    broker: &'a Mosquitto,
    observer: Observer,
    asked: u32,
}

impl<'a> Asker<'a> {
    /// Returns when `<cam>/inference/state` was seen: then the device hears commands.
    fn new(broker: &'a Mosquitto, camera: &str) -> Self {
        let observer = Observer::start(broker.port, "ocellus/dev-1/#");
        observer.wait("the device", |s| {
            s.topic == format!("ocellus/dev-1/{camera}/inference/state")
        });
        observer.wait("the camera", |s| {
            s.topic == format!("ocellus/dev-1/{camera}/status") && s.text() == "online"
        });
        Self {
            broker,
            observer,
            asked: 0,
        }
    }

    fn ask(&mut self, op: &str, args: Value) -> Value {
        self.asked += 1;
        let id = format!("{op}-{}", self.asked);
        let command = json!({"id": id, "op": op, "args": args});
        check("cmd", &command);
        publish(
            self.broker.port,
            "ocellus/dev-1/cmd",
            &command.to_string(),
            false,
        );
        let answer = self.observer.wait(&id, |s| {
            s.topic == "ocellus/dev-1/cmd/result" && s.json()["id"] == id
        });
        assert_eq!((answer.qos, answer.retained), (1, false));
        check("result", &answer.json());
        answer.json()
    }

    fn obeyed(&mut self, op: &str, args: Value) -> Value {
        let answer = self.ask(op, args);
        assert_eq!(answer["ok"], true, "{answer}");
        answer["result"].clone()
    }

    fn refused(&mut self, op: &str, args: Value) -> String {
        let answer = self.ask(op, args);
        assert_eq!(answer["ok"], false, "{answer}");
        answer["error"].as_str().unwrap().into()
    }

    /// What the broker keeps for newcomers is, or becomes, this.
    fn holds(&self, topic: &str, text: &str) {
        let topic = format!("ocellus/dev-1/{topic}");
        let late = Observer::start(self.broker.port, &topic);
        late.wait(&format!("{topic} {text}"), |s| s.text() == text);
    }
}

fn replace(file: &Path, old: &str, new: &str) {
    let text = std::fs::read_to_string(file).unwrap();
    assert!(text.contains(old));
    std::fs::write(file, text.replace(old, new)).unwrap();
}

#[test]
fn every_command_on_the_program_itself() {
    let Some(broker) = mosquitto_or_skip() else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let config = configure(
        dir.path(),
        &["porch"],
        broker.port,
        "max_rate = 0.01\n[snapshot]\nmax_side_px = 320\n",
    );
    // An old command waits for the device; it must not run.
    publish(
        broker.port,
        "ocellus/dev-1/cmd",
        r#"{"id":"old","op":"restart"}"#,
        true,
    );
    publish(
        broker.port,
        "ocellus/dev-1/porch/inference/set",
        "OFF",
        true,
    );
    let mut device = Device::start(&config);
    let mut asker = Asker::new(&broker, "porch");

    asker.obeyed("ping", json!({}));
    let info = asker.obeyed("info", json!({}));
    assert_eq!(info["device"], "dev-1");
    assert_eq!(info["cameras"][0]["inference"], true);

    // One observation a hundred seconds: what is asked for comes at once.
    let infer = asker.obeyed("infer", json!({"camera": "porch"}));
    let seq = infer["observations"][0]["seq"].as_u64().unwrap();
    assert!(
        infer["observations"][0]["results"][0]["label"].is_string(),
        "{infer}"
    );
    let again = asker.obeyed("infer", json!({}));
    assert!(again["observations"][0]["seq"].as_u64().unwrap() > seq);

    let picture = asker.obeyed("snapshot", json!({"quality": 60}));
    assert_eq!(
        (&picture["width"], &picture["height"]),
        (&json!(320), &json!(240))
    );
    let late = Observer::start(broker.port, "ocellus/dev-1/porch/snapshot");
    asker.obeyed("snapshot", json!({"max_side_px": 160}));
    let jpeg = late.wait("a picture", |s| !s.retained).payload;
    let decoded = image::load_from_memory_with_format(&jpeg, image::ImageFormat::Jpeg).unwrap();
    assert_eq!((decoded.width(), decoded.height()), (160, 120));
    assert!(
        asker
            .refused("snapshot", json!({"max_side_px": 321}))
            .contains("between 16 and 320")
    );

    // Off: no more frames are inferred, but for those that are asked for.
    let set = asker.obeyed(
        "set",
        json!({"inference": false, "enter": 0.7, "persist": true}),
    );
    assert_eq!(
        (&set["inference"], &set["enter"]),
        (&json!(false), &json!(0.7))
    );
    asker.holds("porch/status", "disabled");
    let one = asker.obeyed("infer", json!({}))["observations"][0]["seq"]
        .as_u64()
        .unwrap();
    std::thread::sleep(std::time::Duration::from_millis(700));
    let two = asker.obeyed("infer", json!({}))["observations"][0]["seq"]
        .as_u64()
        .unwrap();
    assert_eq!(two, one + 1, "frames were inferred while inference was off");
    asker.obeyed("snapshot", json!({}));

    // A wrong configuration is refused as a whole.
    replace(&config, "max_rate = 0.01", "max_rate = 2.0\nqos = 7");
    assert!(asker.refused("reload", json!({})).contains("mqtt.qos"));
    assert_eq!(
        asker.obeyed("info", json!({}))["cameras"][0]["max_rate"],
        0.01
    );
    replace(&config, "qos = 7", "keep_alive_s = 10");
    let reload = asker.obeyed("reload", json!({}));
    assert_eq!(
        reload,
        json!({"applied": ["mqtt.max_rate"], "needs_restart": ["mqtt"]})
    );
    asker.holds("porch/max_rate/state", "2.0");

    asker.obeyed("restart", json!({}));
    assert_eq!(device.ended().code(), Some(75));
    drop(asker);

    // What was to be kept, and only that, holds after the restart.
    let device = Device::start(&config);
    let observer = Observer::start(broker.port, "ocellus/dev-1/#");
    observer.wait("disabled", |s| {
        !s.retained && s.topic.ends_with("porch/status") && s.text() == "disabled"
    });
    let state = |setting: &str, text: &str| {
        let late = Observer::start(broker.port, &format!("ocellus/dev-1/porch/{setting}/state"));
        let seen = late.wait(setting, |s| s.retained);
        check("setting", &json!(seen.text()));
        assert_eq!(seen.text(), text, "{setting}");
    };
    state("inference", "OFF");
    state("enter", "0.7");
    state("max_rate", "2.0");
    publish(
        broker.port,
        "ocellus/dev-1/porch/inference/set",
        "on",
        false,
    );
    observer.wait("online", |s| {
        s.topic.ends_with("porch/status") && s.text() == "online"
    });
    publish(broker.port, "ocellus/dev-1/porch/enter/set", "0.2", false);
    let refusal = observer.wait("a refusal", |s| s.topic.ends_with("cmd/result"));
    check("result", &refusal.json());
    assert!(
        refusal.json()["error"]
            .as_str()
            .unwrap()
            .starts_with("porch/enter: leave (0.4)")
    );
    assert!(device.stop().success());
}

#[test]
fn pictures_and_commands_can_be_turned_off() {
    let Some(broker) = mosquitto_or_skip() else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let private = configure(
        dir.path(),
        &["porch"],
        broker.port,
        "[privacy]\nimages = false\n",
    );
    let device = Device::start(&private);
    let mut asker = Asker::new(&broker, "porch");
    assert!(
        asker
            .refused("snapshot", json!({}))
            .contains("privacy.images = false")
    );
    drop(asker);
    assert!(device.stop().success());

    let deaf = configure(dir.path(), &["porch"], broker.port, "commands = false\n");
    let observer = Observer::start(broker.port, "ocellus/dev-1/#");
    let device = Device::start(&deaf);
    observer.wait("online", |s| {
        !s.retained && s.topic == "ocellus/dev-1/porch/status" && s.text() == "online"
    });
    publish(
        broker.port,
        "ocellus/dev-1/cmd",
        r#"{"id":1,"op":"ping"}"#,
        false,
    );
    publish(
        broker.port,
        "ocellus/dev-1/porch/inference/set",
        "OFF",
        false,
    );
    let heard = observer.collect("two health messages", {
        let count = std::cell::Cell::new(0);
        move |s| {
            count.set(count.get() + u32::from(s.topic.ends_with("/health")));
            count.get() == 2
        }
    });
    assert!(!heard.iter().any(|s| s.topic.ends_with("cmd/result")));
    assert!(!heard.iter().any(|s| s.payload == b"disabled"));
    assert!(device.stop().success());
}

/// Under MQTT 5 the answer goes where the asker waits for it, with what it had sent along.
/// The connection dies before a picture that the broker is to keep has arrived: its answer said that it is there, and then it is.
#[test]
fn a_picture_that_is_to_be_kept_survives_the_connection() {
    for version in [3, 5] {
        let Some(broker) = mosquitto_or_skip() else {
            return;
        };
        let proxy = Proxy::start(broker.port);
        let dir = tempfile::tempdir().unwrap();
        let more = format!("version = {version}\n[snapshot]\nretain = true\n");
        let config = configure(dir.path(), &["porch"], proxy.port, &more);
        let device = Device::start(&config);
        let mut asker = Asker::new(&broker, "porch");
        proxy.set_trap(Trap::Publish("porch/snapshot"));
        let answer = asker.obeyed("snapshot", json!({"max_side_px": 160}));
        assert!(proxy.snapped(DEADLINE), "no picture was sent");
        let late = Observer::start(broker.port, "ocellus/dev-1/porch/snapshot");
        let picture = late.wait("the picture", |s| {
            s.payload.len() as u64 == answer["bytes"].as_u64().unwrap()
        });
        let decoded = image::load_from_memory(&picture.payload).unwrap();
        assert_eq!((decoded.width(), decoded.height()), (160, 120));
        let later = Observer::start(broker.port, "ocellus/dev-1/porch/snapshot");
        assert!(later.wait("the picture that is kept", |_| true).retained);
        assert!(device.stop().success());
    }
}

#[test]
fn an_answer_finds_its_asker_under_mqtt_5() {
    let Some(broker) = mosquitto_or_skip() else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let config = configure(dir.path(), &["porch"], broker.port, "version = 5\n");
    let device = Device::start(&config);
    let asker = Asker::new(&broker, "porch");
    let answer = std::process::Command::new("mosquitto_rr")
        .args(["-V", "5", "-h", "127.0.0.1", "-p", &broker.port.to_string()])
        .args(["-t", "ocellus/dev-1/cmd", "-e", "asker/answers", "-W", "20"])
        .args(["-D", "publish", "correlation-data", "42"])
        .args(["-m", r#"{"id":"rr","op":"ping"}"#, "-F", "%D %C %p"])
        .output()
        .unwrap();
    let answer = String::from_utf8(answer.stdout).unwrap();
    let parts: Vec<&str> = answer.trim().splitn(3, ' ').collect();
    assert_eq!(parts[..2], ["42", "application/json"], "{answer}");
    let answer: Value = serde_json::from_str(parts[2]).unwrap();
    check("result", &answer);
    assert_eq!((&answer["id"], &answer["ok"]), (&json!("rr"), &json!(true)));
    drop(asker);
    assert!(device.stop().success());
}

/// A retained message comes with each connection: one that is too large must not end each of them.
#[test]
fn a_message_that_is_too_large_is_survived() {
    for (version, bytes, connections, dropped, hears) in [
        (3, 300 << 10, 1, 1, true),
        (3, 17 << 20, 2, 1, false),
        (5, 300 << 10, 1, 0, true),
    ] {
        let Some(broker) = mosquitto_or_skip() else {
            return;
        };
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("large");
        std::fs::write(&file, vec![b'x'; bytes]).unwrap();
        let sent = std::process::Command::new("mosquitto_pub")
            .args(["-h", "127.0.0.1", "-p", &broker.port.to_string(), "-q", "1"])
            .args(["-r", "-t", "ocellus/dev-1/porch/enter/set", "-f"])
            .arg(&file)
            .status();
        assert!(sent.unwrap().success());
        let health = Observer::start(broker.port, "ocellus/dev-1/health");
        let answers = Observer::start(broker.port, "ocellus/dev-1/cmd/result");
        let more = format!("version = {version}\n");
        let config = configure(dir.path(), &["porch"], broker.port, &more);
        let device = Device::start(&config);
        health.wait("what came is counted", |s| {
            s.json()["commands_dropped"] == dropped
        });
        for _ in 0..3 {
            let told = health.wait("a sign of life", |_| true).json();
            assert_eq!(told["broker_connects"], connections, "{bytes}: {told}");
            assert_eq!(told["commands_dropped"], dropped, "{bytes}: {told}");
        }
        let command = r#"{"id":"p","op":"ping"}"#;
        publish(broker.port, "ocellus/dev-1/cmd", command, false);
        let answer =
            answers.next_within(std::time::Duration::from_secs(if hears { 20 } else { 2 }));
        assert_eq!(answer.is_some(), hears, "{bytes}");
        assert!(device.stop().success());
    }
}
