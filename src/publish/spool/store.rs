//! The file of the spool: messages in the order in which they were stored, in SQLite.
//!
//! In: batches of messages and the ids of those that are done. Out: messages, oldest first. On the `spool` thread.
//! Always holds: a batch is stored as a whole or not at all, and is on the disk (fsync) when [`Store::commit`] returns;
//! ids only grow; the bounds in bytes and age hold after each commit, the oldest message goes first; memory does not grow
//! with the number of messages.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, params};

use super::Message;

const FILE: &str = "messages.db";
/// Layout of the table; a file with another one is set aside.
const VERSION: i64 = 1;
/// What a message costs on disk besides its topic and payload.
const OVERHEAD_BYTES: u64 = 64;
/// Damaged files that are kept to be looked at.
const KEEP_DAMAGED: usize = 2;

/// Bounds of a store.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bounds {
    /// Topics, payloads and 64 bytes a message. The file is somewhat larger.
    pub max_bytes: u64,
    /// By the wall clock.
    pub max_age: Duration,
}

/// A message in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Grows from message to message.
    pub id: u64,
    /// What was stored.
    pub message: Message,
}

/// What a commit did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Committed {
    /// The id of the batch's first message; the others follow it.
    pub first: u64,
    /// Messages that went because of the bounds.
    pub dropped: u64,
}

/// Why the store could not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file is not what was written: it should be set aside.
    #[error("damaged: {0}")]
    Damaged(String),
    /// Nothing can be written there.
    #[error("it is read-only")]
    ReadOnly,
    /// A full disk, a directory that cannot be made, a file that another process uses: it may work later.
    #[error("{0}")]
    Unavailable(String),
}

impl From<rusqlite::Error> for StoreError {
    fn from(e: rusqlite::Error) -> Self {
        use ErrorCode::*;
        match e.sqlite_error_code() {
            Some(DatabaseBusy | DatabaseLocked) => {
                Self::Unavailable("another process uses it".into())
            }
            Some(DiskFull) => Self::Unavailable("the disk is full".into()),
            Some(ReadOnly) => Self::ReadOnly,
            Some(
                CannotOpen
                | SystemIoFailure
                | PermissionDenied
                | OutOfMemory
                | FileLockingProtocolFailed
                | NoLargeFileSupport
                | OperationAborted
                | OperationInterrupted
                | AuthorizationForStatementDenied,
            ) => Self::Unavailable(e.to_string()),
            // Our statements are right: the file is another than ours. No code: a column of another type, where SQLite
            // itself does not look.
            Some(_) | None => Self::Damaged(e.to_string()),
        }
    }
}

impl StoreError {
    /// A byte in the file's head can say that it is read-only, too.
    fn of_file(self, file: &Path) -> Self {
        let is_writable = || std::fs::OpenOptions::new().write(true).open(file).is_ok();
        match self {
            Self::ReadOnly if is_writable() => Self::Damaged("it says that it is read-only".into()),
            other => other,
        }
    }
}

/// The open file.
#[derive(Debug)]
pub struct Store {
    db: Connection,
    file: PathBuf,
    bounds: Bounds,
    next_id: u64,
    messages: u64,
    bytes: u64,
}

impl Store {
    /// Opens the file in `directory`, or makes both. Reads each message's size once, nothing else.
    pub fn open(directory: &Path, bounds: Bounds) -> Result<Self, StoreError> {
        Self::try_open(directory, bounds).map_err(|e| e.of_file(&directory.join(FILE)))
    }

