//! The embedded MQTT 3.1.1 broker: for the demo and for single-box installations.
//!
//! In: MQTT clients over TCP. Out: what they publish, to whom subscribed. On a thread of its own (`broker`), with a
//! current-thread tokio. Knows: QoS 0 and 1 (QoS 2 is taken, and delivered as 1), retained messages, wills, `+` and `#`, keep
//! alive, session takeover, one user with a password. Sessions are always clean. Always holds: memory is bounded (clients, packet size, what waits for a
//! client, what is retained); whatever bytes a client sends cost at most its own connection.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::BytesMut;
use rumqttc::{
    ConnAck, Connect, ConnectReturnCode, LastWill, Packet, Protocol, PubAck, PubComp, PubRec,
    Publish, QoS, SubAck, SubscribeReasonCode, UnsubAck,
};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Notify, Semaphore, oneshot};
use tokio::time::timeout;
use tracing::{debug, info, warn};

use crate::secret::Login;

const MAX_CLIENTS: usize = 256;
const MAX_CONNECTIONS: usize = 512;
const MAX_PACKET_BYTES: usize = 4 << 20;
/// What may wait for one client before further messages for it are dropped.
const MAX_WAITING_BYTES: usize = 8 << 20;
const MAX_RETAINED_BYTES: usize = 32 << 20;
const MAX_RETAINED: usize = 10_000;
const MAX_FILTERS: usize = 1000;
/// QoS 1 messages that a client may leave unacknowledged before it gets no more.
const MAX_IN_FLIGHT: usize = 100;
/// A client must introduce itself, and take what is written to it, in this time.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where the broker listens, and for whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerSettings {
    /// Address and port; port 0 takes a free one. Passwords come in the clear: loopback, or a network of one's own.
    pub listen: SocketAddr,
    /// The one user that is let in; everybody if nobody is named.
    pub login: Option<Login>,
}

impl Default for BrokerSettings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 1883)),
            login: None,
        }
    }
}

/// Why the broker does not start.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// Another program has the port.
    #[error(
        "cannot listen on {0}: another program (perhaps mosquitto) has that port; stop it, use it as `[mqtt] url`, or choose another port in `[broker] listen`"
    )]
    InUse(SocketAddr),
    /// The system refuses.
    #[error("cannot listen on {0}: {1}")]
    Listen(SocketAddr, io::Error),
    /// No thread or no event loop.
    #[error("cannot start the broker's thread: {0}")]
    Thread(#[from] io::Error),
}

