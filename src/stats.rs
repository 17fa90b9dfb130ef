//! Counters and latencies, written by every thread, read by summaries and `health`.
//!
//! Slot overwrites, device gaps, bad frames and full sink queues are different causes and different counters.
//! After a stop `captured = inferred + overwritten + undecodable + failed + disabled + still + abandoned`; while running at most one
//! frame a camera waits in its slot and one is in each worker's hand.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::frame::CameraId;

/// One number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }
    /// Adds one.
    pub fn inc(&self) {
        self.add(1);
    }
    /// The value now.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// What happened to a camera's frames.
#[derive(Debug)]
pub struct CameraStats {
    /// The camera.
    pub id: CameraId,
    /// Whether the device is open and delivering.
    pub online: AtomicBool,
    /// Whole frames received from the device.
    pub captured: Counter,
    /// Frames that went through inference.
    pub inferred: Counter,
    /// Frames that a newer one replaced before a worker took them.
    pub overwritten: Counter,
    /// Frames that the device says it lost (gaps in the driver's sequence).
    pub device_gaps: Counter,
    /// Frames rejected at capture: corrupt, truncated, empty or of the wrong size. Not in `captured`.
    pub rejected: Counter,
    /// Captured frames that could not be decoded.
    pub undecodable: Counter,
    /// Captured frames on which inference failed.
    pub failed: Counter,
    /// Captured frames that were not inferred because inference was off.
    pub disabled: Counter,
    /// Captured frames that were not inferred because nothing had moved.
    pub still: Counter,
    /// Captured frames that still waited when a stop was requested.
    pub abandoned: Counter,
    /// Times the device was lost and reopened.
    pub reopened: Counter,
    /// Crops of detections that another model looked at.
    pub crops: Counter,
    /// Times that a crop was due and had to wait for a later frame, because the frame's number of crops was reached.
    pub crops_deferred: Counter,
    /// Crops on which inference failed.
    pub crops_failed: Counter,
    /// Inferred frames whose source knew the truth, and those of them whose top label was right.
    pub judged: Counter,
    /// See `judged`.
    pub right: Counter,
}

/// All counters of a running pipeline.
#[derive(Debug)]
pub struct Stats {
    /// One for each camera, in the plan's order.
    pub cameras: Vec<Arc<CameraStats>>,
    /// Messages that the broker has acknowledged or, at QoS 0, that were written to the connection.
    pub published: Counter,
    /// Messages dropped because a sink's queue was full.
    pub queue_full: Counter,
    /// Observations that were not sent because they had outlived `mqtt.observation_expiry_s`.
    pub expired: Counter,
    /// Messages that the broker refused (MQTT 5), or that were too large for it.
    pub refused: Counter,
    /// Observations held back by `publish.max_rate`.
    pub rate_limited: Counter,
    /// Commands and settings that were obeyed.
    pub commands: Counter,
    /// Commands and settings that were wrong or too many.
    pub commands_refused: Counter,
    /// Commands and settings that got no answer: retained ones, a flood, commands turned off.
    pub commands_dropped: Counter,
    /// Whether the MQTT connection is up.
    pub broker_connected: AtomicBool,
    /// Times the MQTT connection was made.
    pub broker_connects: Counter,
    broker_away: Mutex<Away>,
    /// What waits on disk for the broker; empty without a spool.
    pub spool: OnceLock<Arc<SpoolStats>>,
    latencies: Mutex<Latencies>,
}

/// Time without a broker.
#[derive(Debug)]
struct Away {
    /// Before it came back the last time.
    before: Duration,
    since: Option<Instant>,
}

/// The spool, as its thread tells it.
#[derive(Debug, Default)]
pub struct SpoolStats {
    messages: AtomicU64,
    bytes: AtomicU64,
    fault: Mutex<Option<String>>,
    /// Messages written to the disk.
    pub stored: Counter,
    /// Messages that went because of the bounds or a wrong checksum.
    pub dropped: Counter,
    /// Times the disk or the file failed.
    pub errors: Counter,
    /// Files set aside.
    pub damaged: Counter,
}

impl SpoolStats {
    /// How many messages wait, and their bytes.
    pub fn depth(&self) -> (u64, u64) {
        (self.messages.load(Relaxed), self.bytes.load(Relaxed))
    }
    /// Why nothing can be kept now.
    pub fn fault(&self) -> Option<String> {
        self.fault.lock().unwrap_or_else(|e| e.into_inner()).clone()
    }
    /// Sets the depth.
    pub fn tell(&self, messages: u64, bytes: u64) {
        self.messages.store(messages, Relaxed);
        self.bytes.store(bytes, Relaxed);
    }
    /// Returns whether that is another fault than before.
    pub fn set_fault(&self, fault: Option<String>) -> bool {
        let mut now = self.fault.lock().unwrap_or_else(|e| e.into_inner());
        let is_other = *now != fault;
        *now = fault;
        is_other
    }
}

#[derive(Debug)]
struct Latencies {
    stages: Vec<(Stage, Histogram<u64>)>,
}

