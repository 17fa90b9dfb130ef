//! The `v4l2:` source on cameras of a real Linux kernel, in a virtual machine that is made for it.
//!
//! [`on_a_real_kernel`] is the only test that a usual run runs: it boots a guest (`tests/guest/`) in which this very
//! program runs again, with the others, which are `#[ignore]`d elsewhere. They meet `vivid`, the kernel's virtual
//! camera, and a USB camera that is plugged into a virtual USB port, so that the driver is the one of real USB cameras.
//! There is no KVM: the guest is some ten times slower than the machine, and what is measured in it is recorded, not
//! asserted.
#![cfg(all(target_os = "linux", target_arch = "x86_64", feature = "v4l2"))]

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/guest.rs"]
mod guest;

mod camera;
mod devices;
mod frames;
mod program;
mod recovery;
mod usb;
mod usb_camera;
mod vivid;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Set in the guest; also which model the program runs there.
const MODEL: &str = "OCELLUS_GUEST_MODEL";

/// A picture in the guest: eight bars, as a USB camera would send it.
const BARS_JPEG: &str = "/bars.jpg";

/// What the guest's tests may take together.
const LIMIT: Duration = Duration::from_secs(600);

#[test]
fn on_a_real_kernel() {
    let guest = match guest::Guest::new() {
        Ok(guest) => guest,
        Err(why) => return common::skip(&why),
    };
    let this = std::env::current_exe().unwrap();
    for program in [
        &*this,
        env!("CARGO_BIN_EXE_ocellus").as_ref(),
        "/usr/sbin/mosquitto".as_ref(),
        "/usr/bin/mosquitto_sub".as_ref(),
        "/usr/bin/mosquitto_pub".as_ref(),
    ] {
        if let Err(e) = guest.install(program) {
            return common::skip(&format!("not for the guest: {e}"));
        }
    }
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/cifar10-resnet20-int8");
    for file in std::fs::read_dir(&model).unwrap() {
        guest.copy(&file.unwrap().path()).unwrap();
    }
    let bars = tempfile::tempdir().unwrap();
    let bars = bars.path().join("bars.jpg");
    // `-huffman default`: the tables that a frame without tables means.
    let ffmpeg = Command::new("ffmpeg")
        .args("-loglevel error -f lavfi -i pal100bars=size=640x480 -frames:v 1".split(' '))
        .args("-pix_fmt yuvj420p -huffman default -q:v 2".split(' '))
        .arg(&bars)
        .status();
    if !ffmpeg.is_ok_and(|status| status.success()) {
        return common::skip("ffmpeg is not installed");
    }
    guest.copy_to(&bars, BARS_JPEG.as_ref()).unwrap();
    // For whoever works on one of them: a part of the names of the tests to run.
    let filter = std::env::var("OCELLUS_GUEST_TESTS").unwrap_or_default();
    let list = Command::new(&this)
        .args(["--ignored", "--list", &filter])
        .output();
    let list = String::from_utf8(list.unwrap().stdout).unwrap();
    let tests = list.lines().filter(|l| l.ends_with(": test")).count();

    let log = Path::new(env!("CARGO_TARGET_TMPDIR")).join("v4l2_guest.console");
    let script = format!(
        "export {MODEL}={} RUST_BACKTRACE=1\nexec {} --ignored --test-threads=1 --nocapture '{filter}'",
        model.display(),
        this.display()
    );
    let console = guest
        .run(&script, &log, LIMIT)
        .unwrap_or_else(|e| panic!("{e}; its console: {}", log.display()));
    // The harness writes a test's name before what the test says.
    for line in console.lines() {
        if let Some((_, said)) = line.split_once("measured: ") {
            println!("{said}");
        }
    }
    let all_passed = console.contains(&format!("test result: ok. {tests} passed; 0 failed"));
    assert!(
        tests > 0 && all_passed && console.contains("guest: exit 0"),
        "{console}\nThis was the guest's console, kept in {}",
        log.display()
    );
}
