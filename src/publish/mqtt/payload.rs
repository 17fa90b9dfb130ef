//! What each message says: the JSON of `schema/messages-1.0.json`.
//!
//! In: observations, counters. Out: payload bytes. Pure. Always holds: what is written validates against the
//! schema; times are milliseconds rounded to 0.1, scores are rounded to four decimals.

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::clock::rfc3339_ms;
use crate::frame::TruthObject;
use crate::observe::crops::CropResult;
use crate::observe::track::{TrackChange, TrackEvent};
use crate::observe::zones::{ByClass, Counts, Side, ZoneChange, ZoneEvent};
use crate::observe::{ModelRef, Observation, StateChange, Timing};
use crate::publish::health::BoardHealth;
use crate::stats::Stats;
use crate::task::segment::{Polygon, Ring};
use crate::task::{Class, Detection, Embedding, EmbeddingType, Segment, Segmentation, TaskResult};

/// The version of the messages; its first number changes when a key changes its meaning.
pub const SCHEMA: &str = "1.0";
/// Payload of a `status` topic.
pub const ONLINE: &str = "online";
/// Payload of a camera's `status` topic: it is there, and inference is off.
pub const DISABLED: &str = "disabled";
/// Payload of a `status` topic; the will.
pub const OFFLINE: &str = "offline";
/// The dashboards' limit on a state (Home Assistant refuses longer ones), in characters.
const LABEL_MAX_CHARS: usize = 255;

/// What a device says about itself in `info`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DeviceInfo {
    /// The device's id ([`valid_id`](crate::publish::valid_id)).
    #[serde(rename = "device")]
    pub id: String,
    /// The firmware's version.
    pub version: String,
    /// The board's name, where it tells one.
    pub board: Option<String>,
    /// What the firmware was built for: `aarch64-linux`.
    pub target: String,
    /// The models that run.
    pub models: Vec<ModelInfo>,
}

/// A model in [`DeviceInfo`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ModelInfo {
    /// The configured id.
    pub id: String,
    /// SHA-256 of the ONNX file, hexadecimal.
    pub sha256: String,
    /// `classify`, `embed`, `detect`, `segment`.
    pub tasks: Vec<String>,
    /// The cameras that it looks at.
    pub cameras: Vec<String>,
    /// The model whose detections' crops it looks at; frames if none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crops_of: Option<String>,
}

impl DeviceInfo {
    /// This program on this board.
    pub fn new(id: impl Into<String>, models: Vec<ModelInfo>) -> Self {
        Self {
            id: id.into(),
            version: env!("CARGO_PKG_VERSION").into(),
            board: crate::publish::health::board_name(),
            target: format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS),
            models,
        }
    }
}

/// The payload of `info`.
pub fn info(device: &DeviceInfo, now: SystemTime) -> Vec<u8> {
    #[derive(Serialize)]
    struct Info<'a> {
        schema: &'a str,
        ts: String,
        #[serde(flatten)]
        device: &'a DeviceInfo,
    }
    bytes(&Info {
        schema: SCHEMA,
        ts: rfc3339_ms(now),
        device,
    })
}

/// The payload of `<cam>/classification`.
pub fn classification(device: &str, o: &Observation, classes: &[Class]) -> Vec<u8> {
    let mut m = observation_head(device, o);
    m.insert("results".into(), results(classes));
    bytes(&m)
}

/// The payload of `<cam>/detections`.
pub fn detections(device: &str, o: &Observation, detections: &[Detection]) -> Vec<u8> {
    let mut m = observation_head(device, o);
    m.insert("detections".into(), boxes(detections, o));
    bytes(&m)
}

/// The payload of `<cam>/segments`.
pub fn segmentation(device: &str, o: &Observation, s: &Segmentation) -> Vec<u8> {
    let mut m = observation_head(device, o);
    m.extend(segments(s));
    bytes(&m)
}

/// The payload of `<cam>/embedding`.
pub fn embedding(device: &str, o: &Observation, e: &Embedding) -> Vec<u8> {
    let mut m = observation_head(device, o);
    m.insert("embedding".into(), embedding_value(e));
    bytes(&m)
}

