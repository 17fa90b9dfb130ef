//! One line of JSON an observation: `--output jsonl`.
//!
//! In: observations, from the inference threads. Out: lines to a writer, on the thread `jsonl`. Always holds:
//! [`JsonlSink`] never blocks its caller; a reader that goes away (`… | head`) ends it quietly.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use super::Sink;
use super::mqtt::payload;
use crate::observe::{Observation, Publication};
use crate::stats::Stats;

/// How many observations wait for the writer at most.
const QUEUE: usize = 1024;

enum Line {
    Observation(Arc<Observation>),
    Finish(Sender<()>),
}

/// Writes observations as lines. When its queue of 1024 is full, the new observation is dropped and counted in
/// `queue_full`: the reader sees a gap in `seq`.
#[derive(Debug)]
pub struct JsonlSink {
    lines: Sender<Line>,
    closed: Arc<AtomicBool>,
    stats: Arc<Stats>,
}

impl JsonlSink {
    /// Starts the thread. `on_closed` is called on it, once, if the writer fails; a reader that went away is
    /// [`io::ErrorKind::BrokenPipe`], and most programs then end without a word.
    pub fn start(
        writer: impl Write + Send + 'static,
        device: &str,
        stats: Arc<Stats>,
        on_closed: impl FnOnce(io::Error) + Send + 'static,
    ) -> io::Result<Self> {
        let (lines, rx) = bounded(QUEUE);
        let closed = Arc::new(AtomicBool::new(false));
        let (device, ended) = (device.to_string(), closed.clone());
        thread::Builder::new().name("jsonl".into()).spawn(move || {
            if let Err(e) = write_lines(writer, &device, &rx) {
                ended.store(true, Relaxed);
                on_closed(e);
            }
        })?;
        Ok(Self {
            lines,
            closed,
            stats,
        })
    }

    /// Whether the writer has failed: nothing is written any more.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Relaxed)
    }

    /// Waits until everything taken so far is written, at most `limit`. Returns whether it is.
    pub fn finish(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        let (done, wait) = bounded(1);
        let sent = self.lines.send_deadline(Line::Finish(done), deadline);
        sent.is_ok() && wait.recv_deadline(deadline).is_ok()
    }
}

impl Sink for JsonlSink {
    fn publish(&self, publication: &Publication) {
        let Publication::Observation(o) = publication else {
            return;
        };
        match self.lines.try_send(Line::Observation(o.clone())) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => self.stats.queue_full.inc(),
            Err(TrySendError::Disconnected(_)) => {}
        }
    }
}

fn write_lines(mut writer: impl Write, device: &str, lines: &Receiver<Line>) -> io::Result<()> {
    for line in lines {
        match line {
            Line::Observation(o) => {
                let mut bytes = payload::record(device, &o);
                bytes.push(b'\n');
                writer.write_all(&bytes)?;
                // A person or a program waits for this line; only a backlog is written in bulk.
                if lines.is_empty() {
                    writer.flush()?;
                }
            }
            Line::Finish(done) => {
                writer.flush()?;
                let _ = done.send(());
            }
        }
    }
    writer.flush()
}

#[cfg(test)]
mod tests {
    use super::super::mqtt::test_observation as observation;
    use super::*;
    use std::sync::Mutex;

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(buf);
            Ok(buf.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn stats() -> Arc<Stats> {
        Arc::new(Stats::new(["a".into()]))
    }

    #[test]
    fn a_line_an_observation_in_order() {
        let out = Shared::default();
        let sink = JsonlSink::start(out.clone(), "dev", stats(), |e| panic!("{e}")).unwrap();
        for seq in 1..=50 {
            sink.publish(&Publication::Observation(observation("a", seq, seq == 7)));
        }
        assert!(sink.finish(Duration::from_secs(5)));
        let text = String::from_utf8(out.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<serde_json::Value> = text
            .lines()
            .map(|l| serde_json::from_str(l).unwrap())
            .collect();
        let seqs: Vec<_> = lines.iter().map(|l| l["seq"].as_u64().unwrap()).collect();
        assert_eq!(seqs, (1..=50).collect::<Vec<_>>());
        assert_eq!(lines[6]["event"]["event_type"], "appeared");
    }

    #[test]
    fn a_reader_that_goes_away_is_told_and_nobody_blocks() {
        struct Broken;
        impl Write for Broken {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (tx, rx) = bounded(1);
        let on_closed = move |e: io::Error| tx.send(e.kind()).unwrap();
        let sink = JsonlSink::start(Broken, "dev", stats(), on_closed).unwrap();
        sink.publish(&Publication::Observation(observation("a", 1, false)));
        let kind = rx.recv_timeout(Duration::from_secs(5)).unwrap();
        assert_eq!(kind, io::ErrorKind::BrokenPipe);
        assert!(sink.is_closed());
        assert!(!sink.finish(Duration::from_secs(5)));
        sink.publish(&Publication::Observation(observation("a", 2, false)));
    }

    #[test]
    fn a_stuck_reader_costs_counted_observations_not_time() {
        struct Stuck(Receiver<()>);
        impl Write for Stuck {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                let _ = self.0.recv();
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (release, stuck) = bounded(0);
        let stats = stats();
        let sink = JsonlSink::start(Stuck(stuck), "dev", stats.clone(), |_| {}).unwrap();
        let o = observation("a", 1, false);
        for _ in 0..QUEUE + 100 {
            sink.publish(&Publication::Observation(o.clone()));
        }
        let dropped = stats.queue_full.get();
        assert!((99..=100).contains(&dropped), "{dropped}");
        assert!(!sink.finish(Duration::from_millis(20)));
        drop(release);
    }
}
