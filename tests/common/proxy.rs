//! A network between a client and a broker that fails on purpose. It reads MQTT's framing, so that it can fail between two
//! packets or in the middle of one.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const PUBLISH: u8 = 3;
const PUBACK: u8 = 4;
/// How soon a thread sees that it should end.
const LOOK: Duration = Duration::from_millis(10);

/// What happens to what passes.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Weather {
    /// Each packet waits for so long.
    pub delay: Duration,
    /// One byte a write.
    pub byte_wise: bool,
    /// Connections stand, nothing passes, nothing is refused.
    pub black_hole: bool,
    /// The broker's side of each connection is closed; the client's side stands and hears nothing.
    pub half_open: bool,
}

/// Fails once, at the next such packet.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Trap {
    /// The broker's acknowledgement never arrives: cut between PUBLISH and PUBACK.
    PubAck,
    /// Half of a PUBLISH arrives.
    InsidePublish,
    /// A PUBLISH whose topic ends so does not arrive.
    Publish(&'static str),
}

/// Between a client and the broker on another port of this machine.
pub struct Proxy {
    pub port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    upstream: AtomicU16,
    open: AtomicBool,
    end: AtomicBool,
    weather: Mutex<Weather>,
    trap: Mutex<Option<Trap>>,
    /// Counts cuts; connections of an earlier generation end.
    generation: AtomicU64,
    publishes: AtomicU64,
    pubacks: AtomicU64,
    connections: AtomicU64,
}

impl Proxy {
    pub fn start(upstream: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        listener.set_nonblocking(true).unwrap();
        let shared = Arc::new(Shared {
            upstream: upstream.into(),
            open: true.into(),
            end: false.into(),
            weather: Mutex::default(),
            trap: Mutex::default(),
            generation: 0.into(),
            publishes: 0.into(),
            pubacks: 0.into(),
            connections: 0.into(),
        });
        let inside = shared.clone();
        std::thread::spawn(move || {
            while !inside.end.load(SeqCst) {
                match listener.accept() {
                    Ok((client, _)) => connect(&inside, client),
                    Err(_) => std::thread::sleep(LOOK),
                }
            }
        });
        Self { port, shared }
    }

    pub fn set(&self, weather: Weather) {
        *self.shared.weather.lock().unwrap() = weather;
    }

    /// Ends all connections, at any byte.
    pub fn cut(&self) {
        self.shared.generation.fetch_add(1, SeqCst);
    }

    /// Ends all connections and accepts none.
    pub fn close(&self) {
        self.shared.open.store(false, SeqCst);
        self.cut();
    }

    pub fn open(&self) {
        self.shared.open.store(true, SeqCst);
    }

    pub fn set_trap(&self, trap: Trap) {
        *self.shared.trap.lock().unwrap() = Some(trap);
    }

    /// Waits until the trap has snapped. Returns whether it has.
    pub fn snapped(&self, limit: Duration) -> bool {
        let start = Instant::now();
        while self.shared.trap.lock().unwrap().is_some() {
            if start.elapsed() > limit {
                return false;
            }
            std::thread::sleep(LOOK);
        }
        true
    }

    /// PUBLISH packets from the client, PUBACK packets that reached it, connections so far.
    pub fn counts(&self) -> (u64, u64, u64) {
        let s = &self.shared;
        let of = |n: &AtomicU64| n.load(SeqCst);
        (of(&s.publishes), of(&s.pubacks), of(&s.connections))
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.end.store(true, SeqCst);
        self.cut();
    }
}

