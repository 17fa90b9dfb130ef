//! The program itself: a V4L2 camera, a network, a real mosquitto.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use crate::MODEL;
use crate::camera::{PATIENCE, eventually};
use crate::common::mosquitto::{Mosquitto, Observer};
use crate::common::ocellus;
use crate::vivid::{Vivid, run};

/// A running `ocellus run`; killed when dropped.
pub struct Program {
    child: Child,
    /// When each observation came.
    observations: Receiver<Instant>,
    _config: tempfile::TempDir,
}

impl Program {
    pub fn start(source: &str, broker: &Mosquitto) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("ocellus.toml");
        let model = std::env::var(MODEL).unwrap();
        let text = format!(
            "[device]\nid='guest'\n[[camera]]\nid='porch'\nsource='{source}'\n[[model]]\npath='{model}'\n\
             [mqtt]\nurl='{}'\n[output]\njsonl=true\n",
            broker.url()
        );
        fs::write(&config, text).unwrap();
        let mut child = ocellus()
            .args(["run", "--config"])
            .arg(&config)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (tx, observations) = channel();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        std::thread::spawn(move || {
            for _ in lines.map_while(Result::ok) {
                let _ = tx.send(Instant::now());
            }
        });
        // What it says belongs to the test's own output.
        let log = BufReader::new(child.stderr.take().unwrap()).lines();
        std::thread::spawn(move || {
            for line in log.map_while(Result::ok) {
                println!("  {line}");
            }
        });
        Self {
            child,
            observations,
            _config: dir,
        }
    }

    /// The first observation that comes after `from`.
    pub fn observation_after(&self, from: Instant) -> Instant {
        loop {
            let at = self.observations.recv_timeout(PATIENCE);
            let at = at.expect("an observation");
            if at > from {
                return at;
            }
        }
    }

    /// Its open descriptors and threads.
    pub fn held(&self) -> [usize; 2] {
        let proc = Path::new("/proc").join(self.child.id().to_string());
        ["fd", "task"].map(|dir| fs::read_dir(proc.join(dir)).unwrap().count())
    }

    /// Asks it to stop. It does so by itself: with 0, or with 1 after 1.9 seconds, which an emulated machine on a busy
    /// host may take.
    pub fn terminate(&mut self) {
        run(std::process::Command::new("kill").arg(self.child.id().to_string()));
        let asked = Instant::now();
        let status = eventually("it ends", || self.child.try_wait().unwrap());
        println!(
            "measured: {:?} from SIGTERM to the end, {status}",
            asked.elapsed()
        );
        assert!(matches!(status.code(), Some(0 | 1)), "{status}");
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn wait_for_status(observer: &Observer, status: &str) {
    observer.wait(status, |m| {
        m.topic == "ocellus/guest/porch/status" && m.text() == status
    });
}

/// Unplugs five times with `cut` and plugs in again with `mend`, `away(round)` later; then stops the program. All that
/// while it is the same process, and holds no more than before. Returns the longest time from plug to observation.
fn survives(
    source: &str,
    cut: impl Fn(),
    away: impl Fn(u32) -> Duration,
    mend: impl Fn(),
) -> Duration {
    let broker = Mosquitto::start("");
    let observer = Observer::start(broker.port, "ocellus/guest/#");
    let mut program = Program::start(source, &broker);
    wait_for_status(&observer, "online");
    program.observation_after(Instant::now());
    let (held, mut slowest) = (program.held(), Duration::ZERO);
    for round in 0..5 {
        cut();
        wait_for_status(&observer, "offline");
        std::thread::sleep(away(round));
        mend();
        let plugged_in = Instant::now();
        let seen = program.observation_after(plugged_in);
        slowest = slowest.max(seen - plugged_in);
        wait_for_status(&observer, "online");
        eventually("nothing is left open", || {
            (program.held() == held).then_some(())
        });
    }
    program.terminate();
    wait_for_status(&observer, "offline");
    slowest
}

#[test]
#[ignore = "runs in the guest"]
fn a_camera_that_disconnects_comes_back() {
    let vivid = Vivid::webcam();
    // vivid connects again when its last user has closed it.
    let slowest = survives(
        "v4l2:",
        || vivid.press("disconnect"),
        |_| Duration::ZERO,
        || (),
    );
    println!("measured: disconnected 5 times, at most {slowest:?} to the next observation");
}

#[test]
#[ignore = "runs in the guest"]
fn a_camera_whose_node_goes_comes_back() {
    let vivid = Vivid::webcam();
    let link = "/dev/v4l/by-path/platform-vivid.0-video-index0";
    for source in ["v4l2:".to_string(), format!("v4l2:{link}")] {
        // After three seconds the attempts are as rare as they get.
        let away = |round| Duration::from_secs(3 * u64::from(round % 2));
        let slowest = survives(&source, || vivid.unbind(), away, || vivid.bind());
        println!(
            "measured: {source} unbound 5 times, at most {slowest:?} from plug to observation"
        );
    }
}

#[test]
#[ignore = "runs in the guest"]
fn a_camera_that_comes_back_under_another_number_is_found() {
    let vivid = Vivid::webcam();
    let first = vivid.node();
    let broker = Mosquitto::start("");
    let observer = Observer::start(broker.port, "ocellus/guest/#");
    let program = Program::start(&format!("v4l2:{}", first.display()), &broker);
    wait_for_status(&observer, "online");
    // While somebody holds the node of before, its number is taken.
    let holder = fs::File::open(&first).unwrap();
    vivid.unbind();
    wait_for_status(&observer, "offline");
    vivid.bind();
    let plugged_in = Instant::now();
    assert_ne!(vivid.node(), first);
    let seen = program.observation_after(plugged_in);
    println!(
        "measured: {:?} from plug to observation, as {} after {}",
        seen - plugged_in,
        vivid.node().display(),
        first.display()
    );
    wait_for_status(&observer, "online");
    drop((program, holder));
}

#[test]
#[ignore = "runs in the guest"]
fn what_was_negotiated_is_in_the_log() {
    let vivid = Vivid::webcam();
    let output = ocellus()
        .args([
            "run", "--camera", "v4l2:", "--size", "600x400", "--fps", "14",
        ])
        .args(["--output", "jsonl", "--seconds", "3", "--model"])
        .arg(std::env::var(MODEL).unwrap())
        .output()
        .unwrap();
    let log = String::from_utf8(output.stderr).unwrap();
    assert!(
        output.status.success() && !output.stdout.is_empty(),
        "{log}"
    );
    let node = vivid.node().display().to_string();
    for said in [
        format!("{node}: the camera has no 600x400 14 fps; the nearest is nv12 640x360 at 15 fps"),
        format!("camera online: nv12 640x360 at 15 fps from {node} (vivid)"),
    ] {
        assert!(log.contains(&said), "no `{said}` in\n{log}");
    }
}
