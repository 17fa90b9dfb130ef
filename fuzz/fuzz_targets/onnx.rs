//! Any bytes as an ONNX file: an error, or a model that runs once.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ocellus::model::{LoadOptions, Model};
use ocellus::preprocess::InputTensor;

fuzz_target!(
    // A panic in tract that is caught and told as an error is one of the two; what is not caught still ends the run.
    init: std::panic::set_hook(Box::new(|_| {})),
    |bytes: &[u8]| {
        let file = tempfile::Builder::new().suffix(".onnx").tempfile().expect("a temporary file");
        std::fs::write(file.path(), bytes).expect("a temporary file");
        if let Ok(model) = Model::load(file.path(), &LoadOptions::default()) {
            let input = InputTensor::for_spec(&model.info().input);
            if let Ok(mut session) = model.session() {
                let _ = session.run(&input);
            }
        }
    }
);
