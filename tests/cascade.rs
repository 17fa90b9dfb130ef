//! Cascades: what a detector finds is looked at again by a second model; from frames to a subscriber, with the models that ship and with
//! real photographs.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::device::Device;
use common::mosquitto::{Observer, mosquitto_or_skip};
use common::schema::check;
use common::stills::{photographs, script};
use common::{cosine, ocellus, python, skip, sorted, test_data};
use ocellus::config::{Config, Plan};
use ocellus::frame::{Frame, FrameMeta, FramePool, Geometry, PixelFormat};
use ocellus::model::{LoadOptions, Model};
use ocellus::observe::{Observation, Publication};
use ocellus::pipeline::{Parts, load_model, start};
use ocellus::preprocess::{InputData, InputTensor, Preprocessor, Region};
use ocellus::publish::Sink;
use ocellus::publish::mqtt::payload;
use ocellus::stats::Stats;
use ocellus::task::{self, Detection, TaskKind, TaskResult, TaskSettings};
use serde_json::{Value, json};

const NEEDS: &str = "needs the test data";

fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("models")
        .join(name)
}

/// Every observation.
#[derive(Default)]
struct Seen(Mutex<Vec<Arc<Observation>>>);

impl Sink for Seen {
    fn publish(&self, publication: &Publication) {
        if let Publication::Observation(o) = publication {
            self.0.lock().unwrap().push(o.clone());
        }
    }
}

/// Runs a configuration until its files are played, in this process.
fn play(text: &str) -> (Vec<Arc<Observation>>, Arc<Stats>) {
    let (config, problems) = Config::parse(text);
    assert_eq!(problems, []);
    let plan = Plan::new(config, Path::new("")).unwrap_or_else(|p| panic!("{p:?}"));
    let models = plan.models.iter().map(|m| load_model(m, 1).unwrap());
    let seen = Arc::new(Seen::default());
    let parts = Parts {
        models: models.collect(),
        sinks: vec![seen.clone()],
        ..Parts::default()
    };
    let stats = start(&plan, parts).unwrap().wait().unwrap();
    let seen = std::mem::take(&mut *seen.0.lock().unwrap());
    for o in &seen {
        let line = payload::record("dev-1", o);
        check("record", &serde_json::from_slice(&line).unwrap());
    }
    (seen, stats)
}

fn found(o: &Observation) -> &[Detection] {
    let found = o.results.iter().find_map(|r| match r {
        TaskResult::Detections(found) => Some(found.as_slice()),
        _ => None,
    });
    found.unwrap_or_default()
}

/// The detections whose crops were looked at in this very frame.
fn looked_at(o: &Observation) -> Vec<usize> {
    let now = |nth: &usize| {
        let crops = o.crops[*nth].iter();
        crops
            .into_iter()
            .any(|c| c.captured_at == o.meta.captured_at)
    };
    (0..o.crops.len()).filter(now).collect()
}

/// A picture, `n` times, as files in a directory.
fn repeated(dir: &Path, picture: &Path, n: usize) -> PathBuf {
    let frames = dir.join("frames");
    std::fs::create_dir(&frames).unwrap();
    for nth in 0..n {
        std::fs::copy(picture, frames.join(format!("{nth:04}.jpg"))).unwrap();
    }
    frames
}

