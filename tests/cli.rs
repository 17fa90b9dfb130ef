//! The binary as a person or a script meets it: messages, exit codes, clean stops.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

fn ocellus(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ocellus"));
    command
        .args(args)
        .env_remove("OCELLUS_CONFIG")
        .env_remove("OCELLUS_LOG")
        .env_remove("NOTIFY_SOCKET");
    command
}

fn run(args: &[&str]) -> (i32, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = ocellus(args).output().unwrap();
    let text = |b: Vec<u8>| String::from_utf8(b).unwrap();
    (status.code().unwrap_or(-1), text(stdout), text(stderr))
}

/// A configuration in a file of its own, run with `check`.
fn check(config: &str, flags: &[&str]) -> (i32, String, String) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ocellus.toml");
    std::fs::write(&file, config).unwrap();
    let mut args = vec!["check", "--config", file.to_str().unwrap()];
    args.extend(flags);
    run(&args)
}

fn shipped_model() -> String {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
    models.join("scene-resnet10-int8").display().to_string()
}

#[test]
fn help_names_every_command() {
    let (code, out, _) = run(&["--help"]);
    assert_eq!(code, 0);
    for command in [
        "run",
        "demo",
        "check",
        "devices",
        "classify",
        "detect",
        "segment",
        "bench",
        "model",
        "broker",
        "completions",
        "man",
    ] {
        assert!(
            out.contains(&format!("\n  {command} ")),
            "no {command} in\n{out}"
        );
    }
    let (_, man, _) = run(&["man"]);
    assert!(
        man.starts_with(".ie") && man.contains("ocellus(1)") || man.contains(".TH ocellus 1"),
        "{man}"
    );
    let (code, bash, _) = run(&["completions", "bash"]);
    assert!(code == 0 && bash.contains("complete -F"));
}

#[test]
fn wrong_arguments_exit_with_2() {
    assert_eq!(run(&["clasify"]).0, 2);
    assert_eq!(run(&["run", "--size", "big", "--camera", "scene:"]).0, 2);
    let (_, _, err) = run(&["clasify"]);
    assert!(err.contains("'classify'"), "{err}");
}

#[test]
fn every_problem_of_a_configuration_is_told_at_once_and_exits_with_78() {
    let config = "
[devise]
id = 'x'
[[camera]]
source = 'rtsp://somewhere'
fsp = 3
[[model]]
path = 'nowhere'
tasks = ['clasify']
";
    let (code, out, err) = check(config, &[]);
    assert_eq!(code, 78, "{out}{err}");
    for says in [
        "line 2: devise: unknown key; did you mean `device`?",
        "line 6: camera.0.fsp: unknown key; did you mean `fps`?",
        "camera.0.source: `rtsp://somewhere` is no camera source",
        "model.0.tasks",
    ] {
        assert!(out.contains(says), "no `{says}` in\n{out}{err}");
    }
}

#[test]
fn a_missing_configuration_file_is_named() {
    let (code, _, err) = run(&["run", "--config", "/nowhere/ocellus.toml"]);
    assert_eq!(code, 78);
    assert!(err.contains("/nowhere/ocellus.toml"), "{err}");
}

#[test]
fn a_missing_model_is_named_and_exits_with_78() {
    let (code, _, err) = run(&[
        "run",
        "--camera",
        "scene:",
        "--model",
        "/nowhere/model.onnx",
        "--output",
        "jsonl",
    ]);
    assert_eq!(code, 78, "{err}");
    assert!(err.contains("/nowhere/model.onnx"), "{err}");
}

#[test]
fn a_model_that_is_not_onnx_is_named_and_exits_with_78() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("cat.onnx");
    std::fs::write(&file, b"\xff\xd8\xff\xe0 this is a picture").unwrap();
    let (code, _, err) = run(&[
        "run",
        "--camera",
        "scene:",
        "--model",
        file.to_str().unwrap(),
        "--output",
        "jsonl",
    ]);
    assert_eq!(code, 78, "{err}");
    assert!(
        err.contains("cat.onnx") && err.to_lowercase().contains("onnx"),
        "{err}"
    );
}

