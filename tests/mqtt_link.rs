//! The link's promise: an acknowledgement names the message that it is for, whatever a broker does. Against a broker of the test's own
//! that acknowledges out of order, late, never, twice and across reconnects, and against mosquitto.

mod common;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::block_on;
use common::mosquitto::{DEADLINE, Mosquitto, Observer, mosquitto_or_skip};
use ocellus::publish::mqtt::link::{
    ACK_LIMIT, Cause, LISTEN_AGAIN, Link, LinkError, LinkEvent, LinkOptions, Message, Properties,
    Qos, Token, Version,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// The same under MQTT 3.1.1 and 5.
fn both(mut test: impl AsyncFnMut(Version)) {
    for version in [Version::V3, Version::V5] {
        println!("{version:?}");
        block_on(test(version));
    }
}

fn options(port: u16, version: Version) -> LinkOptions {
    LinkOptions {
        host: "127.0.0.1".into(),
        port,
        client_id: "link-test".into(),
        keep_alive: Duration::from_secs(30),
        version,
        session_expiry: Duration::ZERO,
        tls: None,
        login: None,
        will: None,
        ack_limit: ACK_LIMIT,
        listen_again: LISTEN_AGAIN,
    }
}

/// A message whose payload is its token.
fn message(token: Token, qos: Qos) -> (Token, Message) {
    let payload = token.to_string().into_bytes();
    (token, Message::new("t/a".into(), qos, payload))
}

fn at_least_once(tokens: std::ops::Range<Token>) -> VecDeque<(Token, Message)> {
    tokens.map(|t| message(t, Qos::AtLeastOnce)).collect()
}

/// What the link said, and what is still to be handed over: as the client does it.
#[derive(Default)]
struct Driver {
    todo: VecDeque<(Token, Message)>,
    acked: Vec<Token>,
    sent: Vec<Token>,
    subscribed: usize,
    refused: usize,
    incoming: Vec<Message>,
    connects: usize,
    errors: Vec<LinkError>,
}

impl Driver {
    fn new(todo: VecDeque<(Token, Message)>) -> Self {
        Self {
            todo,
            ..Self::default()
        }
    }

    fn hand_over(&mut self, link: &mut Link) {
        while let Some((token, message)) = self.todo.pop_front() {
            if let Err(message) = link.publish(token, message) {
                return self.todo.push_front((token, message));
            }
        }
    }

    async fn until(&mut self, link: &mut Link, what: &str, done: impl Fn(&Self) -> bool) {
        while !done(self) {
            self.hand_over(link);
            let polled = timeout(DEADLINE, link.poll()).await;
            self.note(link, polled.unwrap_or_else(|_| panic!("stuck: {what}")));
        }
    }

    fn note(&mut self, link: &mut Link, polled: Result<LinkEvent, LinkError>) {
        match polled {
            Ok(LinkEvent::Acked(token)) => self.acked.push(token),
            Ok(LinkEvent::Sent(token)) => self.sent.push(token),
            Ok(LinkEvent::Connected { .. }) => self.connects += 1,
            Ok(LinkEvent::Subscribed { granted, .. }) => match granted {
                Ok(()) => self.subscribed += 1,
                Err(_) => self.refused += 1,
            },
            Ok(LinkEvent::Incoming(m)) => self.incoming.push(m),
            Ok(other) => panic!("{other:?}"),
            Err(error) => {
                self.errors.push(error);
                let mut again = VecDeque::from(link.take_back());
                again.append(&mut self.todo);
                self.todo = again;
            }
        }
    }
}

/// The broker's end of one connection.
struct Peer {
    stream: TcpStream,
    buffer: Vec<u8>,
    is_v5: bool,
}

#[derive(Debug, PartialEq)]
enum Packet {
    /// QoS, DUP, packet id, payload read as a token.
    Publish(u8, bool, u16, Token),
    Subscribe(u16),
    Ping,
    Disconnect,
}

impl Peer {
    /// Takes the next client and lets it in.
    async fn accept(listener: &TcpListener) -> Self {
        let (stream, _) = timeout(DEADLINE, listener.accept()).await.unwrap().unwrap();
        let mut peer = Self {
            stream,
            buffer: vec![],
            is_v5: false,
        };
        let (head, body) = peer.raw().await.unwrap();
        assert_eq!((head, &body[..6]), (0x10, &b"\0\x04MQTT"[..]));
        peer.is_v5 = body[6] == 5;
        match peer.is_v5 {
            true => peer.write(&[0x20, 3, 0, 0, 0]).await,
            false => peer.write(&[0x20, 2, 0, 0]).await,
        }
        peer
    }

    async fn write(&mut self, bytes: &[u8]) {
        // The link may have left already.
        let _ = self.stream.write_all(bytes).await;
    }

    async fn ack(&mut self, id: u16) {
        self.write(&puback(id)).await;
    }

    /// Codes of 0x80 and more refuse.
    async fn suback(&mut self, id: u16, code: u8) {
        let [high, low] = id.to_be_bytes();
        match self.is_v5 {
            true => self.write(&[0x90, 4, high, low, 0, code]).await,
            false => self.write(&[0x90, 3, high, low, code]).await,
        }
    }

    /// Head and body of the next packet; `None` at the end. May be cancelled.
    async fn raw(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            if let Some((length, start)) = remaining_length(&self.buffer)
                && self.buffer.len() >= start + length
            {
                let packet: Vec<u8> = self.buffer.drain(..start + length).collect();
                return Some((packet[0], packet[start..].to_vec()));
            }
            if self.stream.read_buf(&mut self.buffer).await.ok()? == 0 {
                return None;
            }
        }
    }

    async fn packet(&mut self) -> Option<Packet> {
        let (head, body) = self.raw().await?;
        let number = |at: usize| u16::from_be_bytes([body[at], body[at + 1]]);
        Some(match head >> 4 {
            3 => {
                let qos = head >> 1 & 3;
                let mut at = 2 + usize::from(number(0));
                let mut id = 0;
                if qos > 0 {
                    id = number(at);
                    at += 2;
                }
                // Properties: none are sent here.
                if self.is_v5 {
                    assert_eq!(body[at], 0);
                    at += 1;
                }
                let token = std::str::from_utf8(&body[at..]).unwrap().parse().unwrap();
                Packet::Publish(qos, head & 8 != 0, id, token)
            }
            8 => Packet::Subscribe(number(0)),
            12 => Packet::Ping,
            14 => Packet::Disconnect,
            other => panic!("a packet of type {other}"),
        })
    }

    /// The next one at QoS 1.
    async fn publish(&mut self) -> (u16, Token) {
        match timeout(DEADLINE, self.packet()).await.unwrap() {
            Some(Packet::Publish(1, _, id, token)) => (id, token),
            other => panic!("{other:?}"),
        }
    }
}