/// The drawn camera, the detector and the classifier that ship, a broker: each thing gets a class, in the detector's own message.
#[test]
fn each_thing_in_the_scene_gets_a_class_in_the_same_message() {
    let Some(broker) = mosquitto_or_skip() else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("ocellus.toml");
    let text = format!(
        "[device]\nid = 'dev-1'\nstate_dir = '{}'\n[mqtt]\nurl = 'mqtt://127.0.0.1:{}'\nmax_rate = 0\nhealth_s = 1\n\
         [[camera]]\nid = 'scene'\nsource = 'scene:2026'\nfps = 20\n\
         [[model]]\nid = 'things'\npath = '{}'\n\
         [[model]]\nid = 'kinds'\npath = '{}'\n[model.classify]\ntop_k = 2\n\
         [model.crops]\nof = 'things'\nper_frame = 1\nrefresh_s = 0.5\nmargin = 2\n",
        dir.path().display(),
        broker.port,
        shipped("scene-detect10-int8").display(),
        shipped("scene-resnet10-int8").display(),
    );
    std::fs::write(&config, text).unwrap();
    let observer = Observer::start(broker.port, "ocellus/#");
    let device = Device::start(&config);
    let mut seen = Vec::new();
    let mut tracks = BTreeSet::new();
    let started = Instant::now();
    while tracks.len() < 3 {
        let left = Duration::from_secs(60).saturating_sub(started.elapsed());
        let message = observer
            .next_within(left)
            .expect("three things in a minute");
        if message.topic.ends_with("/detections") {
            let found = message.json()["detections"].clone();
            let found = found.as_array().unwrap().iter();
            tracks.extend(found.filter_map(|d| d["track"].as_u64()));
        }
        seen.push(message);
    }
    let health = observer.wait("health", |s| s.topic == "ocellus/dev-1/health");
    assert!(device.stop().success());

    let info = seen.iter().find(|s| s.topic == "ocellus/dev-1/info");
    let info = info.unwrap().json();
    check("info", &info);
    let models = info["models"].as_array().unwrap();
    assert_eq!(
        (&models[0]["crops_of"], &models[1]["crops_of"]),
        (&Value::Null, &"things".into())
    );
    assert_eq!(models[1]["cameras"][0], "scene");
    // The second model has no messages and no state of its own.
    let of_scene = seen
        .iter()
        .filter_map(|s| s.topic.strip_prefix("ocellus/dev-1/scene/"));
    let kinds: BTreeSet<_> = of_scene.collect();
    assert!(
        !kinds.contains("classification") && !kinds.contains("embedding"),
        "{kinds:?}"
    );

    let messages: Vec<Value> = seen
        .iter()
        .filter(|s| s.topic.ends_with("/detections"))
        .map(|s| s.json())
        .collect();
    let (mut right, mut looks, mut carried) = (0, 0, 0);
    for (message, nth) in messages.iter().zip(1..) {
        check("detections", message);
        assert_eq!(
            message["seq"], nth,
            "one message a frame, one number a message"
        );
        let mut now = 0;
        for d in message["detections"].as_array().unwrap() {
            // Each thing of which it is known that it is one.
            let Some(crops) = d["crops"].as_array() else {
                assert!(d["track"].is_null(), "no class: {d}");
                continue;
            };
            assert_eq!(crops.len(), 1);
            let crop = &crops[0];
            assert_eq!(crop["model"]["id"], "kinds");
            assert_eq!(crop["model"]["sha256"], models[1]["sha256"]);
            let classes = crop["results"].as_array().unwrap();
            assert_eq!(classes.len(), 2);
            assert_eq!(crop["embedding"]["dim"], 128);
            let age = crop["age_ms"].as_f64().unwrap();
            if age == 0.0 {
                now += 1;
                looks += 1;
                right += usize::from(classes[0]["label"] == d["label"]);
            } else {
                carried += 1;
                assert!(age < 1000.0, "never refreshed: {crop}");
            }
        }
        assert!(now <= 1, "over the budget: {message}");
        assert_eq!(message["timing_ms"]["crops"].is_number(), now > 0);
    }
    println!("{looks} crops, {right} of them of the detector's class, {carried} carried along");
    // Trained on whole pictures, it wants something around the thing.
    assert!(looks >= 8 && right * 10 >= looks * 6, "{right} of {looks}");
    assert!(carried > looks, "{carried} {looks}");
    let health = health.json();
    check("health", &health);
    let camera = &health["cameras"]["scene"];
    assert!(camera["crops"].as_u64() > Some(0), "{camera}");
    assert_eq!(
        (&camera["crops_deferred"], &camera["crops_failed"]),
        (&0.into(), &0.into())
    );
}

