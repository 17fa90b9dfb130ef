//! A small subscriber: what comes back from the broker, for the demo and for tests.
//!
//! In: a filter. Out: [`Received`] messages, by a channel. Its future runs on the `io` thread. Always holds: it
//! subscribes again after each reconnect; when the reader is slow, the newest message is dropped, never the connection.

use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time;

use super::link::{Link, LinkEvent, Qos};
use super::reconnect::{Backoff, Reporter};
use super::settings::{MqttError, MqttSettings};

/// Between attempts.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// A message that came from the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// Its topic.
    pub topic: String,
    /// Its payload.
    pub payload: Vec<u8>,
    /// Whether the broker had kept it from before the subscription.
    pub retained: bool,
}

/// The reader's end.
#[derive(Debug)]
pub struct Subscription {
    /// The messages in their order. `blocking_recv` works on any thread that runs no future.
    pub messages: mpsc::Receiver<Received>,
    ready: watch::Receiver<bool>,
}

impl Subscription {
    /// Waits until the broker has confirmed the subscription: what is published from then on arrives.
    pub async fn ready(&mut self) {
        // An error means that the future has ended; its messages have, too.
        let _ = self.ready.wait_for(|ready| *ready).await;
    }

    /// Whether the broker has confirmed the subscription.
    pub fn is_ready(&self) -> bool {
        *self.ready.borrow()
    }
}

/// Subscribes to `filter` at QoS 1. Run the future on the `io` thread; it ends when the [`Subscription`] is dropped.
/// `client_id` must differ from that of every other client.
pub fn subscribe(
    settings: &MqttSettings,
    client_id: &str,
    filter: &str,
    capacity: usize,
) -> Result<(Subscription, impl Future<Output = ()> + Send + use<>), MqttError> {
    let settings = MqttSettings {
        client_id: Some(client_id.into()),
        ..settings.clone()
    };
    let options = settings.link("subscriber", "")?;
    let mut reporter = Reporter::new(format!("{}:{}", options.host, options.port));
    let mut link = Link::new(options);
    link.subscribe(filter, Qos::AtLeastOnce);
    let (tx, messages) = mpsc::channel(capacity.max(1));
    let (ready_tx, ready) = watch::channel(false);
    let run = async move {
        let mut backoff = Backoff::new(LONGEST_WAIT);
        loop {
            let event = tokio::select! {
                event = link.poll() => event,
                () = tx.closed() => return,
            };
            match event {
                Ok(LinkEvent::Connected { .. }) => reporter.connected(),
                Ok(LinkEvent::Subscribed { filter, granted }) => {
                    reporter.subscribed(&filter, &granted);
                    if granted.is_ok() {
                        backoff.reset();
                        let _ = ready_tx.send(true);
                    }
                }
                Ok(LinkEvent::Incoming(m)) => {
                    let message = Received {
                        topic: m.topic,
                        payload: m.payload.to_vec(),
                        retained: m.retain,
                    };
                    let _ = tx.try_send(message);
                }
                Ok(LinkEvent::TooLarge { topic, bytes }) => {
                    tracing::warn!("MQTT: {bytes} bytes on {topic} are too many, and not read");
                }
                Ok(_) => {}
                Err(e) => {
                    let _ = ready_tx.send(false);
                    reporter.failed(&e);
                    let wait: Duration = backoff.next(e.cause);
                    tokio::select! {
                        () = time::sleep(wait) => {}
                        () = tx.closed() => return,
                    }
                }
            }
        }
    };
    Ok((Subscription { messages, ready }, run))
}
