//! `ocellus model …` as a person or a script meets it, and bundles that are not what they say.

mod common;

use std::path::Path;

use common::ocellus;
use common::onnx::{Bundle, LABELS, colours, floats, picture};
use prost::Message;
use serde_json::Value;

/// Exit code, standard output, standard error.
fn run(args: &[&str]) -> (i32, String, String) {
    let output = ocellus().args(args).output().unwrap();
    let text = |b: Vec<u8>| String::from_utf8(b).unwrap();
    (
        output.status.code().unwrap_or(-1),
        text(output.stdout),
        text(output.stderr),
    )
}

fn on(bundle: &Bundle, command: &[&str]) -> (i32, String, String) {
    let mut args = vec!["model"];
    args.extend(command);
    let path = bundle.path.to_str().unwrap();
    args.insert(2, path);
    run(&args)
}

fn json(bundle: &Bundle, command: &[&str]) -> Value {
    let mut args = command.to_vec();
    args.push("--json");
    let (_, out, err) = on(bundle, &args);
    serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}{err}"))
}

/// The model is refused with 78 by `model verify` and by `run`, with a message that says `says`.
fn assert_refused(bundle: &Bundle, says: &str) {
    let path = bundle.path.to_str().unwrap();
    for args in [
        &["model", "verify", path][..],
        &[
            "run",
            "--camera",
            "scene:",
            "--model",
            path,
            "--output",
            "jsonl",
            "--seconds",
            "1",
        ],
    ] {
        let (code, out, err) = run(args);
        assert_eq!(code, 78, "{args:?}: {out}{err}");
        assert!(err.contains(says), "no `{says}` in {err}");
        assert!(!out.contains("schema"), "it ran all the same: {out}");
    }
}

/// A test that would hang without its guard.
fn within_a_minute(what: &str, f: impl FnOnce() + Send + 'static) {
    let (done, wait) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        f();
        let _ = done.send(());
    });
    if wait.recv_timeout(std::time::Duration::from_secs(60))
        == Err(std::sync::mpsc::RecvTimeoutError::Timeout)
    {
        panic!("{what} hangs");
    }
    thread.join().unwrap();
}

#[test]
fn a_bundle_that_is_what_it_says_is_verified_and_runs() {
    let bundle = Bundle::new();
    let (code, out, err) = on(&bundle, &["verify"]);
    assert!(
        code == 0 && out.contains("golden output reproduced"),
        "{out}{err}"
    );
    let path = bundle.path.to_str().unwrap();
    let (code, out, err) = run(&[
        "run",
        "--camera",
        "scene:",
        "--model",
        path,
        "--output",
        "jsonl",
        "--seconds",
        "1",
    ]);
    assert!(code == 0 && out.contains("\"schema\""), "{out}{err}");
}

#[test]
fn altered_weights_do_not_start() {
    let mut bundle = Bundle::new();
    let mut model = colours();
    model.graph.as_mut().unwrap().initializer[1] = floats("biases", &[4], &[0.0, 0.5, 0.0, 2.0]);
    std::fs::write(bundle.part("model.onnx"), model.encode_to_vec()).unwrap();
    assert_refused(&bundle, "SHA-256");
    // Somebody who alters the digest, too, meets the golden output.
    bundle.set_model(&model);
    assert_refused(&bundle, "element 1 is off by 0.5");
}

#[test]
fn an_altered_golden_output_input_or_preparation_does_not_start() {
    let mut bundle = Bundle::new();
    bundle.edit("output = [", "output = [9.9, ");
    assert_refused(&bundle, "4 elements instead of 5");
    let mut bundle = Bundle::new();
    bundle.edit("scale = 0.00392156862745098", "scale = 1.0");
    assert_refused(&bundle, "is off by");
    let mut bundle = Bundle::new();
    bundle.edit("resize = 'stretch'", "resize = 'stretch'\ncolour = 'bgr'");
    assert_refused(&bundle, "is off by");
    let bundle = Bundle::new();
    picture(&bundle.part("golden.png"), [90, 100, 40]);
    assert_refused(&bundle, "is off by");
    image::RgbImage::new(16, 8)
        .save(bundle.part("golden.png"))
        .unwrap();
    assert_refused(&bundle, "golden.png is 16x8, but the input is 8x8");
    std::fs::remove_file(bundle.part("golden.png")).unwrap();
    assert_refused(&bundle, "golden.png");
}

