//! The spool's file against a model, thousands of times: stored, acknowledged in any order, dropped by the bounds, opened
//! again, cut off in the middle of a write. And the disk at its worst.

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use ocellus::clock::SystemClock;
use ocellus::publish::spool::{Bounds, Message, Reply, Spool, Store, StoreError, set_aside};
use ocellus::stats::SpoolStats;
use proptest::prelude::*;

const FILE: &str = "messages.db";
const WAL: &str = "messages.db-wal";

/// In memory where there is such a place: thousands of fsyncs.
fn fast_directory() -> tempfile::TempDir {
    let shm = Path::new("/dev/shm");
    tempfile::tempdir_in(shm)
        .or_else(|_| tempfile::tempdir())
        .unwrap()
}

fn message(seq: u64, size: usize) -> Message {
    let filler = seq.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
    Message {
        topic: format!("ocellus/dev-1/cam-{}/event", seq % 3),
        seq,
        at: at(0),
        payload: Bytes::from_iter(filler.iter().copied().cycle().take(size)),
    }
}

fn size(m: &Message) -> u64 {
    m.topic.len() as u64 + m.payload.len() as u64 + 64
}

#[derive(Debug, Clone)]
enum Step {
    /// Stores messages of these sizes; those waiting whose bit is set are acknowledged.
    Commit {
        sizes: Vec<usize>,
        acknowledged: u64,
    },
    /// Time goes on, or the clock is set back.
    Pass(i64),
    /// A clean end and a new start.
    Reopen,
    /// The power goes; so many bytes at the end of the log never reached the disk, and what did is changed there or not.
    Crash { torn: usize, garbled: bool },
    /// Reads from somewhere in the middle.
    Read { skip: usize, count: usize },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (prop::collection::vec(prop_oneof![4 => 0usize..900, 1 => 4000usize..20_000], 0..6), any::<u64>())
            .prop_map(|(sizes, acknowledged)| Step::Commit { sizes, acknowledged }),
        1 => (-50i64..400).prop_map(Step::Pass),
        1 => Just(Step::Reopen),
        2 => (prop_oneof![Just(0usize), 1usize..40_000], any::<bool>())
            .prop_map(|(torn, garbled)| Step::Crash { torn, garbled }),
        2 => (0usize..40, 1usize..20).prop_map(|(skip, count)| Step::Read { skip, count }),
    ]
}

/// What must be in the file: id → when, what.
type Model = BTreeMap<u64, (i64, Message)>;

fn contents(store: &Store) -> BTreeMap<u64, Message> {
    let (good, bad) = store.read(0, usize::MAX >> 1, u64::MAX).unwrap();
    assert!(bad.is_empty(), "wrong checksums: {bad:?}");
    assert!(good.is_sorted_by_key(|s| s.id));
    good.into_iter().map(|s| (s.id, s.message)).collect()
}

fn messages_of(model: &Model) -> BTreeMap<u64, Message> {
    model.iter().map(|(id, (_, m))| (*id, m.clone())).collect()
}

fn at(seconds: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_795_000_000u64.wrapping_add_signed(seconds))
}

