//! Who listens to the broker: commands, settings, Home Assistant's discovery.
//!
//! The client owns its listeners and calls them on the `io` thread. Always holds: none of them blocks; what they want
//! sent, they give when they are asked.

use std::time::Instant;

use super::link::Message;

/// One listener.
pub trait Remote: Send {
    /// What it wants to hear. Asked once, before the first connection.
    fn filters(&self) -> Vec<String>;

    /// The broker let us in; the subscriptions go out with it, before anything that [`poll`](Self::poll) gives.
    fn connected(&mut self, now: Instant);

    /// A message came, for whomever: its topic is to be looked at.
    fn incoming(&mut self, message: &Message, now: Instant);

    /// The next thing to do, if there is one. Asked while there is a connection, at least every 50 ms.
    fn poll(&mut self, now: Instant) -> Option<Wish>;
}

/// What a listener wants done.
#[derive(Debug, PartialEq)]
pub enum Wish {
    /// To be sent, after what was wished before. If it is retained it is lost with the connection: it is made anew on the next one.
    Send(Message),
    /// The same for a retained message that is made only once: it goes until the broker has acknowledged it, or a newer one of its topic comes.
    SendLatest(Message),
    /// No picture that still waits is to be sent, none that is under way again.
    DropPictures,
    /// Everything that is not retained or may have been missed, once more: `health`.
    Refresh,
}
