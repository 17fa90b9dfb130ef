//! `vivid`, the kernel's virtual camera: plugged in for a test, with its plug and its faults at hand.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::MODEL;
use crate::camera::eventually;

/// The plugged-in camera. It is unplugged when dropped; that fails, and the test with it, if it is still held open.
pub struct Vivid;

impl Vivid {
    /// A webcam: six sizes from 320x180 to 3840x2160, each with its rates.
    pub fn webcam() -> Self {
        Self::load("input_types=0")
    }

    /// An HDMI frame grabber: any size, one rate.
    pub fn hdmi() -> Self {
        Self::load("input_types=3")
    }

    fn load(option: &str) -> Self {
        in_guest();
        // One device with a node for capturing only.
        let options = ["n_devs=1", "node_types=1", "num_inputs=1", option];
        run(Command::new("modprobe").arg("vivid").args(options));
        settle();
        Self
    }

    /// `/dev/video0`, or whatever number it has now.
    pub fn node(&self) -> PathBuf {
        self.find().expect("vivid is plugged in")
    }

    fn find(&self) -> Option<PathBuf> {
        let class = fs::read_dir("/sys/class/video4linux").ok()?;
        let is_vivid = |entry: &fs::DirEntry| {
            let name = fs::read_to_string(entry.path().join("name"));
            name.is_ok_and(|name| name.trim() == "vivid-000-vid-cap")
        };
        let entry = class.flatten().find(is_vivid)?;
        Some(Path::new("/dev").join(entry.file_name()))
    }

    /// Sets a control, as `v4l2-ctl --list-ctrls` names it.
    pub fn set(&self, control: &str, value: i32) {
        run(Command::new("v4l2-ctl")
            .arg("-d")
            .arg(self.node())
            .arg(format!("--set-ctrl={control}={value}")));
    }

    /// Presses a button: a fault that happens once.
    pub fn press(&self, button: &str) {
        self.set(button, 1);
    }

    /// Pulls the driver off its device: the node goes.
    pub fn unbind(&self) {
        fs::write("/sys/bus/platform/drivers/vivid/unbind", "vivid.0").unwrap();
        eventually("the node is gone", || self.find().is_none().then_some(()));
    }

    /// Puts it back.
    pub fn bind(&self) {
        fs::write("/sys/bus/platform/drivers/vivid/bind", "vivid.0").unwrap();
    }
}

impl Drop for Vivid {
    fn drop(&mut self) {
        let unplugged = Command::new("modprobe").args(["-r", "vivid"]).status();
        if !std::thread::panicking() {
            assert!(unplugged.unwrap().success(), "somebody holds vivid open");
            settle();
        }
    }
}

/// Virtual cameras are plugged into virtual machines only.
pub fn in_guest() {
    assert!(
        std::env::var_os(MODEL).is_some(),
        "this test runs in a guest only"
    );
}

/// Waits until udev has made its links.
pub fn settle() {
    run(Command::new("udevadm").arg("settle"));
}

/// Runs a program to its end; it must succeed.
pub fn run(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{command:?}: {}{}",
        text(&output.stdout),
        text(&output.stderr)
    );
    text(&output.stdout)
}