fn puback(id: u16) -> [u8; 4] {
    let [high, low] = id.to_be_bytes();
    [0x40, 2, high, low]
}

fn remaining_length(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut length = 0;
    for (i, byte) in bytes.iter().skip(1).take(4).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return Some((length, i + 2));
        }
    }
    None
}

async fn listen() -> (TcpListener, u16) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

#[test]
fn acknowledgements_out_of_order_name_their_messages() {
    both(async |version| {
        let (listener, port) = listen().await;
        let broker = async {
            let mut peer = Peer::accept(&listener).await;
            let mut ids = HashMap::new();
            for _ in 0..5 {
                let (id, token) = peer.publish().await;
                ids.insert(token, id);
            }
            for token in [104, 102, 100, 101, 103] {
                peer.ack(ids[&token]).await;
            }
            peer
        };
        let mut link = Link::new(options(port, version));
        let mut driver = Driver::new(at_least_once(100..105));
        let client = driver.until(&mut link, "five", |d| d.acked.len() == 5);
        let ((), _peer) = tokio::join!(client, broker);
        assert_eq!(driver.acked, [104, 102, 100, 101, 103]);
        assert_eq!(link.outstanding(), 0);
    });
}

#[test]
fn a_message_that_is_never_acknowledged_holds_its_id_and_stops_the_rest() {
    both(async |version| {
        let (listener, port) = listen().await;
        let broker = tokio::spawn(async move {
            let mut peer = Peer::accept(&listener).await;
            let (held, token) = peer.publish().await;
            assert_eq!(token, 0);
            let mut last = 0;
            // The rest of the circle of packet ids, and not one more.
            while let Ok(Some(packet)) = timeout(Duration::from_millis(300), peer.packet()).await {
                let Packet::Publish(1, false, id, token) = packet else {
                    panic!("{packet:?}")
                };
                assert_ne!(id, held, "a packet id was used twice");
                last = token;
                peer.ack(id).await;
            }
            assert_eq!(last, 99);
            peer.ack(held).await;
            while last < 499 {
                let (id, token) = peer.publish().await;
                last = token;
                peer.ack(id).await;
            }
            peer
        });
        let mut link = Link::new(options(port, version));
        let mut driver = Driver::new(at_least_once(0..500));
        driver
            .until(&mut link, "all", |d| d.acked.len() == 500)
            .await;
        assert_eq!(driver.acked[..99], Vec::from_iter(1..100));
        assert_eq!(driver.acked[99], 0);
        assert_eq!(driver.errors, []);
        broker.await.unwrap();
    });
}

