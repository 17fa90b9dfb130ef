//! What becomes of each outgoing message: memory, disk, link, acknowledgement.
//!
//! In: messages, the link's events, the spool's replies. Out: messages handed to the [`Link`] and to the [`Spool`]. On the
//! `io` thread; never waits. Always holds:
//! - A message at QoS 1 that is not retained is *kept*: it is in the spool's file, or in memory, until the broker has
//!   acknowledged this very message, or the bounds drop it and count it.
//! - Kept messages go to the file in the order in which they were made, so that each camera's are in the order of `seq`.
//! - What comes from the file, or was handed to a connection that died, says `"replayed": true`. At QoS 0 what cannot say so
//!   (`health`, a picture) does not go again.
//! - A picture that the broker is to keep goes until it is acknowledged, the newest of each topic, over at most two deaths of the connection.
//! - A message that has outlived its [`Lifetime`] is dropped and counted, wherever it waited.
//! - Where the disk fails, messages go on from memory, and the queue's bound holds.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;

use super::link::{Link, Message, Qos, Token};
use super::payload;
use super::properties::Lifetime;
use crate::clock::Clock;
use crate::limit::Limit;
use crate::publish::spool::{self, RETRY_AFTER, Reply, Spool, SpoolMode, SpoolOrder, Stored};
use crate::stats::Stats;

/// Messages that the spool's thread was given and has not answered for.
const PENDING_COUNT: usize = 256;
/// Messages in memory that wait for the link; more stay in the queue, which knows what to drop.
const OUTBOX_COUNT: usize = 32;
/// Read from the file at a time.
const READ_COUNT: usize = 64;
const READ_BYTES: u64 = 512 << 10;
/// A picture whose connections die is perhaps what they die of: one too large for the broker, who cannot say so in MQTT 3.1.1.
const LAST_DEATH: u32 = 3;
/// A connection that is back so soon costs the disk nothing, if nothing waits there already.
const GRACE: Duration = Duration::from_secs(2);

/// One message at QoS 1 that is not retained.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    pub seq: u64,
    /// When what it tells was seen.
    pub seen: Instant,
    pub message: Message,
}

#[derive(Debug)]
struct Outgoing {
    message: Message,
    origin: Origin,
    /// When what it tells was seen.
    seen: Instant,
}

/// Where a message is besides.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Origin {
    /// Nowhere, and it may be lost: QoS 0, or retained and made anew after each connect.
    Plain,
    /// Nowhere: retained, made only once, and the newest of its topic. So many connections died while it was under way.
    Latest { deaths: u32 },
    /// Nowhere: it is kept here.
    Memory { seq: u64 },
    /// In the file, under this id.
    File(u64),
}

/// Given to the spool's thread.
#[derive(Debug)]
enum Pending {
    /// For later.
    Later,
    /// To be sent as soon as they are stored.
    Now(Vec<Kept>),
}

/// The spool and how it is used.
pub(super) struct Keeping {
    pub spool: Spool,
    pub mode: SpoolMode,
    pub order: SpoolOrder,
    /// Messages from the file a second; 0: no limit.
    pub drain_rate: f64,
}

/// All outgoing messages.
pub(super) struct Delivery {
    keeping: Option<Keeping>,
    lifetime: Lifetime,
    clock: Arc<dyn Clock>,
    stats: Arc<Stats>,
    connected: bool,
    stopping: bool,
    away_since: Instant,
    outbox: VecDeque<Outgoing>,
    in_flight: HashMap<Token, Outgoing>,
    next_token: Token,
    /// Not yet given to the spool's thread.
    to_store: Vec<Kept>,
    pending: VecDeque<Pending>,
    pending_count: usize,
    refused_until: Option<Instant>,
    /// Acknowledged, not yet told to the spool's thread.
    done: Vec<u64>,
    backlog: Backlog,
}