/// One line of `--output jsonl`: every section of the observation, its smoothed state, its change of state.
pub fn record(device: &str, o: &Observation) -> Vec<u8> {
    let mut m = observation_head(device, o);
    for result in &o.results {
        match result {
            TaskResult::Classification(classes) => {
                m.insert("results".into(), results(classes));
            }
            TaskResult::Embedding(e) => {
                m.insert("embedding".into(), embedding_value(e));
            }
            TaskResult::Detections(found) => {
                m.insert("detections".into(), boxes(found, o));
            }
            TaskResult::Segmentation(s) => m.extend(segments(s)),
        }
    }
    let state = o
        .state
        .as_ref()
        .map(|s| json!({ "label": s.label.as_deref(), "score": round4(s.score) }));
    m.insert("state".into(), json!(state));
    if let Some(change) = &o.change {
        m.insert("event".into(), Value::Object(change_value(change)));
    }
    let tracks: Vec<_> = o.followed.tracks.iter().map(track_value).collect();
    if !tracks.is_empty() {
        m.insert("tracks".into(), json!(tracks));
    }
    let zones: Vec<_> = o.followed.zones.iter().map(zone_value).collect();
    if !zones.is_empty() {
        m.insert("zones".into(), json!(zones));
    }
    m.insert("fps".into(), json!(round1(f64::from(o.fps))));
    bytes(&m)
}

/// The payload of `<cam>/track`.
pub fn track(device: &str, o: &Observation, event: &TrackEvent) -> Vec<u8> {
    let mut m = head(device, o);
    m.insert("replayed".into(), json!(false));
    m.insert("model".into(), json!(o.model.id));
    m.extend(track_value(event));
    bytes(&m)
}

/// The payload of `<cam>/zone`.
pub fn zone(device: &str, o: &Observation, event: &ZoneEvent) -> Vec<u8> {
    let mut m = head(device, o);
    m.insert("replayed".into(), json!(false));
    m.extend(zone_value(event));
    bytes(&m)
}

/// The payload of `<cam>/counts`.
pub fn counts(device: &str, o: &Observation, counts: &Counts) -> Vec<u8> {
    let by_class = |c: &ByClass| -> Value {
        let entry = |(label, n): (&std::sync::Arc<str>, &u64)| (label.to_string(), json!(n));
        Value::Object(c.iter().map(entry).collect())
    };
    let zones: Map<String, Value> = counts
        .zones
        .iter()
        .map(|(id, c)| {
            let counts = json!({
                "now": by_class(&c.now),
                "entered": by_class(&c.entered),
                "left": by_class(&c.left),
            });
            (id.to_string(), counts)
        })
        .collect();
    let lines: Map<String, Value> = counts
        .lines
        .iter()
        .map(|(id, c)| {
            let counts = json!({ "left": by_class(&c.left), "right": by_class(&c.right) });
            (id.to_string(), counts)
        })
        .collect();
    let mut m = head(device, o);
    m.insert("since".into(), json!(rfc3339_ms(counts.since)));
    m.insert("zones".into(), Value::Object(zones));
    m.insert("lines".into(), Value::Object(lines));
    bytes(&m)
}

/// The payload of `<cam>/event`.
pub fn event(device: &str, o: &Observation, change: &StateChange) -> Vec<u8> {
    let mut m = head(device, o);
    m.extend(change_value(change));
    m.insert("replayed".into(), json!(false));
    bytes(&m)
}

