//! Any text as a manifest and as labels, any bytes as the golden image, beside the smallest network.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ocellus::model::{LoadOptions, Model};

/// `Relu` of a 1x3x8x8 picture: the parts that are fuzzed are the others.
const RELU: &[u8] = include_bytes!("../seeds/relu.onnx");

fuzz_target!(
    // A panic in tract that is caught and told as an error is one of the two; what is not caught still ends the run.
    init: std::panic::set_hook(Box::new(|_| {})),
    |parts: (&[u8], &[u8], &[u8])| {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let write = |name: &str, content: &[u8]| {
            std::fs::write(directory.path().join(name), content).expect("a temporary file");
        };
        write("model.onnx", RELU);
        write("model.toml", parts.0);
        write("labels.txt", parts.1);
        write("golden.png", parts.2);
        if let Ok(model) = Model::load(directory.path(), &LoadOptions::default()) {
            let _ = model.self_test();
        }
    }
);