#[test]
fn wrong_labels_do_not_start() {
    let mut bundle = Bundle::new();
    std::fs::write(bundle.part("labels.txt"), "green\nred\nblue\ndark").unwrap();
    assert_refused(&bundle, "labels.txt: its SHA-256");
    std::fs::remove_file(bundle.part("labels.txt")).unwrap();
    assert_refused(&bundle, "labels.txt: it is not there");
    bundle.drop_key("labels_sha256");
    std::fs::write(bundle.part("labels.txt"), "green\nred\nblue").unwrap();
    assert_refused(&bundle, "3 labels for an output of 4 classes");
    std::fs::write(bundle.part("labels.txt"), b"gr\xfcn\nred\nblue\ndark").unwrap();
    assert_refused(&bundle, "not UTF-8");
}

#[test]
fn the_self_test_runs_when_it_is_asked_for() {
    let mut bundle = Bundle::new();
    bundle.edit("output = [", "output = [9.9, ");
    let path = bundle.path.display();
    for (when, check, run_code) in [("start", 78, 78), ("check", 78, 0), ("off", 0, 0)] {
        let config = bundle.outside("ocellus.toml");
        let text = format!(
            "[output]\njsonl = true\n[[camera]]\nsource = 'scene:'\n[[model]]\npath = '{path}'\nself_test = '{when}'\n"
        );
        std::fs::write(&config, text).unwrap();
        let config = config.to_str().unwrap();
        let (code, out, err) = run(&["check", "--config", config]);
        assert_eq!(code, check, "{when}: {out}{err}");
        let (code, out, err) = run(&["run", "--config", config, "--seconds", "1"]);
        assert_eq!(code, run_code, "{when}: {out}{err}");
    }
}

#[test]
fn a_golden_output_of_nan_passes_nothing() {
    let mut bundle = Bundle::new();
    let mut model = colours();
    model.graph.as_mut().unwrap().initializer[1] = floats("biases", &[4], &[f32::NAN; 4]);
    bundle.set_model(&model);
    assert_refused(&bundle, "is off by NaN");
}

#[cfg(unix)]
#[test]
fn nothing_outside_the_bundle_is_read() {
    use std::os::unix::fs::symlink;
    for part in ["model.onnx", "model.toml", "labels.txt", "golden.png"] {
        let bundle = Bundle::new();
        std::fs::rename(bundle.part(part), bundle.outside(part)).unwrap();
        symlink(Path::new("..").join(part), bundle.part(part)).unwrap();
        assert_refused(&bundle, "outside the bundle");
    }
    for image in ["../golden.png", "/etc/hostname", "sub/golden.png", ".."] {
        let mut bundle = Bundle::new();
        std::fs::copy(bundle.part("golden.png"), bundle.outside("golden.png")).unwrap();
        bundle.edit("image = 'golden.png'", &format!("image = '{image}'"));
        assert_refused(&bundle, "is no file's name in a bundle");
    }
    // A link that stays inside, and one to the bundle as a whole, are fine.
    let bundle = Bundle::new();
    std::fs::rename(bundle.part("model.onnx"), bundle.part("v2.onnx")).unwrap();
    symlink("v2.onnx", bundle.part("model.onnx")).unwrap();
    symlink("colours", bundle.outside("current")).unwrap();
    let (code, _, err) = run(&[
        "model",
        "verify",
        bundle.outside("current").to_str().unwrap(),
    ]);
    assert_eq!(code, 0, "{err}");
}