/// The photograph on which the detector finds most, and how much.
fn most_crowded(data: &Path) -> (PathBuf, usize) {
    let out = ocellus()
        .args(["detect", "--json", "--threshold", "0.3", "--model"])
        .arg(data.join("models/yolox-nano.onnx"))
        .args(photographs(data))
        .output()
        .unwrap();
    let lines = String::from_utf8(out.stdout).unwrap();
    let lines = lines
        .lines()
        .map(|l| serde_json::from_str::<Value>(l).unwrap());
    let counted = lines.map(|l| {
        let n = l["detections"].as_array().unwrap().len();
        (PathBuf::from(l["image"].as_str().unwrap()), n)
    });
    counted.max_by_key(|c| c.1).unwrap()
}

/// More things than the budget: each is served in its turn, and no frame costs more than it may.
#[test]
fn a_crowd_is_served_in_turn() {
    let Some(data) = test_data() else {
        return skip(NEEDS);
    };
    const BUDGET: usize = 2;
    const FRAMES: usize = 40;
    let (picture, n) = most_crowded(&data);
    assert!(n >= 8, "{n} things are no crowd");
    let dir = tempfile::tempdir().unwrap();
    let text = format!(
        "[[camera]]\nid = 'crowd'\nsource = 'files:{}'\n\
         [[model]]\nid = 'kinds'\npath = '{}'\ntasks = ['classify']\n\
         [model.crops]\nof = 'found'\nper_frame = {BUDGET}\nrefresh_s = 0\nmin_side_px = 1\n\
         [[model]]\nid = 'found'\npath = '{}'\n[model.detect]\nthreshold = 0.3\n[tracking]\nbegin = 0.3\n",
        repeated(dir.path(), &picture, FRAMES).display(),
        shipped("scene-resnet10-int8").display(),
        data.join("models/yolox-nano.onnx").display(),
    );
    let (seen, stats) = play(&text);
    // The last one has only the tracks' ends.
    assert_eq!(seen.len(), FRAMES + 1);
    let mut waits: BTreeMap<u64, usize> = BTreeMap::new();
    let (mut looks, mut longest) = (0, 0);
    for o in &seen[..FRAMES] {
        assert_eq!(o.crops.len(), found(o).len());
        let looked = looked_at(o);
        assert!(looked.len() <= BUDGET, "over the budget");
        looks += looked.len();
        for (nth, id) in o.followed.ids.iter().enumerate() {
            let Some(id) = id else {
                assert!(o.crops[nth].is_empty());
                continue;
            };
            let wait = waits.entry(*id).or_default();
            *wait = if looked.contains(&nth) { 0 } else { *wait + 1 };
            longest = longest.max(*wait);
        }
    }
    // Each of the others goes before it once.
    let things = waits.len();
    println!("{things} things, {looks} crops, the longest wait {longest} frames");
    assert!(
        things >= 8 && longest <= (things - 1) / BUDGET,
        "{things} {longest}"
    );
    let last = &seen[FRAMES - 1];
    assert!(last.crops.iter().filter(|c| c.len() == 1).count() >= 8);
    let camera = &stats.cameras[0];
    assert_eq!(camera.crops.get(), looks as u64);
    // From the second frame on there was always somebody to look at, and always somebody who waited.
    assert_eq!(looks, (FRAMES - 1) * BUDGET);
    assert!(camera.crops_deferred.get() as usize >= (FRAMES - 1) * (8 - BUDGET));
    assert_eq!(
        (camera.crops_failed.get(), camera.inferred.get()),
        (0, FRAMES as u64)
    );
    let stages = stats.latencies();
    let crops = stages.iter().find(|l| l.stage.name() == "crops").unwrap();
    assert_eq!(crops.count as usize, FRAMES - 1);
    // What was said of a thing ends with it.
    assert!(seen[FRAMES].crops.is_empty() && seen[FRAMES].followed.tracks.len() >= 8);
}

