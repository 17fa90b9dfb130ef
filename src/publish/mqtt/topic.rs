//! Where each message goes: `<prefix>/<device>/…`, of fixed depth, so that consumers can map positions to tags.

use crate::publish::valid_id;

/// The topics of one device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topics {
    base: String,
}

impl Topics {
    /// `prefix` and `device` were checked ([`valid_prefix`], [`valid_id`]).
    pub fn new(prefix: &str, device: &str) -> Self {
        Self {
            base: format!("{prefix}/{device}"),
        }
    }

    /// `online` or `offline`; the will.
    pub fn status(&self) -> String {
        format!("{}/status", self.base)
    }

    /// What the device is.
    pub fn info(&self) -> String {
        format!("{}/info", self.base)
    }

    /// How the device is.
    pub fn health(&self) -> String {
        format!("{}/health", self.base)
    }

    /// Commands to the device.
    pub fn command(&self) -> String {
        format!("{}/cmd", self.base)
    }

    /// Answers to them.
    pub fn command_result(&self) -> String {
        format!("{}/cmd/result", self.base)
    }

    /// What a topic of this device says behind the device's id; `None` for others.
    pub fn below<'a>(&self, topic: &'a str) -> Option<&'a str> {
        topic.strip_prefix(&self.base)?.strip_prefix('/')
    }

    /// A camera's topic: `status`, `state`, `classification`, `embedding`, `event`.
    pub fn camera(&self, camera: &str, kind: &str) -> String {
        format!("{}/{camera}/{kind}", self.base)
    }
}

/// Whether a prefix is one or more levels of [`valid_id`], joined by `/`.
pub fn valid_prefix(prefix: &str) -> bool {
    prefix.split('/').all(valid_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_have_a_fixed_depth() {
        let t = Topics::new("ocellus", "porch-pi");
        assert_eq!(t.status(), "ocellus/porch-pi/status");
        assert_eq!(t.info(), "ocellus/porch-pi/info");
        assert_eq!(t.health(), "ocellus/porch-pi/health");
        assert_eq!(t.camera("porch", "state"), "ocellus/porch-pi/porch/state");
    }

    #[test]
    fn prefixes() {
        assert!(valid_prefix("ocellus") && valid_prefix("home/ocellus"));
        for bad in ["", "/", "a/", "/a", "a//b", "$SYS", "a/+", "#", "a b"] {
            assert!(!valid_prefix(bad), "{bad:?}");
        }
    }
}
