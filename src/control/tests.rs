//! What strangers can send, against every rule at once.

use proptest::prelude::*;

use super::*;
use crate::clock::SystemClock;
use crate::config::Config;
use crate::controls::Request;
use crate::frame::{Frame, FrameMeta, FramePool, Geometry, PixelFormat};

struct Bench {
    control: Control,
    controls: Arc<Controls>,
    stats: Arc<Stats>,
    restart: Arc<AtomicBool>,
    shutdown: Shutdown,
    now: Instant,
    pictures_dropped: usize,
}

fn plan(text: &str) -> Result<Plan, String> {
    let (config, problems) = Config::parse(text);
    let told = |p: &[crate::config::Problem]| {
        p.iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("; ")
    };
    if !problems.is_empty() {
        return Err(told(&problems));
    }
    let plan = Plan::new(config, std::path::Path::new("")).map_err(|p| told(&p))?;
    let state_dir = None;
    Ok(Plan { state_dir, ..plan })
}

const BASE: &str =
    "[device]\nid='dev'\n[[camera]]\nid='porch'\n[[camera]]\nid='yard'\n[[model]]\npath='m'\n";

impl Bench {
    fn new(more: &str, state_dir: Option<&std::path::Path>, reread: Option<Reread>) -> Self {
        let mut plan = plan(&format!("{BASE}[mqtt]\n{more}")).unwrap();
        plan.state_dir = state_dir.map(Into::into);
        let controls = Arc::new(Controls::new(
            plan.cameras
                .iter()
                .map(|c| (c.id.clone(), camera_settings(&plan))),
        ));
        let stats = Arc::new(Stats::new(plan.cameras.iter().map(|c| c.id.clone())));
        stats.cameras[0].online.store(true, Relaxed);
        let (shutdown, restart) = (Shutdown::new(), Arc::new(AtomicBool::new(false)));
        let parts = Parts {
            device: DeviceInfo::new("dev", vec![]),
            thresholds: vec![],
            controls: controls.clone(),
            saved: SavedSettings::default(),
            stats: stats.clone(),
            clock: Arc::new(SystemClock),
            shutdown: shutdown.clone(),
            restart: restart.clone(),
            reread,
            supervised: false,
            plan,
        };
        Self {
            control: Control::new(parts),
            controls,
            stats,
            restart,
            shutdown,
            now: Instant::now(),
            pictures_dropped: 0,
        }
    }

    /// A second later: no limit holds.
    fn later(&mut self) {
        self.now += Duration::from_secs(1);
    }

    fn receive(&mut self, topic: &str, payload: &[u8]) -> Vec<Message> {
        self.later();
        self.receive_now(topic, payload)
    }

    fn receive_now(&mut self, topic: &str, payload: &[u8]) -> Vec<Message> {
        let message = Message::new(topic.into(), Qos::AtLeastOnce, payload.to_vec());
        self.control.incoming(&message, self.now);
        self.drain()
    }

    fn drain(&mut self) -> Vec<Message> {
        let mut sent = Vec::new();
        while let Some(wish) = self.control.poll(self.now) {
            match wish {
                Wish::Send(message) | Wish::SendLatest(message) => sent.push(message),
                Wish::DropPictures => self.pictures_dropped += 1,
                Wish::Refresh => break,
            }
        }
        sent
    }

    /// A command's answer.
    fn ask(&mut self, command: Value) -> Value {
        let sent = self.receive("ocellus/dev/cmd", command.to_string().as_bytes());
        answer_in(&sent).unwrap_or_else(|| self.await_answer())
    }