#[cfg(unix)]
#[test]
fn fifos_sockets_devices_and_directories_are_no_models() {
    within_a_minute("reading a FIFO", || {
        for part in ["model.onnx", "model.toml", "labels.txt", "golden.png"] {
            let bundle = Bundle::new();
            let path = bundle.part(part);
            std::fs::remove_file(&path).unwrap();
            let made = std::process::Command::new("mkfifo")
                .arg(&path)
                .status()
                .unwrap();
            assert!(made.success());
            assert_refused(&bundle, "not a regular file");
            std::fs::remove_file(&path).unwrap();
            let _socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
            assert_refused(&bundle, "not a regular file");
            std::fs::remove_file(&path).unwrap();
            std::fs::create_dir(&path).unwrap();
            assert_refused(&bundle, "not a regular file");
        }
        for device in ["/dev/zero", "/dev/null"] {
            let (code, _, err) = run(&["model", "inspect", device]);
            assert!(code == 78 && err.contains("not a regular file"), "{err}");
        }
    });
}

#[test]
fn files_too_large_to_be_what_they_say_are_not_read() {
    for (part, bytes) in [
        ("model.onnx", 2u64 << 30),
        ("model.toml", 1 << 30),
        ("labels.txt", 1 << 30),
        ("golden.png", 1 << 30),
    ] {
        let bundle = Bundle::new();
        // Sparse: it takes no space.
        let file = std::fs::OpenOptions::new()
            .write(true)
            .open(bundle.part(part))
            .unwrap();
        file.set_len(bytes).unwrap();
        assert_refused(&bundle, "more than the");
    }
}

#[test]
fn inspect_counts_parameters_and_cost() {
    let bundle = Bundle::new();
    let anatomy = json(&bundle, &["inspect"]);
    assert_eq!(anatomy["parameters"], 16);
    assert_eq!(anatomy["macs"], 12);
    assert_eq!(
        anatomy["inputs"][0]["shape"],
        serde_json::json!([1, 3, 8, 8])
    );
    assert_eq!(anatomy["outputs"][0]["element"], "f32");
    assert_eq!(anatomy["form"], "float32");
    let (code, out, _) = on(&bundle, &["inspect"]);
    assert!(
        code == 0 && out.contains("scores_node") && out.contains("Gemm"),
        "{out}"
    );
}

/// What is known of real files by other means: He et al. count 1.8 · 10⁹ multiply-accumulates for ResNet-18.
#[test]
fn inspect_tells_the_anatomy_of_real_models() {
    let Some(data) = common::test_data() else {
        return common::skip("no shared data: no real models to look at");
    };
    let inspect = |name: &str| -> Value {
        let path = data.join("models").join(name);
        let (code, out, err) = run(&["model", "inspect", "--json", path.to_str().unwrap()]);
        assert_eq!(code, 0, "{name}: {err}");
        serde_json::from_str(&out).unwrap()
    };
    for (name, form) in [
        ("resnet18.onnx", "float32"),
        (
            "resnet18-int8-qdq-u8s8.onnx",
            "QDQ, activations u8, weights s8 per output channel",
        ),
        (
            "resnet18-int8-qdq-s8s8.onnx",
            "QDQ, activations s8, weights s8 per output channel",
        ),
        (
            "resnet18-int8-qop-u8s8.onnx",
            "QOperator, activations u8, weights s8 per output channel",
        ),
    ] {
        let anatomy = inspect(name);
        assert_eq!(anatomy["macs"], 1_814_073_344u64, "{name}");
        assert_eq!(anatomy["parameters"], 11_684_712, "{name}");
        assert_eq!(anatomy["form"], form, "{name}");
        assert_eq!(
            anatomy["integer_share"],
            if form == "float32" { 0.0 } else { 1.0 },
            "{name}"
        );
    }
    for file in std::fs::read_dir(data.join("models")).unwrap() {
        let anatomy = inspect(file.unwrap().file_name().to_str().unwrap());
        assert_eq!(anatomy["problems"], serde_json::json!([]), "{anatomy}");
        assert!(anatomy["macs"].as_u64().unwrap() > 1_000_000);
    }
}

