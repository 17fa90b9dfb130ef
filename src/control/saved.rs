//! Settings that hold over a restart: `settings.json` in the state directory.
//!
//! Always holds: the file is the old one or the new one, never half of one; a file that cannot be read is set aside and said.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::setting;
use crate::controls::Controls;
use crate::replace::{read_or_set_aside, replace};

const FILE: &str = "settings.json";
const MAX_BYTES: u64 = 256 << 10;

/// What was asked to be kept, by camera.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SavedSettings {
    pub(super) cameras: BTreeMap<String, Map<String, Value>>,
}

impl SavedSettings {
    /// Reads them from the state directory; nothing saved, or nothing legible: none.
    pub fn load(state_dir: &Path) -> Self {
        read_or_set_aside(state_dir, FILE, MAX_BYTES)
    }

    /// Puts them over what the configuration says. What does not fit any more is said and left out.
    pub fn apply(&self, controls: &Controls) {
        for (id, values) in &self.cameras {
            let Some(camera) = controls.index(id) else {
                continue;
            };
            match setting::change(&controls.settings(camera), values) {
                Ok(settings) => {
                    controls.set(camera, settings);
                    let values = Value::Object(values.clone());
                    tracing::info!(camera = %id, "settings kept from before: {values}");
                }
                Err(e) => tracing::warn!(camera = %id, "settings kept from before do not fit: {e}"),
            }
        }
    }

    /// Keeps them, whole or not at all. Waits for the disk.
    ///
    /// # Errors
    /// The directory cannot be made or written.
    pub fn save(&self, state_dir: &Path) -> io::Result<()> {
        replace(state_dir, FILE, &serde_json::to_vec_pretty(self)?)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::controls::CameraSettings;

    #[test]
    fn saved_settings_come_back_and_damaged_ones_are_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("new/dir");
        assert_eq!(SavedSettings::load(&state), SavedSettings::default());
        let mut saved = SavedSettings::default();
        let values: Map<String, Value> =
            serde_json::from_str(r#"{"enter":0.75,"inference":false}"#).unwrap();
        saved.cameras.insert("porch".into(), values);
        saved.cameras.insert("gone".into(), Map::new());
        saved.save(&state).unwrap();
        saved.save(&state).unwrap();
        let again = SavedSettings::load(&state);
        assert_eq!(again, saved);
        let controls = Controls::new([("porch".into(), CameraSettings::default())]);
        again.apply(&controls);
        assert!(!controls.settings(0).inference);
        assert_eq!(controls.settings(0).smoothing.enter, 0.75);

        fs::write(state.join(FILE), &b"{\"cameras\":\xff"[..]).unwrap();
        assert_eq!(SavedSettings::load(&state), SavedSettings::default());
        assert!(state.join("settings.json.bad").exists() && !state.join(FILE).exists());
    }
}
