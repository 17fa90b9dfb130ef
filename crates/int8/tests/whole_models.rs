//! Whole models on real pictures, beside onnxruntime on the same tensors: every number of the outputs where both compute on
//! integers, else the same best class but for ties, and outputs that point the same way.

mod common;

use common::{floats, models, python};
use ocellus_int8::{Options, load};
use tract_onnx::prelude::*;

/// For what onnxruntime does not compute on integers: it may round otherwise on another processor.
const COSINE: f64 = 0.9999;

/// How the outputs are onnxruntime's.
#[derive(Clone, Copy, PartialEq)]
enum Alike {
    /// Every number; all of the network runs on integers.
    Equal,
    /// A classifier, all on integers: the same best class but for ties, and scores that point the same way ([`COSINE`]).
    Classes,
    /// Numbers that point the same way.
    Numbers,
}

/// The network's outputs for `pictures` pictures are like onnxruntime's.
fn whole(model: &str, pictures: usize, alike: Alike) {
    let Some(models) = models() else { return };
    let dir = tempfile::tempdir().unwrap();
    let file = models.join(model).with_extension("onnx");
    let data = models.parent().unwrap();
    let Some(()) = python("whole_models.py", &[&file, data, dir.path()]) else {
        return;
    };
    let loaded = load(&std::fs::read(&file).unwrap(), &Options::default()).unwrap();
    if alike != Alike::Numbers {
        assert_eq!(loaded.report.integer_share(), 1.0, "{}", loaded.report);
    }
    let fact = loaded.model.input_fact(0).unwrap().clone();
    let shape = fact.shape.as_concrete().unwrap().to_vec();
    let size = shape.iter().product::<usize>() * fact.datum_type.size_of();
    let mut session = loaded.model.into_runnable().unwrap().spawn().unwrap();
    let given = std::fs::read(dir.path().join("in")).unwrap();
    let expected = std::fs::read(dir.path().join("out")).unwrap();
    assert_eq!(given.len(), pictures * size);
    let mut rest = expected.as_slice();
    let mut worst = f64::INFINITY;
    for (i, bytes) in given.chunks_exact(size).enumerate() {
        // SAFETY: every bit pattern is a value of the types here, and the bytes are as many as the shape needs.
        let input = unsafe { Tensor::from_raw_dt(fact.datum_type, &shape, bytes) }.unwrap();
        for ours in session.run(tvec!(input.into())).unwrap().iter() {
            let (own, others) = rest.split_at(ours.len() * ours.datum_type().size_of());
            rest = others;
            // SAFETY: as above.
            let theirs = unsafe { Tensor::from_raw_dt(ours.datum_type(), ours.shape(), own) };
            let (ours, theirs) = (floats(ours), floats(&theirs.unwrap()));
            let unequal = ours.iter().zip(&theirs).filter(|(a, b)| a != b).count();
            let likeness = cosine(&ours, &theirs);
            worst = worst.min(likeness);
            match alike {
                Alike::Equal => assert_eq!(unequal, 0, "{model}, picture {i}: {likeness}"),
                _ => assert!(likeness >= COSINE, "{model}, picture {i}: {likeness}"),
            }
            if alike == Alike::Classes {
                let best = (0..ours.len()).max_by(|&a, &b| ours[a].total_cmp(&ours[b]));
                let highest = theirs.iter().copied().fold(f32::MIN, f32::max);
                assert_eq!(theirs[best.unwrap()], highest, "{model}, picture {i}");
            }
        }
    }
    assert!(rest.is_empty(), "{model}: outputs of another size");
    println!("{model}: {pictures} pictures, the least alike {worst:.7}");
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        let products = a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b));
        products.sum()
    };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

#[test]
fn resnet18_u8_qdq() {
    whole("resnet18-int8-qdq-u8s8", 100, Alike::Equal);
}

#[test]
fn resnet18_s8_qdq() {
    whole("resnet18-int8-qdq-s8s8", 100, Alike::Classes);
}

#[test]
fn resnet18_qoperator() {
    whole("resnet18-int8-qop-u8s8", 100, Alike::Equal);
}

#[test]
fn resnet50_u8_qdq() {
    whole("resnet50-int8-qdq-u8s8", 100, Alike::Equal);
}

#[test]
fn resnet20_u8_qdq() {
    whole("resnet20-cifar10-int8-qdq-u8s8", 100, Alike::Equal);
}

#[test]
fn resnet20_s8_qdq() {
    whole("resnet20-cifar10-int8-qdq-s8s8", 100, Alike::Classes);
}

#[test]
fn resnet20_qoperator() {
    whole("resnet20-cifar10-int8-qop-u8s8", 100, Alike::Equal);
}

#[test]
fn resnet8_tflite() {
    whole("resnet8-mlperf-int8", 100, Alike::Equal);
}

#[test]
fn visual_wake_words_tflite() {
    whole("person-vww96-mlperf-int8", 100, Alike::Equal);
}

#[test]
fn yolox_nano() {
    whole("yolox-nano-int8-qdq-u8s8", 10, Alike::Numbers);
}

#[test]
fn deeplab_v3() {
    whole("deeplabv3-mnv2-dm05-int8", 10, Alike::Equal);
}
