//! Segmenters: class maps beside onnxruntime's, masks and polygons by pycocotools; the command; the firmware with a real broker.

mod common;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::mosquitto::{Observer, mosquitto_or_skip};
use common::schema::check;
use common::stills::{self, photographs, script};
use common::{ocellus, python, skip, test_data};
use ocellus::model::LoadOptions;
use ocellus::task::segment::{SegmentSettings, Segmentation, Shape};
use ocellus::task::{TaskKind, TaskResult, TaskSettings};
use serde_json::Value;

const NEEDS: &str = "needs the test data and OCELLUS_PYTHON with onnxruntime and pycocotools";
const DEEPLAB: &str = "models/deeplabv3-mnv2-dm05-int8.onnx";

/// The class maps of pictures, and what the model was fed.
fn maps(model: &Path, pictures: &[PathBuf]) -> (Vec<Vec<Option<usize>>>, Vec<u8>) {
    let settings = TaskSettings {
        segment: SegmentSettings {
            shapes: vec![Shape::Rle],
            ..SegmentSettings::default()
        },
        ..TaskSettings::default()
    };
    let options = LoadOptions::default();
    let looked = stills::look(model, TaskKind::Segment, options, &settings, pictures);
    let map = |r: &TaskResult| segmentation(r).classes();
    (looked.results.iter().map(map).collect(), looked.tensors)
}

fn segmentation(result: &TaskResult) -> &Segmentation {
    match result {
        TaskResult::Segmentation(s) => s,
        other => panic!("{other:?}"),
    }
}

/// By onnxruntime from the same tensors, all one after the other.
fn reference(python: &Path, model: &Path, tensors: &[u8]) -> Vec<u16> {
    let dir = tempfile::tempdir().unwrap();
    let (given, out) = (dir.path().join("tensors"), dir.path().join("out"));
    std::fs::write(&given, tensors).unwrap();
    let status = Command::new(python)
        .arg(script("segmentation.py"))
        .arg("map")
        .args([model, &given, &out])
        .status();
    assert!(status.unwrap().success());
    let bytes = std::fs::read(out).unwrap();
    let (pairs, _) = bytes.as_chunks();
    pairs.iter().map(|b| u16::from_le_bytes(*b)).collect()
}

/// The share of equal pixels, of all pictures and of the worst.
fn agreement(ours: &[Vec<Option<usize>>], theirs: &[u16]) -> (f64, f64) {
    let pixels = ours[0].len();
    assert_eq!(theirs.len(), pixels * ours.len());
    let same = |(a, b): (&Vec<Option<usize>>, &[u16])| {
        let pairs = a.iter().zip(b);
        pairs.filter(|(a, b)| **a == Some(usize::from(**b))).count() as f64 / pixels as f64
    };
    let shares: Vec<f64> = ours.iter().zip(theirs.chunks(pixels)).map(same).collect();
    let mean = shares.iter().sum::<f64>() / shares.len() as f64;
    (mean, shares.into_iter().fold(1.0, f64::min))
}

/// FCN's and DeepLab's heads as torchvision exports them, with random weights, on real pictures: the classes of at least 99.9 % of the pixels.
#[test]
fn float_heads_see_what_onnxruntime_sees() {
    let (Some(data), Some(python)) = (test_data(), python()) else {
        return skip(NEEDS);
    };
    let dir = tempfile::tempdir().unwrap();
    let made = Command::new(&python)
        .arg(script("segmenter_models.py"))
        .arg(dir.path())
        .status();
    assert!(made.unwrap().success());
    for form in ["fcn", "deeplab", "argmax"] {
        let model = dir.path().join(form).with_extension("onnx");
        alike(&python, &model, &photographs(&data));
        // Without a word it is known for what it is, with VOC's names for its 21 classes.
        let loaded = ocellus::model::Model::load(&model, &LoadOptions::default()).unwrap();
        assert_eq!(loaded.info().tasks, [TaskKind::Segment]);
        assert_eq!(&*loaded.info().labels.get(15), "person");
    }
}

/// The classes of at least 99.9 % of each picture's pixels are onnxruntime's.
fn alike(python: &Path, model: &Path, pictures: &[PathBuf]) {
    let (ours, tensors) = maps(model, pictures);
    let (mean, worst) = agreement(&ours, &reference(python, model, &tensors));
    let classes: std::collections::BTreeSet<_> = ours.iter().flatten().collect();
    println!(
        "{}: {:.4} % of the pixels, {:.4} % of the worst picture's; {} classes",
        model.display(),
        100.0 * mean,
        100.0 * worst,
        classes.len()
    );
    assert!(worst >= 0.999 && classes.len() > 2, "{worst} {classes:?}");
}