#[test]
fn a_broker_that_falls_silent_is_left_and_the_messages_go_again() {
    both(async |version| {
        let (listener, port) = listen().await;
        let broker = tokio::spawn(async move {
            let mut silent = Peer::accept(&listener).await;
            let (id, _) = silent.publish().await;
            silent.ack(id).await;
            let mut peer = Peer::accept(&listener).await;
            for expected in 1..10 {
                let (id, token) = peer.publish().await;
                assert_eq!(token, expected);
                peer.ack(id).await;
            }
            (silent, peer)
        });
        let mut link = Link::new(LinkOptions {
            ack_limit: Duration::from_millis(200),
            ..options(port, version)
        });
        let mut driver = Driver::new(at_least_once(0..10));
        driver
            .until(&mut link, "all", |d| d.acked.len() == 10)
            .await;
        assert_eq!(driver.acked, Vec::from_iter(0..10));
        assert_eq!(driver.errors.len(), 1);
        assert_eq!(driver.errors[0].cause, Cause::Lost);
        broker.await.unwrap();
    });
}

/// What is wrong behind good acknowledgements in the same packet of TCP: they count, the connection ends, the rest goes again.
fn acks_then(wrong: &'static [u8], close: bool) {
    both(async |version| {
        let (listener, port) = listen().await;
        let broker = tokio::spawn(async move {
            let mut peer = Peer::accept(&listener).await;
            let mut bytes = vec![];
            for nth in 0..6 {
                let (id, token) = peer.publish().await;
                assert_eq!(token, nth);
                if [1, 4].contains(&nth) {
                    bytes.extend(puback(id));
                }
            }
            bytes.extend(wrong);
            peer.write(&bytes).await;
            if close {
                drop(peer);
            }
            let mut peer = Peer::accept(&listener).await;
            for expected in [0, 2, 3, 5] {
                let (id, token) = peer.publish().await;
                assert_eq!(token, expected);
                peer.ack(id).await;
            }
            peer
        });
        let mut link = Link::new(options(port, version));
        let mut driver = Driver::new(at_least_once(0..6));
        driver
            .until(&mut link, "two", |d| d.errors.len() == 1)
            .await;
        assert_eq!(driver.acked, [1, 4]);
        let again: Vec<Token> = driver.todo.iter().map(|(t, _)| *t).collect();
        assert_eq!(again, [0, 2, 3, 5]);
        driver.until(&mut link, "all", |d| d.acked.len() == 6).await;
        assert_eq!(driver.acked, [1, 4, 0, 2, 3, 5]);
        broker.await.unwrap();
    });
}

