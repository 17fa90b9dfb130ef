//! The connection to the broker: one future that runs as long as the process.
//!
//! In: what the sink queued. Out: MQTT packets. On the `io` thread. Always holds: what rumqttc gives back
//! unacknowledged when a connection dies goes first on the next one; each change of the connection's state is one line in the
//! log; [`MqttClient::run`] ends within [`STOP_LIMIT`] of the request, whatever the broker does.

use std::collections::VecDeque;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use rumqttc::{
    AsyncClient, ClientError, ConnectionError, Event, EventLoop, LastWill, MqttOptions, Outgoing,
    Packet, Publish, QoS, Request,
};
use tokio::sync::Notify;
use tokio::time;

use super::payload::{self, DeviceInfo};
use super::queue::{Item, Queue};
use super::reconnect::{Backoff, Reporter, describe};
use super::settings::{self, MqttError, MqttSettings};
use super::topic::Topics;
use crate::clock::Clock;
use crate::observe::{Observation, Publication};
use crate::publish::Sink;
use crate::publish::health::HealthReader;
use crate::shutdown::Shutdown;
use crate::stats::Stats;
use crate::task::TaskResult;

/// [`MqttClient::run`] ends at most so long after the shutdown was requested.
pub const STOP_LIMIT: Duration = Duration::from_millis(1300);
/// Of that, how long what is queued may take to go out.
const FLUSH_LIMIT: Duration = Duration::from_millis(1000);
/// [`Shutdown`] wakes threads, not futures: how often the future looks.
const TICK: Duration = Duration::from_millis(50);
/// A connection that lasted so long was a good one: back-off starts again.
const STEADY: Duration = Duration::from_secs(5);
/// TCP and MQTT handshake together.
const CONNECT_TIMEOUT_S: u64 = 5;
/// Requests handed to rumqttc ahead. It forgets them on a reconnect, so they are few and taken back.
const AHEAD: usize = 10;
/// rumqttc refuses more than 10 KiB by default; an f32 embedding of 2048 is 11 KiB.
const MAX_OUTGOING_BYTES: usize = 64 << 20;
const MAX_INCOMING_BYTES: usize = 256 << 10;

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
    events: EventLoop,
}

/// Everything of the client but the connection, so that both can be held at once.
struct Outlet {
    shared: Arc<Shared>,
    settings: MqttSettings,
    device: DeviceInfo,
    topics: Topics,
    requests: AsyncClient,
    /// Made, but not yet taken by rumqttc.
    outbox: VecDeque<Publish>,
    /// Taken by rumqttc, but neither written (QoS 0) nor acknowledged (QoS 1).
    outstanding: usize,
    connected: Option<Instant>,
    health: HealthReader,
    health_due: Instant,
    started: Instant,
    stop: Stop,
    backoff: Backoff,
    reporter: Reporter,
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

/// Makes the two ends; nothing is connected until [`MqttClient::run`]. Cameras are those of `stats`.
pub fn connect(
    settings: MqttSettings,
    device: DeviceInfo,
    stats: Arc<Stats>,
    clock: Arc<dyn Clock>,
) -> Result<(MqttSink, MqttClient), MqttError> {
    let topics = Topics::new(&settings.prefix, &device.id);
    let mut options = options(&settings, &device.id, "")?;
    options.set_last_will(LastWill::new(
        topics.status(),
        payload::OFFLINE,
        QoS::AtLeastOnce,
        true,
    ));
    let (requests, mut events) = AsyncClient::new(options, AHEAD);
    tune(&mut events);
    let cameras = stats.cameras.iter().map(|c| c.id.clone());
    let shared = Arc::new(Shared {
        queue: Mutex::new(Queue::new(settings.queue, settings.max_rate, cameras)),
        wake: Notify::new(),
        stats,
        clock: clock.clone(),
    });
    let sink = MqttSink {
        shared: shared.clone(),
    };
    let (host, port) = settings.address().unwrap_or_default();
    let outlet = Outlet {
        shared,
        settings,
        device,
        topics,
        requests,
        outbox: VecDeque::new(),
        outstanding: 0,
        connected: None,
        health: HealthReader::default(),
        health_due: clock.now(),
        started: clock.now(),
        stop: Stop::No,
        backoff: Backoff::default(),
        reporter: Reporter::new(format!("{host}:{port}")),
    };
    let client = MqttClient { outlet, events };
    Ok((sink, client))
}

/// Connects once and disconnects: whether the broker can be reached and lets us in, for `ocellus check`.
pub async fn probe(settings: &MqttSettings, device: &str) -> Result<(), String> {
    let options = options(settings, device, "-check").map_err(|e| e.to_string())?;
    let (requests, mut events) = AsyncClient::new(options, AHEAD);
    tune(&mut events);
    match events.poll().await {
        Ok(_) => {
            let _ = requests.try_disconnect();
            let _ = time::timeout(Duration::from_secs(1), events.poll()).await;
            Ok(())
        }
        Err(e) => Err(describe(&e)),
    }
}

pub(super) fn options(
    settings: &MqttSettings,
    device: &str,
    client_id_suffix: &str,
) -> Result<MqttOptions, MqttError> {
    let mut problems = settings.problems();
    problems.extend(settings::device_problem(device));
    if !problems.is_empty() {
        return Err(MqttError::Settings(problems));
    }
    let one = |p| MqttError::Settings(vec![p]);
    let (host, port) = settings.address().map_err(one)?;
    let client_id = settings.client_id(device) + client_id_suffix;
    let mut options = MqttOptions::new(client_id, host, port);
    options
        .set_keep_alive(Duration::from_secs(settings.keep_alive_s.into()))
        .set_max_packet_size(MAX_INCOMING_BYTES, MAX_OUTGOING_BYTES)
        .set_clean_session(true);
    if let Some(user) = &settings.username {
        let password = settings.password().map_err(one)?;
        options.set_credentials(user, password.map(|p| p.0).unwrap_or_default());
    }
    Ok(options)
}

pub(super) fn tune(events: &mut EventLoop) {
    let mut network = events.network_options();
    network.set_tcp_nodelay(true);
    network.set_connection_timeout(CONNECT_TIMEOUT_S);
    events.set_network_options(network);
}

impl std::fmt::Debug for MqttClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // rumqttc's options hold the password.
        f.debug_struct("MqttClient")
            .field("topics", &self.outlet.topics)
            .finish_non_exhaustive()
    }
}

