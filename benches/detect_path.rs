//! One JPEG through a detector and a tracker, again and again: answers `detect_vs_python.py` (or a person) line by line.
//!
//! `detect_path MODEL`, then on standard input the path of a JPEG a line. Answer: microseconds of decode, preprocessing, inference, reading of the
//! outputs (decoding and suppression), tracking, and how many boxes there were. One thread.

use std::io::BufRead;
use std::time::{Duration, Instant};

use ocellus::frame::{FrameMeta, FramePool};
use ocellus::model::{LoadOptions, Model};
use ocellus::observe::track::TrackSettings;
use ocellus::observe::{Follower, Sequence};
use ocellus::preprocess::{InputTensor, Preprocessor, frame_from_image_bytes};
use ocellus::task::{self, TaskKind, TaskResult, TaskSettings};

fn main() {
    // `cargo bench` hands over a flag of its own.
    let mut args = std::env::args().skip(1).filter(|a| a != "--bench");
    let Some(model) = args.next() else {
        eprintln!("usage: detect_path MODEL");
        return;
    };
    let options = LoadOptions {
        tasks: vec![TaskKind::Detect],
        ..LoadOptions::default()
    };
    let model = Model::load(model.as_ref(), &options).expect("a detector");
    let mut settings = TaskSettings::default();
    settings.detect.threshold = Some(0.25);
    let mut task = task::build(TaskKind::Detect, model.info(), &settings).expect("a detector");
    let spec = model.info().input.clone();
    let mut input = InputTensor::for_spec(&spec);
    let mut preprocessor = Preprocessor::new(spec);
    let mut session = model.session().expect("a session");
    let mut follower = Follower::new(TrackSettings::default(), Sequence::default(), None);
    let pool = FramePool::default();
    for line in std::io::stdin().lock().lines() {
        let bytes = std::fs::read(line.expect("a line")).expect("the frame's file");
        let frame = frame_from_image_bytes(&bytes, FrameMeta::of_still("bench"), &pool);
        let frame = frame.expect("a JPEG");
        let prepared = preprocessor.run(&frame, &mut input).expect("a good frame");
        let mut at = Instant::now();
        let mut took = || -> f64 {
            let now = Instant::now();
            let took = now - at;
            at = now;
            us(took)
        };
        let outputs = session.run(&input).expect("an inference");
        let infer = took();
        let result = task.decode(outputs, &prepared.mapping).expect("boxes");
        let read = took();
        let TaskResult::Detections(found) = result else {
            unreachable!("a detect task gives detections")
        };
        std::hint::black_box(follower.update(Instant::now(), &found));
        let track = took();
        let (decode, preprocess) = (us(prepared.decode), us(prepared.preprocess));
        let n = found.len();
        println!("{decode:.1} {preprocess:.1} {infer:.1} {read:.1} {track:.1} {n}");
    }
}

fn us(d: Duration) -> f64 {
    d.as_secs_f64() * 1e6
}
