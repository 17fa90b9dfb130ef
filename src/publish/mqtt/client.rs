//! The connection to the broker: one future that runs as long as the process.
//!
//! In: what the sink queued. Out: messages, by way of [`Delivery`], to the [`Link`]. On the `io` thread. Always holds: what was
//! not acknowledged when a connection died goes again on the next one; each change of the connection's state is one line in
//! the log; [`MqttClient::run`] ends within [`STOP_LIMIT`] of the request, whatever the broker and the disk do.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::time;

use super::delivery::{Delivery, Keeping, Kept};
use super::link::{Cause, Link, LinkError, LinkEvent, Message, Qos};
use super::payload::{self, DeviceInfo};
use super::properties::{self, Lifetime};
use super::queue::{CameraStatus, Item, Queue, Waiting};
use super::reconnect::{Backoff, Reporter};
use super::remote::{Remote, Wish};
use super::settings::{MqttError, MqttSettings};
use super::topic::Topics;
use crate::clock::Clock;
use crate::controls::Controls;
use crate::observe::{Observation, Publication};
use crate::publish::Sink;
use crate::publish::health::HealthReader;
use crate::publish::spool::{Spool, SpoolMode, SpoolSettings};
use crate::shutdown::Shutdown;
use crate::stats::Stats;
use crate::task::TaskResult;

/// [`MqttClient::run`] ends at most so long after the shutdown was requested.
pub const STOP_LIMIT: Duration = Duration::from_millis(1300);
/// Of that, how long what is queued may take to go out,
const FLUSH_LIMIT: Duration = Duration::from_millis(750);
/// and how long the disk may take for what did not.
const STORE_LIMIT: Duration = Duration::from_millis(300);
/// [`Shutdown`] wakes threads, not futures: how often the future looks.
const TICK: Duration = Duration::from_millis(50);
/// A connection that lasted so long was a good one: back-off starts again.
const STEADY: Duration = Duration::from_secs(5);

/// Takes publications for MQTT. Clones share one queue.
///
/// When the queue is full, the oldest observation that caused no event goes, then the oldest at all; each is counted in
/// `queue_full`. Statuses and states are never dropped: the newest replaces the one before.
#[derive(Debug, Clone)]
pub struct MqttSink {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    wake: Notify,
    stats: Arc<Stats>,
    clock: Arc<dyn Clock>,
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl Sink for MqttSink {
    fn publish(&self, publication: &Publication) {
        let now = self.shared.clock.now();
        self.shared
            .queue()
            .push(publication, now, &self.shared.stats);
        self.shared.wake.notify_one();
    }
}

/// The other end of [`MqttSink`]: [`run`](Self::run) it on the `io` thread.
pub struct MqttClient {
    outlet: Outlet,
    link: Link,
}

/// Everything of the client but the connection, so that both can be held at once.
struct Outlet {
    shared: Arc<Shared>,
    settings: MqttSettings,
    device: DeviceInfo,
    topics: Topics,
    delivery: Delivery,
    connected: Option<Instant>,
    health: HealthReader,
    health_due: Instant,
    started: Instant,
    stop: Stop,
    backoff: Backoff,
    reporter: Reporter,
    remotes: Vec<Box<dyn Remote>>,
}

/// Where the client is between the request to stop and its end.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Stop {
    /// Not requested.
    No,
    /// What is queued goes out until then.
    Flushing(Instant),
    /// `offline` is on its way. A broker drops the will at a clean DISCONNECT, so it is said before.
    Goodbye,
    /// DISCONNECT is on its way.
    Disconnecting,
}

/// Makes the two ends; nothing is connected until [`MqttClient::run`]. Cameras are those of `controls`.
pub fn connect(
    settings: MqttSettings,
    device: DeviceInfo,
    stats: Arc<Stats>,
    controls: Arc<Controls>,
    clock: Arc<dyn Clock>,
) -> Result<(MqttSink, MqttClient), MqttError> {
    settings
        .warnings()
        .iter()
        .for_each(|w| tracing::warn!("{w}"));
    let topics = Topics::new(&settings.prefix, &device.id);
    let mut options = settings.link(&device.id, "")?;
    options.will = Some(Message::retained(topics.status(), payload::OFFLINE));
    let shared = Arc::new(Shared {
        queue: Mutex::new(Queue::new(settings.queue, controls)),
        wake: Notify::new(),
        stats,
        clock: clock.clone(),
    });
    let sink = MqttSink {
        shared: shared.clone(),
    };
    let reporter = Reporter::new(format!("{}:{}", options.host, options.port));
    let delivery = delivery(None, &settings, &shared);
    let outlet = Outlet {
        shared,
        backoff: Backoff::new(Duration::from_secs_f64(settings.reconnect_max_s)),
        settings,
        device,
        topics,
        delivery,
        connected: None,
        health: HealthReader::default(),
        health_due: clock.now(),
        started: clock.now(),
        stop: Stop::No,
        reporter,
        remotes: Vec::new(),
    };
    let link = Link::new(options);
    let client = MqttClient { outlet, link };
    Ok((sink, client))
}

