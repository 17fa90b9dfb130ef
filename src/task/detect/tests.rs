use proptest::prelude::*;

use super::*;
use crate::frame::{Frame, FrameMeta, FramePool, Geometry, PixelFormat};
use crate::model::OutputTensor;
use crate::preprocess::{InputSpec, InputTensor, InputType, Layout, Preprocessor, ResizePolicy};

/// Where a frame lies in a family's input, as the preprocessor says.
fn mapping(family: Family, input: (u32, u32), frame: (u32, u32)) -> InputMapping {
    let usual = family.input();
    let spec = InputSpec {
        width: input.0,
        height: input.1,
        layout: Layout::Nchw,
        colour: usual.colour,
        dtype: InputType::F32,
        resize: usual.resize,
        normalize: usual.normalize,
    };
    let mut data = FramePool::new(0).take();
    data.resize((frame.0 * frame.1) as usize, 0);
    let frame = Frame {
        format: PixelFormat::Grey,
        geometry: Geometry::packed(frame.0, frame.1, PixelFormat::Grey),
        data,
        meta: FrameMeta::of_still("frame"),
        mask: None,
    };
    let mut tensor = InputTensor::for_spec(&spec);
    let prepared = Preprocessor::new(spec).run(&frame, &mut tensor).unwrap();
    prepared.mapping
}

fn outputs(values: Vec<Vec<f32>>) -> Outputs {
    let tensor = |(i, values): (usize, Vec<f32>)| OutputTensor {
        name: i.to_string(),
        values,
    };
    Outputs::new(values.into_iter().enumerate().map(tensor).collect())
}

fn detect(detector: Detector, settings: DetectSettings) -> Detect {
    Detect {
        detector,
        labels: Labels::default(),
        suppression: settings.nms,
        limits: settings.limits(None),
        threshold: settings.limits(None).threshold,
        only: vec![],
        candidates: Candidates::default(),
        nms: Nms::default(),
    }
}

fn detections(task: &mut Detect, outputs: &Outputs, mapping: &InputMapping) -> Vec<Detection> {
    match task.decode(outputs, mapping).unwrap() {
        TaskResult::Detections(found) => found,
        other => panic!("{other:?}"),
    }
}

fn detector(family: Family, shapes: &[&[usize]], input: (usize, usize)) -> Detector {
    let output = |s: &&[usize]| HeadOutput {
        shape: s.to_vec(),
        probabilities: false,
        decoded: false,
    };
    let outputs: Vec<_> = shapes.iter().map(output).collect();
    Detector::new(family, &outputs, input, None, None).unwrap()
}

/// YOLOX's outputs for one box of the input, in the cell that its centre lies in.
fn yolox_outputs(corners: [f32; 4], input: (usize, usize), stride: usize) -> Vec<f32> {
    let cells: Vec<_> = [8, 16, 32]
        .into_iter()
        .flat_map(|s| {
            let (w, h) = (input.0 / s, input.1 / s);
            (0..w * h).map(move |i| (s, i % w, i / w))
        })
        .collect();
    let [x0, y0, x1, y1] = corners;
    let s = stride as f32;
    let (cx, cy) = ((x0 + x1) / 2.0 / s, (y0 + y1) / 2.0 / s);
    let column = (cx as usize).min(input.0 / stride - 1);
    let row = (cy as usize).min(input.1 / stride - 1);
    let mut values = vec![0.0; cells.len() * 7];
    let at = cells
        .iter()
        .position(|c| *c == (stride, column, row))
        .unwrap();
    values[at * 7..][..7].copy_from_slice(&[
        cx - column as f32,
        cy - row as f32,
        ((x1 - x0) / s).ln(),
        ((y1 - y0) / s).ln(),
        0.9,
        0.1,
        0.8,
    ]);
    values
}

