//! Why a connection failed, in words that say what to look at.

use std::fmt;
use std::io;

use rumqttc::v5;
use rumqttc::{ConnectReturnCode, ConnectionError, StateError, TlsError};

use super::{LISTEN_AGAIN, LinkOptions, tls};

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
    /// The broker's certificate is not good: somebody must change something.
    Untrusted,
    /// What came was not what MQTT allows.
    Protocol,
    /// What came is larger than what is read. The next connections are made without subscriptions.
    TooLarge,
}

impl LinkError {
    pub(super) fn new(cause: Cause, message: impl fmt::Display) -> Self {
        let message = message.to_string();
        Self { cause, message }
    }

    /// What an end in the middle of the handshake often means.
    pub(super) fn before_connected(self, options: &LinkOptions) -> Self {
        let guess = match &options.tls {
            _ if self.cause != Cause::Lost => return self,
            Some(tls) if !tls.has_certificate => {
                "does it speak TLS on that port, or want a client certificate?"
            }
            Some(_) => "does it trust this device's certificate?",
            None => "does it want mqtts:// on that port?",
        };
        let text = format!("the broker closed the connection during the handshake: {guess}");
        Self::new(Cause::Lost, text)
    }
}

/// A reason code of MQTT 5 and what the broker says about it.
pub(super) fn broker_says(code: &impl fmt::Debug, said: Option<&str>) -> String {
    // NotAuthorized → not authorized
    let mut words = String::new();
    for c in format!("{code:?}").chars() {
        if c.is_uppercase() && !words.is_empty() {
            words.push(' ');
        }
        words.extend(c.to_lowercase());
    }
    match said {
        Some(said) => format!("the broker says: {words} ({})", said.escape_debug()),
        None => format!("the broker says: {words}"),
    }
}

const NO_ANSWER: &str =
    "no answer in time: nothing listens there, a firewall drops packets, or it is no MQTT broker";
const NO_BROKER: &str = "what answers there is no MQTT broker";
const SILENT: &str = "the broker fell silent";
const CLOSED: &str =
    "the broker closed the connection (stopped, or another client has the same client id)";
const BAD_PASSWORD: &str = "the broker refused the user name or the password";
const NOT_AUTHORIZED: &str =
    "the broker refused this client (wrong or missing user name and password, or an access rule)";

pub(super) fn from_v4(error: &ConnectionError) -> LinkError {
    use ConnectReturnCode as Code;
    let (cause, text) = match error {
        ConnectionError::ConnectionRefused(code) => match code {
            Code::BadUserNamePassword => (Cause::Refused, BAD_PASSWORD),
            Code::NotAuthorized => (Cause::Refused, NOT_AUTHORIZED),
            Code::BadClientId => (Cause::Refused, "the broker refused the client id"),
            Code::RefusedProtocolVersion => {
                (Cause::Refused, "the broker does not speak MQTT 3.1.1")
            }
            Code::ServiceUnavailable => (Cause::Unreachable, "the broker says it is unavailable"),
            Code::Success => (Cause::Protocol, "the broker accepted and failed at once"),
        },
        ConnectionError::NetworkTimeout => (Cause::Unreachable, NO_ANSWER),
        ConnectionError::FlushTimeout => (Cause::Lost, "the broker takes no more bytes"),
        ConnectionError::NotConnAck(_) => (Cause::Protocol, NO_BROKER),
        ConnectionError::Tls(e) => return from_tls(e),
        ConnectionError::RequestsDone => (Cause::Lost, "the client was closed"),
        ConnectionError::Io(e) => return from_io(e),
        ConnectionError::MqttState(state) => match state {
            StateError::Io(e) | StateError::Deserialization(rumqttc::Error::Io(e)) => {
                return from_io(e);
            }
            StateError::Deserialization(rumqttc::Error::PayloadSizeLimitExceeded(bytes)) => {
                return too_large(*bytes);
            }
            StateError::AwaitPingResp => (Cause::Lost, SILENT),
            StateError::ConnectionAborted => (Cause::Lost, CLOSED),
            other => {
                let text = format!("protocol error: {other}");
                return LinkError::new(Cause::Protocol, text);
            }
        },
    };
    LinkError::new(cause, text)
}

