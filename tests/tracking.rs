//! From boxes to events, with a real network and a real film: bottles are followed and counted.
//!
//! `video/bottle-detection.mp4`, counted by hand: three bottles stand on a table. The left one is taken away (second 7) and put back (12);
//! the left and the middle one are taken (17), the middle one comes back (22), then the left (28); the right one is taken (32) and comes
//! back (35). So bottles go up from the table four times and come down to it four times, and in the end three stand there.
//!
//! The network is YOLOX-nano in float. In int8 it is less sure of a bottle that is pulled away fast and blurred: it misses one of the four on
//! their way up and one on their way down, at this line; the zone's counts are right with both. Where the line lies matters too: at 0.6 of the
//! height only one of the four is counted on its way down, at 0.75, which is used here, and at 0.82 all are.
//! Every frame is played, as fast as they are inferred: this is a test of counting, not of keeping up. The last test plays two pieces of the
//! film at its own speed, 8 frames a second, as a camera behind ffmpeg, to a broker.

mod common;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime};

use common::device::Device;
use common::mosquitto::{Observer, mosquitto_or_skip};
use common::schema::check;
use common::{run_to_its_end, skip, test_data};
use ocellus::observe::track::TrackSettings;
use ocellus::observe::zones::{Counts, ZoneSettings, Zones};
use ocellus::observe::{Follower, Sequence};
use ocellus::task::{BBox, Detection};
use serde_json::Value;

/// The film at its own speed needs the machine for itself.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(|e| e.into_inner())
}

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
    let _alone = alone();
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
    // Three stood there, four came back; with the film's end the three that stand there have gone.
    assert_eq!(count("enter", None), 7, "{zones:?}");
    assert_eq!(count("leave", None), 4 + 3, "{zones:?}");
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
    // Whose story begins, ends: also when the film is over, where three still stand.
    let told = |what: &str| {
        let of = tracks.iter().filter(|t| t["event_type"] == what);
        of.map(|t| t["track"].as_u64().unwrap())
            .collect::<BTreeSet<_>>()
    };
    assert_eq!(told("new"), told("end"));
    let last = lines.last().unwrap();
    assert_eq!(last["tracks"].as_array().unwrap().len(), 3, "{last}");
    check("record", last);
    // A detection says whose it is.
    let numbered = events(&lines, "detections")
        .iter()
        .filter(|d| d["track"].is_u64())
        .count();
    assert!(numbered > 1500, "{numbered}");
}

const PLACES: &str = "[[camera.line]]\nid = 'up'\nfrom = [0, 0.75]\nto = [1, 0.75]\nlabels = ['bottle']\n\
                      [[camera.zone]]\nid = 'table'\npolygon = [[0, 0.8], [1, 0.8], [1, 1], [0, 1]]\nlabels = ['bottle']\n";

/// A camera that shows a piece of the film, once, and then nothing any more: `from` and `seconds` of the film.
fn filmed(dir: &Path, data: &Path, model: &str, (from, seconds): (u32, u32), port: u16) -> Device {
    let config = dir.join("ocellus.toml");
    let played = dir.join(format!("played-{from}"));
    let text = format!(
        "[device]\nid = 'dev-1'\nstate_dir = '{}/state'\n[mqtt]\nurl = 'mqtt://127.0.0.1:{port}'\n[discovery]\nenabled = false\n\
         [[model]]\nid = 'yolox'\npath = '{1}/models/{model}'\ntasks = ['detect']\n\
         [model.detect]\nfamily = 'yolox'\nthreshold = 0.25\nonly = ['bottle']\n[[camera]]\nid = 'film'\n\
         source = 'exec:[ -e {2} ] && exec sleep 600; touch {2}; exec ffmpeg -v error -re -ss {from} -t {seconds} -i {1}/video/bottle-detection.mp4 \
         -vf fps=8 -q:v 4 -f mjpeg -'\n{PLACES}",
        dir.display(),
        data.display(),
        played.display()
    );
    std::fs::write(&config, text).unwrap();
    Device::start(&config)
}

/// What a subscriber got of a camera: the last part of the topic, and the message.
#[derive(Default)]
struct Got(Vec<(String, Value)>);

