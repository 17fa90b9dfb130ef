//! `[spool]` of the configuration.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::Bounds;

/// `[spool]`: what waits on disk for the broker.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SpoolSettings {
    /// When messages are written.
    pub mode: SpoolMode,
    /// The directory; `$STATE_DIRECTORY/spool` if it is not said. Without either there is no spool.
    pub path: Option<PathBuf>,
    /// What is kept at most, in bytes.
    pub max_bytes: u64,
    /// Older messages are dropped, in seconds.
    pub max_age_s: f64,
    /// Kept messages sent a second after a reconnect; 0: as fast as the broker takes them.
    pub drain_rate: f64,
    /// How new messages and kept ones share the way to the broker.
    pub order: SpoolOrder,
}

/// When a message is written to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SpoolMode {
    /// Never.
    Off,
    /// While the broker cannot be reached, and what it had not acknowledged when the connection died.
    #[default]
    Offline,
    /// Each one, before it is sent.
    Always,
}

/// How new messages and kept ones share the way to the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SpoolOrder {
    /// New ones go at once; kept ones beside them, in their own order, each marked `replayed`.
    #[default]
    Live,
    /// New ones queue behind the kept ones.
    Strict,
}

impl Default for SpoolSettings {
    fn default() -> Self {
        Self {
            mode: SpoolMode::default(),
            path: None,
            max_bytes: 64 << 20,
            max_age_s: 7.0 * 86400.0,
            drain_rate: 100.0,
            order: SpoolOrder::default(),
        }
    }
}

impl SpoolSettings {
    /// Everything that is wrong with these settings, as key and message.
    pub fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        let mut check = |ok: bool, key, message: &str| {
            if !ok {
                problems.push((key, message.to_string()));
            }
        };
        check(
            (1 << 16..=1 << 40).contains(&self.max_bytes),
            "max_bytes",
            "must be 65536 to 1099511627776",
        );
        check(
            (1.0..=10.0 * 365.0 * 86400.0).contains(&self.max_age_s),
            "max_age_s",
            "must be 1 second to ten years",
        );
        check(
            (0.0..=1e6).contains(&self.drain_rate),
            "drain_rate",
            "must be 0 (no limit) to 1000000 messages a second",
        );
        problems
    }

    /// The bounds of the file.
    pub fn bounds(&self) -> Bounds {
        Bounds {
            max_bytes: self.max_bytes,
            max_age: Duration::from_secs_f64(self.max_age_s),
        }
    }
}
