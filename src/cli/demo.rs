//! `ocellus demo`: everything at work, with nothing to set up.
//!
//! The embedded broker, the synthetic camera and the detector that ships run in this process; the lines that are shown
//! are messages that came back from the broker.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context;
use serde::Deserialize;

use super::{run::load_models, run::stop_after, setup::shipped_model, summary};
use crate::broker::{Broker, BrokerSettings};
use crate::config::{CameraConfig, Config, DeviceConfig, ModelConfig, Plan};
use crate::observe::zones::{LineSettings, ZoneSettings};
use crate::pipeline::{self, Parts};
use crate::publish::mqtt::{self, MqttSettings};
use crate::shutdown::Shutdown;
use crate::task::detect::{DetectSettings, is_right};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Stop after so many seconds (default: at Ctrl-C)
    #[arg(long, value_name = "N")]
    seconds: Option<f64>,
    /// Frames a second of the synthetic camera
    #[arg(long, value_name = "N", default_value_t = 10.0)]
    fps: f64,
    /// Seed of the scene: the same seed draws the same frames
    #[arg(long, value_name = "N", default_value_t = 2026)]
    seed: u64,
    /// Port of the embedded broker on 127.0.0.1 (default: 1883, or a free one if that is taken)
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
}

const DETECTOR: &str = "scene-detect10-int8";
const DEVICE: &str = "demo";
const CAMERA: &str = "scene";

pub(super) fn run(args: Args) -> anyhow::Result<()> {
    let broker = start_broker(args.port)?;
    let listen = broker.local_addr();
    let plan = plan(&args, listen)?;
    let models = load_models(&plan)?;
    introduce(&plan, listen);

    let ended = Shutdown::new();
    let viewer = Viewer::start(&plan, ended.clone())?;
    let shutdown = Shutdown::new();
    stop_after(&shutdown, args.seconds);
    let started = Instant::now();
    let running = pipeline::start(
        &plan,
        Parts {
            models,
            shutdown,
            is_service: true,
            ..Parts::default()
        },
    )?;
    let stats = running.wait()?;
    let ran = started.elapsed();
    ended.request();
    let shown = viewer.join();
    drop(broker);

    println!(
        "\nAfter {:.1} s, {shown} results came back from the broker:\n",
        ran.as_secs_f64()
    );
    print!("{}", summary::table(&stats, ran));
    if let Some(bytes) = crate::stats::resident_bytes() {
        println!("\n  memory: {:.0} MB resident", bytes as f64 / 1e6);
    }
    Ok(())
}

/// On the wanted port, or 1883, or a free one.
fn start_broker(wanted: Option<u16>) -> anyhow::Result<Broker> {
    let start = |port| {
        Broker::start(BrokerSettings {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            login: None,
        })
    };
    match wanted {
        Some(port) => Ok(start(port)?),
        None => Ok(start(1883).or_else(|_| start(0))?),
    }
}

fn plan(args: &Args, broker: SocketAddr) -> anyhow::Result<Plan> {
    let config = Config {
        device: DeviceConfig {
            id: Some(DEVICE.into()),
            ..DeviceConfig::default()
        },
        camera: vec![CameraConfig {
            id: Some(CAMERA.into()),
            source: Some(format!("scene:{}", args.seed)),
            fps: Some(args.fps),
            zone: vec![ZoneSettings {
                id: "middle".into(),
                polygon: vec![[0.3, 0.3], [0.7, 0.3], [0.7, 1.0], [0.3, 1.0]],
                dwell_s: 3.0,
                ..ZoneSettings::default()
            }],
            line: vec![LineSettings {
                id: "line".into(),
                from: Some([0.5, 1.0]),
                to: Some([0.5, 0.0]),
                ..LineSettings::default()
            }],
            ..CameraConfig::default()
        }],
        model: vec![ModelConfig {
            path: Some(shipped_model(DETECTOR)?),
            detect: DetectSettings {
                threshold: Some(0.5),
                ..DetectSettings::default()
            },
            ..ModelConfig::default()
        }],
        // Every result is to be seen.
        mqtt: Some(MqttSettings {
            url: format!("mqtt://{broker}"),
            max_rate: 0.0,
            ..MqttSettings::default()
        }),
        ..Config::default()
    };
    let plan = Plan::new(config, Path::new("")).map_err(|problems| {
        let lines: Vec<String> = problems.iter().map(|p| p.to_string()).collect();
        anyhow::anyhow!("{}", lines.join("\n"))
    })?;
    // What was kept of a real installation is not the demo's.
    Ok(Plan {
        state_dir: None,
        spool_dir: None,
        ..plan
    })
}

fn introduce(plan: &Plan, listen: SocketAddr) {
    let (camera, model) = (&plan.cameras[0], &plan.models[0]);
    println!(
        "Ocellus {}: a camera that thinks",
        env!("CARGO_PKG_VERSION")
    );
    println!(
        "  camera   {} (drawn by this program, {} frames a second)",
        camera.capture.source,
        camera.capture.fps.unwrap_or_default()
    );
    println!("  model    {} (int8, on the CPU)", model.id);
    println!("  broker   {listen} (embedded); look for yourself:");
    println!(
        "           mosquitto_sub -h {} -p {} -t 'ocellus/{DEVICE}/#' -v",
        listen.ip(),
        listen.port()
    );
    println!("Each line below is a message that came back from the broker. Ctrl-C stops.\n");
}

/// A subscriber on a thread of its own: what it shows has been through the broker.
struct Viewer(JoinHandle<usize>);

