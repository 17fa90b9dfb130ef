//! From pixels to the tensor, beside Pillow: what the network says of real photographs, every form of JPEG, every raw
//! format; and bytes that are no picture.

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::{cosine, python, skip, sorted, test_data};
use ocellus::frame::{Frame, FrameMeta, FramePool, Geometry, PixelFormat};
use ocellus::model::{LoadOptions, Model};
use ocellus::preprocess::{
    ColourOrder, InputData, InputSpec, InputTensor, PreprocessError, Preprocessor, Region,
    ResizePolicy, frame_from_image_bytes,
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

/// A raw frame of noise; the bytes that pad its rows are noise, too.
fn noisy(format: PixelFormat, (width, height): (u32, u32), padding: u32, seed: u64) -> Frame {
    let mut geometry = Geometry::packed(width, height, format);
    geometry.stride_bytes += padding;
    let bytes = format.frame_bytes(height, geometry.stride_bytes).unwrap();
    let mut state = seed | 1;
    let noise = std::iter::repeat_with(|| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 56) as u8
    });
    let mut data = FramePool::default().take();
    data.extend(noise.take(bytes));
    Frame {
        format,
        geometry,
        data,
        meta: FrameMeta::of_still("noise"),
        mask: None,
    }
}

/// Rows `rows` of a plane, of each the bytes `columns`.
fn part(
    plane: &[u8],
    stride: usize,
    rows: std::ops::Range<usize>,
    columns: std::ops::Range<usize>,
) -> Vec<u8> {
    let row = |y: usize| plane[y * stride..][columns.clone()].iter().copied();
    rows.flat_map(row).collect()
}

/// The frame cut to a region that begins at an even pixel, as bytes of its own.
fn cut(frame: &Frame, r: Region) -> Frame {
    let stride = frame.geometry.stride_bytes as usize;
    let height = frame.geometry.height as usize;
    let [x, y, w, h] = [r.x, r.y, r.width, r.height].map(|v| v as usize);
    let (rows, half_rows) = (y..y + h, y / 2..y / 2 + h.div_ceil(2));
    let luma = &frame.data[..height * stride];
    let chroma = &frame.data[height * stride..];
    let (cx, cw) = (x / 2, w.div_ceil(2));
    let mut data = FramePool::default().take();
    match frame.format {
        PixelFormat::Yuyv | PixelFormat::Uyvy => {
            data.extend(part(luma, stride, rows, 4 * cx..4 * (cx + cw)))
        }
        PixelFormat::Rgb24 | PixelFormat::Bgr24 => {
            data.extend(part(luma, stride, rows, 3 * x..3 * (x + w)))
        }
        PixelFormat::Grey => data.extend(part(luma, stride, rows, x..x + w)),
        PixelFormat::Nv12 => {
            data.extend(part(luma, stride, rows, x..x + w));
            let (stride, columns) = (stride.next_multiple_of(2), 2 * cx..2 * (cx + cw));
            data.extend(part(chroma, stride, half_rows, columns));
        }
        PixelFormat::Yu12 => {
            data.extend(part(luma, stride, rows, x..x + w));
            let stride = stride.div_ceil(2);
            let (u, v) = chroma.split_at(stride * height.div_ceil(2));
            data.extend(part(u, stride, half_rows.clone(), cx..cx + cw));
            data.extend(part(v, stride, half_rows, cx..cx + cw));
        }
        PixelFormat::Mjpeg => panic!("no raw format"),
    }
    Frame {
        format: frame.format,
        geometry: Geometry::packed(r.width, r.height, frame.format),
        data,
        meta: FrameMeta::of_still("cut"),
        mask: None,
    }
}

fn specs() -> [InputSpec; 4] {
    let spec = |w, h, colour, resize| InputSpec {
        colour,
        resize,
        ..InputSpec::rgb(w, h)
    };
    let letterbox = |centre| ResizePolicy::Letterbox { fill: 114, centre };
    [
        spec(23, 37, ColourOrder::Bgr, ResizePolicy::Stretch),
        spec(48, 32, ColourOrder::Rgb, letterbox(true)),
        spec(9, 64, ColourOrder::Grey, letterbox(false)),
        spec(
            40,
            40,
            ColourOrder::Rgb,
            ResizePolicy::ShortSideCrop { short_side: 44 },
        ),
    ]
}

