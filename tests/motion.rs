//! Motion gating with the program itself: a still scene is hardly inferred, a moving one is; and what that saves.

mod common;

use std::path::Path;
use std::time::{Duration, Instant};

use common::device::{Device, shipped_model};
use common::{run_to_its_end, sorted, test_data};
use image::codecs::jpeg::JpegEncoder;
use image::{ExtendedColorType, RgbImage};

/// A photograph with another sensor noise in each frame, as JPEGs of 1280×720.
fn film(dir: &Path, frames: u32, moves: bool) {
    std::fs::create_dir_all(dir).unwrap();
    let photograph = test_data()
        .map(|d| sorted(&d.join("images/coco/images")))
        .and_then(|all| {
            let all = all
                .into_iter()
                .filter(|p| p.extension().is_some_and(|e| e == "jpg"));
            all.min()
        });
    let base = match photograph {
        Some(path) => image::open(path).unwrap().into_rgb8(),
        None => RgbImage::from_fn(640, 480, |x, y| {
            image::Rgb([(x / 3) as u8, (y / 2) as u8, 90])
        }),
    };
    let base = image::imageops::resize(&base, 1280, 720, image::imageops::FilterType::Triangle);
    let mut random = 1u32;
    for n in 0..frames {
        let mut picture = base.clone();
        for p in picture.iter_mut() {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            // The sum of two dice: about ±4 levels.
            let noise = (random >> 28) as i16 + ((random >> 24) & 15) as i16 - 15;
            *p = (i16::from(*p) + noise / 2).clamp(0, 255) as u8;
        }
        if moves {
            let x = 100 + n * 20;
            for (x, y) in (x..x + 60).flat_map(|x| (300..420).map(move |y| (x, y))) {
                picture.put_pixel(x, y, image::Rgb([230, 230, 40]));
            }
        }
        let mut bytes = Vec::new();
        JpegEncoder::new_with_quality(&mut bytes, 85)
            .encode(&picture, 1280, 720, ExtendedColorType::Rgb8)
            .unwrap();
        std::fs::write(dir.join(format!("{n:03}.jpg")), bytes).unwrap();
    }
}

fn config(dir: &Path, source: &str, model: &Path, motion: &str) -> std::path::PathBuf {
    let text = format!(
        "[device]\nid = 'dev-1'\nstate_dir = '{}/state'\n[[model]]\npath = '{}'\n[output]\njsonl = true\n\
         [[camera]]\n{source}\n{motion}\n",
        dir.display(),
        model.display()
    );
    let path = dir.join("ocellus.toml");
    std::fs::write(&path, text).unwrap();
    path
}

/// `frame_id` of each observation.
fn inferred(config: &Path) -> Vec<u64> {
    let id = |v: &serde_json::Value| v["frame_id"].as_u64().unwrap();
    run_to_its_end(config).iter().map(id).collect()
}

#[test]
fn a_still_scene_is_not_inferred_and_a_moving_one_is() {
    let dir = tempfile::tempdir().unwrap();
    let run = |moves: bool, motion: &str| {
        let frames = dir.path().join(format!("{moves}"));
        film(&frames, 12, moves);
        let source = format!("source = 'files:{}'", frames.display());
        inferred(&config(dir.path(), &source, &shipped_model(), motion))
    };
    assert_eq!(run(false, "").len(), 12);
    let still = run(false, "[camera.motion]");
    assert_eq!(still.len(), 1, "{still:?}");
    assert_eq!(
        run(true, "[camera.motion]\nhold_s = 0\nlook_every_s = 0").len(),
        12
    );
}

/// User and system time of a process, in seconds; its children's is not in it.
fn cpu_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    let ticks: u64 = fields
        .split(' ')
        .skip(11)
        .take(2)
        .map(|n| n.parse::<u64>().unwrap())
        .sum();
    // USER_HZ is 100 on every Linux that there is.
    ticks as f64 / 100.0
}

/// CPU of a still scene, 15 frames a second of 1280×720 MJPEG, with the gate and without, in turns.
/// `cargo test --release --test motion -- --ignored --nocapture`
#[test]
#[ignore = "a measurement: it takes minutes"]
fn what_a_still_scene_costs() {
    let data = test_data().expect("needs the test data");
    let dir = tempfile::tempdir().unwrap();
    let frames = dir.path().join("still");
    film(&frames, 15, false);
    // Another process paces and reads the files; its time is not counted.
    let camera = format!(
        "source = \"exec:sh -c 'while :; do for f in {}/*; do cat $f; sleep 0.063; done; done'\"\nformat = 'mjpeg'\nsize = [1280, 720]",
        frames.display()
    );
    let seconds = Duration::from_secs(20);
    for model in [
        data.join("models/resnet18-int8-qdq-u8s8.onnx"),
        data.join("models/resnet50-int8-qdq-u8s8.onnx"),
        shipped_model(),
    ] {
        let mut spent = [0.0; 2];
        for _ in 0..3 {
            for (spent, motion) in spent.iter_mut().zip(["", "[camera.motion]"]) {
                let config = config(dir.path(), &camera, &model, motion);
                let device = Device::start(&config);
                // Loading and the self-test are not what is measured.
                std::thread::sleep(Duration::from_secs(4));
                let (before, start) = (cpu_seconds(device.id()), Instant::now());
                std::thread::sleep(seconds);
                *spent += (cpu_seconds(device.id()) - before) / start.elapsed().as_secs_f64() / 3.0;
                device.stop();
            }
        }
        println!(
            "{}: {:.1} % of a core without, {:.1} % with: {:.1} % less",
            model.file_name().unwrap().to_string_lossy(),
            100.0 * spent[0],
            100.0 * spent[1],
            100.0 * (1.0 - spent[1] / spent[0])
        );
    }
}
