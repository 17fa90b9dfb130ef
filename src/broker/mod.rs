//! The embedded MQTT 3.1.1 broker: for the demo and for single-box installations.
//!
//! In: MQTT clients over TCP. Out: what they publish, to whom subscribed. On a thread of its own (`broker`), with a
//! current-thread tokio. Knows: QoS 0 and 1 (QoS 2 is taken, and delivered as 1), retained messages, wills, `+` and `#`, keep
//! alive, session takeover, one user with a password. Sessions are always clean. Always holds: memory is bounded (clients, packet size, what waits for a
//! client, what is retained); whatever bytes a client sends cost at most its own connection.

mod hub;

use std::collections::HashSet;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
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
use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;
use tracing::{debug, info, warn};

use crate::secret::Login;
use hub::{Hub, Mailbox, lock};

const MAX_CONNECTIONS: usize = 512;
const MAX_PACKET_BYTES: usize = 4 << 20;
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
    let hub = Arc::new(Mutex::new(Hub::default()));
    let login = Arc::new(login);
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
                let (hub, login) = (hub.clone(), login.clone());
                tokio::spawn(async move {
                    if let Err(e) = serve(stream, peer, hub, &login).await {
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

async fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    hub: Arc<Mutex<Hub>>,
    login: &Option<Login>,
) -> io::Result<()> {
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
    let mut session = match open_session(&hub, login.as_ref(), connect) {
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

fn open_session(
    hub: &Arc<Mutex<Hub>>,
    login: Option<&Login>,
    connect: Connect,
) -> Result<Session, ConnectReturnCode> {
    if connect.protocol != Protocol::V4 {
        return Err(ConnectReturnCode::RefusedProtocolVersion);
    }
    if login.is_some_and(|l| !is_let_in(l, &connect)) {
        return Err(ConnectReturnCode::BadUserNamePassword);
    }
    let mailbox = Arc::new(Mailbox::default());
    let mut guard = lock(hub);
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
            if mailbox.is_taken_over() {
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
                    lock(&self.hub).unsubscribe(&self.id, self.connection, &u.topics);
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