fn play(steps: &[Step], bounds: Bounds) {
    let root = fast_directory();
    let mut lives = 0;
    let mut dir = root.path().join("0");
    let mut store = Store::open(&dir, bounds).unwrap();
    let mut model = Model::new();
    // After each commit of this life, the newest last.
    let mut history = vec![model.clone()];
    let (mut now, mut seq) = (0i64, 0u64);
    for step in steps {
        match step {
            Step::Commit {
                sizes,
                acknowledged,
            } => {
                let done: Vec<u64> = model
                    .keys()
                    .enumerate()
                    .filter(|(i, _)| acknowledged >> (i % 64) & 1 == 1)
                    .map(|(_, id)| *id)
                    .collect();
                let new: Vec<Message> = sizes
                    .iter()
                    .map(|&size| {
                        seq += 1;
                        Message {
                            at: at(now),
                            ..message(seq, size)
                        }
                    })
                    .collect();
                let newest = model.keys().last().copied();
                let committed = store.commit(&new, &done, at(now)).unwrap();
                assert!(
                    newest.is_none_or(|n| committed.first > n),
                    "an id came back"
                );
                done.iter().for_each(|id| _ = model.remove(id));
                for (i, m) in new.into_iter().enumerate() {
                    model.insert(committed.first + i as u64, (now, m));
                }
                let mut dropped = 0;
                while let Some((&oldest, (stored, _))) = model.first_key_value() {
                    let too_old = now - stored > bounds.max_age.as_secs() as i64;
                    let bytes: u64 = model.values().map(|(_, m)| size(m)).sum();
                    if !too_old && bytes <= bounds.max_bytes {
                        break;
                    }
                    model.remove(&oldest);
                    dropped += 1;
                }
                assert_eq!(committed.dropped, dropped);
                history.push(model.clone());
            }
            Step::Pass(seconds) => now += seconds,
            Step::Reopen => {
                drop(store);
                store = Store::open(&dir, bounds).unwrap();
                history = vec![model.clone()];
            }
            Step::Crash { torn, garbled } => {
                lives += 1;
                let next = root.path().join(lives.to_string());
                std::fs::create_dir(&next).unwrap();
                std::fs::copy(dir.join(FILE), next.join(FILE)).unwrap();
                let mut log = std::fs::read(dir.join(WAL)).unwrap_or_default();
                let keep = log.len().saturating_sub(*torn);
                if *garbled && *torn > 0 {
                    log[keep..]
                        .iter_mut()
                        .for_each(|b| *b = b.wrapping_mul(31) ^ 0x5a);
                } else {
                    log.truncate(keep);
                }
                std::fs::write(next.join(WAL), log).unwrap();
                store = Store::open(&next, bounds).unwrap();
                dir = next;
                // One of the states before, and the very last if nothing was torn off.
                let found = contents(&store);
                let which = history.iter().rposition(|m| messages_of(m) == found);
                let which = which.expect("a state that never was");
                assert!(
                    *torn > 0 || which + 1 == history.len(),
                    "a commit is missing"
                );
                model = history[which].clone();
                // The log goes on in the next life: it may be torn before this point, too.
                history.truncate(which + 1);
            }
            Step::Read { skip, count } => {
                let after = model.keys().nth(*skip).copied().unwrap_or(0);
                let (got, bad) = store.read(after, *count, u64::MAX).unwrap();
                let expected: Vec<u64> = model
                    .range(after + 1..)
                    .map(|(id, _)| *id)
                    .take(*count)
                    .collect();
                assert!(bad.is_empty());
                assert_eq!(got.iter().map(|s| s.id).collect::<Vec<_>>(), expected);
            }
        }
        assert_eq!(contents(&store), messages_of(&model), "after {step:?}");
        assert_eq!(store.messages(), model.len() as u64);
        assert_eq!(
            store.bytes(),
            model.values().map(|(_, m)| size(m)).sum::<u64>()
        );
    }
}

proptest! {
    // PROPTEST_CASES for more.
    #![proptest_config(ProptestConfig { cases: 2000, max_shrink_iters: 2000, ..ProptestConfig::default() })]
    #[test]
    fn the_file_is_what_the_model_says(
        steps in prop::collection::vec(step(), 1..40),
        max_bytes in prop_oneof![Just(1u64 << 20), 2000u64..60_000],
        max_age in 100u64..1000,
    ) {
        play(&steps, Bounds { max_bytes, max_age: Duration::from_secs(max_age) });
    }
}

const WIDE: Bounds = Bounds {
    max_bytes: 1 << 30,
    max_age: Duration::from_secs(1 << 30),
};

/// Whatever was done to the file: no panic, and either what was written or an error that says so.
#[test]
fn a_damaged_file_is_found_and_set_aside() {
    let root = fast_directory();
    let mut store = Store::open(root.path(), WIDE).unwrap();
    let written: Vec<Message> = (1..=300).map(|seq| message(seq, 700)).collect();
    store.commit(&written, &[], at(0)).unwrap();
    drop(store);
    let good = std::fs::read(root.path().join(FILE)).unwrap();
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut below = |n: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random % n as u64) as usize
    };
    let mut found = 0;
    for trial in 0..600 {
        let dir = root.path().join(format!("trial-{trial}"));
        std::fs::create_dir(&dir).unwrap();
        let mut bytes = good.clone();
        match trial % 5 {
            0 => {
                let i = below(bytes.len());
                bytes[i] ^= 1 << below(8);
            }
            1 => {
                let page = below(bytes.len() / 4096) * 4096;
                bytes[page..page + 4096].fill(0);
            }
            2 => bytes.truncate(below(good.len())),
            3 => {
                let i = below(100);
                bytes[i] = bytes[i].wrapping_add(1 + below(255) as u8);
            }
            _ => bytes = (0..below(20_000)).map(|_| below(256) as u8).collect(),
        }
        let empty = bytes.is_empty();
        std::fs::write(dir.join(FILE), bytes).unwrap();
        let mut work = || -> Result<(), StoreError> {
            let mut store = Store::open(&dir, WIDE)?;
            let (read, bad) = store.read(0, 1000, u64::MAX)?;
            for s in &read {
                assert!(
                    written.contains(&s.message),
                    "trial {trial}: a message that never was"
                );
            }
            found += usize::from(!bad.is_empty());
            store.commit(&[message(999, 10)], &bad, at(1))?;
            Ok(())
        };
        match work() {
            Ok(()) => {}
            Err(StoreError::Damaged(_)) => {
                found += 1;
                set_aside(&dir, at(trial)).unwrap();
                let mut new = Store::open(&dir, WIDE).unwrap();
                assert_eq!(new.messages(), 0);
                new.commit(&written[..1], &[], at(2)).unwrap();
            }
            Err(e) => assert!(empty, "trial {trial}: {e}"),
        }
        std::fs::remove_dir_all(&dir).unwrap();
    }
    println!("600 damaged files: {found} found, the others unharmed or in unused bytes");
    assert!(found > 300, "{found}");
}

