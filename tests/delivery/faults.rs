//! The faults, one kind after the other, and the verdict after each.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, Hasher};
use std::time::{Duration, Instant};

use crate::common::mosquitto::{AT_ONCE, Mosquitto, mosquitto_with_or_skip};
use crate::common::proxy::{Proxy, Trap, Weather};
use crate::firmware::{Firmware, Home, Setup};
use crate::ledger::{Name, Subscriber, Tally, judge, wait_longer, wait_until};

/// How the program and the broker are set up.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    pub mode: &'static str,
    pub order: &'static str,
    pub persistent_broker: bool,
    pub version: u8,
    /// MQTT 5: whether the broker keeps the program's session.
    pub session: bool,
    pub fps: f64,
}

impl Default for Case {
    fn default() -> Self {
        Self {
            mode: "offline",
            order: "live",
            persistent_broker: false,
            version: 3,
            session: false,
            fps: 25.0,
        }
    }
}

/// Parts that every case needs; the proxy is closed.
struct Bench {
    broker: Mosquitto,
    subscriber: Subscriber,
    proxy: Proxy,
    home: Home,
    case: Case,
    random: Random,
}

impl Bench {
    fn new(case: &Case) -> Option<Self> {
        let mut extra = AT_ONCE.to_string();
        if case.persistent_broker {
            extra += "persistence true\npersistence_location {dir}/\nautosave_interval 1\n";
        }
        let broker = mosquitto_with_or_skip(&extra)?;
        let subscriber = Subscriber::start(broker.port);
        let proxy = Proxy::start(broker.port);
        let spool = format!(
            "mode = '{}'\norder = '{}'\ndrain_rate = 0",
            case.mode, case.order
        );
        let home = Home::new(&Setup {
            port: proxy.port,
            version: case.version,
            fps: case.fps,
            mqtt: match case.session {
                true => "session_expiry_s = 600".into(),
                false => String::new(),
            },
            spool,
        });
        Some(Self {
            broker,
            subscriber,
            proxy,
            home,
            case: *case,
            random: Random::new(),
        })
    }

    /// Kills the broker at any moment; a new one is there, and the subscriber with it, before the program may connect.
    fn kill_broker(&mut self) {
        let sessions = self.subscriber.sessions();
        self.broker.kill();
        self.proxy.close();
        std::thread::sleep(self.random.between(0, 300));
        self.broker.restart();
        self.subscriber.wait_for_session(sessions + 1);
        self.proxy.open();
    }

    /// The messages that must arrive.
    fn accepted(&self, is_stored: bool) -> BTreeSet<Name> {
        match is_stored {
            true => self.home.stored(),
            false => self.home.made(),
        }
    }

    /// Until the disk and the memory of the program are empty; then it is stopped, and everything must be there.
    fn finish(mut self, mut firmware: Firmware, accepted_is_stored: bool) -> Tally {
        self.proxy.set(Weather::default());
        self.proxy.open();
        // Short lives may have made few: the last one goes on until there is something to judge.
        let enough = || self.accepted(accepted_is_stored).len() > 50;
        wait_longer("enough is accepted", Duration::from_secs(60), enough);
        let mut accepted;
        let mut lives = 0;
        loop {
            lives += 1;
            self.subscriber.forget_health();
            wait_longer("the spool is empty", Duration::from_secs(120), || {
                let health = self.subscriber.health();
                health["spool"].as_u64().is_some_and(|n| n < 40)
            });
            let health = self.subscriber.health();
            for counter in ["queue_full", "spool_dropped", "spool_errors"] {
                assert_eq!(health[counter], 0, "{health}");
            }
            firmware.stop();
            accepted = self.accepted(accepted_is_stored);
            let all_is_there = || accepted.is_subset(&self.subscriber.names());
            let start = Instant::now();
            while !all_is_there() && start.elapsed() < Duration::from_secs(2) {
                std::thread::sleep(Duration::from_millis(20));
            }
            // What a busy machine did not send within the time for a stop is on the disk: the next life sends it.
            if all_is_there() || lives == 3 {
                break;
            }
            firmware = self.home.start();
        }
        judge(
            &accepted,
            &self.subscriber.receipts(),
            self.case.order == "strict",
        )
    }
}

pub fn broker_kills(case: &Case, kills: usize) -> Option<Tally> {
    let mut bench = Bench::new(case)?;
    let firmware = bench.home.start();
    for _ in 0..kills {
        let (_, acknowledged, _) = bench.proxy.counts();
        wait_until("messages are acknowledged", || {
            bench.proxy.counts().1 > acknowledged
        });
        std::thread::sleep(bench.random.between(0, 600));
        bench.kill_broker();
    }
    Some(report(
        case,
        &format!("{kills} kills of the broker"),
        bench.finish(firmware, false),
    ))
}

pub fn firmware_kills(case: &Case, kills: usize) -> Option<Tally> {
    assert_eq!(case.mode, "always", "else nothing is promised");
    let mut bench = Bench::new(case)?;
    for nth in 0..kills {
        // Sometimes there is no broker for a whole life, or it goes in the middle.
        let weather = bench.random.below(4);
        if weather == 0 {
            bench.proxy.close();
        }
        let firmware = bench.home.start();
        if nth % 2 == 0 {
            // Somewhere in the start, or not long after.
            std::thread::sleep(bench.random.between(0, 1500));
        } else {
            let stored = bench.home.stored().len();
            wait_until("something is stored", || bench.home.stored().len() > stored);
            std::thread::sleep(bench.random.between(0, 500));
        }
        if weather == 1 {
            bench.proxy.close();
            std::thread::sleep(bench.random.between(0, 200));
        }
        firmware.kill();
        bench.proxy.open();
    }
    let firmware = bench.home.start();
    Some(report(
        case,
        &format!("{kills} kill -9 of the program"),
        bench.finish(firmware, true),
    ))
}

