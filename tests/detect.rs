//! Detectors: each family beside onnxruntime and its published decoding; average precision on real pictures; the command; the
//! firmware with a real broker.

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::mosquitto::{Mosquitto, Observer, Seen, mosquitto_or_skip};
use common::onnx::decoded_in_graph;
use common::schema::check;
use common::stills::{self, made_detectors, photographs, script};
use common::{ocellus, python, skip, test_data};
use ocellus::model::{LoadOptions, Model};
use ocellus::task::detect::{DetectSettings, Family};
use ocellus::task::{BBox, Detection, TaskKind, TaskResult, TaskSettings};
use prost::Message;
use serde_json::Value;
use tract_onnx::pb::ModelProto;
use tract_onnx::pb::tensor_proto::DataType;

const NEEDS: &str = "needs the test data and OCELLUS_PYTHON with onnxruntime";

/// What a model found in each picture, and what it was fed.
struct Looked {
    found: Vec<Vec<Detection>>,
    stills: stills::Looked,
}

/// With the class alone as label, so that any model goes.
fn look(
    path: &Path,
    family: Option<Family>,
    settings: &DetectSettings,
    pictures: &[PathBuf],
) -> Looked {
    let options = LoadOptions {
        family,
        ..LoadOptions::default()
    };
    let settings = TaskSettings {
        detect: settings.clone(),
        ..TaskSettings::default()
    };
    let mut stills = stills::look(path, TaskKind::Detect, options, &settings, pictures);
    let found = stills.results.drain(..).map(|r| match r {
        TaskResult::Detections(found) => found,
        other => panic!("{other:?}"),
    });
    Looked {
        found: found.collect(),
        stills,
    }
}

/// onnxruntime's and numpy's, from the same tensors: box, score, class.
fn reference(
    python: &Path,
    model: &Path,
    family: &str,
    looked: &Looked,
    s: &DetectSettings,
) -> Vec<Vec<[f64; 6]>> {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let limits = s.limits(None);
    std::fs::write(at("tensors"), &looked.stills.tensors).unwrap();
    std::fs::write(
        at("frames"),
        serde_json::to_vec(&looked.stills.frames).unwrap(),
    )
    .unwrap();
    let status = Command::new(python)
        .arg(script("detections.py"))
        .arg(model)
        .arg(family)
        .args([at("tensors"), at("frames"), at("out")])
        .args([
            limits.threshold.to_string(),
            limits.iou.to_string(),
            limits.max.to_string(),
        ])
        .status()
        .unwrap();
    assert!(status.success());
    serde_json::from_slice(&std::fs::read(at("out")).unwrap()).unwrap()
}

fn bbox(row: &[f64; 6]) -> BBox {
    let [x0, y0, x1, y1, ..] = row.map(|v| v as f32);
    BBox { x0, y0, x1, y1 }
}

/// The same boxes in the same order. Returns how many, the lowest overlap and the largest difference of scores.
fn compare(name: &str, ours: &[Vec<Detection>], theirs: &[Vec<[f64; 6]>]) -> (usize, f32, f64) {
    let (mut n, mut lowest, mut largest) = (0, 1f32, 0f64);
    assert_eq!(ours.len(), theirs.len());
    for (i, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
        assert_eq!(
            ours.len(),
            theirs.len(),
            "{name}, picture {i}: {ours:?}\n{theirs:?}"
        );
        for (d, t) in ours.iter().zip(theirs) {
            assert_eq!(d.index, t[5] as usize, "{name}, picture {i}: {d:?} {t:?}");
            n += 1;
            lowest = lowest.min(d.bbox.iou(&bbox(t)));
            largest = largest.max((f64::from(d.score) - t[4]).abs());
        }
    }
    println!("{name}: {n} boxes, IoU at least {lowest:.5}, scores within {largest:.6}");
    (n, lowest, largest)
}

/// `ocellus model COMMAND`: exit code and standard output.
fn on_model(command: &str, path: &Path) -> (Option<i32>, String) {
    let out = ocellus().args(["model", command]).arg(path).output();
    let out = out.unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    (out.status.code(), text)
}

