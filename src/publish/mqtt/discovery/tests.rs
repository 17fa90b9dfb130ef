use std::collections::BTreeMap;

use super::*;
use crate::publish::mqtt::link::Qos;

fn announced(cameras: &[&str]) -> Announced {
    let camera = |id: &&str| CameraComponents {
        id: (*id).into(),
        classified: true,
        tracked: true,
        zones: vec!["door".into(), "a-b".into()],
        lines: vec!["gate".into()],
    };
    Announced {
        prefix: "ocellus".into(),
        cameras: cameras.iter().map(camera).collect(),
        commands: true,
        images: true,
        temperature: true,
        heartbeat_s: 10.0,
        health_s: 30.0,
    }
}

fn discovery(format: DiscoveryFormat, cameras: &[&str]) -> Discovery {
    discovery_in(None, format, cameras)
}

fn discovery_in(state_dir: Option<&Path>, format: DiscoveryFormat, cameras: &[&str]) -> Discovery {
    discovery_of(state_dir, format, &announced(cameras))
}

fn discovery_of(
    state_dir: Option<&Path>,
    format: DiscoveryFormat,
    announced: &Announced,
) -> Discovery {
    let settings = DiscoverySettings {
        format,
        ..DiscoverySettings::default()
    };
    Discovery::new(
        settings,
        &DeviceInfo::new("dev", vec![]),
        announced,
        state_dir,
    )
}

/// What a broker keeps.
type Kept = BTreeMap<String, Vec<u8>>;

/// Connects, is told what the broker keeps of what it asked for, and says what it has to say.
fn connect(discovery: &mut Discovery, kept: &mut Kept) -> usize {
    let now = Instant::now();
    discovery.connected(now);
    for (topic, payload) in kept.iter() {
        discovery.incoming(&Message::retained(topic.clone(), payload.clone()), now);
    }
    assert_eq!(discovery.poll(now), None, "before everything was read back");
    say(discovery, kept, now + READ_BACK)
}

fn say(discovery: &mut Discovery, kept: &mut Kept, now: Instant) -> usize {
    let mut said = 0;
    while let Some(Wish::Send(message)) = discovery.poll(now) {
        assert!(message.retain && message.qos == Qos::AtLeastOnce);
        match message.payload.is_empty() {
            true => drop(kept.remove(&message.topic)),
            false => drop(kept.insert(message.topic, message.payload.to_vec())),
        }
        said += 1;
    }
    assert_eq!(discovery.poll(now + REFRESH_AFTER), Some(Wish::Refresh));
    assert_eq!(discovery.poll(now + REFRESH_AFTER), None);
    said
}

fn device_message(kept: &Kept) -> Value {
    serde_json::from_slice(&kept["homeassistant/device/ocellus_dev/config"]).unwrap()
}

#[test]
fn a_camera_that_left_leaves_home_assistant_in_the_device_form() {
    let mut kept = Kept::new();
    connect(
        &mut discovery(DiscoveryFormat::Device, &["a", "b"]),
        &mut kept,
    );
    let before = device_message(&kept)["components"]
        .as_object()
        .unwrap()
        .len();
    // The device starts again with one camera less.
    connect(&mut discovery(DiscoveryFormat::Device, &["a"]), &mut kept);
    assert_eq!(kept.len(), 1);
    let message = device_message(&kept);
    let components = message["components"].as_object().unwrap();
    assert_eq!(
        components.len(),
        before,
        "nothing is left out: Home Assistant must be told"
    );
    for (key, c) in components {
        let gone = key.starts_with("b-");
        assert_eq!(c.as_object().unwrap().len() == 1, gone, "{key}: {c}");
        assert!(c["platform"].is_string());
    }
    assert_eq!(components["b-class"], json!({"platform": "sensor"}));
    // Told again after the next start, in case Home Assistant was away; back if the camera is.
    connect(&mut discovery(DiscoveryFormat::Device, &["a"]), &mut kept);
    assert_eq!(device_message(&kept), message);
    connect(
        &mut discovery(DiscoveryFormat::Device, &["a", "b"]),
        &mut kept,
    );
    assert!(device_message(&kept)["components"]["b-class"]["unique_id"].is_string());
}