/// Frames whose crops take long are not overtaken by those of another worker that have none.
#[test]
fn several_workers_keep_the_order() {
    let Some(data) = test_data() else {
        return skip(NEEDS);
    };
    let (picture, _) = most_crowded(&data);
    let dir = tempfile::tempdir().unwrap();
    let text = format!(
        "[engine]\nworkers = 2\n[tracking]\nenabled = true\n[[camera]]\nid = 'crowd'\nsource = 'files:{}'\n\
         [[model]]\nid = 'found'\npath = '{}'\n[model.detect]\nthreshold = 0.3\n\
         [[model]]\nid = 'kinds'\npath = '{}'\n[model.crops]\nof = 'found'\nper_frame = 100\nrefresh_s = 0.15\nmin_side_px = 1\n",
        repeated(dir.path(), &picture, 60).display(),
        data.join("models/yolox-nano-int8-qdq-u8s8.onnx").display(),
        data.join("models/resnet18-int8-qdq-u8s8.onnx").display(),
    );
    let (seen, _) = play(&text);
    let costly = seen.iter().filter(|o| o.timing.crops.is_some()).count();
    assert!(
        costly >= 5 && costly < seen.len() - 5,
        "{costly} of {}",
        seen.len()
    );
    let numbers: Vec<u64> = seen.iter().map(|o| o.seq).collect();
    assert!(
        numbers.iter().copied().eq(1..=seen.len() as u64),
        "{numbers:?}"
    );
}

/// A region of a picture's pixels as a frame of its own.
fn cut(picture: &Path, r: Region) -> Frame {
    let picture = image::open(picture).unwrap().into_rgb8();
    let part = image::imageops::crop_imm(&picture, r.x, r.y, r.width, r.height).to_image();
    let mut data = FramePool::default().take();
    data.extend_from_slice(part.as_raw());
    Frame {
        format: PixelFormat::Rgb24,
        geometry: Geometry::packed(r.width, r.height, PixelFormat::Rgb24),
        data,
        meta: FrameMeta::of_still("cut"),
        mask: None,
    }
}

/// People and faces become vectors: those that the second network gives for the picture cut to the box.
#[test]
fn embeddings_are_those_of_the_pictures_cut_to_the_boxes() {
    let Some(data) = test_data() else {
        return skip(NEEDS);
    };
    let at = |name: &str| data.join("models").join(name).display().to_string();
    let embedder = at("resnet18-int8-qdq-u8s8.onnx");
    let options = LoadOptions {
        tasks: vec![TaskKind::Embed],
        ..LoadOptions::default()
    };
    let model = Model::load(Path::new(&embedder), &options).unwrap();
    let settings = TaskSettings::default();
    let mut embed = task::build(TaskKind::Embed, model.info(), &settings).unwrap();
    let mut session = model.session().unwrap();
    let mut preprocessor = Preprocessor::new(model.info().input.clone());
    let mut input = InputTensor::for_spec(&model.info().input);
    let mut vector = |frame: &Frame| {
        let prepared = preprocessor.run(frame, &mut input).unwrap();
        let outputs = session.run(&input).unwrap();
        match embed.decode(outputs, &prepared.mapping).unwrap() {
            TaskResult::Embedding(e) => e.values,
            other => panic!("{other:?}"),
        }
    };
    for (detector, only, per_frame) in [
        ("yolox-nano.onnx", "person", 3),
        ("face-rfb-320.onnx", "face", 3),
    ] {
        let text = format!(
            "[tracking]\nenabled = false\n[[camera]]\nid = 'stills'\nsource = 'files:{}'\n\
             [[model]]\nid = 'found'\npath = '{}'\ntasks = ['detect']\n[model.detect]\nthreshold = 0.4\n\
             [[model]]\nid = 'alike'\npath = '{embedder}'\ntasks = ['embed']\n\
             [model.crops]\nof = 'found'\nonly = ['{only}']\nmargin = 0.2\nper_frame = {per_frame}\nmin_side_px = 24\n",
            data.join("images/coco/images").display(),
            at(detector),
        );
        let (seen, stats) = play(&text);
        let pictures = photographs(&data);
        assert_eq!(seen.len(), pictures.len());
        let (mut crops, mut mean, mut lowest, mut other) = (0, 0.0, 1f64, 0.0);
        for (o, picture) in seen.iter().zip(&pictures) {
            let (w, h) = o.frame_size;
            let fits = |nth: &usize| {
                let d = &found(o)[*nth];
                let [x0, y0, x1, y1] = d.bbox.corners();
                let shorter = ((x1 - x0) * w as f32).min((y1 - y0) * h as f32);
                &*d.label == only && shorter >= 24.0
            };
            // Without tracks it is the best of each frame, and they are in that order.
            let wanted: Vec<usize> = (0..found(o).len()).filter(fits).take(per_frame).collect();
            assert_eq!(looked_at(o), wanted);
            for nth in wanted {
                let [TaskResult::Embedding(e)] = &o.crops[nth][0].results[..] else {
                    panic!("{:?}", o.crops[nth])
                };
                assert!(e.l2_normalized && e.values.len() == 512);
                let region = Region::around(found(o)[nth].bbox.corners(), 0.2, (w, h));
                let alike = cosine(&e.values, &vector(&cut(picture, region)));
                let whole = Region::whole((w, h));
                (crops, mean) = (crops + 1, mean + alike);
                lowest = lowest.min(alike);
                other += cosine(&e.values, &vector(&cut(picture, whole)));
            }
        }
        let (mean, other) = (mean / f64::from(crops), other / f64::from(crops));
        println!(
            "{detector}: {crops} crops, cosine {mean:.4} in the mean, {lowest:.4} at least; with the whole picture's {other:.4}"
        );
        assert!(crops >= 15, "{crops}");
        assert!(
            mean >= 0.99 && lowest >= 0.97 && other < 0.9,
            "{mean} {lowest} {other}"
        );
        assert_eq!(stats.cameras[0].crops.get(), crops as u64);
    }
}

