//! Numbers that never start again: `seq` of a camera's observations, and those of tracks.
//!
//! In: a directory and the name of a file there. Out: numbers, on the `infer-<n>` threads, without waiting for a disk. Always holds: no number is given
//! twice by two lives of the program, unless there is no directory or it cannot be written *and* the clock went back.
//!
//! Numbers are reserved in blocks of [`BLOCK`], on a thread of its own, long before they are used up: one small file is
//! written every few minutes. After a clean stop the next life goes on without a gap; after a crash or a power cut, at the
//! next block.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::SystemTime;

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::replace::replace;

/// Numbers reserved at a time.
pub const BLOCK: u64 = 10_000;
/// Where the numbers of observations are kept, by camera.
pub const OBSERVATIONS: &str = "seq.json";
/// Where the numbers of tracks are kept, by camera and model.
pub const TRACKS: &str = "tracks.json";

/// One sequence of numbers.
#[derive(Debug, Clone)]
pub struct Sequence {
    of: Sequences,
    index: usize,
}

impl Sequence {
    /// One of its own, that begins at 1 and is kept nowhere.
    pub fn new() -> Self {
        let of = Sequences::open(None, TRACKS, ["".into()], SystemTime::UNIX_EPOCH);
        Self { of, index: 0 }
    }

    /// The next number. Never blocks.
    pub fn next(&self) -> u64 {
        self.of.next(self.index)
    }
}

impl Default for Sequence {
    fn default() -> Self {
        Self::new()
    }
}

/// Several sequences in one file; clones share them.
#[derive(Debug, Clone)]
pub struct Sequences {
    shared: Arc<Shared>,
    /// Wakes the thread that reserves; `None` without a directory.
    wake: Option<Sender<()>>,
}

#[derive(Debug)]
struct Shared {
    directory: Option<PathBuf>,
    file: &'static str,
    rows: Vec<Row>,
    /// Those that are not there now, so that they go on when they come back.
    others: BTreeMap<String, u64>,
}

#[derive(Debug)]
struct Row {
    name: Arc<str>,
    last: AtomicU64,
    /// Numbers up to this one are this life's.
    reserved: AtomicU64,
}

impl Sequences {
    /// Goes on where the last life with this directory ended. Without a directory it begins at 1. Where the file cannot be
    /// read or written it begins at the milliseconds since 1970: more than any count of frames.
    pub fn open(
        directory: Option<&Path>,
        file: &'static str,
        names: impl IntoIterator<Item = Arc<str>>,
        now: SystemTime,
    ) -> Self {
        let from_clock = || {
            let since = now.duration_since(SystemTime::UNIX_EPOCH);
            since.map_or(0, |t| t.as_millis() as u64)
        };
        let mut others = BTreeMap::new();
        let mut floor = 0;
        if let Some(directory) = directory {
            match read(&directory.join(file)) {
                Ok(numbers) => others = numbers,
                Err(why) => {
                    floor = from_clock();
                    tracing::error!(
                        "{}: {why}; numbers go on from {}",
                        directory.join(file).display(),
                        floor + 1
                    );
                }
            }
        }
        let rows = names.into_iter().map(|name| {
            let last = others.remove(&*name).unwrap_or(0).max(floor);
            Row {
                name,
                last: last.into(),
                reserved: last.into(),
            }
        });
        let shared = Arc::new(Shared {
            directory: directory.map(Path::to_path_buf),
            file,
            rows: rows.collect(),
            others,
        });
        let Some(directory) = directory else {
            return Self { shared, wake: None };
        };
        if let Err(e) = shared.reserve() {
            // The next life would read the same numbers again.
            let floor = from_clock();
            tracing::error!(
                "{}: {e}; numbers go on from {}",
                directory.join(file).display(),
                floor + 1
            );
            for row in &shared.rows {
                row.last.fetch_max(floor, Relaxed);
            }
        }
        let (wake, rx) = bounded(1);
        let keeper = shared.clone();
        let thread = std::thread::Builder::new()
            .name("seq".into())
            .spawn(move || keep(&keeper, &rx));
        if let Err(e) = thread {
            tracing::error!("cannot start the thread seq: {e}");
        }
        Self {
            shared,
            wake: Some(wake),
        }
    }

    /// One of them, by its place among the names.
    pub fn of(&self, index: usize) -> Sequence {
        Sequence {
            of: self.clone(),
            index,
        }
    }

