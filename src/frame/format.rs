//! Pixel formats that cameras deliver.

use serde::{Deserialize, Serialize};

/// How the bytes of a frame are to be read. Names are V4L2's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PixelFormat {
    /// One JPEG image a frame; Huffman tables may be missing (UVC).
    Mjpeg,
    /// 4:2:2 packed: Y0 U Y1 V.
    Yuyv,
    /// 4:2:2 packed: U Y0 V Y1.
    Uyvy,
    /// 4:2:0, a plane of Y, then one of interleaved U V.
    Nv12,
    /// 4:2:0, planes Y, U, V (I420).
    Yu12,
    /// 8 bits each of R, G, B.
    Rgb24,
    /// 8 bits each of B, G, R.
    Bgr24,
    /// 8 bits of luma.
    Grey,
}

/// A pixel format's name that is none of [`PixelFormat::ALL`].
#[derive(Debug, thiserror::Error)]
#[error("unknown pixel format `{0}`; known are mjpeg, yuyv, uyvy, nv12, yu12, rgb24, bgr24, grey")]
pub struct UnknownPixelFormat(pub String);

impl PixelFormat {
    /// All of them.
    pub const ALL: [PixelFormat; 8] = [
        Self::Mjpeg,
        Self::Yuyv,
        Self::Uyvy,
        Self::Nv12,
        Self::Yu12,
        Self::Rgb24,
        Self::Bgr24,
        Self::Grey,
    ];

    /// V4L2's four-character code.
    pub fn fourcc(self) -> [u8; 4] {
        *match self {
            Self::Mjpeg => b"MJPG",
            Self::Yuyv => b"YUYV",
            Self::Uyvy => b"UYVY",
            Self::Nv12 => b"NV12",
            Self::Yu12 => b"YU12",
            Self::Rgb24 => b"RGB3",
            Self::Bgr24 => b"BGR3",
            Self::Grey => b"GREY",
        }
    }

    /// The format of a V4L2 four-character code, if it is one of ours.
    pub fn from_fourcc(fourcc: [u8; 4]) -> Option<Self> {
        match &fourcc {
            // Some drivers call their motion JPEG "JPEG".
            b"JPEG" => Some(Self::Mjpeg),
            _ => Self::ALL.into_iter().find(|f| f.fourcc() == fourcc),
        }
    }

    /// The name in configuration, logs and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mjpeg => "mjpeg",
            Self::Yuyv => "yuyv",
            Self::Uyvy => "uyvy",
            Self::Nv12 => "nv12",
            Self::Yu12 => "yu12",
            Self::Rgb24 => "rgb24",
            Self::Bgr24 => "bgr24",
            Self::Grey => "grey",
        }
    }

    /// Bytes of a row of the first plane without padding; 0 for compressed formats.
    pub fn packed_stride(self, width: u32) -> u32 {
        match self {
            Self::Mjpeg => 0,
            Self::Yuyv | Self::Uyvy => width.div_ceil(2).saturating_mul(4),
            Self::Nv12 | Self::Yu12 | Self::Grey => width,
            Self::Rgb24 | Self::Bgr24 => width.saturating_mul(3),
        }
    }

    /// Bytes of a whole frame with this stride: what the device must deliver at least.
    /// `None` for compressed formats.
    pub fn frame_bytes(self, height: u32, stride_bytes: u32) -> Option<usize> {
        let (h, s) = (height as usize, stride_bytes as usize);
        let half = h.div_ceil(2);
        match self {
            Self::Mjpeg => None,
            Self::Yuyv | Self::Uyvy | Self::Rgb24 | Self::Bgr24 | Self::Grey => Some(h * s),
            Self::Nv12 => Some(h * s + half * s.next_multiple_of(2)),
            Self::Yu12 => Some(h * s + 2 * half * s.div_ceil(2)),
        }
    }
}

impl std::fmt::Display for PixelFormat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

impl std::str::FromStr for PixelFormat {
    type Err = UnknownPixelFormat;
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|f| f.name().eq_ignore_ascii_case(s))
            .ok_or_else(|| UnknownPixelFormat(s.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_fourccs_round_trip() {
        for f in PixelFormat::ALL {
            assert_eq!(f.name().parse::<PixelFormat>().unwrap(), f);
            assert_eq!(PixelFormat::from_fourcc(f.fourcc()), Some(f));
        }
        assert_eq!(PixelFormat::from_fourcc(*b"H264"), None);
        assert!(
            "h264"
                .parse::<PixelFormat>()
                .unwrap_err()
                .to_string()
                .contains("yuyv")
        );
    }

    #[test]
    fn sizes_of_frames() {
        let bytes = |f: PixelFormat, w, h| f.frame_bytes(h, f.packed_stride(w));
        assert_eq!(bytes(PixelFormat::Yuyv, 640, 480), Some(614_400));
        assert_eq!(bytes(PixelFormat::Nv12, 640, 480), Some(460_800));
        assert_eq!(bytes(PixelFormat::Yu12, 5, 3), Some(5 * 3 + 2 * 2 * 3));
        assert_eq!(bytes(PixelFormat::Nv12, 5, 3), Some(5 * 3 + 2 * 6));
        assert_eq!(bytes(PixelFormat::Mjpeg, 640, 480), None);
    }
}