/// Real weights, real pictures: the same boxes, scores and order as onnxruntime and the families' own decoding.
#[test]
fn real_detectors_find_what_the_reference_finds() {
    let (Some(data), Some(python)) = (test_data(), python()) else {
        return skip(NEEDS);
    };
    let pictures = photographs(&data);
    for (file, family, threshold, least) in [
        ("yolox-nano.onnx", "yolox", 0.25, 150),
        ("yolox-nano-int8-qdq-u8s8.onnx", "yolox", 0.25, 100),
        ("face-rfb-320.onnx", "ultraface", 0.5, 10),
    ] {
        let model = data.join("models").join(file);
        let settings = DetectSettings {
            threshold: Some(threshold),
            ..DetectSettings::default()
        };
        // Recognized by its outputs.
        let looked = look(&model, None, &settings, &pictures);
        let theirs = reference(&python, &model, family, &looked, &settings);
        let (n, iou, score) = compare(file, &looked.found, &theirs);
        assert!(n >= least, "{file}: {n} boxes");
        assert!(iou >= 0.99 && score <= 1e-3, "{file}: {iou} {score}");
    }
}

/// Random weights in each family's form, for an input that is no square: the same boxes, scores and order.
#[test]
fn every_family_is_decoded_as_published() {
    let (Some(data), Some(python)) = (test_data(), python()) else {
        return skip(NEEDS);
    };
    let dir = made_detectors(&python);
    let pictures = &photographs(&data)[..3];
    for (file, family, named) in [
        ("yolov5", Family::Yolov5, false),
        ("yolov5-tiny", Family::Yolov5, false),
        ("yolov5-p2", Family::Yolov5, false),
        ("yolov5-p6", Family::Yolov5, false),
        ("yolov8", Family::Yolov8, false),
        ("yolov8-tiny", Family::Yolov8, false),
        ("yolov8-p2", Family::Yolov8, false),
        ("yolov8-p6", Family::Yolov8, false),
        ("yolov10", Family::Yolov10, false),
        ("yolov3", Family::Yolov3, true),
        ("yolov3-tiny", Family::Yolov3, true),
        ("yolov4", Family::Yolov4, true),
        ("yolov4-tiny", Family::Yolov4, true),
        ("ssd", Family::Ssd, true),
    ] {
        let model = dir.path().join(file).with_extension("onnx");
        let settings = DetectSettings::default();
        let looked = look(&model, named.then_some(family), &settings, pictures);
        let theirs = reference(&python, &model, &family.to_string(), &looked, &settings);
        let (n, iou, score) = compare(file, &looked.found, &theirs);
        assert!(n >= 20, "{file}: {n} boxes");
        assert!(iou >= 0.99 && score <= 1e-3, "{file}: {iou} {score}");
        if named {
            let options = LoadOptions {
                tasks: vec![TaskKind::Detect],
                ..LoadOptions::default()
            };
            let e = Model::load(&model, &options).unwrap_err().to_string();
            assert!(e.contains("say [detect] family"), "{e}");
        }
    }

    // A graph that goes on behind its heads, with a second input and a suppression: cut off by the bundle.
    let bundle = dir.path().join("bundle");
    std::fs::create_dir(&bundle).unwrap();
    let whole = dir.path().join("yolov3-goes-on.onnx");
    std::fs::copy(&whole, bundle.join("model.onnx")).unwrap();
    let manifest = "tasks = ['detect']\n[detect]\nfamily = 'yolov3'\noutputs = ['head8', 'head16', 'head32']\n";
    std::fs::write(bundle.join("model.toml"), manifest).unwrap();
    let settings = DetectSettings::default();
    let cut = look(&bundle, None, &settings, pictures);
    assert!(cut.found.iter().flatten().count() >= 20);
    // It is shown and examined as it runs.
    let (code, text) = on_model("inspect", &bundle);
    assert_eq!(code, Some(0), "{text}");
    let shown = "  output      head8 f32 1x255x20x28\n  output      head16 f32 1x255x10x14\n";
    assert!(text.contains(shown), "{text}");
    let shown = "  left out    what does not lead to [detect] outputs\n";
    assert!(text.contains(shown), "{text}");
    assert!(!text.contains("NonMaxSuppression"), "{text}");
    let (code, text) = on_model("doctor", &bundle);
    assert_eq!(code, Some(0), "{text}");
    // The usual anchors, said in whole pixels; and others.
    let usual = "anchors = [[[10, 13], [16, 30], [33, 23]], [[30, 61], [62, 45], [59, 119]], [[116, 90], [156, 198], [373, 326]]]\n";
    std::fs::write(bundle.join("model.toml"), format!("{manifest}{usual}")).unwrap();
    assert_eq!(look(&bundle, None, &settings, pictures).found, cut.found);
    let other = usual
        .replace("3]", "9.5]")
        .replace("0]", "9]")
        .replace("5]", "8]");
    std::fs::write(bundle.join("model.toml"), format!("{manifest}{other}")).unwrap();
    assert_ne!(look(&bundle, None, &settings, pictures).found, cut.found);
    let wrong = manifest.replace("head16", "haed16");
    std::fs::write(bundle.join("model.toml"), wrong).unwrap();
    let e = Model::load(&bundle, &LoadOptions::default()).unwrap_err();
    assert!(e.to_string().contains("`haed16` is no tensor"), "{e}");
    // All of it is shown then, so that the right name is found.
    let (code, text) = on_model("inspect", &bundle);
    assert_eq!(code, Some(0), "{text}");
    assert!(
        text.contains("  refused     [detect] outputs: `haed16`"),
        "{text}"
    );
    assert!(text.contains("NonMaxSuppression 1"), "{text}");
}

