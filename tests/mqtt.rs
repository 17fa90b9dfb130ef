//! The MQTT sink against a real mosquitto and against the embedded broker: every message against the schema.

mod common;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use common::mosquitto::{
    DEADLINE, Mosquitto, Observer, free_port, mosquitto_or_skip, mosquitto_with_or_skip, publish,
};
use common::schema::{check, check_seen};
use ocellus::clock::SystemClock;
use ocellus::controls::{CameraSettings, Controls};
use ocellus::frame::{FrameMeta, Truth};
use ocellus::observe::crops::CropResult;
use ocellus::observe::track::{TrackChange, TrackEvent};
use ocellus::observe::zones::{
    ByClass, Counts, LineCounts, Side, ZoneChange, ZoneCounts, ZoneEvent,
};
use ocellus::observe::{Followed, ModelRef, Observation, Publication, State, StateChange, Timing};
use ocellus::publish::Sink;
use ocellus::publish::mqtt::{
    self, DeviceInfo, ModelInfo, MqttSettings, MqttSink, STOP_LIMIT, payload, subscribe,
};
use ocellus::shutdown::Shutdown;
use ocellus::stats::Stats;
use ocellus::task::{BBox, Class, Detection, Embedding, EmbeddingType, TaskResult};
use serde_json::{Value, json};

fn settings(url: String) -> MqttSettings {
    MqttSettings {
        url,
        max_rate: 0.0,
        health_s: 0.2,
        heartbeat_s: 0.3,
        ..MqttSettings::default()
    }
}

/// The client on a thread with its own runtime, as `io` runs it.
struct Device {
    sink: MqttSink,
    stats: Arc<Stats>,
    controls: Arc<Controls>,
    shutdown: Shutdown,
    killed: Arc<tokio::sync::Notify>,
    thread: std::thread::JoinHandle<()>,
}

impl Device {
    fn start(settings: MqttSettings) -> Self {
        let stats = Arc::new(Stats::new(["porch".into(), "yard".into()]));
        let model = ModelInfo {
            id: "resnet18-int8".into(),
            sha256: "ab".repeat(32),
            tasks: vec!["classify".into(), "embed".into()],
            cameras: vec!["porch".into()],
            crops_of: None,
        };
        let info = DeviceInfo::new("dev-1", vec![model]);
        let clock = Arc::new(SystemClock);
        let camera = CameraSettings {
            max_rate: settings.max_rate,
            ..CameraSettings::default()
        };
        let controls = Arc::new(Controls::new(
            ["porch", "yard"].map(|id| (id.into(), camera)),
        ));
        let (sink, client) =
            mqtt::connect(settings, info, stats.clone(), controls.clone(), clock).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let shutdown = Shutdown::new();
        let killed = Arc::new(tokio::sync::Notify::new());
        let work = {
            let (shutdown, killed) = (shutdown.clone(), killed.clone());
            async move {
                tokio::select! {
                    () = client.run(shutdown) => {}
                    () = killed.notified() => {}
                }
            }
        };
        let thread = std::thread::spawn(move || {
            runtime.block_on(work);
            runtime.shutdown_background();
        });
        Self {
            sink,
            stats,
            controls,
            shutdown,
            killed,
            thread,
        }
    }

    fn observe(&self, o: Observation) {
        self.sink.publish(&Publication::Observation(Arc::new(o)));
    }

    fn camera(&self, online: bool) {
        let camera = "porch".into();
        self.sink
            .publish(&Publication::CameraStatus { camera, online });
    }

    /// Stops cleanly; returns how long it took.
    fn stop(self) -> Duration {
        let start = Instant::now();
        self.shutdown.request();
        self.thread.join().unwrap();
        start.elapsed()
    }

    /// As if the process had been killed: the socket closes, nothing is said.
    fn kill(self) {
        self.killed.notify_one();
        self.thread.join().unwrap();
    }

