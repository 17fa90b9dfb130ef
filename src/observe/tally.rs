//! What zones and lines counted, kept over restarts: `counts.json`.
//!
//! In: a directory, each camera's newest counts, on the `infer-<n>` threads, without waiting for a disk. Out: what was counted before.
//! Always holds: the file is the old one or the new one, never half of one; it is written by a thread of its own, at once and then at
//! most each [`PERIOD`], so that a crash costs no more than that; a file that cannot be read is set aside and said.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::zones::Counts;
use crate::replace::{read_or_set_aside, replace};

/// Least time between two writes: a busy street must not wear an SD card out.
const PERIOD: Duration = Duration::from_secs(30);
const FILE: &str = "counts.json";
const MAX_BYTES: u64 = 4 << 20;

/// All cameras' counts; clones share them.
#[derive(Debug, Clone)]
pub struct Tally {
    shared: Arc<Shared>,
    /// Wakes the thread that writes; `None` without a directory.
    wake: Option<Sender<()>>,
}

#[derive(Debug)]
struct Shared {
    directory: Option<PathBuf>,
    /// Also of cameras that are not there now, so that they go on when they come back.
    counts: Mutex<BTreeMap<String, Arc<Counts>>>,
    /// Held while the file is written: the thread and a stop do not write at once.
    writing: Mutex<()>,
}

impl Tally {
    /// Goes on where the last life with this directory ended; without a directory nothing is kept.
    pub fn open(directory: Option<&Path>) -> Self {
        let counts = directory.map(|d| read_or_set_aside(d, FILE, MAX_BYTES));
        let shared = Arc::new(Shared {
            directory: directory.map(Path::to_path_buf),
            counts: Mutex::new(counts.unwrap_or_default()),
            writing: Mutex::new(()),
        });
        if directory.is_none() {
            return Self { shared, wake: None };
        }
        let (wake, rx) = bounded(1);
        let keeper = shared.clone();
        let thread = std::thread::Builder::new()
            .name("counts".into())
            .spawn(move || keep(&keeper, &rx));
        if let Err(e) = thread {
            tracing::error!("cannot start the thread counts: {e}");
        }
        Self {
            shared,
            wake: Some(wake),
        }
    }

    /// What was counted for a camera, up to now.
    pub fn get(&self, camera: &str) -> Option<Arc<Counts>> {
        self.shared.counts().get(camera).cloned()
    }

    /// What is counted now. Never waits for a disk.
    pub fn put(&self, camera: &str, counts: Arc<Counts>) {
        self.shared.counts().insert(camera.into(), counts);
        if let Some(wake) = &self.wake {
            let _ = wake.try_send(());
        }
    }

    /// At a clean stop: nothing is lost.
    pub fn close(&self) {
        if let Err(e) = self.shared.write() {
            tracing::warn!("cannot keep counts: {e}");
        }
    }
}

fn keep(shared: &Shared, wake: &Receiver<()>) {
    let mut failed = false;
    while wake.recv().is_ok() {
        let written = shared.write();
        if let (Err(e), false) = (&written, failed) {
            tracing::error!("cannot keep counts: {e}; going on without");
        }
        failed = written.is_err();
        std::thread::sleep(PERIOD);
    }
}

impl Shared {
    fn counts(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Counts>>> {
        self.counts.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn write(&self) -> std::io::Result<()> {
        let Some(directory) = &self.directory else {
            return Ok(());
        };
        let _writing = self.writing.lock().unwrap_or_else(|e| e.into_inner());
        let counts = self.counts().clone();
        if counts.is_empty() {
            return Ok(());
        }
        replace(directory, FILE, &serde_json::to_vec(&counts)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Instant, SystemTime};

    fn counts(entered: u64) -> Arc<Counts> {
        let mut counts = Counts::since(SystemTime::UNIX_EPOCH);
        let door = counts.zones.entry("door".into()).or_default();
        door.entered.insert("person".into(), entered);
        Arc::new(counts)
    }

    #[test]
    fn counts_come_back_after_a_stop_and_the_first_ones_after_a_crash() {
        let dir = tempfile::tempdir().unwrap();
        let tally = Tally::open(Some(dir.path()));
        assert_eq!(tally.get("a"), None);
        tally.put("a", counts(1));
        let start = Instant::now();
        while Tally::open(Some(dir.path())).get("a") != Some(counts(1)) {
            assert!(start.elapsed().as_secs() < 20, "nothing was written");
            std::thread::sleep(Duration::from_millis(5));
        }
        tally.put("a", counts(2));
        tally.put("b", counts(7));
        tally.close();
        let again = Tally::open(Some(dir.path()));
        assert_eq!(
            (again.get("a"), again.get("b")),
            (Some(counts(2)), Some(counts(7)))
        );
        // A camera that is away keeps its own.
        again.put("b", counts(8));
        again.close();
        let again = Tally::open(Some(dir.path()));
        assert_eq!(
            (again.get("a"), again.get("b")),
            (Some(counts(2)), Some(counts(8)))
        );
    }

    #[test]
    fn damaged_counts_are_set_aside_and_without_a_directory_nothing_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), "{\"a\":{").unwrap();
        let tally = Tally::open(Some(dir.path()));
        assert_eq!(tally.get("a"), None);
        assert!(dir.path().join("counts.json.bad").exists());
        let nowhere = Tally::open(None);
        nowhere.put("a", counts(1));
        nowhere.close();
        assert_eq!(nowhere.get("a"), Some(counts(1)));
    }
}