#[test]
fn check_tells_what_works_and_what_does_not() {
    let model = shipped_model();
    let config = format!("[[camera]]\nid='yard'\nsource='scene:1'\n[[model]]\npath='{model}'\n");
    let (code, out, err) = check(&config, &[]);
    assert_eq!(code, 0, "{out}{err}");
    assert!(
        out.contains("ok    camera yard") && out.contains("ok    model"),
        "{out}"
    );

    // Port 1 is closed: the broker is a state, not a reason to refuse a start.
    let config = format!("{config}[mqtt]\nurl='mqtt://127.0.0.1:1'\n");
    let (code, out, _) = check(&config, &["--json"]);
    assert_eq!(code, 1);
    let findings: serde_json::Value = serde_json::from_str(&out).unwrap();
    let broker = findings
        .as_array()
        .unwrap()
        .iter()
        .find(|f| f["what"] == "broker")
        .unwrap();
    assert_eq!(
        (&broker["ok"], &broker["fatal"]),
        (&false.into(), &false.into())
    );
}

#[test]
fn classify_prints_a_table_or_json_and_names_what_is_no_image() {
    let dir = tempfile::tempdir().unwrap();
    let (good, bad) = (dir.path().join("grey.png"), dir.path().join("bad.jpg"));
    // The smallest useful picture: a grey 32×32 PNG, written by the `image` crate.
    image::GrayImage::from_pixel(32, 32, image::Luma([90]))
        .save(&good)
        .unwrap();
    std::fs::write(&bad, b"not a picture").unwrap();
    let model = shipped_model();
    let (code, out, err) = run(&[
        "classify",
        "--json",
        "--raw",
        "--model",
        &model,
        good.to_str().unwrap(),
        bad.to_str().unwrap(),
    ]);
    assert_eq!(code, 1, "{out}{err}");
    let lines: Vec<serde_json::Value> = out
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    assert_eq!(lines.len(), 2);
    assert!(lines[0]["results"][0]["score"].as_f64().unwrap() > 0.0);
    let outputs = lines[0]["outputs"].as_object().unwrap();
    let logits = outputs.values().next().unwrap().as_array().unwrap();
    let best = lines[0]["results"][0]["index"].as_u64().unwrap() as usize;
    assert!(logits.iter().all(|l| l.as_f64() <= logits[best].as_f64()));
    assert!(lines[1]["error"].is_string());
    let (code, out, _) = run(&["classify", "--model", &model, good.to_str().unwrap()]);
    assert!(code == 0 && out.contains(" %  "), "{out}");
}

#[test]
fn bench_reports_every_stage() {
    let (code, out, err) = run(&["bench", "--model", &shipped_model(), "-n", "3", "--json"]);
    assert_eq!(code, 0, "{err}");
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    let stages: Vec<_> = report["stages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| s["stage"].as_str().unwrap())
        .collect();
    assert_eq!(
        stages,
        ["decode", "preprocess", "infer", "decode_output", "age"]
    );
    assert!(
        report["stages"]
            .as_array()
            .unwrap()
            .iter()
            .all(|s| s["count"] == 3)
    );
}

#[test]
fn devices_lists_in_json() {
    let (code, out, _) = run(&["devices", "--json"]);
    assert_eq!(code, 0);
    assert!(
        serde_json::from_str::<serde_json::Value>(&out)
            .unwrap()
            .is_array()
    );
}

/// Ends its process when the test ends, however it ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .arg(name)
            .arg(self.0.id().to_string())
            .status()
            .unwrap();
        assert!(status.success());
    }

    fn exit_within(&mut self, limit: Duration) -> Option<i32> {
        let deadline = Instant::now() + limit;
        while Instant::now() < deadline {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        None
    }
}

