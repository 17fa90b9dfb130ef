//! What Home Assistant was told of in earlier lives of the program: `announced.json` in the state directory.
//!
//! In: a directory, the components that are there now. Out: those that were there and are not. Read and written once, by the thread
//! that starts the program. Always holds: the file is the old one or the new one, never half of one.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::MAX_OLD_COMPONENTS;
use crate::replace::replace;

const FILE: &str = "announced.json";
const MAX_BYTES: u64 = 1 << 20;

/// Platforms by component key.
pub(super) type Platforms = BTreeMap<String, String>;

/// What was announced before and is not among `present`, which is remembered for the next life. A file that cannot be read or written
/// is said, and no more is known than what the broker kept.
pub(super) fn former(state_dir: &Path, present: &Platforms) -> Platforms {
    let path = state_dir.join(FILE);
    let before = read(&path).unwrap_or_else(|e| {
        tracing::warn!(
            "{} cannot be read ({e}): it is written anew",
            path.display()
        );
        Platforms::new()
    });
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
                path.display()
            );
        }
    }
    gone
}

fn read(path: &Path) -> io::Result<Platforms> {
    let file = match File::open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Platforms::new()),
        file => file?,
    };
    let mut text = String::new();
    file.take(MAX_BYTES).read_to_string(&mut text)?;
    Ok(serde_json::from_str(&text)?)
}