#[test]
fn a_camera_that_left_leaves_home_assistant_in_the_component_form() {
    let mut kept = Kept::new();
    connect(
        &mut discovery(DiscoveryFormat::Component, &["a", "b"]),
        &mut kept,
    );
    assert!(kept.contains_key("homeassistant/sensor/ocellus_dev/b-class/config"));
    connect(
        &mut discovery(DiscoveryFormat::Component, &["a"]),
        &mut kept,
    );
    assert!(kept.contains_key("homeassistant/sensor/ocellus_dev/a-class/config"));
    assert!(!kept.keys().any(|t| t.contains("/b-")), "{:?}", kept.keys());
}

#[test]
fn a_change_of_the_form_leaves_nothing_behind() {
    let mut kept = Kept::new();
    connect(
        &mut discovery(DiscoveryFormat::Component, &["a"]),
        &mut kept,
    );
    // Of another device.
    kept.insert(
        "homeassistant/sensor/ocellus_dev2/a-class/config".into(),
        b"{}".to_vec(),
    );
    connect(&mut discovery(DiscoveryFormat::Device, &["a"]), &mut kept);
    assert_eq!(kept.len(), 2);
    connect(
        &mut discovery(DiscoveryFormat::Component, &["a"]),
        &mut kept,
    );
    assert!(!kept.contains_key("homeassistant/device/ocellus_dev/config"));
    assert!(kept.contains_key("homeassistant/sensor/ocellus_dev2/a-class/config"));
}

#[test]
fn a_slow_broker_is_heard_too() {
    for format in [DiscoveryFormat::Device, DiscoveryFormat::Component] {
        let mut kept = Kept::new();
        connect(&mut discovery(format, &["a", "b"]), &mut kept);
        let old = std::mem::take(&mut kept);
        let mut d = discovery(format, &["a"]);
        connect(&mut d, &mut kept);
        let new = kept.clone();
        let late = Instant::now() + Duration::from_secs(10);
        for (topic, payload) in old {
            d.incoming(&Message::retained(topic.clone(), payload.clone()), late);
            kept.entry(topic).or_insert(payload);
        }
        say(&mut d, &mut kept, late + READ_BACK);
        match format {
            DiscoveryFormat::Component => assert_eq!(kept, new),
            DiscoveryFormat::Device => {
                let gone = &device_message(&kept)["components"]["b-class"];
                assert_eq!(*gone, json!({"platform": "sensor"}));
            }
        }
    }
}

#[test]
fn home_assistants_start_is_answered_after_a_while_and_only_a_fresh_one() {
    let mut kept = Kept::new();
    let mut d = discovery(DiscoveryFormat::Component, &["a"]);
    let all = connect(&mut d, &mut kept);
    let now = Instant::now() + Duration::from_secs(60);
    let mut birth = Message::new("homeassistant/status".into(), Qos::AtMostOnce, "online");
    birth.retain = true;
    d.incoming(&birth, now);
    assert_eq!(
        d.poll(now + LONGEST_DELAY),
        None,
        "that was before the connection"
    );
    birth.retain = false;
    d.incoming(&birth, now);
    d.incoming(&birth, now);
    assert_eq!(say(&mut d, &mut kept, now + LONGEST_DELAY), all);
}

#[test]
fn nonsense_on_our_topics_is_overwritten() {
    for nonsense in [
        &b"{"[..],
        b"[]",
        b"{\"components\":[]}",
        b"{\"components\":{\"x\":1}}",
        b"\xff",
    ] {
        let mut kept = Kept::new();
        kept.insert(
            "homeassistant/device/ocellus_dev/config".into(),
            nonsense.to_vec(),
        );
        kept.insert(
            "homeassistant/x/ocellus_dev/y/config".into(),
            nonsense.to_vec(),
        );
        connect(&mut discovery(DiscoveryFormat::Device, &["a"]), &mut kept);
        assert_eq!(kept.len(), 1);
        assert!(device_message(&kept)["components"].get("x").is_none());
    }
}