/// YOLOv8 as Ultralytics exports it with `nms=True`: the message says what to do. Cut by the bundle, it finds what the whole graph finds.
#[test]
fn a_graph_that_chooses_by_the_picture_is_refused_and_can_be_cut() {
    let (Some(data), Some(python)) = (test_data(), python()) else {
        return skip(NEEDS);
    };
    let dir = made_detectors(&python);
    let whole = dir.path().join("yolov8-nms.onnx");
    let says = "before the suppression `chosen` `sure` (NonZero) chooses by what is in the picture: what comes out has no fixed length; \
                export without it (Ultralytics: nms=False), or name in [detect] outputs what comes before it";
    let e = Model::load(&whole, &LoadOptions::default()).unwrap_err();
    assert!(e.to_string().contains(says), "{e}");
    // All of it is shown, so that the tensors are found.
    let (code, text) = on_model("inspect", &whole);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains(&format!("  refused     {says}")), "{text}");
    assert!(text.contains("NonMaxSuppression 1"), "{text}");
    let (code, text) = on_model("doctor", &whole);
    assert_eq!(code, Some(78), "{text}");
    assert!(text.contains(says) && !text.contains("WARN"), "{text}");

    let bundle = dir.path().join("cut");
    std::fs::create_dir(&bundle).unwrap();
    std::fs::copy(&whole, bundle.join("model.onnx")).unwrap();
    let manifest = "tasks = ['detect']\n[detect]\noutputs = ['predictions']\n";
    std::fs::write(bundle.join("model.toml"), manifest).unwrap();
    let pictures = &photographs(&data)[..3];
    let settings = DetectSettings {
        max: Some(300),
        ..DetectSettings::default()
    };
    let looked = look(&bundle, None, &settings, pictures);
    let theirs = reference(&python, &whole, "yolov10", &looked, &settings);
    let (n, iou, score) = compare("yolov8-nms", &looked.found, &theirs);
    assert!(n >= 20, "{n} boxes");
    assert!(iou >= 0.99 && score <= 1e-3, "{iou} {score}");
    // Behind the choice there is no place to cut.
    std::fs::write(
        bundle.join("model.toml"),
        manifest.replace("predictions", "chosen"),
    )
    .unwrap();
    let e = Model::load(&bundle, &LoadOptions::default()).unwrap_err();
    let says = "[detect] outputs: before them `sure` (NonZero) chooses";
    assert!(e.to_string().contains(says), "{e}");
}

