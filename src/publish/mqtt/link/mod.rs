//! One MQTT connection after another, and the name of every message on it: the only place that knows rumqttc.
//!
//! In: messages, each with its caller's [`Token`], and filters to subscribe to. Out: [`LinkEvent`]s, by [`Link::poll`],
//! on the `io` thread. Always holds:
//! - [`LinkEvent::Acked`] names the message that the broker acknowledged, however it orders its acknowledgements.
//!   rumqttc takes requests in their order and tells the packet id of each as it writes it; the link pairs the two.
//! - A message is in exactly one place: with its caller, or here until its [`LinkEvent::Sent`], [`LinkEvent::Acked`] or
//!   [`LinkEvent::Refused`], or given back by [`Link::take_back`] after an error, in the order in which it was handed over.
//! - Each connection is a new rumqttc: nothing of a dead one (packet ids, collisions, events) reaches the next.
//! - A poll of rumqttc is never cancelled while its connection lives (it would start its handshake anew, or lose a packet that
//!   it has half written): the link keeps the future, so [`Link::poll`] itself may be cancelled at any time.

mod error;
mod tls;
mod v4;
mod v5;
mod wire;

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{self, Instant};

pub use error::{Cause, LinkError};
pub use tls::{Tls, TlsProblem, TlsSettings};
use wire::{Next, Requests, WireEvent};

use super::address::unbracketed;
use crate::secret::Login;

/// TCP, TLS and MQTT handshake together; also how long the broker may take no bytes.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Requests handed to rumqttc ahead of what it has written.
const AHEAD: usize = 10;
/// Packet ids in use at most, counted from the oldest that is not acknowledged.
const WINDOW: usize = 100;
/// rumqttc hands packet ids out in a circle of this length. It is longer than the window, so that no id is used twice, nor at once
/// again: a broker that acknowledges twice must not acknowledge the next message.
const CIRCLE: usize = 200;
/// The usual [`LinkOptions::ack_limit`]: the messages go again on a new connection.
pub const ACK_LIMIT: Duration = Duration::from_secs(60);
/// An f32 embedding of 2048 is 11 KiB, a snapshot may be megabytes.
const MAX_OUTGOING_BYTES: usize = 64 << 20;
/// Larger ones are dropped and told. Under MQTT 5 the broker is told, and keeps them.
const MAX_INCOMING_BYTES: usize = 256 << 10;
/// What 3.1.1 reads, only to drop it: there a client cannot tell its bounds, and a retained message would end each connection anew.
const MAX_READ_BYTES: usize = 16 << 20;
/// The usual [`LinkOptions::listen_again`].
pub const LISTEN_AGAIN: Duration = Duration::from_secs(600);

/// The caller's name of a message.
pub type Token = u64;

/// How a message is delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Qos {
    /// QoS 0: written, perhaps lost.
    AtMostOnce,
    /// QoS 1: acknowledged by the broker, perhaps twice.
    AtLeastOnce,
}

/// A message to or from the broker.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    /// 1 to 65535 bytes, no wildcards.
    pub topic: String,
    /// At most 64 MiB out; what comes in larger than 256 KiB is [`LinkEvent::TooLarge`].
    pub payload: Bytes,
    /// How it is delivered.
    pub qos: Qos,
    /// Whether the broker keeps it for later subscribers; on an incoming one: whether the broker had kept it.
    pub retain: bool,
    /// What MQTT 5 says besides; under 3.1.1 nothing of it is sent, and it comes empty.
    pub properties: Properties,
}

/// [`Properties::content_type`] of a picture.
pub const PICTURE: &str = "image/jpeg";

/// What an MQTT 5 message says besides topic and payload.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Properties {
    /// The broker forgets the message when it could not deliver it for so long; whole seconds go over the wire.
    pub expiry: Option<Duration>,
    /// MIME type of the payload.
    pub content_type: Option<String>,
    /// Where an answer is expected.
    pub response_topic: Option<String>,
    /// What the answer repeats.
    pub correlation_data: Option<Bytes>,
    /// Names and values.
    pub user: Vec<(String, String)>,
}

impl Message {
    /// A message that is not retained and has no properties.
    pub fn new(topic: String, qos: Qos, payload: impl Into<Bytes>) -> Self {
        Self {
            topic,
            payload: payload.into(),
            qos,
            retain: false,
            properties: Properties::default(),
        }
    }

