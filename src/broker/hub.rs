//! What all connections of the broker share: who is there, what waits for whom, what is retained.
//!
//! In: messages and filters of the connections. Out: each client's [`Mailbox`]. Always holds: memory is bounded; what a client does
//! not fetch is dropped for it alone; a connection whose id was taken over changes nothing any more.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use rumqttc::{Publish, QoS};
use tokio::sync::Notify;
use tracing::warn;

const MAX_CLIENTS: usize = 256;
/// What may wait for one client before further messages for it are dropped.
const MAX_WAITING_BYTES: usize = 8 << 20;
const MAX_WAITING: usize = 10_000;
const MAX_RETAINED_BYTES: usize = 32 << 20;
const MAX_RETAINED: usize = 10_000;
const MAX_FILTERS: usize = 1000;

/// Who is there, and what is retained.
#[derive(Debug, Default)]
pub(super) struct Hub {
    clients: HashMap<String, Client>,
    retained: BTreeMap<String, Publish>,
    retained_bytes: usize,
    /// Connections so far.
    pub connections: u64,
}

#[derive(Debug)]
struct Client {
    connection: u64,
    filters: Vec<(String, QoS)>,
    mailbox: Arc<Mailbox>,
}

/// What waits for one client.
#[derive(Debug, Default)]
pub(super) struct Mailbox {
    waiting: Mutex<Waiting>,
    pub wake: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    messages: VecDeque<Publish>,
    bytes: usize,
    dropped: u64,
    taken_over: bool,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}

impl Mailbox {
    fn put(&self, message: Publish) {
        let mut w = lock(&self.waiting);
        if w.bytes + message.payload.len() > MAX_WAITING_BYTES || w.messages.len() >= MAX_WAITING {
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

    /// Whether another connection came with the same id.
    pub fn is_taken_over(&self) -> bool {
        lock(&self.waiting).taken_over
    }

    /// The next message.
    pub fn take(&self) -> Option<Publish> {
        let mut w = lock(&self.waiting);
        let message = w.messages.pop_front()?;
        w.bytes -= message.payload.len();
        Some(message)
    }
}

impl Hub {
    /// Registers a connection; an older one of the same id is told to go.
    pub fn connect(&mut self, id: &str, mailbox: Arc<Mailbox>) -> Option<u64> {
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

    /// Forgets a connection, unless another one has taken its id over.
    pub fn disconnect(&mut self, id: &str, connection: u64) {
        if self
            .clients
            .get(id)
            .is_some_and(|c| c.connection == connection)
        {
            self.clients.remove(id);
        }
    }

    /// To everybody who is subscribed, and to the retained ones if it says so.
    pub fn publish(&mut self, mut message: Publish) {
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

    /// What was granted; what is retained follows. `None`: no valid filter, or too many.
    pub fn subscribe(&mut self, id: &str, connection: u64, filter: &str, qos: QoS) -> Option<QoS> {
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

    /// Forgets filters.
    pub fn unsubscribe(&mut self, id: &str, connection: u64, filters: &[String]) {
        let client = self.clients.get_mut(id);
        if let Some(client) = client.filter(|c| c.connection == connection) {
            client.filters.retain(|(f, _)| !filters.contains(f));
        }
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
}