#[test]
fn acknowledgements_before_a_wrong_packet_count() {
    acks_then(&[0x00, 0x00], false);
}

#[test]
fn acknowledgements_before_the_end_count() {
    acks_then(&[], true);
}

#[test]
fn an_acknowledgement_of_nothing_acknowledges_nothing() {
    acks_then(&[0x40, 2, 0, 77], false);
}

#[test]
fn an_acknowledgement_that_comes_twice_acknowledges_once() {
    // The second message's, again.
    acks_then(&[0x40, 2, 0, 2], false);
}

#[test]
fn what_cannot_be_sent_is_refused_and_harms_nothing() {
    both(async |version| {
        let (listener, port) = listen().await;
        let broker = tokio::spawn(async move {
            let mut peer = Peer::accept(&listener).await;
            let (id, token) = peer.publish().await;
            assert_eq!(token, 9);
            peer.ack(id).await;
            peer
        });
        let mut link = Link::new(options(port, version));
        let connected = link.poll().await.unwrap();
        assert!(matches!(connected, LinkEvent::Connected { .. }));
        for (token, topic) in ["", "a/+", "#", "a\0", &"x".repeat(65536)]
            .into_iter()
            .enumerate()
        {
            let m = Message::new(topic.into(), Qos::AtLeastOnce, "x");
            link.publish(token as Token, m).unwrap();
            let event = link.poll().await.unwrap();
            assert!(matches!(event, LinkEvent::Refused(t, _) if t == token as Token));
        }
        let large = vec![0; 64 << 20];
        let m = Message::new("t".into(), Qos::AtLeastOnce, large);
        link.publish(8, m).unwrap();
        let event = link.poll().await.unwrap();
        assert!(matches!(event, LinkEvent::Refused(8, _)), "{event:?}");
        let (token, m) = message(9, Qos::AtLeastOnce);
        link.publish(token, m).unwrap();
        assert_eq!(link.poll().await.unwrap(), LinkEvent::Acked(9));
        broker.await.unwrap();
    });
}

/// Numbers that look random and are the same at each run.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n as u64) as usize
    }
}

/// What the hostile broker knows.
#[derive(Default)]
struct Truth {
    /// Tokens in the order in which their acknowledgements were written.
    acked: Vec<Token>,
    seen: BTreeSet<Token>,
    seen_qos0: BTreeSet<Token>,
    connections: usize,
    twice: usize,
}

/// Acknowledges whom it likes, when it likes, now and then twice; cuts the connection at any moment.
async fn hostile_broker(listener: TcpListener, truth: Arc<Mutex<Truth>>, seed: u64) {
    let mut random = Random(seed);
    loop {
        let mut peer = Peer::accept(&listener).await;
        truth.lock().unwrap().connections += 1;
        let mut unacked: Vec<(u16, Token)> = vec![];
        let mut last = None;
        let mut subs = vec![];
        loop {
            let wait = Duration::from_micros(random.below(400) as u64);
            match timeout(wait, peer.packet()).await {
                Ok(None) => break,
                Ok(Some(Packet::Publish(qos, dup, id, token))) => {
                    assert!(!dup);
                    assert!(last < Some(token), "{token} after {last:?}");
                    last = Some(token);
                    let mut truth = truth.lock().unwrap();
                    if qos == 0 {
                        truth.seen_qos0.insert(token);
                    } else {
                        assert!(!unacked.iter().any(|(i, _)| *i == id), "id {id} in use");
                        truth.seen.insert(token);
                        unacked.push((id, token));
                    }
                }
                Ok(Some(Packet::Subscribe(id))) => subs.push(id),
                Ok(Some(_)) => {}
                Err(_) => {}
            }
            if random.below(3) == 0
                && let Some(id) = subs.pop()
            {
                peer.suback(id, 1).await;
            }
            // Sometimes in bursts.
            let burst = if random.below(20) == 0 { 20 } else { 1 };
            for _ in 0..burst {
                if unacked.is_empty() || random.below(2) == 0 {
                    continue;
                }
                let (id, token) = unacked.remove(random.below(unacked.len()));
                // Said before it is written: the link cannot know before.
                truth.lock().unwrap().acked.push(token);
                peer.ack(id).await;
                if random.below(300) == 0 {
                    truth.lock().unwrap().twice += 1;
                    peer.ack(id).await;
                }
            }
            if random.below(150) == 0 {
                break;
            }
        }
    }
}

