//! MQTT 5: what waited is delivered with the time that it has left, and not at all once that is over.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ocellus::publish::mqtt::link::{Link, LinkEvent};
use serde_json::Value;

use crate::bench::Bench;
use crate::bounds::the_oldest_are_missing;
use crate::common::block_on;
use crate::common::mosquitto::reader;
use crate::firmware::Setup;
use crate::ledger::{DAY_MS, Name, ms_of_day, wait_until};

const LIFE_S: u64 = 4;

/// When it was seen, in milliseconds of the day, and how many seconds the broker says that it has left.
type Arrival = (Name, u64, Option<u64>);

/// Until `end`: everything that comes, with its expiry.
fn read(mut link: Link, end: &AtomicBool) -> Vec<Arrival> {
    let mut arrivals = Vec::new();
    block_on(async {
        while !end.load(SeqCst) {
            let next = tokio::time::timeout(Duration::from_millis(50), link.poll()).await;
            let Ok(Ok(LinkEvent::Incoming(m))) = next else {
                continue;
            };
            let said: Value = serde_json::from_slice(&m.payload).unwrap();
            let seen = ms_of_day(said["ts"].as_str().unwrap());
            let left = m.properties.expiry.map(|e| e.as_secs());
            arrivals.push(((m.topic, said["seq"].as_u64().unwrap()), seen, left));
        }
    });
    arrivals
}

#[test]
fn time_on_the_disk_counts() {
    let Some(mut b) = Bench::new(Setup {
        version: 5,
        fps: 20.0,
        mqtt: format!("observation_expiry_s = {LIFE_S}"),
        spool: "drain_rate = 0".into(),
        ..Setup::default()
    }) else {
        return;
    };
    let end = Arc::new(AtomicBool::new(false));
    let link = reader(b.broker.port, "ocellus/+/+/classification");
    let reading = std::thread::spawn({
        let end = end.clone();
        move || read(link, &end)
    });
    b.proxy.close();
    let firmware = b.home.start();
    wait_until("something is made", || b.home.made().len() > 10);
    std::thread::sleep(Duration::from_secs(LIFE_S + 1));
    let made = b.home.made();
    let opened = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let opened_ms = opened.as_millis() as u64 % DAY_MS;
    b.proxy.open();
    b.health("the spool is empty", |h| h["spool"] == 0);

    let is_event = |n: &&Name| n.0.ends_with("/event");
    let events: BTreeSet<Name> = made.iter().filter(is_event).cloned().collect();
    let observations: BTreeSet<Name> = made.difference(&events).cloned().collect();
    b.subscriber.wait_for(&events);
    let missing = the_oldest_are_missing(&b, &observations, "expired");
    assert!(missing > 0);
    end.store(true, SeqCst);
    let mut waited = 0;
    for (name, seen_ms, left_s) in reading.join().unwrap() {
        let left_s = left_s.unwrap_or_else(|| panic!("{name:?} lives for ever"));
        if !made.contains(&name) {
            continue;
        }
        waited += 1;
        // At least so long; whole seconds go over the wire, one at the least.
        let age_ms = (opened_ms + DAY_MS - seen_ms) % DAY_MS;
        assert!(age_ms < LIFE_S * 1000 + 100, "{name:?}: {age_ms} ms old");
        let most_s = (LIFE_S * 1000 + 100).saturating_sub(age_ms) / 1000;
        assert!(
            left_s <= most_s.max(1),
            "{name:?}: {left_s} s left, {age_ms} ms old"
        );
    }
    println!("{missing} had expired, {waited} came with what they had left");
    assert!(waited > 0);
    firmware.stop();
}