/// A running broker; it stops when dropped.
#[derive(Debug)]
pub struct Broker {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Broker {
    /// Listens, and serves on a thread of its own.
    pub fn start(settings: BrokerSettings) -> Result<Self, BrokerError> {
        let listener = TcpListener::bind(settings.listen).map_err(|e| match e.kind() {
            io::ErrorKind::AddrInUse => BrokerError::InUse(settings.listen),
            _ => BrokerError::Listen(settings.listen, e),
        })?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()?;
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("broker".into())
            .spawn(move || {
                runtime.block_on(async {
                    tokio::select! {
                        () = accept(listener, settings.login) => {}
                        _ = stopped => {}
                    }
                });
            })?;
        info!(%address, "MQTT broker listens");
        Ok(Self {
            address,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Where it listens: with the port that was found for port 0.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn accept(listener: TcpListener, login: Option<Login>) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(l) => l,
        Err(e) => return warn!("MQTT broker: {e}"),
    };
    let hub = Arc::new(Mutex::new(Hub {
        login,
        ..Hub::default()
    }));
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                // Whoever has not introduced himself yet is a connection, too.
                let Ok(place) = places.clone().try_acquire_owned() else {
                    debug!(%peer, "MQTT broker: too many connections");
                    continue;
                };
                let _ = stream.set_nodelay(true);
                let hub = hub.clone();
                tokio::spawn(async move {
                    if let Err(e) = serve(stream, peer, hub).await {
                        debug!(%peer, "MQTT broker: connection ended: {e}");
                    }
                    drop(place);
                });
            }
            // Out of descriptors, say: the listener stays, the cause may pass.
            Err(e) => {
                warn!("MQTT broker: cannot accept: {e}");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
}

/// What all connections share: who is there, and what is retained.
#[derive(Debug, Default)]
struct Hub {
    login: Option<Login>,
    clients: HashMap<String, Client>,
    retained: BTreeMap<String, Publish>,
    retained_bytes: usize,
    connections: u64,
}

#[derive(Debug)]
struct Client {
    connection: u64,
    filters: Vec<(String, QoS)>,
    mailbox: Arc<Mailbox>,
}

/// What waits for one client.
#[derive(Debug, Default)]
struct Mailbox {
    waiting: Mutex<Waiting>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    messages: VecDeque<Publish>,
    bytes: usize,
    dropped: u64,
    taken_over: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}

impl Mailbox {
    fn put(&self, message: Publish) {
        let mut w = lock(&self.waiting);
        if w.bytes + message.payload.len() > MAX_WAITING_BYTES || w.messages.len() >= 10_000 {
            w.dropped += 1;
            if w.dropped.is_power_of_two() {
                let n = w.dropped;
                warn!("MQTT broker: a client reads too slowly; {n} messages dropped for it so far");
            }
            return;
        }
        w.bytes += message.payload.len();
        w.messages.push_back(message);
        drop(w);
        self.wake.notify_one();
    }

    fn take(&self) -> Option<Publish> {
        let mut w = lock(&self.waiting);
        let message = w.messages.pop_front()?;
        w.bytes -= message.payload.len();
        Some(message)
    }
}

impl Hub {
    /// Registers a connection; an older one of the same id is told to go.
    fn connect(&mut self, id: &str, mailbox: Arc<Mailbox>) -> Option<u64> {
        if self.clients.len() >= MAX_CLIENTS && !self.clients.contains_key(id) {
            return None;
        }
        self.connections += 1;
        let client = Client {
            connection: self.connections,
            filters: Vec::new(),
            mailbox,
        };
        if let Some(old) = self.clients.insert(id.into(), client) {
            lock(&old.mailbox.waiting).taken_over = true;
            old.mailbox.wake.notify_one();
        }
        Some(self.connections)
    }

    fn disconnect(&mut self, id: &str, connection: u64) {
        if self
            .clients
            .get(id)
            .is_some_and(|c| c.connection == connection)
        {
            self.clients.remove(id);
        }
    }

    fn publish(&mut self, mut message: Publish) {
        message.dup = false;
        message.pkid = 0;
        if message.retain {
            self.retain(&message);
        }
        // Those who are subscribed already get it as a live message.
        message.retain = false;
        for client in self.clients.values() {
            let granted = client
                .filters
                .iter()
                .filter(|(f, _)| matches_filter(&message.topic, f))
                .map(|(_, qos)| *qos as u8)
                .max();
            if let Some(granted) = granted {
                let qos = if granted == 0 {
                    QoS::AtMostOnce
                } else {
                    message.qos
                };
                let qos = if qos == QoS::ExactlyOnce {
                    QoS::AtLeastOnce
                } else {
                    qos
                };
                client.mailbox.put(Publish {
                    qos,
                    ..message.clone()
                });
            }
        }
    }

    fn retain(&mut self, message: &Publish) {
        if let Some(old) = self.retained.remove(&message.topic) {
            self.retained_bytes -= old.payload.len();
        }
        if message.payload.is_empty() {
            return;
        }
        let bytes = self.retained_bytes + message.payload.len();
        if bytes > MAX_RETAINED_BYTES || self.retained.len() >= MAX_RETAINED {
            return warn!(topic = message.topic, "MQTT broker: too much is retained");
        }
        self.retained_bytes = bytes;
        self.retained.insert(message.topic.clone(), message.clone());
    }

    fn subscribe(&mut self, id: &str, connection: u64, filter: &str, qos: QoS) -> Option<QoS> {
        let granted = if qos == QoS::AtMostOnce {
            qos
        } else {
            QoS::AtLeastOnce
        };
        let client = self.clients.get_mut(id);
        let client = client.filter(|c| c.connection == connection)?;
        client.filters.retain(|(f, _)| f != filter);
        if !rumqttc::valid_filter(filter) || client.filters.len() >= MAX_FILTERS {
            return None;
        }
        client.filters.push((filter.into(), granted));
        for message in self.retained.values() {
            if matches_filter(&message.topic, filter) {
                let qos = if granted == QoS::AtMostOnce || message.qos == QoS::AtMostOnce {
                    QoS::AtMostOnce
                } else {
                    QoS::AtLeastOnce
                };
                client.mailbox.put(Publish {
                    qos,
                    ..message.clone()
                });
            }
        }
        Some(granted)
    }
}

/// Whether a topic is one of a filter's; topics that begin with `$` are for filters that say so.
fn matches_filter(topic: &str, filter: &str) -> bool {
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let mut topic = topic.split('/');
    let mut filter = filter.split('/');
    loop {
        match (topic.next(), filter.next()) {
            (_, Some("#")) | (None, None) => return true,
            (Some(_), Some("+")) => {}
            (Some(t), Some(f)) if t == f => {}
            _ => return false,
        }
    }
}

/// One client's connection. On every end but a DISCONNECT its will is published.
struct Session {
    hub: Arc<Mutex<Hub>>,
    id: String,
    connection: u64,
    will: Option<LastWill>,
    mailbox: Arc<Mailbox>,
}

impl Drop for Session {
    fn drop(&mut self) {
        let mut hub = lock(&self.hub);
        hub.disconnect(&self.id, self.connection);
        if let Some(will) = self.will.take() {
            let mut message = Publish::from_bytes(will.topic, will.qos, will.message);
            message.retain = will.retain;
            hub.publish(message);
        }
    }
}

struct Reader {
    half: OwnedReadHalf,
    buffer: BytesMut,
}

impl Reader {
    /// The next packet. May be cancelled: what was read stays in the buffer.
    async fn packet(&mut self) -> io::Result<Packet> {
        loop {
            match Packet::read(&mut self.buffer, MAX_PACKET_BYTES) {
                Ok(packet) => return Ok(packet),
                Err(rumqttc::Error::InsufficientBytes(_)) => {}
                Err(e) => return Err(invalid(format!("malformed packet: {e}"))),
            }
            if self.half.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

struct Writer {
    half: OwnedWriteHalf,
    buffer: BytesMut,
}

impl Writer {
    async fn send(&mut self, packet: Packet) -> io::Result<()> {
        self.buffer.clear();
        packet
            .write(&mut self.buffer, MAX_PACKET_BYTES + 1024)
            .map_err(|e| invalid(e.to_string()))?;
        timeout(PATIENCE, self.half.write_all(&self.buffer)).await?
    }
}

fn invalid(why: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.into())
}

async fn serve(stream: TcpStream, peer: SocketAddr, hub: Arc<Mutex<Hub>>) -> io::Result<()> {
    let (half, write) = stream.into_split();
    let mut reader = Reader {
        half,
        buffer: BytesMut::with_capacity(4096),
    };
    let mut writer = Writer {
        half: write,
        buffer: BytesMut::new(),
    };
    let Packet::Connect(connect) = timeout(PATIENCE, reader.packet()).await?? else {
        return Err(invalid("the first packet is no CONNECT"));
    };
    let keep_alive = match connect.keep_alive {
        0 => Duration::from_secs(u64::from(u32::MAX)),
        s => Duration::from_secs(s.into()).mul_f64(1.5),
    };
    let mut session = match open_session(&hub, connect) {
        Ok(session) => session,
        Err(code) => {
            if code == ConnectReturnCode::BadUserNamePassword {
                warn!(%peer, "MQTT broker: a client with a wrong user name or password");
            }
            return writer
                .send(Packet::ConnAck(ConnAck::new(code, false)))
                .await;
        }
    };
    let accepted = ConnAck::new(ConnectReturnCode::Success, false);
    writer.send(Packet::ConnAck(accepted)).await?;
    session.run(&mut reader, &mut writer, keep_alive).await
}

fn open_session(hub: &Arc<Mutex<Hub>>, connect: Connect) -> Result<Session, ConnectReturnCode> {
    if connect.protocol != Protocol::V4 {
        return Err(ConnectReturnCode::RefusedProtocolVersion);
    }
    let mailbox = Arc::new(Mailbox::default());
    let mut guard = lock(hub);
    if guard
        .login
        .as_ref()
        .is_some_and(|l| !is_let_in(l, &connect))
    {
        return Err(ConnectReturnCode::BadUserNamePassword);
    }
    let id = match connect.client_id {
        id if !id.is_empty() => id,
        _ if connect.clean_session => format!("auto-{}", guard.connections + 1),
        _ => return Err(ConnectReturnCode::BadClientId),
    };
    let connection = guard
        .connect(&id, mailbox.clone())
        .ok_or(ConnectReturnCode::ServiceUnavailable)?;
    Ok(Session {
        hub: hub.clone(),
        id,
        connection,
        will: connect.last_will,
        mailbox,
    })
}

/// Compares digests: how long it takes tells nothing of the password.
fn is_let_in(login: &Login, connect: &Connect) -> bool {
    let digest = |user: &str, password: &str| {
        let mut d = Sha256::new();
        d.update((user.len() as u64).to_le_bytes());
        d.update(user);
        d.update(password);
        d.finalize()
    };
    connect.login.as_ref().is_some_and(|c| {
        digest(&c.username, &c.password) == digest(&login.user, login.password.reveal())
    })
}

impl Session {
    async fn run(
        &mut self,
        reader: &mut Reader,
        writer: &mut Writer,
        keep_alive: Duration,
    ) -> io::Result<()> {
        let mailbox = self.mailbox.clone();
        let mut in_flight: HashSet<u16> = HashSet::new();
        let mut qos2: HashSet<u16> = HashSet::new();
        let mut last_id = 0u16;
        let mut silence = Box::pin(tokio::time::sleep(keep_alive));
        loop {
            if lock(&mailbox.waiting).taken_over {
                return Err(invalid("another client came with the same id"));
            }
            if in_flight.len() < MAX_IN_FLIGHT
                && let Some(mut message) = mailbox.take()
            {
                if message.qos == QoS::AtLeastOnce {
                    message.pkid = next_id(&mut last_id, &in_flight);
                    in_flight.insert(message.pkid);
                }
                writer.send(Packet::Publish(message)).await?;
                // Others, and this client's own packets, get their turn while it is fed.
                tokio::task::yield_now().await;
                mailbox.wake.notify_one();
            }
            let packet = tokio::select! {
                packet = reader.packet() => packet?,
                () = mailbox.wake.notified() => continue,
                () = &mut silence => return Err(io::ErrorKind::TimedOut.into()),
            };
            silence
                .as_mut()
                .reset(tokio::time::Instant::now() + keep_alive);
            match packet {
                Packet::Publish(message) => {
                    let (qos, id) = (message.qos, message.pkid);
                    if message.topic.is_empty() || !rumqttc::valid_topic(&message.topic) {
                        return Err(invalid("a topic is empty or has wildcards"));
                    }
                    if qos != QoS::ExactlyOnce || qos2.insert(id) {
                        lock(&self.hub).publish(message);
                    }
                    match qos {
                        QoS::AtMostOnce => {}
                        QoS::AtLeastOnce => writer.send(Packet::PubAck(PubAck::new(id))).await?,
                        QoS::ExactlyOnce => writer.send(Packet::PubRec(PubRec::new(id))).await?,
                    }
                }
                Packet::PubRel(p) => {
                    qos2.remove(&p.pkid);
                    writer.send(Packet::PubComp(PubComp::new(p.pkid))).await?;
                }
                Packet::PubAck(p) => {
                    in_flight.remove(&p.pkid);
                }
                Packet::Subscribe(s) => {
                    let codes = s
                        .filters
                        .iter()
                        .map(|f| {
                            lock(&self.hub)
                                .subscribe(&self.id, self.connection, &f.path, f.qos)
                                .map_or(SubscribeReasonCode::Failure, SubscribeReasonCode::Success)
                        })
                        .collect();
                    writer
                        .send(Packet::SubAck(SubAck::new(s.pkid, codes)))
                        .await?;
                    mailbox.wake.notify_one();
                }
                Packet::Unsubscribe(u) => {
                    if let Some(client) = lock(&self.hub).clients.get_mut(&self.id) {
                        client.filters.retain(|(f, _)| !u.topics.contains(f));
                    }
                    writer.send(Packet::UnsubAck(UnsubAck::new(u.pkid))).await?;
                }
                Packet::PingReq => writer.send(Packet::PingResp).await?,
                Packet::Disconnect => {
                    self.will = None;
                    return Ok(());
                }
                _ => return Err(invalid("a packet that no client sends")),
            }
        }
    }
}

fn next_id(last: &mut u16, in_flight: &HashSet<u16>) -> u16 {
    loop {
        *last = last.checked_add(1).unwrap_or(1);
        if !in_flight.contains(last) {
            return *last;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters() {
        for (topic, filter, expected) in [
            ("a/b", "a/b", true),
            ("a/b", "a/+", true),
            ("a/b", "#", true),
            ("a/b", "a/b/#", true),
            ("a", "a/#", true),
            ("a/b/c", "a/+", false),
            ("a", "a/+", false),
            ("a/", "a/+", true),
            ("/a", "+/+", true),
            ("$SYS/x", "#", false),
            ("$SYS/x", "+/x", false),
            ("$SYS/x", "$SYS/#", true),
            ("küche/x", "+/x", true),
            ("ü", "#", true),
        ] {
            assert_eq!(matches_filter(topic, filter), expected, "{topic} {filter}");
        }
    }

    #[test]
    fn an_address_in_use_is_named_with_the_fix() {
        let at = |listen| {
            Broker::start(BrokerSettings {
                listen,
                login: None,
            })
        };
        let first = at(([127, 0, 0, 1], 0).into()).unwrap();
        let listen = first.local_addr();
        let text = at(listen).unwrap_err().to_string();
        assert!(text.contains(&listen.to_string()) && text.contains("[broker] listen"));
        drop(first);
        assert!(std::net::TcpStream::connect(listen).is_err());
    }

    #[test]
    fn packet_ids_in_flight_are_not_reused() {
        let mut last = u16::MAX - 1;
        let busy = HashSet::from([u16::MAX, 1]);
        assert_eq!(next_id(&mut last, &busy), 2);
    }
}
