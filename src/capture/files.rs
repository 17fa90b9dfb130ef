//! `files:` — images, directories, globs and recorded MJPEG streams.
//!
//! In: a path or pattern. Out: [`Frame`]s in sorted order: JPEG bytes as they are, other images decoded to RGB. On the
//! `capture-<camera>` thread. Always holds: without a rate no frame is lost, since it plays as fast as they are taken;
//! with one it behaves like a camera. A file that is no image is skipped; a number is used for it all the same, so that
//! a frame's sequence is its place in the order.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::mjpeg::{self, MAX_FRAME_BYTES, Popped, Splitter};
use super::{CaptureContext, CaptureError, CaptureSettings, Source, TURN};
use crate::clock::Clock;
use crate::frame::{Frame, FrameBuf, Geometry, PixelFormat};
use crate::shutdown::Shutdown;

/// What a directory is searched for; a glob takes all that it matches.
const IMAGES: [&str; 5] = ["jpg", "jpeg", "png", "bmp", "webp"];
const STREAMS: [&str; 2] = ["mjpeg", "mjpg"];
/// Against images that unpack to more than any camera gives.
const MAX_SIDE_PX: u32 = 16_384;
const MAX_DECODED_BYTES: u64 = 256 << 20;

/// Files that play.
pub struct FilesSource {
    pattern: String,
    files: Vec<PathBuf>,
    /// The file that is next.
    at: usize,
    stream: Option<Stream>,
    sequence: u64,
    /// Whether this round gave anything.
    some: bool,
    repeat: bool,
    pace: Option<Pace>,
    context: CaptureContext,
}

impl FilesSource {
    /// Lists the files. A pattern that matches none, or a single file that is no image, is [`CaptureError::Invalid`].
    pub fn open(
        pattern: &str,
        settings: &CaptureSettings,
        context: CaptureContext,
    ) -> Result<Self, CaptureError> {
        let invalid = |why: String| Err(CaptureError::Invalid(format!("files:{pattern}: {why}")));
        let files = match list(pattern) {
            Ok(files) => files,
            Err(why) => return invalid(why),
        };
        if let [file] = files.as_slice()
            && !is_stream(file)
            && let Err(why) = load(file, &mut context.pool.take())
        {
            return invalid(why);
        }
        let pace = match settings.fps {
            None => None,
            Some(fps) => match Duration::try_from_secs_f64(1.0 / fps) {
                Ok(period) => Some(Pace { period, due: None }),
                Err(_) => return invalid(format!("{fps} is no frame rate")),
            },
        };
        Ok(Self {
            pattern: pattern.into(),
            files,
            at: 0,
            stream: None,
            sequence: 0,
            some: false,
            repeat: settings.repeat,
            pace,
            context,
        })
    }

    /// The next image, of the stream at hand or of the next file.
    fn advance(&mut self) -> Result<(PixelFormat, Geometry, FrameBuf), CaptureError> {
        loop {
            if self.context.shutdown.is_requested() {
                return Err(CaptureError::Stopped);
            }
            if let Some(stream) = &mut self.stream {
                let mut data = self.context.pool.take();
                match stream.next(&mut data) {
                    Ok(Some((w, h))) => {
                        let geometry = Geometry::packed(w, h, PixelFormat::Mjpeg);
                        return Ok((PixelFormat::Mjpeg, geometry, data));
                    }
                    Ok(None) => self.stream = None,
                    Err(why) => return Err(CaptureError::Skip(why)),
                }
            }
            let Some(file) = self.files.get(self.at) else {
                if !self.repeat {
                    return Err(CaptureError::Ended);
                }
                // Else a round of nothing would spin.
                if !std::mem::take(&mut self.some) {
                    return Err(CaptureError::Lost(format!(
                        "files:{}: none of {} files can be read",
                        self.pattern,
                        self.files.len()
                    )));
                }
                self.at = 0;
                continue;
            };
            self.at += 1;
            if is_stream(file) {
                self.stream = Some(Stream::open(file).map_err(CaptureError::Skip)?);
                continue;
            }
            let mut data = self.context.pool.take();
            let (format, geometry) = load(file, &mut data).map_err(CaptureError::Skip)?;
            return Ok((format, geometry, data));
        }
    }
}

impl Source for FilesSource {
    fn next(&mut self) -> Result<Frame, CaptureError> {
        let advanced = self.advance();
        let sequence = self.sequence;
        match advanced {
            Ok((format, geometry, data)) => {
                self.sequence += 1;
                self.some = true;
                if let Some(pace) = &mut self.pace
                    && pace.wait(&self.context.clock, &self.context.shutdown)
                {
                    return Err(CaptureError::Stopped);
                }
                Ok(self.context.frame(format, geometry, data, sequence))
            }
            Err(e) => {
                if matches!(e, CaptureError::Skip(_)) {
                    self.sequence += 1;
                }
                Err(e)
            }
        }
    }

