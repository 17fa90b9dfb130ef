//! MQTT: topics, payloads, and the client that keeps the connection.
//!
//! In: publications, from the inference and capture threads, by [`MqttSink`]. Out: messages to a broker, by
//! [`MqttClient::run`] on the `io` thread. Always holds: the sink never blocks; the client reconnects for ever; the
//! retained messages on the broker are true again after each reconnect.

mod address;
mod client;
mod delivery;
pub mod discovery;
pub mod link;
pub mod payload;
mod properties;
mod queue;
mod reconnect;
pub mod remote;
mod settings;
mod subscribe;
mod topic;

pub use client::{MqttClient, MqttSink, STOP_LIMIT, connect, probe};
pub use discovery::DiscoverySettings;
pub use payload::{DeviceInfo, ModelInfo};
pub use settings::{KEY_ENV, MqttError, MqttSettings, PASSWORD_ENV, SettingsProblem};
pub use subscribe::{Received, Subscription, subscribe};
pub use topic::{Topics, valid_prefix};

#[cfg(test)]
pub(super) use queue::tests::observation as test_observation;