/// The same message, marked as sent again. Only a key can read `"replayed":false`: quotes inside strings are escaped.
pub fn replayed(payload: &Bytes) -> Bytes {
    let (from, to) = (br#""replayed":false"#, br#""replayed":true"#);
    match payload.windows(from.len()).position(|w| w == from) {
        None => payload.clone(),
        Some(at) => [&payload[..at], to, &payload[at + from.len()..]]
            .concat()
            .into(),
    }
}

/// Whether it says that it comes again.
pub fn is_replayed(payload: &[u8]) -> bool {
    let says = br#""replayed":true"#;
    payload.windows(says.len()).any(|w| w == says)
}

/// The payload of `<cam>/state`: flat, for dashboards.
pub fn state(device: &str, o: &Observation) -> Vec<u8> {
    let mut m = head(device, o);
    let (label, score) = match &o.state {
        Some(s) => (s.label.as_deref(), s.score),
        None => (None, 0.0),
    };
    let label = label.map(|l| l.chars().take(LABEL_MAX_CHARS).collect::<String>());
    m.insert("label".into(), json!(label));
    m.insert("score".into(), json!(round4(score)));
    m.insert("fps".into(), json!(round1(f64::from(o.fps))));
    m.insert("infer_ms".into(), json!(ms(o.timing.infer)));
    m.insert("age_ms".into(), json!(ms(o.timing.age)));
    bytes(&m)
}

/// The payload of `health`. `uptime` is the process's, `queued` the messages that wait for the broker.
pub fn health(
    device: &str,
    now: SystemTime,
    uptime: Duration,
    board: &BoardHealth,
    queued: usize,
    stats: &Stats,
) -> Vec<u8> {
    let cameras: Map<String, Value> = stats
        .cameras
        .iter()
        .map(|c| {
            let counters = json!({
                "online": c.online.load(Relaxed),
                "captured": c.captured.get(),
                "inferred": c.inferred.get(),
                "overwritten": c.overwritten.get(),
                "device_gaps": c.device_gaps.get(),
                "rejected": c.rejected.get(),
                "undecodable": c.undecodable.get(),
                "failed": c.failed.get(),
                "disabled": c.disabled.get(),
                "still": c.still.get(),
                "crops": c.crops.get(),
                "crops_deferred": c.crops_deferred.get(),
                "crops_failed": c.crops_failed.get(),
                "reopened": c.reopened.get(),
            });
            (c.id.to_string(), counters)
        })
        .collect();
    let mut m = Map::new();
    m.insert("schema".into(), json!(SCHEMA));
    m.insert("device".into(), json!(device));
    m.insert("ts".into(), json!(rfc3339_ms(now)));
    m.insert("uptime_s".into(), json!(uptime.as_secs()));
    if let Ok(Value::Object(board)) = serde_json::to_value(board) {
        m.extend(board);
    }
    m.insert("queued".into(), json!(queued));
    let spool = stats.spool.get();
    let depth = spool.map(|s| s.depth());
    m.insert("spool".into(), json!(depth.map(|d| d.0)));
    m.insert("spool_bytes".into(), json!(depth.map(|d| d.1)));
    m.insert(
        "spool_dropped".into(),
        json!(spool.map(|s| s.dropped.get())),
    );
    m.insert("spool_errors".into(), json!(spool.map(|s| s.errors.get())));
    m.insert("spool_fault".into(), json!(spool.and_then(|s| s.fault())));
    m.insert("published".into(), json!(stats.published.get()));
    m.insert("queue_full".into(), json!(stats.queue_full.get()));
    m.insert("expired".into(), json!(stats.expired.get()));
    m.insert("refused".into(), json!(stats.refused.get()));
    m.insert("rate_limited".into(), json!(stats.rate_limited.get()));
    m.insert("commands".into(), json!(stats.commands.get()));
    let refused = stats.commands_refused.get();
    m.insert("commands_refused".into(), json!(refused));
    let dropped = stats.commands_dropped.get();
    m.insert("commands_dropped".into(), json!(dropped));
    m.insert("broker_connects".into(), json!(stats.broker_connects.get()));
    let (_, away) = stats.broker_away();
    m.insert("broker_away_s".into(), json!(round1(away.as_secs_f64())));
    m.insert("cameras".into(), Value::Object(cameras));
    bytes(&m)
}

fn head(device: &str, o: &Observation) -> Map<String, Value> {
    let mut m = Map::new();
    m.insert("schema".into(), json!(SCHEMA));
    m.insert("device".into(), json!(device));
    m.insert("camera".into(), json!(&*o.meta.camera));
    m.insert("seq".into(), json!(o.seq));
    m.insert("ts".into(), json!(rfc3339_ms(o.meta.wall_time)));
    m
}

fn observation_head(device: &str, o: &Observation) -> Map<String, Value> {
    let mut m = head(device, o);
    m.insert("frame_id".into(), json!(o.meta.sequence));
    let (width, height) = o.frame_size;
    m.insert("frame".into(), json!({ "width": width, "height": height }));
    m.insert("replayed".into(), json!(false));
    m.insert("model".into(), model(&o.model));
    m.insert("timing_ms".into(), timing_ms(&o.timing));
    if let Some(truth) = &o.meta.truth {
        let object = |o: &TruthObject| json!({ "label": o.label, "box": o.bbox.map(round4) });
        let objects: Vec<_> = truth.objects.iter().map(object).collect();
        m.insert(
            "truth".into(),
            json!({ "label": truth.label, "objects": objects }),
        );
    }
    m
}

/// The classes among an observation's results, best first; null where no model classified.
pub fn classes(all: &[TaskResult]) -> Value {
    let found = all.iter().find_map(|r| match r {
        TaskResult::Classification(classes) => Some(results(classes)),
        _ => None,
    });
    found.unwrap_or_default()
}

/// What was found among an observation's results, best first; null where no model detects.
pub fn found(all: &[TaskResult]) -> Value {
    let found = all.iter().find_map(|r| match r {
        TaskResult::Detections(found) => Some(found.iter().map(detection).collect()),
        _ => None,
    });
    found.unwrap_or_default()
}

/// The classes of the pixels among an observation's results with their areas, largest first; null where no model segments.
pub fn areas(all: &[TaskResult]) -> Value {
    let found = all.iter().find_map(|r| match r {
        TaskResult::Segmentation(s) => Some(s.segments.iter().map(area).collect::<Vec<_>>()),
        _ => None,
    });
    json!(found)
}

/// The map and what it consists of.
pub fn segments(s: &Segmentation) -> Map<String, Value> {
    let one = |segment: &Segment| {
        let mut one = area(segment);
        if let (Some(rle), Value::Object(one)) = (&segment.rle, &mut one) {
            let rle = json!({ "size": rle.size, "counts": rle.compressed() });
            one.insert("rle".into(), rle);
        }
        if let (Some(polygons), Value::Object(one)) = (&segment.polygons, &mut one) {
            let place = |p: &[f32; 2]| json!(p.map(round4));
            let ring = |r: &Ring| r.iter().map(place).collect::<Value>();
            let polygon = |p: &Polygon| p.iter().map(ring).collect::<Value>();
            one.insert("polygons".into(), polygons.iter().map(polygon).collect());
        }
        one
    };
    let (width, height) = s.size;
    let mut m = Map::new();
    let map = json!({ "width": width, "height": height, "box": s.covers.map(round4) });
    m.insert("map".into(), map);
    m.insert("segments".into(), s.segments.iter().map(one).collect());
    m
}

/// A class and its area, to a millionth of the frame.
fn area(s: &Segment) -> Value {
    let area = (f64::from(s.area) * 1e6).round() / 1e6;
    json!({ "label": &*s.label, "index": s.index, "area": area })
}

/// What was found, each with its track and with what was said of its crop, where there is that.
fn boxes(detections: &[Detection], o: &Observation) -> Value {
    let one = |(nth, d): (usize, &Detection)| {
        let mut one = detection(d);
        let Value::Object(m) = &mut one else {
            return one;
        };
        if let Some(Some(id)) = o.followed.ids.get(nth) {
            m.insert("track".into(), json!(id));
        }
        let crops = o.crops.get(nth).map(Vec::as_slice).unwrap_or_default();
        if !crops.is_empty() {
            let at = o.meta.captured_at;
            m.insert("crops".into(), crops.iter().map(|c| crop(c, at)).collect());
        }
        one
    };
    detections.iter().enumerate().map(one).collect()
}

fn detection(d: &Detection) -> Value {
    json!({
        "label": &*d.label,
        "index": d.index,
        "score": round4(d.score),
        "box": d.bbox.corners().map(round4),
    })
}

/// What a second model said of a crop, in a message of the frame that was captured at `at`.
pub(crate) fn crop(c: &CropResult, at: Instant) -> Value {
    let mut m = Map::new();
    m.insert("model".into(), model(&c.model));
    let age = at.saturating_duration_since(c.captured_at);
    m.insert("age_ms".into(), json!(ms(age)));
    for result in &c.results {
        match result {
            TaskResult::Classification(classes) => m.insert("results".into(), results(classes)),
            TaskResult::Embedding(e) => m.insert("embedding".into(), embedding_value(e)),
            // No tasks for crops.
            TaskResult::Detections(_) | TaskResult::Segmentation(_) => None,
        };
    }
    Value::Object(m)
}

fn model(m: &ModelRef) -> Value {
    json!({ "id": m.id, "sha256": m.sha256 })
}

fn results(classes: &[Class]) -> Value {
    let class =
        |c: &Class| json!({ "label": &*c.label, "index": c.index, "score": round4(c.score) });
    classes.iter().map(class).collect()
}

fn embedding_value(e: &Embedding) -> Value {
    let (dtype, raw): (_, Vec<u8>) = match e.dtype {
        EmbeddingType::F32 => (
            "f32",
            e.values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        ),
        EmbeddingType::F16 => (
            "f16",
            e.values
                .iter()
                .flat_map(|v| half::f16::from_f32(*v).to_le_bytes())
                .collect(),
        ),
    };
    json!({
        "dim": e.values.len(),
        "dtype": dtype,
        "l2_normalized": e.l2_normalized,
        "b64": STANDARD.encode(raw),
    })
}

fn change_value(change: &StateChange) -> Map<String, Value> {
    let event_type = match (&change.from, &change.to) {
        (None, _) => "appeared",
        (Some(_), Some(_)) => "changed",
        (Some(_), None) => "disappeared",
    };
    let mut m = Map::new();
    m.insert("event_type".into(), json!(event_type));
    m.insert("from".into(), json!(change.from.as_deref()));
    m.insert("to".into(), json!(change.to.as_deref()));
    m.insert("score".into(), json!(round4(change.score)));
    m.insert("lasted_ms".into(), json!(ms(change.lasted)));
    m
}

fn track_value(t: &TrackEvent) -> Map<String, Value> {
    let event_type = match t.change {
        TrackChange::New => "new",
        TrackChange::Update => "update",
        TrackChange::End => "end",
    };
    let mut m = Map::new();
    m.insert("event_type".into(), json!(event_type));
    m.insert("track".into(), json!(t.id));
    m.insert("label".into(), json!(&*t.label));
    m.insert("index".into(), json!(t.index));
    m.insert("score".into(), json!(round4(t.score)));
    m.insert("best_score".into(), json!(round4(t.best_score)));
    m.insert("box".into(), json!(t.bbox.corners().map(round4)));
    m.insert("lasted_ms".into(), json!(ms(t.lasted)));
    if t.change == TrackChange::End {
        let path: Vec<_> = t
            .path
            .iter()
            .map(|(x, y)| [round4(*x), round4(*y)])
            .collect();
        m.insert("path".into(), json!(path));
    }
    m
}

fn zone_value(z: &ZoneEvent) -> Map<String, Value> {
    let event_type = match z.change {
        ZoneChange::Enter => "enter",
        ZoneChange::Leave => "leave",
        ZoneChange::Dwell => "dwell",
        ZoneChange::Cross(_) => "cross",
    };
    let mut m = Map::new();
    m.insert("event_type".into(), json!(event_type));
    m.insert("place".into(), json!(&*z.place));
    m.insert("track".into(), json!(z.track));
    m.insert("label".into(), json!(&*z.label));
    m.insert("box".into(), json!(z.bbox.corners().map(round4)));
    match z.change {
        ZoneChange::Cross(side) => {
            let direction = match side {
                Side::Left => "left",
                Side::Right => "right",
            };
            m.insert("direction".into(), json!(direction));
        }
        _ => {
            m.insert("lasted_ms".into(), json!(ms(z.lasted)));
        }
    }
    m
}

fn timing_ms(t: &Timing) -> Value {
    let mut stages = json!({
        "age": ms(t.age),
        "decode": ms(t.decode),
        "preprocess": ms(t.preprocess),
        "infer": ms(t.infer),
        "decode_output": ms(t.decode_output),
    });
    if let Some(crops) = t.crops {
        stages["crops"] = json!(ms(crops));
    }
    stages
}

fn ms(d: Duration) -> f64 {
    round1(d.as_secs_f64() * 1000.0)
}

fn round1(x: f64) -> f64 {
    (x * 10.0).round() / 10.0
}

fn round4(x: f32) -> f64 {
    (f64::from(x) * 1e4).round() / 1e4
}

fn bytes(value: &impl Serialize) -> Vec<u8> {
    // Maps with string keys and finite or null numbers always serialize.
    serde_json::to_vec(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        assert_eq!(json!(ms(Duration::from_micros(48_149))).to_string(), "48.1");
        assert_eq!(json!(round4(0.930_012_3)).to_string(), "0.93");
        assert_eq!(json!(round4(f32::NAN)), Value::Null);
    }

    #[test]
    fn a_message_is_marked_and_nothing_else_changes() {
        let tricky = json!({"a": "\"replayed\":false", "replayed": false, "z": [false]});
        let marked = replayed(&Bytes::from(bytes(&tricky)));
        let marked: Value = serde_json::from_slice(&marked).unwrap();
        assert_eq!(
            marked,
            json!({"a": "\"replayed\":false", "replayed": true, "z": [false]})
        );
        for other in [&b"online"[..], b"", br#"{"replayed":true}"#] {
            assert_eq!(replayed(&Bytes::from_static(other)), other);
        }
    }

    #[test]
    fn embeddings_are_little_endian() {
        let e = |dtype| Embedding {
            values: vec![1.0, -2.0],
            l2_normalized: false,
            dtype,
        };
        let f16 = embedding_value(&e(EmbeddingType::F16));
        assert_eq!(
            STANDARD.decode(f16["b64"].as_str().unwrap()).unwrap(),
            [0x00, 0x3c, 0x00, 0xc0]
        );
        let f32 = embedding_value(&e(EmbeddingType::F32));
        assert_eq!(
            STANDARD.decode(f32["b64"].as_str().unwrap()).unwrap(),
            [0, 0, 0x80, 0x3f, 0, 0, 0, 0xc0]
        );
        assert_eq!(f32["dim"], 2);
    }
}