    fn describe(&self) -> String {
        let files = match self.files.as_slice() {
            [file] => file.display().to_string(),
            files => format!("{} files of {}", files.len(), self.pattern),
        };
        let rate = match &self.pace {
            Some(pace) => format!(" at {:.4} fps", 1.0 / pace.period.as_secs_f64()),
            None => " as fast as they are taken".into(),
        };
        let repeated = if self.repeat { ", repeated" } else { ", once" };
        format!("{files}{rate}{repeated}")
    }

    fn lossless(&self) -> bool {
        self.pace.is_none()
    }
}

/// When the next frame is due.
struct Pace {
    period: Duration,
    due: Option<Instant>,
}

impl Pace {
    /// Waits until the frame is due. Returns whether a stop was requested.
    fn wait(&mut self, clock: &Arc<dyn Clock>, shutdown: &Shutdown) -> bool {
        let now = clock.now();
        // What came too late is not made up for by a burst.
        let due = self.due.map_or(now, |due| due.max(now));
        loop {
            let left = due.saturating_duration_since(clock.now());
            if left.is_zero() {
                self.due = due.checked_add(self.period);
                return false;
            }
            if shutdown.sleep(left.min(TURN)) {
                return true;
            }
        }
    }
}

/// A recorded MJPEG stream.
struct Stream {
    path: PathBuf,
    file: File,
    splitter: Splitter,
    chunk: Vec<u8>,
}

impl Stream {
    fn open(path: &Path) -> Result<Self, String> {
        Ok(Self {
            file: File::open(path).map_err(|e| format!("{}: {e}", path.display()))?,
            path: path.into(),
            splitter: Splitter::default(),
            chunk: vec![0; 64 << 10],
        })
    }

    /// The next frame's size, its bytes in `data`; `None` at the end.
    fn next(&mut self, data: &mut Vec<u8>) -> Result<Option<(u32, u32)>, String> {
        let bad = |path: &Path, why: &str| format!("{}: {why}", path.display());
        loop {
            match self.splitter.pop(data) {
                Popped::Frame => {
                    return mjpeg::inspect(data)
                        .map(Some)
                        .map_err(|why| bad(&self.path, why));
                }
                Popped::Bad(why) => return Err(bad(&self.path, why)),
                Popped::More => {}
            }
            match self.file.read(&mut self.chunk) {
                Ok(0) if self.splitter.is_inside() => {
                    self.splitter = Splitter::default();
                    return Err(bad(&self.path, "truncated frame at the end"));
                }
                Ok(0) => return Ok(None),
                Ok(n) => self.splitter.push(&self.chunk[..n]),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => {
                    // What cannot be read now is at its end.
                    self.splitter = Splitter::default();
                    self.file = File::open("/dev/null").map_err(|e| e.to_string())?;
                    return Err(bad(&self.path, &e.to_string()));
                }
            }
        }
    }
}

fn has_extension(path: &Path, known: &[&str]) -> bool {
    let extension = path.extension().and_then(|e| e.to_str());
    extension.is_some_and(|e| known.iter().any(|k| k.eq_ignore_ascii_case(e)))
}

fn is_stream(path: &Path) -> bool {
    has_extension(path, &STREAMS)
}

/// The files that a pattern means, sorted.
fn list(pattern: &str) -> Result<Vec<PathBuf>, String> {
    let path = Path::new(pattern);
    // A name that exists is no pattern, whatever brackets are in it.
    let mut files: Vec<PathBuf> = if path.is_dir() {
        let entries = fs::read_dir(path).map_err(|e| e.to_string())?;
        let files = entries.flatten().map(|entry| entry.path());
        files
            .filter(|f| f.is_file() && (has_extension(f, &IMAGES) || is_stream(f)))
            .collect()
    } else if path.exists() {
        vec![path.into()]
    } else {
        let matches =
            glob::glob(pattern).map_err(|e| format!("no such file, and no pattern: {e}"))?;
        matches.flatten().filter(|f| f.is_file()).collect()
    };
    files.sort_unstable();
    match files.is_empty() {
        false => Ok(files),
        true if path.is_dir() => Err(format!(
            "the directory has no images ({}, {})",
            IMAGES.join(", "),
            STREAMS.join(", ")
        )),
        true => Err("no such file or directory, and no file matches".into()),
    }
}