/// The networks themselves, as docs/segmentation.md exports them, 250 MB.
#[test]
#[ignore = "needs OCELLUS_SEGMENTERS, a directory of exported networks"]
fn torchvisions_networks_see_what_onnxruntime_sees() {
    let (Some(data), Some(python)) = (test_data(), python()) else {
        return skip(NEEDS);
    };
    let directory = std::env::var_os("OCELLUS_SEGMENTERS").unwrap();
    let mut models = common::sorted(Path::new(&directory));
    models.retain(|m| m.extension().is_some_and(|e| e == "onnx"));
    assert!(!models.is_empty());
    for model in models {
        alike(&python, &model, &photographs(&data)[..8]);
    }
}

/// The int8 DeepLab on the integer engine, beside onnxruntime on integers.
#[test]
fn the_int8_deeplab_sees_what_onnxruntime_sees() {
    let (Some(data), Some(python)) = (test_data(), python()) else {
        return skip(NEEDS);
    };
    let model = data.join(DEEPLAB);
    let (ours, tensors) = maps(&model, &photographs(&data));
    let theirs = reference(&python, &model, &tensors);
    let (mean, worst) = agreement(&ours, &theirs);
    println!(
        "integer engine: {:.4} % of the pixels, {:.4} % of the worst picture's",
        100.0 * mean,
        100.0 * worst
    );
    assert_eq!(worst, 1.0, "{mean}");
}

/// `ocellus segment` with these arguments.
fn run(args: &[&std::ffi::OsStr]) -> (Option<i32>, String, String) {
    let out = ocellus().arg("segment").args(args).output().unwrap();
    let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
    (out.status.code(), text(&out.stdout), text(&out.stderr))
}

