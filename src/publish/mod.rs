//! Sinks: where observations go.
//!
//! In: [`Publication`]s, from the inference and capture threads. Out: MQTT messages, JSON lines.
//! Always holds: [`Sink::publish`] never blocks; what a full queue costs is counted.

use crate::observe::Publication;

/// Where publications go. Called from inference and capture threads.
pub trait Sink: Send + Sync {
    /// Takes a publication. Never blocks; each sink says in its docs what it does when it is full, and counts it.
    fn publish(&self, publication: &Publication);
}