fn delivery(keeping: Option<Keeping>, settings: &MqttSettings, shared: &Shared) -> Delivery {
    let (clock, stats) = (shared.clock.clone(), shared.stats.clone());
    Delivery::new(keeping, Lifetime::new(settings), clock, stats)
}

/// Connects once and disconnects: whether the broker can be reached and lets us in, for `ocellus check`.
pub async fn probe(settings: &MqttSettings, device: &str) -> Result<(), String> {
    let options = settings.link(device, "-check").map_err(|e| e.to_string())?;
    let mut link = Link::new(options);
    link.poll().await.map_err(|e| e.to_string())?;
    link.disconnect();
    let _ = time::timeout(Duration::from_secs(1), link.poll()).await;
    Ok(())
}

impl std::fmt::Debug for MqttClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MqttClient")
            .field("topics", &self.outlet.topics)
            .finish_non_exhaustive()
    }
}

impl MqttClient {
    /// Adds a listener; what it wants to hear is subscribed to with the next connection.
    pub fn attach(&mut self, remote: Box<dyn Remote>) {
        for filter in remote.filters() {
            self.link.subscribe(&filter, Qos::AtLeastOnce);
        }
        self.outlet.remotes.push(remote);
    }

    /// Keeps what must not be lost in `directory`.
    ///
    /// # Errors
    /// The thread `spool` cannot be started. A disk that fails is no error here: it is told in `stats.spool`.
    pub fn with_spool(
        mut self,
        settings: &SpoolSettings,
        directory: &Path,
    ) -> std::io::Result<Self> {
        if settings.mode == SpoolMode::Off {
            return Ok(self);
        }
        let shared = self.outlet.shared.clone();
        let stats = shared.stats.spool.get_or_init(Arc::default).clone();
        let clock = shared.clock.clone();
        let wake = move || shared.wake.notify_one();
        let bounds = settings.bounds();
        let spool = Spool::start(directory, bounds, stats, clock, wake)?;
        let keeping = Keeping {
            spool,
            mode: settings.mode,
            order: settings.order,
            drain_rate: settings.drain_rate,
        };
        let outlet = &mut self.outlet;
        outlet.delivery = delivery(Some(keeping), &outlet.settings, &outlet.shared);
        Ok(self)
    }

    /// Keeps the connection until `shutdown`, then sends what is queued, says `offline` and disconnects, within
    /// [`STOP_LIMIT`]. Request the shutdown when nothing is published any more; what comes later is lost.
    ///
    /// A host name may hang in the system's resolver: end the runtime with `shutdown_background`.
    pub async fn run(mut self, shutdown: Shutdown) {
        let stats = self.outlet.shared.stats.clone();
        // Holds even where the connection is stuck in the middle of a packet.
        let limit = async {
            while !shutdown.is_requested() {
                time::sleep(TICK).await;
            }
            time::sleep(STOP_LIMIT - STORE_LIMIT - TICK).await;
        };
        tokio::select! {
            () = self.work(&shutdown) => {}
            () = limit => tracing::warn!("MQTT: stopped without a clean disconnect"),
        }
        stats.broker_went();
        self.outlet.close();
    }

    async fn work(&mut self, shutdown: &Shutdown) {
        let Self { outlet, link } = self;
        let shared = outlet.shared.clone();
        let mut tick = time::interval(TICK);
        tick.set_missed_tick_behavior(time::MissedTickBehavior::Skip);
        let mut wait_until = Instant::now();
        loop {
            if outlet.advance(link, shutdown) {
                return;
            }
            let waits = Instant::now() < wait_until;
            if waits && shutdown.is_requested() {
                return;
            }
            let polled = tokio::select! {
                biased;
                polled = link.poll(), if !waits => polled,
                () = shared.wake.notified() => continue,
                _ = tick.tick() => continue,
            };
            match polled {
                Ok(LinkEvent::Closed) => return,
                Ok(event) => outlet.on_event(event),
                Err(error) => {
                    // The delivery has its own copy of what must not be lost.
                    drop(link.take_back());
                    wait_until = Instant::now() + outlet.on_error(&error);
                }
            }
        }
    }
}