/// YOLOX-nano with its boxes decoded in the graph, as `--decode_in_inference` writes them, in one step or in place: the same boxes.
#[test]
fn yolox_finds_the_same_wherever_its_boxes_are_decoded() {
    let Some(data) = test_data() else {
        return skip(NEEDS);
    };
    let pictures = &photographs(&data)[..8];
    let dir = tempfile::tempdir().unwrap();
    for file in ["yolox-nano.onnx", "yolox-nano-int8-qdq-u8s8.onnx"] {
        let raw = data.join("models").join(file);
        let settings = DetectSettings {
            threshold: Some(0.25),
            ..DetectSettings::default()
        };
        let expected = look(&raw, None, &settings, pictures);
        assert!(expected.found.iter().flatten().count() >= 20);
        for in_place in [false, true] {
            let decoded = dir.path().join(file);
            let model = ModelProto::decode(&*std::fs::read(&raw).unwrap()).unwrap();
            let model = decoded_in_graph(model, 416, in_place);
            std::fs::write(&decoded, model.encode_to_vec()).unwrap();
            // By itself; named; and as it had to be said before.
            let as_yolov5 = dir.path().join("as-yolov5");
            std::fs::create_dir_all(&as_yolov5).unwrap();
            std::fs::copy(&decoded, as_yolov5.join("model.onnx")).unwrap();
            let manifest = "tasks = ['detect']\n[detect]\nfamily = 'yolov5'\n[input]\ncolour = 'bgr'\nscale = 1.0\n\
                            resize = { letterbox = { fill = 114, centre = false } }\n";
            std::fs::write(as_yolov5.join("model.toml"), manifest).unwrap();
            for (path, family) in [
                (&decoded, None),
                (&decoded, Some(Family::Yolox)),
                (&as_yolov5, None),
            ] {
                let looked = look(path, family, &settings, pictures);
                assert_eq!(looked.stills.tensors, expected.stills.tensors);
                for (ours, theirs) in looked.found.iter().zip(&expected.found) {
                    assert_eq!(ours.len(), theirs.len(), "{}", path.display());
                    for (a, b) in ours.iter().zip(theirs) {
                        assert_eq!((a.index, a.score), (b.index, b.score));
                        assert!(a.bbox.iou(&b.bbox) > 0.999, "{a:?} {b:?}");
                    }
                }
            }
        }
    }
}

