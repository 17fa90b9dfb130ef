//! The `scene` camera: the same everywhere, true to its word, and a well-behaved source.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use ocellus::capture::scene::{CLASSES, Scene, SceneSource, VISIT_FRAMES};
use ocellus::capture::{CaptureContext, CaptureError, CaptureSettings, Source, SourceSpec};
use ocellus::clock::{Clock, SimulatedClock, SystemClock};
use ocellus::frame::{FramePool, PixelFormat};
use ocellus::shutdown::Shutdown;
use ocellus::stats::CameraStats;
use proptest::prelude::*;
use sha2::{Digest, Sha256};

fn context(clock: Arc<dyn Clock>) -> CaptureContext {
    CaptureContext {
        camera: "porch".into(),
        pool: FramePool::default(),
        clock,
        shutdown: Shutdown::new(),
        stats: Arc::new(CameraStats::new("porch".into())),
    }
}

fn settings(seed: u64) -> CaptureSettings {
    CaptureSettings::new(SourceSpec::Scene { seed })
}

/// The demo's model was trained on exactly these bytes. If a change of the drawing is meant, train it again.
#[test]
fn frames_are_the_same_on_every_machine() {
    let mut digest = Sha256::new();
    let mut frame = Vec::new();
    for seed in [1, 2, 3, 4] {
        let mut scene = Scene::new(seed, 160, 120);
        for index in (0..1080).step_by(45 + seed as usize) {
            scene.render(index, &mut frame);
            digest.update(&frame);
        }
    }
    let digest: String = digest
        .finalize()
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    assert_eq!(
        digest,
        "605991742216354cb647dafbb3d28d98c8409d7fdb30571db2e43c97291f8f83"
    );
}

#[test]
fn frames_do_not_depend_on_the_order_in_which_they_are_drawn() {
    let (mut there, mut back) = (Scene::new(9, 96, 72), Scene::new(9, 96, 72));
    let indices = [0, 30, 89, 90, 539, 540, 100_000];
    let mut frame = Vec::new();
    let mut draw = |s: &mut Scene, i| {
        let truth = s.render(i, &mut frame);
        (truth, frame.clone())
    };
    let forwards: Vec<_> = indices.iter().map(|i| draw(&mut there, *i)).collect();
    let mut backwards: Vec<_> = indices.iter().rev().map(|i| draw(&mut back, *i)).collect();
    backwards.reverse();
    assert!(forwards == backwards);
    let other = draw(&mut Scene::new(10, 96, 72), 30);
    assert!(other.1 != forwards[1].1);
}

#[test]
fn every_class_comes_once_a_round() {
    let mut frame = Vec::new();
    for seed in [1, 77] {
        let mut scene = Scene::new(seed, 64, 48);
        let mut visits: Vec<String> = Vec::new();
        let (mut labelled, mut frames) = (0, 0);
        for slot in 0..6 {
            let mut seen = BTreeSet::new();
            for i in 0..VISIT_FRAMES {
                let truth = scene.render(slot * VISIT_FRAMES + i, &mut frame);
                frames += 1;
                labelled += truth.label.is_some() as u32;
                seen.extend(truth.label);
                for o in &truth.objects {
                    let [x0, y0, x1, y1] = o.bbox;
                    assert!(0.0 <= x0 && x0 < x1 && x1 <= 1.0, "{:?}", o.bbox);
                    assert!(0.0 <= y0 && y0 < y1 && y1 <= 1.0, "{:?}", o.bbox);
                }
            }
            assert!(seen.remove(CLASSES[0]), "nothing between two visits");
            assert_eq!(seen.len(), 1, "{seen:?}");
            visits.extend(seen);
        }
        visits.sort();
        assert_eq!(visits, ["bird", "car", "cat", "dog", "parcel", "person"]);
        assert!(
            labelled * 100 > frames * 85,
            "{labelled} of {frames} frames have a label"
        );
    }
}

