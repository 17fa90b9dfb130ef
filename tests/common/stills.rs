//! Photographs through a model, and what it was fed, so that another program can be fed the same.

use std::path::{Path, PathBuf};
use std::process::Command;

use ocellus::frame::{FrameMeta, FramePool};
use ocellus::model::{LoadOptions, Model};
use ocellus::preprocess::{InputData, InputTensor, Preprocessor, frame_from_image_bytes};
use ocellus::task::{self, TaskKind, TaskResult, TaskSettings};

use super::sorted;

/// One of the tests' Python programs.
pub fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/python")
        .join(name)
}

/// Detectors with random weights, in the forms in which the families are exported.
pub fn made_detectors(python: &Path) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let made = Command::new(python)
        .arg(script("detector_models.py"))
        .arg(dir.path())
        .status();
    assert!(made.unwrap().success());
    dir
}

/// COCO's, of the test data.
pub fn photographs(data: &Path) -> Vec<PathBuf> {
    let paths = sorted(&data.join("images/coco/images"));
    assert_eq!(paths.len(), 32);
    paths
}

/// What a model saw in each picture.
#[derive(Default)]
pub struct Looked {
    pub results: Vec<TaskResult>,
    pub frames: Vec<(u32, u32)>,
    /// What it was fed, one after the other.
    pub tensors: Vec<u8>,
}

/// By one task. Other engines are fed what the file says: floats, if it has no bytes.
pub fn look(
    path: &Path,
    kind: TaskKind,
    options: LoadOptions,
    settings: &TaskSettings,
    pictures: &[PathBuf],
) -> Looked {
    let options = LoadOptions {
        tasks: vec![kind],
        float_input: true,
        ..options
    };
    let model = Model::load(path, &options).unwrap_or_else(|e| panic!("{e}"));
    let mut task = task::build(kind, model.info(), settings).unwrap();
    let spec = model.info().input.clone();
    let mut input = InputTensor::for_spec(&spec);
    let mut preprocessor = Preprocessor::new(spec);
    let mut session = model.session().unwrap();
    let mut looked = Looked::default();
    for picture in pictures {
        let bytes = std::fs::read(picture).unwrap();
        let meta = FrameMeta::of_still("picture");
        let frame = frame_from_image_bytes(&bytes, meta, &FramePool::default()).unwrap();
        let prepared = preprocessor.run(&frame, &mut input).unwrap();
        match &input.data {
            InputData::F32(v) => looked
                .tensors
                .extend(v.iter().flat_map(|v| v.to_le_bytes())),
            InputData::U8(v) => looked.tensors.extend(v),
            InputData::I8(_) => panic!("bytes with a sign"),
        }
        looked.frames.push(prepared.frame_size);
        let outputs = session.run(&input).unwrap();
        let result = task.decode(outputs, &prepared.mapping).unwrap();
        looked.results.push(result);
    }
    looked
}
