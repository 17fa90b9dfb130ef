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
    // Whoever adds a part says below what a change of it needs: silence would look like obedience.
    let Plan {
        device: _,
        cameras: _,
        models: _,
        engine_threads: _,
        workers: _,
        smoothing: _,
        tracking: _,
        state_dir: _,
        snapshot: _,
        discovery: _,
        mqtt: _,
        spool: _,
        spool_dir: _,
        broker: _,
        jsonl: _,
    } = new;
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

    /// The configuration with one more line.
    fn with(section: &str, line: &str) -> String {
        let parts = [
            ("[device]", "state_dir='/kept'"),
            ("[[camera]]", "id='a'\nsource='scene:'"),
            ("[camera.motion]", ""),
            ("[[camera.zone]]", "id='z'\npolygon=[[0,0],[1,0],[1,1]]"),
            ("[[camera.line]]", "id='l'\nfrom=[0,0]\nto=[1,1]"),
            ("[[model]]", "id='m'\npath='m'"),
            ("[model.classify]", ""),
            ("[model.detect]", ""),
            ("[model.embed]", ""),
            ("[engine]", ""),
            ("[smoothing]", ""),
            ("[tracking]", ""),
            ("[mqtt]", ""),
            ("[discovery]", ""),
            ("[privacy]", ""),
            ("[snapshot]", ""),
            ("[spool]", ""),
            ("[output]", ""),
        ];
        assert!(line.is_empty() || parts.iter().any(|(s, _)| *s == section));
        let part = |(name, lines): (&str, &str)| match name == section {
            true => format!("{name}\n{line}\n{lines}\n"),
            false => format!("{name}\n{lines}\n"),
        };
        parts.map(part).concat()
    }

    #[test]
    fn every_key_that_differs_is_answered() {
        let started = plan(&with("", ""));
        for (section, line, answer) in [
            ("[device]", "id='other'", "device.id"),
            ("[[camera]]", "fps=5.0", "camera a"),
            ("[[camera]]", "timeout_ms=4000", "camera a"),
            (
                "[[camera]]",
                "privacy_masks=[[[0,0],[1,0],[1,1]]]",
                "camera a",
            ),
            ("[camera.motion]", "hold_s=1.0", "camera a"),
            ("[[camera.zone]]", "labels=['person']", "camera a"),
            ("[[camera.line]]", "labels=['person']", "camera a"),
            ("[[model]]", "labels='l'", "model m"),
            ("[[model]]", "tasks=['classify']", "model m"),
            ("[[model]]", "self_test='off'", "model m"),
            ("[model.classify]", "top_k=2", "model m"),
            ("[model.classify]", "threshold=0.3", "model m"),
            ("[model.detect]", "iou=0.3", "model m"),
            ("[model.embed]", "dtype='f32'", "model m"),
            ("[engine]", "threads=2", "engine.threads"),
            ("[engine]", "workers=2", "engine.workers"),
            ("[smoothing]", "window_ms=1", "smoothing.window_ms"),
            ("[smoothing]", "enter=0.9", "smoothing.enter"),
            ("[smoothing]", "leave=0.1", "smoothing.leave"),
            (
                "[smoothing]",
                "min_duration_ms=1",
                "smoothing.min_duration_ms",
            ),
            ("[tracking]", "lost_ms=999", "tracking"),
            ("[mqtt]", "max_rate=1.0", "mqtt.max_rate"),
            ("[mqtt]", "commands=false", "mqtt.commands"),
            ("[mqtt]", "persist_settings=true", "mqtt.persist_settings"),
            ("[mqtt]", "url='mqtt://other.lan'", "mqtt"),
            ("[mqtt]", "qos=1", "mqtt"),
            ("[mqtt]", "queue=9", "mqtt"),
            ("[discovery]", "format='component'", "discovery"),
            ("[discovery]", "enabled=false", "discovery"),
            ("[privacy]", "images=false", "privacy.images"),
            ("[snapshot]", "quality=50", "snapshot"),
            ("[spool]", "drain_rate=1.0", "spool"),
            ("[spool]", "path='elsewhere'", "spool"),
            ("[output]", "jsonl=true", "output.jsonl"),
        ] {
            let changes = compare(&started, &started, &plan(&with(section, line)));
            let answered: Vec<&str> = changes
                .applied
                .iter()
                .copied()
                .chain(changes.needs_restart.iter().map(String::as_str))
                .collect();
            assert_eq!(answered, [answer], "{section} {line}");
        }
        let moved = with("", "").replace("/kept", "/moved");
        let changes = compare(&started, &started, &plan(&moved));
        assert_eq!(changes.needs_restart, ["device.state_dir", "spool"]);
        let alone = format!("{}[broker]\n", with("", ""));
        let changes = compare(&started, &started, &plan(&alone));
        assert_eq!(changes.needs_restart, ["broker"]);
    }
}