impl MqttClient {
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
            time::sleep(STOP_LIMIT - TICK).await;
        };
        tokio::select! {
            () = self.work(&shutdown) => {}
            () = limit => tracing::warn!("MQTT: stopped without a clean disconnect"),
        }
        stats.broker_connected.store(false, Relaxed);
    }

    async fn work(&mut self, shutdown: &Shutdown) {
        let Self { outlet, events } = self;
        let shared = outlet.shared.clone();
        let mut tick = time::interval(TICK);
        tick.set_missed_tick_behavior(time::MissedTickBehavior::Skip);
        loop {
            // One poll is never cancelled: rumqttc would start its handshake anew, or lose a packet that it has
            // half written. Meanwhile messages are handed to it through its channel.
            let polled = {
                let poll = events.poll();
                tokio::pin!(poll);
                loop {
                    if outlet.advance(shutdown) {
                        return;
                    }
                    tokio::select! {
                        biased;
                        polled = &mut poll => break polled,
                        () = shared.wake.notified() => {}
                        _ = tick.tick() => {}
                    }
                }
            };
            match polled {
                Ok(event) => {
                    if outlet.on_event(&event) {
                        return;
                    }
                }
                Err(error) => {
                    let wait = outlet.on_error(&error, events.pending.drain(..));
                    let until = Instant::now() + wait;
                    while Instant::now() < until {
                        if shutdown.is_requested() {
                            return;
                        }
                        tick.tick().await;
                    }
                }
            }
        }
    }
}

impl Outlet {
    /// Hands on what can go, and goes on with stopping. Returns whether there is nothing more to do.
    fn advance(&mut self, shutdown: &Shutdown) -> bool {
        let now = Instant::now();
        if self.stop == Stop::No && shutdown.is_requested() {
            self.stop = Stop::Flushing(now + FLUSH_LIMIT);
            self.shared.queue().all_offline();
        }
        if self.connected.is_none() {
            // A handshake under way may still end in time for what is queued.
            return matches!(self.stop, Stop::Flushing(until) if now >= until || self.shared.queue().len() == 0);
        }
        if self.stop == Stop::No && self.shared.clock.now() >= self.health_due {
            self.health_due = self.shared.clock.now() + self.settings.health();
            let message = self.health_message();
            self.outbox.push_back(message);
        }
        self.feed();
        let sent = self.outbox.is_empty() && self.outstanding == 0;
        match self.stop {
            Stop::Flushing(until) if sent || now >= until => {
                self.outbox.clear();
                let offline = retained(self.topics.status(), payload::OFFLINE);
                self.outbox.push_back(offline);
                self.stop = Stop::Goodbye;
                self.feed();
            }
            Stop::Goodbye if sent && self.requests.try_disconnect().is_ok() => {
                self.stop = Stop::Disconnecting;
            }
            _ => {}
        }
        false
    }

