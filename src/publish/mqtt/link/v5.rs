//! MQTT 5: rumqttc's client in the link's terms.

use std::time::Duration;

use bytes::Bytes;
use rumqttc::Outgoing;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    ConnectProperties, LastWill, Packet, PubAckReason, Publish, PublishProperties, SubAck,
    SubscribeReasonCode,
};
use rumqttc::v5::{AsyncClient, Event, EventLoop, MqttOptions};
use rumqttc::{NetworkOptions, Transport};

use super::error;
use super::wire::{Events, Next, Requests, WireEvent, at_once};
use super::{
    AHEAD, CIRCLE, CONNECT_TIMEOUT, LinkOptions, MAX_INCOMING_BYTES, Message, Properties, Qos,
};

/// rumqttc panics below.
const MIN_KEEP_ALIVE: Duration = Duration::from_secs(5);

/// A new rumqttc; it connects when its events are asked for.
pub(super) fn open(options: &LinkOptions) -> (Box<dyn Requests>, Box<dyn Events>) {
    let mut o = MqttOptions::new(&options.client_id, options.rumqttc_host(), options.port);
    let mut network = NetworkOptions::new();
    network.set_tcp_nodelay(true);
    let session = options.session_expiry.as_secs();
    let properties = ConnectProperties {
        session_expiry_interval: Some(u32::try_from(session).unwrap_or(u32::MAX)),
        max_packet_size: Some(MAX_INCOMING_BYTES as u32),
        ..ConnectProperties::new()
    };
    o.set_keep_alive(options.keep_alive.max(MIN_KEEP_ALIVE))
        .set_connection_timeout(CONNECT_TIMEOUT.as_secs())
        .set_network_options(network)
        .set_outgoing_inflight_upper_limit(CIRCLE as u16)
        .set_connect_properties(properties)
        .set_clean_start(session == 0);
    if let Some(tls) = &options.tls {
        o.set_transport(Transport::tls_with_config(
            rumqttc::TlsConfiguration::Rustls(tls.config.clone()),
        ));
    }
    if let Some(login) = &options.login {
        o.set_credentials(&login.user, login.password.reveal());
    }
    if let Some(will) = &options.will {
        let (topic, payload) = (&will.topic, will.payload.clone());
        let will = LastWill::new(topic, payload, qos(will.qos), will.retain, None);
        o.set_last_will(will);
    }
    let (client, events) = AsyncClient::new(o, AHEAD);
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
        let p = &m.properties;
        let seconds = |d: Duration| u32::try_from(d.as_secs().max(1)).unwrap_or(u32::MAX);
        let properties = PublishProperties {
            message_expiry_interval: p.expiry.map(seconds),
            content_type: p.content_type.clone(),
            response_topic: p.response_topic.clone(),
            correlation_data: p.correlation_data.clone(),
            user_properties: p.user.clone(),
            ..PublishProperties::default()
        };
        let (topic, payload) = (m.topic.as_str(), m.payload.clone());
        let client = &self.0;
        let send =
            client.publish_bytes_with_properties(topic, qos(m.qos), m.retain, payload, properties);
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
            let result = result.map(translate).map_err(|e| error::from_v5(&e));
            (self as Box<dyn Events>, result)
        })
    }

    fn leftover(mut self: Box<Self>) -> Vec<WireEvent> {
        self.0.state.events.drain(..).map(translate).collect()
    }
}

fn translate(event: Event) -> WireEvent {
    match event {
        Event::Incoming(Packet::ConnAck(c)) => {
            let p = c.properties;
            WireEvent::Connected {
                session_present: c.session_present,
                receive_maximum: p.as_ref().and_then(|p| p.receive_max),
                max_packet_bytes: p.and_then(|p| p.max_packet_size),
            }
        }
        Event::Incoming(Packet::PubAck(p)) => {
            let refused = match p.reason {
                PubAckReason::Success | PubAckReason::NoMatchingSubscribers => None,
                reason => {
                    let said = p.properties.and_then(|p| p.reason_string);
                    Some(error::broker_says(&reason, said.as_deref()))
                }
            };
            WireEvent::PubAck(p.pkid, refused)
        }
        Event::Incoming(Packet::SubAck(s)) => WireEvent::SubAck(s.pkid, granted(&s)),
        Event::Incoming(Packet::Publish(p)) => incoming(p),
        Event::Outgoing(Outgoing::Publish(id)) => WireEvent::Published(id),
        Event::Outgoing(Outgoing::Subscribe(id)) => WireEvent::Subscribing(id),
        Event::Outgoing(Outgoing::Disconnect) => WireEvent::Disconnecting,
        _ => WireEvent::Other,
    }
}

fn granted(suback: &SubAck) -> Result<(), String> {
    let said = suback
        .properties
        .as_ref()
        .and_then(|p| p.reason_string.as_deref());
    let is_refusal = |r: &&SubscribeReasonCode| !matches!(r, SubscribeReasonCode::Success(_));
    match suback.return_codes.iter().find(is_refusal) {
        Some(reason) => Err(error::broker_says(reason, said)),
        None => Ok(()),
    }
}

fn incoming(p: Publish) -> WireEvent {
    let Ok(topic) = String::from_utf8(p.topic.to_vec()) else {
        return WireEvent::Other;
    };
    let properties = p.properties.map(|p| Properties {
        expiry: p
            .message_expiry_interval
            .map(|s| Duration::from_secs(s.into())),
        content_type: p.content_type,
        response_topic: p.response_topic,
        correlation_data: p.correlation_data,
        user: p.user_properties,
    });
    WireEvent::Incoming(Message {
        topic,
        payload: Bytes::clone(&p.payload),
        qos: match p.qos {
            QoS::AtMostOnce => Qos::AtMostOnce,
            QoS::AtLeastOnce | QoS::ExactlyOnce => Qos::AtLeastOnce,
        },
        retain: p.retain,
        properties: properties.unwrap_or_default(),
    })
}