    fn next(&self, index: usize) -> u64 {
        let row = &self.shared.rows[index];
        let number = row.last.fetch_add(1, Relaxed) + 1;
        if let Some(wake) = &self.wake
            && number + BLOCK / 2 > row.reserved.load(Relaxed)
        {
            let _ = wake.try_send(());
        }
        number
    }

    /// At a clean stop: the next life goes on with the next number.
    pub fn close(&self) {
        if let Some(directory) = &self.shared.directory {
            let exact = |row: &Row| row.last.load(Relaxed);
            if let Err(e) = self.shared.write(directory, &self.shared.numbers(exact)) {
                tracing::warn!("{}: {e}", directory.join(self.shared.file).display());
            }
        }
    }
}

fn keep(shared: &Shared, wake: &Receiver<()>) {
    let mut failed = false;
    while wake.recv().is_ok() {
        match shared.reserve() {
            Ok(()) => failed = false,
            Err(e) if !failed => {
                failed = true;
                let file = shared.file;
                tracing::error!("cannot reserve numbers in {file}: {e}; going on without");
            }
            Err(_) => {}
        }
        // A disk that fails is not tried at each frame.
        if failed {
            std::thread::sleep(std::time::Duration::from_secs(10));
        }
    }
}

impl Shared {
    fn reserve(&self) -> std::io::Result<()> {
        let Some(directory) = &self.directory else {
            return Ok(());
        };
        let numbers = self.numbers(|row| (row.last.load(Relaxed) / BLOCK + 2) * BLOCK);
        self.write(directory, &numbers)?;
        for row in &self.rows {
            row.reserved.store(numbers[&*row.name], Relaxed);
        }
        Ok(())
    }

    fn numbers(&self, of: impl Fn(&Row) -> u64) -> BTreeMap<String, u64> {
        let mut numbers = self.others.clone();
        numbers.extend(self.rows.iter().map(|row| (row.name.to_string(), of(row))));
        numbers
    }

    fn write(&self, directory: &Path, numbers: &BTreeMap<String, u64>) -> std::io::Result<()> {
        replace(directory, self.file, &serde_json::to_vec(numbers)?)
    }
}

/// No file: nothing was numbered yet.
fn read(path: &Path) -> Result<BTreeMap<String, u64>, String> {
    match std::fs::read(path) {
        Ok(text) => serde_json::from_slice(&text).map_err(|e| e.to_string()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(e) => Err(e.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(dir: &Path, cameras: &[&str]) -> Sequences {
        let cameras = cameras.iter().map(|c| Arc::from(*c));
        Sequences::open(Some(dir), OBSERVATIONS, cameras, SystemTime::now())
    }

    #[test]
    fn numbers_go_on_after_a_stop_and_after_a_crash() {
        let dir = tempfile::tempdir().unwrap();
        let s = open(dir.path(), &["a", "b"]);
        assert_eq!((s.next(0), s.next(0), s.next(1)), (1, 2, 1));
        s.close();
        let s = open(dir.path(), &["b", "c"]);
        assert_eq!((s.next(0), s.next(1)), (2, 1));
        // Not closed: a crash.
        let s = open(dir.path(), &["a", "b"]);
        let (a, b) = (s.next(0), s.next(1));
        assert_eq!(a, 3, "a camera that was away goes on");
        assert_eq!(b, 2 * BLOCK + 1);
    }

    #[test]
    fn a_crash_after_many_numbers_never_gives_one_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut last = 0;
        for life in 0..4 {
            let s = open(dir.path(), &["a"]);
            for n in 0..3 * BLOCK {
                let seq = s.next(0);
                assert!(seq > last, "life {life}, number {n}");
                last = seq;
                // As slow as the slowest disk that is still fast enough.
                let c = &s.shared.rows[0];
                let start = std::time::Instant::now();
                while seq + BLOCK / 4 > c.reserved.load(Relaxed) {
                    assert!(start.elapsed().as_secs() < 120, "nothing was reserved");
                    std::thread::yield_now();
                }
            }
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_or_written_is_overtaken_by_the_clock() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(OBSERVATIONS), "{").unwrap();
        let first = open(dir.path(), &["a"]).next(0);
        assert!(first > 1_700_000_000_000, "{first}");
        let nowhere = open(Path::new("/proc/no-such-directory"), &["a"]).next(0);
        assert!(nowhere >= first);
        let none = Sequences::open(None, OBSERVATIONS, ["a".into()], SystemTime::now());
        assert_eq!(none.next(0), 1);
    }
}