/// What is in the file and has to be sent again.
#[derive(Debug, Default)]
struct Backlog {
    /// Read, not yet handed to the link.
    ready: VecDeque<Stored>,
    /// The last id that was read.
    read: u64,
    /// The last id that is to be read.
    end: u64,
    /// The newest id in the file.
    newest: u64,
    /// Connections so far.
    connection: u64,
    /// The connection during which the read that is under way was asked for.
    reading: Option<u64>,
    retry_at: Option<Instant>,
    /// How fast they may go; `None`: as fast as the link takes them.
    limit: Option<Limit>,
}

impl Delivery {
    pub fn new(
        keeping: Option<Keeping>,
        lifetime: Lifetime,
        clock: Arc<dyn Clock>,
        stats: Arc<Stats>,
    ) -> Self {
        let rate = keeping.as_ref().map_or(0.0, |k| k.drain_rate);
        // A tenth of a second's worth at once, one message at least.
        let limit = (rate > 0.0).then(|| Limit::empty((rate / 10.0).max(1.0), rate));
        Self {
            keeping,
            lifetime,
            clock,
            stats,
            connected: false,
            stopping: false,
            away_since: Instant::now(),
            outbox: VecDeque::new(),
            in_flight: HashMap::new(),
            next_token: 0,
            to_store: Vec::new(),
            pending: VecDeque::new(),
            pending_count: 0,
            refused_until: None,
            done: Vec::new(),
            backlog: Backlog {
                limit,
                ..Backlog::default()
            },
        }
    }

    /// Messages in memory.
    pub fn len(&self) -> usize {
        self.outbox.len() + self.in_flight.len() + self.to_store.len() + self.pending_count
    }

    /// Whether everything that was taken has arrived, or is on the disk for later.
    pub fn is_settled(&self) -> bool {
        self.outbox.is_empty()
            && self.in_flight.is_empty()
            && self.to_store.is_empty()
            && self.pending_count == 0
    }

    /// Whether the caller may make the next messages of any kind.
    pub fn has_room(&self) -> bool {
        self.connected
            && self.outbox.len() < OUTBOX_COUNT
            && self.pending_count + self.to_store.len() < PENDING_COUNT
    }

    /// While there is no connection: whether the caller may make kept messages, to be stored.
    pub fn stores(&mut self) -> bool {
        let is_offline_mode = |k: &Keeping| k.mode == SpoolMode::Offline;
        let grace = self.keeping.as_ref().is_some_and(is_offline_mode)
            && self.away_since.elapsed() < GRACE
            && self.file_is_done();
        if self.connected || grace || !self.disk_is_well() {
            return false;
        }
        self.put_away();
        self.pending_count + self.to_store.len() < PENDING_COUNT
    }

    /// Nothing in the file waits to be sent or acknowledged.
    fn file_is_done(&self) -> bool {
        let mut in_flight = self.in_flight.values();
        self.backlog.is_done()
            && self.pending_count + self.to_store.len() == 0
            && !in_flight.any(|o| matches!(o.origin, Origin::File(_)))
    }

    /// What is in memory goes to the disk, before anything newer.
    fn put_away(&mut self) {
        for o in std::mem::take(&mut self.outbox) {
            match o.origin {
                Origin::Memory { seq } => self.to_store.push(Kept {
                    seq,
                    seen: o.seen,
                    message: o.message,
                }),
                _ => self.outbox.push_back(o),
            }
        }
    }

    fn disk_is_well(&self) -> bool {
        self.keeping.is_some() && self.refused_until.is_none_or(|t| Instant::now() >= t)
    }

    /// A message that may be lost: QoS 0, or retained.
    pub fn push(&mut self, message: Message) {
        self.push_seen(message, self.clock.now());
    }

    /// The same for one that tells what was seen then.
    pub fn push_seen(&mut self, message: Message, seen: Instant) {
        let origin = Origin::Plain;
        self.outbox.push_back(Outgoing {
            message,
            origin,
            seen,
        });
    }

