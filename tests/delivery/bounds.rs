//! What the spool may keep and how fast it gives it back, as those who subscribe see it.

use std::collections::{BTreeMap, BTreeSet};

use crate::bench::Bench;
use crate::firmware::{Firmware, Setup};
use crate::ledger::{Name, Receipt, wait_until};

/// Of `max_bytes`: the least that can be configured.
const LEAST_BYTES: u64 = 65536;

/// The program has lived without a broker until far more was stored than may be kept; then there is one, and the spool is empty
/// again. Returns also what had been made until then.
fn after_an_outage(bound: &str) -> Option<(Bench, Firmware, BTreeSet<Name>)> {
    let mut b = Bench::new(Setup {
        fps: 40.0,
        spool: format!("drain_rate = 0\n{bound}"),
        ..Setup::default()
    })?;
    b.proxy.close();
    let firmware = b.home.start();
    wait_until("something is dropped", || {
        b.home.log().contains("beyond the bounds dropped")
    });
    wait_until("much is stored", || b.home.stored().len() > 400);
    let made = b.home.made();
    b.proxy.open();
    b.health("the spool is empty", |h| h["spool"] == 0);
    Some((b, firmware, made))
}

/// Of what was made, the oldest of each camera are missing and nothing else, as many as `health` counts there. Returns how many.
pub fn the_oldest_are_missing(b: &Bench, made: &BTreeSet<Name>, counter: &str) -> u64 {
    let names = b.subscriber.names();
    let camera = |n: &Name| n.0.rsplit_once('/').map(|(camera, _)| camera.to_string());
    let (mut newest_missing, mut oldest_there) = (BTreeMap::new(), BTreeMap::new());
    for name in made {
        match names.contains(name) {
            true => {
                let oldest = oldest_there.entry(camera(name)).or_insert(u64::MAX);
                *oldest = name.1.min(*oldest);
            }
            false => {
                let newest = newest_missing.entry(camera(name)).or_insert(0);
                *newest = name.1.max(*newest);
            }
        }
    }
    // One observation may be several messages, of which the first are gone.
    for (camera, newest) in &newest_missing {
        let oldest = oldest_there.get(camera).expect("nothing arrived");
        assert!(newest <= oldest, "{newest} is missing, {oldest} is there");
    }
    let missing = made.difference(&names).count() as u64;
    let health = b.health("it is told", |h| h.is_object());
    assert_eq!(health[counter], missing, "{health}");
    assert_eq!(health["queue_full"], 0, "{health}");
    missing
}

fn replayed(b: &Bench) -> Vec<Receipt> {
    let mut receipts = b.subscriber.receipts();
    receipts.retain(|r| r.replayed);
    receipts
}

#[test]
fn beyond_its_bytes_the_oldest_go_and_are_counted() {
    let Some((b, firmware, made)) = after_an_outage(&format!("max_bytes = {LEAST_BYTES}")) else {
        return;
    };
    let missing = the_oldest_are_missing(&b, &made, "spool_dropped");
    let kept = replayed(&b);
    let bytes: u64 = kept.iter().map(|r| r.bytes + 64).sum();
    println!(
        "{} messages kept, {bytes} bytes; {missing} dropped",
        kept.len()
    );
    // `true` is a byte shorter than the `false` that was stored; the oldest of those dropped was the last too much.
    let stored = bytes + kept.len() as u64;
    assert!(
        (LEAST_BYTES - 2048..=LEAST_BYTES).contains(&stored),
        "{stored} bytes were kept"
    );
    firmware.stop();
}

#[test]
fn beyond_its_age_the_oldest_go_and_are_counted() {
    let Some((b, firmware, made)) = after_an_outage("max_age_s = 2") else {
        return;
    };
    let missing = the_oldest_are_missing(&b, &made, "spool_dropped");
    let kept = replayed(&b).len();
    println!("{kept} messages kept, {missing} dropped");
    assert!(kept > 0);
    firmware.stop();
}

/// Counted, not timed: the cameras' own clock says how much time passed between two messages.
#[test]
fn new_messages_go_before_a_long_queue_of_kept_ones() {
    const RATE: u64 = 100;
    const KEPT: usize = 2000;
    let setup = |port, fps| Setup {
        port,
        fps,
        spool: format!("drain_rate = {RATE}"),
        ..Setup::default()
    };
    let Some(mut b) = Bench::new(setup(0, 300.0)) else {
        return;
    };
    b.proxy.close();
    let firmware = b.home.start();
    wait_until("much is stored", || b.home.stored().len() > KEPT);
    firmware.stop();
    b.home.configure(&setup(b.proxy.port, 50.0));
    let before = b.home.made();
    let firmware = b.home.start();
    wait_until("the cameras are there", || {
        b.home.made().len() > before.len() + 20
    });
    b.proxy.open();
    let live = |r: &&Receipt| !r.replayed && r.name.0.ends_with("/classification");
    wait_until("new messages arrive", || {
        b.subscriber.receipts().iter().filter(live).count() > 200
    });
    let receipts = b.subscriber.receipts();

    // From the first new one to the last: how many old ones came between, altogether and at the most between two.
    let first = receipts.iter().position(|r| live(&r)).unwrap();
    let last = receipts.iter().rposition(|r| live(&r)).unwrap();
    let during = &receipts[first..=last];
    let old = during.iter().filter(|r| r.replayed).count() as u64;
    let longest = during.split(|r| live(&r)).map(<[_]>::len).max().unwrap();
    let passed_ms = receipts[first].ms_before(&receipts[last]);
    println!(
        "{old} kept messages in {passed_ms} ms beside 200 new ones, at most {longest} between two of them"
    );
    assert!(longest < KEPT / 8, "{longest} kept ones before a new one");
    assert!(old > 20, "{old} kept ones only");
    let allowed = RATE * passed_ms / 1000 + RATE / 10;
    assert!(old <= 2 * allowed, "{old} kept ones, {allowed} expected");

    // New ones come whole and in order.
    for camera in ["a", "b"] {
        let topic = format!("ocellus/dev/{camera}/classification");
        let of_camera = during.iter().filter(|r| live(r) && r.name.0 == topic);
        let numbers: Vec<u64> = of_camera.map(|r| r.name.1).collect();
        assert!(numbers.windows(2).all(|w| w[1] == w[0] + 1), "{numbers:?}");
    }

    // And what waited is all still there.
    firmware.stop();
    b.home.configure(&Setup {
        spool: "drain_rate = 0".into(),
        ..setup(b.proxy.port, 5.0)
    });
    let firmware = b.home.start();
    b.finish(firmware);
}
