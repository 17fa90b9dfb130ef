//! The spool: messages that wait on disk for the broker.
//!
//! In: messages and the ids of those that were acknowledged, from the `io` thread, never blocking it. Out: replies, in the
//! order of the requests. The file belongs to the thread `spool`, since an fsync on an SD card may take a second.
//! Always holds: a message of a [`Reply::Stored`] survives a power cut; one of a [`Reply::Refused`] comes back and is the
//! caller's again; whatever happens to the disk is told in [`SpoolStats`] and nothing ends because of it.

mod settings;
mod store;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};

pub use settings::{SpoolMode, SpoolOrder, SpoolSettings};
pub use store::{Bounds, Committed, Store, StoreError, Stored, set_aside};

use crate::clock::Clock;
use crate::stats::SpoolStats;

/// Acknowledged messages are taken out together with the next that come in, but at most so much later. A power cut meanwhile
/// costs no more than sending them again.
const REMOVE_AFTER: Duration = Duration::from_secs(2);
/// Or when there are so many of them.
const REMOVE_COUNT: usize = 256;
/// Messages of one commit.
const COMMIT_COUNT: usize = 512;
/// The age is looked at so often while nothing comes.
const EXPIRE_EVERY: Duration = Duration::from_secs(60);
/// After a failure the disk is left alone for so long.
pub const RETRY_AFTER: Duration = Duration::from_secs(10);

/// One message, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Where it goes.
    pub topic: String,
    /// The observation's number, for a person who looks into the file.
    pub seq: u64,
    /// When what it tells was seen, by the wall clock, in milliseconds; its age counts from then.
    pub at: SystemTime,
    /// What it says.
    pub payload: Bytes,
}

/// What the thread answers.
#[derive(Debug)]
pub enum Reply {
    /// To [`Spool::append`]: all of them are on the disk, under this id and the following.
    Stored {
        /// Id of the first.
        first: u64,
        /// How many.
        count: usize,
    },
    /// To [`Spool::append`]: the disk does not take them.
    Refused(Vec<Message>),
    /// To [`Spool::read`]: what is there; empty at the end.
    Messages(Vec<Stored>),
    /// To [`Spool::read`]: the file cannot be read now.
    Unreadable,
    /// The file was opened, at the start or after a failure: ids up to this one wait in it. Earlier ids mean nothing now.
    Opened {
        /// Id of the newest message, 0 if there is none.
        last: u64,
    },
}

enum Request {
    Append(Vec<Message>),
    Remove(Vec<u64>),
    Read {
        after: u64,
        count: usize,
        max_bytes: u64,
    },
    Close,
}

/// The near end of the thread. Dropping it writes what is to be written and ends the thread.
#[derive(Debug)]
pub struct Spool {
    requests: Sender<Request>,
    /// Replies, in the order of the requests.
    pub replies: Receiver<Reply>,
    thread: Option<JoinHandle<()>>,
}

