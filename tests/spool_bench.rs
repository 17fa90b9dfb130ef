//! How fast messages go into the spool and out of it beside plain publishing, and what they cost the disk: `make bench-spool`.

mod common;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use common::mosquitto::{Mosquitto, free_port, mosquitto_or_skip};
use ocellus::clock::SystemClock;
use ocellus::controls::{CameraSettings, Controls};
use ocellus::frame::FrameMeta;
use ocellus::observe::{ModelRef, Observation, Publication, Timing};
use ocellus::publish::Sink;
use ocellus::publish::mqtt::{self, DeviceInfo, MqttSettings, MqttSink};
use ocellus::publish::spool::{SpoolMode, SpoolSettings};
use ocellus::shutdown::Shutdown;
use ocellus::stats::Stats;
use ocellus::task::{Class, TaskResult};

const COUNT: u64 = 100_000;

struct Device {
    sink: MqttSink,
    stats: Arc<Stats>,
    shutdown: Shutdown,
    thread: std::thread::JoinHandle<()>,
}

impl Device {
    fn start(port: u16, spool: Option<(SpoolMode, &Path)>) -> Self {
        let stats = Arc::new(Stats::new(["porch".into()]));
        let settings = MqttSettings {
            url: format!("mqtt://127.0.0.1:{port}"),
            qos: 1,
            max_rate: 0.0,
            queue: COUNT as usize,
            heartbeat_s: 3600.0,
            health_s: 3600.0,
            ..MqttSettings::default()
        };
        let info = DeviceInfo::new("dev-1", vec![]);
        let clock = Arc::new(SystemClock);
        let unlimited = CameraSettings {
            max_rate: 0.0,
            ..CameraSettings::default()
        };
        let controls = Arc::new(Controls::new([("porch".into(), unlimited)]));
        let (sink, mut client) =
            mqtt::connect(settings, info, stats.clone(), controls, clock).unwrap();
        if let Some((mode, directory)) = spool {
            let settings = SpoolSettings {
                mode,
                max_bytes: 1 << 30,
                drain_rate: 0.0,
                ..SpoolSettings::default()
            };
            client = client.with_spool(&settings, directory).unwrap();
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let shutdown = Shutdown::new();
        let stop = shutdown.clone();
        let thread = std::thread::spawn(move || {
            runtime.block_on(client.run(stop));
            runtime.shutdown_background();
        });
        Self {
            sink,
            stats,
            shutdown,
            thread,
        }
    }

    fn push(&self, count: u64) {
        for seq in 1..=count {
            let o = Publication::Observation(Arc::new(observation(seq)));
            self.sink.publish(&o);
        }
    }

    fn wait(&self, what: &str, holds: impl Fn(&Stats) -> bool) {
        let start = Instant::now();
        while !holds(&self.stats) {
            assert!(start.elapsed() < Duration::from_secs(300), "{what}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn stop(self) {
        self.shutdown.request();
        self.thread.join().unwrap();
    }
}

fn depth(stats: &Stats) -> u64 {
    stats.spool.get().map_or(0, |s| s.depth().0)
}

/// Its message has about 600 bytes.
fn observation(seq: u64) -> Observation {
    let class = |index: u32| Class {
        index: index as usize,
        label: format!("class number {index}").into(),
        score: 0.5 / (index + 1) as f32,
    };
    Observation {
        meta: FrameMeta {
            camera: "porch".into(),
            sequence: seq,
            captured_at: Instant::now(),
            wall_time: SystemTime::now(),
            truth: None,
        },
        seq,
        requested: false,
        frame_size: (1280, 720),
        model: Arc::new(ModelRef {
            id: "resnet18-int8".into(),
            sha256: "ab".repeat(32),
        }),
        results: vec![TaskResult::Classification((0..5).map(class).collect())],
        timing: Timing::default(),
        fps: 15.0,
        state: None,
        change: None,
        followed: Default::default(),
        crops: Vec::new(),
    }
}

/// What this process had written to the disk so far, in bytes.
fn written() -> u64 {
    let io = std::fs::read_to_string("/proc/self/io").unwrap();
    let line = io.lines().find_map(|l| l.strip_prefix("write_bytes: "));
    line.unwrap().parse().unwrap()
}

struct Watch(Instant, u64);

impl Watch {
    fn start() -> Self {
        Self(Instant::now(), written())
    }

    fn report(&self, what: &str, count: u64) {
        let seconds = self.0.elapsed().as_secs_f64();
        println!(
            "{what}: {count} messages in {seconds:.2} s, {:.0} a second; {:.0} bytes written a message",
            count as f64 / seconds,
            (written() - self.1) as f64 / count as f64
        );
    }
}

#[test]
#[ignore = "a measurement: make bench-spool"]
fn into_the_spool_and_out_of_it_beside_plain_publishing() {
    let Some(broker) = mosquitto_or_skip() else {
        return;
    };
    // Not /tmp, which may be in memory.
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let plain = Device::start(broker.port, None);
    plain.wait("connected", |s| s.broker_connects.get() == 1);
    let watch = Watch::start();
    plain.push(COUNT);
    plain.wait("published", |s| s.published.get() >= COUNT);
    watch.report("plain publishing, QoS 1", COUNT);
    plain.stop();

    let directory = tempfile::tempdir_in(target).unwrap();
    let nobody = Device::start(free_port(), Some((SpoolMode::Offline, directory.path())));
    let watch = Watch::start();
    nobody.push(COUNT);
    nobody.wait("stored", |s| depth(s) == COUNT);
    watch.report("into the spool, no broker", COUNT);
    let (_, bytes) = nobody.stats.spool.get().unwrap().depth();
    let file = std::fs::metadata(directory.path().join("messages.db"));
    println!(
        "  {:.0} bytes a message by the bounds' count; the file has {:.0}",
        bytes as f64 / COUNT as f64,
        file.unwrap().len() as f64 / COUNT as f64
    );
    nobody.stop();

    let watch = Watch::start();
    let drain = Device::start(broker.port, Some((SpoolMode::Offline, directory.path())));
    drain.wait("opened", |s| depth(s) == COUNT);
    watch.report("  opened again", COUNT);
    drain.wait("drained", |s| s.published.get() > COUNT && depth(s) == 0);
    watch.report("out of the spool into mosquitto", COUNT);
    if let Some(bytes) = ocellus::stats::resident_bytes() {
        println!("  memory {:.0} MB resident", bytes as f64 / 1e6);
    }
    drain.stop();

    always(&broker, target);
}

fn always(broker: &Mosquitto, target: &Path) {
    let directory = tempfile::tempdir_in(target).unwrap();
    let device = Device::start(broker.port, Some((SpoolMode::Always, directory.path())));
    device.wait("connected", |s| s.broker_connects.get() == 1);
    let count = COUNT / 5;
    let watch = Watch::start();
    device.push(count);
    device.wait("published", |s| s.published.get() >= count && depth(s) == 0);
    watch.report("always, as fast as it goes", count);
    device.stop();

    for (period, count) in [(100, 100), (20, 300)] {
        let directory = tempfile::tempdir_in(target).unwrap();
        let device = Device::start(broker.port, Some((SpoolMode::Always, directory.path())));
        device.wait("connected", |s| s.broker_connects.get() == 1);
        let watch = Watch::start();
        for seq in 1..=count {
            let o = Publication::Observation(Arc::new(observation(seq)));
            device.sink.publish(&o);
            std::thread::sleep(Duration::from_millis(period));
        }
        device.wait("removed", |s| depth(s) == 0);
        watch.report(&format!("always, one every {period} ms"), count);
        device.stop();
    }
}