    /// A message that is retained and made only once. Those before it of its topic go now or never.
    pub fn push_latest(&mut self, message: Message) {
        let all = self.outbox.iter_mut().chain(self.in_flight.values_mut());
        for older in all.filter(|o| o.message.topic == message.topic) {
            older.origin = Origin::Plain;
        }
        self.outbox.push_back(Outgoing {
            message,
            origin: Origin::Latest { deaths: 0 },
            seen: self.clock.now(),
        });
    }

    /// Pictures that wait are not sent, and those under way not again.
    pub fn drop_pictures(&mut self) {
        self.outbox.retain(|o| !o.message.is_picture());
        let pictures = self
            .in_flight
            .values_mut()
            .filter(|o| o.message.is_picture());
        pictures.for_each(|o| o.origin = Origin::Plain);
    }

    /// Before everything that waits: `online` after a connect.
    pub fn push_first(&mut self, message: Message) {
        self.outbox.push_front(Outgoing {
            message,
            origin: Origin::Plain,
            seen: self.clock.now(),
        });
    }

    /// A message that must arrive.
    pub fn keep(&mut self, kept: Kept) {
        let stores = self.disk_is_well()
            && match self.keeping.as_ref().map(|k| k.mode) {
                Some(SpoolMode::Always) => true,
                Some(SpoolMode::Offline) => !self.connected || self.is_behind(),
                Some(SpoolMode::Off) | None => false,
            };
        if stores {
            self.to_store.push(kept);
        } else {
            self.outbox.push_back(Outgoing {
                message: kept.message,
                origin: Origin::Memory { seq: kept.seq },
                seen: kept.seen,
            });
        }
    }

    /// New messages wait for those of the file.
    fn is_behind(&self) -> bool {
        let strict = self
            .keeping
            .as_ref()
            .is_some_and(|k| k.order == SpoolOrder::Strict);
        strict
            && (!self.backlog.is_done() || self.pending.iter().any(|p| matches!(p, Pending::Later)))
    }

    /// Hands on what can go. To be called after everything else.
    /// `finish` is the last to touch a message.
    pub fn feed(&mut self, link: &mut Link, finish: impl Fn(&mut Message)) {
        self.take_replies();
        self.store();
        self.read();
        if !self.connected {
            return;
        }
        if let Some(limit) = &mut self.backlog.limit {
            limit.refill(Instant::now());
        }
        loop {
            let next = match self.outbox.pop_front() {
                Some(next) => next,
                None => match self.backlog.next() {
                    Some(stored) => Outgoing {
                        seen: self.seen(stored.message.at),
                        message: replayed(stored.message),
                        origin: Origin::File(stored.id),
                    },
                    None => break,
                },
            };
            let age = self.clock.now().saturating_duration_since(next.seen);
            let left = self.lifetime.left(&next.message.topic, age);
            if left == Some(Duration::ZERO) {
                self.stats.expired.inc();
                self.end(next.origin);
                continue;
            }
            let token = self.next_token;
            // A copy of what must not be lost; the payload is shared.
            let mut message = next.message.clone();
            message.properties.expiry = left;
            finish(&mut message);
            match link.publish(token, message) {
                Ok(()) => {
                    self.next_token += 1;
                    self.in_flight.insert(token, next);
                }
                Err(_) => {
                    self.outbox.push_front(next);
                    break;
                }
            }
        }
        self.read();
    }

    /// The broker acknowledged, or a message at QoS 0 was written.
    pub fn done(&mut self, token: Token) {
        if let Some(outgoing) = self.in_flight.remove(&token) {
            self.end(outgoing.origin);
        }
    }

    /// Nothing more is to be done with a message.
    fn end(&mut self, origin: Origin) {
        if let Origin::File(id) = origin {
            self.done.push(id);
        }
    }

    /// When that was, by the clock that does not jump.
    fn seen(&self, at: SystemTime) -> Instant {
        let age = self.clock.wall().duration_since(at).unwrap_or_default();
        let now = self.clock.now();
        now.checked_sub(age).unwrap_or(now)
    }

    /// The same the other way.
    fn at(&self, seen: Instant) -> SystemTime {
        let age = self.clock.now().saturating_duration_since(seen);
        let wall = self.clock.wall();
        wall.checked_sub(age).unwrap_or(wall)
    }

