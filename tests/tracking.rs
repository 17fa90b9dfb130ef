//! From boxes to events, with a real network and a real film: bottles are followed and counted.
//!
//! `video/bottle-detection.mp4`, counted by hand: three bottles stand on a table. The left one is taken away (second 7) and put back (12);
//! the left and the middle one are taken (17), the middle one comes back (22), then the left (28); the right one is taken (32) and comes
//! back (35). So bottles go up from the table four times and come down to it four times, and in the end three stand there.
//!
//! The network is YOLOX-nano in float. In int8 it is less sure of a bottle that is pulled away fast and blurred: it misses one of the four on
//! their way up and one on their way down, at this line; the zone's counts are right with both. Where the line lies matters too: at 0.6 of the
//! height only one of the four is counted on its way down, at 0.75, which is used here, and at 0.82 all are.
//! Every frame is played, as fast as they are inferred: this is a test of counting, not of keeping up.

mod common;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use common::schema::check;
use common::{run_to_its_end, skip, test_data};
use ocellus::observe::Follower;
use ocellus::observe::track::TrackSettings;
use ocellus::observe::zones::{ZoneSettings, Zones};
use ocellus::task::{BBox, Detection};
use serde_json::Value;

/// Plays the film, every frame of 15 a second, and returns the program's lines.
fn play(dir: &Path, data: &Path, more: &str) -> Vec<Value> {
    let frames = dir.join("frames");
    if !frames.is_dir() {
        std::fs::create_dir(&frames).unwrap();
        let cut = Command::new("ffmpeg")
            .args(["-v", "error", "-i"])
            .arg(data.join("video/bottle-detection.mp4"))
            .args(["-vf", "fps=15", "-q:v", "4"])
            .arg(frames.join("%04d.jpg"))
            .status();
        assert!(cut.unwrap().success());
    }
    let config = dir.join("ocellus.toml");
    let text = format!(
        "[device]\nid = 'dev-1'\nstate_dir = '{0}/state'\n[output]\njsonl = true\n[[model]]\npath = '{1}/models/yolox-nano.onnx'\n\
         tasks = ['detect']\n[model.detect]\nfamily = 'yolox'\nthreshold = 0.25\n[[camera]]\nid = 'table'\nsource = 'files:{0}/frames'\n{more}",
        dir.display(),
        data.display()
    );
    std::fs::write(&config, text).unwrap();
    run_to_its_end(&config)
}

fn events<'a>(lines: &'a [Value], section: &str) -> Vec<&'a Value> {
    lines
        .iter()
        .filter_map(|l| l[section].as_array())
        .flatten()
        .collect()
}

#[test]
fn bottles_are_counted_as_by_hand() {
    let Some(data) = test_data() else {
        return skip("needs the test data");
    };
    if Command::new("ffmpeg").arg("-version").output().is_err() {
        return skip("ffmpeg is not installed");
    }
    let dir = tempfile::tempdir().unwrap();
    let places = "[[camera.line]]\nid = 'up'\nfrom = [0, 0.75]\nto = [1, 0.75]\nlabels = ['bottle']\n\
                  [[camera.zone]]\nid = 'table'\npolygon = [[0, 0.8], [1, 0.8], [1, 1], [0, 1]]\nlabels = ['bottle']\ndwell_s = 0.5\n";
    let lines = play(dir.path(), &data, places);
    assert!(lines.len() > 580, "{}", lines.len());
    lines.iter().step_by(20).for_each(|l| check("record", l));

    let zones = events(&lines, "zones");
    let count = |event: &str, direction: Option<&str>| {
        let is = |z: &&&Value| z["event_type"] == event && z["direction"].as_str() == direction;
        zones.iter().filter(is).count()
    };
    // The line goes to the right: up is left of it.
    assert_eq!(count("cross", Some("left")), 4, "taken: {zones:?}");
    assert_eq!(count("cross", Some("right")), 4, "put back: {zones:?}");
    // Three stood there, four came back.
    assert_eq!(count("enter", None), 7, "{zones:?}");
    assert_eq!(count("leave", None), 4, "{zones:?}");
    assert_eq!(count("dwell", None), 7, "{zones:?}");

    // The right bottle stands still for most of the film, hands pass before the others: no number changes for that.
    let tracks = events(&lines, "tracks");
    let new: Vec<_> = tracks
        .iter()
        .filter(|t| t["event_type"] == "new" && t["label"] == "bottle")
        .collect();
    assert!((7..=10).contains(&new.len()), "{new:?}");
    for t in tracks.iter().filter(|t| t["event_type"] == "end") {
        let path = t["path"].as_array().unwrap();
        assert!(!path.is_empty() && path.len() <= 65);
        assert!(
            tracks
                .iter()
                .any(|n| n["event_type"] == "new" && n["track"] == t["track"])
        );
    }
    // A detection says whose it is.
    let numbered = events(&lines, "detections")
        .iter()
        .filter(|d| d["track"].is_u64())
        .count();
    assert!(numbered > 1500, "{numbered}");
}

/// Tracks, zones and lines of a frame with few and with many things.
/// `cargo test --release --test tracking -- --ignored --nocapture`
#[test]
#[ignore = "a measurement"]
fn what_tracking_costs() {
    let zone = |n: usize| ZoneSettings {
        id: format!("zone{n}"),
        polygon: vec![[0.1, 0.1], [0.9, 0.2], [0.8, 0.9], [0.2, 0.8]],
        ..ZoneSettings::default()
    };
    let zones: Vec<ZoneSettings> = (0..4).map(zone).collect();
    for things in [3, 30, 100] {
        let mut follower = Follower::new(TrackSettings::default(), Zones::new(&zones, &[]));
        let start = Instant::now();
        let mut took = Vec::new();
        for n in 0..300u32 {
            let found: Vec<Detection> = (0..things)
                .map(|i| {
                    let at = (i as f32 * 0.618).fract() + 0.0003 * n as f32;
                    let (x, y) = (at.fract(), (i as f32 * 0.382).fract());
                    Detection {
                        label: "person".into(),
                        index: 0,
                        score: 0.9,
                        bbox: BBox {
                            x0: x,
                            y0: y,
                            x1: x + 0.05,
                            y1: y + 0.1,
                        },
                    }
                })
                .collect();
            let began = Instant::now();
            follower.update(start + Duration::from_millis(100) * n, &found);
            took.push(began.elapsed());
        }
        took.sort_unstable();
        println!(
            "{things} things: {:?} a frame (median), {:?} at most",
            took[150], took[299]
        );
    }
}
