//! Known images through int8 models, here and on the board: the outputs are the same numbers. Detectors end in floats: theirs are the
//! golden outputs.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::board::Board;
use crate::common::{self, sorted};

/// Models with their pictures, and what this machine makes of them.
pub struct Known {
    cases: Vec<Case>,
    /// Of those that ship.
    detectors: Vec<PathBuf>,
}

struct Case {
    model: PathBuf,
    pictures: Vec<PathBuf>,
    outputs: Vec<Value>,
}

impl Known {
    pub fn on_this_machine() -> Self {
        let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
        let bundles = sorted(&models)
            .into_iter()
            .filter(|p| p.join("model.toml").exists());
        let detects = |bundle: &PathBuf| {
            let manifest = std::fs::read_to_string(bundle.join("model.toml")).unwrap();
            manifest.contains("\n[detect]\n")
        };
        let (detectors, classifiers): (Vec<_>, Vec<_>) = bundles.partition(detects);
        let mut wanted: Vec<(PathBuf, Vec<PathBuf>)> = classifiers
            .into_iter()
            .map(|bundle| {
                let picture = bundle.join("golden.png");
                (bundle, vec![picture])
            })
            .collect();
        match common::test_data() {
            Some(data) => {
                let photos = sorted(&data.join("images/imagenet"));
                for model in [
                    "resnet20-cifar10-int8-qdq-u8s8",
                    "resnet18-int8-qdq-s8s8",
                    "resnet18-int8-qop-u8s8",
                    "resnet50-int8-qdq-u8s8",
                ] {
                    let model = data.join("models").join(model).with_extension("onnx");
                    wanted.push((model, photos[..2].to_vec()));
                }
            }
            None => {
                common::skip("no test data for the board: only the models that ship are compared")
            }
        }
        let cases = wanted
            .into_iter()
            .map(|(model, pictures)| {
                let output = common::ocellus()
                    .args(["classify", "--json", "--raw", "--model"])
                    .arg(&model)
                    .args(&pictures)
                    .output()
                    .unwrap();
                let said = String::from_utf8(output.stdout).unwrap();
                assert!(output.status.success(), "{}: {said}", model.display());
                let outputs = outputs(&said);
                Case {
                    model,
                    pictures,
                    outputs,
                }
            })
            .collect();
        Self { cases, detectors }
    }

    /// What the board needs that the package does not bring.
    pub fn files(&self) -> Vec<&Path> {
        let mut files: Vec<&Path> = Vec::new();
        for case in &self.cases {
            if case.model.is_file() {
                files.push(&case.model);
                files.extend(case.pictures.iter().map(|p| &**p));
            }
        }
        files.sort();
        files.dedup();
        files
    }

    pub fn compare(&self, board: &mut Board) {
        // It would share the processor.
        board.sh("systemctl stop ocellus");
        for case in &self.cases {
            let name = |p: &Path| p.file_name().unwrap().to_str().unwrap().to_string();
            let model = name(&case.model);
            let ships = case.model.is_dir();
            let pictures: Vec<String> = case
                .pictures
                .iter()
                .map(|p| match ships {
                    true => format!("/usr/share/ocellus/models/{model}/{}", name(p)),
                    false => name(p),
                })
                .collect();
            let said = board.sh(&format!(
                "ocellus --log warn classify --json --raw --model {model} {}",
                pictures.join(" ")
            ));
            let here = &case.outputs;
            let there = outputs(&said);
            assert_eq!(there.len(), here.len(), "{said}");
            for ((here, there), picture) in here.iter().zip(&there).zip(&pictures) {
                assert!(
                    here == there,
                    "{model} on {picture}: {}",
                    difference(here, there)
                );
            }
            board.done(&format!(
                "{model}: the same outputs of {} as here",
                case.pictures.len()
            ));
        }
        for detector in &self.detectors {
            let model = detector.file_name().unwrap().to_str().unwrap();
            let said = board.sh(&format!("ocellus --log warn model verify {model}"));
            assert!(said.contains("golden output reproduced"), "{said}");
            board.done(&format!("{model}: its golden output"));
        }
    }
}

/// Of each picture.
fn outputs(json_lines: &str) -> Vec<Value> {
    json_lines
        .lines()
        .filter(|l| l.starts_with('{'))
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["outputs"].take())
        .collect()
}

fn difference(here: &Value, there: &Value) -> String {
    let flat = |v: &Value| -> Vec<f64> {
        v.as_object()
            .unwrap()
            .values()
            .flat_map(|v| v.as_array().unwrap().iter().map(|n| n.as_f64().unwrap()))
            .collect()
    };
    let (a, b) = (flat(here), flat(there));
    let worst = a
        .iter()
        .zip(&b)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f64::max);
    let differ = a.iter().zip(&b).filter(|(a, b)| a != b).count();
    format!(
        "{differ} of {} elements differ, by at most {worst}",
        a.len()
    )
}
