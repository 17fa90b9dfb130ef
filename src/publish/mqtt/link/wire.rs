//! What the link needs of either version of rumqttc.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use super::error::LinkError;
use super::{Message, Qos};

/// Where requests go in. rumqttc takes them in their order.
pub(super) trait Requests: Send {
    /// Whether it was taken.
    fn publish(&mut self, message: &Message) -> bool;
    /// Whether it was taken; an invalid filter is not.
    fn subscribe(&mut self, filter: &str, qos: Qos) -> bool;
    /// Whether it was taken.
    fn disconnect(&mut self) -> bool;
}

/// Where events come out.
pub(super) trait Events: Send {
    /// The next event; the connection is made by the first one.
    fn next(self: Box<Self>) -> Next;
    /// After an error: what had come before it, and what had been begun.
    fn leftover(self: Box<Self>) -> Vec<WireEvent>;
}

/// rumqttc under way to its next event.
pub(super) type Next =
    Pin<Box<dyn Future<Output = (Box<dyn Events>, Result<WireEvent, LinkError>)> + Send>>;

/// What rumqttc says, in either version of MQTT.
#[derive(Debug)]
pub(super) enum WireEvent {
    Connected {
        session_present: bool,
        /// Messages that may be unacknowledged at a time.
        receive_maximum: Option<u16>,
        /// The largest packet that the broker takes.
        max_packet_bytes: Option<u32>,
    },
    /// A PUBLISH is written; id 0: QoS 0.
    Published(u16),
    Subscribing(u16),
    Disconnecting,
    /// The reason, if it is a refusal.
    PubAck(u16, Option<String>),
    SubAck(u16, Result<(), String>),
    Incoming(Message),
    /// Nothing that concerns anybody.
    Other,
}

/// Polls a future once. rumqttc's channel has room for what the link sends, so that sending is done at once; only its async
/// functions take a payload without copying it.
pub(super) fn at_once<T>(future: impl Future<Output = T>) -> Option<T> {
    let future = std::pin::pin!(future);
    match future.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}
