//! What was accepted, what arrived, and whether the two agree.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rumqttc::{Client, Event, MqttOptions, Packet, QoS};
use serde_json::Value;

use crate::common::mosquitto::DEADLINE;

const POLL: Duration = Duration::from_millis(20);

/// A day in milliseconds.
pub const DAY_MS: u64 = 86_400_000;

/// Topic and `seq`.
pub type Name = (String, u64);

/// A message that arrived.
#[derive(Debug, Clone)]
pub struct Receipt {
    pub name: Name,
    pub replayed: bool,
    /// The broker says that it delivers it again.
    pub again: bool,
    /// Of topic and payload.
    pub bytes: u64,
    /// When the picture was taken, in milliseconds of the day.
    captured_ms: u64,
}

impl Receipt {
    /// From this one's picture to the other's.
    pub fn ms_before(&self, later: &Self) -> u64 {
        (later.captured_ms + DAY_MS - self.captured_ms) % DAY_MS
    }
}

/// A subscriber with a persistent session that is there whenever the broker is.
pub struct Subscriber {
    receipts: Arc<Mutex<Vec<Receipt>>>,
    health: Arc<Mutex<Value>>,
    sessions: Arc<AtomicU64>,
    end: Arc<AtomicBool>,
    client: Client,
    thread: Option<JoinHandle<()>>,
}

impl Subscriber {
    pub fn start(port: u16) -> Self {
        let mut options = MqttOptions::new("ledger", "127.0.0.1", port);
        options
            .set_clean_session(false)
            .set_keep_alive(Duration::from_secs(5))
            .set_max_packet_size(1 << 20, 1 << 20);
        let (client, mut connection) = Client::new(options, 10);
        let receipts = Arc::new(Mutex::new(Vec::new()));
        let health = Arc::new(Mutex::new(Value::Null));
        let sessions = Arc::new(AtomicU64::new(0));
        let end = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let (receipts, health) = (receipts.clone(), health.clone());
            let (sessions, end, client) = (sessions.clone(), end.clone(), client.clone());
            move || {
                for event in connection.iter() {
                    match event {
                        Ok(Event::Incoming(Packet::ConnAck(_))) => {
                            let _ = client.try_subscribe("ocellus/#", QoS::AtLeastOnce);
                        }
                        Ok(Event::Incoming(Packet::SubAck(_))) => {
                            sessions.fetch_add(1, SeqCst);
                        }
                        Ok(Event::Incoming(Packet::Publish(p))) => {
                            if p.topic.ends_with("/health") {
                                *health.lock().unwrap() =
                                    serde_json::from_slice(&p.payload).unwrap();
                            }
                            if let Some(receipt) = receipt(&p) {
                                receipts.lock().unwrap().push(receipt);
                            }
                        }
                        Err(_) if end.load(SeqCst) => return,
                        Err(_) => std::thread::sleep(Duration::from_millis(10)),
                        _ => {}
                    }
                }
            }
        });
        let subscriber = Self {
            receipts,
            health,
            sessions,
            end,
            client,
            thread: Some(thread),
        };
        subscriber.wait_for_session(1);
        subscriber
    }

    /// How often it has subscribed.
    pub fn sessions(&self) -> u64 {
        self.sessions.load(SeqCst)
    }

    pub fn wait_for_session(&self, nth: u64) {
        wait_until("the subscriber is there", || self.sessions() >= nth);
    }

    /// The device's newest message on `health`.
    pub fn health(&self) -> Value {
        self.health.lock().unwrap().clone()
    }

    pub fn forget_health(&self) {
        *self.health.lock().unwrap() = Value::Null;
    }

    pub fn receipts(&self) -> Vec<Receipt> {
        self.receipts.lock().unwrap().clone()
    }

    pub fn names(&self) -> BTreeSet<Name> {
        self.receipts().into_iter().map(|r| r.name).collect()
    }

    /// Waits until all of them have arrived.
    pub fn wait_for(&self, all: &BTreeSet<Name>) {
        let start = Instant::now();
        loop {
            let names = self.names();
            let mut missing = all.difference(&names);
            let Some(first) = missing.next() else { return };
            let (more, count) = (missing.count(), all.len());
            assert!(
                start.elapsed() < DEADLINE,
                "{first:?} and {more} more of {count} messages did not arrive"
            );
            std::thread::sleep(POLL);
        }
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.end.store(true, SeqCst);
        let _ = self.client.try_disconnect();
        drop(self.thread.take());
    }
}