fn tensor(preprocessor: &mut Preprocessor, frame: &Frame, region: Option<Region>) -> InputTensor {
    let mut out = InputTensor::for_spec(preprocessor.spec());
    match region {
        Some(region) => preprocessor.run_region(frame, region, &mut out).unwrap(),
        None => preprocessor.run(frame, &mut out).unwrap(),
    };
    out
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// To the last bit, from an even pixel on; one preprocessor for one region after the other.
    #[test]
    fn a_region_is_as_a_frame_that_was_cut_to_it(
        format in prop::sample::select(vec![
            PixelFormat::Yuyv, PixelFormat::Uyvy, PixelFormat::Nv12, PixelFormat::Yu12,
            PixelFormat::Rgb24, PixelFormat::Bgr24, PixelFormat::Grey,
        ]),
        size in (2u32..120, 2u32..120),
        padding in 0u32..4,
        seed: u64,
        regions in prop::collection::vec((0f64..1.0, 0f64..1.0, 0f64..1.0, 0f64..1.0), 1..4),
    ) {
        // YUYV rows are whole pairs; those of NV12 and YU12 are cut where their chroma is whole.
        let frame = noisy(format, size, 4 * padding, seed);
        for spec in specs() {
            let mut preprocessor = Preprocessor::new(spec.clone());
            for &(x, y, w, h) in &regions {
                let side = |at: f64, length: f64, of: u32| {
                    let first = (at * f64::from(of)) as u32 & !1;
                    let first = first.min((of - 1) & !1);
                    (first, 1 + (length * f64::from(of - first - 1)).round() as u32)
                };
                let ((x, width), (y, height)) = (side(x, w, size.0), side(y, h, size.1));
                let region = Region { x, y, width, height };
                let whole = tensor(&mut preprocessor, &frame, Some(region));
                let alone = tensor(&mut Preprocessor::new(spec.clone()), &cut(&frame, region), None);
                prop_assert!(whole == alone, "{} {:?} of {:?}", format, region, size);
            }
        }
    }

    /// As of the pixels themselves, wherever it begins, and less like the region beside it.
    #[test]
    fn a_region_of_a_jpeg_is_as_one_of_its_pixels(
        x in 2u32..200, y in 2u32..120, width in 66u32..120, height in 66u32..120,
    ) {
        let Some((jpeg, pixels)) = jpeg_and_its_pixels() else {
            skip("needs the test data");
            return Ok(());
        };
        // Decoded at its full size, and at half of it or a quarter.
        for (side, shift) in [(64, 1), (24, 2)] {
            let spec = InputSpec::rgb(side, side);
            let look = |frame, x, y| {
                let region = Region { x, y, width, height };
                match tensor(&mut Preprocessor::new(spec.clone()), frame, Some(region)).data {
                    InputData::U8(bytes) => bytes,
                    _ => panic!("bytes were asked for"),
                }
            };
            let ours = look(&jpeg, x, y);
            let difference = |x, y| {
                let there = look(&pixels, x, y);
                let all = ours.iter().zip(&there).map(|(a, b)| f64::from(a.abs_diff(*b)));
                all.sum::<f64>() / ours.len() as f64
            };
            let here = difference(x, y);
            let beside = [
                difference(x - shift, y), difference(x + shift, y), difference(x, y - shift), difference(x, y + shift),
            ];
            // Where the sky is blue, what lies beside is no different.
            let least = beside.into_iter().fold(f64::INFINITY, f64::min).max(2.0);
            prop_assert!(here < least, "{} {}: {} {:?}", x, y, here, beside);
        }
    }
}

