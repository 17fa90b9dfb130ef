//! Secrets: where they come from, and that nothing shows them.
//!
//! In: the name of an environment variable, a path, the name of a systemd credential. Out: a [`Secret`], or why there is none.
//! Always holds: no `Debug`, log line or error has a secret in it.

use std::fmt;
use std::path::Path;

/// A text that no `Debug` shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The environment variable goes first, then `file`, then the credential that systemd was told to hand over
    /// (`LoadCredential=`, in `$CREDENTIALS_DIRECTORY`). Line ends at the end are not part of it. The error names the place.
    pub fn find(env: &str, file: Option<&Path>, credential: &str) -> Result<Option<Self>, String> {
        if let Some(value) = std::env::var_os(env) {
            let text = value
                .into_string()
                .map_err(|_| format!("${env} is not UTF-8"))?;
            return Self::whole(text, &format!("${env}")).map(Some);
        }
        let passed = std::env::var_os("CREDENTIALS_DIRECTORY")
            .map(|dir| Path::new(&dir).join(credential))
            .filter(|path| path.exists());
        let Some(path) = file.map(Path::to_path_buf).or(passed) else {
            return Ok(None);
        };
        let text = std::fs::read_to_string(&path)
            .map_err(|e| format!("cannot read {}: {e}", path.display()))?;
        Self::whole(text, &path.display().to_string()).map(Some)
    }

    fn whole(text: String, place: &str) -> Result<Self, String> {
        match text.trim_end_matches(['\r', '\n']) {
            "" => Err(format!("{place} is empty")),
            text => Ok(Self(text.into())),
        }
    }

    /// The text itself, for whom it is meant.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// A user and what proves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// The user's name.
    pub user: String,
    /// The password; empty where there is none.
    pub password: Secret,
}

/// Whether every user of this machine can read a file.
pub fn is_open_to_all(path: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        std::fs::metadata(path).is_ok_and(|m| m.permissions().mode() & 0o004 != 0)
    }
    #[cfg(not(unix))]
    {
        let _ = path;
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_and_nothing_shows_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("password");
        let find = || Secret::find("OCELLUS_TEST_NO_SUCH_VARIABLE", Some(&file), "none");
        assert!(find().unwrap_err().contains("cannot read"));
        std::fs::write(&file, "\n").unwrap();
        assert!(find().unwrap_err().contains("is empty"));
        std::fs::write(&file, " hunter2 \r\n").unwrap();
        let secret = find().unwrap().unwrap();
        assert_eq!(secret.reveal(), " hunter2 ");
        assert!(!format!("{secret:?}").contains("hunter2"));
        let none = Secret::find("OCELLUS_TEST_NO_SUCH_VARIABLE", None, "none");
        assert_eq!(none, Ok(None));
    }
}