/// Runs on the scene until its first observation is out.
fn running_scene(extra: &[&str]) -> Running {
    use std::io::{BufRead, BufReader};
    let model = shipped_model();
    let mut args = vec![
        "run", "--camera", "scene:", "--model", &model, "--output", "jsonl",
    ];
    args.extend(extra);
    let mut child = ocellus(&args)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let first = lines.next().expect("an observation").unwrap();
    assert!(first.contains("\"schema\""), "{first}");
    std::thread::spawn(move || lines.for_each(drop));
    Running(child)
}

#[test]
fn sigterm_and_ctrl_c_end_it_cleanly_within_two_seconds() {
    for signal in ["-TERM", "-INT"] {
        let mut running = running_scene(&[]);
        running.signal(signal);
        assert_eq!(
            running.exit_within(Duration::from_secs(2)),
            Some(0),
            "{signal}"
        );
    }
}

#[test]
fn an_unreachable_broker_does_not_hold_up_inference_or_the_stop() {
    let mut running = running_scene(&["--mqtt", "mqtt://127.0.0.1:1"]);
    running.signal("-TERM");
    assert_eq!(running.exit_within(Duration::from_secs(2)), Some(0));
}

#[test]
fn a_closed_standard_output_ends_it_quietly() {
    let model = shipped_model();
    let mut child = ocellus(&[
        "run", "--camera", "scene:", "--model", &model, "--output", "jsonl",
    ])
    .stdout(Stdio::piped())
    .stderr(Stdio::null())
    .spawn()
    .unwrap();
    drop(child.stdout.take());
    assert_eq!(Running(child).exit_within(Duration::from_secs(20)), Some(0));
}

/// What the service manager hears: readiness, a status line, the watchdog's food, the end.
#[test]
#[cfg(target_os = "linux")]
fn systemd_is_told_of_readiness_progress_and_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let socket = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let model = shipped_model();
    let child = ocellus(&[
        "run", "--camera", "scene:", "--model", &model, "--output", "jsonl",
    ])
    .env("NOTIFY_SOCKET", &path)
    .env("WATCHDOG_USEC", "1000000")
    .stdout(Stdio::null())
    .stderr(Stdio::null())
    .spawn()
    .unwrap();
    let running = Running(child);
    let mut heard = String::new();
    let mut until = |what: &str| {
        while !heard.contains(what) {
            let mut message = [0; 4096];
            let length = socket
                .recv(&mut message)
                .unwrap_or_else(|e| panic!("no `{what}` ({e}) in\n{heard}"));
            heard.push_str(std::str::from_utf8(&message[..length]).unwrap());
            heard.push('\n');
        }
    };
    until("READY=1");
    until("STATUS=camera online");
    until("WATCHDOG=1");
    running.signal("-TERM");
    until("STOPPING=1");
}

#[test]
fn a_label_file_that_does_not_fit_is_named_and_exits_with_78() {
    let dir = tempfile::tempdir().unwrap();
    let labels = dir.path().join("three.txt");
    std::fs::write(&labels, "cat\ndog\nbird\n").unwrap();
    let (code, _, err) = run(&[
        "run",
        "--camera",
        "scene:",
        "--output",
        "jsonl",
        "--model",
        &shipped_model(),
        "--labels",
        labels.to_str().unwrap(),
    ]);
    assert_eq!(code, 78, "{err}");
    assert!(
        err.contains("three.txt: 3 labels for an output of 7 classes"),
        "{err}"
    );
}

#[test]
fn a_missing_camera_is_a_state_and_not_an_exit() {
    let model = shipped_model();
    let args = [
        "run",
        "--camera",
        "v4l2:/dev/video97",
        "--model",
        &model,
        "--output",
        "jsonl",
        "--seconds",
        "2",
    ];
    let (code, _, err) = run(&args);
    assert_eq!(code, 0, "{err}");
    assert!(err.contains("/dev/video97"), "{err}");
}