/// A photograph full of detail, and what it is decoded to.
fn jpeg_and_its_pixels() -> Option<(Frame, Frame)> {
    let path = test_data()?.join("images/coco/images/000000000785.jpg");
    let jpeg = still(&std::fs::read(path).unwrap());
    let (w, h) = ocellus::preprocess::frame_size(&jpeg).unwrap();
    let mut preprocessor = Preprocessor::new(InputSpec::rgb(w, h));
    let InputData::U8(rgb) = tensor(&mut preprocessor, &jpeg, None).data else {
        panic!("bytes were asked for")
    };
    let mut data = FramePool::default().take();
    data.extend_from_slice(&rgb);
    let pixels = Frame {
        format: PixelFormat::Rgb24,
        geometry: Geometry::packed(w, h, PixelFormat::Rgb24),
        data,
        meta: FrameMeta::of_still("pixels"),
        mask: None,
    };
    Some((jpeg, pixels))
}

/// Blocks are coded by themselves: a region of whole blocks is bit for bit the JPEG of that part.
#[test]
fn a_region_of_a_jpegs_blocks_is_as_the_jpeg_of_that_part() {
    let Some(data) = data() else { return };
    let path = &sorted(&data.join("images/imagenet"))[11];
    let picture = image::open(path).unwrap().into_rgb8();
    let encode = |picture: &image::RgbImage| {
        let mut bytes = Vec::new();
        image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, 85)
            .encode_image(picture)
            .unwrap();
        still(&bytes)
    };
    let whole = encode(&picture);
    let mut seen = 0;
    for spec in specs() {
        let mut preprocessor = Preprocessor::new(spec.clone());
        for (x, y, width, height) in [(16, 32, 192, 160), (160, 0, 48, 256), (0, 96, 320, 16)] {
            if x + width > picture.width() || y + height > picture.height() {
                continue;
            }
            let part = image::imageops::crop_imm(&picture, x, y, width, height).to_image();
            let region = Region {
                x,
                y,
                width,
                height,
            };
            let ours = tensor(&mut preprocessor, &whole, Some(region));
            let alone = tensor(&mut Preprocessor::new(spec.clone()), &encode(&part), None);
            assert!(ours == alone, "{region:?}");
            seen += 1;
        }
    }
    assert!(seen >= 8, "{seen}");
}

#[test]
fn a_regions_mapping_leads_to_the_whole_frame() {
    let frame = noisy(PixelFormat::Rgb24, (200, 100), 0, 1);
    let region = Region {
        x: 50,
        y: 20,
        width: 100,
        height: 60,
    };
    for spec in specs() {
        let mut out = InputTensor::for_spec(&spec);
        let mut preprocessor = Preprocessor::new(spec.clone());
        let prepared = preprocessor.run_region(&frame, region, &mut out).unwrap();
        assert_eq!(prepared.frame_size, (200, 100));
        let mapping = prepared.mapping;
        assert_eq!(mapping.frame, (200, 100));
        let (x, y) = mapping.to_frame(spec.width as f32 / 2.0, spec.height as f32 / 2.0);
        if !matches!(spec.resize, ResizePolicy::Letterbox { centre: false, .. }) {
            // The region's middle, to a pixel of the input.
            let (dx, dy) = (1.0 / mapping.scale.0, 1.0 / mapping.scale.1);
            assert!((x - 100.0).abs() <= dx && (y - 50.0).abs() <= dy, "{x} {y}");
        }
    }
}

#[test]
fn a_region_that_is_not_in_the_frame_is_an_error() {
    let raw = noisy(PixelFormat::Nv12, (64, 48), 0, 1);
    let jpeg = || Some(still(&some_jpeg()?));
    for frame in [Some(raw), jpeg()].into_iter().flatten() {
        let (w, h) = ocellus::preprocess::frame_size(&frame).unwrap();
        for (x, y, width, height) in [
            (0, 0, w + 1, 1),
            (w, 0, 1, 1),
            (0, 0, 0, 5),
            (0, h - 1, 1, 2),
            (u32::MAX, 0, u32::MAX, 1),
        ] {
            let region = Region {
                x,
                y,
                width,
                height,
            };
            let mut out = InputTensor::for_spec(&pixels());
            let e = Preprocessor::new(pixels()).run_region(&frame, region, &mut out);
            let e = e.unwrap_err();
            assert!(matches!(e, PreprocessError::Region { .. }), "{e}");
            assert!(e.to_string().contains(&format!("{w}x{h}")), "{e}");
        }
    }
}