/// Where the truth has a box, the picture differs from the empty one of the same visit; elsewhere it hardly does.
#[test]
fn boxes_are_where_the_objects_are() {
    let (w, h) = (320, 240);
    let mut scene = Scene::new(3, w, h);
    let (mut empty, mut frame) = (Vec::new(), Vec::new());
    let (mut judged, mut clear) = (0, 0);
    for slot in 0..12 {
        let truth = scene.render(slot * VISIT_FRAMES + 40, &mut frame);
        // The same light, nearly, before the object came.
        assert_eq!(
            scene
                .render(slot * VISIT_FRAMES, &mut empty)
                .label
                .as_deref(),
            Some("empty")
        );
        let Some(object) = truth.objects.first() else {
            continue;
        };
        judged += 1;
        let mean = |v: &[u8]| v.iter().map(|b| *b as f64).sum::<f64>() / v.len() as f64;
        // The light may have changed: compare in units of the picture's brightness.
        let gain = mean(&frame) / mean(&empty);
        let [x0, y0, x1, y1] = object.bbox;
        let (mut inside, mut outside) = ((0.0, 0), (0.0, 0));
        for y in 0..h {
            for x in 0..w {
                let i = ((y * w + x) * 3) as usize;
                let difference: f64 = (i..i + 3)
                    .map(|i| (frame[i] as f64 - empty[i] as f64 * gain).abs())
                    .sum();
                let (u, v) = ((x as f32 + 0.5) / w as f32, (y as f32 + 0.5) / h as f32);
                let within = (x0..x1).contains(&u) && (y0..y1).contains(&v);
                let sum = if within { &mut inside } else { &mut outside };
                *sum = (sum.0 + difference, sum.1 + 1);
            }
        }
        let (inside, outside) = (inside.0 / inside.1 as f64, outside.0 / outside.1 as f64);
        clear += (inside > outside * 1.3) as u32;
    }
    // Night's noise hides some: of 11 visits 10 are clear today.
    assert!(clear * 10 >= judged * 8, "{clear} of {judged}");
    assert!(judged >= 9, "{judged} visits had an object");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn any_size_seed_and_time_can_be_drawn(
        seed: u64, index: u64, width in 16u32..200, height in 16u32..200,
    ) {
        let mut frame = Vec::new();
        Scene::new(seed, width, height).render(index, &mut frame);
        prop_assert_eq!(frame.len(), (width * height * 3) as usize);
    }
}

#[test]
fn the_source_keeps_time_and_gives_what_was_asked_for() {
    let clock = SimulatedClock::new(SystemTime::UNIX_EPOCH);
    let mut asked = settings(7);
    asked.size = Some((80, 60));
    asked.fps = Some(10.0);
    asked.format = Some(PixelFormat::Yuyv);
    let context = context(Arc::new(clock.clone()));
    let stop = context.shutdown.clone();
    let mut source = SceneSource::open(&asked, context).unwrap();
    assert_eq!(source.describe(), "yuyv 80x60 at 10 fps, drawn");

    // Frames are stamped with simulated time, so their distance shows the pace.
    let stamps = std::thread::spawn(move || {
        let frames: Vec<_> = std::iter::from_fn(|| match source.next() {
            Ok(frame) => Some(frame),
            Err(CaptureError::Stopped) => None,
            Err(e) => panic!("{e}"),
        })
        .collect();
        frames
    });
    let deadline = Instant::now() + Duration::from_secs(10);
    for _ in 0..40 {
        clock.advance(Duration::from_millis(25));
        std::thread::sleep(Duration::from_millis(1));
        assert!(Instant::now() < deadline);
    }
    stop.request();
    let frames = stamps.join().unwrap();
    assert!(
        (1..=11).contains(&frames.len()),
        "{} frames in one simulated second",
        frames.len()
    );
    for (i, f) in frames.iter().enumerate() {
        assert_eq!(f.meta.sequence, i as u64);
        assert_eq!((f.format, f.data.len()), (PixelFormat::Yuyv, 80 * 60 * 2));
        assert!(f.meta.truth.as_ref().unwrap().label.is_some());
    }
    for (i, f) in frames.iter().enumerate() {
        // Late is possible, early is not.
        let at = f
            .meta
            .wall_time
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap();
        assert!(
            at >= Duration::from_millis(100) * i as u32,
            "frame {i} at {at:?}"
        );
    }
}

#[test]
fn a_stop_ends_the_wait() {
    let context = context(Arc::new(SystemClock));
    let stop = context.shutdown.clone();
    let mut slow = settings(1);
    slow.fps = Some(0.1);
    slow.size = Some((16, 16));
    let mut source = SceneSource::open(&slow, context).unwrap();
    source.next().unwrap();
    let (began, waiting) = (Instant::now(), std::thread::spawn(move || source.next()));
    stop.request();
    assert!(matches!(
        waiting.join().unwrap(),
        Err(CaptureError::Stopped)
    ));
    assert!(began.elapsed() < Duration::from_secs(1));
}

#[test]
fn what_cannot_be_drawn_is_refused_with_a_reason() {
    let refusal = |change: fn(&mut CaptureSettings)| {
        let mut s = settings(1);
        change(&mut s);
        match SceneSource::open(&s, context(Arc::new(SystemClock))) {
            Err(CaptureError::Invalid(why)) => why,
            other => panic!("{other:?}"),
        }
    };
    assert!(refusal(|s| s.format = Some(PixelFormat::Mjpeg)).contains("rgb24"));
    assert!(refusal(|s| s.size = Some((0, 480))).contains("16x16"));
    assert!(refusal(|s| s.size = Some((640, 100_000))).contains("4096"));
    assert!(refusal(|s| s.fps = Some(0.0)).contains("0.1"));
    assert!(refusal(|s| s.fps = Some(f64::NAN)).contains("fps"));
    assert!(refusal(|s| s.source = SourceSpec::Nokhwa { index: 0 }).contains("scene:SEED"));
}