/// SSD-ResNet-34 with its suppression in the graph, node by node as the ONNX Model Zoo's `ssd-12`, random weights: what onnxruntime finds
/// with the whole graph, limited as that graph says. At 400×400 as wide as it is; at 1200×1200 with an eighth of its channels.
#[test]
fn ssd_with_a_suppression_in_its_graph_finds_what_onnxruntime_finds() {
    let (Some(data), Some(python)) = (test_data(), python()) else {
        return skip(NEEDS);
    };
    let photographs = photographs(&data);
    let low = DetectSettings {
        threshold: Some(0.05),
        ..DetectSettings::default()
    };
    let all = DetectSettings {
        threshold: Some(0.0),
        iou: Some(1.0),
        max: Some(1000),
        ..DetectSettings::default()
    };
    let dir = tempfile::tempdir().unwrap();
    for (side, width, n, files) in [
        (1200, 8, 1, &["ssd", "ssd-int8"][..]),
        (400, 64, 3, &["ssd", "ssd-int8", "ssd-qdq"]),
    ] {
        let pictures = &photographs[..n];
        let made = Command::new(&python)
            .arg(script("ssd_resnet34.py"))
            .args([dir.path(), &pictures[0]])
            .args([side.to_string(), width.to_string()])
            .args(files)
            .status();
        assert!(made.unwrap().success());
        for file in files {
            let path = dir.path().join(file).with_extension("onnx");
            // Recognized; its overlap and its most are the graph's, since nothing is said of them.
            let looked = look(&path, None, &low, pictures);
            let theirs = reference(&python, &path, "ssd_whole", &looked, &all);
            let name = format!("{file}, {side}x{side}");
            let (boxes, iou, score) = compare(&name, &looked.found, &theirs);
            assert_eq!(boxes, n * 200, "{name}");
            assert!(iou >= 0.99 && score <= 1e-3, "{name}: {iou} {score}");

            let model = Model::load(&path, &LoadOptions::default()).unwrap();
            let info = model.info();
            let detector = info.detector.as_ref().unwrap();
            assert_eq!((detector.family, detector.classes), (Family::Ssd, 80));
            let limits = detector.own_limits.unwrap();
            assert_eq!((limits.threshold, limits.iou, limits.max), (0.5, 0.5, 200));
            assert_eq!(limits.per_class, Some(200));
            let told = info.notes.iter().any(|n| n.contains("is left out"));
            assert!(told, "{:?}", info.notes);
            let share = model.placement().integer_share();
            let on_integers = if *file == "ssd" { 0.0 } else { 1.0 };
            assert!((share - on_integers).abs() < 1e-3, "{name}: {share}");
        }
    }

    let path = dir.path().join("ssd.onnx");
    let picture = &photographs[..1];
    // Few of a class are not few of all, here and there.
    let few_of_a_class = dir.path().join("ssd-few.onnx");
    let mut model = ModelProto::decode(&*std::fs::read(&path).unwrap()).unwrap();
    let nodes = model.graph.as_mut().unwrap().node.iter_mut();
    let filled = nodes.filter(|n| n.op_type == "ConstantOfShape");
    let mut values = filled.flat_map(|n| &mut n.attribute[0].t);
    let most = values.find(|t| t.data_type == DataType::Int64 as i32);
    most.unwrap().raw_data = 5i64.to_le_bytes().to_vec();
    std::fs::write(&few_of_a_class, model.encode_to_vec()).unwrap();
    let settings = DetectSettings {
        max: Some(200),
        ..low.clone()
    };
    let looked = look(&few_of_a_class, None, &settings, picture);
    let theirs = reference(&python, &few_of_a_class, "ssd_whole", &looked, &all);
    let (boxes, iou, _) = compare("ssd, five of a class", &looked.found, &theirs);
    assert!(boxes > 20 && iou >= 0.99, "{boxes} {iou}");
    let mut counts = [0; 80];
    looked.found[0].iter().for_each(|d| counts[d.index] += 1);
    assert_eq!(counts.iter().max(), Some(&5), "{counts:?}");
    let found = &look(&path, None, &low, picture).found[0];
    // What is said holds, the rest is the graph's.
    let few = DetectSettings {
        max: Some(20),
        ..DetectSettings::default()
    };
    let sure = found.iter().filter(|d| d.score >= 0.5);
    let sure: Vec<_> = sure.take(20).cloned().collect();
    assert_eq!(look(&path, None, &few, picture).found[0], sure);
    // What is read may be named as well, and is not taken for raw heads then.
    let model = Model::load(&path, &LoadOptions::default()).unwrap();
    let names: Vec<_> = model.info().outputs.iter().map(|o| &o.name).collect();
    let bundle = dir.path().join("bundle");
    std::fs::create_dir(&bundle).unwrap();
    std::fs::copy(&path, bundle.join("model.onnx")).unwrap();
    let manifest = format!("tasks = ['detect']\n[detect]\noutputs = {names:?}\n");
    std::fs::write(bundle.join("model.toml"), manifest).unwrap();
    assert_eq!(look(&bundle, None, &low, picture).found[0], *found);
    // Of another family it is refused.
    let options = LoadOptions {
        family: Some(Family::Yolov3),
        ..LoadOptions::default()
    };
    let e = Model::load(&path, &options).unwrap_err().to_string();
    assert!(e.contains("export without the suppression"), "{e}");
}

/// One quantizer for pixels and scores, as a detector has it that was quantized to its end: nothing is found, and `doctor` says why.
#[test]
fn scores_that_a_quantizer_erased_are_noticed() {
    let Some(python) = python() else {
        return skip(NEEDS);
    };
    let dir = made_detectors(&python);
    for (file, code, says) in [
        ("yolov8-quantized.onnx", 1, "no score is left"),
        ("yolov8.onnx", 0, "0.0 % of"),
    ] {
        let (found, text) = on_model("doctor", &dir.path().join(file));
        assert_eq!(found, Some(code), "{file}: {text}");
        assert!(text.contains(says), "{file}: {text}");
    }
}

