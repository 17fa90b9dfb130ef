//! Small files that are replaced whole: the old one or the new one is there, never half of one, also when the power goes.
//!
//! In: a directory, a name, bytes. Out: the file. On the caller's thread, which waits for the disk.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

use serde::de::DeserializeOwned;

/// Makes `bytes` the content of `directory/name`; makes the directory if it is not there.
///
/// # Errors
/// The directory cannot be made or written; the old file stays.
pub fn replace(directory: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let new = directory.join(format!("{name}.new"));
    let mut file = File::create(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, directory.join(name))?;
    // The rename itself is on the disk once the directory is.
    File::open(directory)?.sync_all()
}

/// What the JSON file `directory/name` says; what is not there, or longer than `max_bytes`, or not legible, is the default. An
/// illegible file is renamed to `name.bad`, and said.
pub fn read_or_set_aside<T: DeserializeOwned + Default>(
    directory: &Path,
    name: &str,
    max_bytes: u64,
) -> T {
    let path = directory.join(name);
    let read = || -> io::Result<T> {
        let mut text = String::new();
        File::open(&path)?
            .take(max_bytes)
            .read_to_string(&mut text)?;
        Ok(serde_json::from_str(&text)?)
    };
    match read() {
        Ok(value) => value,
        Err(e) if e.kind() == io::ErrorKind::NotFound => T::default(),
        Err(e) => {
            let aside = directory.join(format!("{name}.bad"));
            let moved = match fs::rename(&path, &aside) {
                Ok(()) => format!("set aside as {}", aside.display()),
                Err(e) => format!("and not set aside: {e}"),
            };
            tracing::warn!(
                "{} cannot be read ({e}), {moved}; beginning without it",
                path.display()
            );
            T::default()
        }
    }
}