    /// A message at QoS 1 that the broker keeps.
    pub fn retained(topic: String, payload: impl Into<Bytes>) -> Self {
        Self {
            retain: true,
            ..Self::new(topic, Qos::AtLeastOnce, payload)
        }
    }

    /// Whether it is a picture, as its maker says.
    pub fn is_picture(&self) -> bool {
        self.properties.content_type.as_deref() == Some(PICTURE)
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("topic", &self.topic)
            .field("payload_bytes", &self.payload.len())
            .field("qos", &self.qos)
            .field("retain", &self.retain)
            .finish_non_exhaustive()
    }
}

/// Which broker, and who says so.
#[derive(Debug, Clone)]
pub struct LinkOptions {
    /// A name or an address; IPv6 in brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// No two clients of a broker may share one.
    pub client_id: String,
    /// Time between signs of life; a silent broker is given up after twice as long.
    pub keep_alive: Duration,
    /// Which MQTT is spoken.
    pub version: Version,
    /// MQTT 5: how long the broker keeps subscriptions, and messages for them, for a client that is away. 0: it begins anew.
    pub session_expiry: Duration,
    /// TLS, if it is spoken.
    pub tls: Option<Tls>,
    /// User name and password.
    pub login: Option<Login>,
    /// What the broker says when this client disappears.
    pub will: Option<Message>,
    /// A broker that leaves a message unacknowledged, or takes no bytes, for so long is left.
    pub ack_limit: Duration,
    /// After a subscription that the broker refused, and after a message that is too large to be read: how long until the link
    /// subscribes again, on whichever connection there is then.
    pub listen_again: Duration,
}

/// Versions of MQTT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// MQTT 3.1.1
    V3,
    /// MQTT 5
    V5,
}

impl LinkOptions {
    /// rumqttc writes `host:port` for the resolver, which wants brackets around an IPv6 address only where it is to tell the
    /// two apart itself; and takes the same text for the name in the certificate, where there are none.
    fn rumqttc_host(&self) -> &str {
        let bare = unbracketed(&self.host).filter(|_| self.tls.is_some());
        bare.unwrap_or(&self.host)
    }
}

/// What happened on the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkEvent {
    /// The broker let us in. Messages may be handed over from now on; filters are subscribed to again.
    Connected {
        /// Whether the broker remembers this client.
        session_present: bool,
    },
    /// A message at QoS 0 was written to the connection.
    Sent(Token),
    /// The broker acknowledged this very message.
    Acked(Token),
    /// This message will never be taken: by the broker, which said why, or because it cannot be sent.
    Refused(Token, String),
    /// The broker answered a subscription, also after each reconnect.
    Subscribed {
        /// What was subscribed to.
        filter: String,
        /// The broker's reason if it refused.
        granted: Result<(), String>,
    },
    /// A message came. One at QoS 1 is already acknowledged.
    Incoming(Message),
    /// A message came that is larger than what is taken, and was dropped.
    TooLarge {
        /// Where it came.
        topic: String,
        /// Of its payload.
        bytes: usize,
    },
    /// The connection was closed on purpose, after [`Link::disconnect`].
    Closed,
}

/// The connection to a broker, as long as the process.
pub struct Link {
    options: LinkOptions,
    filters: Vec<(String, Qos)>,
    deaf_until: Option<Instant>,
    /// Filters that are not heard on this connection: refused, or put off.
    unheard: Vec<(String, Qos)>,
    /// When they are subscribed to.
    listen_at: Option<Instant>,
    connection: Option<Connection>,
    /// Filters that wait for room.
    to_subscribe: VecDeque<(String, Qos)>,
    /// Handed to rumqttc, not yet written, in their order.
    queued: VecDeque<Slot>,
    /// Written, in their order, from the oldest that is not acknowledged. `None`: acknowledged.
    in_flight: VecDeque<(u16, Option<Slot>)>,
    ready: VecDeque<LinkEvent>,
    failed: Option<LinkError>,
    taken_back: Vec<(Token, Message)>,
}

/// A connection that is being made or is there.
struct Connection {
    requests: Box<dyn Requests>,
    /// rumqttc, under way to its next event.
    next: Next,
    connected: bool,
    /// Packet ids in use at most.
    window: usize,
    /// The largest packet that the broker takes.
    max_packet_bytes: usize,
}

