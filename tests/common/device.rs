//! The program itself, as a service runs it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use super::mosquitto::DEADLINE;

/// Ends its process, by its id, when dropped.
pub struct Device {
    child: Child,
}

/// The model that ships.
pub fn shipped_model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/scene-resnet10-int8")
}

/// A configuration: drawn cameras, the model that ships, a broker, everything kept below `dir`; `more` goes behind `[mqtt]`.
pub fn configure(dir: &Path, cameras: &[&str], port: u16, more: &str) -> PathBuf {
    let mut text = format!(
        "[device]\nid = 'dev-1'\nstate_dir = '{}'\n[[model]]\nid = 'scene'\npath = '{}'\ntasks = ['classify', 'embed']\n",
        dir.join("state").display(),
        shipped_model().display()
    );
    for (seed, camera) in cameras.iter().enumerate() {
        text += &format!("[[camera]]\nid = '{camera}'\nsource = 'scene:{seed}'\nfps = 5.0\n");
    }
    text += &format!(
        "[mqtt]\nurl = 'mqtt://127.0.0.1:{port}'\nhealth_s = 2.0\nheartbeat_s = 2.0\n{more}"
    );
    let path = dir.join("ocellus.toml");
    std::fs::write(&path, text).unwrap();
    path
}

impl Device {
    /// `ocellus run`
    pub fn start(config: &Path) -> Self {
        let child = super::ocellus()
            .args(["--log", "warn", "run", "--config"])
            .arg(config)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self { child }
    }

    /// Of its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// SIGTERM, as a service manager stops it.
    pub fn stop(mut self) -> ExitStatus {
        let id = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-TERM", &id])
                .status()
                .unwrap()
                .success()
        );
        self.ended()
    }

    /// Waits until it has ended by itself.
    pub fn ended(&mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(start.elapsed() < DEADLINE, "the program does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
