//! Each operator of the real models, on the inputs that onnxruntime gave it there: within 1 of onnxruntime's integers,
//! and equal in 99.9 % of places. On the best instruction set, and on the scalar reference.

mod common;

use common::{Difference, cases, models, python, run_case};
use ocellus_int8::{Isa, Options};

fn layers(model: &str) {
    let Some(models) = models() else { return };
    let dir = tempfile::tempdir().unwrap();
    let file = models.join(model).with_extension("onnx");
    let Some(()) = python("model_cases.py", &[&file, dir.path()]) else {
        return;
    };
    let mut all = Difference::default();
    let mut problems = Vec::new();
    for case in cases(dir.path()) {
        let name = case.file_stem().unwrap().to_string_lossy().into_owned();
        let (difference, _) = run_case(&case, &Options::default());
        let (reference, _) = run_case(
            &case,
            &Options {
                isa: Some(Isa::Generic),
                ..Options::default()
            },
        );
        if difference.largest > 1.0 || reference.largest > 1.0 {
            problems.push(format!("{name}: {difference:?}, {reference:?}"));
        }
        all.elements += difference.elements;
        all.unequal += difference.unequal;
    }
    println!(
        "{model}: {} of {} elements differ, by 1",
        all.unequal, all.elements
    );
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    assert!(
        all.elements > 0 && all.unequal * 1000 <= all.elements,
        "{model}: {all:?}"
    );
}

#[test]
fn resnet18_u8_qdq() {
    layers("resnet18-int8-qdq-u8s8");
}

#[test]
fn resnet18_s8_qdq() {
    layers("resnet18-int8-qdq-s8s8");
}

#[test]
fn resnet18_qoperator() {
    layers("resnet18-int8-qop-u8s8");
}

#[test]
fn resnet20_u8_qdq() {
    layers("resnet20-cifar10-int8-qdq-u8s8");
}

#[test]
fn resnet20_s8_qdq() {
    layers("resnet20-cifar10-int8-qdq-s8s8");
}

#[test]
fn resnet20_qoperator() {
    layers("resnet20-cifar10-int8-qop-u8s8");
}

#[test]
fn resnet50_u8_qdq() {
    layers("resnet50-int8-qdq-u8s8");
}

#[test]
fn resnet8_tflite() {
    layers("resnet8-mlperf-int8");
}

#[test]
fn visual_wake_words_tflite() {
    layers("person-vww96-mlperf-int8");
}

#[test]
fn yolox_nano() {
    layers("yolox-nano-int8-qdq-u8s8");
}

#[test]
fn deeplab_v3() {
    layers("deeplabv3-mnv2-dm05-int8");
}