#[test]
fn a_hostile_broker_never_makes_it_name_the_wrong_message() {
    both(async |version| {
        for seed in [1, 20, 300] {
            let (listener, port) = listen().await;
            let truth = Arc::new(Mutex::new(Truth::default()));
            let broker = tokio::spawn(hostile_broker(listener, truth.clone(), seed));
            let mut random = Random(seed + 7);
            let mut link = Link::new(options(port, version));
            link.subscribe("a/#", Qos::AtLeastOnce);
            link.subscribe("b/+", Qos::AtMostOnce);
            let count = 4000;
            let qos = |t: Token| match t % 5 {
                0 => Qos::AtMostOnce,
                _ => Qos::AtLeastOnce,
            };
            let mut driver = Driver::new((0..count).map(|t| message(t, qos(t))).collect());
            let expected = (0..count).filter(|t| t % 5 != 0).count();
            let start = std::time::Instant::now();
            while driver.acked.len() < expected || driver.sent.len() < count as usize - expected {
                assert!(start.elapsed() < DEADLINE * 2, "stuck");
                driver.hand_over(&mut link);
                // Cancelled at any moment, as the client's loop does it.
                let patience = Duration::from_micros(random.below(300) as u64);
                if let Ok(polled) = timeout(patience, link.poll()).await {
                    driver.note(&mut link, polled);
                }
            }
            broker.abort();
            let truth = truth.lock().unwrap();
            // Each exactly once, each one that the broker had acknowledged, in the order in which it did.
            let mut said = truth.acked.iter();
            for token in &driver.acked {
                assert!(
                    said.any(|t| t == token),
                    "{token} was not acknowledged then"
                );
            }
            let unique: BTreeSet<_> = driver.acked.iter().collect();
            assert_eq!(unique.len(), expected);
            assert_eq!(driver.acked.len(), expected);
            assert_eq!(truth.seen.len(), expected);
            let sent: BTreeSet<_> = driver.sent.iter().copied().collect();
            assert_eq!(sent.len(), driver.sent.len());
            assert!(truth.connections > 5 && truth.twice > 0, "too tame");
            assert_eq!(driver.connects, driver.errors.len() + 1);
            println!(
                "seed {seed}: {} connections, {} acknowledged twice, {} of {expected} sent again, {} of {} at QoS 0 arrived",
                truth.connections,
                truth.twice,
                truth.acked.len() - driver.acked.len(),
                truth.seen_qos0.len(),
                driver.sent.len(),
            );
        }
    });
}

#[test]
fn mosquitto_acknowledges_all_across_its_restarts() {
    let Some(mut broker) = mosquitto_or_skip() else {
        return;
    };
    both(async |version| {
        let mut link = Link::new(options(broker.port, version));
        let mut driver = Driver::new(at_least_once(0..6000));
        for kill in 1..=3 {
            let enough = kill * 1000;
            driver
                .until(&mut link, "some", |d| d.acked.len() >= enough)
                .await;
            broker.restart();
            let before = driver.errors.len();
            driver
                .until(&mut link, "cut", |d| d.errors.len() > before)
                .await;
        }
        // From now on an independent observer counts.
        let acked: BTreeSet<Token> = driver.acked.iter().copied().collect();
        let observer = Observer::start(broker.port, "t/#");
        driver
            .until(&mut link, "all", |d| d.acked.len() == 6000)
            .await;
        assert!(!driver.errors.is_empty());
        let seen = observer.collect("the last", |s| s.text() == "5999");
        let seen: BTreeSet<Token> = seen.iter().map(|s| s.text().parse().unwrap()).collect();
        for token in 0..6000 {
            assert!(acked.contains(&token) || seen.contains(&token), "{token}");
        }
        let unique: BTreeSet<_> = driver.acked.iter().collect();
        assert_eq!(unique.len(), 6000);
        assert!(link.disconnect());
        assert_eq!(link.poll().await, Ok(LinkEvent::Closed));
    });
}

