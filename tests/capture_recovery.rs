//! A camera is cut and restored twenty times: it is back each time, and neither a thread nor a descriptor is left.
//!
//! One test in a process of its own: it counts the threads and descriptors of the whole process.
#![cfg(target_os = "linux")]

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use ocellus::capture::supervisor::End;
use ocellus::capture::{CaptureContext, CaptureError, CaptureSettings, Opener, Source, Supervisor};
use ocellus::clock::SystemClock;
use ocellus::frame::{Frame, FrameMeta, FramePool, Geometry, LatestSlots, PixelFormat, Taken};
use ocellus::shutdown::Shutdown;
use ocellus::stats::CameraStats;
use ocellus::watchdog::Watchdog;

const CUTS: u64 = 20;
/// For what is to happen; it ends the test, it does not measure.
const PATIENCE: Duration = Duration::from_secs(30);

fn context() -> CaptureContext {
    CaptureContext {
        camera: "porch".into(),
        pool: FramePool::default(),
        clock: Arc::new(SystemClock),
        shutdown: Shutdown::new(),
        stats: Arc::new(CameraStats::new("porch".into())),
    }
}

fn count(dir: &str) -> usize {
    fs::read_dir(dir).unwrap().count()
}

/// Threads and descriptors of this process.
fn held() -> (usize, usize) {
    (count("/proc/self/task"), count("/proc/self/fd"))
}

/// Waits until a frame is taken that `wanted` accepts.
fn wait_for_frame(slots: &LatestSlots, mut wanted: impl FnMut(&Frame) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        assert!(Instant::now() < deadline, "no frame came");
        if let Taken::Frame(0, frame) = slots.take(Duration::from_millis(100))
            && wanted(&frame)
        {
            return;
        }
    }
}

