//! `v4l2:` — USB cameras and whatever else Linux shows as a plain capture device.
//!
//! In: a device node, or none for the first camera. Out: [`Frame`]s copied out of the driver's buffers. On the
//! `capture-<camera>` thread. Always holds: after a failure the device is closed, never used again; a frame is the
//! `bytesused` that the driver wrote, with its stride; nothing in here waits longer than [`TURN`] at a time.
//!
//! Quirks of the `v4l` crate (0.14), around which this is built:
//! - `Stream::next` puts the buffer of the call before back into the queue, then waits. It can therefore not be
//!   called again after it failed, nor be interrupted. So buffer 0 stays with us when the others are queued, the wait
//!   is a `poll` of our own, and `next` is called only when a frame is there.
//! - Dropping a stream panics, twice, if the driver refuses to stop: see [`close`].
//! - Strings and colour spaces that it does not expect are panics: see [`quiet`].
//! - Devices are opened without `O_CLOEXEC`.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use v4l::buffer::{Flags as BufferFlags, Type};
use v4l::capability::{Capabilities, Flags};
use v4l::frameinterval::FrameIntervalEnum;
use v4l::framesize::FrameSizeEnum;
use v4l::io::mmap::Stream;
use v4l::io::traits::{CaptureStream, Stream as _};
use v4l::parameters::Capabilities as Parameter;
use v4l::video::Capture;
use v4l::video::capture::Parameters;
use v4l::{Format, FourCC, Fraction};

use super::device::{Device, DeviceFormat, DeviceSize, FrameRate, no_such_camera};
use super::identity::{Identity, Node, scan};
use super::negotiate::{Mode, Wish, choose, sizes_in_range, unfulfilled};
use super::sequence::Sequence;
use super::{CaptureContext, CaptureError, CaptureSettings, Source, TURN, mjpeg};
use crate::frame::{Frame, Geometry, PixelFormat};

/// One stays with us while the others are filled: some drivers start only with four in their queue.
const BUFFERS: u32 = 5;

/// `poll`'s "there is something to read", the same on all Linux machines.
const POLLIN: i16 = 1;

mod errno {
    pub const ENOENT: i32 = 2;
    pub const ENXIO: i32 = 6;
    pub const EACCES: i32 = 13;
    pub const EBUSY: i32 = 16;
    pub const ENODEV: i32 = 19;
    pub const EINVAL: i32 = 22;
    pub const ENOTTY: i32 = 25;
    pub const ENOSPC: i32 = 28;
}

/// Opens one camera, again and again, and knows it again under another number.
#[derive(Debug)]
pub struct Finder {
    wanted: Option<PathBuf>,
    identity: Option<Identity>,
}

impl Finder {
    /// For a node, a stable link, or the first camera.
    pub fn new(wanted: Option<PathBuf>) -> Self {
        Self {
            wanted,
            identity: None,
        }
    }

    /// Opens the camera. One that is missing, busy or forbidden is [`CaptureError::Lost`]; a node that never can be a
    /// camera is [`CaptureError::Invalid`].
    pub fn open(
        &mut self,
        settings: &CaptureSettings,
        context: CaptureContext,
    ) -> Result<V4lSource, CaptureError> {
        let nodes = scan(Path::new("/"));
        let (path, device, caps) = self.find(&nodes)?;
        let source = V4lSource::start(path.clone(), &device, &caps, settings, context)?;
        let real = std::fs::canonicalize(&path).unwrap_or(path);
        if let Some(node) = nodes.iter().find(|n| n.path == real) {
            self.identity = Some(Identity::of(node, &nodes));
        }
        Ok(source)
    }

