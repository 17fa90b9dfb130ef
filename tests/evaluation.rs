//! `ocellus model eval` of detectors and segmenters, beside pycocotools and numpy.

mod common;

use std::ffi::OsStr;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use common::stills::{made_detectors, photographs, script};
use common::{ocellus, python, skip, test_data};
use ocellus::eval::coco::{Drawn, Found, Image, Scores, evaluate};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

const NEEDS: &str = "needs the test data and OCELLUS_PYTHON with pycocotools";

/// pycocotools' numbers.
fn by_pycocotools(python: &Path, args: &[&OsStr]) -> Value {
    let mut command = Command::new(python);
    let out = command.arg(script("coco_scores.py")).args(args).output();
    let out = out.unwrap();
    let errors = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{errors}");
    match out.stdout.as_slice() {
        [] => Value::Null,
        text => serde_json::from_slice(text).unwrap(),
    }
}

fn twelve(s: &Scores) -> [Option<f64>; 12] {
    [
        s.ap,
        s.ap50,
        s.ap75,
        s.ap_small,
        s.ap_medium,
        s.ap_large,
        s.ar_1,
        s.ar_10,
        s.ar_100,
        s.ar_small,
        s.ar_medium,
        s.ar_large,
    ]
}

fn assert_equal(ours: &[Option<f64>; 12], theirs: &Value, what: &str) {
    let theirs: Vec<Option<f64>> = serde_json::from_value(theirs.clone()).unwrap();
    for (i, (a, b)) in ours.iter().zip(&theirs).enumerate() {
        let same = match (a, b) {
            (Some(a), Some(b)) => (a - b).abs() < 1e-6,
            (a, b) => a.is_none() && b.is_none(),
        };
        assert!(same, "{what}: number {i}: {a:?}, by pycocotools {b:?}");
    }
}

/// Boxes on a coarse grid, so that overlaps and scores are often equal and lie on the limits; crowds, areas that are not the box's, images
/// and classes without anything.
fn cases() -> impl Strategy<Value = Vec<Image>> {
    let side = || (1u32..14).prop_map(|n| f64::from(n * n));
    let place = || (0u32..6).prop_map(|n| f64::from(n * 10));
    let bbox = move || (place(), place(), side(), side()).prop_map(|(x, y, w, h)| [x, y, w, h]);
    let drawn =
        (0usize..3, bbox(), prop_bool(6), 0u32..4).prop_map(|(class, bbox, crowd, part)| Drawn {
            class,
            bbox,
            area: bbox[2] * bbox[3] * f64::from(4 - part) / 4.0,
            crowd,
        });
    let found = (0usize..3, bbox(), 1u32..12).prop_map(|(class, bbox, score)| Found {
        class,
        bbox,
        score: f64::from(score) / 12.0,
    });
    let some = |n: usize| proptest::collection::vec(0usize..n, 1);
    let image = (
        proptest::collection::vec(drawn, 0..8),
        proptest::collection::vec(found, 0..14),
        some(3),
    );
    // Half of what is drawn is found a little beside its place.
    let image = image.prop_map(|(drawn, mut found, shift)| {
        for (i, d) in drawn.iter().enumerate().filter(|(i, _)| i % 2 == 0) {
            let [x, y, w, h] = d.bbox;
            found.push(Found {
                class: d.class,
                bbox: [x + shift[0] as f64, y, w, h],
                score: 0.3 + 0.05 * i as f64,
            });
        }
        Image { drawn, found }
    });
    proptest::collection::vec(image, 0..6)
}

/// True once in `n` times.
fn prop_bool(n: u32) -> impl Strategy<Value = bool> {
    (0..n).prop_map(|v| v == 0)
}