    fn try_open(directory: &Path, bounds: Bounds) -> Result<Self, StoreError> {
        std::fs::create_dir_all(directory).map_err(|e| {
            StoreError::Unavailable(format!("cannot make {}: {e}", directory.display()))
        })?;
        let path = directory.join(FILE);
        let is_new = !path.exists();
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let db = Connection::open_with_flags(&path, flags)?;
        db.busy_timeout(Duration::ZERO)?;
        // One process: the write-ahead log's index is in memory, not in a shared file. FULL: each commit is an fsync of the
        // log. A log that is reused early does not grow, which spares the file system's journal.
        db.execute_batch(
            "PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
             PRAGMA wal_autocheckpoint = 256; PRAGMA cache_size = -512; PRAGMA mmap_size = 0;
             PRAGMA temp_store = MEMORY; PRAGMA cell_size_check = ON;",
        )?;
        let version: i64 = db.pragma_query_value(None, "user_version", |r| r.get(0))?;
        let tables: i64 = db.query_row("SELECT count(*) FROM sqlite_schema", [], |r| r.get(0))?;
        match (version, tables) {
            (0, 0) => db.execute_batch(&format!(
                "BEGIN IMMEDIATE;
                 CREATE TABLE message (id INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL, seq INTEGER NOT NULL,
                     size INTEGER NOT NULL, crc INTEGER NOT NULL, topic TEXT NOT NULL, payload BLOB NOT NULL);
                 PRAGMA user_version = {VERSION};
                 COMMIT;"
            ))?,
            (VERSION, _) => {}
            _ => return Err(StoreError::Damaged(format!("its version is {version}, not {VERSION}"))),
        }
        if is_new {
            sync_directory(directory);
        }
        let all = "SELECT count(*), coalesce(sum(size), 0), coalesce(max(id), 0) FROM message";
        let (messages, bytes, last): (u64, u64, u64) =
            db.query_row(all, [], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)))?;
        Ok(Self {
            db,
            file: path,
            bounds,
            next_id: last + 1,
            messages,
            bytes,
        })
    }

    /// Ids below this one are not given any more: they may have meant messages of a file that was set aside.
    pub fn skip_ids_below(&mut self, id: u64) {
        self.next_id = self.next_id.max(id);
    }

    /// How many messages are stored.
    pub fn messages(&self) -> u64 {
        self.messages
    }

    /// Their size, as the bounds count it.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The newest message's id, 0 if there never was one.
    pub fn last_id(&self) -> u64 {
        self.next_id - 1
    }

    /// Takes `done` out, `new` in, and whatever the bounds forbid out: all of it or nothing. Ids that are not there are
    /// no error.
    pub fn commit(
        &mut self,
        new: &[Message],
        done: &[u64],
        now: SystemTime,
    ) -> Result<Committed, StoreError> {
        let committed = self.try_commit(new, done, now);
        committed.map_err(|e| e.of_file(&self.file))
    }

    fn try_commit(
        &mut self,
        new: &[Message],
        done: &[u64],
        now: SystemTime,
    ) -> Result<Committed, StoreError> {
        let first = self.next_id;
        let (mut messages, mut bytes) = (self.messages, self.bytes);
        let transaction = self.db.transaction()?;
        {
            let mut delete =
                transaction.prepare_cached("DELETE FROM message WHERE id = ? RETURNING size")?;
            for id in done {
                let mut rows = delete.query([id])?;
                while let Some(row) = rows.next()? {
                    bytes = bytes.saturating_sub(row.get(0)?);
                    messages = messages.saturating_sub(1);
                }
            }
            let mut insert =
                transaction.prepare_cached("INSERT INTO message VALUES (?, ?, ?, ?, ?, ?, ?)")?;
            for (id, m) in (first..).zip(new) {
                let size = m.topic.len() as u64 + m.payload.len() as u64 + OVERHEAD_BYTES;
                let (at, crc) = (milliseconds(m.at), checksum(m));
                insert.execute(params![id, at, m.seq, size, crc, m.topic, &m.payload[..]])?;
                bytes += size;
                messages += 1;
            }
        }
        let dropped = enforce(&transaction, self.bounds, now, &mut messages, &mut bytes)?;
        transaction.commit()?;
        self.next_id += new.len() as u64;
        (self.messages, self.bytes) = (messages, bytes);
        Ok(Committed { first, dropped })
    }

    /// Messages after the id `after`, oldest first: at most `count`, and no more once `max_bytes` are exceeded. Those whose
    /// checksum is wrong are left out; their ids are the second value.
    pub fn read(
        &self,
        after: u64,
        count: usize,
        max_bytes: u64,
    ) -> Result<(Vec<Stored>, Vec<u64>), StoreError> {
        let mut select = self.db.prepare_cached(
            "SELECT id, seq, crc, topic, payload, at_ms FROM message WHERE id > ? ORDER BY id LIMIT ?",
        )?;
        let mut rows = select.query(params![after, count as u64])?;
        let (mut good, mut bad, mut bytes) = (Vec::new(), Vec::new(), 0);
        while bytes <= max_bytes
            && let Some(row) = rows.next()?
        {
            let id: u64 = row.get(0)?;
            let topic = String::from_utf8_lossy(row.get_ref(3)?.as_bytes().unwrap_or(&[])).into();
            let payload = row.get_ref(4)?.as_bytes().unwrap_or(&[]);
            let message = Message {
                topic,
                seq: row.get(1)?,
                at: UNIX_EPOCH + Duration::from_millis(row.get::<_, i64>(5)?.unsigned_abs()),
                payload: Bytes::copy_from_slice(payload),
            };
            bytes += message.payload.len() as u64;
            if row.get::<_, u32>(2)? == checksum(&message) {
                good.push(Stored { id, message });
            } else {
                bad.push(id);
            }
        }
        Ok((good, bad))
    }
}

