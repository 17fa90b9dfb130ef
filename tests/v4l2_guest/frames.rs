//! Frames of a real driver: every format, its sizes, and what is in the picture.

use ocellus::capture::{CaptureSettings, open};
use ocellus::frame::{Frame, PixelFormat};
use ocellus::preprocess::{InputData, InputSpec, InputTensor, Preprocessor};

use crate::camera::{context, good_frames, take};
use crate::vivid::Vivid;

/// vivid's bars, from left to right.
const BARS: [[u8; 3]; 8] = [
    [255, 255, 255],
    [255, 255, 0],
    [0, 255, 255],
    [0, 255, 0],
    [255, 0, 255],
    [255, 0, 0],
    [0, 0, 255],
    [0, 0, 0],
];

/// The frame as R G B, by the code that feeds models.
fn rgb(frame: &Frame) -> Vec<u8> {
    let spec = InputSpec::rgb(frame.geometry.width, frame.geometry.height);
    let mut tensor = InputTensor::for_spec(&spec);
    Preprocessor::new(spec).run(frame, &mut tensor).unwrap();
    match tensor.data {
        InputData::U8(pixels) => pixels,
        other => panic!("not bytes: {other:?}"),
    }
}

/// The bars stand upright in every row, so a wrong stride slants them and a wrong plane shows at the bottom.
pub fn assert_bars(frame: &Frame, tolerance: u8) {
    let pixels = rgb(frame);
    let (width, height) = (
        frame.geometry.width as usize,
        frame.geometry.height as usize,
    );
    let grey = frame.format == PixelFormat::Grey;
    for row in [0, height / 3, height / 2, height - 1] {
        for (bar, colour) in BARS.iter().enumerate() {
            // Where two bars meet, chroma is shared.
            for (numerator, denominator) in [(1, 4), (1, 2), (3, 4)] {
                let column = width * (bar * denominator + numerator) / (8 * denominator);
                let at = (row * width + column) * 3;
                let seen = &pixels[at..at + 3];
                let wanted = if grey { luma(*colour) } else { *colour };
                let near = seen
                    .iter()
                    .zip(wanted)
                    .all(|(seen, wanted)| seen.abs_diff(wanted) <= tolerance);
                assert!(
                    near,
                    "{} {width}x{height}: {seen:?} instead of {wanted:?} at {column},{row}",
                    frame.format
                );
            }
        }
    }
}

/// BT.709's luma in full range: this is how vivid writes GREY.
fn luma([r, g, b]: [u8; 3]) -> [u8; 3] {
    let y = 0.2126 * f32::from(r) + 0.7152 * f32::from(g) + 0.0722 * f32::from(b);
    [y.round() as u8; 3]
}

fn assert_every_format(vivid: &Vivid, sizes: &[(u32, u32)]) {
    // 100 % bars, without text over them.
    vivid.set("test_pattern", 1);
    vivid.set("osd_text_mode", 2);
    // vivid has no MJPEG: that is the USB camera's.
    for format in PixelFormat::ALL
        .into_iter()
        .filter(|f| *f != PixelFormat::Mjpeg)
    {
        for &size in sizes {
            let mut settings = CaptureSettings::new("v4l2:".parse().unwrap());
            settings.format = Some(format);
            settings.size = Some(size);
            let (frame, described) = take(&settings, 3);
            assert_eq!(frame.format, format, "{described}");
            let geometry = frame.geometry;
            assert_eq!((geometry.width, geometry.height), size, "{described}");
            let bytes = format.frame_bytes(size.1, geometry.stride_bytes);
            assert_eq!(Some(frame.data.len()), bytes, "{described}");
            assert!(described.starts_with(&format!("{format} {}x{}", size.0, size.1)));
            assert_bars(&frame, 6);
        }
    }
}

#[test]
#[ignore = "runs in the guest"]
fn every_format_shows_the_right_picture() {
    let webcam = Vivid::webcam();
    assert_every_format(&webcam, &[(320, 180), (640, 480), (1280, 720)]);
}

#[test]
#[ignore = "runs in the guest"]
fn every_format_of_a_frame_grabber_shows_the_right_picture() {
    let hdmi = Vivid::hdmi();
    // Else it keeps the smallest size that it ever had, in a corner of the larger frame.
    hdmi.set("enable_capture_composing", 0);
    // sRGB. HDMI's own would be BT.709, which is not told from BT.601.
    hdmi.set("colorspace", 2);
    // No multiples of 16; but of 4: of other widths vivid makes YU12's rows of chroma a byte shorter than V4L2 says.
    assert_every_format(&hdmi, &[(324, 242), (652, 366), (1000, 562)]);
}

#[test]
#[ignore = "runs in the guest"]
fn what_is_wished_is_negotiated_and_what_is_not_is_chosen() {
    let vivid = Vivid::webcam();
    let open_as = |format: Option<PixelFormat>, size, fps| {
        let mut settings =
            CaptureSettings::new(format!("v4l2:{}", vivid.node().display()).parse().unwrap());
        (settings.format, settings.size, settings.fps) = (format, size, fps);
        let mut source = open(&settings, context()).unwrap();
        good_frames(&mut *source, 1);
        source.describe()
    };
    let yuyv = Some(PixelFormat::Yuyv);
    for (format, size, fps, wanted) in [
        // 640x480 is enough, and vivid has it at up to 25 frames a second.
        (None, None, None, "nv12 640x480 at 25 fps"),
        (yuyv, None, None, "yuyv 640x480 at 25 fps"),
        (
            yuyv,
            Some((320, 180)),
            Some(12.5),
            "yuyv 320x180 at 12.5 fps",
        ),
        (None, Some((1280, 720)), None, "nv12 1280x720 at 12.5 fps"),
        // What it has not: the nearest.
        (
            Some(PixelFormat::Mjpeg),
            None,
            None,
            "nv12 640x480 at 25 fps",
        ),
        (None, Some((600, 400)), Some(14.0), "nv12 640x360 at 15 fps"),
        (None, None, Some(60.0), "nv12 320x180 at 60 fps"),
    ] {
        let node = vivid.node();
        let described = open_as(format, size, fps);
        let wanted = format!("{wanted} from {} (vivid)", node.display());
        assert_eq!(described, wanted, "{format:?} {size:?} {fps:?}");
        // The driver agrees.
        let now = crate::vivid::run(
            std::process::Command::new("v4l2-ctl")
                .arg("-d")
                .arg(&node)
                .args(["-V", "-P"]),
        );
        let [fourcc, size, fps] = driver_says(&now);
        let mut words = wanted.split_whitespace();
        let asked_format: PixelFormat = words.next().unwrap().parse().unwrap();
        assert_eq!(fourcc.as_bytes(), asked_format.fourcc(), "{now}");
        assert_eq!(Some(size.as_str()), words.next(), "{now}");
        let asked_fps: f64 = words.nth(1).unwrap().parse().unwrap();
        assert_eq!(fps.parse::<f64>().unwrap(), asked_fps, "{now}");
    }
}

/// Format, size and rate, out of `v4l2-ctl -V -P`.
fn driver_says(text: &str) -> [String; 3] {
    let value = |key: &str| {
        let line = text.lines().find(|l| l.trim_start().starts_with(key));
        let line = line.unwrap_or_else(|| panic!("no {key} in {text}"));
        line.split_once(':').unwrap().1.trim().to_string()
    };
    let size = value("Width/Height").replace('/', "x");
    let fourcc = value("Pixel Format").trim_start_matches('\'')[..4].to_string();
    let fps = value("Frames per second");
    [fourcc, size, fps.split(' ').next().unwrap().to_string()]
}