/// Runs a supervisor, cuts its camera with `cut` and waits for each return; then stops it.
fn cut_and_restore(
    opener: Opener,
    context: CaptureContext,
    mut cut: impl FnMut(),
    mut is_new: impl FnMut(&Frame) -> bool,
) {
    let before = held();
    let slots = Arc::new(LatestSlots::new(1));
    let dog = Watchdog::default();
    let heart = dog.register("capture-porch", Duration::from_secs(5));
    let supervisor =
        Supervisor::with_opener(opener, PATIENCE, context.clone(), 0, slots.clone(), heart);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let thread = {
        let seen = seen.clone();
        std::thread::spawn(move || supervisor.run(&mut |online| seen.lock().unwrap().push(online)))
    };
    wait_for_frame(&slots, &mut is_new);
    let mut slowest = Duration::ZERO;
    for _ in 0..CUTS {
        cut();
        let at = Instant::now();
        wait_for_frame(&slots, &mut is_new);
        slowest = slowest.max(at.elapsed());
        assert!(dog.stalled().is_empty());
    }
    eprintln!("slowest return: {slowest:?}");
    context.shutdown.request();
    assert_eq!(thread.join().unwrap(), End::Stopped);
    let stats = &context.stats;
    assert_eq!(stats.reopened.get(), CUTS);
    assert!(!stats.online.load(SeqCst));
    let expected: Vec<_> = (0..=CUTS).flat_map(|_| [true, false]).collect();
    assert_eq!(*seen.lock().unwrap(), expected);
    drop((context, slots, dog));
    // A reaped child's pipes are closed by now; the joined thread's entry may take the kernel a moment.
    let deadline = Instant::now() + PATIENCE;
    while held() != before {
        assert!(
            Instant::now() < deadline,
            "{:?} instead of {before:?}",
            held()
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A camera whose plug is a flag; each opening has a number of its own, which its frames carry.
struct Fake {
    context: CaptureContext,
    plugged: Arc<AtomicBool>,
    opening: u64,
}

impl Source for Fake {
    fn next(&mut self) -> Result<Frame, CaptureError> {
        if self.context.shutdown.sleep(Duration::from_millis(1)) {
            return Err(CaptureError::Stopped);
        }
        if !self.plugged.load(SeqCst) {
            return Err(CaptureError::Lost("unplugged".into()));
        }
        Ok(Frame {
            format: PixelFormat::Grey,
            geometry: Geometry::packed(1, 1, PixelFormat::Grey),
            data: self.context.pool.take(),
            meta: FrameMeta {
                camera: self.context.camera.clone(),
                sequence: self.opening,
                captured_at: Instant::now(),
                wall_time: SystemTime::now(),
                truth: None,
            },
            mask: None,
        })
    }

    fn describe(&self) -> String {
        "fake".into()
    }
}

fn fake() {
    let context = context();
    let plugged = Arc::new(AtomicBool::new(true));
    let openings = Arc::new(AtomicU64::new(0));
    let opener: Opener = {
        let (context, plugged, openings) = (context.clone(), plugged.clone(), openings.clone());
        Box::new(move || {
            // Absent for one attempt after each cut.
            if !plugged.swap(true, SeqCst) {
                return Err(CaptureError::Lost("not plugged in".into()));
            }
            Ok(Box::new(Fake {
                context: context.clone(),
                plugged: plugged.clone(),
                opening: openings.fetch_add(1, SeqCst) + 1,
            }))
        })
    };
    let mut newest = 0;
    let is_new = |f: &Frame| std::mem::replace(&mut newest, f.meta.sequence) < f.meta.sequence;
    cut_and_restore(opener, context, || plugged.store(false, SeqCst), is_new);
}

/// The program writes its process id into each raw frame; it is cut by killing it.
fn exec(dir: &Path) {
    let context = context();
    let pid_file = dir.join("pid");
    // Eight characters a frame: the shell's process id.
    let command = format!(
        "echo $$ > {0}.new; mv {0}.new {0}; while :; do printf '%08d' $$; sleep 0.02; done",
        pid_file.display()
    );
    let mut settings = CaptureSettings::new(format!("exec:{command}").parse().unwrap());
    settings.format = Some(PixelFormat::Grey);
    settings.size = Some((8, 1));
    let opener = ocellus::capture::opener(settings, context.clone());
    let mut last = Vec::new();
    let is_new = |f: &Frame| {
        let new = last != **f.data;
        last.clone_from(&f.data);
        new
    };
    let cut = || {
        let pid = fs::read_to_string(&pid_file).unwrap();
        let pid = rustix::process::Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    };
    cut_and_restore(opener, context, cut, is_new);
}

/// What was missing at the start is taken up when it comes; what can never work ends the loop.
fn missing_and_invalid(dir: &Path) {
    let context = context();
    let run = |source: String, context: &CaptureContext| {
        let slots = Arc::new(LatestSlots::new(1));
        let settings = CaptureSettings::new(source.parse().unwrap());
        let heart = Watchdog::default().register("c", Supervisor::max_silence(&settings));
        let supervisor = Supervisor::new(settings, context.clone(), 0, slots, heart);
        let mut seen = vec![];
        let end = supervisor.run(&mut |online| {
            seen.push(online);
            context.shutdown.request();
        });
        (end, seen)
    };
    let nothing = format!("files:{}/nothing", dir.display());
    let (end, seen) = run(nothing, &context);
    assert!(matches!(end, End::Invalid(m) if m.contains("nothing")));
    assert!(seen.is_empty());
    // Told once that it is missing, and it goes on trying until it is stopped.
    let (end, seen) = run("exec:exit 7".into(), &context);
    assert_eq!((end, seen), (End::Stopped, vec![false]));
}

/// Files played once: none is lost however slow the taker is, and the end is told.
fn lossless(dir: &Path) {
    let folder = dir.join("images");
    fs::create_dir(&folder).unwrap();
    for n in 0..30u8 {
        let picture = image::RgbImage::from_pixel(4, 4, image::Rgb([n, 0, 0]));
        picture.save(folder.join(format!("{n:02}.png"))).unwrap();
    }
    let context = context();
    let slots = Arc::new(LatestSlots::new(1));
    let settings = CaptureSettings::new(format!("files:{}", folder.display()).parse().unwrap());
    let heart = Watchdog::default().register("c", Supervisor::max_silence(&settings));
    let supervisor = Supervisor::new(settings, context.clone(), 0, slots.clone(), heart);
    let thread = std::thread::spawn(move || supervisor.run(&mut |_| {}));
    for n in 0..30 {
        wait_for_frame(&slots, |f| {
            assert_eq!((f.meta.sequence, u64::from(f.data[0])), (n, n));
            true
        });
    }
    assert_eq!(thread.join().unwrap(), End::Ended);
    let stats = &context.stats;
    assert_eq!((stats.captured.get(), stats.overwritten.get()), (30, 0));
}

#[test]
fn cameras_come_back_and_leave_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    fake();
    exec(dir.path());
    missing_and_invalid(dir.path());
    lossless(dir.path());
}