    fn find(&self, nodes: &[Node]) -> Result<(PathBuf, v4l::Device, Capabilities), CaptureError> {
        let again = self.identity.as_ref().and_then(|i| i.find(nodes));
        let is_link = |p: &Path| !is_plain_node(p);
        match (&self.wanted, &self.identity, again) {
            // A link is already what stays; udev keeps it right.
            (Some(link), _, _) if is_link(link) => self.open_wanted(link),
            (_, Some(_), Some(node)) => self.open_wanted(&node.path),
            (Some(path), Some(identity), None) => {
                let taken = nodes.iter().find(|n| n.path == *path);
                Err(CaptureError::Lost(match taken {
                    Some(other) => format!(
                        "{} is not plugged in; {} is now {}: restart to use that one",
                        identity.name(),
                        path.display(),
                        other.name
                    ),
                    None => format!("{} is not plugged in", identity.name()),
                }))
            }
            (Some(path), None, _) => self.open_wanted(path),
            (None, _, _) => {
                let mut problem = None;
                for node in nodes {
                    match open_device(&node.path) {
                        // A CSI sensor gives only Bayer: it is not meant by "the camera".
                        Ok((device, caps))
                            if not_a_camera(&caps).is_none()
                                && choose(&formats(&device, None), Wish::default()).is_some() =>
                        {
                            return Ok((node.path.clone(), device, caps));
                        }
                        Ok(_) => {}
                        Err(e) => problem = Some(open_error(&node.path, &e)),
                    }
                }
                Err(problem.unwrap_or_else(|| CaptureError::Lost(no_such_camera(None, &[]))))
            }
        }
    }

    fn open_wanted(
        &self,
        path: &Path,
    ) -> Result<(PathBuf, v4l::Device, Capabilities), CaptureError> {
        let (device, caps) = open_device(path).map_err(|e| match e.raw_os_error() {
            // While it is being plugged in again, its name may for a moment be something else's.
            Some(errno::ENOTTY | errno::EINVAL) if self.identity.is_none() => {
                CaptureError::Invalid(format!("{} is no V4L2 device", path.display()))
            }
            _ => open_error(path, &e),
        })?;
        let Some(why) = not_a_camera(&caps) else {
            return Ok((path.into(), device, caps));
        };
        let there = no_such_camera(Some(path), &devices());
        let problem = format!("{there}. {} is {}: {why}", path.display(), caps.card);
        Err(match self.identity {
            None => CaptureError::Invalid(problem),
            Some(_) => CaptureError::Lost(problem),
        })
    }
}

fn is_plain_node(path: &Path) -> bool {
    let number = path.to_str().and_then(|p| p.strip_prefix("/dev/video"));
    number.is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
}

/// Why a node that can be opened gives no pictures; `None` if it does.
fn not_a_camera(caps: &Capabilities) -> Option<&'static str> {
    let flags = caps.capabilities;
    if flags.intersects(Flags::VIDEO_M2M | Flags::VIDEO_M2M_MPLANE) {
        Some("it is a codec")
    } else if flags.contains(Flags::VIDEO_CAPTURE | Flags::STREAMING) {
        // Raspberry Pi's image processors say that they capture: what was put into them.
        let processors = ["bcm2835-isp", "pispbe"];
        processors
            .contains(&caps.driver.as_str())
            .then_some("it is an image processor")
    } else if flags.contains(Flags::VIDEO_CAPTURE_MPLANE) {
        Some("it is multi-planar only; use `exec:` for it")
    } else {
        Some("it does not capture pictures")
    }
}

fn open_device(path: &Path) -> io::Result<(v4l::Device, Capabilities)> {
    let device = {
        // No program is started between opening and marking.
        let _guard = super::spawn_guard();
        let device = v4l::Device::with_path(path)?;
        v4l::v4l_sys::close_on_exec(device.handle().fd());
        device
    };
    let caps = quiet(|| device.query_caps())?;
    Ok((device, caps))
}

/// Runs what may panic on strings that are not UTF-8 or on numbers newer than the crate.
fn quiet<T>(f: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    catch_unwind(AssertUnwindSafe(f))
        .unwrap_or_else(|_| Err(io::Error::other("the driver's answer cannot be read")))
}

fn open_error(path: &Path, e: &io::Error) -> CaptureError {
    let shown = path.display();
    CaptureError::Lost(match e.raw_os_error() {
        Some(errno::ENOENT | errno::ENODEV | errno::ENXIO) => {
            no_such_camera(Some(path), &devices())
        }
        Some(errno::EACCES) => format!(
            "no permission to open {shown}: add the user to the group `video` (`usermod -aG video USER`)"
        ),
        Some(errno::EBUSY) => format!("{shown} is in use by another program"),
        _ => format!("cannot open {shown}: {e}"),
    })
}

