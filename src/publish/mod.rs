//! Sinks: where observations go.
//!
//! In: [`Publication`]s, from the inference and capture threads. Out: MQTT messages, JSON lines.
//! Always holds: [`Sink::publish`] never blocks; what a full queue costs is counted.

use crate::observe::Publication;

pub mod health;
pub mod jsonl;
pub mod mqtt;
pub mod spool;

/// Where publications go. Called from inference and capture threads.
pub trait Sink: Send + Sync {
    /// Takes a publication. Never blocks; each sink says in its docs what it does when it is full, and counts it.
    fn publish(&self, publication: &Publication);
}

/// Whether `id` may name a device, a camera or a model: `[a-zA-Z0-9_-]+`, so that it is one level of a topic
/// and one value of a tag everywhere.
pub fn valid_id(id: &str) -> bool {
    !id.is_empty()
        && id
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

#[cfg(test)]
mod tests {
    #[test]
    fn ids() {
        for id in ["porch", "porch-pi_2", "0", "A"] {
            assert!(super::valid_id(id), "{id}");
        }
        for id in ["", "a b", "a/b", "+", "#", "$SYS", "küche", "a.b", "a\0"] {
            assert!(!super::valid_id(id), "{id:?}");
        }
    }
}