fn connect(shared: &Arc<Shared>, client: TcpStream) {
    if !shared.open.load(SeqCst) {
        return;
    }
    client.set_nonblocking(false).unwrap();
    let upstream = (Ipv4Addr::LOCALHOST, shared.upstream.load(SeqCst));
    let generation = shared.generation.load(SeqCst);
    // Nobody listens: the client sees its connection closed.
    let Ok(broker) = TcpStream::connect(upstream) else {
        return;
    };
    shared.connections.fetch_add(1, SeqCst);
    for s in [&client, &broker] {
        s.set_nodelay(true).unwrap();
        s.set_read_timeout(Some(LOOK)).unwrap();
    }
    let ends = (client.try_clone().unwrap(), broker.try_clone().unwrap());
    let (up, down) = (shared.clone(), shared.clone());
    std::thread::spawn(move || pass(&up, generation, client, broker, true));
    std::thread::spawn(move || pass(&down, generation, ends.1, ends.0, false));
}

/// Until either side, or a cut, ends it.
fn pass(shared: &Shared, generation: u64, mut from: TcpStream, mut to: TcpStream, is_up: bool) {
    let mut waiting = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    let mut deaf = false;
    while shared.generation.load(SeqCst) == generation {
        let weather = *shared.weather.lock().unwrap();
        let read = match from.read(&mut buffer) {
            // The other direction has closed the broker's side.
            Ok(0) if !is_up && shared.weather.lock().unwrap().half_open => return,
            Ok(0) => break,
            Ok(n) => n,
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => 0,
            Err(_) => break,
        };
        if weather.half_open && !deaf {
            // Once for a connection; it stays so until the client gives it up.
            deaf = true;
            let broker = if is_up { &to } else { &from };
            let _ = broker.shutdown(Shutdown::Both);
            if !is_up {
                // The client's side belongs to the other direction now.
                return;
            }
        }
        if deaf {
            continue;
        }
        waiting.extend_from_slice(&buffer[..read]);
        if weather.black_hole {
            continue;
        }
        while let Some(length) = packet_length(&waiting) {
            let packet: Vec<u8> = waiting.drain(..length).collect();
            if !forward(shared, &packet, &mut to, &weather) {
                shared.generation.fetch_add(1, SeqCst);
                break;
            }
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

/// Returns whether the connection goes on.
fn forward(shared: &Shared, packet: &[u8], to: &mut TcpStream, weather: &Weather) -> bool {
    let kind = packet[0] >> 4;
    let snaps = |trap| {
        let mut set = shared.trap.lock().unwrap();
        let is_it = *set == Some(trap);
        if is_it {
            *set = None;
        }
        is_it
    };
    std::thread::sleep(weather.delay);
    if kind == PUBACK && snaps(Trap::PubAck) {
        return false;
    }
    if kind == PUBLISH {
        shared.publishes.fetch_add(1, SeqCst);
        let set = *shared.trap.lock().unwrap();
        if let Some(trap @ Trap::Publish(end)) = set
            && topic(packet).ends_with(end.as_bytes())
            && snaps(trap)
        {
            return false;
        }
        if snaps(Trap::InsidePublish) {
            let _ = to.write_all(&packet[..packet.len() / 2]);
            return false;
        }
    }
    let written = match weather.byte_wise {
        true => packet.iter().try_for_each(|b| to.write_all(&[*b])),
        false => to.write_all(packet),
    };
    if kind == PUBACK && written.is_ok() {
        shared.pubacks.fetch_add(1, SeqCst);
    }
    written.is_ok()
}

/// Of a PUBLISH.
fn topic(packet: &[u8]) -> &[u8] {
    // The length is of one to four bytes; all but the last say that more follow.
    let header = 1 + packet[1..].iter().take_while(|b| **b & 0x80 != 0).count() + 1;
    let length = usize::from(u16::from_be_bytes([packet[header], packet[header + 1]]));
    &packet[header + 2..][..length]
}

/// Of the first packet, its header included; `None` while it is not whole.
fn packet_length(bytes: &[u8]) -> Option<usize> {
    let mut length = 0;
    for i in 0..4 {
        let byte = usize::from(*bytes.get(1 + i)?);
        length |= (byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            let whole = 2 + i + length;
            return (bytes.len() >= whole).then_some(whole);
        }
    }
    panic!("this is not MQTT");
}