pub fn cuts(case: &Case, count: usize) -> Option<Tally> {
    let mut bench = Bench::new(case)?;
    let firmware = bench.home.start();
    // A few of them are each time others.
    let first = bench.random.below(7) as usize;
    for nth in first..first + count {
        let (_, acknowledged, connections) = bench.proxy.counts();
        wait_until("messages are acknowledged", || {
            bench.proxy.counts().1 > acknowledged
        });
        std::thread::sleep(bench.random.between(0, 300));
        let proxy = &bench.proxy;
        let breaks = match nth % 7 {
            0 => {
                proxy.set_trap(Trap::PubAck);
                assert!(proxy.snapped(Duration::from_secs(20)), "no PUBACK came");
                true
            }
            1 => {
                proxy.set_trap(Trap::InsidePublish);
                assert!(proxy.snapped(Duration::from_secs(20)), "no PUBLISH came");
                true
            }
            2 => {
                proxy.cut();
                true
            }
            3 => {
                proxy.set(Weather {
                    black_hole: true,
                    ..Weather::default()
                });
                // The client finds out by itself, after two signs of life without an answer; its next attempts end alike.
                std::thread::sleep(bench.random.between(500, 4000));
                proxy.set(Weather::default());
                // What was swallowed in the middle of a connection must not come later.
                proxy.cut();
                true
            }
            4 => {
                proxy.set(Weather {
                    half_open: true,
                    ..Weather::default()
                });
                std::thread::sleep(Duration::from_millis(100));
                proxy.set(Weather::default());
                true
            }
            5 => {
                proxy.set(Weather {
                    byte_wise: true,
                    ..Weather::default()
                });
                std::thread::sleep(bench.random.between(200, 600));
                proxy.set(Weather::default());
                false
            }
            _ => {
                proxy.set(Weather {
                    delay: bench.random.between(5, 40),
                    ..Weather::default()
                });
                std::thread::sleep(bench.random.between(300, 900));
                proxy.cut();
                proxy.set(Weather::default());
                true
            }
        };
        if breaks {
            wait_until("the program connects again", || {
                proxy.counts().2 > connections
            });
        }
    }
    Some(report(
        case,
        &format!("{count} failures of the network"),
        bench.finish(firmware, false),
    ))
}

fn report(case: &Case, what: &str, tally: Tally) -> Tally {
    let broker = match case.persistent_broker {
        true => "broker with persistence",
        false => "broker without persistence",
    };
    let session = if case.session { " with a session" } else { "" };
    println!(
        "{what}, MQTT {}{session}, mode {}, order {}, {broker}: {tally}",
        case.version, case.mode, case.order
    );
    tally
}

pub fn soak() {
    let number = |name: &str, default: usize| {
        let value = std::env::var(format!("OCELLUS_SOAK_{name}")).ok();
        value.map_or(default, |v| v.parse().expect("a number"))
    };
    // A quarter of each for each way of setting it up.
    let part = |name: &str| number(name, 100).div_ceil(4);
    let (broker, kills, cut) = (part("BROKER_KILLS"), part("KILLS"), part("CUTS"));
    let end = Instant::now() + Duration::from_secs(60 * number("MINUTES", 0) as u64);
    let start = Instant::now();
    let mut total = Tally::default();
    let mut add = |t: Option<Tally>| {
        let t = t.expect("a soak needs mosquitto");
        total.accepted += t.accepted;
        total.arrived += t.arrived;
        total.late += t.late;
        total.duplicates += t.duplicates;
        total.by_broker += t.by_broker;
    };
    let mut rounds = 0;
    while rounds == 0 || Instant::now() < end {
        for (nth, (mode, order)) in [
            ("offline", "live"),
            ("always", "live"),
            ("offline", "strict"),
            ("always", "strict"),
        ]
        .into_iter()
        .enumerate()
        {
            let version = VERSIONS[(nth / 2 + rounds) % 2];
            let case = Case {
                mode,
                order,
                persistent_broker: nth % 2 == 1,
                version,
                session: version == 5 && nth % 2 == 1,
                ..Case::default()
            };
            add(broker_kills(&case, broker));
            add(cuts(&case, cut));
            let case = Case {
                mode: "always",
                ..case
            };
            add(firmware_kills(&case, kills));
        }
        rounds += 1;
    }
    println!(
        "soak: {rounds} round(s) of {} kills of the broker, {} kill -9 of the program and {} failures of the network in {:.1} minutes: {total}",
        4 * broker,
        4 * kills,
        4 * cut,
        start.elapsed().as_secs_f64() / 60.0
    );
}

/// Versions of MQTT.
const VERSIONS: [u8; 2] = [3, 5];

/// xorshift; another seed each time.
struct Random(u64);

impl Random {
    fn new() -> Self {
        let seed = std::hash::RandomState::new().build_hasher().finish() | 1;
        Self(seed)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }

    fn between(&mut self, from_ms: u64, to_ms: u64) -> Duration {
        Duration::from_millis(from_ms + self.below(to_ms - from_ms + 1))
    }
}