/// The cameras of this machine. Nodes that are no cameras are left out; those that cannot be opened are not.
pub fn devices() -> Vec<Device> {
    let look = |node: Node| {
        let mut device = Device {
            path: node.path,
            name: node.name,
            driver: String::new(),
            bus: String::new(),
            stable_ids: node.stable_ids,
            formats: Vec::new(),
            problem: None,
        };
        match open_device(&device.path) {
            Ok((v4l, caps)) => {
                match not_a_camera(&caps) {
                    None => {
                        device.formats = formats(&v4l, None);
                        if choose(&device.formats, Wish::default()).is_none() {
                            device.problem =
                                Some("none of its formats can be read; use `exec:`".into());
                        }
                    }
                    Some(why) if caps.capabilities.contains(Flags::VIDEO_CAPTURE_MPLANE) => {
                        device.problem = Some(why.into());
                    }
                    Some(_) => return None,
                }
                if device.name.is_empty() {
                    device.name = caps.card;
                }
                device.driver = caps.driver;
                device.bus = caps.bus;
            }
            Err(e) => device.problem = Some(e.to_string()),
        }
        Some(device)
    };
    scan(Path::new("/")).into_iter().filter_map(look).collect()
}

/// What the device delivers. `wanted` is considered where the driver offers a range of sizes.
fn formats(device: &v4l::Device, wanted: Option<(u32, u32)>) -> Vec<DeviceFormat> {
    let descriptions = quiet(|| device.enum_formats()).unwrap_or_default();
    descriptions
        .into_iter()
        .map(|d| {
            let format = PixelFormat::from_fourcc(d.fourcc.repr);
            let sizes = match format {
                Some(_) => sizes(device, d.fourcc, wanted),
                None => Vec::new(),
            };
            DeviceFormat {
                fourcc: fourcc_name(d.fourcc.repr),
                format,
                description: d.description,
                sizes,
            }
        })
        .collect()
}

/// A four-character code as `v4l2-ctl` writes it: its last bit says that the format is big-endian.
fn fourcc_name(mut fourcc: [u8; 4]) -> String {
    const BIG_ENDIAN: u8 = 0x80;
    let suffix = match fourcc[3] & BIG_ENDIAN {
        0 => "",
        _ => "-BE",
    };
    fourcc[3] &= !BIG_ENDIAN;
    format!("{}{suffix}", String::from_utf8_lossy(&fourcc))
}

fn sizes(device: &v4l::Device, fourcc: FourCC, wanted: Option<(u32, u32)>) -> Vec<DeviceSize> {
    let listed = device.enum_framesizes(fourcc).unwrap_or_default();
    let mut sizes: Vec<(u32, u32)> = listed
        .iter()
        .flat_map(|s| match &s.size {
            FrameSizeEnum::Discrete(d) => vec![(d.width, d.height)],
            FrameSizeEnum::Stepwise(s) => sizes_in_range(
                [
                    (s.min_width, s.max_width, s.step_width),
                    (s.min_height, s.max_height, s.step_height),
                ],
                wanted,
            ),
        })
        .collect();
    if sizes.is_empty() {
        // A driver that lists no sizes takes what is asked for as near as it can.
        sizes.push(wanted.unwrap_or((640, 480)));
    }
    let size = |(width, height)| DeviceSize {
        width,
        height,
        rates: rates(device, fourcc, width, height),
    };
    sizes.into_iter().map(size).collect()
}

fn rates(device: &v4l::Device, fourcc: FourCC, width: u32, height: u32) -> Vec<FrameRate> {
    let listed = device.enum_frameintervals(fourcc, width, height);
    listed
        .unwrap_or_default()
        .into_iter()
        .flat_map(|i| match i.interval {
            FrameIntervalEnum::Discrete(f) => vec![rate(f)],
            FrameIntervalEnum::Stepwise(s) => rates_between(rate(s.max), rate(s.min)),
        })
        .filter(|r| r.fps() > 0.0)
        .collect()
}

/// The ends of a range and the usual rates inside it.
fn rates_between(slowest: FrameRate, fastest: FrameRate) -> Vec<FrameRate> {
    let inside = |fps: &u32| (slowest.fps()..fastest.fps()).contains(&f64::from(*fps));
    let usual = [60, 30, 25, 20, 15, 10, 5, 1].into_iter().filter(inside);
    let usual = usual.map(|fps| FrameRate::from_fps(fps.into()));
    let mut rates: Vec<_> = [fastest]
        .into_iter()
        .chain(usual)
        .chain([slowest])
        .collect();
    rates.dedup();
    rates
}

