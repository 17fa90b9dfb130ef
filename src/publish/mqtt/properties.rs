//! What MQTT 5 says besides topic and payload: expiry, content type, the schema's version.
//!
//! In: a message on its way out. Out: the same with its properties, by the last level of its topic. Pure. Always holds: properties that
//! are there already (an answer's correlation data) stay.

use std::time::Duration;

use super::link::Message;
use super::payload::SCHEMA;
use super::settings::MqttSettings;

/// Fills in what is not there yet; does nothing under MQTT 3.1.1.
pub(super) fn fill(message: &mut Message, settings: &MqttSettings) {
    if settings.version != 5 {
        return;
    }
    let Message {
        topic,
        payload,
        properties,
        ..
    } = message;
    let kind = topic.rsplit('/').next().unwrap_or_default();
    let is_observation = ["classification", "detections", "segments", "embedding"].contains(&kind);
    if is_observation && settings.observation_expiry_s > 0 {
        let expiry = Duration::from_secs(settings.observation_expiry_s.into());
        properties.expiry.get_or_insert(expiry);
    }
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

    #[test]
    fn each_kind_gets_its_own() {
        let filled = |topic: &str, payload: &'static str, version| {
            let settings = MqttSettings {
                version,
                observation_expiry_s: 60,
                ..MqttSettings::default()
            };
            let mut m = Message::new(topic.into(), Qos::AtLeastOnce, payload);
            fill(&mut m, &settings);
            fill(&mut m, &settings);
            m.properties
        };
        let p = filled("o/d/c/detections", "{}", 5);
        assert_eq!(p.expiry, Some(Duration::from_secs(60)));
        let p = filled("o/d/c/classification", "{}", 5);
        assert_eq!(p.expiry, Some(Duration::from_secs(60)));
        assert_eq!(p.content_type.as_deref(), Some("application/json"));
        assert_eq!(p.user, [("schema".to_string(), SCHEMA.to_string())]);
        assert_eq!(filled("o/d/c/event", "{}", 5).expiry, None);
        let p = filled("o/d/status", "online", 5);
        assert_eq!(p.content_type.as_deref(), Some("text/plain"));
        assert!(p.user.is_empty());
        assert_eq!(filled("o/d/c/classification", "{}", 3), Default::default());
    }
}