pub(super) fn from_v5(error: &v5::ConnectionError) -> LinkError {
    use v5::mqttbytes::v5::{ConnectReturnCode as Code, DisconnectReasonCode as Reason};
    use v5::{ConnectionError as E, StateError as S};
    let (cause, text) = match error {
        E::ConnectionRefused(code) | E::MqttState(S::ConnFail { reason: code }) => match code {
            Code::BadUserNamePassword => (Cause::Refused, BAD_PASSWORD.into()),
            Code::NotAuthorized => (Cause::Refused, NOT_AUTHORIZED.into()),
            Code::BadClientId | Code::ClientIdentifierNotValid => {
                (Cause::Refused, "the broker refused the client id".into())
            }
            Code::RefusedProtocolVersion | Code::UnsupportedProtocolVersion => {
                (Cause::Refused, NO_MQTT_5.into())
            }
            Code::ServiceUnavailable | Code::ServerUnavailable | Code::ServerBusy => {
                (Cause::Unreachable, broker_says(code, None))
            }
            code => (Cause::Refused, broker_says(code, None)),
        },
        E::Timeout(_) => (Cause::Unreachable, NO_ANSWER.into()),
        E::NotConnAck(_) => (Cause::Protocol, NO_BROKER.into()),
        E::RequestsDone => (Cause::Lost, "the client was closed".into()),
        E::Tls(e) => return from_tls(e),
        E::Io(e) => return from_io(e),
        E::MqttState(state) => match state {
            S::Io(e) | S::Deserialization(v5::mqttbytes::Error::Io(e)) => return from_io(e),
            S::IncomingPacketTooLarge { pkt_size, .. }
            | S::Deserialization(v5::mqttbytes::Error::PayloadSizeLimitExceeded {
                pkt_size, ..
            }) => {
                return too_large(*pkt_size);
            }
            S::AwaitPingResp => (Cause::Lost, SILENT.into()),
            S::ConnectionAborted => (Cause::Lost, CLOSED.into()),
            S::ServerDisconnect {
                reason_code,
                reason_string,
            } => match reason_code {
                Reason::SessionTakenOver => (
                    Cause::Lost,
                    "another client has the same client id and took over".into(),
                ),
                Reason::NotAuthorized => (Cause::Refused, NOT_AUTHORIZED.into()),
                code => (Cause::Lost, broker_says(code, reason_string.as_deref())),
            },
            // A CONNACK of 3.1.1 has no properties.
            S::Deserialization(_) => (
                Cause::Protocol,
                format!("protocol error: {state} (or {NO_MQTT_5})"),
            ),
            other => (Cause::Protocol, format!("protocol error: {other}")),
        },
    };
    LinkError::new(cause, text)
}

fn too_large(bytes: usize) -> LinkError {
    let text = format!(
        "a message of {bytes} bytes came on a topic that this device listens to, more than it reads: it listens to nothing for {} minutes. \
         Remove the message if it is retained; the broker can be told to take none of such a size",
        LISTEN_AGAIN.as_secs() / 60
    );
    LinkError::new(Cause::TooLarge, text)
}

const NO_MQTT_5: &str = "the broker does not speak MQTT 5: leave `version` out";

fn from_tls(error: &TlsError) -> LinkError {
    match error {
        TlsError::Io(e) => from_io(e),
        TlsError::TLS(e) => tls::describe(e),
        e => LinkError::new(Cause::Untrusted, format!("TLS: {e}")),
    }
}

pub(super) fn from_io(e: &io::Error) -> LinkError {
    if let Some(e) = e.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>()) {
        return tls::describe(e);
    }
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