#[test]
fn doctor_finds_nothing_wrong_with_a_right_bundle() {
    let bundle = Bundle::new();
    let (code, out, err) = on(&bundle, &["doctor"]);
    assert_eq!(code, 0, "{out}{err}");
    assert!(
        out.contains("ok    golden output reproduced") && !out.contains("WARN"),
        "{out}"
    );
}

#[test]
fn doctor_tells_what_the_engine_runs_on_integers() {
    let Some(data) = common::test_data() else {
        return common::skip("no shared data: no quantized models to look at");
    };
    let mut seen = 0;
    for file in std::fs::read_dir(data.join("models")).unwrap() {
        let file = file.unwrap().path();
        let name = file.file_name().unwrap().to_str().unwrap();
        if !name.contains("int8") {
            continue;
        }
        let (_, out, err) = run(&["model", "doctor", "--json", file.to_str().unwrap()]);
        let report: Value =
            serde_json::from_str(&out).unwrap_or_else(|e| panic!("{name}: {e}: {err}"));
        let engine = &report["engine"];
        let share = engine["integer_share"].as_f64().unwrap();
        let in_float = engine["in_float"].as_array().unwrap();
        println!("{name}: {share} {in_float:?}");
        if name.starts_with("resnet") {
            assert_eq!(share, 1.0, "{name}");
        }
        // What is left is named, with its reason.
        assert!(share == 1.0 || !in_float.is_empty(), "{name}");
        assert!(
            in_float
                .iter()
                .all(|l| !l["node"].as_str().unwrap().is_empty()
                    && !l["why"].as_str().unwrap().is_empty())
        );
        seen += 1;
    }
    assert!(seen >= 11, "{seen}");
}

#[test]
fn doctor_tells_what_is_wrong_and_how_to_mend_it() {
    let mut bundle = Bundle::new();
    bundle.edit("[golden]", "[output]\nrole = 'probabilities'\n[golden]");
    let (code, out, _) = on(&bundle, &["doctor"]);
    assert!(
        code == 1
            && out.contains("WARN  role = \"probabilities\"")
            && out.contains("→ role = \"logits\""),
        "{out}"
    );

    let mut bundle = Bundle::new();
    bundle.drop_key("labels_sha256");
    std::fs::write(bundle.part("labels.txt"), "red\ngreen\nblue").unwrap();
    let (code, out, _) = on(&bundle, &["doctor"]);
    assert!(
        code == 78
            && out.contains("FAIL")
            && out.contains("→ the model probably has a background class"),
        "{out}"
    );

    let mut bundle = Bundle::new();
    bundle.edit("[input]", "[input]\nmean = [123.675, 116.28, 103.53]");
    let findings = json(&bundle, &["doctor"]);
    let severities: Vec<&str> = findings["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|f| f["severity"].as_str().unwrap())
        .collect();
    assert!(
        severities.contains(&"warning") && severities.contains(&"problem"),
        "{findings}"
    );

    let bundle = Bundle::new();
    std::fs::write(bundle.part("model.onnx"), b"no model").unwrap();
    let (code, out, _) = on(&bundle, &["doctor"]);
    assert!(
        code == 78 && out.contains("FAIL") && out.contains("not an ONNX file"),
        "{out}"
    );
}

/// Pictures of one colour, as folders of classes.
fn photographs(bundle: &Bundle) -> std::path::PathBuf {
    let directory = bundle.outside("images");
    let colours = [
        ("red", [250, 10, 0]),
        ("green", [10, 240, 20]),
        ("blue", [0, 10, 255]),
        ("dark", [20, 10, 10]),
    ];
    for (label, [r, g, b]) in colours {
        let folder = directory.join(label);
        std::fs::create_dir_all(&folder).unwrap();
        for i in 0..3 {
            picture(
                &folder.join(format!("{i}.png")),
                [r, g, b].map(|v: u8| v.saturating_sub(i)),
            );
        }
    }
    directory
}

#[test]
fn eval_counts_right_answers_by_class() {
    let bundle = Bundle::new();
    let images = photographs(&bundle);
    // One picture in the wrong folder.
    picture(&images.join("dark/9.png"), [0, 200, 0]);
    let report = json(&bundle, &["eval", "--images", images.to_str().unwrap()]);
    assert_eq!(report["images"], 13);
    assert!(
        (report["top1"].as_f64().unwrap() - 12.0 / 13.0).abs() < 1e-9,
        "{report}"
    );
    assert_eq!(report["top5"], 1.0);
    let dark = &report["classes"][3];
    assert_eq!((&dark["images"], &dark["top1"]), (&4.into(), &3.into()));
    assert_eq!(dark["taken_for"], serde_json::json!(["green", 1]));
    let (code, out, _) = on(&bundle, &["eval", "--images", images.to_str().unwrap()]);
    assert!(
        code == 0 && out.contains("top-1 92.31 %") && out.contains("green (1)"),
        "{out}"
    );
}

#[test]
fn eval_reads_class_numbers_in_file_names_and_names_what_it_cannot_read() {
    let bundle = Bundle::new();
    let images = bundle.outside("flat");
    std::fs::create_dir(&images).unwrap();
    picture(&images.join("0002_n01_blue.png"), [0, 0, 250]);
    picture(&images.join("0000_n02_red.png"), [250, 0, 0]);
    std::fs::write(images.join("0001_n03_broken.jpg"), b"no picture").unwrap();
    let eval = ["eval", "--images", images.to_str().unwrap(), "--json"];
    let (code, out, err) = on(&bundle, &eval);
    assert_eq!(code, 1, "{err}");
    assert!(
        err.contains("0001_n03_broken.jpg") && err.contains("1 of 3 images"),
        "{err}"
    );
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (&report["images"], &report["failed"], &report["top1"]),
        (&2.into(), &1.into(), &1.0.into())
    );
    std::fs::create_dir(images.join("gren")).unwrap();
    let (code, _, err) = on(&bundle, &eval);
    assert!(code == 1 && err.contains("did you mean `green`"), "{err}");
}

