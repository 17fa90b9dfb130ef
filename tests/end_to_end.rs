//! The whole way, with real parts: image files → decode → int8 network → a real mosquitto → a subscriber; overload;
//! the demo.

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::mosquitto::{Observer, mosquitto_or_skip};
use common::{ocellus, python, skip, test_data};
use ocellus::observe::{Publication, Timing};
use ocellus::publish::Sink;

fn shipped_model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/scene-resnet10-int8")
}

#[test]
fn a_hundred_images_reach_the_subscriber_as_right_as_with_onnxruntime() {
    let (Some(data), Some(python)) = (test_data(), python()) else {
        return skip("needs the test data and OCELLUS_PYTHON with onnxruntime and Pillow");
    };
    let model = data.join("models/resnet18-int8-qdq-u8s8.onnx");
    let images = data.join("images/imagenet");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/imagenet_top1.py");
    let reference = Command::new(python)
        .arg(script)
        .arg(&model)
        .arg(&images)
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(reference.status.success());
    // File name → best class; the name begins with the true class's index. Names sort as the source plays them.
    let reference: BTreeMap<String, usize> = serde_json::from_slice(&reference.stdout).unwrap();
    let truth: Vec<usize> = reference
        .keys()
        .map(|name| name[..4].parse().unwrap())
        .collect();
    let right_there = reference
        .values()
        .zip(&truth)
        .filter(|(a, b)| a == b)
        .count();

    let Some(broker) = mosquitto_or_skip() else {
        return;
    };
    let subscriber = Observer::start(broker.port, "ocellus/bench/#");
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("ocellus.toml");
    let text = format!(
        "[device]\nid='bench'\n[[camera]]\nid='stills'\nsource='files:{}'\n[[model]]\npath='{}'\n[mqtt]\nmax_rate=0.0\nurl='mqtt://127.0.0.1:{}'\n",
        images.display(),
        model.display(),
        broker.port
    );
    std::fs::write(&config, text).unwrap();
    let status = ocellus()
        .arg("run")
        .arg("--config")
        .arg(&config)
        .status()
        .unwrap();
    assert!(status.success());

    let messages = subscriber.collect("offline, the last message", |m| {
        m.topic == "ocellus/bench/status" && m.text() == "offline"
    });
    let seen: Vec<serde_json::Value> = messages
        .iter()
        .filter(|m| m.topic == "ocellus/bench/stills/classification")
        .map(|m| m.json())
        .collect();
    assert_eq!(seen.len(), truth.len(), "an observation for every image");
    let best = |m: &serde_json::Value| m["results"][0]["index"].as_u64().unwrap() as usize;
    let right_here = seen
        .iter()
        .zip(&truth)
        .filter(|(m, t)| best(m) == **t)
        .count();
    println!(
        "right: {right_here} here, {right_there} by onnxruntime on Pillow's pixels, of {}",
        truth.len()
    );
    assert!(
        right_here.abs_diff(right_there) <= 1,
        "{right_here} right here, {right_there} by onnxruntime"
    );
    assert!(
        seen.iter()
            .enumerate()
            .all(|(i, m)| m["seq"] == i as u64 + 1)
    );
}

/// The timings of every observation.
#[derive(Default)]
struct Timings(Mutex<Vec<Timing>>);

impl Sink for Timings {
    fn publish(&self, publication: &Publication) {
        if let Publication::Observation(o) = publication {
            self.0.lock().unwrap().push(o.timing);
        }
    }
}

fn percentile(mut values: Vec<Duration>, percent: usize) -> Duration {
    values.sort();
    values[(values.len() - 1) * percent / 100]
}

