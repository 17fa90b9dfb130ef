//! What goes wrong with a camera, in the driver itself: the supervisor's answers.

use std::fs;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ocellus::capture::supervisor::End;
use ocellus::capture::{CaptureContext, CaptureError, CaptureSettings, Supervisor, open};
use ocellus::frame::{LatestSlots, Taken};
use ocellus::watchdog::Watchdog;

use crate::camera::{PATIENCE, context, eventually};
use crate::vivid::Vivid;

/// A supervised camera on its thread.
struct Supervised {
    context: CaptureContext,
    slots: Arc<LatestSlots>,
    statuses: Arc<Mutex<Vec<bool>>>,
    thread: JoinHandle<End>,
}

impl Supervised {
    fn start(source: &str) -> Self {
        let context = context();
        let settings = CaptureSettings::new(source.parse().unwrap());
        let slots = Arc::new(LatestSlots::new(1));
        let heart = Watchdog::default().register("capture-porch", PATIENCE);
        let supervisor = Supervisor::new(settings, context.clone(), 0, slots.clone(), heart);
        let statuses = Arc::new(Mutex::new(Vec::new()));
        let told = statuses.clone();
        let thread = std::thread::spawn(move || {
            supervisor.run(&mut |online| told.lock().unwrap().push(online))
        });
        Self {
            context,
            slots,
            statuses,
            thread,
        }
    }

    /// Waits for frames that are captured from now on.
    fn frames_flow(&self) {
        let before = self.context.stats.captured.get();
        eventually("frames flow", || {
            (self.context.stats.captured.get() >= before + 3).then_some(())
        });
        assert!(matches!(self.slots.take(PATIENCE), Taken::Frame(0, _)));
    }

    fn is(&self, online: bool) {
        eventually(&format!("online: {online}"), || {
            (self.statuses.lock().unwrap().last() == Some(&online)).then_some(())
        });
    }

    fn statuses(&self) -> Vec<bool> {
        self.statuses.lock().unwrap().clone()
    }

    fn stop(self) -> CaptureContext {
        let asked = Instant::now();
        self.context.shutdown.request();
        assert_eq!(self.thread.join().unwrap(), End::Stopped);
        println!("measured: capture stopped within {:?}", asked.elapsed());
        self.context
    }
}

/// Descriptors of this process.
fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
#[ignore = "runs in the guest"]
fn faults_of_the_driver_are_skipped_or_survived_and_counted() {
    let before = descriptors();
    let vivid = Vivid::webcam();
    let camera = Supervised::start("v4l2:");
    let stats = camera.context.stats.clone();
    camera.frames_flow();

    // A corrupt frame is one frame less, nothing more.
    for corrupt in 1..=3 {
        vivid.press("inject_v4l2_buf_flag_error");
        eventually("the corrupt frame is rejected", || {
            (stats.rejected.get() == corrupt).then_some(())
        });
        camera.frames_flow();
    }
    assert_eq!((stats.reopened.get(), camera.statuses()), (0, vec![true]));

    // What the driver drops is a gap in its sequence.
    let gaps = stats.device_gaps.get();
    vivid.set("percentage_of_dropped_buffers", 50);
    eventually("gaps are counted", || {
        (stats.device_gaps.get() >= gaps + 5).then_some(())
    });
    vivid.set("percentage_of_dropped_buffers", 0);
    camera.frames_flow();
    assert_eq!((stats.rejected.get(), stats.reopened.get()), (3, 0));

    // A buffer that is not taken, a stream that fails, a start that fails: opened again.
    let mut reopened = 0;
    for faults in [
        &["inject_vidioc_qbuf_error"][..],
        &["inject_fatal_streaming_error"],
        &[
            "inject_vidioc_streamon_error",
            "inject_fatal_streaming_error",
        ],
        &[
            "inject_vidioc_reqbufs_error",
            "inject_fatal_streaming_error",
        ],
    ] {
        faults.iter().for_each(|fault| vivid.press(fault));
        reopened += 1;
        let at = Instant::now();
        eventually(&format!("back after {faults:?}"), || {
            (stats.reopened.get() == reopened).then_some(())
        });
        println!("measured: back {:?} after {faults:?}", at.elapsed());
        camera.frames_flow();
    }
    assert_eq!(stats.rejected.get(), 3);
    let statuses = camera.statuses();
    camera.stop();
    let expected: Vec<_> = (0..=reopened).flat_map(|_| [true, false]).collect();
    assert_eq!(statuses, expected[..expected.len() - 1]);
    drop(vivid);
    assert_eq!(descriptors(), before);
}

#[test]
#[ignore = "runs in the guest"]
fn a_busy_camera_is_waited_for() {
    let vivid = Vivid::webcam();
    let settings = CaptureSettings::new("v4l2:".parse().unwrap());
    let mut rival = open(&settings, context()).unwrap();
    rival.next().unwrap();
    let why = open(&settings, context()).err().unwrap();
    let busy = format!("{} is in use by another program", vivid.node().display());
    assert!(
        matches!(&why, CaptureError::Lost(said) if *said == busy),
        "{why}"
    );
    let camera = Supervised::start("v4l2:");
    camera.is(false);
    // The one that was there first is not disturbed.
    rival.next().unwrap();
    drop(rival);
    let at = Instant::now();
    camera.is(true);
    println!("measured: {:?} from free to online", at.elapsed());
    camera.frames_flow();
    camera.stop();
}

#[test]
#[ignore = "runs in the guest"]
fn a_missing_camera_is_named_waited_for_and_taken_up() {
    let camera = Supervised::start("v4l2:");
    camera.is(false);
    let at = Instant::now();
    let vivid = Vivid::webcam();
    camera.is(true);
    println!(
        "measured: {:?} from loading the driver to online",
        at.elapsed()
    );
    camera.frames_flow();
    camera.stop();

    let settings = CaptureSettings::new("v4l2:/dev/video9".parse().unwrap());
    let why = open(&settings, context()).err().unwrap();
    let said = "no camera at /dev/video9; there is v4l2:/dev/v4l/by-path/platform-vivid.0-video-index0 \
                (vivid-000-vid-cap)";
    assert!(
        matches!(&why, CaptureError::Lost(why) if why == said),
        "{why}"
    );
    drop(vivid);
}

#[test]
#[ignore = "runs in the guest"]
fn a_camera_that_stops_delivering_is_opened_again() {
    let vivid = Vivid::webcam();
    let mut settings = CaptureSettings::new("v4l2:".parse().unwrap());
    settings.timeout = Duration::from_millis(1500);
    let context = context();
    let mut source = open(&settings, context.clone()).unwrap();
    source.next().unwrap();
    // All are dropped: the driver runs, and no frame comes.
    vivid.set("percentage_of_dropped_buffers", 100);
    let why = eventually("it is given up", || source.next().err()).to_string();
    assert!(why.contains("no frame for 1.5s"), "{why}");
    let again = source.next().err().unwrap().to_string();
    assert!(again.contains("closed after a failure"), "{again}");
    vivid.set("percentage_of_dropped_buffers", 0);
    let mut source = open(&settings, context.clone()).unwrap();
    source.next().unwrap();
}
