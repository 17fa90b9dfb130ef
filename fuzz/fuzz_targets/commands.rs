//! Any messages on the topics that a device listens to: each is answered, or counted as dropped, and nothing panics.
//!
//! An input is messages with 0x1e 0x0a between them: the topic below the device's, a new line, the payload. `!` before the topic: the broker had
//! retained it; `>` behind it: where the answer is wanted (MQTT 5). Without a topic: the cameras give up what they were asked for.
#![no_main]

use std::collections::HashSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use libfuzzer_sys::fuzz_target;
use ocellus::clock::SystemClock;
use ocellus::config::{Config, Plan};
use ocellus::control::{Control, Parts, SavedSettings, camera_settings};
use ocellus::controls::Controls;
use ocellus::publish::mqtt::DeviceInfo;
use ocellus::publish::mqtt::link::{Message, Qos};
use ocellus::publish::mqtt::remote::{Remote, Wish};
use ocellus::shutdown::Shutdown;
use ocellus::stats::Stats;
use serde_json::Value;

const CONFIG: &str = "[device]\nid='dev'\n[[camera]]\nid='porch'\n[[camera]]\nid='yard'\n[[model]]\npath='m'\n[mqtt]\n";
/// Longer than any command takes.
const LONG: Duration = Duration::from_secs(60);
/// An answer repeats what is wrong; it must not repeat a stranger's megabytes.
const MAX_ANSWER_BYTES: usize = 8192;

fn plan() -> &'static Plan {
    static PLAN: OnceLock<Plan> = OnceLock::new();
    PLAN.get_or_init(|| {
        let (config, problems) = Config::parse(CONFIG);
        assert_eq!(problems, []);
        let plan = Plan::new(config, Path::new("")).expect("a plan");
        Plan {
            state_dir: None,
            ..plan
        }
    })
}

struct Bench {
    control: Control,
    controls: Arc<Controls>,
    stats: Arc<Stats>,
    now: Instant,
    /// Commands that were begun and not yet answered, by their ids.
    running: HashSet<String>,
}

impl Bench {
    fn new() -> Self {
        let plan = plan().clone();
        let ids = || plan.cameras.iter().map(|c| c.id.clone());
        let controls = Arc::new(Controls::new(ids().map(|id| (id, camera_settings(&plan)))));
        let stats = Arc::new(Stats::new(ids()));
        stats.cameras[0].online.store(true, Relaxed);
        let parts = Parts {
            device: DeviceInfo::new("dev", vec![]),
            controls: controls.clone(),
            saved: SavedSettings::default(),
            stats: stats.clone(),
            clock: Arc::new(SystemClock),
            shutdown: Shutdown::new(),
            restart: Arc::new(AtomicBool::new(false)),
            reread: None,
            supervised: false,
            plan,
        };
        Self {
            control: Control::new(parts),
            controls,
            stats,
            now: Instant::now(),
            running: HashSet::new(),
        }
    }

    /// Begun, refused, dropped.
    fn counts(&self) -> (u64, u64, u64) {
        let s = &self.stats;
        (
            s.commands.get(),
            s.commands_refused.get(),
            s.commands_dropped.get(),
        )
    }

    /// What is sent now. Returns how many messages. `refused`: the first answer with this id says that its command does not run, which
    /// another with the same id may do.
    fn drain(&mut self, mut refused: Option<String>) -> usize {
        let mut sent = 0;
        while let Some(wish) = self.control.poll(self.now) {
            let Wish::Send(message) = wish else { continue };
            sent += 1;
            assert!(message.payload.len() <= MAX_ANSWER_BYTES, "{message:?}");
            assert!(
                !message.topic.is_empty() && !message.topic.contains(['+', '#', '\0']),
                "{message:?}"
            );
            if message.topic.starts_with("ocellus/dev/")
                && message.topic != "ocellus/dev/cmd/result"
            {
                assert!(
                    message.retain && message.topic.ends_with("/state"),
                    "{message:?}"
                );
                continue;
            }
            let answer: Value =
                serde_json::from_slice(&message.payload).expect("an answer is JSON");
            assert_ne!(
                answer["ok"] == true,
                answer["error"].is_string(),
                "{answer}"
            );
            let id = answer["id"].to_string();
            if refused.take_if(|r| *r == id).is_none() {
                self.running.remove(&id);
            }
        }
        for camera in 0..2 {
            let s = self.controls.settings(camera);
            assert!(
                s.smoothing.leave <= s.smoothing.enter && (0.0..=1000.0).contains(&s.max_rate),
                "{s:?}"
            );
        }
        sent
    }

    fn receive(&mut self, message: &Message) {
        let before = self.counts();
        self.control.incoming(message, self.now);
        let below = message
            .topic
            .strip_prefix("ocellus/dev/")
            .unwrap_or_default();
        let levels: Vec<&str> = below.split('/').collect();
        let is_ours = below == "cmd" || matches!(levels[..], [_, _, "set"]);
        let id = serde_json::from_slice::<Value>(&message.payload)
            .ok()
            .map(|c| c["id"].to_string());
        let after = self.counts();
        if let (true, Some(id)) = (below == "cmd" && after.0 > before.0, id.clone()) {
            self.running.insert(id);
        }
        let is_refused = after.1 > before.1 && after.2 == before.2;
        let refused = id.clone().filter(|_| is_refused);
        let runs = below == "cmd" && id.is_some_and(|id| self.running.contains(&id));
        let sent = self.drain(refused);
        assert_eq!(
            is_ours,
            sent > 0 || after != before || runs,
            "{message:?}: {before:?}, then {after:?}"
        );
    }
}

fuzz_target!(|bytes: &[u8]| {
    let mut bench = Bench::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let end = rest.windows(2).position(|w| w == b"\x1e\n");
        let (record, more) = match end {
            Some(end) => (&rest[..end], &rest[end + 2..]),
            None => (rest, &rest[rest.len()..]),
        };
        rest = more;
        let split = record
            .iter()
            .position(|b| *b == b'\n')
            .unwrap_or(record.len());
        let head = String::from_utf8_lossy(&record[..split]);
        let (head, response_topic) = match head.split_once('>') {
            Some((head, response)) => (head, Some(response.to_string())),
            None => (&*head, None),
        };
        let (retain, topic) = match head.strip_prefix('!') {
            Some(topic) => (true, topic),
            None => (false, head),
        };
        if topic.is_empty() {
            bench.controls.take(0);
            bench.drain(None);
        } else {
            let payload = record.get(split + 1..).unwrap_or_default().to_vec();
            let mut message =
                Message::new(format!("ocellus/dev/{topic}"), Qos::AtLeastOnce, payload);
            message.retain = retain;
            message.properties.response_topic = response_topic;
            bench.receive(&message);
        }
        bench.now += Duration::from_millis(100);
    }
    bench.now += LONG;
    bench.drain(None);
    assert!(
        bench.running.is_empty(),
        "never answered: {:?}",
        bench.running
    );
});