    fn wait_for(&self, what: &str, holds: impl Fn(&Stats) -> bool) {
        let start = Instant::now();
        while !holds(&self.stats) {
            assert!(start.elapsed() < DEADLINE, "did not happen: {what}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// A thing that came, then is in a zone, and so on.
fn followed(seq: u64) -> Followed {
    let bbox = BBox {
        x0: 0.25,
        y0: 0.5,
        x1: 0.75,
        y1: 1.0,
    };
    let changes = [TrackChange::New, TrackChange::Update, TrackChange::End];
    let track = |change| TrackEvent {
        change,
        id: 3,
        label: "person".into(),
        index: 0,
        score: 0.888_94,
        best_score: 0.91,
        bbox,
        lasted: Duration::from_millis(1500),
        path: match change {
            TrackChange::End => vec![(0.1, 0.2), (0.5, 0.75)],
            _ => vec![],
        },
    };
    let zone = |change| ZoneEvent {
        change,
        place: "door".into(),
        track: 3,
        label: "person".into(),
        bbox,
        lasted: Duration::from_millis(700),
    };
    let one = ByClass::from([("person".into(), seq)]);
    let counts = Counts {
        since: SystemTime::UNIX_EPOCH,
        zones: [(
            "door".into(),
            ZoneCounts {
                now: one.clone(),
                entered: one.clone(),
                left: ByClass::new(),
            },
        )]
        .into(),
        lines: [(
            "gate".into(),
            LineCounts {
                left: ByClass::new(),
                right: one,
            },
        )]
        .into(),
    };
    Followed {
        ids: vec![Some(3)],
        tracks: changes.map(track).into(),
        zones: [
            ZoneChange::Enter,
            ZoneChange::Dwell,
            ZoneChange::Leave,
            ZoneChange::Cross(Side::Right),
        ]
        .map(zone)
        .into(),
        counts: Some(counts.into()),
        counted: true,
    }
}

fn observation(seq: u64, change: Option<(Option<&str>, Option<&str>)>) -> Observation {
    let class = |label: &str, index, score| Class {
        index,
        label: label.into(),
        score,
    };
    let at = Instant::now();
    Observation {
        meta: FrameMeta {
            camera: "porch".into(),
            sequence: 1000 + seq,
            captured_at: at,
            wall_time: SystemTime::now(),
            truth: Some(Arc::new(Truth {
                label: Some("mailbox".into()),
                objects: vec![],
            })),
        },
        seq,
        frame_size: (1280, 720),
        model: Arc::new(ModelRef {
            id: "resnet18-int8".into(),
            sha256: "ab".repeat(32),
        }),
        results: vec![
            TaskResult::Classification(vec![
                class("mailbox", 637, 0.930_01),
                class("Briefkästen", 638, 0.05),
            ]),
            TaskResult::Detections(vec![Detection {
                label: "person".into(),
                index: 0,
                score: 0.888_94,
                bbox: BBox {
                    x0: 0.434_512,
                    y0: 0.0,
                    x1: 0.767,
                    y1: 1.0,
                },
            }]),
            TaskResult::Embedding(Embedding {
                // Larger than rumqttc's default packet limit.
                values: vec![0.022_097; 2048],
                l2_normalized: true,
                dtype: EmbeddingType::F32,
            }),
        ],
        timing: Timing {
            age: Duration::from_micros(48_123),
            decode: Duration::from_micros(6_200),
            preprocess: Duration::from_micros(2_010),
            infer: Duration::from_micros(31_700),
            decode_output: Duration::from_micros(301),
            crops: Some(Duration::from_micros(9_050)),
        },
        fps: 14.97,
        state: Some(State {
            label: Some("mailbox".into()),
            score: 0.91,
        }),
        change: change.map(|(from, to)| StateChange {
            from: from.map(Into::into),
            to: to.map(Into::into),
            score: 0.91,
            lasted: Duration::from_millis(2500),
        }),
        followed: Followed::default(),
        crops: vec![vec![Arc::new(CropResult {
            model: Arc::new(ModelRef {
                id: "reid".into(),
                sha256: "cd".repeat(32),
            }),
            captured_at: at - Duration::from_millis(1400),
            results: vec![
                TaskResult::Classification(vec![class("adult", 1, 0.8)]),
                TaskResult::Embedding(Embedding {
                    values: vec![1.0, -2.0],
                    l2_normalized: false,
                    dtype: EmbeddingType::F16,
                }),
            ],
        })]],
        requested: false,
    }
}

/// One whole life against any broker: every topic, payload, QoS and retained flag.
fn life(port: u16, version: u8) {
    let observer = Observer::start(port, "ocellus/#");
    let device = Device::start(MqttSettings {
        version,
        ..settings(format!("mqtt://127.0.0.1:{port}"))
    });
    device.camera(true);
    device.observe(Observation {
        followed: followed(1),
        ..observation(1, Some((None, Some("mailbox"))))
    });
    device.observe(observation(2, None));
    let mut seen = observer.collect("embedding 2", |s| {
        s.topic.ends_with("/embedding") && s.json()["seq"] == 2
    });
    seen.extend(observer.collect("health", |s| s.topic.ends_with("/health")));
    seen.extend(observer.collect("heartbeat", |s| {
        s.topic.ends_with("/state") && s.json()["seq"] == 2
    }));
    let published = device.stats.published.get();
    let took = device.stop();
    assert!(took <= STOP_LIMIT, "{took:?}");
    seen.extend(observer.collect("offline", |s| {
        s.topic == "ocellus/dev-1/status" && s.text() == "offline"
    }));
    seen.iter().for_each(check_seen);
    assert!(
        published > 0 && published <= seen.len() as u64,
        "{published}"
    );

    let mut count: BTreeMap<&str, usize> = BTreeMap::new();
    for s in &seen {
        *count.entry(&s.topic).or_default() += 1;
        let qos0 = ["/health", "/classification", "/detections", "/embedding"];
        let qos = u8::from(!qos0.iter().any(|t| s.topic.ends_with(t)));
        assert_eq!((s.qos, s.retained), (qos, false), "{}", s.topic);
    }
    assert_eq!(count["ocellus/dev-1/porch/classification"], 2);
    assert_eq!(count["ocellus/dev-1/porch/detections"], 2);
    assert_eq!(count["ocellus/dev-1/porch/embedding"], 2);
    assert_eq!(count["ocellus/dev-1/porch/event"], 1);
    assert_eq!(count["ocellus/dev-1/porch/track"], 3);
    assert_eq!(count["ocellus/dev-1/porch/zone"], 4);
    for topic in [
        "info",
        "health",
        "porch/status",
        "porch/state",
        "yard/status",
    ] {
        let topic = format!("ocellus/dev-1/{topic}");
        assert!(count.contains_key(&*topic), "{topic} in {count:?}");
    }
    let first = seen.iter().find(|s| s.topic.ends_with("classification"));
    let first = first.unwrap().json();
    assert_eq!(first["seq"], 1);
    assert_eq!(
        first["results"][0],
        json!({"label":"mailbox","index":637,"score":0.93})
    );
    assert_eq!(first["timing_ms"]["age"], json!(48.1));
    assert_eq!(first["truth"], json!({"label":"mailbox","objects":[]}));
    let found = seen.iter().find(|s| s.topic.ends_with("/detections"));
    assert_eq!(
        found.unwrap().json()["detections"],
        json!([{"label":"person","index":0,"score":0.8889,"box":[0.4345,0.0,0.767,1.0],"track":3,"crops":[{
            "model": {"id":"reid","sha256":"cd".repeat(32)},
            "age_ms": 1400.0,
            "results": [{"label":"adult","index":1,"score":0.8}],
            "embedding": {"dim":2,"dtype":"f16","l2_normalized":false,"b64":"ADwAwA=="},
        }]}])
    );
    if std::env::var("OCELLUS_SHOW_MESSAGES").is_ok() {
        seen.iter()
            .for_each(|s| println!("{} {}", s.topic, s.text()));
    }

    // What a newcomer finds.
    let late = Observer::start(port, "ocellus/#");
    publish(port, "ocellus/end", "x", false);
    let kept = late.collect("end", |s| s.topic == "ocellus/end");
    let kept: BTreeMap<_, _> = kept
        .iter()
        .filter(|s| s.retained)
        .map(|s| (&*s.topic, s))
        .collect();
    let topics: Vec<_> = kept.keys().copied().collect();
    assert_eq!(
        topics,
        [
            "ocellus/dev-1/info",
            "ocellus/dev-1/porch/counts",
            "ocellus/dev-1/porch/state",
            "ocellus/dev-1/porch/status",
            "ocellus/dev-1/status",
            "ocellus/dev-1/yard/status",
        ]
    );
    assert_eq!(kept["ocellus/dev-1/status"].text(), "offline");
    assert_eq!(kept["ocellus/dev-1/porch/status"].text(), "offline");
}

/// A killed device: the broker says `offline` for it.
fn will(port: u16) {
    let observer = Observer::start(port, "ocellus/+/status");
    let device = Device::start(settings(format!("mqtt://127.0.0.1:{port}")));
    observer.wait("online", |s| s.text() == "online");
    device.kill();
    observer.wait("the will", |s| {
        s.topic == "ocellus/dev-1/status" && s.text() == "offline"
    });
}

#[test]
fn a_life_on_mosquitto() {
    if let Some(broker) = mosquitto_or_skip() {
        life(broker.port, 3);
    }
}

#[test]
fn a_life_on_mosquitto_with_mqtt_5() {
    if let Some(broker) = mosquitto_or_skip() {
        life(broker.port, 5);
    }
}

#[test]
fn messages_of_mqtt_5_say_what_they_are() {
    use ocellus::publish::mqtt::link::{LinkEvent, Message};
    let Some(broker) = mosquitto_or_skip() else {
        return;
    };
    let device = Device::start(MqttSettings {
        version: 5,
        observation_expiry_s: 600,
        ..settings(broker.url())
    });
    let mut link = common::mosquitto::reader(broker.port, "ocellus/#");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let mut next = |kind: &str| -> Message {
        runtime.block_on(async {
            let found = async {
                loop {
                    match link.poll().await.unwrap() {
                        LinkEvent::Incoming(m) if m.topic.ends_with(kind) => return m,
                        _ => {}
                    }
                }
            };
            tokio::time::timeout(DEADLINE, found)
                .await
                .expect("did not come")
        })
    };
    let status = next("dev-1/status").properties;
    assert_eq!(status.content_type.as_deref(), Some("text/plain"));
    device.observe(observation(1, None));
    let p = next("/classification").properties;
    assert_eq!(p.content_type.as_deref(), Some("application/json"));
    assert_eq!(p.user, [("schema".to_string(), "1.0".to_string())]);
    let expiry = p.expiry.unwrap();
    assert!(expiry <= Duration::from_secs(600) && expiry > Duration::from_secs(500));
    device.stop();
}

/// Under 3.1.1 a broker cannot say so.
#[test]
fn what_a_broker_of_mqtt_5_refuses_is_counted_and_the_rest_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let rules = dir.path().join("rules");
    std::fs::write(&rules, "topic readwrite #\ntopic deny ocellus/+/+/event\n").unwrap();
    let extra = format!("acl_file {}", rules.display());
    let Some(broker) = mosquitto_with_or_skip(&extra) else {
        return;
    };
    let observer = Observer::start(broker.port, "ocellus/dev-1/#");
    let device = Device::start(MqttSettings {
        version: 5,
        ..settings(broker.url())
    });
    device.observe(observation(1, Some((None, Some("mailbox")))));
    device.observe(observation(2, None));
    let told = observer.wait("it is counted", |s| {
        s.topic.ends_with("/health") && s.json()["refused"] == 1
    });
    check_seen(&told);
    device.observe(observation(3, None));
    observer.wait("the rest", |s| {
        s.topic.ends_with("/classification") && s.json()["seq"] == 3
    });
    assert_eq!(device.stats.broker_connects.get(), 1);
    device.stop();
}

#[test]
fn the_will_on_mosquitto() {
    if let Some(broker) = mosquitto_or_skip() {
        will(broker.port);
    }
}

#[test]
fn a_camera_whose_inference_is_off_is_disabled() {
    let Some(broker) = mosquitto_or_skip() else {
        return;
    };
    let observer = Observer::start(broker.port, "ocellus/dev-1/porch/status");
    let device = Device::start(settings(broker.url()));
    device.camera(true);
    observer.wait("online", |s| s.text() == "online");
    let off = CameraSettings {
        inference: false,
        ..device.controls.settings(0)
    };
    device.controls.set(0, off);
    let disabled = observer.wait("disabled", |s| s.text() == "disabled");
    check_seen(&disabled);
    device.stop();
}

#[test]
fn a_broker_killed_and_restarted() {
    let Some(mut broker) = mosquitto_or_skip() else {
        return;
    };
    let device = Device::start(MqttSettings {
        qos: 1,
        ..settings(broker.url())
    });
    device.camera(true);
    device.observe(observation(1, None));
    device.wait_for("connected", |s| {
        s.broker_connected
            .load(std::sync::atomic::Ordering::Relaxed)
    });
    broker.kill();
    device.wait_for("cut", |s| {
        !s.broker_connected
            .load(std::sync::atomic::Ordering::Relaxed)
    });
    // While there is no broker.
    for seq in 2..=20 {
        device.observe(observation(seq, None));
    }
    // A subscriber that is there before the device comes back.
    let mut broker = {
        broker.restart();
        broker
    };
    let observer = Observer::start(broker.port, "ocellus/#");
    device.wait_for("back", |s| s.broker_connects.get() >= 2);
    device.observe(observation(21, None));
    observer.wait("observation 21", |s| {
        s.topic.ends_with("classification") && s.json()["seq"] == 21
    });
    let late = Observer::start(broker.port, "ocellus/dev-1/#");
    for _ in 0..3 {
        let s = late.wait("retained again", |s| s.retained);
        check_seen(&s);
    }
    device.stop();
    broker.kill();
}

#[test]
fn a_full_queue_is_counted_and_stopping_without_a_broker_is_quick() {
    let device = Device::start(MqttSettings {
        queue: 16,
        ..settings(format!("mqtt://127.0.0.1:{}", free_port()))
    });
    let start = Instant::now();
    for seq in 1..=100 {
        device.observe(observation(seq, None));
    }
    assert!(start.elapsed() < Duration::from_secs(1), "the sink blocked");
    assert_eq!(device.stats.queue_full.get(), 84);
    assert_eq!(device.stats.published.get(), 0);
    let took = device.stop();
    assert!(took <= STOP_LIMIT, "{took:?}");
}

#[test]
fn a_black_hole_does_not_hold_the_end() {
    // Its backlog accepts; nobody ever answers.
    let hole = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = hole.local_addr().unwrap().port();
    let device = Device::start(settings(format!("mqtt://127.0.0.1:{port}")));
    device.observe(observation(1, None));
    let (_held, _) = hole.accept().unwrap();
    let took = device.stop();
    assert!(took <= STOP_LIMIT + Duration::from_millis(150), "{took:?}");
}

#[test]
fn a_wrong_password_is_told_and_a_right_one_works() {
    let Some(_) = mosquitto_or_skip() else { return };
    let broker = Mosquitto::with_password("cam", "s3cret");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("password");
    let with = |password: &str| {
        std::fs::write(&file, format!("{password}\n")).unwrap();
        MqttSettings {
            username: Some("cam".into()),
            password_file: Some(file.clone()),
            ..settings(broker.url())
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let probe = |s: &MqttSettings| runtime.block_on(mqtt::probe(s, "dev-1"));
    let error = probe(&with("wrong-one")).unwrap_err();
    assert!(
        error.contains("refused") && error.contains("password"),
        "{error}"
    );
    assert!(!error.contains("wrong-one"));
    assert_eq!(probe(&with("s3cret")), Ok(()));
    let device = Device::start(with("s3cret"));
    device.wait_for("connected", |s| s.broker_connects.get() == 1);
    device.stop();
    let nobody = settings(format!("mqtt://127.0.0.1:{}", free_port()));
    assert!(probe(&nobody).unwrap_err().contains("no broker listens"));
}

#[test]
fn records_are_in_the_schema() {
    for change in [None, Some((Some("a"), Some("b"))), Some((Some("a"), None))] {
        let line = payload::record("dev-1", &observation(1, change));
        check("record", &serde_json::from_slice(&line).unwrap());
    }
    let line = payload::record(
        "dev-1",
        &Observation {
            followed: followed(1),
            ..observation(1, None)
        },
    );
    check("record", &serde_json::from_slice(&line).unwrap());
    let mut stateless = observation(1, None);
    stateless.state = None;
    let line = payload::record("dev-1", &stateless);
    check("record", &serde_json::from_slice(&line).unwrap());
    let line = payload::state("dev-1", &stateless);
    check("state", &serde_json::from_slice(&line).unwrap());
}

#[cfg(feature = "broker")]
mod embedded {
    use super::*;
    use ocellus::broker::{Broker, BrokerSettings};
    use std::io::{Read, Write};
    use std::net::TcpStream;

    fn broker() -> Broker {
        let listen = ([127, 0, 0, 1], 0).into();
        Broker::start(BrokerSettings {
            listen,
            login: None,
        })
        .unwrap()
    }

    #[test]
    fn a_life() {
        if mosquitto_or_skip().is_some() {
            let b = broker();
            life(broker_port(&b), 3);
        }
    }

    fn broker_port(b: &Broker) -> u16 {
        b.local_addr().port()
    }

    #[test]
    fn the_will() {
        if mosquitto_or_skip().is_some() {
            let b = broker();
            will(broker_port(&b));
        }
    }

    #[test]
    fn mosquittos_clients_agree_with_it() {
        if mosquitto_or_skip().is_none() {
            return;
        }
        let b = broker();
        let port = broker_port(&b);
        for i in 0..300 {
            publish_fast(port, i);
        }
        publish(port, "küche/licht", "an", true);
        publish(port, "a/b", "kept", true);
        // An empty payload without the flag leaves what is retained; with it, it is forgotten.
        publish(port, "a/b", "", false);
        publish(port, "gone", "x", true);
        publish(port, "gone", "", true);
        let two = [Observer::start(port, "#"), Observer::start(port, "+/+")];
        publish(port, "end/end", "x", false);
        let all = two[0].collect("end", |s| s.topic == "end/end");
        let kept = all.iter().filter(|s| s.retained).count();
        assert_eq!(kept, 300 + 2, "{kept}");
        let some = two[1].collect("end", |s| s.topic == "end/end");
        assert!(some.iter().any(|s| s.topic == "küche/licht" && s.retained));
        assert!(some.iter().any(|s| s.topic == "a/b" && s.text() == "kept"));
        assert!(!all.iter().any(|s| s.topic == "gone"));
    }

    /// A retained message by hand: 300 processes would take minutes.
    fn publish_fast(port: u16, i: u16) {
        let topic = format!("r/{i}");
        let mut bytes = vec![0x10, 12, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 0, 0, 0];
        bytes.extend([0x31, topic.len() as u8 + 3, 0, topic.len() as u8]);
        bytes.extend(topic.as_bytes());
        bytes.extend([b'x', 0xc0, 0, 0xe0, 0]);
        let mut s = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        s.write_all(&bytes).unwrap();
        let mut answer = vec![];
        s.read_to_end(&mut answer).unwrap();
        assert_eq!(answer, [0x20, 2, 0, 0, 0xd0, 0]);
    }

    #[test]
    fn bytes_of_strangers_cost_only_their_connection() {
        let b = broker();
        let port = broker_port(&b);
        let mut seed = 7u64;
        for round in 0..500usize {
            let mut s = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
            let mut bytes = vec![0x10, 12, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 0, 0, 0];
            bytes.truncate(if round % 2 == 0 { 14 } else { round % 14 });
            for _ in 0..64 {
                seed = seed
                    .wrapping_mul(6364136223846793005)
                    .wrapping_add(1442695040888963407);
                bytes.push((seed >> 33) as u8);
            }
            let _ = s.write_all(&bytes);
        }
        publish_fast(port, 1);
    }

    #[test]
    fn a_subscription_reads_what_the_device_says() {
        let b = broker();
        let url = format!("mqtt://127.0.0.1:{}", broker_port(&b));
        let settings = settings(url);
        let (mut subscription, run) =
            subscribe(&settings, "demo", "ocellus/+/+/classification", 64).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let device = runtime.block_on(async {
            let task = tokio::spawn(run);
            subscription.ready().await;
            let device = Device::start(settings);
            for seq in 1..=50 {
                device.observe(observation(seq, None));
            }
            for seq in 1..=50 {
                let message = tokio::time::timeout(DEADLINE, subscription.messages.recv());
                let message = message.await.unwrap().unwrap();
                let json: Value = serde_json::from_slice(&message.payload).unwrap();
                assert_eq!(json["seq"], seq);
                assert!(!message.retained);
            }
            drop(subscription);
            tokio::time::timeout(DEADLINE, task).await.unwrap().unwrap();
            device
        });
        assert!(device.stop() <= STOP_LIMIT);
    }
}