/// The oldest messages go until the bounds hold. What lies in the future stays: the clock was set back.
fn enforce(
    transaction: &Transaction<'_>,
    bounds: Bounds,
    now: SystemTime,
    messages: &mut u64,
    bytes: &mut u64,
) -> Result<u64, StoreError> {
    let oldest_allowed = milliseconds(now).saturating_sub(bounds.max_age.as_millis() as i64);
    let mut select =
        transaction.prepare_cached("SELECT id, at_ms, size FROM message ORDER BY id")?;
    let mut rows = select.query([])?;
    let (mut last, mut dropped) = (None, 0);
    while let Some(row) = rows.next()? {
        let (id, at, size): (u64, i64, u64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        if *bytes <= bounds.max_bytes && at >= oldest_allowed {
            break;
        }
        last = Some(id);
        dropped += 1;
        *bytes = bytes.saturating_sub(size);
        *messages = messages.saturating_sub(1);
    }
    drop(rows);
    if let Some(last) = last {
        transaction
            .prepare_cached("DELETE FROM message WHERE id <= ?")?
            .execute([last])?;
    }
    Ok(dropped)
}

fn checksum(m: &Message) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(m.topic.as_bytes());
    crc.update(&m.seq.to_le_bytes());
    crc.update(&m.payload);
    crc.finalize()
}

fn milliseconds(t: SystemTime) -> i64 {
    let since = t.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// A new file is there after a power cut only if its directory was written too.
fn sync_directory(directory: &Path) {
    if let Ok(d) = std::fs::File::open(directory) {
        let _ = d.sync_all();
    }
}

/// Renames the file in `directory`, so that the next [`Store::open`] makes a new one; the oldest of those kept goes.
/// Returns the new name.
pub fn set_aside(directory: &Path, now: SystemTime) -> std::io::Result<PathBuf> {
    let stamp = milliseconds(now);
    let aside = directory.join(format!("{FILE}.damaged-{stamp}"));
    let beside = |path: &Path, suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    let file = directory.join(FILE);
    std::fs::rename(&file, &aside)?;
    for suffix in ["-wal", "-journal"] {
        let part = beside(&file, suffix);
        if part.exists() {
            std::fs::rename(part, beside(&aside, suffix))?;
        }
    }
    let prefix = format!("{FILE}.damaged-");
    let mut kept: Vec<PathBuf> = std::fs::read_dir(directory)?
        .filter_map(|e| Some(e.ok()?.path()))
        .filter(|p| {
            p.file_name().is_some_and(|n| {
                let n = n.to_string_lossy();
                n.strip_prefix(&prefix)
                    .is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_digit()))
            })
        })
        .collect();
    kept.sort();
    for old in kept.iter().rev().skip(KEEP_DAMAGED) {
        for suffix in ["", "-wal", "-journal"] {
            let _ = std::fs::remove_file(beside(old, suffix));
        }
    }
    sync_directory(directory);
    Ok(aside)
}
