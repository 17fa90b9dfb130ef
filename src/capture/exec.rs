//! `exec:` — any program that writes MJPEG or raw frames to its standard output.
//!
//! In: a command line for `sh -c`. Out: [`Frame`]s; the program's standard error goes to the log. On the
//! `capture-<camera>` thread, with no thread of its own: it polls both pipes. Always holds: the program and all that it
//! started are in a process group of their own, ended (TERM, after a second KILL) and reaped when the source is dropped;
//! at most one frame and one chunk are kept.

use std::io::{ErrorKind, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use super::mjpeg::{self, Popped, Splitter};
use super::{CaptureContext, CaptureError, CaptureSettings, Source, TURN};
use crate::frame::{Frame, FrameBuf, Geometry, PixelFormat};

/// As much as a pipe holds by default.
const CHUNK_BYTES: usize = 64 << 10;
/// Between TERM and KILL.
const GRACE: Duration = Duration::from_secs(1);
/// The largest raw frame: 8K of RGB is 100 MB.
const MAX_RAW_BYTES: usize = 128 << 20;

/// A running program that gives frames.
pub struct ExecSource {
    process: Process,
    parser: Parser,
    chunk: Vec<u8>,
    sequence: u64,
    timeout: Duration,
    context: CaptureContext,
}

enum Parser {
    Mjpeg(Splitter),
    Raw {
        format: PixelFormat,
        geometry: Geometry,
        frame_bytes: usize,
        partial: FrameBuf,
        /// Read, but of the frame after.
        rest: Vec<u8>,
    },
}

impl ExecSource {
    /// Starts the program. Raw formats need a `size`, else [`CaptureError::Invalid`].
    pub fn open(
        command: &str,
        settings: &CaptureSettings,
        context: CaptureContext,
    ) -> Result<Self, CaptureError> {
        let parser = match settings.format.unwrap_or(PixelFormat::Mjpeg) {
            PixelFormat::Mjpeg => Parser::Mjpeg(Splitter::default()),
            format => raw_parser(format, settings.size, &context)?,
        };
        Ok(Self {
            process: Process::start(command, &context)?,
            parser,
            chunk: vec![0; CHUNK_BYTES],
            sequence: 0,
            timeout: settings.timeout,
            context,
        })
    }

    /// The next frame of what was read, whole or not.
    fn parse(&mut self) -> Option<Result<Frame, CaptureError>> {
        let (format, geometry, data) = match &mut self.parser {
            Parser::Mjpeg(splitter) => {
                let mut data = self.context.pool.take();
                let inspected = match splitter.pop(&mut data) {
                    Popped::More => return None,
                    Popped::Bad(why) => Err(why),
                    Popped::Frame => mjpeg::inspect(&data),
                };
                match inspected {
                    Ok((w, h)) => (
                        PixelFormat::Mjpeg,
                        Geometry::packed(w, h, PixelFormat::Mjpeg),
                        data,
                    ),
                    Err(why) => {
                        self.sequence += 1;
                        return Some(Err(CaptureError::Skip(why.into())));
                    }
                }
            }
            Parser::Raw {
                format,
                geometry,
                frame_bytes,
                partial,
                rest,
            } => {
                let missing = *frame_bytes - partial.len();
                let taken = missing.min(rest.len());
                partial.extend(rest.drain(..taken));
                if partial.len() < *frame_bytes {
                    return None;
                }
                let data = std::mem::replace(partial, self.context.pool.take());
                (*format, *geometry, data)
            }
        };
        let sequence = self.sequence;
        self.sequence += 1;
        Some(Ok(self.context.frame(format, geometry, data, sequence)))
    }
}

fn raw_parser(
    format: PixelFormat,
    size: Option<(u32, u32)>,
    context: &CaptureContext,
) -> Result<Parser, CaptureError> {
    let invalid = |why: String| CaptureError::Invalid(format!("camera {}: {why}", context.camera));
    let (w, h) = size.ok_or_else(|| {
        invalid(format!(
            "raw {format} frames need a size, as in `size = [640, 480]`"
        ))
    })?;
    let geometry = Geometry::packed(w, h, format);
    // Before multiplying: on a 32-bit machine a frame could be larger than the address space.
    let sane = (1..=16_384).contains(&w) && (1..=16_384).contains(&h);
    let frame_bytes = format
        .frame_bytes(h, geometry.stride_bytes)
        .filter(|n| sane && *n <= MAX_RAW_BYTES)
        .ok_or_else(|| invalid(format!("{w}x{h} is no size for {format} frames")))?;
    Ok(Parser::Raw {
        format,
        geometry,
        frame_bytes,
        partial: context.pool.take(),
        rest: Vec::new(),
    })
}

impl Source for ExecSource {
    fn next(&mut self) -> Result<Frame, CaptureError> {
        let deadline = Instant::now() + self.timeout;
        loop {
            if let Some(result) = self.parse() {
                return result;
            }
            if self.context.shutdown.is_requested() {
                return Err(CaptureError::Stopped);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let timeout = self.timeout;
                return Err(self.process.lost(format_args!("no frame for {timeout:?}")));
            }
            match self.process.read(&mut self.chunk, left.min(TURN)) {
                Event::Output(n) => match &mut self.parser {
                    Parser::Mjpeg(splitter) => splitter.push(&self.chunk[..n]),
                    Parser::Raw { rest, .. } => rest.extend_from_slice(&self.chunk[..n]),
                },
                Event::Nothing => {}
                Event::Ended => return Err(self.process.ended()),
            }
        }
    }

    fn describe(&self) -> String {
        let command = &self.process.command;
        match &self.parser {
            Parser::Mjpeg(_) => format!("mjpeg from `{command}`"),
            Parser::Raw {
                format, geometry, ..
            } => format!(
                "{format} {}x{} from `{command}`",
                geometry.width, geometry.height
            ),
        }
    }
}

/// The program, its pipes and its end.
struct Process {
    child: Child,
    group: Pid,
    /// `None` once it is closed.
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    log: LineLog,
    command: String,
    context: CaptureContext,
}

enum Event {
    /// So many bytes of a frame were read.
    Output(usize),
    /// None, in the time given.
    Nothing,
    /// The standard output was closed.
    Ended,
}

impl Process {
    fn start(command: &str, context: &CaptureContext) -> Result<Self, CaptureError> {
        let mut child = {
            let _guard = super::spawn_guard();
            Command::new("sh")
                .args(["-c", command])
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .process_group(0)
                .spawn()
        }
        .map_err(|e| CaptureError::Lost(format!("cannot start `sh`: {e}")))?;
        Ok(Self {
            group: Pid::from_child(&child),
            stdout: child.stdout.take(),
            stderr: child.stderr.take(),
            child,
            log: LineLog::default(),
            command: command.into(),
            context: context.clone(),
        })
    }

    /// Waits for bytes up to `timeout`, passing lines of the standard error on to the log.
    fn read(&mut self, chunk: &mut [u8], timeout: Duration) -> Event {
        let Some(stdout) = &mut self.stdout else {
            return Event::Ended;
        };
        let mut fds = vec![PollFd::new(&*stdout, PollFlags::IN)];
        fds.extend(self.stderr.as_ref().map(|e| PollFd::new(e, PollFlags::IN)));
        // A signal to the process is no event of ours.
        if poll(&mut fds, Some(&timespec(timeout))).is_err() {
            return Event::Nothing;
        }
        let output = !fds[0].revents().is_empty();
        let messages = fds.get(1).is_some_and(|f| !f.revents().is_empty());
        drop(fds);
        let event = match output.then(|| stdout.read(chunk)) {
            None => Event::Nothing,
            Some(Ok(0)) => Event::Ended,
            Some(Ok(n)) => Event::Output(n),
            Some(Err(e)) if e.kind() == ErrorKind::Interrupted => Event::Nothing,
            Some(Err(_)) => Event::Ended,
        };
        if messages {
            self.read_messages();
        }
        event
    }

    /// Reads what is there of the standard error; only after a poll said that there is something.
    fn read_messages(&mut self) {
        let mut bytes = [0; 4096];
        let read = self.stderr.as_mut().map(|e| e.read(&mut bytes));
        let camera = &self.context.camera;
        let emit = |line: &str| tracing::info!(%camera, "{line}");
        match read {
            Some(Ok(n)) if n > 0 => self.log.feed(&bytes[..n], Instant::now(), emit),
            Some(Err(e)) if e.kind() == ErrorKind::Interrupted => {}
            _ => {
                self.stderr = None;
                self.log.feed(b"\n", Instant::now(), emit);
            }
        }
    }

    /// Reads the standard error until `done` or its end or the deadline.
    fn drain_messages(&mut self, deadline: Instant, mut done: impl FnMut(&mut Self) -> bool) {
        const STEP: Duration = Duration::from_millis(10);
        while !done(self) && Instant::now() < deadline {
            let Some(stderr) = &self.stderr else {
                std::thread::sleep(STEP);
                continue;
            };
            let mut fds = [PollFd::new(stderr, PollFlags::IN)];
            let ready = poll(&mut fds, Some(&timespec(STEP)));
            if matches!(ready, Ok(n) if n > 0) {
                self.read_messages();
            }
        }
    }

    /// Whether the shell has ended. It is not reaped, so that its process group's number stays ours.
    fn has_ended(&self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        !matches!(waitid(WaitId::Pid(self.group), options), Ok(None))
    }

    /// The error for a closed standard output: how the program ended, and what it said last.
    fn ended(&mut self) -> CaptureError {
        let half = GRACE / 2;
        self.drain_messages(Instant::now() + half, |p| {
            p.has_ended() && p.stderr.is_none()
        });
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let status = match waitid(WaitId::Pid(self.group), options) {
            Ok(Some(status)) => match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => format!("ended with exit status {code}"),
                (_, Some(signal)) => {
                    let signal = std::process::ExitStatus::from_raw(signal);
                    format!("was ended by {signal}")
                }
                _ => "ended".into(),
            },
            _ => "closed its output".into(),
        };
        self.lost(status)
    }

    fn lost(&self, why: impl std::fmt::Display) -> CaptureError {
        let said = match self.log.last() {
            "" => String::new(),
            last => format!("; it said: {last}"),
        };
        CaptureError::Lost(format!("`{}`: {why}{said}", cut(&self.command, 200)))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // First, so that a program that is blocked on a full pipe wakes up.
        self.stdout = None;
        let _ = kill_process_group(self.group, Signal::TERM);
        let gone = |p: &mut Self| p.has_ended() && p.stderr.is_none();
        self.drain_messages(Instant::now() + GRACE, gone);
        // Whatever is left of the group; the shell is not reaped yet, so the number is still its own.
        let _ = kill_process_group(self.group, Signal::KILL);
        let deadline = Instant::now() + GRACE;
        while !matches!(self.child.try_wait(), Ok(Some(_)) | Err(_)) {
            if Instant::now() > deadline {
                tracing::warn!(camera = %self.context.camera, "`{}` cannot be killed", self.command);
                break;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

fn timespec(d: Duration) -> Timespec {
    Timespec {
        tv_sec: d.as_secs() as _,
        tv_nsec: d.subsec_nanos() as _,
    }
}

/// The longest prefix of at most so many bytes.
fn cut(s: &str, bytes: usize) -> &str {
    &s[..s.floor_char_boundary(bytes)]
}

/// Cuts bytes into lines for the log: long lines short, many lines few.
#[derive(Debug, Default)]
struct LineLog {
    partial: Vec<u8>,
    last: String,
    window: Option<Instant>,
    in_window: u32,
    suppressed: u32,
}

impl LineLog {
    const LINE_BYTES: usize = 300;
    const LINES: u32 = 20;
    const WINDOW: Duration = Duration::from_secs(10);

    fn feed(&mut self, bytes: &[u8], now: Instant, mut emit: impl FnMut(&str)) {
        for &byte in bytes {
            match byte {
                // ffmpeg's progress ends its lines with CR.
                b'\n' | b'\r' => self.end_line(now, &mut emit),
                _ if self.partial.len() < Self::LINE_BYTES => self.partial.push(byte),
                _ => {}
            }
        }
    }

    fn end_line(&mut self, now: Instant, emit: &mut impl FnMut(&str)) {
        let line = printable(&self.partial);
        self.partial.clear();
        if line.is_empty() {
            return;
        }
        if self
            .window
            .is_none_or(|start| now.duration_since(start) >= Self::WINDOW)
        {
            if self.suppressed > 0 {
                emit(&format!("({} more lines)", self.suppressed));
            }
            (self.window, self.in_window, self.suppressed) = (Some(now), 0, 0);
        }
        if self.in_window < Self::LINES {
            self.in_window += 1;
            emit(&line);
        } else {
            self.suppressed += 1;
        }
        self.last = line;
    }

    /// The last line.
    fn last(&self) -> &str {
        &self.last
    }
}

/// Without colours and bells: the log is read on terminals.
fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.chars()
        .filter(|c| !c.is_control())
        .collect::<String>()
        .trim()
        .into()
}

#[cfg(test)]
mod tests {
    use super::super::mjpeg::tests::tiny_jpeg;
    use super::*;
    use std::io::Write;

    fn settings(timeout_ms: u64) -> CaptureSettings {
        let mut s = CaptureSettings::new("exec:true".parse().unwrap());
        s.timeout = Duration::from_millis(timeout_ms);
        s
    }

    fn open(command: &str, settings: &CaptureSettings) -> (ExecSource, CaptureContext) {
        let context = CaptureContext::for_tests("porch");
        let source = ExecSource::open(command, settings, context.clone()).unwrap();
        (source, context)
    }

    #[test]
    fn mjpeg_comes_out_frame_by_frame_and_the_end_is_explained() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let frames: Vec<_> = (1..4).map(|i| tiny_jpeg(64 * i, 48, i as u8)).collect();
        file.write_all(&[&frames[0][..], b"garbage", &frames[1], &frames[2]].concat())
            .unwrap();
        let command = format!(
            "cat {}; echo no more film >&2; exit 3",
            file.path().display()
        );
        let (mut source, _) = open(&command, &settings(10_000));
        let mut got = vec![];
        let mut skipped = 0;
        let end = loop {
            match source.next() {
                Ok(f) => got.push((f.geometry.width, f.data.to_vec(), f.meta.sequence)),
                Err(CaptureError::Skip(_)) => skipped += 1,
                Err(e) => break e.to_string(),
            }
        };
        let expected: Vec<_> = [(0, 0), (1, 2), (2, 3)]
            .map(|(i, sequence)| (64 * (i as u32 + 1), frames[i].clone(), sequence))
            .into();
        assert_eq!((got, skipped), (expected, 1));
        assert!(
            end.contains("exit status 3") && end.contains("no more film"),
            "{end}"
        );
    }

    #[test]
    fn raw_frames_are_cut_by_size() {
        let mut s = settings(10_000);
        s.format = Some(PixelFormat::Grey);
        let invalid = ExecSource::open("true", &s, CaptureContext::for_tests("porch"));
        assert!(matches!(invalid, Err(CaptureError::Invalid(m)) if m.contains("size")));
        s.size = Some((4, 2));
        let (mut source, _) = open("printf 'abcdefghABCDEFGHshort'", &s);
        assert_eq!(**source.next().unwrap().data, *b"abcdefgh");
        assert_eq!(**source.next().unwrap().data, *b"ABCDEFGH");
        assert!(matches!(source.next(), Err(CaptureError::Lost(_))));
        s.size = Some((60_000, 60_000));
        let huge = ExecSource::open("true", &s, CaptureContext::for_tests("porch"));
        assert!(matches!(huge, Err(CaptureError::Invalid(_))));
    }

    #[test]
    fn silence_is_a_loss_and_a_stop_is_heard() {
        let (mut source, _) = open("echo waiting >&2; sleep 600", &settings(400));
        let e = source.next().unwrap_err();
        assert!(
            matches!(&e, CaptureError::Lost(m) if m.contains("no frame") && m.contains("waiting")),
            "{e}"
        );
        let (mut source, context) = open("sleep 600", &settings(60_000));
        context.shutdown.request();
        assert!(matches!(source.next(), Err(CaptureError::Stopped)));
    }

    #[test]
    fn the_program_and_its_children_are_gone_after_the_drop() {
        // The shell ignores TERM and has a child that does, too: only KILL ends them.
        let (mut source, _) = open(
            "trap '' TERM; (sleep 600) & echo $$ >&2; while :; do sleep 1; done",
            &settings(300),
        );
        let said = source.next().unwrap_err().to_string();
        let group: i32 = said.rsplit(' ').next().unwrap().parse().unwrap();
        let group = Pid::from_raw(group).unwrap();
        assert!(rustix::process::test_kill_process_group(group).is_ok());
        drop(source);
        // Killed orphans are reaped by init, in its own time.
        let deadline = Instant::now() + Duration::from_secs(10);
        while alive(group) {
            assert!(Instant::now() < deadline, "group {group:?} is still there");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Whether a process of this group runs; zombies do not.
    fn alive(group: Pid) -> bool {
        let stat = |entry: std::fs::DirEntry| {
            let text = std::fs::read_to_string(entry.path().join("stat")).ok()?;
            let mut fields = text.rsplit_once(')')?.1.split_whitespace();
            let state = fields.next()?.to_string();
            Some((state, fields.nth(1)?.parse::<i32>().ok()?))
        };
        let entries = std::fs::read_dir("/proc").unwrap().flatten();
        entries
            .filter_map(stat)
            .any(|(s, g)| g == group.as_raw_nonzero().get() && s != "Z")
    }

    #[test]
    fn the_log_is_bounded() {
        let mut log = LineLog::default();
        let mut lines = vec![];
        let start = Instant::now();
        let mut feed = |text: &[u8], at| {
            log.feed(text, start + Duration::from_secs(at), |l| {
                lines.push(l.to_string())
            })
        };
        feed(b"half ", 0);
        feed(b"a line\r\x1b[31mred\n\n", 0);
        feed(&[b'x'; 5000], 0);
        feed(&b"\nline"[..].repeat(100), 1);
        feed(b"\nlast\n", 20);
        assert_eq!(lines[0], "half a line");
        assert_eq!(lines[1], "[31mred");
        assert_eq!(lines[2].len(), LineLog::LINE_BYTES);
        assert_eq!(lines.len(), 20 + 2 + 1);
        assert!(lines[20].contains("more lines"), "{}", lines[20]);
        assert_eq!(log.last(), "last");
    }
}