/// AP50 by pycocotools of what the program prints, and of onnxruntime's outputs from Pillow's pixels: within half a point of
/// what onnxruntime gives when its float weights move by one unit in the last place.
#[test]
fn average_precision_is_onnxruntimes() {
    let (Some(data), Some(python)) = (test_data(), python()) else {
        return skip(NEEDS);
    };
    for (file, least) in [
        ("yolox-nano.onnx", 0.4),
        ("yolox-nano-int8-qdq-u8s8.onnx", 0.3),
    ] {
        let model = data.join("models").join(file);
        let out = ocellus()
            .args([
                "detect",
                "--json",
                "--threshold",
                "0.001",
                "--iou",
                "0.65",
                "--model",
            ])
            .arg(&model)
            .args(photographs(&data))
            .output()
            .unwrap();
        assert!(out.status.success());
        let dir = tempfile::tempdir().unwrap();
        let ours = dir.path().join("ours.jsonl");
        std::fs::write(&ours, out.stdout).unwrap();
        let out = Command::new(&python)
            .arg(script("coco_ap.py"))
            .args([&model, &data.join("images/coco"), &ours])
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&out.stdout);
        assert!(
            out.status.success(),
            "{}",
            String::from_utf8_lossy(&out.stderr)
        );
        let ap: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        let ours = ap["ours"].as_f64().unwrap();
        let theirs: Vec<f64> = serde_json::from_value(ap["reference"].clone()).unwrap();
        println!("{file}: AP50 {ours:.4}, by onnxruntime {theirs:.4?}");
        let low = theirs.iter().copied().fold(f64::INFINITY, f64::min) - 0.005;
        let high = theirs.iter().copied().fold(0.0, f64::max) + 0.005;
        assert!(
            ours >= least && (low..=high).contains(&ours),
            "{file}: {ap}"
        );
    }
}

/// The report of the engine: convolutions on integers.
#[test]
fn the_int8_detector_runs_on_integers() {
    let Some(data) = test_data() else {
        return skip(NEEDS);
    };
    let model = data.join("models/yolox-nano-int8-qdq-u8s8.onnx");
    let (_, text) = on_model("doctor", &model);
    let share = text
        .split(" % of the multiply-accumulates, run on integers")
        .next();
    let share = share.and_then(|t| t.rsplit(' ').next()?.parse::<f64>().ok());
    assert!(share.is_some_and(|s| s >= 85.0), "{share:?} in\n{text}");
    // The family says how pictures are fed.
    assert!(!text.contains("ImageNet"), "{text}");
}