/// Ten times as many frames as can be inferred: the newest is always the next, and no frame is unaccounted for.
#[test]
fn overload_drops_old_frames_and_counts_every_one() {
    let Some(data) = test_data() else {
        return skip("needs the test data");
    };
    let fps = 400.0;
    let config = ocellus::config::Config {
        camera: vec![ocellus::config::CameraConfig {
            id: Some("fast".into()),
            source: Some("scene:5".into()),
            size: Some((320, 240)),
            fps: Some(fps),
            ..Default::default()
        }],
        model: vec![ocellus::config::ModelConfig {
            path: Some(data.join("models/resnet18.onnx")),
            ..Default::default()
        }],
        ..Default::default()
    };
    let plan = ocellus::config::Plan::new(config, Path::new("")).unwrap();
    let models = plan
        .models
        .iter()
        .map(|m| ocellus::pipeline::load_model(m, 1).unwrap())
        .collect();
    let timings = Arc::new(Timings::default());
    let parts = ocellus::pipeline::Parts {
        models,
        sinks: vec![timings.clone()],
        ..Default::default()
    };
    let shutdown = parts.shutdown.clone();
    let running = ocellus::pipeline::start(&plan, parts).unwrap();
    let camera = running.stats.cameras[0].clone();
    let deadline = Instant::now() + Duration::from_secs(120);
    while camera.inferred.get() < 100 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
    shutdown.request();
    let stats = running.wait().unwrap();
    let c = &stats.cameras[0];
    assert!(c.inferred.get() >= 100, "{c:?}");
    assert!(c.overwritten.get() > c.inferred.get(), "no overload: {c:?}");
    let accounted = c.inferred.get()
        + c.overwritten.get()
        + c.undecodable.get()
        + c.failed.get()
        + c.disabled.get()
        + c.abandoned.get();
    assert_eq!(c.captured.get(), accounted, "{c:?}");

    let timings = timings.0.lock().unwrap();
    let own = |t: &Timing| t.decode + t.preprocess + t.infer;
    let of = |f: &dyn Fn(&Timing) -> Duration, percent| {
        percentile(timings.iter().map(f).collect(), percent)
    };
    let wait = |t: &Timing| t.age.saturating_sub(own(t));
    println!(
        "{} captured, {} inferred, {} overwritten; a period {:.1} ms; own stages p50 {:?} p99 {:?}; age p50 {:?} p99 {:?}; wait p50 {:?} p99 {:?}",
        c.captured.get(),
        c.inferred.get(),
        c.overwritten.get(),
        1e3 / fps,
        of(&own, 50),
        of(&own, 99),
        of(&|t| t.age, 50),
        of(&|t| t.age, 99),
        of(&wait, 50),
        of(&wait, 99),
    );
    // A frame that had waited in a queue would have waited at least for the inference before its own. Medians, since the
    // machine may do something else at the same time.
    assert!(of(&wait, 50) < of(&own, 50) / 2);
}

#[test]
fn the_demo_shows_what_came_back_from_the_broker() {
    let output = ocellus()
        .args(["demo", "--seconds", "8", "--fps", "15"])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{text}{log}");
    assert!(text.contains("mosquitto_sub -h 127.0.0.1"), "{text}");
    let lines = text.lines().filter(|l| l.contains("  #")).count();
    assert!(lines >= 60, "{lines} results in\n{text}{log}");
    assert!(
        text.contains(&format!(" {lines} inferred ")),
        "not every inference came back: {lines} in\n{text}{log}"
    );
    // A visit takes six seconds of the eight.
    for event in [" came\n", "middle"] {
        assert!(text.contains(event), "no{event}in\n{text}");
    }
    assert!(log.is_empty(), "{log}");
    assert!(
        text.contains(&format!("{lines} results came back from the broker")),
        "{text}"
    );
    let accuracy = text
        .split("ground truth ")
        .nth(1)
        .and_then(|t| t.split(' ').next())
        .unwrap();
    let accuracy: f64 = accuracy.parse().unwrap();
    assert!(accuracy >= 90.0, "accuracy {accuracy} % in\n{text}");
    let memory = text
        .split("memory: ")
        .nth(1)
        .and_then(|t| t.split(' ').next())
        .unwrap();
    assert!(
        memory.parse::<f64>().unwrap() <= 64.0,
        "{memory} MB resident"
    );
}

#[test]
fn two_cameras_share_one_model_and_take_turns() {
    let model = shipped_model();
    let child = ocellus()
        .args([
            "run",
            "--camera",
            "scene:1",
            "--camera",
            "scene:2",
            "--output",
            "jsonl",
            "--seconds",
            "4",
        ])
        .arg("--model")
        .arg(&model)
        .output()
        .unwrap();
    let text = String::from_utf8(child.stdout).unwrap();
    let mut seen = BTreeMap::<String, u64>::new();
    for line in text.lines() {
        let m: serde_json::Value = serde_json::from_str(line).unwrap();
        *seen
            .entry(m["camera"].as_str().unwrap().into())
            .or_default() += 1;
    }
    assert_eq!(seen.keys().collect::<Vec<_>>(), ["camera0", "camera1"]);
    let (a, b) = (seen["camera0"], seen["camera1"]);
    assert!(a.min(b) * 2 > a.max(b), "{seen:?}");
}