/// A request that rumqttc has.
#[derive(Debug)]
struct Slot {
    request: Request,
    since: Instant,
}

#[derive(Debug)]
enum Request {
    Publish(Token, Message),
    Subscribe(String),
    Disconnect,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("host", &self.options.host)
            .field("port", &self.options.port)
            .field("queued", &self.queued.len())
            .field("in_flight", &self.in_flight.len())
            .finish_non_exhaustive()
    }
}

impl Link {
    /// Nothing is connected until the first [`poll`](Self::poll).
    pub fn new(options: LinkOptions) -> Self {
        Self {
            options,
            filters: Vec::new(),
            deaf_until: None,
            unheard: Vec::new(),
            listen_at: None,
            connection: None,
            to_subscribe: VecDeque::new(),
            queued: VecDeque::new(),
            in_flight: VecDeque::new(),
            ready: VecDeque::new(),
            failed: None,
            taken_back: Vec::new(),
        }
    }

    /// Hands a message over. Given back where the connection takes no more now, or is not there: again after the next
    /// event. Tokens of messages that are under way must differ.
    #[expect(
        clippy::result_large_err,
        reason = "the error is the message, given back"
    )]
    pub fn publish(&mut self, token: Token, message: Message) -> Result<(), Message> {
        let limit = self.connection.as_ref().map(|c| c.max_packet_bytes);
        if let Some(why) = unsendable(&message, limit.unwrap_or(MAX_OUTGOING_BYTES)) {
            self.ready.push_back(LinkEvent::Refused(token, why.into()));
            return Ok(());
        }
        let room = self.has_room();
        let Some(connection) = self.connection.as_mut().filter(|c| c.connected && room) else {
            return Err(message);
        };
        if !connection.requests.publish(&message) {
            return Err(message);
        }
        self.enqueue(Request::Publish(token, message));
        Ok(())
    }

    /// Subscribes, now or with the next connection, again after each reconnect, and now and then where the broker refused.
    pub fn subscribe(&mut self, filter: &str, qos: Qos) {
        let subscription = (filter.to_string(), qos);
        self.filters.retain(|(f, _)| f != filter);
        self.filters.push(subscription.clone());
        self.unheard.retain(|(f, _)| f != filter);
        if self.is_connected() {
            self.to_subscribe.push_back(subscription);
            self.feed_subscriptions();
        }
    }

    /// Asks for a clean end: the broker forgets the will. Whether the request was taken; if not, again after the next
    /// event.
    pub fn disconnect(&mut self) -> bool {
        let room = self.has_room();
        let taken = self
            .connection
            .as_mut()
            .is_some_and(|c| c.connected && room && c.requests.disconnect());
        if taken {
            self.enqueue(Request::Disconnect);
        }
        taken
    }

    /// Whether messages can be handed over.
    pub fn is_connected(&self) -> bool {
        self.connection.as_ref().is_some_and(|c| c.connected)
    }

    /// Messages that were handed over and have no [`LinkEvent::Sent`], [`LinkEvent::Acked`] or [`LinkEvent::Refused`] yet.
    pub fn outstanding(&self) -> usize {
        let written = self.in_flight.iter().filter_map(|(_, slot)| slot.as_ref());
        let is_message = |s: &&Slot| matches!(s.request, Request::Publish(..));
        written.chain(&self.queued).filter(is_message).count()
    }

    /// After an error: the messages that were handed over and neither written (QoS 0) nor acknowledged (QoS 1), in their order.
    /// Those at QoS 1 may have arrived all the same. The caller hands them over again once connected.
    pub fn take_back(&mut self) -> Vec<(Token, Message)> {
        std::mem::take(&mut self.taken_back)
    }

    /// The next event; connects if there is no connection. May be cancelled. An error ends the connection, and the next poll makes
    /// a new one: wait between them.
    pub async fn poll(&mut self) -> Result<LinkEvent, LinkError> {
        loop {
            self.listen();
            if let Some(event) = self.ready.pop_front() {
                return Ok(event);
            }
            if let Some(error) = self.failed.take() {
                return Err(error);
            }
            let ack_deadline = self.ack_deadline();
            let deadline = [ack_deadline, self.listen_at].into_iter().flatten().min();
            let options = &self.options;
            let connection = self.connection.get_or_insert_with(|| {
                let (requests, events) = match options.version {
                    Version::V3 => v4::open(options),
                    Version::V5 => v5::open(options),
                };
                Connection {
                    requests,
                    next: events.next(),
                    connected: false,
                    window: WINDOW,
                    max_packet_bytes: MAX_OUTGOING_BYTES,
                }
            });
            let next = &mut connection.next;
            let polled = match deadline {
                Some(at) => time::timeout_at(at, next).await,
                None => Ok(next.await),
            };
            match polled {
                Ok((events, Ok(event))) => {
                    connection.next = events.next();
                    self.on_wire(event);
                }
                Ok((events, Err(error))) => {
                    // What came before the error counts: acknowledgements above all.
                    let connected = self.is_connected();
                    self.connection = None;
                    if error.cause == Cause::TooLarge {
                        self.deaf_until = Some(Instant::now() + self.options.listen_again);
                    }
                    for event in events.leftover() {
                        // Begun, and not known to be written.
                        if matches!(event, WireEvent::Published(0) | WireEvent::Disconnecting) {
                            break;
                        }
                        self.on_wire(event);
                    }
                    self.fail(match connected {
                        true => error,
                        false => error.before_connected(&self.options),
                    });
                }
                Err(_) if ack_deadline.is_none_or(|at| Instant::now() < at) => {}
                Err(_) => self.fail(LinkError::new(
                    Cause::Lost,
                    "the broker left a message unacknowledged for too long",
                )),
            }
        }
    }

    fn has_room(&self) -> bool {
        let window = self.connection.as_ref().map_or(WINDOW, |c| c.window);
        self.queued.len() < AHEAD && self.queued.len() + self.in_flight.len() < window
    }

    fn enqueue(&mut self, request: Request) {
        let since = Instant::now();
        self.queued.push_back(Slot { request, since });
    }

    fn ack_deadline(&self) -> Option<Instant> {
        let written = self.in_flight.iter().find_map(|(_, slot)| slot.as_ref());
        let oldest = written.into_iter().chain(self.queued.front());
        oldest
            .map(|s| s.since)
            .min()
            .map(|t| t + self.options.ack_limit)
    }

    /// Subscribes to what is not heard, when that is due.
    fn listen(&mut self) {
        if self.listen_at.is_some_and(|at| Instant::now() >= at) {
            self.listen_at = None;
            self.to_subscribe.extend(self.unheard.drain(..));
            self.feed_subscriptions();
        }
    }

    fn feed_subscriptions(&mut self) {
        while self.has_room()
            && let Some(connection) = &mut self.connection
            && let Some((filter, qos)) = self.to_subscribe.pop_front()
        {
            if connection.requests.subscribe(&filter, qos) {
                self.enqueue(Request::Subscribe(filter));
            } else {
                let granted = Err("is no valid topic filter".into());
                self.ready
                    .push_back(LinkEvent::Subscribed { filter, granted });
            }
        }
    }

    fn on_wire(&mut self, event: WireEvent) {
        match event {
            WireEvent::Connected {
                session_present,
                receive_maximum,
                max_packet_bytes,
            } => {
                if let Some(connection) = &mut self.connection {
                    connection.connected = true;
                    // rumqttc makes the circle as short as the broker's limit.
                    let circle = receive_maximum.map_or(CIRCLE, usize::from);
                    connection.window = (circle - circle / 4).clamp(1, WINDOW);
                    let limit = max_packet_bytes.map_or(MAX_OUTGOING_BYTES, |b| b as usize);
                    connection.max_packet_bytes = limit.min(MAX_OUTGOING_BYTES);
                }
                self.ready
                    .push_back(LinkEvent::Connected { session_present });
                self.unheard = self.filters.clone();
                self.listen_at = Some(self.deaf_until.unwrap_or_else(Instant::now));
                self.listen();
            }
            WireEvent::Published(id) => match (self.queued.pop_front(), id) {
                (Some(slot), 0) => match slot.request {
                    Request::Publish(token, m) if m.qos == Qos::AtMostOnce => {
                        self.ready.push_back(LinkEvent::Sent(token));
                    }
                    _ => self.confused(slot),
                },
                (Some(slot), id) => match &slot.request {
                    Request::Publish(_, m) if m.qos == Qos::AtLeastOnce => self.written(id, slot),
                    _ => self.confused(slot),
                },
                (None, _) => self.lost_count(),
            },
            WireEvent::Subscribing(id) => match self.queued.pop_front() {
                Some(slot) if matches!(slot.request, Request::Subscribe(_)) => {
                    self.written(id, slot);
                }
                Some(slot) => self.confused(slot),
                None => self.lost_count(),
            },
            // One that nothing waits for acknowledges nothing; rumqttc ends the connection for it.
            WireEvent::PubAck(id, refusal) => {
                if let Some(Request::Publish(token, _)) = self.answered(id) {
                    self.ready.push_back(match refusal {
                        None => LinkEvent::Acked(token),
                        Some(why) => LinkEvent::Refused(token, why),
                    });
                }
            }
            WireEvent::SubAck(id, granted) => {
                if let Some(Request::Subscribe(filter)) = self.answered(id) {
                    if granted.is_err() {
                        let wanted = self.filters.iter().filter(|(f, _)| *f == filter);
                        self.unheard.extend(wanted.cloned());
                        let at = Instant::now() + self.options.listen_again;
                        self.listen_at.get_or_insert(at);
                    }
                    self.ready
                        .push_back(LinkEvent::Subscribed { filter, granted });
                }
            }
            WireEvent::Incoming(message) => {
                let bytes = message.payload.len();
                let topic = message.topic.clone();
                self.ready.push_back(match bytes > MAX_INCOMING_BYTES {
                    true => LinkEvent::TooLarge { topic, bytes },
                    false => LinkEvent::Incoming(message),
                });
            }
            WireEvent::Disconnecting => {
                self.ready.push_back(LinkEvent::Closed);
                self.end();
            }
            WireEvent::Other => {}
        }
        if self.is_connected() {
            self.feed_subscriptions();
        }
    }

    fn written(&mut self, id: u16, mut slot: Slot) {
        slot.since = Instant::now();
        self.in_flight.push_back((id, Some(slot)));
    }

    /// The request that waits for an answer with this packet id.
    fn answered(&mut self, id: u16) -> Option<Request> {
        let mut written = self.in_flight.iter_mut();
        let (_, slot) = written.find(|(i, slot)| *i == id && slot.is_some())?;
        let request = slot.take().map(|s| s.request);
        while self.in_flight.front().is_some_and(|(_, s)| s.is_none()) {
            self.in_flight.pop_front();
        }
        request
    }

    /// rumqttc did not write what was its turn: without the order there is no telling which acknowledgement is whose.
    fn confused(&mut self, slot: Slot) {
        self.queued.push_front(slot);
        self.lost_count();
    }

    fn lost_count(&mut self) {
        self.fail(LinkError::new(
            Cause::Protocol,
            "the order of packets was lost",
        ));
    }

    /// Ends the connection; what was not acknowledged waits to be taken back.
    fn fail(&mut self, error: LinkError) {
        self.end();
        self.failed.get_or_insert(error);
    }

    fn end(&mut self) {
        self.connection = None;
        self.to_subscribe.clear();
        self.unheard.clear();
        self.listen_at = None;
        let written = self.in_flight.drain(..).filter_map(|(_, slot)| slot);
        for slot in written.chain(self.queued.drain(..)) {
            if let Request::Publish(token, message) = slot.request {
                self.taken_back.push((token, message));
            }
        }
    }
}

/// Why a message can never be sent. Handed to rumqttc, it would end each connection anew.
fn unsendable(message: &Message, max_packet_bytes: usize) -> Option<&'static str> {
    let topic = &message.topic;
    if topic.is_empty() || topic.len() > usize::from(u16::MAX) {
        return Some("the topic must have 1 to 65535 bytes");
    }
    if !rumqttc::valid_topic(topic) || topic.contains('\0') {
        return Some("the topic has wildcards");
    }
    // Ids, lengths, and every property that is sent.
    let p = &message.properties;
    let texts = [&p.content_type, &p.response_topic];
    let texts: usize = texts
        .iter()
        .filter_map(|t| t.as_ref())
        .map(|t| t.len() + 3)
        .sum();
    let user: usize = p.user.iter().map(|(k, v)| k.len() + v.len() + 5).sum();
    let correlation = p.correlation_data.as_ref().map_or(0, |c| c.len() + 3);
    let size = 32 + topic.len() + message.payload.len() + texts + user + correlation;
    (size > max_packet_bytes).then_some("the message is larger than the broker takes")
}
