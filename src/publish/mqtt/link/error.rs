//! Why a connection failed, in words that say what to look at.

use std::fmt;
use std::io;

use rumqttc::{ConnectReturnCode, ConnectionError, StateError};

/// Why there is no connection. Displays as one line that says what to look at; no secret is in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct LinkError {
    /// What kind it is.
    pub cause: Cause,
    message: String,
}

/// Kinds of failure, by what helps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Nothing answers: waiting may help.
    Unreachable,
    /// The connection was there and ended: waiting helps.
    Lost,
    /// The broker does not want this client: somebody must change something.
    Refused,
    /// What came was not what MQTT allows.
    Protocol,
}

impl LinkError {
    pub(super) fn new(cause: Cause, message: impl fmt::Display) -> Self {
        let message = message.to_string();
        Self { cause, message }
    }
}

pub(super) fn from_v4(error: &ConnectionError) -> LinkError {
    use ConnectReturnCode as Code;
    let (cause, text) = match error {
        ConnectionError::ConnectionRefused(code) => match code {
            Code::BadUserNamePassword => (
                Cause::Refused,
                "the broker refused the user name or the password",
            ),
            Code::NotAuthorized => (
                Cause::Refused,
                "the broker refused this client (wrong or missing user name and password, or an access rule)",
            ),
            Code::BadClientId => (Cause::Refused, "the broker refused the client id"),
            Code::RefusedProtocolVersion => {
                (Cause::Refused, "the broker does not speak MQTT 3.1.1")
            }
            Code::ServiceUnavailable => (Cause::Unreachable, "the broker says it is unavailable"),
            Code::Success => (Cause::Protocol, "the broker accepted and failed at once"),
        },
        ConnectionError::NetworkTimeout => (
            Cause::Unreachable,
            "no answer in time: nothing listens there, a firewall drops packets, or it is no MQTT broker",
        ),
        ConnectionError::FlushTimeout => (Cause::Lost, "the broker takes no more bytes"),
        ConnectionError::NotConnAck(_) => (Cause::Protocol, "what answers there is no MQTT broker"),
        ConnectionError::RequestsDone => (Cause::Lost, "the client was closed"),
        ConnectionError::Io(e) => return from_io(e),
        ConnectionError::MqttState(state) => match state {
            StateError::Io(e) | StateError::Deserialization(rumqttc::Error::Io(e)) => {
                return from_io(e);
            }
            StateError::AwaitPingResp => (Cause::Lost, "the broker fell silent"),
            StateError::ConnectionAborted => (
                Cause::Lost,
                "the broker closed the connection (stopped, or another client has the same client id)",
            ),
            other => {
                let text = format!("protocol error: {other}");
                return LinkError::new(Cause::Protocol, text);
            }
        },
    };
    LinkError::new(cause, text)
}

pub(super) fn from_io(e: &io::Error) -> LinkError {
    let text = e.to_string();
    let (cause, text) = match e.kind() {
        io::ErrorKind::ConnectionRefused => (
            Cause::Unreachable,
            "connection refused: no broker listens on that host and port".into(),
        ),
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::UnexpectedEof => (Cause::Lost, "the broker closed the connection".into()),
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => (
            Cause::Unreachable,
            "the broker's network is unreachable".into(),
        ),
        io::ErrorKind::TimedOut => (Cause::Lost, "the connection timed out".into()),
        _ if text.contains("lookup") => (
            Cause::Unreachable,
            format!("the broker's host name is unknown ({text})"),
        ),
        _ => (Cause::Lost, text),
    };
    LinkError::new(cause, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_told_plainly() {
        let io = |kind| from_io(&io::Error::from(kind)).to_string();
        assert!(io(io::ErrorKind::ConnectionRefused).contains("no broker listens"));
        let refused = ConnectionError::ConnectionRefused(ConnectReturnCode::BadUserNamePassword);
        assert!(from_v4(&refused).to_string().contains("password"));
        assert_eq!(from_v4(&refused).cause, Cause::Refused);
        let silent = from_v4(&ConnectionError::NetworkTimeout).to_string();
        assert!(silent.contains("no answer"));
    }
}
