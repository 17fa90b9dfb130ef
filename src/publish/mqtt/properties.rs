//! What MQTT 5 says besides topic and payload: expiry, content type, the schema's version.
//!
//! In: a message on its way out. Out: the same with its properties, and how long it may still be delivered, by the last level of its topic.
//! Pure. Always holds: properties that are there already (an answer's correlation data) stay.

use std::time::Duration;

use super::link::Message;
use super::payload::SCHEMA;
use super::settings::MqttSettings;

/// How long observations are worth delivering, from the moment in which the picture was taken (MQTT 5: message expiry).
#[derive(Debug, Clone, Copy)]
pub(super) struct Lifetime(Option<Duration>);

impl Lifetime {
    /// Under MQTT 3.1.1 nobody could tell the broker: for ever.
    pub fn new(settings: &MqttSettings) -> Self {
        let seconds = settings.observation_expiry_s;
        let is_said = settings.version == 5 && seconds > 0;
        Self(is_said.then(|| Duration::from_secs(seconds.into())))
    }

    /// What is left of it for a message of this age; zero: it is over. `None`: the message is worth something for ever.
    pub fn left(self, topic: &str, age: Duration) -> Option<Duration> {
        let kind = topic.rsplit('/').next().unwrap_or_default();
        let is_observation =
            ["classification", "detections", "segments", "embedding"].contains(&kind);
        let whole = self.0.filter(|_| is_observation)?;
        Some(whole.saturating_sub(age))
    }
}

/// Fills in what is not there yet; does nothing under MQTT 3.1.1.
pub(super) fn fill(message: &mut Message, settings: &MqttSettings) {
    if settings.version != 5 {
        return;
    }
    let Message {
        payload,
        properties,
        ..
    } = message;
    let (content_type, is_json) = match payload.first() {
        Some(b'{') => ("application/json", true),
        // A JPEG says what it is when it is made.
        Some(0xff) | None => return,
        Some(_) => ("text/plain", false),
    };
    properties
        .content_type
        .get_or_insert_with(|| content_type.into());
    let named = properties.user.iter().any(|(name, _)| name == "schema");
    if is_json && !named {
        properties.user.push(("schema".into(), SCHEMA.into()));
    }
}

#[cfg(test)]
mod tests {
    use super::super::link::Qos;
    use super::*;

    fn settings(version: u8) -> MqttSettings {
        MqttSettings {
            version,
            observation_expiry_s: 60,
            ..MqttSettings::default()
        }
    }

    #[test]
    fn each_kind_gets_its_own() {
        let filled = |topic: &str, payload: &'static str, version| {
            let settings = settings(version);
            let mut m = Message::new(topic.into(), Qos::AtLeastOnce, payload);
            fill(&mut m, &settings);
            fill(&mut m, &settings);
            m.properties
        };
        let p = filled("o/d/c/classification", "{}", 5);
        assert_eq!(p.content_type.as_deref(), Some("application/json"));
        assert_eq!(p.user, [("schema".to_string(), SCHEMA.to_string())]);
        let p = filled("o/d/status", "online", 5);
        assert_eq!(p.content_type.as_deref(), Some("text/plain"));
        assert!(p.user.is_empty());
        assert_eq!(filled("o/d/c/classification", "{}", 3), Default::default());
    }

    #[test]
    fn an_observation_lives_from_its_picture_on() {
        let left = |version, topic: &str, age| {
            let left = Lifetime::new(&settings(version)).left(topic, Duration::from_secs(age));
            left.map(|l| l.as_secs())
        };
        assert_eq!(left(5, "o/d/c/detections", 0), Some(60));
        assert_eq!(left(5, "o/d/c/classification", 45), Some(15));
        assert_eq!(left(5, "o/d/c/embedding", 3600), Some(0));
        assert_eq!(left(5, "o/d/c/event", 3600), None);
        assert_eq!(left(3, "o/d/c/detections", 3600), None);
        let for_ever = MqttSettings {
            observation_expiry_s: 0,
            ..settings(5)
        };
        let left = Lifetime::new(&for_ever).left("o/d/c/segments", Duration::MAX);
        assert_eq!(left, None);
    }
}
