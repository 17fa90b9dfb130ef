//! Which of a camera's modes to take.
//!
//! In: what the device offers and what was wished. Out: one [`Mode`]. Pure.
//!
//! What was wished counts first: format, then size (nearest), then rate. For what was not wished:
//! 1. colour before grey;
//! 2. at least 15 frames a second;
//! 3. the smallest size that has as many pixels as 640×480, which is more than any model's input needs; the largest
//!    one if all are smaller;
//! 4. up to 640×480 an uncompressed format, since it costs no decoding and fits USB 2; above it MJPEG, since there
//!    uncompressed frames choke USB 2;
//! 5. the rate nearest to 30.

use super::device::{DeviceFormat, FrameRate};
use crate::frame::PixelFormat;

/// Pixels that are enough for any model, and the most at which uncompressed frames are preferred.
const ENOUGH_PIXELS: u64 = 640 * 480;
/// Frames a second below which a larger or compressed mode is preferred.
const SLOW_FPS: f64 = 15.0;
/// Frames a second that are wanted where nobody said.
const USUAL_FPS: f64 = 30.0;

/// What the configuration asks for.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Wish {
    /// Pixel format.
    pub format: Option<PixelFormat>,
    /// Width and height in pixels.
    pub size: Option<(u32, u32)>,
    /// Frames a second.
    pub fps: Option<f64>,
}

/// One way in which a camera can deliver.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mode {
    /// How the bytes are to be read.
    pub format: PixelFormat,
    /// The code by which the driver knows the format.
    pub fourcc: [u8; 4],
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// The rate, if the driver says which it has.
    pub rate: Option<FrameRate>,
}

impl std::fmt::Display for Mode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}x{}", self.format, self.width, self.height)?;
        match self.rate {
            Some(rate) => write!(f, " at {} fps", round(rate.fps())),
            None => Ok(()),
        }
    }
}

/// The best mode for a wish; `None` if the device offers no format that the program reads.
pub fn choose(offers: &[DeviceFormat], wish: Wish) -> Option<Mode> {
    let modes = offers.iter().flat_map(|offer| {
        let fourcc = offer.fourcc.as_bytes().try_into().ok();
        let known = offer.format.zip(fourcc);
        known.into_iter().flat_map(|(format, fourcc)| {
            offer.sizes.iter().flat_map(move |size| {
                let rates: Vec<_> = match size.rates.as_slice() {
                    [] => vec![None],
                    rates => rates.iter().copied().map(Some).collect(),
                };
                rates.into_iter().map(move |rate| Mode {
                    format,
                    fourcc,
                    width: size.width,
                    height: size.height,
                    rate,
                })
            })
        })
    });
    modes.min_by_key(|mode| cost(mode, wish))
}

/// Lower is better, the first number counting most.
fn cost(mode: &Mode, wish: Wish) -> impl Ord + use<> {
    let pixels = u64::from(mode.width) * u64::from(mode.height);
    let milli = |fps: f64| (fps * 1000.0).clamp(0.0, 1e9).round() as u64;
    // A driver that lists no rates usually has the usual one.
    let fps = milli(mode.rate.map_or(USUAL_FPS, FrameRate::fps));
    let wanted_fps = milli(wish.fps.unwrap_or(USUAL_FPS));
    // 29.97 is 30.
    let slow = fps < milli(wish.fps.unwrap_or(SLOW_FPS) * 0.99);
    let size_cost = match wish.size {
        Some((w, h)) => u64::from(mode.width.abs_diff(w)) + u64::from(mode.height.abs_diff(h)),
        None => 0,
    };
    let default_size_cost = match pixels {
        p if p >= ENOUGH_PIXELS => p - ENOUGH_PIXELS,
        p => u64::MAX - p,
    };
    (
        wish.format.is_some_and(|f| f != mode.format),
        mode.format == PixelFormat::Grey,
        size_cost,
        slow,
        if slow && wish.fps.is_some() {
            wanted_fps - fps
        } else {
            0
        },
        default_size_cost,
        format_cost(mode.format, pixels),
        fps.abs_diff(wanted_fps),
    )
}