    /// The answer of a command that takes its time.
    fn await_answer(&mut self) -> Value {
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(answer) = answer_in(&self.drain()) {
                return answer;
            }
            assert!(Instant::now() < end, "no answer");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn busy(&self) -> usize {
        self.control.jobs.len() + self.control.to_save.len()
    }
}

fn answer_in(sent: &[Message]) -> Option<Value> {
    let answer = sent.iter().find(|m| m.topic == "ocellus/dev/cmd/result")?;
    Some(serde_json::from_slice(&answer.payload).unwrap())
}

fn grey() -> Frame {
    let mut data = FramePool::new(0).take();
    data.extend_from_slice(&[128; 64 * 48]);
    Frame {
        format: PixelFormat::Grey,
        geometry: Geometry::packed(64, 48, PixelFormat::Grey),
        data,
        meta: FrameMeta::of_still("porch"),
        mask: None,
    }
}

#[test]
fn a_command_runs_once_and_each_time_has_its_answer() {
    let mut bench = Bench::new("", None, None);
    let set = json!({"id": "s1", "op": "set", "args": {"camera": "porch", "enter": 0.8}});
    let first = bench.ask(set.clone());
    assert_eq!((&first["id"], &first["ok"]), (&json!("s1"), &json!(true)));
    assert_eq!(first["result"]["enter"], json!(0.8));
    assert_eq!(bench.controls.settings(0).smoothing.enter, 0.8);
    assert_eq!(bench.controls.settings(1).smoothing.enter, 0.6);
    // By somebody else meanwhile: the repeated command does not undo it.
    let sent = bench.receive("ocellus/dev/porch/enter/set", b"0.9");
    assert_eq!(
        (&*sent[0].topic, &*sent[0].payload),
        ("ocellus/dev/porch/enter/state", &b"0.9"[..])
    );
    assert!(sent[0].retain);
    assert_eq!(bench.ask(set), first);
    assert_eq!(bench.controls.settings(0).smoothing.enter, 0.9);
    assert_eq!(bench.stats.commands.get(), 2);
    // A wrong one is remembered, too.
    let wrong = json!({"id": 5, "op": "set", "args": {"camera": "porch", "leave": 0.99}});
    let refused = bench.ask(wrong.clone());
    assert_eq!((&refused["id"], &refused["ok"]), (&json!(5), &json!(false)));
    assert!(refused["error"].as_str().unwrap().contains("above enter"));
    assert_eq!(bench.ask(wrong), refused);
}

#[test]
fn info_names_what_can_be_set() {
    let mut bench = Bench::new("max_rate=3.5", None, None);
    let info = bench.ask(json!({"id": "i", "op": "info"}))["result"].clone();
    assert_eq!(info["cameras"][0]["camera"], "porch");
    assert_eq!(info["cameras"][0]["max_rate"], 3.5);
    assert_eq!(info["cameras"][0]["online"], true);
    assert_eq!(info["cameras"][1]["online"], false);
    assert!(info["ops"].as_array().unwrap().contains(&json!("snapshot")));
    assert_eq!(
        bench.ask(json!({"id": "p", "op": "ping"}))["result"],
        json!({})
    );
}

#[test]
fn a_picture_is_made_within_its_limits() {
    let mut bench = Bench::new(
        "[snapshot]\nmax_side_px=32\nquality=70\nretain=true",
        None,
        None,
    );
    let ask = |args: Value| json!({"id": args.to_string(), "op": "snapshot", "args": args});
    let refused = |bench: &mut Bench, args| {
        let answer = bench.ask(ask(args));
        answer["error"].as_str().unwrap().to_string()
    };
    assert!(refused(&mut bench, json!({})).contains("which `camera`"));
    assert!(refused(&mut bench, json!({"camera": "yard"})).contains("offline"));
    assert!(refused(&mut bench, json!({"camera": "hall"})).contains("no camera `hall`"));
    assert!(
        refused(&mut bench, json!({"camera": "porch", "quality": 90})).contains("between 1 and 70")
    );
    assert!(
        refused(&mut bench, json!({"camera": "porch", "max_side_px": 33}))
            .contains("snapshot.max_side_px")
    );
    let command = ask(json!({"camera": "porch", "quality": 50})).to_string();
    assert!(
        bench
            .receive("ocellus/dev/cmd", command.as_bytes())
            .is_empty()
    );
    assert!(
        refused(&mut bench, json!({"camera": "porch", "quality": 51})).contains("another picture")
    );
    let (_, mut requests) = bench.controls.take(0);
    let Some(Request::Frame(answer)) = requests.pop() else {
        panic!("{requests:?}")
    };
    answer.send(Ok(grey())).unwrap();
    let end = Instant::now() + Duration::from_secs(20);
    let sent = loop {
        let sent = bench.drain();
        if !sent.is_empty() {
            break sent;
        }
        assert!(Instant::now() < end);
    };
    assert_eq!(
        (&*sent[0].topic, sent[0].retain),
        ("ocellus/dev/porch/snapshot", true)
    );
    assert!(sent[0].payload.starts_with(&[0xff, 0xd8, 0xff]));
    let result = answer_in(&sent).unwrap()["result"].clone();
    assert_eq!(
        (&result["width"], &result["height"]),
        (&json!(32), &json!(24))
    );
    assert_eq!(result["bytes"], sent[0].payload.len());

    let mut private = Bench::new("[privacy]\nimages=false", None, None);
    assert!(refused(&mut private, json!({"camera": "porch"})).contains("privacy.images = false"));
    assert_eq!(private.busy(), 0);
    let info = private.ask(json!({"id": "i", "op": "info"}));
    let ops = info["result"]["ops"].as_array().unwrap();
    assert!(ops.contains(&json!("infer")) && !ops.contains(&json!("snapshot")));
}

#[test]
fn a_camera_that_gives_no_frame_has_a_deadline() {
    let mut bench = Bench::new("", None, None);
    let command = json!({"id": 1, "op": "infer", "args": {"camera": "porch"}}).to_string();
    assert!(
        bench
            .receive("ocellus/dev/cmd", command.as_bytes())
            .is_empty()
    );
    // The same command again while it runs.
    assert!(
        bench
            .receive("ocellus/dev/cmd", command.as_bytes())
            .is_empty()
    );
    assert_eq!(bench.busy(), 1);
    bench.now += Duration::from_secs(16);
    let answer = answer_in(&bench.drain()).unwrap();
    assert!(answer["error"].as_str().unwrap().contains("within 15 s"));
    let Some(Request::Infer(given_up)) = bench.controls.take(0).1.pop() else {
        panic!()
    };
    assert!(given_up.is_closed());
}

#[test]
fn settings_are_kept_if_asked() {
    let dir = tempfile::tempdir().unwrap();
    let mut bench = Bench::new("", Some(dir.path()), None);
    bench.ask(json!({"id": 1, "op": "set", "args": {"camera": "porch", "leave": 0.1}}));
    assert_eq!(SavedSettings::load(dir.path()), SavedSettings::default());
    let args = json!({"camera": "porch", "inference": false, "persist": true});
    let answer = bench.ask(json!({"id": 2, "op": "set", "args": args}));
    assert_eq!(answer["result"]["inference"], false, "{answer}");
    let saved = SavedSettings::load(dir.path());
    let kept: Vec<_> = saved.cameras["porch"].keys().cloned().collect();
    assert_eq!(kept, ["inference"]);
    // Where it cannot be kept, the answer says so.
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let mut bench = Bench::new("", Some(&file), None);
    let answer = bench.ask(json!({"id": 2, "op": "set", "args": args}));
    assert!(
        answer["error"].as_str().unwrap().contains("cannot write"),
        "{answer}"
    );
    let mut bench = Bench::new("", None, None);
    let answer = bench.ask(json!({"id": 2, "op": "set", "args": args}));
    assert!(
        answer["error"]
            .as_str()
            .unwrap()
            .contains("device.state_dir"),
        "{answer}"
    );
    assert!(bench.controls.settings(0).inference);
}

#[test]
fn a_wrong_configuration_changes_nothing_and_a_right_one_says_what_it_did() {
    let text = Arc::new(std::sync::Mutex::new(format!("{BASE}[mqtt]\nmax_rat=1")));
    let reread: Reread = {
        let text = text.clone();
        Arc::new(move || plan(&text.lock().unwrap()))
    };
    let mut bench = Bench::new("", None, Some(reread));
    let before = bench.controls.settings(0);
    let answer = bench.ask(json!({"id": 1, "op": "reload"}));
    assert!(
        answer["error"].as_str().unwrap().contains("max_rate"),
        "{answer}"
    );
    assert_eq!(bench.controls.settings(0), before);

    bench.ask(json!({"id": 2, "op": "set", "args": {"camera": "yard", "enter": 0.5}}));
    *text.lock().unwrap() = format!(
        "{BASE}[mqtt]\nmax_rate=1.0\nqos=1\n[smoothing]\nleave=0.55\n[privacy]\nimages=false"
    );
    let result = bench.ask(json!({"id": 3, "op": "reload"}))["result"].clone();
    assert_eq!(
        result["applied"],
        json!(["smoothing.leave", "mqtt.max_rate", "privacy.images"])
    );
    assert_eq!(result["needs_restart"], json!(["mqtt"]));
    assert_eq!(bench.controls.settings(0).max_rate, 1.0);
    assert_eq!(bench.controls.settings(0).smoothing.leave, 0.55);
    // What was set does not fit any more.
    assert_eq!(bench.controls.settings(1).smoothing.enter, 0.6);
    let picture = bench.ask(json!({"id": 4, "op": "snapshot", "args": {"camera": "porch"}}));
    assert!(
        picture["error"]
            .as_str()
            .unwrap()
            .contains("privacy.images")
    );
    // What waits for the broker is not sent any more.
    assert_eq!(bench.pictures_dropped, 1);

    *text.lock().unwrap() = format!("{BASE}[mqtt]\nmax_rate=1.0\ncommands=false");
    bench.ask(json!({"id": 5, "op": "reload"}));
    let dropped = bench.stats.commands_dropped.get();
    assert!(
        bench
            .receive("ocellus/dev/cmd", br#"{"id":6,"op":"ping"}"#)
            .is_empty()
    );
    assert_eq!(bench.stats.commands_dropped.get(), dropped + 1);
}

#[test]
fn a_restart_is_answered_first_and_not_made_a_habit() {
    let mut bench = Bench::new("", None, None);
    assert_eq!(bench.ask(json!({"id": 1, "op": "restart"}))["ok"], true);
    assert!(!bench.shutdown.is_requested());
    bench.later();
    bench.drain();
    assert!(bench.shutdown.is_requested() && bench.restart.load(Relaxed));
    let mut service = Bench::new("", None, None);
    service.control.parts.supervised = true;
    let answer = service.ask(json!({"id": 1, "op": "restart"}));
    assert!(
        answer["error"].as_str().unwrap().contains("150 s"),
        "{answer}"
    );
}

#[test]
fn floods_retained_messages_and_strangers_topics() {
    let mut bench = Bench::new("", None, None);
    let mut answers = 0;
    for n in 0..500 {
        answers += bench
            .receive_now(
                "ocellus/dev/cmd",
                json!({"id": n, "op": "ping"}).to_string().as_bytes(),
            )
            .len();
    }
    assert_eq!(answers, 40, "20 obeyed, 20 refused");
    assert_eq!(
        (
            bench.stats.commands.get(),
            bench.stats.commands_dropped.get()
        ),
        (20, 460)
    );
    // A refusal of the flood is not remembered.
    assert_eq!(bench.ask(json!({"id": 499, "op": "ping"}))["ok"], true);

    let mut old = Message::retained("ocellus/dev/cmd".into(), r#"{"id":"r","op":"restart"}"#);
    bench.later();
    bench.control.incoming(&old, bench.now);
    old.topic = "ocellus/dev/porch/inference/set".into();
    old.payload = "OFF".into();
    bench.control.incoming(&old, bench.now);
    assert!(bench.drain().is_empty() && bench.control.restart_at.is_none());
    assert!(bench.controls.settings(0).inference);
    assert_eq!(bench.stats.commands_dropped.get(), 462);

    for topic in [
        "ocellus/other/cmd",
        "ocellus/dev/cmd/result",
        "ocellus/dev/porch/enter/state",
        "homeassistant/status",
    ] {
        assert!(bench.receive(topic, b"{}").is_empty(), "{topic}");
    }
    let sent = bench.receive("ocellus/dev/porch/enter/set", b"lots");
    assert_eq!(
        answer_in(&sent).unwrap()["error"],
        "porch/enter: must be a number"
    );
    assert_eq!(
        (&*sent[1].topic, &*sent[1].payload),
        ("ocellus/dev/porch/enter/state", &b"0.6"[..])
    );
}

#[test]
fn an_answer_goes_where_it_was_asked_for_with_what_was_sent_along() {
    let mut bench = Bench::new("", None, None);
    let mut ask = |topic: &str| {
        bench.later();
        let id = topic.len();
        let mut m = Message::new(
            "ocellus/dev/cmd".into(),
            Qos::AtLeastOnce,
            json!({"id": id, "op": "ping"}).to_string(),
        );
        m.properties.response_topic = Some(topic.into());
        m.properties.correlation_data = Some(Bytes::from_static(b"\x00\xff"));
        bench.control.incoming(&m, bench.now);
        bench.drain().remove(0)
    };
    let answer = ask("my/answers");
    assert_eq!(answer.topic, "my/answers");
    assert_eq!(
        answer.properties.correlation_data.as_deref(),
        Some(&b"\x00\xff"[..])
    );
    for bad in [
        "",
        "a/#",
        "+/abc",
        "$SYS/x/y",
        "ocellus/dev/cmd",
        "ocellus/dev/porch/status",
        "homeassistant/device/x/config",
    ] {
        assert_eq!(ask(bad).topic, "ocellus/dev/cmd/result", "{bad}");
    }
}

/// JSON that is nearly a command.
fn near_command() -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![
        "ping|info|infer|snapshot|set|reload|restart|pnig",
        "porch|yard|hall|camera|enter|leave|inference|max_rate|persist|quality|max_side_px",
        "\\PC{0,20}",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (0.0..1.0).prop_map(Value::from),
        word.clone().prop_map(Value::from),
    ];
    let value = leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::hash_map("camera|enter|leave|x", inner, 0..4)
                .prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    });
    let args = proptest::collection::hash_map(word.clone(), value.clone(), 0..4)
        .prop_map(|m| Value::Object(m.into_iter().collect()));
    let command = (value.clone(), word, prop_oneof![args, value]).prop_map(|(id, op, args)| {
        json!({"id": id, "op": op, "args": args})
            .to_string()
            .into_bytes()
    });
    // Some with a byte that is not right.
    (
        command,
        proptest::option::of((any::<prop::sample::Index>(), any::<u8>())),
    )
        .prop_map(|(mut bytes, change)| {
            if let Some((at, byte)) = change {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            bytes
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    /// Whatever arrives: an answer, a counted drop, or something under way that will answer; and the settings hold their rule.
    #[test]
    fn whatever_arrives_is_answered_or_counted(
        messages in proptest::collection::vec(
            (
                prop_oneof![
                    4 => Just("ocellus/dev/cmd".to_string()),
                    2 => "ocellus/dev/(porch|hall|\\PC{0,5})/(enter|leave|inference|threshold|max_rate|\\PC{0,5})/set",
                    1 => "\\PC{0,30}",
                ],
                prop_oneof![
                    near_command(),
                    proptest::collection::vec(any::<u8>(), 0..200),
                    "-?[0-9.]{0,6}|ON|OFF|NaN".prop_map(String::into_bytes),
                ],
                any::<bool>(),
                proptest::option::of("\\PC{0,10}"),
            ),
            1..30,
        )
    ) {
        let mut bench = Bench::new("", None, None);
        for (topic, payload, retain, response_topic) in messages {
            let below = topic.strip_prefix("ocellus/dev/").unwrap_or_default();
            let levels: Vec<_> = below.split('/').collect();
            let ours = below == "cmd" || matches!(levels[..], [_, _, "set"]);
            let (dropped, busy) = (bench.stats.commands_dropped.get(), bench.busy());
            let known = request::parse(&payload).ok().and_then(|(id, _)| bench.control.memory.get(&id));
            let mut message = Message::new(topic, Qos::AtLeastOnce, payload);
            message.retain = retain;
            message.properties.response_topic = response_topic;
            bench.control.incoming(&message, bench.now);
            let sent = bench.drain();
            let under_way = bench.busy() > busy || known == Some(Known::Running);
            let counted = bench.stats.commands_dropped.get() > dropped;
            prop_assert_eq!(ours, !sent.is_empty() || counted || under_way);
            for m in &sent {
                prop_assert!(m.payload.len() < 8192, "an answer of {} bytes", m.payload.len());
                if m.retain {
                    prop_assert!(m.topic.ends_with("/state"));
                } else {
                    let answer: Value = serde_json::from_slice(&m.payload).unwrap();
                    prop_assert_eq!(answer["ok"] == json!(true), answer["error"].is_null());
                }
            }
            for camera in 0..2 {
                let s = bench.controls.settings(camera);
                prop_assert!(s.smoothing.leave <= s.smoothing.enter);
                prop_assert!(s.max_rate >= 0.0 && s.max_rate <= 1000.0);
            }
            bench.now += Duration::from_millis(100);
        }
        prop_assert!(bench.control.outbox.is_empty() && bench.busy() <= MAX_JOBS);
    }
}
