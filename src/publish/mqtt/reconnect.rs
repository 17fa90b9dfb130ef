//! How long to wait before the next attempt, and what to say about the last one.

use std::hash::{BuildHasher, Hasher};
use std::io;
use std::time::Duration;

use rumqttc::{ConnectReturnCode, ConnectionError, StateError};
use tracing::{info, warn};

const FIRST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(30);

/// Doubles from a quarter of a second to half a minute, with jitter, so that a fleet does not come back at once.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    attempts: u32,
}

impl Backoff {
    /// The wait before the next attempt: between half of the step and all of it.
    pub fn next(&mut self) -> Duration {
        let step = FIRST
            .saturating_mul(1 << self.attempts.min(16))
            .min(LONGEST);
        self.attempts += 1;
        // The standard library seeds each RandomState anew: randomness enough for jitter.
        let random = std::hash::RandomState::new().build_hasher().finish();
        let share = 0.5 + 0.5 * (random % 1000) as f64 / 1000.0;
        step.mul_f64(share)
    }

    /// The connection has lasted.
    pub fn reset(&mut self) {
        self.attempts = 0;
    }
}

/// Says each change of the connection's state once, however many attempts it takes.
#[derive(Debug)]
pub(super) struct Reporter {
    broker: String,
    said: Option<String>,
}

impl Reporter {
    pub fn new(broker: String) -> Self {
        Self { broker, said: None }
    }

    pub fn connected(&mut self) {
        if self.said.as_deref() != Some("") {
            info!(broker = self.broker, "MQTT: connected");
            self.said = Some(String::new());
        }
    }

    pub fn failed(&mut self, error: &ConnectionError) {
        let why = describe(error);
        if self.said.as_deref() != Some(&why) {
            warn!(broker = self.broker, "MQTT: {why}; trying again for ever");
            self.said = Some(why);
        }
    }
}

/// What went wrong and what to look at.
pub(super) fn describe(error: &ConnectionError) -> String {
    match error {
        ConnectionError::ConnectionRefused(code) => match code {
            ConnectReturnCode::BadUserNamePassword => {
                "the broker refused the user name or the password".into()
            }
            ConnectReturnCode::NotAuthorized => {
                "the broker refused this client (wrong or missing user name and password, or an access rule)"
                    .into()
            }
            ConnectReturnCode::BadClientId => "the broker refused the client id".into(),
            ConnectReturnCode::RefusedProtocolVersion => {
                "the broker does not speak MQTT 3.1.1".into()
            }
            ConnectReturnCode::ServiceUnavailable => "the broker says it is unavailable".into(),
            ConnectReturnCode::Success => "the broker accepted and failed at once".into(),
        },
        ConnectionError::NetworkTimeout => {
            "no answer in time: nothing listens there, a firewall drops packets, or it is no MQTT broker".into()
        }
        ConnectionError::FlushTimeout => "the broker takes no more bytes".into(),
        ConnectionError::NotConnAck(_) => "what answers there is no MQTT broker".into(),
        ConnectionError::RequestsDone => "the client was closed".into(),
        ConnectionError::Io(e) => describe_io(e),
        ConnectionError::MqttState(state) => match state {
            StateError::Io(e) => describe_io(e),
            StateError::AwaitPingResp => "the broker fell silent".into(),
            StateError::ConnectionAborted => {
                "the broker closed the connection (stopped, or another client has the same client id)".into()
            }
            StateError::Deserialization(rumqttc::Error::Io(e)) => describe_io(e),
            other => format!("protocol error: {other}"),
        },
    }
}

fn describe_io(e: &io::Error) -> String {
    let text = e.to_string();
    match e.kind() {
        io::ErrorKind::ConnectionRefused => {
            "connection refused: no broker listens on that host and port".into()
        }
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::UnexpectedEof => "the broker closed the connection".into(),
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            "the broker's network is unreachable".into()
        }
        io::ErrorKind::TimedOut => "the connection timed out".into(),
        _ if text.contains("lookup") => format!("the broker's host name is unknown ({text})"),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn back_off_grows_is_capped_and_starts_again() {
        let mut b = Backoff::default();
        for attempt in 0..60 {
            let step = FIRST.saturating_mul(1 << attempt.min(16)).min(LONGEST);
            let wait = b.next();
            assert!(wait >= step / 2 && wait <= step, "{attempt}: {wait:?}");
        }
        b.reset();
        assert!(b.next() <= FIRST);
    }

    #[test]
    fn errors_are_told_plainly() {
        let io = |kind| describe(&ConnectionError::Io(io::Error::from(kind)));
        assert!(io(io::ErrorKind::ConnectionRefused).contains("no broker listens"));
        let refused = ConnectionError::ConnectionRefused(ConnectReturnCode::BadUserNamePassword);
        assert!(describe(&refused).contains("password"));
        assert!(describe(&ConnectionError::NetworkTimeout).contains("no answer"));
    }
}