fn format_cost(format: PixelFormat, pixels: u64) -> u8 {
    match format {
        PixelFormat::Mjpeg if pixels > ENOUGH_PIXELS => 0,
        PixelFormat::Nv12 => 1,
        PixelFormat::Yu12 => 2,
        PixelFormat::Yuyv => 3,
        PixelFormat::Uyvy => 4,
        PixelFormat::Rgb24 => 5,
        PixelFormat::Bgr24 => 6,
        PixelFormat::Mjpeg => 7,
        PixelFormat::Grey => 8,
    }
}

/// What of a wish was not fulfilled, for the log; `None` if all was.
pub fn unfulfilled(wish: Wish, got: &Mode) -> Option<String> {
    let mut asked = Vec::new();
    if let Some(format) = wish.format.filter(|f| *f != got.format) {
        asked.push(format.to_string());
    }
    if let Some((w, h)) = wish.size.filter(|s| *s != (got.width, got.height)) {
        asked.push(format!("{w}x{h}"));
    }
    if let (Some(fps), Some(rate)) = (wish.fps, got.rate)
        && (rate.fps() - fps).abs() > fps * 0.01
    {
        asked.push(format!("{} fps", round(fps)));
    }
    (!asked.is_empty()).then(|| {
        format!(
            "the camera has no {}; the nearest is {got}",
            asked.join(" ")
        )
    })
}

/// 30 and 29.97, not 30.0 and 29.97002997.
fn round(fps: f64) -> f64 {
    (fps * 100.0).round() / 100.0
}

/// The sizes to consider of a driver that offers every size between two, in steps; steps of 0 count as 1.
///
/// `range` is minimum, maximum and step of the width, then of the height.
pub fn sizes_in_range(range: [(u32, u32, u32); 2], wanted: Option<(u32, u32)>) -> Vec<(u32, u32)> {
    const COMMON: [(u32, u32); 9] = [
        (320, 240),
        (640, 360),
        (640, 480),
        (800, 600),
        (1024, 768),
        (1280, 720),
        (1280, 960),
        (1920, 1080),
        (3840, 2160),
    ];
    let fit = |wanted: u32, (min, max, step): (u32, u32, u32)| {
        let max = max.max(min);
        let step = step.max(1);
        let clamped = wanted.clamp(min, max);
        min + (clamped - min) / step * step
    };
    let [width, height] = range;
    let mut sizes: Vec<_> = COMMON
        .into_iter()
        .filter(|&(w, h)| fit(w, width) == w && fit(h, height) == h)
        .chain(wanted.map(|(w, h)| (fit(w, width), fit(h, height))))
        .collect();
    if sizes.is_empty() {
        sizes.push((fit(640, width), fit(480, height)));
    }
    sizes.sort_unstable();
    sizes.dedup();
    sizes
}

#[cfg(test)]
mod tests {
    use super::super::device::DeviceSize;
    use super::*;

    fn offer(fourcc: &str, sizes: &[(u32, u32, &[u32])]) -> DeviceFormat {
        DeviceFormat {
            fourcc: fourcc.into(),
            format: PixelFormat::from_fourcc(fourcc.as_bytes().try_into().unwrap()),
            description: String::new(),
            sizes: sizes
                .iter()
                .map(|&(width, height, fps)| DeviceSize {
                    width,
                    height,
                    rates: fps
                        .iter()
                        .map(|&frames| FrameRate { frames, seconds: 1 })
                        .collect(),
                })
                .collect(),
        }
    }

    /// A usual USB camera: little bandwidth for large uncompressed frames.
    fn usb() -> Vec<DeviceFormat> {
        vec![
            offer(
                "YUYV",
                &[
                    (640, 480, &[30, 15]),
                    (320, 240, &[30]),
                    (1280, 720, &[10]),
                    (1920, 1080, &[5]),
                ],
            ),
            offer(
                "MJPG",
                &[
                    (640, 480, &[30]),
                    (1280, 720, &[30, 60]),
                    (1920, 1080, &[30]),
                ],
            ),
            offer("H264", &[(1920, 1080, &[30])]),
        ]
    }

