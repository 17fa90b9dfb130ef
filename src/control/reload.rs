//! A configuration that runs and one that was read again: what differs, and what of it can be changed live. Pure.

use crate::config::{CameraPlan, ModelPlan, Plan};
use crate::controls::CameraSettings;
use crate::publish::mqtt::MqttSettings;

/// Keys of the configuration that differ.
#[derive(Debug, Default, PartialEq, serde::Serialize)]
pub(super) struct Changes {
    /// Taken over.
    pub applied: Vec<&'static str>,
    /// Only with a restart.
    pub needs_restart: Vec<String>,
}

/// What holds for every camera unless it was set.
pub fn camera_settings(plan: &Plan) -> CameraSettings {
    CameraSettings {
        inference: true,
        smoothing: plan.smoothing,
        threshold: None,
        max_rate: plan.mqtt.as_ref().map_or(0.0, |m| m.max_rate),
    }
}

/// `live` is the plan that was taken over last, `started` the one that the threads run by.
pub(super) fn compare(started: &Plan, live: &Plan, new: &Plan) -> Changes {
    let mut changes = Changes::default();
    let (old, now) = (live.smoothing, new.smoothing);
    let rate = |p: &Plan| p.mqtt.as_ref().map(|m| m.max_rate);
    let commands = |p: &Plan| p.mqtt.as_ref().map(|m| m.commands);
    let persist = |p: &Plan| p.mqtt.as_ref().map(|m| m.persist_settings);
    // With a broker or without one: that alone needs a restart.
    let both = started.mqtt.is_some() == new.mqtt.is_some();
    for (key, differs) in [
        ("smoothing.window_ms", old.window_ms != now.window_ms),
        ("smoothing.enter", old.enter != now.enter),
        ("smoothing.leave", old.leave != now.leave),
        (
            "smoothing.min_duration_ms",
            old.min_duration_ms != now.min_duration_ms,
        ),
        ("mqtt.max_rate", both && rate(live) != rate(new)),
        ("mqtt.commands", both && commands(live) != commands(new)),
        (
            "mqtt.persist_settings",
            both && persist(live) != persist(new),
        ),
        (
            "privacy.images",
            live.snapshot.is_some() != new.snapshot.is_some(),
        ),
        (
            "snapshot",
            live.snapshot.is_some() && new.snapshot.is_some() && live.snapshot != new.snapshot,
        ),
    ] {
        if differs {
            changes.applied.push(key);
        }
    }
    let mut restart = |key: &str, differs: bool| {
        if differs {
            changes.needs_restart.push(key.into());
        }
    };
    restart("device.id", started.device != new.device);
    restart("device.state_dir", started.state_dir != new.state_dir);
    by_id(
        "camera",
        &started.cameras,
        &new.cameras,
        |c: &CameraPlan| &c.id,
        &mut restart,
    );
    by_id(
        "model",
        &started.models,
        &new.models,
        |m: &ModelPlan| &m.id,
        &mut restart,
    );
    restart(
        "engine.threads",
        started.engine_threads != new.engine_threads,
    );
    restart("tracking", started.tracking != new.tracking);
    restart("engine.workers", started.workers != new.workers);
    restart("mqtt", rest(&started.mqtt) != rest(&new.mqtt));
    restart(
        "spool",
        (&started.spool, &started.spool_dir) != (&new.spool, &new.spool_dir),
    );
    restart("discovery", started.discovery != new.discovery);
    restart("broker", started.broker != new.broker);
    restart("output.jsonl", started.jsonl != new.jsonl);
    changes
}

/// `[mqtt]` without what can be changed live.
fn rest(mqtt: &Option<MqttSettings>) -> Option<MqttSettings> {
    mqtt.clone().map(|m| MqttSettings {
        max_rate: 0.0,
        commands: true,
        persist_settings: false,
        ..m
    })
}

fn by_id<T: PartialEq>(
    section: &str,
    old: &[T],
    new: &[T],
    id: impl Fn(&T) -> &str,
    restart: &mut impl FnMut(&str, bool),
) {
    for t in old {
        let same = new.iter().find(|n| id(n) == id(t));
        restart(&format!("{section} {}", id(t)), same != Some(t));
    }
    for t in new.iter().filter(|t| !old.iter().any(|o| id(o) == id(t))) {
        restart(&format!("{section} {}", id(t)), true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn plan(text: &str) -> Plan {
        let (config, problems) = Config::parse(text);
        assert_eq!(problems, []);
        Plan::new(config, std::path::Path::new("")).unwrap()
    }

    #[test]
    fn live_and_restart() {
        let base = "[[camera]]\nid='a'\n[[model]]\nid='m'\npath='m'\n";
        let started = plan(&format!("{base}[mqtt]\n"));
        assert_eq!(compare(&started, &started, &started), Changes::default());
        let new = plan(&format!(
            "{base}[[camera]]\nid='b'\nsource='scene:'\n[mqtt]\nmax_rate=2.0\nkeep_alive_s=5\n[smoothing]\nenter=0.7\n[privacy]\nimages=false\n"
        ));
        let changes = compare(&started, &started, &new);
        assert_eq!(
            changes.applied,
            ["smoothing.enter", "mqtt.max_rate", "privacy.images"]
        );
        // The model looks at every camera: its cameras change, and the new camera says so.
        assert_eq!(changes.needs_restart, ["camera b", "mqtt"]);
        // Read again: what was taken over is no news, what needs a restart still does.
        let again = compare(&started, &new, &new);
        assert!(again.applied.is_empty());
        assert_eq!(again.needs_restart, changes.needs_restart);
    }
}