#[test]
fn what_is_turned_off_is_not_shown() {
    let keys = |commands, images| -> BTreeSet<String> {
        let announced = Announced {
            commands,
            images,
            ..announced(&["a"])
        };
        let d = discovery_of(None, DiscoveryFormat::Device, &announced);
        d.components.into_iter().map(|c| c.key).collect()
    };
    let all = keys(true, true);
    let without = |commands, images| -> Vec<String> {
        let some = keys(commands, images);
        assert!(some.is_subset(&all));
        all.difference(&some).cloned().collect()
    };
    assert_eq!(without(true, false), ["a-snapshot", "a-take_snapshot"]);
    let controls = [
        "a-enter",
        "a-infer_now",
        "a-inference",
        "a-leave",
        "a-max_rate",
        "a-take_snapshot",
        "a-threshold",
        "restart",
    ];
    assert_eq!(without(false, true), controls);
}

#[test]
fn zones_and_lines_are_counted() {
    let d = discovery(DiscoveryFormat::Device, &["a"]);
    let config = |key: &str| &d.components.iter().find(|c| c.key == key).unwrap().config;
    let door = config("a-door_now");
    assert_eq!(door["state_topic"], "ocellus/dev/a/counts");
    assert_eq!(
        door["value_template"],
        "{{ value_json.zones['door']['now'].values() | sum }}"
    );
    let gate = config("a-gate_to_the_right");
    assert_eq!(
        gate["json_attributes_template"],
        "{{ value_json.lines['gate']['right'] | tojson }}"
    );
    assert_eq!(
        config("a-zone")["event_types"],
        json!(["enter", "leave", "dwell", "cross"])
    );
}

#[test]
fn ids_are_unique_whatever_the_cameras_are_called() {
    let d = discovery(
        DiscoveryFormat::Device,
        &["a", "a_b", "a-b", "temperature", "x-class"],
    );
    let keys: BTreeSet<_> = d.components.iter().map(|c| c.key.clone()).collect();
    assert_eq!(keys.len(), d.components.len());
    let ids: BTreeSet<_> = d
        .components
        .iter()
        .map(|c| c.config["unique_id"].to_string())
        .collect();
    assert_eq!(ids.len(), d.components.len());
}

#[test]
fn a_camera_that_left_leaves_home_assistant_though_the_broker_forgot_it() {
    for format in [DiscoveryFormat::Device, DiscoveryFormat::Component] {
        let dir = tempfile::tempdir().unwrap();
        let device = |cameras: &[&str]| discovery_in(Some(dir.path()), format, cameras);
        connect(&mut device(&["a", "b"]), &mut Kept::new());
        // The broker is a new one, and the device starts with a camera less; twice, because the first time may fail.
        for _ in 0..2 {
            let mut device = device(&["a"]);
            for _ in 0..2 {
                let cleared = cleared(&mut device);
                assert!(cleared.contains("b-class"), "{cleared:?}");
                assert!(!cleared.contains("a-class"), "{cleared:?}");
            }
        }
        // The camera comes back.
        let cleared = cleared(&mut device(&["a", "b"]));
        assert_eq!(cleared, BTreeSet::new());
    }
}

/// Connects to a broker that keeps nothing: the keys of the components that Home Assistant is told to forget.
fn cleared(discovery: &mut Discovery) -> BTreeSet<String> {
    let now = Instant::now();
    discovery.connected(now);
    let mut keys = BTreeSet::new();
    while let Some(Wish::Send(message)) = discovery.poll(now + READ_BACK) {
        if let Some((_, key)) = discovery.parse_component_topic(&message.topic) {
            if message.payload.is_empty() {
                keys.insert(key.to_owned());
            }
        } else {
            let message: Value = serde_json::from_slice(&message.payload).unwrap();
            let components = message["components"].as_object().unwrap();
            let gone = components
                .iter()
                .filter(|(_, c)| c.get("unique_id").is_none());
            keys.extend(gone.map(|(key, _)| key.clone()));
        }
    }
    keys
}

#[test]
fn an_illegible_memory_is_written_anew() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("announced.json");
    std::fs::write(&file, "[1, 2").unwrap();
    discovery_in(Some(dir.path()), DiscoveryFormat::Device, &["a"]);
    let known: BTreeMap<String, String> =
        serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    assert_eq!(known["a-class"], "sensor");
}