impl Spool {
    /// Starts the thread. `on_reply` is called on it after each reply: it should only wake somebody.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(
        directory: &Path,
        bounds: Bounds,
        stats: Arc<SpoolStats>,
        clock: Arc<dyn Clock>,
        on_reply: impl Fn() + Send + 'static,
    ) -> std::io::Result<Self> {
        let (requests, rx) = unbounded();
        let (tx, replies) = unbounded();
        let mut keeper = Keeper {
            directory: directory.into(),
            bounds,
            stats,
            clock,
            store: None,
            not_before: None,
            done: Vec::new(),
            next_id: 1,
            reply: Box::new(move |reply| {
                let _ = tx.send(reply);
                on_reply();
            }),
        };
        let thread = std::thread::Builder::new()
            .name("spool".into())
            .spawn(move || keeper.work(&rx))?;
        Ok(Self {
            requests,
            replies,
            thread: Some(thread),
        })
    }

    /// Stores messages; [`Reply::Stored`] or [`Reply::Refused`] follows for them. If the thread is gone they come back
    /// at once.
    pub fn append(&self, messages: Vec<Message>) -> Result<(), Vec<Message>> {
        match self.requests.send(Request::Append(messages)) {
            Ok(()) => Ok(()),
            Err(e) => match e.into_inner() {
                Request::Append(messages) => Err(messages),
                _ => Ok(()),
            },
        }
    }

    /// Takes acknowledged messages out, a little later; no reply.
    pub fn remove(&self, ids: Vec<u64>) {
        let _ = self.requests.send(Request::Remove(ids));
    }

    /// Asks for the messages after an id; one [`Reply::Messages`] follows.
    pub fn read(&self, after: u64, count: usize, max_bytes: u64) {
        let _ = self.requests.send(Request::Read {
            after,
            count,
            max_bytes,
        });
    }

    /// Writes what is to be written, for at most `limit`. Returns whether the thread has ended.
    pub fn close(&mut self, limit: Duration) -> bool {
        let _ = self.requests.send(Request::Close);
        let until = Instant::now() + limit;
        let Some(thread) = self.thread.take() else {
            return true;
        };
        while !thread.is_finished() {
            if Instant::now() >= until {
                return false;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        thread.join().is_ok()
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        let _ = self.requests.send(Request::Close);
    }
}

/// What the thread owns.
struct Keeper {
    directory: PathBuf,
    bounds: Bounds,
    stats: Arc<SpoolStats>,
    clock: Arc<dyn Clock>,
    store: Option<Store>,
    /// The disk failed: not again before.
    not_before: Option<Instant>,
    /// Acknowledged, still in the file.
    done: Vec<u64>,
    /// No id below this one is given to another message, whatever happens to the file.
    next_id: u64,
    reply: Box<dyn Fn(Reply) + Send>,
}

impl Keeper {
    fn work(&mut self, requests: &Receiver<Request>) {
        self.open();
        let mut done_since: Option<Instant> = None;
        let mut expire_at = Instant::now() + EXPIRE_EVERY;
        loop {
            let due = done_since.map_or(expire_at, |t| expire_at.min(t + REMOVE_AFTER));
            let request = match requests.recv_deadline(due) {
                Ok(r) => Some(r),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => Some(Request::Close),
            };
            let mut next = request;
            let mut batch = Vec::new();
            let mut parts = Vec::new();
            let mut ends = false;
            let mut reads = Vec::new();
            // Whatever came meanwhile shares one commit, up to the first request that needs its result.
            while let Some(request) = next.take() {
                match request {
                    Request::Append(messages) => {
                        parts.push(messages.len());
                        batch.extend(messages);
                    }
                    Request::Remove(ids) => self.done.extend(ids),
                    Request::Read {
                        after,
                        count,
                        max_bytes,
                    } => reads.push((after, count, max_bytes)),
                    Request::Close => ends = true,
                }
                if !ends && reads.is_empty() && batch.len() < COMMIT_COUNT {
                    next = requests.try_recv().ok();
                }
            }
            let now = Instant::now();
            if !self.done.is_empty() {
                done_since.get_or_insert(now);
            }
            let expires = now >= expire_at;
            if expires {
                expire_at = now + EXPIRE_EVERY;
            }
            let removes = self.done.len() >= REMOVE_COUNT
                || done_since.is_some_and(|t| now >= t + REMOVE_AFTER);
            if !batch.is_empty() || removes || expires || ends {
                self.commit(batch, &parts);
                if self.done.is_empty() {
                    done_since = None;
                } else {
                    done_since = Some(now);
                }
            }
            for (after, count, max_bytes) in reads {
                self.read(after, count, max_bytes);
            }
            if ends {
                return;
            }
        }
    }

    /// The open store, or nothing while the disk is left alone.
    fn open(&mut self) {
        if self.store.is_some() || self.not_before.is_some_and(|t| Instant::now() < t) {
            return;
        }
        let opened = match Store::open(&self.directory, self.bounds) {
            Err(StoreError::Damaged(why)) => {
                self.set_aside(&why);
                Store::open(&self.directory, self.bounds)
            }
            other => other,
        };
        match opened {
            Ok(mut store) => {
                self.not_before = None;
                self.stats.set_fault(None);
                store.skip_ids_below(self.next_id);
                (self.reply)(Reply::Opened {
                    last: store.last_id(),
                });
                self.store = Some(store);
                self.tell();
            }
            Err(e) => self.fail(&e),
        }
    }

    fn set_aside(&mut self, why: &str) {
        self.store = None;
        self.stats.errors.inc();
        match set_aside(&self.directory, self.clock.wall()) {
            Ok(path) => {
                self.stats.damaged.inc();
                tracing::error!(
                    "spool: the file is damaged ({why}); it is kept as {} and a new one begun",
                    path.display()
                );
            }
            Err(e) => tracing::error!(
                "spool: the file in {} is damaged ({why}) and cannot be renamed: {e}",
                self.directory.display()
            ),
        }
    }

    /// Says it once; goes on without the disk for a while.
    fn fail(&mut self, error: &StoreError) {
        self.stats.errors.inc();
        self.not_before = Some(Instant::now() + RETRY_AFTER);
        let fault = format!("{}: {error}", self.directory.display());
        if self.stats.set_fault(Some(fault)) {
            tracing::error!(
                "spool: {}: {error}; messages are sent, but not kept, until it works again",
                self.directory.display()
            );
        }
    }

    /// Stores `batch`, made of requests of the lengths `parts`, and takes out what is done.
    fn commit(&mut self, batch: Vec<Message>, parts: &[usize]) {
        match self.try_commit(&batch) {
            Ok(first) => {
                let mut first = first;
                for &count in parts {
                    (self.reply)(Reply::Stored { first, count });
                    first += count as u64;
                }
            }
            Err(()) => {
                let mut batch = batch.into_iter();
                for &count in parts {
                    (self.reply)(Reply::Refused(batch.by_ref().take(count).collect()));
                }
            }
        }
        self.tell();
    }

    fn try_commit(&mut self, batch: &[Message]) -> Result<u64, ()> {
        // A full disk is left alone for a while, too.
        if self.not_before.is_some_and(|t| Instant::now() < t) {
            return Err(());
        }
        // The second time on a new file, if the first found the old one damaged.
        for _ in 0..2 {
            self.open();
            let now: SystemTime = self.clock.wall();
            let Some(store) = &mut self.store else {
                return Err(());
            };
            match store.commit(batch, &self.done, now) {
                Ok(committed) => {
                    self.next_id = store.last_id() + 1;
                    self.done.clear();
                    self.not_before = None;
                    self.stats.set_fault(None);
                    self.stats.stored.add(batch.len() as u64);
                    if committed.dropped > 0 {
                        self.stats.dropped.add(committed.dropped);
                        tracing::debug!(
                            "spool: {} messages beyond the bounds dropped",
                            committed.dropped
                        );
                    }
                    for m in batch {
                        tracing::trace!(topic = m.topic, seq = m.seq, "stored");
                    }
                    return Ok(committed.first);
                }
                Err(StoreError::Damaged(why)) => self.set_aside(&why),
                Err(e) => {
                    self.fail(&e);
                    return Err(());
                }
            }
        }
        Err(())
    }

    fn read(&mut self, mut after: u64, count: usize, max_bytes: u64) {
        self.open();
        loop {
            let Some(store) = &self.store else {
                return (self.reply)(Reply::Unreadable);
            };
            let (mut messages, bad) = match store.read(after, count, max_bytes) {
                Ok(read) => read,
                Err(StoreError::Damaged(why)) => {
                    self.set_aside(&why);
                    self.open();
                    (Vec::new(), Vec::new())
                }
                Err(e) => {
                    self.fail(&e);
                    return (self.reply)(Reply::Unreadable);
                }
            };
            let last = messages.last().map(|s| s.id).max(bad.last().copied());
            messages.retain(|s| !self.done.contains(&s.id));
            if !bad.is_empty() {
                tracing::error!(
                    "spool: {} messages with a wrong checksum dropped",
                    bad.len()
                );
                self.stats.errors.add(bad.len() as u64);
                self.stats.dropped.add(bad.len() as u64);
                self.done.extend(bad);
            }
            match last {
                // Nothing but what is done already: an empty reply would say that this is the end.
                Some(last) if messages.is_empty() => after = last,
                _ => return (self.reply)(Reply::Messages(messages)),
            }
        }
    }

    fn tell(&self) {
        let (messages, bytes) = match &self.store {
            Some(s) => (s.messages(), s.bytes()),
            None => (0, 0),
        };
        self.stats.tell(messages, bytes);
    }
}
