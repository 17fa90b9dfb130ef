//! `v4l2:/dev/video0`, `exec:rpicam-vid …`, `files:/path`, `scene:7`, `nokhwa:0`: which camera is meant.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Which camera, as written in the configuration's `source` or after `--camera`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceSpec {
    /// `v4l2:` (the first capture device) or `v4l2:/dev/video0`, `v4l2:/dev/v4l/by-id/…`.
    V4l2 {
        /// The device node or a stable link to it.
        device: Option<PathBuf>,
    },
    /// `nokhwa:0`: by index, through the platform's own API.
    Nokhwa {
        /// The platform's camera index.
        index: u32,
    },
    /// `exec:COMMAND`: a program writing MJPEG or raw frames to its standard output; run by `sh -c`.
    Exec {
        /// The command line.
        command: String,
    },
    /// `files:PATH`: an image, a directory, a glob, or a recorded MJPEG stream.
    Files {
        /// The path or pattern.
        pattern: String,
    },
    /// `scene:` or `scene:SEED`: a synthetic camera, drawn by the program.
    Scene {
        /// The seed; the same seed draws the same frames.
        seed: u64,
    },
}

/// A source that cannot be understood.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum SpecError {
    /// No known prefix.
    #[error(
        "`{0}` is no camera source; write v4l2:[DEVICE], exec:COMMAND, files:PATH, scene:[SEED] or nokhwa:INDEX"
    )]
    UnknownKind(String),
    /// A part is missing or wrong.
    #[error("`{spec}`: {problem}")]
    Invalid {
        /// What was written.
        spec: String,
        /// What is wrong with it.
        problem: &'static str,
    },
}

impl FromStr for SourceSpec {
    type Err = SpecError;

    fn from_str(s: &str) -> Result<Self, SpecError> {
        let invalid = |problem| SpecError::Invalid {
            spec: s.into(),
            problem,
        };
        if s.starts_with("/dev/") {
            return Ok(Self::V4l2 {
                device: Some(s.into()),
            });
        }
        let (kind, rest) = s.split_once(':').unwrap_or((s, ""));
        let rest = rest.trim();
        match kind {
            "v4l2" => Ok(Self::V4l2 {
                device: (!rest.is_empty()).then(|| rest.into()),
            }),
            "nokhwa" => match rest {
                "" => Ok(Self::Nokhwa { index: 0 }),
                n => n
                    .parse()
                    .map(|index| Self::Nokhwa { index })
                    .map_err(|_| invalid("the camera index must be a number, as in nokhwa:0")),
            },
            "exec" if rest.is_empty() => Err(invalid(
                "the command is missing, as in exec:rpicam-vid -n -t 0 --codec mjpeg -o -",
            )),
            "exec" => Ok(Self::Exec {
                command: rest.into(),
            }),
            "files" if rest.is_empty() => {
                Err(invalid("the path is missing, as in files:/var/images"))
            }
            "files" => Ok(Self::Files {
                pattern: rest.into(),
            }),
            "scene" => match rest {
                "" => Ok(Self::Scene { seed: 1 }),
                n => n
                    .parse()
                    .map(|seed| Self::Scene { seed })
                    .map_err(|_| invalid("the seed must be a whole number, as in scene:7")),
            },
            _ => Err(SpecError::UnknownKind(s.into())),
        }
    }
}

impl fmt::Display for SourceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V4l2 { device: Some(d) } => write!(f, "v4l2:{}", d.display()),
            Self::V4l2 { device: None } => f.write_str("v4l2:"),
            Self::Nokhwa { index } => write!(f, "nokhwa:{index}"),
            Self::Exec { command } => write!(f, "exec:{command}"),
            Self::Files { pattern } => write!(f, "files:{pattern}"),
            Self::Scene { seed } => write!(f, "scene:{seed}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specs_are_read_and_written_back() {
        for s in [
            "v4l2:",
            "v4l2:/dev/video2",
            "nokhwa:1",
            "exec:cat a.mjpeg",
            "files:/tmp/*.jpg",
            "scene:7",
        ] {
            assert_eq!(s.parse::<SourceSpec>().unwrap().to_string(), s);
        }
        assert_eq!(
            "/dev/video0".parse::<SourceSpec>().unwrap().to_string(),
            "v4l2:/dev/video0"
        );
        assert_eq!("scene".parse(), Ok(SourceSpec::Scene { seed: 1 }));
    }

    #[test]
    fn wrong_specs_say_what_to_write() {
        for (s, says) in [
            ("rtsp://cam", "exec:COMMAND"),
            ("exec:", "rpicam-vid"),
            ("files:", "path is missing"),
            ("scene:red", "whole number"),
            ("nokhwa:front", "number"),
        ] {
            let e = s.parse::<SourceSpec>().unwrap_err().to_string();
            assert!(e.contains(says), "{s}: {e}");
        }
    }
}
