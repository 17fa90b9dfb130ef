//! The bundles in `models/`: each proves itself, and has a card; the detector finds what its card promises.

use std::path::{Path, PathBuf};
use std::process::Command;

use ocellus::capture::scene::Scene;
use ocellus::frame::{Frame, FrameMeta, FramePool, Geometry, PixelFormat, Truth};
use ocellus::model::{LoadOptions, Model};
use ocellus::preprocess::{InputTensor, Preprocessor};
use ocellus::task::detect::DetectSettings;
use ocellus::task::{self, BBox, Detection, TaskKind, TaskResult, TaskSettings};

fn bundles() -> Vec<PathBuf> {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
    let entries = std::fs::read_dir(models).unwrap();
    let folders = entries.map(|e| e.unwrap().path());
    folders.filter(|p| p.join("model.toml").is_file()).collect()
}

#[test]
fn every_bundle_reproduces_its_golden_output() {
    let names: Vec<_> = bundles();
    assert_eq!(names.len(), 3, "{names:?}");
    for bundle in names {
        let output = Command::new(env!("CARGO_BIN_EXE_ocellus"))
            .args(["check", "--offline", "--model"])
            .arg(&bundle)
            .env_remove("OCELLUS_CONFIG")
            .output()
            .unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{}: {said}", bundle.display());
        assert!(said.contains("golden output reproduced"), "{said}");
    }
}

#[test]
fn every_bundle_is_small_and_its_card_shows_what_is_there() {
    for bundle in bundles() {
        let files = std::fs::read_dir(&bundle).unwrap();
        let bytes: u64 = files.map(|f| f.unwrap().metadata().unwrap().len()).sum();
        assert!(bytes < 1 << 20, "{}: {bytes} bytes", bundle.display());
        let card = std::fs::read_to_string(bundle.join("README.md")).unwrap();
        for link in card.split("](").skip(1) {
            let file = link.split(')').next().unwrap();
            assert!(
                bundle.join(file).is_file(),
                "{}: {file} is not there",
                bundle.display()
            );
        }
    }
}

/// What the firmware's own path, from raw frames to boxes, finds in frames of scenes that neither training nor the card's test has seen.
fn looked_at() -> Vec<(Vec<Detection>, Truth)> {
    let bundle = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/scene-detect10-int8");
    let model = Model::load(&bundle, &LoadOptions::default()).unwrap();
    let settings = TaskSettings {
        detect: DetectSettings {
            threshold: Some(0.01),
            ..DetectSettings::default()
        },
        ..TaskSettings::default()
    };
    let mut task = task::build(TaskKind::Detect, model.info(), &settings).unwrap();
    let spec = model.info().input.clone();
    let mut input = InputTensor::for_spec(&spec);
    let mut preprocessor = Preprocessor::new(spec);
    let mut session = model.session().unwrap();
    let pool = FramePool::default();
    let mut looked = Vec::new();
    for seed in 300_000..300_040 {
        let mut scene = Scene::new(seed, 640, 480);
        let mut pixels = Vec::new();
        for index in (7..540).step_by(26) {
            let truth = scene.render(index, &mut pixels);
            let mut data = pool.take();
            data.extend_from_slice(&pixels);
            let frame = Frame {
                format: PixelFormat::Rgb24,
                geometry: Geometry::packed(640, 480, PixelFormat::Rgb24),
                data,
                meta: FrameMeta::of_still("scene"),
                mask: None,
            };
            let prepared = preprocessor.run(&frame, &mut input).unwrap();
            let outputs = session.run(&input).unwrap();
            match task.decode(outputs, &prepared.mapping).unwrap() {
                TaskResult::Detections(found) => looked.push((found, truth)),
                other => panic!("{other:?}"),
            }
        }
    }
    looked
}

/// Average precision of one class at an overlap of 0.5, and how many objects there are: the area below precision over recall.
fn average_precision(looked: &[(Vec<Detection>, Truth)], label: &str) -> (f64, usize) {
    let there = |t: &Truth| -> Vec<BBox> {
        let own = t.objects.iter().filter(|o| o.label == label);
        own.map(|o| o.bbox.into()).collect()
    };
    let mut missing: Vec<Vec<BBox>> = looked.iter().map(|(_, t)| there(t)).collect();
    let objects: usize = missing.iter().map(Vec::len).sum();
    let mut said: Vec<(usize, &Detection)> = Vec::new();
    for (picture, (found, _)) in looked.iter().enumerate() {
        said.extend(
            found
                .iter()
                .filter(|d| &*d.label == label)
                .map(|d| (picture, d)),
        );
    }
    said.sort_by(|a, b| b.1.score.total_cmp(&a.1.score));
    let (mut right, mut points) = (0usize, Vec::new());
    for (n, (picture, d)) in said.iter().enumerate() {
        let left = &mut missing[*picture];
        if let Some(i) = left.iter().position(|b| b.iou(&d.bbox) >= 0.5) {
            left.swap_remove(i);
            right += 1;
            points.push(right as f64 / (n + 1) as f64);
        }
    }
    // At each object found, the best precision from there on.
    let (mut area, mut best) = (0.0, 0f64);
    for precision in points.into_iter().rev() {
        best = best.max(precision);
        area += best;
    }
    (area / objects as f64, objects)
}

#[test]
fn the_detector_finds_what_its_card_promises() {
    let looked = looked_at();
    let labels = ["person", "car", "dog", "cat", "bird", "parcel"];
    let all = labels.map(|l| (l, average_precision(&looked, l)));
    println!("{} frames: {all:?}", looked.len());
    let mean = all.iter().map(|(_, (ap, _))| ap).sum::<f64>() / all.len() as f64;
    println!("AP50 {mean:.4}");
    assert!(all.iter().all(|(_, (_, n))| *n > 60), "{all:?}");
    assert!(mean >= 0.95, "{mean}: {all:?}");
}