    #[test]
    fn modes_are_chosen() {
        let none = Wish::default();
        let size = |w, h| Wish {
            size: Some((w, h)),
            ..none
        };
        let fps = |fps| Wish {
            fps: Some(fps),
            ..none
        };
        let format = |f| Wish {
            format: Some(f),
            ..none
        };
        let hd_only = vec![
            offer("YUYV", &[(1280, 720, &[10])]),
            offer("MJPG", &[(1280, 720, &[30])]),
        ];
        let vivid = vec![
            offer("GREY", &[(640, 360, &[]), (1280, 720, &[])]),
            offer("BGR3", &[(640, 360, &[]), (1280, 720, &[])]),
            offer("UYVY", &[(320, 180, &[]), (640, 360, &[])]),
        ];
        let cases = [
            (
                "uncompressed while small",
                usb(),
                none,
                "yuyv 640x480 at 30 fps",
            ),
            (
                "MJPEG when large",
                usb(),
                size(1280, 720),
                "mjpeg 1280x720 at 30 fps",
            ),
            ("not slow", hd_only, none, "mjpeg 1280x720 at 30 fps"),
            (
                "a wished format, at its best",
                usb(),
                format(PixelFormat::Mjpeg),
                "mjpeg 640x480 at 30 fps",
            ),
            (
                "a wished format, though slow",
                usb(),
                Wish {
                    format: Some(PixelFormat::Yuyv),
                    ..size(1920, 1080)
                },
                "yuyv 1920x1080 at 5 fps",
            ),
            (
                "a format that is not there",
                usb(),
                format(PixelFormat::Nv12),
                "yuyv 640x480 at 30 fps",
            ),
            (
                "the nearest size",
                usb(),
                size(1300, 700),
                "mjpeg 1280x720 at 30 fps",
            ),
            ("a wished rate", usb(), fps(15.0), "yuyv 640x480 at 15 fps"),
            (
                "a rate that needs another format",
                usb(),
                fps(60.0),
                "mjpeg 1280x720 at 60 fps",
            ),
            (
                "a rate that nobody has",
                usb(),
                fps(120.0),
                "mjpeg 1280x720 at 60 fps",
            ),
            ("enough pixels and colour", vivid, none, "bgr24 1280x720"),
            (
                "all too small",
                vec![offer("YUYV", &[(160, 120, &[30]), (320, 240, &[30])])],
                none,
                "yuyv 320x240 at 30 fps",
            ),
            (
                "grey if nothing else",
                vec![offer("GREY", &[(640, 480, &[30])])],
                none,
                "grey 640x480 at 30 fps",
            ),
            (
                "JPEG by its other name",
                vec![offer("JPEG", &[(640, 480, &[30])])],
                none,
                "mjpeg 640x480 at 30 fps",
            ),
        ];
        for (name, offers, wish, expected) in cases {
            assert_eq!(
                choose(&offers, wish).unwrap().to_string(),
                expected,
                "{name}"
            );
        }
        assert_eq!(choose(&[offer("H264", &[(640, 480, &[30])])], none), None);
        assert_eq!(choose(&[], none), None);
    }

    #[test]
    fn what_was_not_had_is_said() {
        let wish = Wish {
            format: Some(PixelFormat::Nv12),
            size: Some((1000, 1000)),
            fps: Some(60.0),
        };
        let got = choose(&usb(), wish).unwrap();
        let said = unfulfilled(wish, &got).unwrap();
        assert!(
            said.starts_with(
                "the camera has no nv12 1000x1000; the nearest is mjpeg 1280x720 at 60 fps"
            ),
            "{said}"
        );
        let wish = Wish {
            fps: Some(30.0),
            ..Wish::default()
        };
        let ntsc = Mode {
            rate: Some(FrameRate {
                frames: 30_000,
                seconds: 1001,
            }),
            ..got
        };
        assert_eq!(unfulfilled(wish, &ntsc), None);
    }

    #[test]
    fn ranges_become_sizes() {
        let any = [(16, 1920, 2), (16, 1080, 2)];
        assert!(sizes_in_range(any, None).contains(&(640, 480)));
        assert!(sizes_in_range(any, Some((333, 9999))).contains(&(332, 1080)));
        // One size only, and steps of 0, as continuous drivers may say.
        assert_eq!(
            sizes_in_range([(100, 100, 0), (50, 50, 0)], None),
            [(100, 50)]
        );
        // Nonsense does no harm.
        assert_eq!(
            sizes_in_range([(9, 3, 7), (9, 3, 7)], Some((1, 1))),
            [(9, 9)]
        );
    }
}
