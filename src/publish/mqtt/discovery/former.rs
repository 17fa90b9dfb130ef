//! What Home Assistant was told of in earlier lives of the program: `announced.json` in the state directory.
//!
//! In: a directory, the components that are there now. Out: those that were there and are not. Read and written once, by the thread
//! that starts the program. Always holds: the file is the old one or the new one, never half of one; a file that cannot be read is set
//! aside and said.

use std::collections::BTreeMap;
use std::path::Path;

use super::MAX_OLD_COMPONENTS;
use crate::replace::{read_or_set_aside, replace};

const FILE: &str = "announced.json";
const MAX_BYTES: u64 = 1 << 20;

/// Platforms by component key.
pub(super) type Platforms = BTreeMap<String, String>;

/// What was announced before and is not among `present`, which is remembered for the next life. Where the file cannot be read
/// or written, no more is known than what the broker kept.
pub(super) fn former(state_dir: &Path, present: &Platforms) -> Platforms {
    let before: Platforms = read_or_set_aside(state_dir, FILE, MAX_BYTES);
    let gone = before.iter().filter(|(key, _)| !present.contains_key(*key));
    let gone: Platforms = gone
        .take(MAX_OLD_COMPONENTS)
        .map(|(key, platform)| (key.clone(), platform.clone()))
        .collect();
    let mut all = gone.clone();
    all.extend(present.clone());
    if all != before {
        let text = serde_json::to_vec_pretty(&all).expect("a map of texts");
        if let Err(e) = replace(state_dir, FILE, &text) {
            tracing::warn!(
                "{} cannot be written ({e}): what leaves the configuration may stay in Home Assistant",
                state_dir.join(FILE).display()
            );
        }
    }
    gone
}