    /// Fills rumqttc's channel from the outbox, and the outbox from the queue.
    fn feed(&mut self) {
        loop {
            if self.outbox.is_empty() && matches!(self.stop, Stop::No | Stop::Flushing(_)) {
                let now = self.shared.clock.now();
                let item = self.shared.queue().pop(now, self.settings.heartbeat());
                if let Some(item) = item {
                    self.make_messages(item);
                }
            }
            let Some(p) = self.outbox.pop_front() else {
                return;
            };
            match self
                .requests
                .try_publish(p.topic, p.qos, p.retain, p.payload)
            {
                Ok(()) => self.outstanding += 1,
                Err(ClientError::TryRequest(Request::Publish(p))) => {
                    self.outbox.push_front(p);
                    return;
                }
                // Only a topic with wildcards ends here, and ids have none.
                Err(_) => return,
            }
        }
    }

    /// Returns whether the connection was closed on purpose.
    fn on_event(&mut self, event: &Event) -> bool {
        let stats = self.shared.stats.clone();
        match event {
            Event::Incoming(Packet::ConnAck(_)) => {
                self.connected = Some(Instant::now());
                self.reporter.connected();
                stats.broker_connected.store(true, Relaxed);
                stats.broker_connects.inc();
                self.shared.queue().all_due();
                let info = payload::info(&self.device, self.shared.clock.wall());
                self.outbox.push_front(retained(self.topics.info(), info));
                self.outbox
                    .push_front(retained(self.topics.status(), payload::ONLINE));
            }
            Event::Outgoing(Outgoing::Publish(0)) | Event::Incoming(Packet::PubAck(_)) => {
                stats.published.inc();
                self.outstanding = self.outstanding.saturating_sub(1);
            }
            Event::Outgoing(Outgoing::Disconnect) => return true,
            _ => {}
        }
        false
    }

    /// Takes back what rumqttc still held, since it would forget it. Returns how long to wait.
    fn on_error(
        &mut self,
        error: &ConnectionError,
        pending: impl Iterator<Item = Request>,
    ) -> Duration {
        if self.connected.take().is_some_and(|t| t.elapsed() >= STEADY) {
            self.backoff.reset();
        }
        self.shared.stats.broker_connected.store(false, Relaxed);
        self.reporter.failed(error);
        self.outstanding = 0;
        let mut again: VecDeque<Publish> = pending
            .filter_map(|r| match r {
                // Retained ones are made anew after each connect.
                Request::Publish(p) if !p.retain => Some(p),
                _ => None,
            })
            .collect();
        self.outbox.retain(|p| !p.retain);
        again.append(&mut self.outbox);
        self.outbox = again;
        self.backoff.next()
    }

    fn make_messages(&mut self, item: Item) {
        let device = &self.device.id;
        match item {
            Item::Status(camera, online) => {
                let text = if online {
                    payload::ONLINE
                } else {
                    payload::OFFLINE
                };
                let topic = self.topics.camera(&camera, "status");
                self.outbox.push_back(retained(topic, text));
            }
            Item::State(o) => {
                let topic = self.topics.camera(&o.meta.camera, "state");
                self.outbox
                    .push_back(retained(topic, payload::state(device, &o)));
            }
            Item::Observation {
                observation,
                sections,
            } => {
                if sections {
                    self.make_sections(&observation);
                }
                if let Some(change) = &observation.change {
                    let topic = self.topics.camera(&observation.meta.camera, "event");
                    let event = payload::event(&self.device.id, &observation, change);
                    let event = Publish::new(topic, QoS::AtLeastOnce, event);
                    self.outbox.push_back(event);
                }
            }
        }
    }

    fn make_sections(&mut self, o: &Observation) {
        let device = &self.device.id;
        let qos = match self.settings.qos {
            0 => QoS::AtMostOnce,
            _ => QoS::AtLeastOnce,
        };
        for result in &o.results {
            let (kind, bytes) = match result {
                TaskResult::Classification(classes) => (
                    "classification",
                    payload::classification(device, o, classes),
                ),
                TaskResult::Embedding(_) if !self.settings.embeddings => continue,
                TaskResult::Embedding(e) => ("embedding", payload::embedding(device, o, e)),
            };
            let topic = self.topics.camera(&o.meta.camera, kind);
            self.outbox.push_back(Publish::new(topic, qos, bytes));
        }
    }

    fn health_message(&mut self) -> Publish {
        let clock = &self.shared.clock;
        let board = self.health.read();
        let queued = self.shared.queue().len() + self.outbox.len();
        let bytes = payload::health(
            &self.device.id,
            clock.wall(),
            clock.now().saturating_duration_since(self.started),
            &board,
            queued,
            &self.shared.stats,
        );
        Publish::new(self.topics.health(), QoS::AtMostOnce, bytes)
    }
}

fn retained(topic: String, payload: impl Into<Vec<u8>>) -> Publish {
    let mut p = Publish::new(topic, QoS::AtLeastOnce, payload);
    p.retain = true;
    p
}