proptest! {
    /// A box drawn into the frame, laid into the input as the frame is, comes back where it was: odd sizes and strange shapes too.
    #[test]
    fn a_box_comes_back_where_it_was_in_the_frame(
        fw in 16u32..3000, fh in 16u32..3000, iw in 2usize..20, ih in 2usize..20, centred: bool,
        x in 0f32..0.8, y in 0f32..0.8, w in 0.05f32..0.2, h in 0.05f32..0.2, level in 0usize..3,
    ) {
        // A strip is a large frame all the same.
        prop_assume!(fw * fh < 4_000_000);
        let input = (iw * 32, ih * 32);
        let m = {
            let family = if centred { Family::Yolov8 } else { Family::Yolox };
            mapping(family, (input.0 as u32, input.1 as u32), (fw, fh))
        };
        let (x0, y0) = m.to_input(x * fw as f32, y * fh as f32);
        let (x1, y1) = m.to_input((x + w) * fw as f32, (y + h) * fh as f32);
        let values = yolox_outputs([x0, y0, x1, y1], input, [8, 16, 32][level]);
        let d = detector(Family::Yolox, &[&[1, values.len() / 7, 7]], input);
        let found = detections(&mut detect(d, DetectSettings::default()), &outputs(vec![values]), &m);
        prop_assert_eq!(found.len(), 1);
        prop_assert_eq!((found[0].index, found[0].score), (1, 0.9f32 * 0.8));
        let original = BBox { x0: x, y0: y, x1: x + w, y1: y + h };
        prop_assert!(found[0].bbox.iou(&original) > 0.99, "{:?} {original:?}", found[0].bbox);
        // A tenth of a pixel of the input, and of the frame.
        for (a, b, side, scale) in [
            (found[0].bbox.x0, x, fw, m.scale.0), (found[0].bbox.x1, x + w, fw, m.scale.0),
            (found[0].bbox.y0, y, fh, m.scale.1), (found[0].bbox.y1, y + h, fh, m.scale.1),
        ] {
            prop_assert!((a - b).abs() * side as f32 * scale.min(1.0) < 0.1, "{a} {b}");
        }
    }

    /// Whatever a network gives: boxes lie in the frame and have an area, the best first, not more than asked for.
    #[test]
    fn any_outputs_give_boxes_in_the_frame(
        values in prop::collection::vec(prop_oneof![-2f32..2.0, Just(f32::NAN), Just(f32::INFINITY), -1e30f32..1e30], 84 * 7),
        fw in 1u32..500, fh in 1u32..500,
    ) {
        let m = mapping(Family::Yolox, (64, 64), (fw, fh));
        let d = detector(Family::Yolox, &[&[1, 84, 7]], (64, 64));
        let settings = DetectSettings { threshold: Some(0.0), max: Some(7), ..Default::default() };
        let found = detections(&mut detect(d, settings), &outputs(vec![values]), &m);
        prop_assert!(found.len() <= 7);
        prop_assert!(found.windows(2).all(|w| w[0].score >= w[1].score));
        for f in &found {
            let b = f.bbox;
            prop_assert!(0.0 <= b.x0 && b.x0 < b.x1 && b.x1 <= 1.0, "{b:?}");
            prop_assert!(0.0 <= b.y0 && b.y0 < b.y1 && b.y1 <= 1.0, "{b:?}");
            prop_assert!(f.score > 0.0 && f.score <= 1.0);
        }
    }
}

#[test]
fn boxes_beyond_the_frame_are_cut_or_left_out() {
    // 640x320 lies in the upper half of 64x64.
    let m = mapping(Family::Yolox, (64, 64), (640, 320));
    let cut = BBox::from_input([-8.0, 16.0, 32.0, 48.0], &m).unwrap();
    assert_eq!(cut.corners(), [0.0, 0.5, 0.5, 1.0]);
    assert_eq!(BBox::from_input([0.0, 40.0, 64.0, 64.0], &m), None);
    assert!(matches!(
        Family::Yolox.input().resize,
        ResizePolicy::Letterbox { centre: false, .. }
    ));
}

#[test]
fn a_threshold_can_change_and_labels_can_be_chosen() {
    let m = mapping(Family::Yolov10, (64, 64), (64, 64));
    let rows = [
        [0.0, 0.0, 10.0, 10.0, 0.9, 0.0],
        // Not suppressed: the network has done so.
        [0.0, 0.0, 10.0, 10.0, 0.6, 0.0],
        [20.0, 0.0, 30.0, 10.0, 0.4, 1.0],
        [0.0, 0.0, 0.0, 0.0, 0.0, -1.0],
    ];
    let outputs = outputs(vec![rows.concat()]);
    let d = detector(Family::Yolov10, &[&[1, 4, 6]], (64, 64));
    let mut task = detect(d, DetectSettings::default());
    assert_eq!(detections(&mut task, &outputs, &m).len(), 2);
    task.set_threshold(Some(0.3));
    let found = detections(&mut task, &outputs, &m);
    assert_eq!(found.len(), 3);
    let classes: Vec<_> = strongest(&found)
        .iter()
        .map(|c| (c.index, c.score))
        .collect();
    assert_eq!(classes, [(0, 0.9), (1, 0.4)]);
    task.only = vec![false, true];
    assert_eq!(detections(&mut task, &outputs, &m)[0].index, 1);
    task.set_threshold(None);
    assert_eq!(detections(&mut task, &outputs, &m), []);
}
