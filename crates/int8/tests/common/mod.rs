//! Shared by the tests: where data and Python are, and cases that onnxruntime has computed.
#![allow(dead_code)]

use std::path::{Path, PathBuf};
use std::process::Command;

use ocellus_int8::{Options, Report, load};
use tract_onnx::prelude::*;

/// Says loudly that a test did not run; fails where that must not be.
pub fn skip(why: &str) {
    let strict = std::env::var("OCELLUS_TEST_STRICT").is_ok_and(|v| v == "1");
    assert!(!strict, "{why}");
    eprintln!("SKIPPED: {why}");
}

/// The directory of real models.
pub fn models() -> Option<PathBuf> {
    let data = std::env::var_os("OCELLUS_TEST_DATA").map(PathBuf::from);
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    let models = data.unwrap_or_else(default).join("models");
    if !models.is_dir() {
        skip(&format!(
            "no models in {}; set OCELLUS_TEST_DATA",
            models.display()
        ));
        return None;
    }
    Some(models)
}

/// Runs a script of `tests/python` with onnxruntime; `None` if there is no such Python here.
pub fn python(script: &str, args: &[&Path]) -> Option<()> {
    let python = std::env::var("OCELLUS_PYTHON").unwrap_or_else(|_| "python3".into());
    let has = Command::new(&python)
        .args(["-c", "import numpy, onnx, onnxruntime"])
        .output();
    if !has.is_ok_and(|o| o.status.success()) {
        skip(&format!(
            "{python} has no numpy, onnx, onnxruntime; set OCELLUS_PYTHON"
        ));
        return None;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/python")
        .join(script);
    let status = Command::new(python)
        .arg(script)
        .args(args)
        .status()
        .unwrap();
    assert!(status.success());
    Some(())
}

/// How a case's outputs differ from onnxruntime's.
#[derive(Debug, Default)]
pub struct Difference {
    pub elements: usize,
    pub unequal: usize,
    pub largest: f32,
}

/// Runs `NAME.onnx` of a directory on `NAME.in`, and compares with `NAME.out`: raw tensors in the order of the graph.
/// Floats are counted in steps of `NAME.step`, a number as text.
pub fn run_case(model: &Path, options: &Options) -> (Difference, Report) {
    let name = model.file_stem().unwrap().to_string_lossy().into_owned();
    let read = |extension: &str| std::fs::read(model.with_extension(extension)).unwrap();
    let loaded =
        load(&std::fs::read(model).unwrap(), options).unwrap_or_else(|e| panic!("{name}: {e}"));
    let (given, expected) = (read("in"), read("out"));
    let step: f32 = String::from_utf8(read("step"))
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    let mut rest = given.as_slice();
    let mut inputs = tvec!();
    for i in 0..loaded.model.input_outlets().unwrap().len() {
        let fact = loaded.model.input_fact(i).unwrap();
        let shape = fact.shape.as_concrete().unwrap().to_vec();
        let len: usize = shape.iter().product();
        let (own, others) = rest.split_at(len * fact.datum_type.size_of());
        rest = others;
        // SAFETY: every bit pattern is a value of the types here, and the bytes are as many as the shape needs.
        let tensor = unsafe { Tensor::from_raw_dt(fact.datum_type, &shape, own) }.unwrap();
        inputs.push(tensor.into());
    }
    assert!(rest.is_empty(), "{name}: inputs of another size");
    let results = loaded
        .model
        .into_runnable()
        .unwrap()
        .run(inputs)
        .unwrap_or_else(|e| panic!("{name}: {e:#}"));
    let mut difference = Difference::default();
    let mut rest = expected.as_slice();
    for result in results.iter() {
        let size = result.datum_type().size_of();
        let (own, others) = rest.split_at(result.len() * size);
        rest = others;
        let theirs =
            // SAFETY: as above.
            unsafe { Tensor::from_raw_dt(result.datum_type(), result.shape(), own) }.unwrap();
        let is_float = result.datum_type() == f32::datum_type();
        let scale = if is_float { step } else { 1.0 };
        for (a, b) in floats(result).iter().zip(floats(&theirs)) {
            let d = (a - b).abs() / scale;
            difference.elements += 1;
            difference.unequal += usize::from(d > 0.01);
            difference.largest = difference.largest.max(d);
        }
    }
    assert!(rest.is_empty(), "{name}: outputs of another size");
    (difference, loaded.report)
}

/// A tensor's values, whatever their type.
pub fn floats(t: &Tensor) -> Vec<f32> {
    let t = t.cast_to::<f32>().unwrap();
    let view = t.to_plain_array_view::<f32>().unwrap();
    view.iter().copied().collect()
}

/// All cases of a directory, in order.
pub fn cases(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    let mut cases: Vec<PathBuf> = entries
        .filter(|p| p.extension().is_some_and(|e| e == "onnx"))
        .collect();
    cases.sort();
    cases
}
