//! The program itself, with two drawn cameras and every result published at QoS 1.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::common;
use crate::ledger::Name;

/// Where it lives: configuration, spool, what it wrote.
pub struct Home {
    dir: tempfile::TempDir,
    lives: usize,
}

/// A running program; killed when dropped.
pub struct Firmware {
    child: Child,
}

/// What is put into the configuration.
#[derive(Debug, Clone, Default)]
pub struct Setup {
    pub port: u16,
    /// 5: MQTT 5.
    pub version: u8,
    pub fps: f64,
    /// Further lines of `[mqtt]`.
    pub mqtt: String,
    /// Lines of `[spool]`.
    pub spool: String,
}

impl Home {
    pub fn new(setup: &Setup) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let home = Self { dir, lives: 0 };
        home.configure(setup);
        home
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn configure(&self, setup: &Setup) {
        let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/scene-resnet10-int8");
        let version = match setup.version {
            // rumqttc allows no shorter keep-alive there.
            5 => "version = 5\nkeep_alive_s = 5\n",
            _ => "keep_alive_s = 1\n",
        };
        let cameras: String = ["a", "b"]
            .iter()
            .enumerate()
            .map(|(seed, id)| {
                format!("[[camera]]\nid = '{id}'\nsource = 'scene:{seed}'\nfps = {:.1}\nsize = [160, 120]\n", setup.fps)
            })
            .collect();
        let text = format!(
            "[device]\nid = 'dev'\n{cameras}[[model]]\npath = '{}'\nself_test = 'off'\ntasks = ['classify']\n\
             [smoothing]\nwindow_ms = 0\nenter = 0.5\nleave = 0.4\nmin_duration_ms = 0\n\
             [mqtt]\nurl = 'mqtt://127.0.0.1:{}'\nqos = 1\nmax_rate = 0\nqueue = 100000\n\
             reconnect_max_s = 0.3\nhealth_s = 0.2\n{version}{}\n[spool]\n{}\n",
            model.display(),
            setup.port,
            setup.mqtt,
            setup.spool
        );
        std::fs::write(self.path().join("ocellus.toml"), text).unwrap();
    }

    fn file(&self, life: usize, kind: &str) -> PathBuf {
        self.path().join(format!("{life}.{kind}"))
    }

    pub fn start(&mut self) -> Firmware {
        self.start_with(|c| c)
    }

    /// `wrap` may put another program around it.
    pub fn start_with(
        &mut self,
        wrap: impl FnOnce(std::process::Command) -> std::process::Command,
    ) -> Firmware {
        self.lives += 1;
        let mut command = common::ocellus();
        command
            .args(["run", "--output", "jsonl", "--config"])
            .arg(self.path().join("ocellus.toml"));
        let child = wrap(command)
            .env("STATE_DIRECTORY", self.path())
            .env("OCELLUS_LOG", "info,ocellus::publish::spool=trace")
            .env("NO_COLOR", "1")
            .stdout(File::create(self.file(self.lives, "jsonl")).unwrap())
            .stderr(File::create(self.file(self.lives, "log")).unwrap())
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        Firmware { child }
    }

    /// Every message of every observation that was made, in all lives: whole lines of what it wrote.
    pub fn made(&self) -> BTreeSet<Name> {
        let mut names = BTreeSet::new();
        for life in 1..=self.lives {
            let text = std::fs::read_to_string(self.file(life, "jsonl")).unwrap();
            for line in text.split_inclusive('\n').filter(|l| l.ends_with('\n')) {
                let m: Value = serde_json::from_str(line).unwrap();
                let (camera, seq) = (m["camera"].as_str().unwrap(), m["seq"].as_u64().unwrap());
                let mut add = |kind| {
                    let new = names.insert((format!("ocellus/dev/{camera}/{kind}"), seq));
                    assert!(new, "{camera} {seq} was given twice");
                };
                add("classification");
                if m["event"].is_object() {
                    add("event");
                }
            }
        }
        names
    }

    /// Every message of which some life has written that it is on the disk.
    pub fn stored(&self) -> BTreeSet<Name> {
        let mut names = BTreeSet::new();
        for life in 1..=self.lives {
            let text = std::fs::read_to_string(self.file(life, "log")).unwrap();
            for line in text.split_inclusive('\n').filter(|l| l.ends_with('\n')) {
                let Some((_, stored)) = line.split_once("stored topic=\"") else {
                    continue;
                };
                let (topic, rest) = stored.split_once("\" seq=").unwrap();
                names.insert((topic.into(), rest.trim().parse().unwrap()));
            }
        }
        names
    }

    /// The log of the newest life.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.file(self.lives, "log")).unwrap()
    }
}

impl Firmware {
    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32).unwrap()
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// `kill -9`.
    pub fn kill(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// As systemd stops it. Returns how long that took.
    pub fn stop(mut self) -> Duration {
        let start = Instant::now();
        kill_process(self.pid(), Signal::TERM).unwrap();
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}");
        start.elapsed()
    }
}

impl Drop for Firmware {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