impl Got {
    /// Everything until `holds`.
    fn until(observer: &Observer, what: &str, holds: impl Fn(&Self) -> bool) -> Self {
        let (mut got, start) = (Self::default(), Instant::now());
        while !holds(&got) {
            let left = Duration::from_secs(60).saturating_sub(start.elapsed());
            let seen = observer.next_within(left);
            let seen = seen.unwrap_or_else(|| panic!("did not come: {what}: {:?}", got.0));
            let kind = seen.topic.rsplit('/').next().unwrap();
            if ["track", "zone", "counts"].contains(&kind) {
                check(kind, &seen.json());
                got.0.push((kind.into(), seen.json()));
            }
        }
        got
    }

    /// Of the events on `kind` with this type.
    fn events(&self, kind: &str, event_type: &str) -> Vec<&Value> {
        let is = |(k, v): &&(String, Value)| k == kind && v["event_type"] == event_type;
        self.0.iter().filter(is).map(|(_, v)| v).collect()
    }

    fn tracks(&self, event_type: &str) -> BTreeSet<u64> {
        let events = self.events("track", event_type).into_iter();
        events.map(|e| e["track"].as_u64().unwrap()).collect()
    }

    fn crossed(&self, direction: &str) -> usize {
        let events = self.events("zone", "cross").into_iter();
        events.filter(|e| e["direction"] == direction).count()
    }

    /// The newest counts: bottles that entered the table and left it; those there now.
    fn table(&self) -> Option<(u64, u64, Value)> {
        let counts = self.0.iter().rev().find(|(kind, _)| kind == "counts")?;
        let table = &counts.1["zones"]["table"];
        let bottles = |what: &str| table[what]["bottle"].as_u64().unwrap_or(0);
        Some((bottles("entered"), bottles("left"), table["now"].clone()))
    }

    fn since(&self) -> &Value {
        let counts = self.0.iter().rev().find(|(kind, _)| kind == "counts");
        &counts.unwrap().1["since"]
    }
}

/// Through ffmpeg, the program and a broker, at the film's speed. Seconds 5 to 20, with the network in float: the left bottle is taken and
/// put back, the left and the middle one are taken; then the camera ends, and with it the tracks. Seconds 25 to 39, in int8, after a restart: the
/// left one comes back, the right one is taken and comes back; then the program is stopped.
#[test]
fn a_film_by_ffmpeg_to_a_broker_and_over_a_restart() {
    let Some(data) = test_data() else {
        return skip("needs the test data");
    };
    let Some(broker) = mosquitto_or_skip() else {
        return;
    };
    if Command::new("ffmpeg").arg("-version").output().is_err() {
        return skip("ffmpeg is not installed");
    }
    let _alone = alone();
    let (dir, nobody) = (tempfile::tempdir().unwrap(), serde_json::json!({}));
    let observer = Observer::start(broker.port, "ocellus/dev-1/film/#");
    let all_ended = |g: &Got| {
        let new = g.tracks("new");
        !new.is_empty() && new == g.tracks("end")
    };

    let device = filmed(dir.path(), &data, "yolox-nano.onnx", (5, 15), broker.port);
    // The right one stands there still when the camera ends; the program goes on.
    let first = Got::until(&observer, "the end of the camera", |g| {
        // Those of the zone are the last of a frame's events.
        all_ended(g) && g.events("zone", "leave").len() == 4
    });
    assert_eq!((first.crossed("left"), first.crossed("right")), (3, 1));
    assert_eq!(first.events("zone", "enter").len(), 4);
    assert_eq!(first.table(), Some((4, 4, nobody.clone())));
    assert!(device.stop().success());

    let int8 = "yolox-nano-int8-qdq-u8s8.onnx";
    let device = filmed(dir.path(), &data, int8, (25, 14), broker.port);
    let second = Got::until(&observer, "the last bottle's return", |g| {
        g.events("zone", "enter").len() == 4
    });
    let counted = second.table().unwrap();
    assert!(device.stop().success());
    // Counts go out before the events that they count.
    assert_eq!(counted, (8, 5, serde_json::json!({ "bottle": 3 })));
    let rest = Got::until(&observer, "the last tracks", |g| {
        g.events("zone", "leave").len() == 3
    });
    assert_eq!(rest.table(), Some((8, 8, nobody)));
    assert!(rest.tracks("end").len() >= 3);
    assert_eq!(second.since(), first.since());
    assert_eq!(rest.since(), first.since());
    let (last, next) = (first.tracks("new"), second.tracks("new"));
    assert_eq!(next.first().unwrap() - last.last().unwrap(), 1);
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
        let mut follower = Follower::new(
            TrackSettings::default(),
            Sequence::new(),
            Zones::new(&zones, &[], Counts::since(SystemTime::now())),
        );
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
