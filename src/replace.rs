//! Small files that are replaced whole: the old one or the new one is there, never half of one, also when the power goes.
//!
//! In: a directory, a name, bytes. Out: the file. On the caller's thread, which waits for the disk.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

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