/// Persons that YOLOX-nano finds, and a re-identification network in the form of the usual ResNet-50: what the messages have is what onnxruntime
/// computes of the same crops. With random weights an int8 network makes much of a pixel that differs by one, as Pillow's do: it is fed what we are
/// fed, and the pictures are PNGs, whose pixels are the same for all.
#[test]
fn persons_become_the_vectors_of_a_re_identification_network() {
    let (Some(data), Some(python)) = (test_data(), python()) else {
        return skip("needs the test data and OCELLUS_PYTHON with onnxruntime");
    };
    let dir = tempfile::tempdir().unwrap();
    let images = data.join("images/coco/images");
    // An eighth of the channels: 256 elements.
    let made = Command::new(&python)
        .arg(script("reid_models.py"))
        .args([dir.path(), Path::new("8"), &images])
        .status();
    assert!(made.unwrap().success());
    let pngs = dir.path().join("png");
    std::fs::create_dir(&pngs).unwrap();
    for picture in photographs(&data) {
        let png = pngs.join(picture.file_name().unwrap());
        let decoded = image::open(&picture).unwrap().into_rgb8();
        decoded.save(png.with_extension("png")).unwrap();
    }
    for (file, images, from_ours, from_pillows) in [
        ("reid", images, 0.998, 0.998),
        ("reid-int8", pngs, 0.9999, 0.7),
    ] {
        let bundle = dir.path().join(file);
        let onnx = bundle.with_extension("onnx");
        std::fs::create_dir(&bundle).unwrap();
        std::fs::copy(&onnx, bundle.join("model.onnx")).unwrap();
        let manifest =
            "tasks = ['embed']\n[input]\nresize = 'stretch'\n[embedding]\ntensor = 'embedding'\n";
        std::fs::write(bundle.join("model.toml"), manifest).unwrap();
        let text = format!(
            "[tracking]\nenabled = false\n[[camera]]\nid = 'stills'\nsource = 'files:{}'\n\
             [[model]]\nid = 'persons'\npath = '{}'\ntasks = ['detect']\n[model.detect]\nthreshold = 0.4\n\
             [[model]]\nid = 'reid'\npath = '{}'\n\
             [model.crops]\nof = 'persons'\nonly = ['person']\nmargin = 0.1\nper_frame = 3\nmin_side_px = 24\n",
            images.display(),
            data.join("models/yolox-nano.onnx").display(),
            bundle.display(),
        );
        let (seen, _) = play(&text);
        let pictures = sorted(&images);
        assert_eq!(seen.len(), pictures.len());
        let options = LoadOptions {
            float_input: true,
            ..LoadOptions::default()
        };
        let spec = Model::load(&bundle, &options).unwrap().info().input.clone();
        let mut input = InputTensor::for_spec(&spec);
        let mut preprocessor = Preprocessor::new(spec);
        let (mut crops, mut tensors) = (Vec::new(), Vec::new());
        for (o, picture) in seen.iter().zip(&pictures) {
            let message = payload::record("dev-1", o);
            let message: Value = serde_json::from_slice(&message).unwrap();
            for nth in looked_at(o) {
                let crop = &message["detections"][nth]["crops"][0];
                assert_eq!(crop["model"]["id"], "reid");
                let r = Region::around(found(o)[nth].bbox.corners(), 0.1, o.frame_size);
                crops.push(json!({
                    "picture": picture,
                    "box": [r.x, r.y, r.x + r.width, r.y + r.height],
                    "embedding": crop["embedding"],
                }));
                preprocessor.run(&cut(picture, r), &mut input).unwrap();
                let InputData::F32(values) = &input.data else {
                    panic!("no floats")
                };
                tensors.extend(values.iter().flat_map(|v| v.to_le_bytes()));
            }
        }
        let [list, fed] = ["crops.json", "tensors"].map(|name| dir.path().join(name));
        std::fs::write(&list, serde_json::to_vec(&crops).unwrap()).unwrap();
        std::fs::write(&fed, tensors).unwrap();
        let out = Command::new(&python)
            .arg(script("reid.py"))
            .args([&onnx, &list, &fed])
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "{errors}");
        let cosines: Vec<[f64; 3]> = serde_json::from_slice(&out.stdout).unwrap();
        let lowest = |i: usize| cosines.iter().map(|c| c[i]).fold(1.0, f64::min);
        println!(
            "{file}: {} persons, cosine at least {:.5}, from Pillow's crops {:.4}",
            cosines.len(),
            lowest(0),
            lowest(1)
        );
        assert!(cosines.len() >= 15, "{cosines:?}");
        assert!(lowest(0) >= from_ours && lowest(1) >= from_pillows);
        // Each is nearest to its own crop: who is looked for is found.
        assert!(cosines.iter().all(|c| c[1] > c[2]), "{cosines:?}");
    }
}