    pub fn connected(&mut self) {
        self.connected = true;
        self.backlog.connection += 1;
    }

    /// What was handed over and not acknowledged is kept again, before what comes later.
    pub fn disconnected(&mut self) {
        if self.connected {
            self.connected = false;
            self.away_since = Instant::now();
        }
        let file_is_done = self.file_is_done();
        let mut in_flight: Vec<(Token, Outgoing)> = self.in_flight.drain().collect();
        in_flight.sort_by_key(|(token, _)| *token);
        let handed = in_flight.into_iter().filter_map(|(_, mut o)| {
            let marked = payload::replayed(&o.message.payload);
            // It may have been written, and could not say that it comes again.
            let once = o.message.qos == Qos::AtMostOnce && !payload::is_replayed(&marked);
            o.message.payload = marked;
            if let Origin::Latest { deaths } = &mut o.origin {
                *deaths += 1;
                if *deaths == LAST_DEATH {
                    tracing::warn!(topic = %o.message.topic, bytes = o.message.payload.len(),
                        "the connection died {LAST_DEATH} times while this was sent: it is not sent again");
                    return None;
                }
            }
            (!once).then_some(o)
        });
        let waiting = std::mem::take(&mut self.outbox);
        for o in handed.chain(waiting) {
            match o.origin {
                // It is read from the file again.
                Origin::File(_) => {}
                Origin::Plain if o.message.retain => {}
                Origin::Plain | Origin::Latest { .. } | Origin::Memory { .. } => {
                    self.outbox.push_back(o);
                }
            }
        }
        for pending in &mut self.pending {
            *pending = Pending::Later;
        }
        if !file_is_done {
            self.backlog.rewind();
            // They are newer than what is in the file, and must not overtake it.
            if self.disk_is_well() {
                self.put_away();
            }
        }
    }

    /// A stop was requested: what waits on disk stays there.
    pub fn stop_replaying(&mut self) {
        self.stopping = true;
        self.backlog.ready.clear();
    }

    /// The end is near: what is made from now on goes to the disk. Returns whether there is one that is well.
    pub fn begin_close(&mut self) -> bool {
        self.take_replies();
        self.disconnected();
        let is_well = self.disk_is_well();
        if is_well {
            self.put_away();
        }
        is_well
    }

    /// At the end: what is in memory goes to the disk, within `limit`. Returns how many kept messages are lost.
    pub fn close(&mut self, limit: Duration) -> usize {
        self.store();
        if let Some(mut keeping) = self.keeping.take() {
            keeping.spool.remove(std::mem::take(&mut self.done));
            let closed = keeping.spool.close(limit);
            self.keeping = Some(keeping);
            self.take_replies();
            if !closed {
                tracing::warn!("spool: the disk is slow, not everything was written in time");
            }
        }
        let memory = self.outbox.iter();
        let in_memory = memory.filter(|o| matches!(o.origin, Origin::Memory { .. }));
        in_memory.count() + self.pending_count
    }

    fn store(&mut self) {
        let Some(keeping) = &self.keeping else { return };
        if !self.done.is_empty() {
            keeping.spool.remove(std::mem::take(&mut self.done));
        }
        if self.to_store.is_empty() {
            return;
        }
        let kept = std::mem::take(&mut self.to_store);
        let later = !self.connected || keeping.mode == SpoolMode::Offline || self.is_behind();
        let pending = match later {
            true => Pending::Later,
            false => Pending::Now(kept.clone()),
        };
        let messages: Vec<spool::Message> = kept
            .into_iter()
            .map(|k| spool::Message {
                at: self.at(k.seen),
                topic: k.message.topic,
                seq: k.seq,
                payload: k.message.payload,
            })
            .collect();
        let count = messages.len();
        match keeping.spool.append(messages) {
            Ok(()) => {
                self.pending.push_back(pending);
                self.pending_count += count;
            }
            Err(messages) => self.refused(messages),
        }
    }