fn rate(interval: Fraction) -> FrameRate {
    FrameRate {
        frames: interval.denominator,
        seconds: interval.numerator,
    }
}

/// An open V4L2 camera.
pub struct V4lSource {
    /// `None` only while it is dropped.
    stream: Option<Stream<'static>>,
    path: PathBuf,
    name: String,
    mode: Mode,
    geometry: Geometry,
    sequence: Sequence,
    timeout: Duration,
    context: CaptureContext,
}

impl V4lSource {
    fn start(
        path: PathBuf,
        device: &v4l::Device,
        caps: &Capabilities,
        settings: &CaptureSettings,
        context: CaptureContext,
    ) -> Result<Self, CaptureError> {
        let wish = Wish {
            format: settings.format,
            size: settings.size,
            fps: settings.fps,
        };
        let offers = formats(device, wish.size);
        let (mode, stride) = negotiate(device, &path, &offers, wish)?;
        if let Some(said) = unfulfilled(wish, &mode) {
            tracing::warn!(camera = %context.camera, "{}: {said}", path.display());
        }
        let stream = start_stream(device).map_err(|e| {
            CaptureError::Lost(match e.raw_os_error() {
                Some(errno::ENOSPC) => format!(
                    "{}: the USB bus has no bandwidth left for {mode}; ask for `format = \"mjpeg\"`, a smaller \
                     `size` or a lower `fps`",
                    path.display()
                ),
                Some(errno::EBUSY) => format!("{} is in use by another program", path.display()),
                _ => format!("{} does not start: {e}", path.display()),
            })
        })?;
        let packed = mode.format.packed_stride(mode.width);
        Ok(Self {
            stream: Some(stream),
            path,
            name: caps.card.clone(),
            mode,
            geometry: Geometry {
                width: mode.width,
                height: mode.height,
                // Some drivers say 0 for "no padding".
                stride_bytes: if packed == 0 { 0 } else { stride.max(packed) },
            },
            sequence: Sequence::default(),
            timeout: settings.timeout,
            context,
        })
    }

    /// Waits for a frame without taking it.
    fn wait(&self, stream: &Stream<'_>) -> Result<(), CaptureError> {
        let handle: Arc<_> = stream.handle();
        let deadline = Instant::now() + self.timeout;
        loop {
            if self.context.shutdown.is_requested() {
                return Err(CaptureError::Stopped);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(self.lost(format_args!("no frame for {:?}", self.timeout)));
            }
            let turn_ms = left.min(TURN).as_millis() as i32 + 1;
            match handle.poll(POLLIN, turn_ms) {
                Ok(0) => {}
                Ok(_) => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(self.lost(e)),
            }
        }
    }

    fn lost(&self, why: impl std::fmt::Display) -> CaptureError {
        CaptureError::Lost(format!("{} ({}): {why}", self.path.display(), self.name))
    }
}

impl Source for V4lSource {
    fn next(&mut self) -> Result<Frame, CaptureError> {
        let Some(mut stream) = self.stream.take() else {
            return Err(self.lost("closed after a failure"));
        };
        if let Err(e) = self.wait(&stream) {
            close(stream);
            return Err(e);
        }
        let mut data = self.context.pool.take();
        let taken = stream.next().map(|(mapping, meta)| {
            // The mapping is as large as the largest frame; only `bytesused` of it are this frame's.
            let bytes = mapping.get(..meta.bytesused as usize);
            if let Some(bytes) = bytes {
                data.extend_from_slice(bytes);
            }
            (bytes.is_some(), meta.flags, meta.sequence)
        });
        let (fits, flags, sequence) = match taken {
            Ok(taken) => taken,
            Err(e) => {
                close(stream);
                return Err(self.lost(match e.raw_os_error() {
                    Some(errno::ENODEV) => "unplugged".into(),
                    _ => e.to_string(),
                }));
            }
        };
        self.stream = Some(stream);
        let (sequence, gap) = self.sequence.next(sequence);
        self.context.stats.device_gaps.add(gap);
        let bad = |why: String| Err(CaptureError::Skip(why));
        if flags.contains(BufferFlags::ERROR) {
            return bad("the driver marked the frame as corrupt".into());
        }
        if !fits {
            return bad("the driver says more bytes than its buffer has".into());
        }
        let mut geometry = self.geometry;
        if let Err(why) = check(self.mode.format, &mut geometry, &data) {
            return bad(why);
        }
        Ok(self
            .context
            .frame(self.mode.format, geometry, data, sequence))
    }