#[test]
fn the_command_looks_at_crops_of_a_still() {
    let Some(data) = test_data() else {
        return skip(NEEDS);
    };
    let picture = data.join("images/coco/images/000000000785.jpg");
    let at = |name: &str| data.join("models").join(name).display().to_string();
    let dir = tempfile::tempdir().unwrap();
    let labels = dir.path().join("labels.txt");
    let names: Vec<String> = (0..1000).map(|i| format!("class-{i}")).collect();
    std::fs::write(&labels, names.join("\n")).unwrap();
    let run = |more: &[&str]| {
        let out = ocellus()
            .args(["detect", "--model", &at("yolox-nano.onnx")])
            .arg(&picture)
            .args(more)
            .output()
            .unwrap();
        let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
        (out.status.code(), text(&out.stdout), text(&out.stderr))
    };
    let classifier = at("resnet18-int8-qdq-u8s8.onnx");
    let then = [
        "--then",
        &classifier,
        "--then-labels",
        labels.to_str().unwrap(),
    ];
    let annotated = dir.path().join("drawn");
    let drawn = [&then[..], &["--annotate", annotated.to_str().unwrap()]].concat();
    let (code, table, err) = run(&drawn);
    assert_eq!(code, Some(0), "{err}");
    let lines: Vec<&str> = table.lines().collect();
    assert!(
        lines[1].contains("%  person  ") && lines[2].contains(" % class-"),
        "{table}"
    );
    assert!(annotated.join("000000000785.jpg").is_file());

    let (_, json, _) = run(&[&then[..], &["--json", "--margin", "0.3"]].concat());
    let line: Value = serde_json::from_str(&json).unwrap();
    let detections = line["detections"].as_array().unwrap();
    assert!(detections.len() >= 2);
    for d in detections {
        let crop = &d["crops"][0];
        assert_eq!(crop["model"]["id"], "resnet18-int8-qdq-u8s8");
        assert_eq!(crop["results"].as_array().unwrap().len(), 5);
    }
    // Other crops, other scores; and without a second model nothing is said of any.
    let (_, other, _) = run(&[&then[..], &["--json", "--margin", "0"]].concat());
    let other: Value = serde_json::from_str(&other).unwrap();
    assert_ne!(
        line["detections"][0]["crops"],
        other["detections"][0]["crops"]
    );
    let (_, alone, _) = run(&["--json"]);
    assert!(!alone.contains("crops"), "{alone}");

    // Classes and the embedding of a bundle with both.
    let both = shipped("scene-resnet10-int8");
    let (code, table, err) = run(&["--then", both.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{err}");
    assert!(table.contains("an embedding of 128"), "{table}");

    for (more, says) in [
        (
            &["--then", &at("face-rfb-320.onnx")][..],
            "--then: detect is no task for crops: classify, embed",
        ),
        (&["--margin", "3"], "--margin: 3 is not between 0 and 2"),
        (&["--then", "nowhere"], "nowhere"),
    ] {
        let (code, out, err) = run(more);
        assert_eq!(code, Some(78), "{more:?}\n{out}{err}");
        assert!(err.contains(says), "no `{says}` in\n{err}");
    }
}

/// What only the models' files tell: `check` says it, and `run` does not start.
#[test]
fn models_that_do_not_fit_each_other_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("ocellus.toml");
    let (detector, classifier) = (
        shipped("scene-detect10-int8"),
        shipped("scene-resnet10-int8"),
    );
    let cascade = |of: &Path, second: &Path, crops: &str| {
        let text = format!(
            "[[camera]]\nsource = 'scene:'\n[[model]]\nid = 'things'\npath = '{}'\n\
             [[model]]\nid = 'kinds'\npath = '{}'\n[model.crops]\nof = 'things'\n{crops}\n",
            of.display(),
            second.display()
        );
        std::fs::write(&config, text).unwrap();
        let run = |args: &[&str]| {
            let out = ocellus().args(args).arg(&config).output().unwrap();
            let text = [out.stdout, out.stderr].concat();
            (
                out.status.code(),
                String::from_utf8_lossy(&text).into_owned(),
            )
        };
        let check = run(&["check", "--offline", "--config"]);
        let run = run(&["run", "--output", "jsonl", "--seconds", "0.2", "--config"]);
        (check, run)
    };
    let (check, run) = cascade(&detector, &classifier, "only = ['person', 'car']");
    assert_eq!(
        (check.0, run.0),
        (Some(0), Some(0)),
        "{}\n{}",
        check.1,
        run.1
    );
    assert!(
        check.1.contains("1 model(s) look at what others find"),
        "{}",
        check.1
    );
    for (of, second, crops, says) in [
        (
            &detector,
            &classifier,
            "only = ['persn']",
            "the model `kinds`: crops.only: `things` has no label `persn`; did you mean `person`?",
        ),
        (
            &classifier,
            &classifier,
            "",
            "the model `kinds`: crops.of: `things` does not detect",
        ),
        (
            &detector,
            &detector,
            "",
            "the model `kinds`: detect is no task for crops",
        ),
        (
            &detector,
            &classifier,
            "per_frame = 0",
            "model.1.crops.per_frame: 0 is not between 1 and 100",
        ),
    ] {
        let (check, run) = cascade(of, second, crops);
        for (code, text) in [check, run] {
            assert_eq!(code, Some(78), "{text}");
            assert!(text.contains(says), "no `{says}` in\n{text}");
        }
    }
}