/// Reads an image: a JPEG's bytes as they are, others decoded to RGB.
fn load(path: &Path, data: &mut Vec<u8>) -> Result<(PixelFormat, Geometry), String> {
    let bad = |why: String| format!("{}: {why}", path.display());
    let file = File::open(path).map_err(|e| bad(e.to_string()))?;
    let mut limited = file.take(MAX_FRAME_BYTES as u64 + 1);
    limited.read_to_end(data).map_err(|e| bad(e.to_string()))?;
    if data.len() > MAX_FRAME_BYTES {
        return Err(bad(format!("larger than {} MiB", MAX_FRAME_BYTES >> 20)));
    }
    if data.starts_with(&[0xFF, 0xD8]) {
        let (w, h) = mjpeg::inspect(data).map_err(|why| bad(why.into()))?;
        return Ok((
            PixelFormat::Mjpeg,
            Geometry::packed(w, h, PixelFormat::Mjpeg),
        ));
    }
    let format = image::guess_format(data)
        .map_err(|_| bad("no image that can be read (jpeg, png, bmp, webp)".into()))?;
    let mut reader = image::ImageReader::with_format(io::Cursor::new(&data[..]), format);
    let mut limits = image::Limits::default();
    limits.max_image_width = Some(MAX_SIDE_PX);
    limits.max_image_height = Some(MAX_SIDE_PX);
    limits.max_alloc = Some(MAX_DECODED_BYTES);
    reader.limits(limits);
    let rgb = reader.decode().map_err(|e| bad(e.to_string()))?.into_rgb8();
    let (w, h) = rgb.dimensions();
    data.clear();
    data.extend_from_slice(rgb.as_raw());
    Ok((
        PixelFormat::Rgb24,
        Geometry::packed(w, h, PixelFormat::Rgb24),
    ))
}

#[cfg(test)]
mod tests {
    use super::super::mjpeg::tests::tiny_jpeg;
    use super::*;

    struct Folder(tempfile::TempDir);

    impl Folder {
        fn new(files: &[(&str, Vec<u8>)]) -> Self {
            let dir = tempfile::tempdir().unwrap();
            for (name, bytes) in files {
                fs::write(dir.path().join(name), bytes).unwrap();
            }
            Self(dir)
        }

        fn path(&self, name: &str) -> String {
            self.0.path().join(name).display().to_string()
        }
    }

    fn settings() -> CaptureSettings {
        CaptureSettings::new("files:x".parse().unwrap())
    }

    fn open(pattern: &str, settings: &CaptureSettings) -> Result<FilesSource, CaptureError> {
        FilesSource::open(pattern, settings, CaptureContext::for_tests("porch"))
    }