    fn describe(&self) -> String {
        format!("{} from {} ({})", self.mode, self.path.display(), self.name)
    }
}

impl Drop for V4lSource {
    fn drop(&mut self) {
        if let Some(stream) = self.stream.take() {
            close(stream);
        }
    }
}

/// Whether these bytes are a whole frame. A JPEG's header has the last word on its size.
fn check(format: PixelFormat, geometry: &mut Geometry, data: &[u8]) -> Result<(), String> {
    if data.is_empty() {
        return Err("empty frame".into());
    }
    match format.frame_bytes(geometry.height, geometry.stride_bytes) {
        None => {
            (geometry.width, geometry.height) = mjpeg::inspect(data)?;
            Ok(())
        }
        Some(expected) if data.len() < expected => Err(format!(
            "truncated frame: {} of {expected} bytes",
            data.len()
        )),
        Some(_) => Ok(()),
    }
}

/// Sets format and rate; returns what the driver then really does, and its stride.
fn negotiate(
    device: &v4l::Device,
    path: &Path,
    offers: &[DeviceFormat],
    wish: Wish,
) -> Result<(Mode, u32), CaptureError> {
    let lost = |what: &str, e: io::Error| match e.raw_os_error() {
        Some(errno::EBUSY) => {
            CaptureError::Lost(format!("{} is in use by another program", path.display()))
        }
        _ => CaptureError::Lost(format!("{}: cannot {what}: {e}", path.display())),
    };
    let unreadable = |has: &str| {
        CaptureError::Invalid(format!(
            "{} delivers only {has}, which the program does not read (it reads {}); a CSI camera needs `exec:`, see \
             docs/cameras.md",
            path.display(),
            PixelFormat::ALL.map(PixelFormat::name).join(", "),
        ))
    };
    let Some(mut mode) = choose(offers, wish) else {
        let has: Vec<_> = offers.iter().map(|o| o.fourcc.as_str()).collect();
        // Nothing at all is what a device says that is just coming or going.
        return Err(match has.is_empty() {
            true => CaptureError::Lost(format!("{} lists no formats", path.display())),
            false => unreadable(&has.join(", ")),
        });
    };
    let wanted = Format::new(mode.width, mode.height, FourCC::new(&mode.fourcc));
    let got = quiet(|| device.set_format(&wanted)).map_err(|e| lost("set the format", e))?;
    mode.format = PixelFormat::from_fourcc(got.fourcc.repr)
        .ok_or_else(|| unreadable(&fourcc_name(got.fourcc.repr)))?;
    mode.fourcc = got.fourcc.repr;
    (mode.width, mode.height) = (got.width, got.height);
    let rate_wanted = wish.fps.map(FrameRate::from_fps);
    mode.rate = set_rate(device, mode.rate.or(rate_wanted)).or(mode.rate);
    Ok((mode, got.stride))
}

/// Sets the rate where the driver can; returns the rate that it says it has.
fn set_rate(device: &v4l::Device, wanted: Option<FrameRate>) -> Option<FrameRate> {
    let now = device.params().ok()?;
    let mut got = now;
    if let Some(wanted) = wanted
        && now.capabilities.contains(Parameter::TIME_PER_FRAME)
        && wanted.frames > 0
    {
        let interval = Fraction::new(wanted.seconds, wanted.frames);
        got = device.set_params(&Parameters::new(interval)).unwrap_or(now);
    }
    Some(rate(got.interval)).filter(|r| r.fps() > 0.0)
}