impl Outlet {
    /// Hands on what can go, and goes on with stopping. Returns whether there is nothing more to do.
    fn advance(&mut self, link: &mut Link, shutdown: &Shutdown) -> bool {
        let now = Instant::now();
        if self.stop == Stop::No && shutdown.is_requested() {
            self.stop = Stop::Flushing(now + FLUSH_LIMIT);
            self.shared.queue().all_offline();
            self.delivery.stop_replaying();
        }
        if self.connected.is_none() {
            self.store();
            self.delivery.feed(link, |_| {});
            // A handshake under way may still end in time for what is queued.
            return matches!(self.stop, Stop::Flushing(until) if now >= until || self.shared.queue().len() == 0);
        }
        if self.stop == Stop::No && self.shared.clock.now() >= self.health_due {
            self.health_due = self.shared.clock.now() + self.settings.health();
            let message = self.health_message();
            self.delivery.push(message);
        }
        self.feed(link);
        let sent = self.delivery.is_settled();
        match self.stop {
            Stop::Flushing(until) if sent || now >= until => {
                let offline = Message::retained(self.topics.status(), payload::OFFLINE);
                self.delivery.push_first(offline);
                self.stop = Stop::Goodbye;
                self.feed(link);
            }
            Stop::Goodbye if sent && link.disconnect() => {
                self.stop = Stop::Disconnecting;
            }
            _ => {}
        }
        false
    }

    /// Fills the delivery from the queue, and the link from the delivery.
    fn feed(&mut self, link: &mut Link) {
        let mut more = matches!(self.stop, Stop::No | Stop::Flushing(_));
        loop {
            while more && self.delivery.has_room() {
                let asked = self.ask_remotes();
                let now = self.shared.clock.now();
                let item = self.shared.queue().pop(now, self.settings.heartbeat());
                more = asked || item.is_some();
                item.into_iter().for_each(|i| self.make_messages(i));
            }
            let settings = &self.settings;
            self.delivery.feed(link, |m| properties::fill(m, settings));
            if !more || !self.delivery.has_room() {
                return;
            }
        }
    }

    /// While there is no connection: what must not be lost goes to the disk.
    fn store(&mut self) {
        while self.delivery.stores() {
            let kept = self.shared.queue().pop_kept(self.settings.qos > 0);
            let Some(kept) = kept else { return };
            self.make_observation(&kept);
        }
    }

    /// What did not go out is stored.
    fn close(&mut self) {
        self.connected = None;
        let stores = self.delivery.begin_close();
        let until = Instant::now() + STORE_LIMIT / 3;
        while stores && Instant::now() < until {
            let kept = self.shared.queue().pop_kept(self.settings.qos > 0);
            let Some(kept) = kept else { break };
            self.make_observation(&kept);
        }
        let lost = self.delivery.close(STORE_LIMIT) + self.shared.queue().len();
        if lost > 0 {
            tracing::info!("MQTT: {lost} messages did not go out before the stop");
        }
    }

    /// One message of a listener goes before what was seen, so that answers are prompt.
    /// Returns whether there was one.
    fn ask_remotes(&mut self) -> bool {
        let now = self.shared.clock.now();
        for remote in &mut self.remotes {
            match remote.poll(now) {
                Some(Wish::Send(message)) => {
                    self.delivery.push(message);
                    return true;
                }
                Some(Wish::SendLatest(message)) => {
                    self.delivery.push_latest(message);
                    return true;
                }
                Some(Wish::DropPictures) => self.delivery.drop_pictures(),
                Some(Wish::Refresh) => self.health_due = now,
                None => {}
            }
        }
        false
    }

    fn on_event(&mut self, event: LinkEvent) {
        let stats = &self.shared.stats;
        match event {
            LinkEvent::Connected { .. } => {
                self.connected = Some(Instant::now());
                self.delivery.connected();
                self.reporter.connected();
                stats.broker_came();
                self.shared.queue().all_due();
                let info = payload::info(&self.device, self.shared.clock.wall());
                self.delivery
                    .push_first(Message::retained(self.topics.info(), info));
                self.delivery
                    .push_first(Message::retained(self.topics.status(), payload::ONLINE));
                let now = self.shared.clock.now();
                self.remotes.iter_mut().for_each(|r| r.connected(now));
            }
            LinkEvent::Sent(token) | LinkEvent::Acked(token) => {
                stats.published.inc();
                self.delivery.done(token);
            }
            LinkEvent::Refused(token, why) => {
                stats.refused.inc();
                self.reporter.message_refused(&why, Instant::now());
                self.delivery.done(token);
            }
            LinkEvent::Incoming(message) => {
                let now = self.shared.clock.now();
                self.remotes
                    .iter_mut()
                    .for_each(|r| r.incoming(&message, now));
            }
            LinkEvent::TooLarge { topic, bytes } => {
                stats.commands_dropped.inc();
                let why = format!("{bytes} bytes came on {topic}: it is larger than any command");
                self.reporter.message_refused(&why, Instant::now());
            }
            LinkEvent::Subscribed { filter, granted } => {
                self.reporter.subscribed(&filter, &granted);
            }
            LinkEvent::Closed => {}
        }
    }

