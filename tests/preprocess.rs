//! From pixels to the tensor, beside Pillow: what the network says of real photographs, every form of JPEG, every raw
//! format; and bytes that are no picture.

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::{cosine, python, skip, sorted, test_data};
use ocellus::frame::{Frame, FrameMeta, FramePool, Geometry, PixelFormat};
use ocellus::model::{LoadOptions, Model};
use ocellus::preprocess::{
    InputData, InputSpec, InputTensor, Preprocessor, frame_from_image_bytes,
};
use proptest::prelude::*;

/// Runs `pillow_pixels.py`; the test data and whether it could run.
fn pillow(command: &str, source: &Path, target: &Path) -> bool {
    let Some(python) = python() else {
        skip("needs OCELLUS_PYTHON with numpy, Pillow, OpenCV and onnxruntime");
        return false;
    };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/pillow_pixels.py");
    let status = Command::new(python)
        .arg(script)
        .arg(command)
        .args([source, target])
        .status()
        .unwrap();
    assert!(status.success());
    true
}

fn data() -> Option<PathBuf> {
    let data = test_data();
    if data.is_none() {
        skip("needs the test data");
    }
    data
}

fn still(bytes: &[u8]) -> Frame {
    frame_from_image_bytes(bytes, FrameMeta::of_still("still"), &FramePool::default()).unwrap()
}

/// The whole frame as 96×96 raw RGB pixels.
fn pixels() -> InputSpec {
    InputSpec::rgb(96, 96)
}

fn best(values: &[f32]) -> usize {
    (0..values.len())
        .max_by(|a, b| values[*a].total_cmp(&values[*b]))
        .unwrap()
}

/// The same network on our tensor and on Pillow's.
#[test]
fn a_network_says_the_same_of_our_pixels_as_of_pillows() {
    let Some(data) = data() else { return };
    let images = data.join("images/imagenet");
    let dir = tempfile::tempdir().unwrap();
    let reference = dir.path().join("tensors");
    if !pillow("tensors", &images, &reference) {
        return;
    }
    let reference = std::fs::read(reference).unwrap();
    let references = reference.chunks_exact(4 * 3 * 224 * 224);
    let paths = sorted(&images);
    assert_eq!(references.len(), paths.len());

    let model = Model::load(&data.join("models/resnet18.onnx"), &LoadOptions::default()).unwrap();
    let mut session = model.session().unwrap();
    let mut preprocessor = Preprocessor::new(model.info().input.clone());
    let mut input = InputTensor::for_spec(&model.info().input);
    let (mut same, mut cosines) = (0, 0.0);
    for (path, reference) in paths.iter().zip(references) {
        preprocessor
            .run(&still(&std::fs::read(path).unwrap()), &mut input)
            .unwrap();
        let ours = session.run(&input).unwrap().get(0).values.clone();
        let floats = reference.as_chunks::<4>().0;
        input.data = InputData::F32(floats.iter().map(|b| f32::from_le_bytes(*b)).collect());
        let theirs = &session.run(&input).unwrap().get(0).values;
        same += usize::from(best(&ours) == best(theirs));
        cosines += cosine(&ours, theirs);
    }
    let mean_cosine = cosines / paths.len() as f64;
    println!(
        "same top-1 on {same} of {}, mean cosine {mean_cosine:.6}",
        paths.len()
    );
    assert!(same >= 99, "same top-1 on {same} only");
    assert!(mean_cosine >= 0.999, "mean cosine {mean_cosine}");
}

/// Every form of JPEG, at every reduced scale, and every raw format.
#[test]
fn every_form_of_picture_is_read_as_pillow_reads_it() {
    let Some(data) = data() else { return };
    let dir = tempfile::tempdir().unwrap();
    let image = sorted(&data.join("images/imagenet")).swap_remove(7);
    if !pillow("variants", &image, dir.path()) {
        return;
    }
    let mut seen = 0;
    for path in sorted(dir.path()) {
        let name = path.file_name().unwrap().to_str().unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let frame = match name.rsplit_once('.') {
            Some((_, "jpg")) => still(&bytes),
            Some((format, "raw")) => {
                let format: PixelFormat = format.parse().unwrap();
                let mut data = FramePool::default().take();
                data.extend_from_slice(&bytes);
                Frame {
                    format,
                    geometry: Geometry::packed(640, 480, format),
                    data,
                    meta: FrameMeta::of_still("raw"),
                    mask: None,
                }
            }
            _ => continue,
        };
        let expected = std::fs::read(format!("{}.rgb", path.display())).unwrap();
        // One preprocessor a picture: the plan depends on the source.
        let mut tensor = InputTensor::for_spec(&pixels());
        Preprocessor::new(pixels())
            .run(&frame, &mut tensor)
            .unwrap();
        let InputData::U8(ours) = &tensor.data else {
            panic!("bytes were asked for")
        };
        let differences = ours.iter().zip(&expected).map(|(a, b)| a.abs_diff(*b));
        let mean = differences.clone().map(f64::from).sum::<f64>() / ours.len() as f64;
        let most = differences.max().unwrap();
        println!("{name}: mean difference {mean:.2}, largest {most}");
        // A wrong order of channels, range, plane or offset costs tens of levels; a JPEG decoded at an eighth of its
        // size, and so filtered by the DCT instead of Pillow's triangle, two.
        assert!(
            mean < 2.5 && most < 60,
            "{name}: mean difference {mean:.2}, largest {most}"
        );
        seen += 1;
    }
    assert_eq!(seen, 5 * 7 + 7);
}

