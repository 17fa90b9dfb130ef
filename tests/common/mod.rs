//! What several tests share.
#![allow(dead_code)]

pub mod certificates;
pub mod device;
pub mod http;
pub mod mosquitto;
pub mod onnx;
pub mod proxy;
pub mod schema;
pub mod stills;
pub mod usb_camera;

use std::path::{Path, PathBuf};
use std::process::Command;

/// Says loudly that a test does not run; with `OCELLUS_TEST_STRICT=1`, where nothing may be skipped, it fails.
pub fn skip(why: &str) {
    let strict = std::env::var("OCELLUS_TEST_STRICT").is_ok_and(|v| v == "1");
    assert!(!strict, "nothing may be skipped: {why}");
    eprintln!("SKIPPED: {why}");
}

/// Real models and images: `$OCELLUS_TEST_DATA`, or `shared/data` beside the project.
pub fn test_data() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data");
    let data = std::env::var_os("OCELLUS_TEST_DATA").map_or(beside, PathBuf::from);
    data.join("models").is_dir().then_some(data)
}

/// A Python with onnxruntime, numpy and Pillow: `$OCELLUS_PYTHON`.
pub fn python() -> Option<PathBuf> {
    std::env::var_os("OCELLUS_PYTHON").map(PathBuf::from)
}

/// A Python with Home Assistant: `$OCELLUS_HOME_ASSISTANT`, or where `scripts/test-deps.sh` puts it.
pub fn home_assistant() -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("target/home-assistant/bin/python");
    let python = std::env::var_os("OCELLUS_HOME_ASSISTANT").map_or_else(beside, PathBuf::from);
    python.exists().then_some(python)
}

/// The program under test, without the caller's settings.
pub fn ocellus() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ocellus"));
    command
        .env_remove("OCELLUS_CONFIG")
        .env_remove("OCELLUS_LOG")
        .env_remove("STATE_DIRECTORY")
        .env_remove("NOTIFY_SOCKET");
    command
}

/// `ocellus run` until it ends by itself, which it must do well: its JSON lines.
pub fn run_to_its_end(config: &Path) -> Vec<serde_json::Value> {
    let out = ocellus()
        .args(["--log", "warn", "run", "--config"])
        .arg(config)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{errors}");
    let text = String::from_utf8(out.stdout).unwrap();
    text.lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect()
}

/// Runs a future on this thread.
pub fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(work)
}

/// A directory's entries, by name.
pub fn sorted(dir: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    paths.sort();
    paths
}

/// Of two vectors; 1 if they point the same way.
pub fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter()
            .zip(b)
            .map(|(a, b)| f64::from(*a) * f64::from(*b))
            .sum()
    };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}