#[test]
fn made_cases_have_pycocotools_numbers() {
    let Some(python) = python() else {
        return skip(NEEDS);
    };
    let mut runner = TestRunner::deterministic();
    let mut all: Vec<Vec<Image>> = vec![vec![], vec![Image::default()]];
    let strategy = cases();
    all.extend((0..150).map(|_| strategy.new_tree(&mut runner).unwrap().current()));
    // More than a hundred boxes of a class in an image.
    let many = |i: usize| Found {
        class: 0,
        bbox: [(i % 20) as f64 * 10.0, (i / 20) as f64 * 10.0, 9.0, 9.0],
        score: (i % 7) as f64 / 8.0,
    };
    let found: Vec<Found> = (0..160).map(many).collect();
    let drawn = found.iter().step_by(3).map(|f| Drawn {
        class: 0,
        bbox: f.bbox,
        area: 81.0,
        crowd: false,
    });
    all.push(vec![Image {
        drawn: drawn.collect(),
        found: found.clone(),
    }]);
    let image = |i: &Image| {
        let drawn =
            |d: &Drawn| json!({"class": d.class, "bbox": d.bbox, "area": d.area, "crowd": d.crowd});
        let found = |f: &Found| json!({"class": f.class, "bbox": f.bbox, "score": f.score});
        json!({
            "drawn": i.drawn.iter().map(drawn).collect::<Vec<_>>(),
            "found": i.found.iter().map(found).collect::<Vec<_>>(),
        })
    };
    let written: Vec<Vec<Value>> = all.iter().map(|c| c.iter().map(image).collect()).collect();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("cases.json");
    std::fs::write(&file, serde_json::to_vec(&written).unwrap()).unwrap();
    let theirs = by_pycocotools(&python, &["cases".as_ref(), file.as_os_str()]);
    assert_eq!(theirs.as_array().unwrap().len(), all.len());
    let mut between = 0;
    for (i, (case, theirs)) in all.iter().zip(theirs.as_array().unwrap()).enumerate() {
        let (scores, _) = evaluate(case, 3);
        assert_equal(&twelve(&scores), theirs, &format!("case {i}"));
        between += usize::from(scores.ap.is_some_and(|v| v > 0.05 && v < 0.95));
    }
    assert!(between > 100, "only {between} cases say anything");
}

/// `ocellus model eval` with these arguments.
fn eval(args: &[&OsStr]) -> (Option<i32>, String, String) {
    let out = ocellus()
        .args(["model", "eval"])
        .args(args)
        .output()
        .unwrap();
    let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
    (out.status.code(), text(&out.stdout), text(&out.stderr))
}

fn keys(report: &Value) -> [Option<f64>; 12] {
    [
        "ap",
        "ap50",
        "ap75",
        "ap_small",
        "ap_medium",
        "ap_large",
        "ar_1",
        "ar_10",
        "ar_100",
        "ar_small",
        "ar_medium",
        "ar_large",
    ]
    .map(|k| report[k].as_f64())
}

/// `model eval` of a detector with these and more arguments.
fn eval_boxes(
    model: &Path,
    data: &Path,
    annotations: &Path,
    more: &[&OsStr],
) -> (Option<i32>, String, String) {
    let images = data.join("images/coco/images");
    let mut args = vec![
        model.as_os_str(),
        "--images".as_ref(),
        images.as_os_str(),
        "--annotations".as_ref(),
        annotations.as_os_str(),
    ];
    args.extend(more);
    eval(&args)
}

/// A detector on the COCO pictures, from COCO's annotations with their 91 ids, which are written to `annotations`, and from YOLO's files:
/// pycocotools' numbers both times. Returns what the command said.
fn numbers_of_a_detector(model: &Path, data: &Path, python: &Path, annotations: &Path) -> Value {
    let results = annotations.with_file_name("results.json");
    let names = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/task/detect/coco.txt");
    let coco = data.join("images/coco");
    by_pycocotools(
        python,
        &[
            "annotations".as_ref(),
            coco.as_os_str(),
            names.as_os_str(),
            annotations.as_os_str(),
        ],
    );
    let more = ["--json".as_ref(), "--save".as_ref(), results.as_os_str()];
    let (code, out, err) = eval_boxes(model, data, annotations, &more);
    assert_eq!(code, Some(0), "{err}");
    let report: Value = serde_json::from_str(&out).unwrap();
    let theirs = by_pycocotools(
        python,
        &[
            "results".as_ref(),
            annotations.as_os_str(),
            results.as_os_str(),
        ],
    );
    let name = model.file_stem().unwrap_or_default().to_string_lossy();
    assert_equal(&keys(&report), &theirs, &name);
    println!("{name}: AP50 {}, AP50:95 {}", report["ap50"], report["ap"]);

    let yolo = coco.join("object_detection");
    let (code, out, err) = eval_boxes(model, data, &yolo, &["--json".as_ref()]);
    assert_eq!(code, Some(0), "{err}");
    let yolo: Value = serde_json::from_str(&out).unwrap();
    for (a, b) in keys(&report).iter().zip(keys(&yolo)) {
        assert!((a.unwrap() - b.unwrap()).abs() < 1e-9, "{report}\n{yolo}");
    }
    report
}

/// RetinaNet and Faster R-CNN, whose labels are COCO's own numbers with gaps: random weights, for which most things are persons.
#[test]
fn detectors_of_a_pyramid_have_pycocotools_numbers() {
    let (Some(data), Some(python)) = (test_data(), python()) else {
        return skip(NEEDS);
    };
    let dir = made_detectors(&python);
    for name in ["retinanet", "faster_rcnn"] {
        let model = dir.path().join(name);
        let report = numbers_of_a_detector(&model, &data, &python, &dir.path().join("coco.json"));
        assert_eq!(report["boxes"].as_u64(), Some(221), "{report}");
        assert!(report["ar_100"].as_f64().unwrap() > 0.0, "{report}");
    }
}