#[test]
fn a_few_damaged_files_are_kept() {
    let root = fast_directory();
    for nth in 0..5 {
        std::fs::write(root.path().join(FILE), "no database at all").unwrap();
        assert!(matches!(
            Store::open(root.path(), WIDE),
            Err(StoreError::Damaged(_))
        ));
        set_aside(root.path(), at(nth)).unwrap();
    }
    let names = common::sorted(root.path());
    assert_eq!(names.len(), 2, "{names:?}");
    assert!(names[1].to_string_lossy().contains("damaged-1795000004"));
}

struct Rig {
    spool: Spool,
    stats: Arc<SpoolStats>,
}

impl Rig {
    fn start(dir: &Path, bounds: Bounds) -> Self {
        let stats = Arc::new(SpoolStats::default());
        let spool = Spool::start(dir, bounds, stats.clone(), Arc::new(SystemClock), || {}).unwrap();
        Self { spool, stats }
    }

    fn reply(&self) -> Reply {
        let limit = Duration::from_secs(20);
        self.spool.replies.recv_timeout(limit).expect("no reply")
    }

    /// Whether it was stored.
    fn append(&self, m: Message) -> bool {
        self.spool.append(vec![m.clone()]).unwrap();
        loop {
            match self.reply() {
                Reply::Stored { count, .. } => {
                    assert_eq!(count, 1);
                    return true;
                }
                Reply::Refused(back) => {
                    assert_eq!(back, [m]);
                    return false;
                }
                Reply::Opened { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// `None`: it cannot be read.
    fn read(&self) -> Option<Vec<u64>> {
        self.spool.read(0, 1000, u64::MAX);
        loop {
            match self.reply() {
                Reply::Messages(m) => return Some(m.iter().map(|s| s.message.seq).collect()),
                Reply::Unreadable => return None,
                _ => {}
            }
        }
    }
}

#[test]
fn what_is_stored_survives_and_what_is_removed_stays_away() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::start(dir.path(), WIDE);
    for seq in 1..=5 {
        assert!(rig.append(message(seq, 100)));
    }
    rig.spool.remove(vec![2, 4]);
    assert_eq!(rig.read(), Some(vec![1, 3, 5]));
    // A removal waits for company, not for long.
    let start = std::time::Instant::now();
    while rig.stats.depth().0 != 3 {
        assert!(start.elapsed() < Duration::from_secs(20), "not removed");
        std::thread::sleep(Duration::from_millis(10));
    }
    rig.spool.remove(vec![1]);
    let mut rig = rig;
    assert!(rig.spool.close(Duration::from_secs(20)));
    let rig = Rig::start(dir.path(), WIDE);
    assert_eq!(rig.read(), Some(vec![3, 5]));
}

#[test]
fn a_file_damaged_before_the_start_is_set_aside_and_told() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join(FILE), vec![0xa5; 9000]).unwrap();
    let rig = Rig::start(dir.path(), WIDE);
    assert!(rig.append(message(1, 100)));
    assert_eq!(rig.read(), Some(vec![1]));
    assert_eq!((rig.stats.damaged.get(), rig.stats.errors.get()), (1, 1));
    assert_eq!(rig.stats.fault(), None);
}

#[test]
fn a_directory_that_cannot_be_is_told_and_everything_comes_back() {
    let rig = Rig::start(Path::new("/proc/no-such-directory/spool"), WIDE);
    assert!(!rig.append(message(1, 100)));
    assert_eq!(rig.read(), None);
    assert!(
        rig.stats
            .fault()
            .unwrap()
            .contains("/proc/no-such-directory")
    );
    let mut rig = rig;
    assert!(rig.spool.close(Duration::from_secs(20)));
}

#[test]
fn a_second_program_on_the_same_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let first = Rig::start(dir.path(), WIDE);
    assert!(first.append(message(1, 100)));
    let second = Rig::start(dir.path(), WIDE);
    assert!(!second.append(message(2, 100)));
    assert!(second.stats.fault().unwrap().contains("another process"));
    assert!(first.append(message(3, 100)));
}
