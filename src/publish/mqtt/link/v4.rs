//! MQTT 3.1.1: rumqttc's client in the link's terms.

use rumqttc::{
    AsyncClient, Event, EventLoop, LastWill, MqttOptions, Outgoing, Packet, QoS,
    SubscribeReasonCode, TlsConfiguration, Transport,
};

use super::error;
use super::wire::{Events, Next, Requests, WireEvent, at_once};
use super::{
    AHEAD, CIRCLE, CONNECT_TIMEOUT, LinkOptions, MAX_OUTGOING_BYTES, MAX_READ_BYTES, Message,
    Properties, Qos,
};

/// A new rumqttc; it connects when its events are asked for.
pub(super) fn open(options: &LinkOptions) -> (Box<dyn Requests>, Box<dyn Events>) {
    let mut o = MqttOptions::new(&options.client_id, options.rumqttc_host(), options.port);
    o.set_keep_alive(options.keep_alive)
        .set_max_packet_size(MAX_READ_BYTES, MAX_OUTGOING_BYTES)
        .set_inflight(CIRCLE as u16)
        .set_clean_session(true);
    if let Some(tls) = &options.tls {
        let config = TlsConfiguration::Rustls(tls.config.clone());
        o.set_transport(Transport::tls_with_config(config));
    }
    if let Some(login) = &options.login {
        o.set_credentials(&login.user, login.password.reveal());
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
    (Box::new(Client(client)), Box::new(Loop(events)))
}

struct Client(AsyncClient);

struct Loop(EventLoop);

fn qos(qos: Qos) -> QoS {
    match qos {
        Qos::AtMostOnce => QoS::AtMostOnce,
        Qos::AtLeastOnce => QoS::AtLeastOnce,
    }
}

impl Requests for Client {
    fn publish(&mut self, m: &Message) -> bool {
        let send = self
            .0
            .publish_bytes(&m.topic, qos(m.qos), m.retain, m.payload.clone());
        matches!(at_once(send), Some(Ok(())))
    }

    fn subscribe(&mut self, filter: &str, q: Qos) -> bool {
        self.0.try_subscribe(filter, qos(q)).is_ok()
    }

    fn disconnect(&mut self) -> bool {
        self.0.try_disconnect().is_ok()
    }
}

impl Events for Loop {
    fn next(mut self: Box<Self>) -> Next {
        Box::pin(async move {
            let result = self.0.poll().await;
            let result = result.map(translate).map_err(|e| error::from_v4(&e));
            (self as Box<dyn Events>, result)
        })
    }

    fn leftover(mut self: Box<Self>) -> Vec<WireEvent> {
        self.0.state.events.drain(..).map(translate).collect()
    }
}

fn translate(event: Event) -> WireEvent {
    match event {
        Event::Incoming(Packet::ConnAck(c)) => WireEvent::Connected {
            session_present: c.session_present,
            receive_maximum: None,
            max_packet_bytes: None,
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