    /// Returns how long to wait.
    fn on_error(&mut self, error: &LinkError) -> Duration {
        if self.connected.take().is_some_and(|t| t.elapsed() >= STEADY) {
            self.backoff.reset();
        }
        self.shared.stats.broker_went();
        if error.cause == Cause::TooLarge {
            self.shared.stats.commands_dropped.inc();
        }
        self.reporter.failed(error);
        self.delivery.disconnected();
        self.backoff.next(error.cause)
    }

    fn make_messages(&mut self, item: Item) {
        let device = &self.device.id;
        match item {
            Item::Status(camera, status) => {
                let text = match status {
                    CameraStatus::Online => payload::ONLINE,
                    CameraStatus::Offline => payload::OFFLINE,
                    CameraStatus::Disabled => payload::DISABLED,
                };
                let topic = self.topics.camera(&camera, "status");
                self.delivery.push(Message::retained(topic, text));
            }
            Item::State(o) => {
                let topic = self.topics.camera(&o.meta.camera, "state");
                self.delivery
                    .push(Message::retained(topic, payload::state(device, &o)));
            }
            Item::Counts(o) => {
                if let Some(counts) = &o.followed.counts {
                    let topic = self.topics.camera(&o.meta.camera, "counts");
                    self.delivery.push(Message::retained(
                        topic,
                        payload::counts(device, &o, counts),
                    ));
                }
            }
            Item::Observation(w) => self.make_observation(&w),
        }
    }

    fn make_observation(&mut self, w: &Waiting) {
        let o = &w.observation;
        if w.sections {
            self.make_sections(o);
        }
        if !w.event {
            return;
        }
        let device = &self.device.id;
        let change = o.change.iter();
        let change = change.map(|c| ("event", payload::event(device, o, c)));
        let tracks = o.followed.tracks.iter();
        let tracks = tracks.map(|t| ("track", payload::track(device, o, t)));
        let zones = o.followed.zones.iter();
        let zones = zones.map(|z| ("zone", payload::zone(device, o, z)));
        for (kind, event) in change.chain(tracks).chain(zones) {
            let topic = self.topics.camera(&o.meta.camera, kind);
            self.delivery.keep(Kept {
                seq: o.seq,
                seen: o.meta.captured_at,
                message: Message::new(topic, Qos::AtLeastOnce, event),
            });
        }
    }

    fn make_sections(&mut self, o: &Observation) {
        let device = &self.device.id;
        let qos = match self.settings.qos {
            0 => Qos::AtMostOnce,
            _ => Qos::AtLeastOnce,
        };
        for result in &o.results {
            let (kind, bytes) = match result {
                TaskResult::Classification(classes) => (
                    "classification",
                    payload::classification(device, o, classes),
                ),
                TaskResult::Detections(found) => {
                    ("detections", payload::detections(device, o, found))
                }
                TaskResult::Segmentation(s) => ("segments", payload::segmentation(device, o, s)),
                TaskResult::Embedding(_) if !self.settings.embeddings => continue,
                TaskResult::Embedding(e) => ("embedding", payload::embedding(device, o, e)),
            };
            let topic = self.topics.camera(&o.meta.camera, kind);
            let message = Message::new(topic, qos, bytes);
            match qos {
                Qos::AtMostOnce => self.delivery.push_seen(message, o.meta.captured_at),
                Qos::AtLeastOnce => self.delivery.keep(Kept {
                    seq: o.seq,
                    seen: o.meta.captured_at,
                    message,
                }),
            }
        }
    }

    fn health_message(&mut self) -> Message {
        let clock = &self.shared.clock;
        let board = self.health.read();
        let queued = self.shared.queue().len() + self.delivery.len();
        let bytes = payload::health(
            &self.device.id,
            clock.wall(),
            clock.now().saturating_duration_since(self.started),
            &board,
            queued,
            &self.shared.stats,
        );
        Message::new(self.topics.health(), Qos::AtMostOnce, bytes)
    }
}
