//! What cameras this machine has, for people and for the choice of a mode.
//!
//! In: what the V4L2 driver enumerates. Out: [`Device`]s. On any thread. Always holds: a device that cannot be looked
//! into is listed with the reason, never left out.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Serialize, Serializer};

use crate::frame::PixelFormat;

/// A camera that this machine has.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Device {
    /// The device node, as in `/dev/video0`. Its number can change at the next boot or plug.
    pub path: PathBuf,
    /// The camera's name.
    pub name: String,
    /// The kernel's driver; empty if unknown.
    pub driver: String,
    /// Where it is plugged in, as the driver says it; empty if unknown.
    pub bus: String,
    /// Links to it that stay: `/dev/v4l/by-id/…` (the camera), `/dev/v4l/by-path/…` (the socket).
    pub stable_ids: Vec<PathBuf>,
    /// What it delivers.
    pub formats: Vec<DeviceFormat>,
    /// Why it cannot be used, if so.
    pub problem: Option<String>,
}

/// A pixel format of a [`Device`].
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DeviceFormat {
    /// V4L2's four-character code; that of a big-endian format ends in `-BE`.
    pub fourcc: String,
    /// The format, if it is one that the program reads.
    pub format: Option<PixelFormat>,
    /// The driver's name for it.
    pub description: String,
    /// Its sizes; of a driver that offers any size, the common ones that fit.
    pub sizes: Vec<DeviceSize>,
}

/// A frame size of a [`DeviceFormat`].
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DeviceSize {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Frames a second, as the driver lists them; empty if it does not say.
    pub rates: Vec<FrameRate>,
}

/// A frame rate, exactly: V4L2 says seconds a frame as a fraction. Serialized as frames a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameRate {
    /// Frames.
    pub frames: u32,
    /// In so many seconds.
    pub seconds: u32,
}

impl FrameRate {
    /// Frames a second; 0 for a driver's nonsense.
    pub fn fps(self) -> f64 {
        match self.seconds {
            0 => 0.0,
            s => f64::from(self.frames) / f64::from(s),
        }
    }

    /// The nearest fraction with a thousandth of a frame a second.
    pub fn from_fps(fps: f64) -> Self {
        if fps.fract() == 0.0 {
            return Self {
                frames: fps as u32,
                seconds: 1,
            };
        }
        Self {
            frames: (fps * 1000.0).round() as u32,
            seconds: 1000,
        }
    }
}

impl Serialize for FrameRate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64((self.fps() * 1000.0).round() / 1000.0)
    }
}

impl fmt::Display for Device {
    /// Several lines: the camera, how to name it in a configuration, what it delivers.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.name)?;
        let from: Vec<&str> = [&*self.driver, &*self.bus]
            .into_iter()
            .filter(|s| !s.is_empty())
            .collect();
        if !from.is_empty() {
            write!(f, " ({})", from.join(", "))?;
        }
        let names = self.stable_ids.iter().chain([&self.path]);
        for name in names {
            write!(f, "\n  v4l2:{}", name.display())?;
        }
        if let Some(problem) = &self.problem {
            write!(f, "\n  cannot be used: {problem}")?;
        }
        for format in &self.formats {
            let unread = if format.format.is_some() {
                ""
            } else {
                ", not read by this program"
            };
            write!(f, "\n  {} ({}{unread})", format.fourcc, format.description)?;
            for size in &format.sizes {
                write!(f, "\n    {}x{}", size.width, size.height)?;
                if !size.rates.is_empty() {
                    let rates: Vec<String> = size
                        .rates
                        .iter()
                        .map(|r| format!("{:.4}", r.fps()))
                        .collect();
                    let rates: Vec<&str> = rates
                        .iter()
                        .map(|r| r.trim_end_matches('0').trim_end_matches('.'))
                        .collect();
                    write!(f, " at {} fps", rates.join(", "))?;
                }
            }
        }
        Ok(())
    }
}

/// The cameras of this machine, in the order of their numbers. Empty on other systems than Linux and without the
/// feature `v4l2`.
pub fn devices() -> Vec<Device> {
    #[cfg(all(target_os = "linux", feature = "v4l2"))]
    return super::v4l::devices();
    #[cfg(not(all(target_os = "linux", feature = "v4l2")))]
    Vec::new()
}

/// The message for a camera that is not there: names those that are.
pub fn no_such_camera(wanted: Option<&Path>, there: &[Device]) -> String {
    let wanted = match wanted {
        Some(path) => format!("no camera at {}", path.display()),
        None => "no V4L2 camera".into(),
    };
    let usable: Vec<_> = there.iter().filter(|d| d.problem.is_none()).collect();
    if usable.is_empty() {
        return format!(
            "{wanted}: this machine has no V4L2 camera now; it is taken up when it is plugged in \
             (CSI and network cameras: `exec:`; without a camera: `files:`, `scene:`)"
        );
    }
    let list: Vec<_> = usable
        .iter()
        .map(|d| {
            let source = d.stable_ids.first().unwrap_or(&d.path);
            format!("v4l2:{} ({})", source.display(), d.name)
        })
        .collect();
    format!("{wanted}; there is {}", list.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(path: &str, stable: &[&str], problem: Option<&str>) -> Device {
        Device {
            path: path.into(),
            name: "HD Webcam".into(),
            driver: "uvcvideo".into(),
            bus: "usb-1".into(),
            stable_ids: stable.iter().map(PathBuf::from).collect(),
            formats: vec![DeviceFormat {
                fourcc: "YUYV".into(),
                format: Some(PixelFormat::Yuyv),
                description: "YUYV 4:2:2".into(),
                sizes: vec![DeviceSize {
                    width: 640,
                    height: 480,
                    rates: vec![FrameRate {
                        frames: 30_000,
                        seconds: 1001,
                    }],
                }],
            }],
            problem: problem.map(String::from),
        }
    }

    #[test]
    fn a_missing_camera_is_answered_with_those_there_are() {
        let wanted = Some(Path::new("/dev/video9"));
        let message = no_such_camera(
            wanted,
            &[
                device("/dev/video0", &["/dev/v4l/by-id/usb-cam"], None),
                device("/dev/video2", &[], None),
                device("/dev/video4", &[], Some("permission denied")),
            ],
        );
        assert!(message.contains("/dev/video9"), "{message}");
        assert!(message.contains("v4l2:/dev/v4l/by-id/usb-cam (HD Webcam), v4l2:/dev/video2"));
        assert!(!message.contains("video4"));
        assert!(no_such_camera(None, &[]).contains("scene:"));
    }

    #[test]
    fn devices_are_serialized_for_programs() {
        let json = serde_json::to_value(device("/dev/video0", &[], None)).unwrap();
        assert_eq!(json["formats"][0]["format"], "yuyv");
        assert_eq!(json["formats"][0]["sizes"][0]["rates"][0], 29.97);
    }

    #[test]
    fn rates_become_fractions() {
        for (fps, frames, seconds) in [(15.0, 15, 1), (7.5, 7500, 1000), (29.97, 29_970, 1000)] {
            assert_eq!(FrameRate::from_fps(fps), FrameRate { frames, seconds });
        }
        assert_eq!(
            FrameRate {
                frames: 5,
                seconds: 0
            }
            .fps(),
            0.0
        );
    }
}