/// YOLOX-nano, and what is refused.
#[test]
fn a_detector_has_pycocotools_numbers() {
    let (Some(data), Some(python)) = (test_data(), python()) else {
        return skip(NEEDS);
    };
    let dir = tempfile::tempdir().unwrap();
    let annotations = dir.path().join("coco.json");
    let model = data.join("models/yolox-nano.onnx");
    let report = numbers_of_a_detector(&model, &data, &python, &annotations);
    assert!(
        report["ap50"].as_f64().unwrap() > 0.5 && report["boxes"].as_u64().unwrap() > 200,
        "{report}"
    );
    let with = |annotations: &Path, more: &[&OsStr]| eval_boxes(&model, &data, annotations, more);
    let (_, table, _) = with(&annotations, &["--only".as_ref(), "person".as_ref()]);
    assert!(
        table.contains("yolox-nano on 32 images") && table.contains("\nperson  "),
        "{table}"
    );
    assert!(!table.contains("\ncar  "), "{table}");
    // Refused before anything is computed.
    let text = std::fs::read_to_string(&annotations).unwrap();
    for (from, to, says) in [
        (
            "000000000139.jpg",
            "000000000000.jpg",
            "1 of its 32 images are not in",
        ),
        ("\"person\"", "\"persons\"", "the category `persons`, of "),
    ] {
        let wrong = dir.path().join("wrong.json");
        std::fs::write(&wrong, text.replace(from, to)).unwrap();
        let (code, _, err) = with(&wrong, &[]);
        assert!(
            code == Some(1) && err.contains(says),
            "no `{says}` in {err}"
        );
    }
    let images = data.join("images/coco/images");
    let (code, _, err) = eval(&[model.as_os_str(), "--images".as_ref(), images.as_os_str()]);
    assert!(
        code == Some(78) && err.contains("a detector; give --annotations"),
        "{err}"
    );
}

/// DeepLab against masks with a corner of another class and open rows.
#[test]
fn a_segmenter_has_numpys_numbers() {
    let (Some(data), Some(python)) = (test_data(), python()) else {
        return skip(NEEDS);
    };
    let model = data.join("models/deeplabv3-mnv2-dm05-int8.onnx");
    let dir = tempfile::tempdir().unwrap();
    let (images, masks) = (dir.path().join("images"), dir.path().join("masks"));
    std::fs::create_dir(&images).unwrap();
    std::fs::create_dir(&masks).unwrap();
    for photograph in &photographs(&data)[3..7] {
        std::fs::copy(photograph, images.join(photograph.file_name().unwrap())).unwrap();
    }
    let out = ocellus()
        .args(["segment", "--json", "--rle", "--size", "frame", "--model"])
        .arg(&model)
        .args(common::sorted(&images))
        .output()
        .unwrap();
    let mut made = Command::new(&python)
        .arg(script("segmentation.py"))
        .arg("masks")
        .arg(&masks)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    made.stdin.take().unwrap().write_all(&out.stdout).unwrap();
    let made = made.wait_with_output().unwrap();
    assert!(made.status.success());
    let theirs: Value = serde_json::from_slice(&made.stdout).unwrap();

    let with = |masks: &Path, more: &[&str]| {
        let mut args = vec![
            model.as_os_str(),
            "--images".as_ref(),
            images.as_os_str(),
            "--masks".as_ref(),
            masks.as_os_str(),
        ];
        args.extend(more.iter().map(|a| OsStr::new(*a)));
        eval(&args)
    };
    let (code, out, err) = with(&masks, &["--json"]);
    assert_eq!(code, Some(0), "{err}");
    let report: Value = serde_json::from_str(&out).unwrap();
    for key in ["mean_iou", "pixel_accuracy"] {
        let (a, b) = (report[key].as_f64().unwrap(), theirs[key].as_f64().unwrap());
        assert!(
            (a - b).abs() < 1e-9 && a > 0.3 && a < 0.99,
            "{key}: {a} {b}"
        );
    }
    let (_, table, _) = with(&masks, &[]);
    assert!(
        table.contains(" on 4 images: mean IoU ") && table.contains("\nbackground "),
        "{table}"
    );
    let (code, _, err) = with(&masks, &["--void", "254"]);
    assert!(
        code == Some(1) && err.contains("class 255 is none of the model's 21"),
        "{err}"
    );
    let (code, _, err) = with(dir.path(), &[]);
    assert!(
        code == Some(1) && err.contains("4 of 4 images have no mask"),
        "{err}"
    );
}
