//! MQTT 3.1.1: rumqttc's client in the link's terms.

use std::task::{Context, Poll, Waker};

use rumqttc::{
    AsyncClient, Event, EventLoop, LastWill, MqttOptions, Outgoing, Packet, QoS,
    SubscribeReasonCode,
};

use super::error::{self, LinkError};
use super::{
    AHEAD, CONNECT_TIMEOUT, LinkOptions, MAX_INCOMING_BYTES, MAX_OUTGOING_BYTES, Message,
    Properties, Qos, WINDOW, WireEvent,
};

/// Where requests go in.
pub(super) struct Requests(AsyncClient);

/// Where events come out.
pub(super) struct Events(EventLoop);

/// A new rumqttc; it connects when its events are asked for.
pub(super) fn open(options: &LinkOptions) -> (Requests, Events) {
    let mut o = MqttOptions::new(&options.client_id, &options.host, options.port);
    o.set_keep_alive(options.keep_alive)
        .set_max_packet_size(MAX_INCOMING_BYTES, MAX_OUTGOING_BYTES)
        .set_inflight(WINDOW as u16)
        .set_clean_session(true);
    if let Some((user, password)) = &options.credentials {
        o.set_credentials(user, password.reveal());
    }
    if let Some(will) = &options.will {
        let (topic, payload) = (will.topic.clone(), will.payload.clone());
        o.set_last_will(LastWill::new(topic, payload, qos(will.qos), will.retain));
    }
    let (client, mut events) = AsyncClient::new(o, AHEAD);
    let mut network = events.network_options();
    network.set_tcp_nodelay(true);
    network.set_connection_timeout(CONNECT_TIMEOUT.as_secs());
    events.set_network_options(network);
    (Requests(client), Events(events))
}

fn qos(qos: Qos) -> QoS {
    match qos {
        Qos::AtMostOnce => QoS::AtMostOnce,
        Qos::AtLeastOnce => QoS::AtLeastOnce,
    }
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

impl Requests {
    pub fn publish(&mut self, m: &Message) -> bool {
        let send = self
            .0
            .publish_bytes(&m.topic, qos(m.qos), m.retain, m.payload.clone());
        matches!(at_once(send), Some(Ok(())))
    }

    pub fn subscribe(&mut self, filter: &str, q: Qos) -> bool {
        self.0.try_subscribe(filter, qos(q)).is_ok()
    }

    pub fn disconnect(&mut self) -> bool {
        self.0.try_disconnect().is_ok()
    }
}

impl Events {
    pub async fn next(mut self) -> (Self, Result<WireEvent, LinkError>) {
        let result = self.0.poll().await;
        let result = result.map(translate).map_err(|e| error::from_v4(&e));
        (self, result)
    }

    /// After an error: what had come before it. A PUBLISH at QoS 0 was not proven to be written, so it is left out.
    pub fn leftover(mut self) -> Vec<WireEvent> {
        let events = self.0.state.events.drain(..);
        let told = events
            .map(translate)
            .take_while(|e| !matches!(e, WireEvent::Published(0) | WireEvent::Disconnecting));
        told.collect()
    }
}

fn translate(event: Event) -> WireEvent {
    match event {
        Event::Incoming(Packet::ConnAck(c)) => WireEvent::Connected {
            session_present: c.session_present,
        },
        Event::Incoming(Packet::PubAck(p)) => WireEvent::PubAck(p.pkid, None),
        Event::Incoming(Packet::SubAck(s)) => {
            let refused = s.return_codes.contains(&SubscribeReasonCode::Failure);
            let granted = match refused {
                true => Err("the broker refused it: an access rule".into()),
                false => Ok(()),
            };
            WireEvent::SubAck(s.pkid, granted)
        }
        Event::Incoming(Packet::Publish(p)) => WireEvent::Incoming(Message {
            topic: p.topic,
            payload: p.payload,
            qos: match p.qos {
                QoS::AtMostOnce => Qos::AtMostOnce,
                QoS::AtLeastOnce | QoS::ExactlyOnce => Qos::AtLeastOnce,
            },
            retain: p.retain,
            properties: Properties::default(),
        }),
        Event::Outgoing(Outgoing::Publish(id)) => WireEvent::Published(id),
        Event::Outgoing(Outgoing::Subscribe(id)) => WireEvent::Subscribing(id),
        Event::Outgoing(Outgoing::Disconnect) => WireEvent::Disconnecting,
        _ => WireEvent::Other,
    }
}