#[test]
fn doctor_tries_out_colours_and_labels_on_images() {
    let bundle = Bundle::new();
    let images = photographs(&bundle);
    let doctor = ["doctor", "--images", images.to_str().unwrap()];
    let (code, out, err) = on(&bundle, &doctor);
    assert!(
        code == 0 && out.contains("nothing that was tried does better"),
        "{out}{err}"
    );

    let mut swapped = Bundle::new();
    swapped.edit("resize =", "colour = 'bgr'\nresize =");
    let (code, out, _) = on(&swapped, &doctor);
    assert!(
        code != 0 && out.contains("WARN  colour rgb: 100 % right on the images"),
        "{out}"
    );
    assert!(out.contains("→ colour = \"rgb\""), "{out}");

    let mut shifted = Bundle::new();
    shifted.drop_key("labels_sha256");
    std::fs::write(
        shifted.part("labels.txt"),
        ["background", LABELS[0], LABELS[1], LABELS[2]].join("\n"),
    )
    .unwrap();
    std::fs::remove_dir_all(images.join("dark")).unwrap();
    let (code, out, _) = on(&shifted, &doctor);
    assert!(
        code == 1 && out.contains("→ the labels have a first line too many"),
        "{out}"
    );
}

#[test]
fn help_man_and_completions_know_the_model_commands() {
    let (_, help, _) = run(&["model", "--help"]);
    let (_, man, _) = run(&["man"]);
    let (_, bash, _) = run(&["completions", "bash"]);
    for command in ["inspect", "doctor", "verify", "eval", "list"] {
        assert!(
            help.contains(&format!("\n  {command} ")),
            "no {command} in {help}"
        );
        assert!(
            man.contains(&format!(".SH OCELLUS MODEL {}", command.to_uppercase())),
            "no {command} in the manual"
        );
        assert!(
            bash.contains(&format!("ocellus__subcmd__model__subcmd__{command}"))
                || bash.contains(&format!("ocellus__model__{command}")),
            "no {command} in the completions"
        );
    }
}