/// What one frame leaves behind must not show in the next one.
#[test]
fn a_preprocessor_forgets_the_frame_before() {
    let Some(data) = data() else { return };
    let paths = sorted(&data.join("images/imagenet"));
    let frames: Vec<Frame> = paths[..6]
        .iter()
        .map(|p| still(&std::fs::read(p).unwrap()))
        .collect();
    let mut shared = Preprocessor::new(pixels());
    let mut again = InputTensor::for_spec(&pixels());
    for frame in frames.iter().chain(frames.iter().rev()) {
        let mut alone = InputTensor::for_spec(&pixels());
        Preprocessor::new(pixels()).run(frame, &mut alone).unwrap();
        shared.run(frame, &mut again).unwrap();
        assert!(alone == again);
    }
}

/// The smallest of the photographs.
fn some_jpeg() -> Option<Vec<u8>> {
    let data = test_data()?;
    let bytes = sorted(&data.join("images/imagenet"))
        .iter()
        .map(|p| std::fs::read(p).unwrap())
        .min_by_key(Vec::len)?;
    Some(bytes)
}

/// Bytes changed, cut out and doubled.
fn damage() -> impl Strategy<Value = Vec<(prop::sample::Index, u8, u8)>> {
    prop::collection::vec((any::<prop::sample::Index>(), 0u8..4, any::<u8>()), 1..12)
}

fn damaged(bytes: &[u8], damage: &[(prop::sample::Index, u8, u8)]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for (at, kind, value) in damage {
        if bytes.is_empty() {
            break;
        }
        // Half of the damage goes into the header, where the sizes and tables are.
        let reach = if value % 2 == 0 {
            bytes.len()
        } else {
            bytes.len().min(700)
        };
        let at = at.index(reach);
        match kind {
            0 => bytes[at] = *value,
            1 => bytes.truncate(at),
            2 => drop(bytes.drain(at..(at + usize::from(*value)).min(bytes.len()))),
            _ => bytes.insert(at, *value),
        }
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// An error or a picture, never a panic, and never a frame that poisons the next.
    #[test]
    fn damaged_jpegs_are_errors_or_pictures(damage in damage()) {
        let Some(whole) = some_jpeg() else {
            skip("needs the test data");
            return Ok(());
        };
        let bytes = damaged(&whole, &damage);
        let mut data = FramePool::default().take();
        data.extend_from_slice(&bytes);
        let frame = Frame {
            format: PixelFormat::Mjpeg,
            geometry: Geometry::packed(500, 375, PixelFormat::Mjpeg),
            data,
            meta: FrameMeta::of_still("damaged"),
            mask: None,
        };
        let mut preprocessor = Preprocessor::new(pixels());
        let mut tensor = InputTensor::for_spec(&pixels());
        let _ = preprocessor.run(&frame, &mut tensor);
        preprocessor.run(&still(&whole), &mut tensor).unwrap();
        let mut alone = InputTensor::for_spec(&pixels());
        Preprocessor::new(pixels()).run(&still(&whole), &mut alone).unwrap();
        prop_assert!(tensor == alone);
    }

    /// Raw frames of any stated size, with any number of bytes.
    #[test]
    fn raw_frames_of_any_geometry_are_errors_or_pictures(
        format in prop::sample::select(PixelFormat::ALL.to_vec()),
        width in 0u32..70,
        height in 0u32..70,
        padding in 0u32..9,
        bytes in 0usize..16_000,
    ) {
        let mut data = FramePool::default().take();
        data.resize(bytes, 77);
        let mut geometry = Geometry::packed(width, height, format);
        geometry.stride_bytes += padding;
        let frame = Frame { format, geometry, data, meta: FrameMeta::of_still("raw"), mask: None };
        let mut tensor = InputTensor::for_spec(&pixels());
        let _ = Preprocessor::new(pixels()).run(&frame, &mut tensor);
    }
}