#[test]
fn subscriptions_come_back_with_the_connection() {
    let Some(mut broker) = mosquitto_or_skip() else {
        return;
    };
    both(async |version| {
        let mut link = Link::new(options(broker.port, version));
        link.subscribe("in/#", Qos::AtLeastOnce);
        let mut driver = Driver::default();
        for round in 1..=3 {
            driver
                .until(&mut link, "subscribed", |d| d.subscribed == round)
                .await;
            common::mosquitto::publish(broker.port, "in/x", &round.to_string(), false);
            driver
                .until(&mut link, "incoming", |d| d.incoming.len() == round)
                .await;
            let m = &driver.incoming[round - 1];
            assert_eq!(
                (&*m.topic, &m.payload[..]),
                ("in/x", round.to_string().as_bytes())
            );
            assert!(!m.retain);
            broker.restart();
        }
    });
}

#[test]
fn a_refused_subscription_is_tried_again_on_the_same_connection() {
    both(async |version| {
        let (listener, port) = listen().await;
        let broker = tokio::spawn(async move {
            let mut peer = Peer::accept(&listener).await;
            // Three filters, of which the second is refused twice.
            for code in [0, 0x80, 1, 0x80, 1] {
                match timeout(DEADLINE, peer.packet()).await.unwrap() {
                    Some(Packet::Subscribe(id)) => peer.suback(id, code).await,
                    other => panic!("{other:?}"),
                }
            }
            peer
        });
        let mut link = Link::new(LinkOptions {
            listen_again: Duration::from_millis(200),
            ..options(port, version)
        });
        for filter in ["a", "b", "c"] {
            link.subscribe(filter, Qos::AtLeastOnce);
        }
        let mut driver = Driver::default();
        driver
            .until(&mut link, "all are granted", |d| d.subscribed == 3)
            .await;
        assert_eq!((driver.refused, driver.connects), (2, 1));
        broker.await.unwrap();
    });
}

/// Under 3.1.1 it ends the connection, and might do so again with the next subscription.
#[test]
fn after_a_message_too_large_to_be_read_the_link_listens_again() {
    let Some(broker) = mosquitto_or_skip() else {
        return;
    };
    block_on(async {
        let mut link = Link::new(LinkOptions {
            listen_again: Duration::from_secs(1),
            ..options(broker.port, Version::V3)
        });
        link.subscribe("in/#", Qos::AtLeastOnce);
        let mut driver = Driver::default();
        driver
            .until(&mut link, "subscribed", |d| d.subscribed == 1)
            .await;
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, vec![0; 17 << 20]).unwrap();
        let sent = std::process::Command::new("mosquitto_pub")
            .args(["-h", "127.0.0.1", "-p", &broker.port.to_string()])
            .args(["-t", "in/large", "-f"])
            .arg(file.path())
            .status();
        assert!(sent.unwrap().success());
        let sent = std::time::Instant::now();
        driver
            .until(&mut link, "connected again", |d| d.connects == 2)
            .await;
        assert_eq!(driver.errors[0].cause, Cause::TooLarge);
        driver
            .until(&mut link, "subscribed again", |d| d.subscribed == 2)
            .await;
        assert!(sent.elapsed() >= Duration::from_secs(1), "at once");
        common::mosquitto::publish(broker.port, "in/x", "heard", false);
        driver
            .until(&mut link, "incoming", |d| d.incoming.len() == 1)
            .await;
        assert_eq!((driver.connects, driver.errors.len()), (2, 1));
    });
}