#[test]
fn the_command_prints_writes_and_explains() {
    let Some(data) = test_data() else {
        return skip(NEEDS);
    };
    let model = data.join("models/yolox-nano.onnx");
    let picture = data.join("images/coco/images/000000000785.jpg");
    let run = |more: &[&str]| {
        let out = ocellus()
            .arg("detect")
            .arg(&picture)
            .args(more)
            .output()
            .unwrap();
        let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
        (out.status.code(), text(&out.stdout), text(&out.stderr))
    };
    let model = model.to_str().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let annotated = dir.path().join("with boxes");
    let (code, table, err) = run(&["--model", model, "--annotate", annotated.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{err}");
    assert!(
        table.contains("(640x425)") && table.contains("%  person  "),
        "{table}"
    );
    assert!(
        err.contains("recognized by its outputs: family yolox"),
        "{err}"
    );
    let drawn = image::open(annotated.join("000000000785.jpg")).unwrap();
    assert_eq!((drawn.width(), drawn.height()), (640, 425));

    let (_, json, _) = run(&["--model", model, "--json", "--only", "skis"]);
    let line: Value = serde_json::from_str(&json).unwrap();
    let found = line["detections"].as_array().unwrap();
    assert!(
        !found.is_empty() && found.iter().all(|d| d["label"] == "skis"),
        "{json}"
    );
    assert_eq!(line["frame"]["width"], 640);

    let classifier = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/cifar10-resnet20-int8");
    for (more, code, says) in [
        (
            &["--model", model, "--only", "skies"][..],
            78,
            "no label `skies`; did you mean `skis`?",
        ),
        (
            &["--model", model, "--iou", "2"],
            78,
            "--iou: 2 is not between 0 and 1",
        ),
        (
            &["--model", model, "--family", "yolov8"],
            78,
            "not those of yolov8",
        ),
        (
            &["--model", model, "--family", "yolo"],
            2,
            "unknown family `yolo`",
        ),
        (
            &["--model", classifier.to_str().unwrap()],
            78,
            "which detector it is cannot be told",
        ),
        (&[], 78, "give --model"),
        (&["--model", model, "nowhere.jpg"], 1, "1 of 2 images"),
    ] {
        let (exit, out, err) = run(more);
        assert_eq!(exit, Some(code), "{more:?}\n{out}{err}");
        assert!(err.contains(says), "no `{says}` in\n{err}");
    }
}

/// What the subscriber saw of a run over the photographs: of each its detections, as the command prints them. And how many boxes.
fn over_the_broker(model: &Path, data: &Path, broker: &Mosquitto) -> (Vec<Seen>, usize) {
    let out = ocellus()
        .args(["detect", "--json", "--model"])
        .arg(model)
        .args(photographs(data))
        .output()
        .unwrap();
    let printed: Vec<Value> = String::from_utf8(out.stdout)
        .unwrap()
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();

    let subscriber = Observer::start(broker.port, "ocellus/#");
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("ocellus.toml");
    let text = format!(
        "[device]\nid='bench'\n[[camera]]\nid='stills'\nsource='files:{}'\n[[model]]\npath='{}'\n[smoothing]\nwindow_ms=0\nmin_duration_ms=0\n[mqtt]\nmax_rate=0.0\nurl='mqtt://127.0.0.1:{}'\n",
        data.join("images/coco/images").display(),
        model.display(),
        broker.port
    );
    std::fs::write(&config, text).unwrap();
    let run = ocellus()
        .arg("run")
        .arg("--config")
        .arg(&config)
        .output()
        .unwrap();
    assert!(
        run.status.success(),
        "{}",
        String::from_utf8_lossy(&run.stderr)
    );
    let messages = subscriber.collect("offline, the last message", |m| {
        m.topic == "ocellus/bench/status" && m.text() == "offline"
    });
    let seen = of_topic(&messages, "detections");
    assert_eq!(seen.len(), 32, "a message for every picture");
    let mut boxes = 0;
    for (message, line) in seen.iter().zip(&printed) {
        check("detections", message);
        let (sent, shown) = (&message["detections"], &line["detections"]);
        let (sent, shown) = (sent.as_array().unwrap(), shown.as_array().unwrap());
        assert_eq!(sent.len(), shown.len());
        for (a, b) in sent.iter().zip(shown) {
            boxes += 1;
            assert_eq!((&a["label"], &a["index"]), (&b["label"], &b["index"]));
            let near =
                |a: &Value, b: &Value| (a.as_f64().unwrap() - b.as_f64().unwrap()).abs() < 1e-4;
            assert!(near(&a["score"], &b["score"]), "{a} {b}");
            assert!((0..4).all(|i| near(&a["box"][i], &b["box"][i])), "{a} {b}");
        }
    }
    (messages, boxes)
}

fn of_topic(messages: &[Seen], topic: &str) -> Vec<Value> {
    let topic = format!("ocellus/bench/stills/{topic}");
    let own = messages.iter().filter(|m| m.topic == topic);
    own.map(|m| m.json()).collect()
}

/// From files to a subscriber at a real broker: each picture's detections, as the command prints them.
#[test]
fn detections_reach_the_subscriber() {
    let Some(data) = test_data() else {
        return skip(NEEDS);
    };
    let Some(broker) = mosquitto_or_skip() else {
        return;
    };
    let model = data.join("models/yolox-nano-int8-qdq-u8s8.onnx");
    let (messages, boxes) = over_the_broker(&model, &data, &broker);
    assert!(boxes > 30, "{boxes}");
    // Recognized as a detector, its threshold is a detector's.
    let threshold = "ocellus/bench/stills/threshold/state";
    let told = messages.iter().find(|m| m.topic == threshold);
    assert_eq!(told.map(|m| m.text()).as_deref(), Some("0.5"));
    // A person who appears is an event, and a state that a dashboard shows.
    let events = of_topic(&messages, "event");
    assert!(events.iter().any(|e| e["to"] == "person"));
    let states = of_topic(&messages, "state");
    assert!(states.iter().any(|s| s["label"].is_string()));
}

/// The same of detectors with a pyramid of anchors, one of them with a second network; random weights in the exports' form.
#[test]
fn detections_of_a_pyramid_reach_the_subscriber() {
    let (Some(data), Some(python)) = (test_data(), python()) else {
        return skip(NEEDS);
    };
    let dir = made_detectors(&python);
    for model in ["retinanet", "faster_rcnn"] {
        // A broker each: what the first device left there is not this one's.
        let Some(broker) = mosquitto_or_skip() else {
            return;
        };
        let (messages, boxes) = over_the_broker(&dir.path().join(model), &data, &broker);
        println!("{model}: {boxes} boxes");
        assert!(boxes > 30, "{model}: {boxes}");
        let first = &of_topic(&messages, "detections")[0];
        assert_eq!(first["model"]["id"], model, "{first}");
    }
}