/// A stage whose latency is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// From capture to the end of inference.
    Age,
    /// Frame bytes → pixels.
    Decode,
    /// Pixels → input tensor: crop, resize, normalization.
    Preprocess,
    /// The network.
    Infer,
    /// Outputs → results.
    DecodeOutput,
    /// All of that for the crops of what was found.
    Crops,
}

impl Stage {
    /// In the order in which a frame meets them, the total last.
    pub const ALL: [Stage; 6] = [
        Self::Decode,
        Self::Preprocess,
        Self::Infer,
        Self::DecodeOutput,
        Self::Crops,
        Self::Age,
    ];

    /// The name in tables and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Age => "age",
            Self::Decode => "decode",
            Self::Preprocess => "preprocess",
            Self::Infer => "infer",
            Self::DecodeOutput => "decode_output",
            Self::Crops => "crops",
        }
    }
}

/// A stage's latency distribution since the start.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct LatencySummary {
    /// Which stage.
    pub stage: Stage,
    /// How many frames.
    pub count: u64,
    /// Median.
    pub p50_ms: f64,
    /// 99th percentile.
    pub p99_ms: f64,
    /// Largest.
    pub max_ms: f64,
}

impl Stats {
    /// All zero.
    pub fn new(cameras: impl IntoIterator<Item = CameraId>) -> Self {
        let cameras = cameras
            .into_iter()
            .map(|id| Arc::new(CameraStats::new(id)))
            .collect();
        // 1 µs to 10 min at two significant digits: about 20 KB a stage.
        let stages = Stage::ALL
            .map(|s| {
                (
                    s,
                    Histogram::new_with_bounds(1, 600_000_000, 2).expect("bounds are valid"),
                )
            })
            .into();
        Self {
            cameras,
            published: Counter::default(),
            queue_full: Counter::default(),
            expired: Counter::default(),
            refused: Counter::default(),
            rate_limited: Counter::default(),
            commands: Counter::default(),
            commands_refused: Counter::default(),
            commands_dropped: Counter::default(),
            broker_connected: AtomicBool::new(false),
            broker_connects: Counter::default(),
            broker_away: Mutex::new(Away {
                before: Duration::ZERO,
                since: Some(Instant::now()),
            }),
            spool: OnceLock::new(),
            latencies: Mutex::new(Latencies { stages }),
        }
    }

    /// The MQTT connection was made.
    pub fn broker_came(&self) {
        self.broker_connected.store(true, Relaxed);
        self.broker_connects.inc();
        let mut away = self.broker_away.lock().unwrap();
        let ended = away.since.take().map_or(Duration::ZERO, |t| t.elapsed());
        away.before += ended;
    }

    /// There is no MQTT connection.
    pub fn broker_went(&self) {
        self.broker_connected.store(false, Relaxed);
        let mut away = self.broker_away.lock().unwrap();
        away.since = away.since.or_else(|| Some(Instant::now()));
    }

    /// How long there was no MQTT connection: now, and altogether.
    pub fn broker_away(&self) -> (Duration, Duration) {
        let away = self.broker_away.lock().unwrap();
        let now = away.since.map_or(Duration::ZERO, |t| t.elapsed());
        (now, away.before + now)
    }

    /// The counters of a camera.
    pub fn camera(&self, id: &str) -> Option<&Arc<CameraStats>> {
        self.cameras.iter().find(|c| &*c.id == id)
    }

    /// Records how long a stage took.
    pub fn record(&self, stage: Stage, took: Duration) {
        let mut l = self.latencies.lock().unwrap();
        if let Some((_, h)) = l.stages.iter_mut().find(|(s, _)| *s == stage) {
            h.saturating_record(took.as_micros().try_into().unwrap_or(u64::MAX).max(1));
        }
    }

    /// The latency of every stage that was met since the start.
    pub fn latencies(&self) -> Vec<LatencySummary> {
        let ms = |us: u64| us as f64 / 1000.0;
        let l = self.latencies.lock().unwrap();
        l.stages
            .iter()
            .filter(|(_, h)| !h.is_empty())
            .map(|(stage, h)| LatencySummary {
                stage: *stage,
                count: h.len(),
                p50_ms: ms(h.value_at_quantile(0.5)),
                p99_ms: ms(h.value_at_quantile(0.99)),
                max_ms: ms(h.max()),
            })
            .collect()
    }
}

/// The process's resident memory, where the system tells (Linux).
pub fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

impl CameraStats {
    /// All zero, offline.
    pub fn new(id: CameraId) -> Self {
        Self {
            id,
            online: AtomicBool::new(false),
            captured: Counter::default(),
            inferred: Counter::default(),
            overwritten: Counter::default(),
            device_gaps: Counter::default(),
            rejected: Counter::default(),
            undecodable: Counter::default(),
            failed: Counter::default(),
            disabled: Counter::default(),
            still: Counter::default(),
            abandoned: Counter::default(),
            reopened: Counter::default(),
            crops: Counter::default(),
            crops_deferred: Counter::default(),
            crops_failed: Counter::default(),
            judged: Counter::default(),
            right: Counter::default(),
        }
    }
}