/// Allocates buffers, gives all but buffer 0 to the driver, and starts it.
fn start_stream(device: &v4l::Device) -> io::Result<Stream<'static>> {
    let mut stream = quiet(|| Stream::with_buffers(device, Type::VideoCapture, BUFFERS))?;
    // A frame is there before `next` is called: this only keeps a wrong driver from blocking for ever.
    stream.set_timeout(TURN);
    let started = (|| {
        // The driver may have made more or fewer than asked: it refuses the first one that is not there.
        let mut queued = 0;
        for index in 1..32 {
            match CaptureStream::queue(&mut stream, index) {
                Ok(()) => queued += 1,
                Err(e) if e.raw_os_error() == Some(errno::EINVAL) => break,
                Err(e) => return Err(e),
            }
        }
        if queued == 0 {
            return Err(io::Error::other("the driver has only one buffer"));
        }
        stream.start()
    })();
    match started {
        Ok(()) => Ok(stream),
        Err(e) => {
            close(stream);
            Err(e)
        }
    }
}

/// Stops and frees a stream without ever panicking.
///
/// `v4l` panics in `drop` if stopping fails with anything but ENODEV, and a second time, which aborts, if freeing does.
/// So it is stopped here first: stopping twice is allowed, and what stops is freed.
fn close(mut stream: Stream<'static>) {
    match stream.stop() {
        Err(e) if e.raw_os_error() != Some(errno::ENODEV) => {
            // Only a program that claimed exclusive priority makes a driver refuse. What is forgotten here stays open
            // until the process ends: better than to abort.
            tracing::error!("the camera's driver does not stop: {e}");
            std::mem::forget(stream);
        }
        _ => {
            let _ = catch_unwind(AssertUnwindSafe(|| drop(stream)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_told_from_links() {
        for (path, plain) in [
            ("/dev/video0", true),
            ("/dev/video12", true),
            ("/dev/video", false),
            ("/dev/video-front", false),
            ("/dev/v4l/by-id/usb-cam-video-index0", false),
        ] {
            assert_eq!(is_plain_node(Path::new(path)), plain, "{path}");
        }
    }

    #[test]
    fn codes_are_written_as_the_kernels_tools_write_them() {
        for (code, name) in [
            (*b"YUYV", "YUYV"),
            (*b"Y10 ", "Y10 "),
            (*b"Y16\xa0", "Y16 -BE"),
            ([0xff, b'A', b'B', b'C'], "\u{fffd}ABC"),
        ] {
            assert_eq!(fourcc_name(code), name);
        }
    }

    #[test]
    fn rates_of_a_range_keep_its_ends() {
        let r = |frames, seconds| FrameRate { frames, seconds };
        let rates = rates_between(r(1, 1), r(60, 1));
        assert_eq!((rates[0], rates[rates.len() - 1]), (r(60, 1), r(1, 1)));
        assert!(rates.contains(&r(15, 1)));
        assert_eq!(rates_between(r(30, 1), r(30, 1)), [r(30, 1)]);
    }

    #[test]
    fn frames_are_checked_before_they_are_passed_on() {
        let yuyv = Geometry {
            width: 4,
            height: 2,
            stride_bytes: 16,
        };
        for (bytes, good) in [(0, false), (31, false), (32, true), (40, true)] {
            let checked = check(PixelFormat::Yuyv, &mut yuyv.clone(), &vec![0; bytes]);
            assert_eq!(checked.is_ok(), good, "{bytes} bytes: {checked:?}");
        }
        let mut geometry = Geometry::packed(640, 480, PixelFormat::Mjpeg);
        let jpeg = mjpeg::tests::tiny_jpeg(320, 240, 1);
        check(PixelFormat::Mjpeg, &mut geometry, &jpeg).unwrap();
        assert_eq!((geometry.width, geometry.height), (320, 240));
        assert!(check(PixelFormat::Mjpeg, &mut geometry, &jpeg[..20]).is_err());
    }

    #[test]
    fn what_is_no_camera_is_answered_at_once() {
        let settings = CaptureSettings::new("v4l2:".parse().unwrap());
        let open = |path: &str| {
            let context = CaptureContext::for_tests("porch");
            Finder::new(Some(path.into()))
                .open(&settings, context)
                .err()
                .unwrap()
        };
        assert!(
            matches!(open("/dev/null"), CaptureError::Invalid(m) if m.contains("no V4L2 device"))
        );
        assert!(
            matches!(open("/dev/video731"), CaptureError::Lost(m) if m.contains("no camera at /dev/video731"))
        );
    }
}
