//! Capture on real media: photographs, and motion JPEG as ffmpeg writes it.
#![cfg(unix)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use ocellus::capture::{CaptureContext, CaptureError, CaptureSettings, open};
use ocellus::clock::SystemClock;
use ocellus::frame::{Frame, FramePool, PixelFormat};
use ocellus::shutdown::Shutdown;
use ocellus::stats::CameraStats;

fn settings(source: &str) -> CaptureSettings {
    let mut settings = CaptureSettings::new(source.parse().unwrap());
    settings.timeout = Duration::from_secs(60);
    settings
}

/// All frames until the source ends or is lost, how many were skipped, and the end.
fn play(settings: &CaptureSettings) -> (Vec<Frame>, usize, CaptureError) {
    let context = CaptureContext {
        camera: "porch".into(),
        pool: FramePool::default(),
        clock: Arc::new(SystemClock),
        shutdown: Shutdown::new(),
        stats: Arc::new(CameraStats::new("porch".into())),
    };
    let mut source = open(settings, context).unwrap();
    let (mut frames, mut skipped) = (vec![], 0);
    loop {
        match source.next() {
            Ok(frame) => frames.push(frame),
            Err(CaptureError::Skip(_)) => skipped += 1,
            Err(end) => return (frames, skipped, end),
        }
    }
}

fn skipped(why: &str) {
    eprintln!("SKIPPED: {why}");
    assert!(std::env::var_os("OCELLUS_TEST_STRICT").is_none(), "{why}");
}

fn photographs() -> Option<PathBuf> {
    let data = std::env::var_os("OCELLUS_TEST_DATA").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data"),
        PathBuf::from,
    );
    let dir = data.join("images/imagenet");
    if !dir.is_dir() {
        skipped(&format!("no test images at {}", dir.display()));
        return None;
    }
    Some(dir)
}

fn has_ffmpeg() -> bool {
    let found = Command::new("ffmpeg").arg("-version").output().is_ok();
    if !found {
        skipped("ffmpeg is not installed");
    }
    found
}

#[test]
fn photographs_come_out_whole_from_files_and_from_a_stream_of_them() {
    let Some(dir) = photographs() else { return };
    let (from_files, bad, end) = play(&settings(&format!("files:{}", dir.display())));
    assert_eq!((from_files.len(), bad), (100, 0));
    assert!(matches!(end, CaptureError::Ended));
    let sequences: Vec<_> = from_files.iter().map(|f| f.meta.sequence).collect();
    assert_eq!(sequences, (0..100).collect::<Vec<u64>>());
    // Some have thumbnails and colour profiles; concatenated they are a motion JPEG stream.
    let (from_program, bad, _) = play(&settings(&format!("exec:cat {}/*", dir.display())));
    assert_eq!((from_program.len(), bad), (100, 0));
    for (file, program) in from_files.iter().zip(&from_program) {
        assert!(*file.data == *program.data && file.geometry == program.geometry);
    }
}

#[test]
fn what_ffmpeg_writes_is_read() {
    if !has_ffmpeg() {
        return;
    }
    let film = "ffmpeg -loglevel error -f lavfi -i testsrc=size=320x240:rate=25 -frames:v 40";
    let (frames, bad, _) = play(&settings(&format!("exec:{film} -f mjpeg -")));
    assert_eq!((frames.len(), bad), (40, 0));
    assert!(
        frames
            .iter()
            .all(|f| (f.geometry.width, f.geometry.height) == (320, 240))
    );

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("film.mjpeg");
    let recorded = Command::new("sh")
        .args(["-c", &format!("{film} -f mjpeg {}", path.display())])
        .status();
    assert!(recorded.unwrap().success());
    let (from_file, bad, _) = play(&settings(&format!("files:{}", path.display())));
    assert_eq!((from_file.len(), bad), (40, 0));
    assert!(
        from_file
            .iter()
            .zip(&frames)
            .all(|(a, b)| *a.data == *b.data)
    );

    for (format, name) in [
        (PixelFormat::Yuyv, "yuyv422"),
        (PixelFormat::Yu12, "yuv420p"),
        (PixelFormat::Nv12, "nv12"),
        (PixelFormat::Bgr24, "bgr24"),
    ] {
        let mut raw = settings(&format!("exec:{film} -f rawvideo -pix_fmt {name} -"));
        raw.format = Some(format);
        raw.size = Some((320, 240));
        let (frames, bad, _) = play(&raw);
        assert_eq!((frames.len(), bad), (40, 0), "{name}");
    }
}

#[test]
fn a_program_that_fails_is_explained() {
    if !has_ffmpeg() {
        return;
    }
    let (frames, _, end) = play(&settings(
        "exec:ffmpeg -loglevel error -i /nonexistent.mp4 -f mjpeg -",
    ));
    assert!(frames.is_empty());
    let end = end.to_string();
    assert!(
        end.contains("exit status") && end.contains("No such file"),
        "{end}"
    );
}