/// Masks are pycocotools', polygons lie on them; table, pictures, errors.
#[test]
fn the_command_prints_writes_and_explains() {
    let (Some(data), Some(python)) = (test_data(), python()) else {
        return skip(NEEDS);
    };
    let (model, photograph) = (data.join(DEEPLAB), photographs(&data)[5].clone());
    let dir = tempfile::tempdir().unwrap();
    let annotated = dir.path().join("in colours");
    let with = |more: &[&str]| {
        let mut args = vec![
            "--model".as_ref(),
            model.as_os_str(),
            photograph.as_os_str(),
        ];
        args.extend(more.iter().map(|a| std::ffi::OsStr::new(*a)));
        run(&args)
    };
    let (code, table, err) = with(&["--annotate", annotated.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{err}");
    assert!(
        table.contains("000000000785.jpg (640x425)") && table.contains(" %  person\n"),
        "{table}"
    );
    assert!(err.contains("21 usual ones are assumed"), "{err}");
    let drawn = image::open(annotated.join("000000000785.jpg")).unwrap();
    assert_eq!((drawn.width(), drawn.height()), (640, 425));

    for size in ["model", "frame"] {
        let (_, json, _) = with(&[
            "--json",
            "--rle",
            "--polygons",
            "--tolerance",
            "0",
            "--size",
            size,
        ]);
        let line: Value = serde_json::from_str(&json).unwrap();
        let mut check = Command::new(&python)
            .arg(script("segmentation.py"))
            .arg("rle")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        check
            .stdin
            .take()
            .unwrap()
            .write_all(json.as_bytes())
            .unwrap();
        let checked = check.wait_with_output().unwrap();
        assert!(checked.status.success());
        let classes: Vec<i64> = serde_json::from_slice(&checked.stdout).unwrap();
        let side = if size == "model" {
            [513, 513]
        } else {
            [640, 425]
        };
        assert_eq!(
            (line["map"]["width"].as_u64(), classes.len()),
            (Some(side[0]), (side[0] * side[1]) as usize)
        );
        assert!(classes.iter().all(|c| *c >= 0));
        // What the outlines hold is as much as the masks do.
        for s in line["segments"].as_array().unwrap() {
            let held: f64 = s["polygons"].as_array().unwrap().iter().map(held).sum();
            let area = s["area"].as_f64().unwrap();
            assert!((held - area).abs() < 0.002, "{}: {held} {area}", s["label"]);
        }
    }
    let (_, json, _) = with(&["--json", "--only", "person"]);
    let line: Value = serde_json::from_str(&json).unwrap();
    let keys: Vec<_> = line["segments"][0].as_object().unwrap().keys().collect();
    assert_eq!(
        keys,
        ["area", "index", "label"],
        "no shapes unless asked for"
    );
    assert_eq!(line["segments"].as_array().unwrap().len(), 1);

    for (more, code, says) in [
        (
            &["--only", "persn"][..],
            78,
            "no label `persn`; did you mean `person`?",
        ),
        (
            &["--min-area", "2"],
            78,
            "--min-area: 2 is not between 0 and 1",
        ),
        (&["--size", "huge"], 2, "`model` or `frame`"),
        (&["nowhere.jpg"], 1, "1 of 2 images could not be looked at"),
    ] {
        let (exit, out, err) = with(more);
        assert_eq!(exit, Some(code), "{more:?}\n{out}{err}");
        assert!(err.contains(says), "no `{says}` in\n{err}");
    }
    let classifier = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/cifar10-resnet20-int8");
    let (exit, _, err) = run(&[
        "--model".as_ref(),
        classifier.as_os_str(),
        photograph.as_os_str(),
    ]);
    assert!(
        exit == Some(78) && err.contains("none of a segmenter"),
        "{err}"
    );
    let (exit, _, err) = run(&[photograph.as_os_str()]);
    assert!(exit == Some(78) && err.contains("give --model"), "{err}");
}

/// Share of the frame within the outer ring and outside of the holes.
fn held(polygon: &Value) -> f64 {
    let ring = |r: &Value| {
        let corners: Vec<[f64; 2]> = serde_json::from_value(r.clone()).unwrap();
        let next = corners.iter().cycle().skip(1);
        let twice = corners
            .iter()
            .zip(next)
            .map(|(a, b)| a[0] * b[1] - b[0] * a[1]);
        (twice.sum::<f64>() / 2.0).abs()
    };
    let rings: Vec<f64> = polygon.as_array().unwrap().iter().map(ring).collect();
    rings[0] - rings[1..].iter().sum::<f64>()
}

/// From files to a subscriber at a real broker, with what was asked for and no more; what a privacy mask covers is seen by nobody.
#[test]
fn segments_reach_the_subscriber() {
    let Some(data) = test_data() else {
        return skip(NEEDS);
    };
    let Some(broker) = mosquitto_or_skip() else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let pictures = dir.path().join("pictures");
    std::fs::create_dir(&pictures).unwrap();
    std::fs::copy(&photographs(&data)[5], pictures.join("person.jpg")).unwrap();
    // Everything is black to the masked camera.
    let bundle = dir.path().join("bundle");
    std::fs::create_dir(&bundle).unwrap();
    std::fs::copy(data.join(DEEPLAB), bundle.join("model.onnx")).unwrap();
    std::fs::write(bundle.join("model.toml"), "tasks = ['segment']\n").unwrap();
    for (name, section, keys) in [
        ("plain", "", &["area", "index", "label"][..]),
        (
            "shapes",
            "[model.segment]\nshapes = ['rle', 'polygons']\nsize = 'frame'\nmin_area = 0.01\n",
            &["area", "index", "label", "polygons", "rle"],
        ),
        ("masked", "", &["area", "index", "label"]),
    ] {
        let mask = match name {
            "masked" => "privacy_masks = [[[0, 0], [1, 0], [1, 1], [0, 1]]]\n",
            _ => "",
        };
        let config = dir.path().join("ocellus.toml");
        let text = format!(
            "[device]\nid='bench'\n[[camera]]\nid='{name}'\nsource='files:{}'\n{mask}[[model]]\npath='{}'\n{section}[output]\njsonl=true\n[mqtt]\nmax_rate=0.0\nurl='mqtt://127.0.0.1:{}'\n",
            pictures.display(),
            bundle.display(),
            broker.port
        );
        std::fs::write(&config, text).unwrap();
        let subscriber = Observer::start(broker.port, "ocellus/#");
        let lines = common::run_to_its_end(&config);
        let topic = format!("ocellus/bench/{name}/segments");
        let message = subscriber.wait("the segments", |m| m.topic == topic).json();
        check("segments", &message);
        check("record", &lines[0]);
        assert_eq!(message["segments"], lines[0]["segments"]);
        let segments = message["segments"].as_array().unwrap();
        let areas: f64 = segments.iter().map(|s| s["area"].as_f64().unwrap()).sum();
        assert!(areas > 0.98 && areas < 1.001, "{areas}");
        let person = segments.iter().find(|s| s["label"] == "person");
        assert_eq!(person.is_some(), name != "masked", "{name}: {message}");
        for s in segments {
            let own: Vec<_> = s.as_object().unwrap().keys().collect();
            assert_eq!(own, keys, "{name}");
        }
    }
}