impl Viewer {
    /// Returns when the subscription stands. After `ended` it waits for the device's `offline`, which comes last.
    fn start(plan: &Plan, ended: Shutdown) -> anyhow::Result<Self> {
        let settings = plan.mqtt.as_ref().context("the demo publishes")?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let filter = format!("ocellus/{DEVICE}/#");
        let (mut subscription, connection) =
            mqtt::subscribe(settings, "demo-viewer", &filter, 1024)?;
        let (ready, is_ready) = crossbeam_channel::bounded(1);
        let watch = async move {
            subscription.ready().await;
            let _ = ready.send(());
            let mut shown = 0;
            loop {
                let message =
                    tokio::time::timeout(Duration::from_millis(500), subscription.messages.recv())
                        .await;
                match message {
                    Ok(Some(m)) if is_last(&m) => return shown,
                    Ok(Some(m)) => shown += usize::from(show(&m.topic, &m.payload)),
                    Ok(None) => return shown,
                    Err(_) if ended.is_requested() => return shown,
                    Err(_) => {}
                }
            }
        };
        let thread = std::thread::Builder::new()
            .name("viewer".into())
            .spawn(move || {
                runtime.block_on(async {
                    tokio::select! {
                        shown = watch => shown,
                        () = connection => 0,
                    }
                })
            })?;
        is_ready
            .recv_timeout(Duration::from_secs(10))
            .context("the embedded broker does not answer")?;
        Ok(Self(thread))
    }

    /// How many results were shown.
    fn join(self) -> usize {
        self.0.join().unwrap_or_default()
    }
}

fn is_last(m: &mqtt::Received) -> bool {
    m.topic == format!("ocellus/{DEVICE}/status") && m.payload == mqtt::payload::OFFLINE.as_bytes()
}

/// The parts of a message that a line shows.
#[derive(Deserialize)]
struct Message {
    seq: u64,
    ts: String,
    timing_ms: Timing,
    detections: Vec<Found>,
    truth: Option<Truth>,
}

#[derive(Deserialize)]
struct Timing {
    age: f64,
    infer: f64,
}

#[derive(Deserialize)]
struct Found {
    label: String,
    score: f64,
    #[serde(rename = "box")]
    corners: [f32; 4],
    track: Option<u64>,
}

#[derive(Deserialize)]
struct Truth {
    /// None while an object comes or goes: then nothing is right or wrong.
    label: Option<String>,
    objects: Vec<There>,
}

#[derive(Deserialize)]
struct There {
    label: String,
    #[serde(rename = "box")]
    corners: [f32; 4],
}

/// The parts of a `track` or `zone` event that a line shows.
#[derive(Deserialize)]
struct Event {
    event_type: String,
    track: u64,
    label: String,
    place: Option<String>,
    direction: Option<String>,
    lasted_ms: Option<f64>,
}

/// Prints one message as a line; whether it was a result.
fn show(topic: &str, payload: &[u8]) -> bool {
    let mut out = std::io::stdout().lock();
    match topic.rsplit('/').next() {
        Some("detections") => match serde_json::from_slice::<Message>(payload) {
            Ok(m) => writeln!(out, "{}", line(&m)).is_ok(),
            Err(e) => {
                tracing::warn!("{topic}: not as expected: {e}");
                false
            }
        },
        Some("track" | "zone") => {
            if let Some(text) = serde_json::from_slice(payload).ok().and_then(told) {
                let _ = writeln!(out, "              event  {text}");
            }
            false
        }
        _ => false,
    }
}

/// What happened, in words; movements are too many to be told.
fn told(event: Event) -> Option<String> {
    let Event { label, track, .. } = event;
    let who = format!("{label} {track}");
    let place = event.place.unwrap_or_default();
    let seconds = event.lasted_ms.unwrap_or_default() / 1e3;
    Some(match event.event_type.as_str() {
        "new" => format!("{who} came"),
        "end" => format!("{who} went after {seconds:.1} s"),
        "enter" => format!("{who} entered the {place}"),
        "leave" => format!("{who} left the {place} after {seconds:.1} s"),
        "dwell" => format!("{who} stays in the {place}"),
        "cross" => {
            let direction = event.direction.unwrap_or_default();
            format!("{who} crossed the {place} to the {direction}")
        }
        _ => return None,
    })
}

fn line(m: &Message) -> String {
    let time =
        m.ts.split_once('T')
            .map_or(m.ts.as_str(), |(_, t)| t.trim_end_matches('Z'));
    let found = |f: &Found| {
        let track = f.track.map(|t| t.to_string()).unwrap_or_default();
        let [x0, y0, x1, y1] = f.corners.map(|c| 100.0 * c);
        format!(
            "{:<6} {track:<3} {:>3.0} %  {x0:>3.0},{y0:>3.0} to {x1:>3.0},{y1:>3.0}",
            f.label,
            100.0 * f.score
        )
    };
    let all: Vec<String> = m.detections.iter().map(found).collect();
    let sees = match all.is_empty() {
        true => "–".to_string(),
        false => all.join(" and "),
    };
    let truth = match &m.truth {
        Some(Truth {
            label: Some(label),
            objects,
        }) => {
            let there = objects.iter().map(|o| (&*o.label, o.corners.into()));
            let found = m.detections.iter();
            match is_right(found.map(|f| (&*f.label, f.corners.into())), there) {
                true => "right".to_string(),
                false => format!("WRONG: {label}"),
            }
        }
        _ => "(half in view)".into(),
    };
    format!(
        "{time}  #{:<5} {sees:<36} {truth:<14} inferred in {:.1} ms, {:.1} ms after capture",
        m.seq, m.timing_ms.infer, m.timing_ms.age
    )
}