#[test]
fn a_session_of_mqtt_5_outlasts_an_interruption() {
    let Some(broker) = mosquitto_or_skip() else {
        return;
    };
    block_on(async {
        let options = || LinkOptions {
            session_expiry: Duration::from_secs(60),
            ..options(broker.port, Version::V5)
        };
        let mut link = Link::new(options());
        link.subscribe("in/#", Qos::AtLeastOnce);
        assert_eq!(link.poll().await, Ok(connected(false)));
        let mut driver = Driver::default();
        driver
            .until(&mut link, "subscribed", |d| d.subscribed == 1)
            .await;
        // Cut, not closed.
        drop(link);
        common::mosquitto::publish(broker.port, "in/x", "while away", false);
        let mut link = Link::new(options());
        assert_eq!(link.poll().await, Ok(connected(true)));
        let mut driver = Driver::default();
        driver
            .until(&mut link, "kept", |d| d.incoming.len() == 1)
            .await;
        assert_eq!(&driver.incoming[0].payload[..], b"while away");
        // Publishing goes on in a session that is there.
        driver.todo = at_least_once(0..200);
        driver
            .until(&mut link, "all", |d| d.acked.len() == 200)
            .await;
        assert_eq!(driver.acked, Vec::from_iter(0..200));
    });
}

fn connected(session_present: bool) -> LinkEvent {
    LinkEvent::Connected { session_present }
}

#[test]
fn properties_of_mqtt_5_arrive_and_are_left_out_of_3_1_1() {
    let Some(broker) = mosquitto_or_skip() else {
        return;
    };
    both(async |version| {
        let mut link = Link::new(options(broker.port, version));
        link.subscribe("t/#", Qos::AtLeastOnce);
        let (token, mut m) = message(1, Qos::AtLeastOnce);
        m.properties = Properties {
            expiry: Some(Duration::from_secs(3600)),
            content_type: Some("application/json".into()),
            response_topic: Some("answers/here".into()),
            correlation_data: Some("42".into()),
            user: vec![("schema".into(), "1.0".into()), ("a".into(), "b".into())],
        };
        let sent = m.properties.clone();
        let mut driver = Driver::default();
        driver
            .until(&mut link, "subscribed", |d| d.subscribed == 1)
            .await;
        driver.todo.push_back((token, m));
        driver
            .until(&mut link, "back", |d| d.incoming.len() == 1)
            .await;
        let mut came = driver.incoming[0].properties.clone();
        if version == Version::V5 {
            let left = came.expiry.take().unwrap();
            assert!(left <= Duration::from_secs(3600) && left > Duration::from_secs(3500));
            came.expiry = sent.expiry;
            assert_eq!(came, sent);
        } else {
            assert_eq!(came, Properties::default());
        }
    });
}

#[test]
fn a_message_larger_than_the_broker_takes_is_refused_alone() {
    let Some(_) = mosquitto_or_skip() else { return };
    let broker = Mosquitto::start("max_packet_size 2000");
    block_on(async {
        let mut link = Link::new(options(broker.port, Version::V5));
        assert_eq!(link.poll().await, Ok(connected(false)));
        let large = Message::new("t".into(), Qos::AtLeastOnce, vec![b'x'; 2000]);
        link.publish(1, large).unwrap();
        let fits = Message::new("t".into(), Qos::AtLeastOnce, vec![b'x'; 1900]);
        link.publish(2, fits).unwrap();
        let refused = link.poll().await.unwrap();
        assert!(
            matches!(&refused, LinkEvent::Refused(1, why) if why.contains("larger")),
            "{refused:?}"
        );
        assert_eq!(link.poll().await, Ok(LinkEvent::Acked(2)));
    });
}