fn receipt(p: &rumqttc::Publish) -> Option<Receipt> {
    let kind = p.topic.rsplit('/').next()?;
    if !["classification", "embedding", "event"].contains(&kind) {
        return None;
    }
    assert!(!p.retain, "{}", p.topic);
    let m: Value = serde_json::from_slice(&p.payload).expect("torn message");
    Some(Receipt {
        name: (p.topic.clone(), m["seq"].as_u64().unwrap()),
        replayed: m["replayed"].as_bool().unwrap(),
        again: p.dup,
        bytes: (p.topic.len() + p.payload.len()) as u64,
        captured_ms: ms_of_day(m["ts"].as_str().unwrap()),
    })
}

/// Of `2026-11-23T17:34:14.083Z`.
pub fn ms_of_day(ts: &str) -> u64 {
    let number = |range: std::ops::Range<usize>| ts.get(range).and_then(|t| t.parse::<u64>().ok());
    let parts = [11..13, 14..16, 17..19, 20..23].map(|r| number(r).expect("a time"));
    ((parts[0] * 60 + parts[1]) * 60 + parts[2]) * 1000 + parts[3]
}

pub fn wait_until(what: &str, holds: impl Fn() -> bool) {
    wait_longer(what, DEADLINE, holds);
}

pub fn wait_longer(what: &str, limit: Duration, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < limit, "did not happen: {what}");
        std::thread::sleep(POLL);
    }
}

/// What the messages of one run came to.
#[derive(Debug, Default, Clone)]
pub struct Tally {
    pub accepted: usize,
    pub arrived: usize,
    pub late: usize,
    pub duplicates: usize,
    pub by_broker: usize,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} messages accepted, all arrived ({} different ones in all); {} came late or again and marked, {} a second time, {} of those by the broker itself; order kept",
            self.accepted, self.arrived, self.late, self.duplicates, self.by_broker
        )
    }
}

/// Every accepted message arrived; every duplicate is marked; the order of each camera holds over all its topics: of all first
/// arrivals if `strict`, else of those that came live and of those that came late, each for itself.
pub fn judge(accepted: &BTreeSet<Name>, receipts: &[Receipt], strict: bool) -> Tally {
    let mut seen = BTreeSet::new();
    let mut last: BTreeMap<(&str, bool), u64> = BTreeMap::new();
    let mut tally = Tally {
        accepted: accepted.len(),
        ..Tally::default()
    };
    for r in receipts {
        tally.late += usize::from(r.replayed);
        if !seen.insert(&r.name) {
            tally.duplicates += 1;
            tally.by_broker += usize::from(r.again);
            assert!(r.replayed || r.again, "an unmarked duplicate: {:?}", r.name);
            continue;
        }
        let (topic, seq) = &r.name;
        let camera = topic.rsplit_once('/').unwrap().0;
        let lane = (camera, r.replayed && !strict);
        if let Some(before) = last.insert(lane, *seq) {
            // One observation may be several messages.
            assert!(
                before <= *seq,
                "{topic}: {seq} after {before} (replayed: {})",
                r.replayed
            );
        }
    }
    tally.arrived = seen.len();
    let lost: Vec<&Name> = accepted.iter().filter(|n| !seen.contains(n)).collect();
    assert!(
        lost.is_empty(),
        "{} of {} accepted messages are lost: {:?}",
        lost.len(),
        accepted.len(),
        &lost[..lost.len().min(10)]
    );
    tally
}