    fn encoded(format: image::ImageFormat) -> Vec<u8> {
        let mut bytes = io::Cursor::new(vec![]);
        let rgb = image::RgbImage::from_fn(5, 3, |x, y| image::Rgb([x as u8, y as u8, 200]));
        rgb.write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    /// Frames as (sequence, format, width) and skips as (number, message), until the end.
    type Played = (Vec<(u64, PixelFormat, u32)>, Vec<String>);

    fn play(source: &mut FilesSource) -> Played {
        let (mut frames, mut skipped) = (vec![], vec![]);
        loop {
            match source.next() {
                Ok(f) => frames.push((f.meta.sequence, f.format, f.geometry.width)),
                Err(CaptureError::Skip(why)) => skipped.push(why),
                Err(CaptureError::Ended) => return (frames, skipped),
                Err(e) => panic!("{e}"),
            }
        }
    }

    #[test]
    fn a_directory_plays_in_order_and_skips_what_is_no_image() {
        let folder = Folder::new(&[
            ("a.JPG", tiny_jpeg(64, 48, 1)),
            ("b.png", encoded(image::ImageFormat::Png)),
            ("c.jpg", b"no image at all".to_vec()),
            ("d.bmp", encoded(image::ImageFormat::Bmp)),
            ("e.jpg", tiny_jpeg(64, 48, 1)[..70].to_vec()),
            ("f.webp", encoded(image::ImageFormat::WebP)),
            ("g.jpg", vec![]),
            (
                "h.mjpeg",
                [tiny_jpeg(32, 24, 1), tiny_jpeg(16, 12, 2)].concat(),
            ),
            ("notes.txt", b"not looked at".to_vec()),
        ]);
        let mut source = open(&folder.path(""), &settings()).unwrap();
        assert!(source.lossless());
        let (frames, skipped) = play(&mut source);
        use PixelFormat::{Mjpeg, Rgb24};
        let expected = [
            (0, Mjpeg, 64),
            (1, Rgb24, 5),
            (3, Rgb24, 5),
            (5, Rgb24, 5),
            (7, Mjpeg, 32),
            (8, Mjpeg, 16),
        ];
        assert_eq!(frames, expected);
        assert_eq!(skipped.len(), 3);
        assert!(
            skipped[0].contains("c.jpg") && skipped[0].contains("no image"),
            "{skipped:?}"
        );
        let (frames, _) = play(&mut open(&folder.path("[a-b].*"), &settings()).unwrap());
        assert_eq!(frames.len(), 2);
    }

    #[test]
    fn pixels_and_bytes_are_as_in_the_file() {
        let jpeg = tiny_jpeg(64, 48, 1);
        let folder = Folder::new(&[
            ("a.jpg", jpeg.clone()),
            ("b.png", encoded(image::ImageFormat::Png)),
        ]);
        let mut source = open(&folder.path(""), &settings()).unwrap();
        assert_eq!(**source.next().unwrap().data, *jpeg);
        let png = source.next().unwrap();
        assert_eq!(
            png.geometry,
            Geometry {
                width: 5,
                height: 3,
                stride_bytes: 15
            }
        );
        assert_eq!(png.data[(5 + 4) * 3..(5 + 4) * 3 + 3], [4, 1, 200]);
    }

    #[test]
    fn what_can_never_play_is_refused() {
        let folder = Folder::new(&[
            ("notes.txt", b"hello".to_vec()),
            ("broken.jpg", b"\xFF\xD8\xFF".to_vec()),
        ]);
        let empty = Folder::new(&[]);
        let cases = [
            (folder.path("nothing-here"), "nothing-here"),
            (folder.path("*.png"), "no file matches"),
            (empty.path(""), "no images"),
            (folder.path("notes.txt"), "no image that can be read"),
            (folder.path("broken.jpg"), "truncated"),
        ];
        for (pattern, says) in cases {
            match open(&pattern, &settings()) {
                Err(CaptureError::Invalid(m)) => assert!(m.contains(says), "{m}"),
                other => panic!("{pattern}: {:?}", other.err()),
            }
        }
    }

    #[test]
    fn a_bomb_is_skipped() {
        // A PNG header that claims 100,000 × 100,000 pixels.
        let mut bomb = encoded(image::ImageFormat::Png);
        bomb[16..24].copy_from_slice(&[0, 1, 0x86, 0xA0, 0, 1, 0x86, 0xA0]);
        let folder = Folder::new(&[("a.png", bomb), ("b.jpg", tiny_jpeg(64, 48, 1))]);
        let (frames, skipped) = play(&mut open(&folder.path(""), &settings()).unwrap());
        assert_eq!((frames.len(), skipped.len()), (1, 1));
    }

    #[test]
    fn repeating_goes_on_counting_and_does_not_spin() {
        let folder = Folder::new(&[("a.jpg", tiny_jpeg(64, 48, 1)), ("b.jpg", vec![])]);
        let mut repeated = settings();
        repeated.repeat = true;
        let mut source = open(&folder.path(""), &repeated).unwrap();
        let mut sequences = vec![];
        for _ in 0..6 {
            sequences.extend(source.next().ok().map(|f| f.meta.sequence));
        }
        assert_eq!(sequences, [0, 2, 4]);
        let bad = Folder::new(&[("a.jpg", vec![]), ("b.jpg", vec![])]);
        let mut source = open(&bad.path(""), &repeated).unwrap();
        let ends: Vec<_> = (0..3).map(|_| source.next().unwrap_err()).collect();
        assert!(matches!(ends[2], CaptureError::Lost(_)), "{ends:?}");
    }

    #[test]
    fn a_rate_is_kept_by_the_clock() {
        let folder = Folder::new(&[
            ("a.jpg", tiny_jpeg(64, 48, 1)),
            ("b.jpg", tiny_jpeg(64, 48, 2)),
        ]);
        let mut at_rate = settings();
        at_rate.fps = Some(20.0);
        at_rate.repeat = true;
        let mut source = open(&folder.path(""), &at_rate).unwrap();
        assert!(!source.lossless());
        let start = Instant::now();
        for nth in 0..4 {
            let captured_at = source.next().unwrap().meta.captured_at;
            assert!(
                captured_at - start >= Duration::from_millis(50) * nth,
                "{nth}"
            );
        }
        for fps in [0.0, -1.0, f64::NAN] {
            at_rate.fps = Some(fps);
            assert!(
                matches!(
                    open(&folder.path(""), &at_rate),
                    Err(CaptureError::Invalid(_))
                ),
                "{fps}"
            );
        }
    }
}