    fn take_replies(&mut self) {
        while let Some(reply) = self
            .keeping
            .as_ref()
            .and_then(|k| k.spool.replies.try_recv().ok())
        {
            match reply {
                Reply::Opened { last } => {
                    self.backlog.newest = last;
                    self.backlog.rewind();
                }
                Reply::Stored { first, count } => {
                    let last = first + count as u64 - 1;
                    self.pending_count -= count.min(self.pending_count);
                    self.backlog.newest = last;
                    match self.pending.pop_front() {
                        Some(Pending::Now(kept)) => {
                            for (id, Kept { message, seen, .. }) in (first..).zip(kept) {
                                let origin = Origin::File(id);
                                self.outbox.push_back(Outgoing {
                                    message,
                                    origin,
                                    seen,
                                });
                            }
                        }
                        _ => self.backlog.end = last,
                    }
                }
                Reply::Refused(messages) => {
                    self.pending_count -= messages.len().min(self.pending_count);
                    self.pending.pop_front();
                    self.refused(messages);
                }
                Reply::Messages(stored) if !self.stopping => {
                    self.backlog.take(stored);
                    self.drop_expired();
                }
                Reply::Messages(_) => {}
                Reply::Unreadable => {
                    self.backlog.reading = None;
                    self.backlog.retry_at = Some(Instant::now() + RETRY_AFTER);
                }
            }
        }
    }

    /// They stay in memory.
    fn refused(&mut self, messages: Vec<spool::Message>) {
        self.refused_until = Some(Instant::now() + RETRY_AFTER);
        for m in messages {
            self.outbox.push_back(Outgoing {
                seen: self.seen(m.at),
                origin: Origin::Memory { seq: m.seq },
                message: Message::new(m.topic, Qos::AtLeastOnce, m.payload),
            });
        }
    }

    /// Of what was just read. They do not count against the rate.
    fn drop_expired(&mut self) {
        let (wall, lifetime) = (self.clock.wall(), self.lifetime);
        let mut expired = Vec::new();
        self.backlog.ready.retain(|s| {
            let age = wall.duration_since(s.message.at).unwrap_or_default();
            let is_over = lifetime.left(&s.message.topic, age) == Some(Duration::ZERO);
            if is_over {
                expired.push(s.id);
            }
            !is_over
        });
        self.stats.expired.add(expired.len() as u64);
        self.done.append(&mut expired);
    }

    fn read(&mut self) {
        let Some(keeping) = &self.keeping else { return };
        let b = &mut self.backlog;
        let is_due = !self.stopping && b.retry_at.is_none_or(|t| Instant::now() >= t);
        if self.connected && is_due && b.reading.is_none() && b.ready.is_empty() && b.read < b.end {
            b.reading = Some(b.connection);
            keeping.spool.read(b.read, READ_COUNT, READ_BYTES);
        }
    }
}

impl Backlog {
    fn is_done(&self) -> bool {
        self.ready.is_empty() && self.read >= self.end
    }

    /// Everything in the file has to be sent (again).
    fn rewind(&mut self) {
        self.ready.clear();
        self.read = 0;
        self.end = self.newest;
        self.retry_at = None;
        // An answer that is on its way is of before.
        self.connection += 1;
    }

    fn take(&mut self, stored: Vec<Stored>) {
        if self.reading.take() != Some(self.connection) {
            return;
        }
        let end = self.end;
        self.read = stored.last().map_or(end, |s| s.id.min(end));
        // Newer ones are on their way already.
        self.ready
            .extend(stored.into_iter().filter(|s| s.id <= end));
    }

    fn next(&mut self) -> Option<Stored> {
        let may_go = !self.ready.is_empty() && self.limit.as_mut().is_none_or(Limit::take);
        may_go.then(|| self.ready.pop_front()).flatten()
    }
}

fn replayed(m: spool::Message) -> Message {
    let payload: Bytes = payload::replayed(&m.payload);
    Message::new(m.topic, Qos::AtLeastOnce, payload)
}

#[cfg(test)]
mod tests;
