//! Privacy masks: nothing that comes out depends on what is under them.
//!
//! Two pictures that differ only there must give the same bytes everywhere: network inputs of every pixel format and JPEG kind,
//! snapshots, messages. Without the mask they must not, or the comparison would prove nothing.

mod common;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use common::device::{Device, configure, shipped_model};
use common::mosquitto::{Observer, mosquitto_or_skip, publish};
use common::{python, run_to_its_end, skip};
use ocellus::frame::mask::winds_around;
use ocellus::frame::{Frame, FrameMeta, FramePool, Geometry, Mask, PixelFormat};
use ocellus::preprocess::{
    ColourOrder, InputData, InputSpec, InputTensor, Preprocessor, Region, ResizePolicy, apply_mask,
    frame_from_image_bytes,
};
use proptest::prelude::*;
use serde_json::Value;

/// Seen nowhere else.
const SECRET: [u8; 3] = [255, 0, 255];

type Polygons = Vec<Vec<[f64; 2]>>;

fn polygons() -> Polygons {
    vec![
        vec![[0.11, 0.13], [0.42, 0.08], [0.37, 0.61], [0.2, 0.4]],
        vec![[0.7, 0.7], [1.0, 0.7], [1.0, 1.0], [0.7, 1.0]],
    ]
}

fn is_masked(polygons: &Polygons, x: f64, y: f64) -> bool {
    polygons.iter().any(|p| winds_around(p, [x, y]))
}

/// A smooth picture without the secret colour, and `hidden` under the polygons.
fn picture(
    (width, height): (u32, u32),
    polygons: &Polygons,
    hidden: impl Fn(u32, u32) -> Option<[u8; 3]>,
) -> Vec<u8> {
    let mut rgb = Vec::new();
    for y in 0..height {
        for x in 0..width {
            let (fx, fy) = (
                (f64::from(x) + 0.5) / f64::from(width),
                (f64::from(y) + 0.5) / f64::from(height),
            );
            let open = [
                (40.0 + 60.0 * fx) as u8,
                120 + (x * 7 % 32) as u8,
                (30.0 + 50.0 * fy) as u8,
            ];
            let secret = is_masked(polygons, fx, fy).then(|| hidden(x, y)).flatten();
            rgb.extend(secret.unwrap_or(open));
        }
    }
    rgb
}

/// As a camera would deliver it: BT.601, limited range, chroma averaged over the pixels that share it.
fn in_format(rgb: &[u8], (width, height): (u32, u32), format: PixelFormat) -> Frame {
    let (w, h) = (width as usize, height as usize);
    let at = |x: usize, y: usize| {
        let i = 3 * (y.min(h - 1) * w + x.min(w - 1));
        [rgb[i], rgb[i + 1], rgb[i + 2]].map(f64::from)
    };
    let luma = |x, y| {
        let [r, g, b] = at(x, y);
        (16.0 + (65.481 * r + 128.553 * g + 24.966 * b) / 255.0).round() as u8
    };
    let chroma = |x: usize, y: usize, rows: usize| {
        let (mut u, mut v, mut n) = (0.0, 0.0, 0.0);
        for yy in (y..y + rows).filter(|y| *y < h) {
            for xx in (x..x + 2).filter(|x| *x < w) {
                let [r, g, b] = at(xx, yy);
                u += (-37.797 * r - 74.203 * g + 112.0 * b) / 255.0;
                v += (112.0 * r - 93.786 * g - 18.214 * b) / 255.0;
                n += 1.0;
            }
        }
        ((128.0 + u / n).round() as u8, (128.0 + v / n).round() as u8)
    };
    let mut data = FramePool::default().take();
    let pairs = || (0..w).step_by(2);
    match format {
        PixelFormat::Rgb24 => data.extend_from_slice(rgb),
        PixelFormat::Bgr24 => data.extend(
            rgb.as_chunks::<3>()
                .0
                .iter()
                .flat_map(|[r, g, b]| [*b, *g, *r]),
        ),
        PixelFormat::Grey => data.extend((0..h).flat_map(|y| (0..w).map(move |x| (x, y))).map(
            |(x, y)| {
                let [r, g, b] = at(x, y);
                (0.299 * r + 0.587 * g + 0.114 * b) as u8
            },
        )),
        PixelFormat::Yuyv | PixelFormat::Uyvy => {
            for y in 0..h {
                for x in pairs() {
                    let (y0, y1, (u, v)) = (luma(x, y), luma(x + 1, y), chroma(x, y, 1));
                    data.extend(match format {
                        PixelFormat::Yuyv => [y0, u, y1, v],
                        _ => [u, y0, v, y1],
                    });
                }
            }
        }
        PixelFormat::Nv12 | PixelFormat::Yu12 => {
            for y in 0..h {
                data.extend((0..w).map(|x| luma(x, y)));
            }
            let all: Vec<(u8, u8)> = (0..h)
                .step_by(2)
                .flat_map(|y| pairs().map(move |x| (x, y)))
                .map(|(x, y)| chroma(x, y, 2))
                .collect();
            if format == PixelFormat::Nv12 {
                data.extend(all.iter().flat_map(|(u, v)| [*u, *v]));
                // Rows of an odd stride are padded to whole pairs already.
            } else {
                data.extend(all.iter().map(|c| c.0));
                data.extend(all.iter().map(|c| c.1));
            }
        }
        PixelFormat::Mjpeg => unreachable!("encoders do that"),
    }
    Frame {
        format,
        geometry: Geometry::packed(width, height, format),
        data,
        meta: FrameMeta::of_still("privacy"),
        mask: None,
    }
}

fn jpeg(rgb: &[u8], (width, height): (u32, u32)) -> Frame {
    let mut bytes = Vec::new();
    image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, 85)
        .encode(rgb, width, height, image::ExtendedColorType::Rgb8)
        .unwrap();
    still(&bytes)
}

fn still(bytes: &[u8]) -> Frame {
    frame_from_image_bytes(bytes, FrameMeta::of_still("privacy"), &FramePool::default()).unwrap()
}

/// Network inputs of several shapes and colours, so that every scale of the JPEG decoder is met, and the picture itself.
fn inputs(frame: &Frame, size: (u32, u32)) -> Vec<Vec<u8>> {
    let spec = |w, h, colour, resize| InputSpec {
        colour,
        resize,
        ..InputSpec::rgb(w, h)
    };
    let letterbox = ResizePolicy::Letterbox {
        fill: 114,
        centre: true,
    };
    let specs = [
        InputSpec::rgb(size.0, size.1),
        spec(96, 96, ColourOrder::Bgr, ResizePolicy::Stretch),
        spec(64, 64, ColourOrder::Rgb, letterbox),
        spec(
            40,
            40,
            ColourOrder::Rgb,
            ResizePolicy::ShortSideCrop { short_side: 44 },
        ),
        spec(32, 24, ColourOrder::Grey, ResizePolicy::Stretch),
    ];
    let run = |spec: InputSpec| {
        let mut out = InputTensor::for_spec(&spec);
        Preprocessor::new(spec).run(frame, &mut out).unwrap();
        match out.data {
            InputData::U8(bytes) => bytes,
            _ => panic!("bytes were asked for"),
        }
    };
    let mut inputs: Vec<Vec<u8>> = specs.clone().into_iter().map(run).collect();
    // Crops: at odd places, beside a mask, within one.
    let (w, h) = size;
    for (x, y, width, height) in [
        (w / 5, h / 7, w / 2, h / 2),
        (1, 3, 9, 11),
        (2 * w / 3, 2 * h / 3, w - 2 * w / 3, h - 2 * h / 3),
    ] {
        let region = Region {
            x,
            y,
            width,
            height,
        };
        inputs.extend(specs[1..].iter().map(|spec| {
            let mut out = InputTensor::for_spec(spec);
            Preprocessor::new(spec.clone())
                .run_region(frame, region, &mut out)
                .unwrap();
            match out.data {
                InputData::U8(bytes) => bytes,
                _ => panic!("bytes were asked for"),
            }
        }));
    }
    inputs
}

fn masked(mut frame: Frame, mask: &Arc<Mask>) -> Frame {
    apply_mask(&mut frame, mask);
    frame
}

/// That nothing depends on what is under the mask; and that the mask was needed.
fn check(name: &str, size: (u32, u32), a: Frame, b: Frame, polygons: &Polygons, needed: bool) {
    let mask = Arc::new(Mask::new(polygons.clone()).unwrap());
    if needed {
        assert_ne!(
            inputs(&a, size),
            inputs(&b, size),
            "{name}: nothing was hidden"
        );
    }
    let (a, b) = (masked(a, &mask), masked(b, &mask));
    let (in_a, in_b) = (inputs(&a, size), inputs(&b, size));
    assert!(in_a == in_b, "{name} {size:?}: a masked pixel shows");
    // And it is black: of the picture itself every pixel in the middle of a mask (at its edges chroma is blended with that of
    // open neighbours).
    let centre = |v: u32, of: u32| (f64::from(v) + 0.5) / f64::from(of);
    let inside = |x: u32, y: u32| {
        x < size.0 && y < size.1 && is_masked(polygons, centre(x, size.0), centre(y, size.1))
    };
    for (i, pixel) in in_a[0].as_chunks::<3>().0.iter().enumerate() {
        let (x, y) = (i as u32 % size.0, i as u32 / size.0);
        let around = |v: u32| v.saturating_sub(2)..=v + 2;
        if around(y).all(|y| around(x).all(|x| inside(x, y))) {
            assert_eq!(*pixel, [0; 3], "{name} {size:?} at {x},{y}");
        }
        assert!(*pixel != SECRET, "{name} {size:?} at {x},{y}");
    }
}

const RAW: [PixelFormat; 7] = [
    PixelFormat::Yuyv,
    PixelFormat::Uyvy,
    PixelFormat::Nv12,
    PixelFormat::Yu12,
    PixelFormat::Rgb24,
    PixelFormat::Bgr24,
    PixelFormat::Grey,
];

fn noise(x: u32, y: u32) -> Option<[u8; 3]> {
    let hash = (x.wrapping_mul(2_654_435_761) ^ y.wrapping_mul(40_503)).wrapping_mul(2_246_822_519);
    Some([(hash >> 8) as u8, (hash >> 16) as u8, (hash >> 24) as u8])
}

#[test]
fn no_format_lets_a_masked_pixel_through() {
    for size in [(320, 240), (322, 182), (129, 97), (64, 48)] {
        let open = picture(size, &polygons(), |_, _| None);
        let secret = picture(size, &polygons(), |_, _| Some(SECRET));
        let noisy = picture(size, &polygons(), noise);
        for format in RAW {
            let frame = |rgb| in_format(rgb, size, format);
            check(
                format.name(),
                size,
                frame(&open),
                frame(&secret),
                &polygons(),
                true,
            );
            check(
                format.name(),
                size,
                frame(&noisy),
                frame(&secret),
                &polygons(),
                true,
            );
        }
        check(
            "jpeg",
            size,
            jpeg(&open, size),
            jpeg(&secret, size),
            &polygons(),
            true,
        );
        check(
            "jpeg",
            size,
            jpeg(&noisy, size),
            jpeg(&secret, size),
            &polygons(),
            true,
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_the_polygon_and_the_size(
        polygon in prop::collection::vec([0.0..=1.0f64, 0.0..=1.0f64], 3..7),
        size in (16u32..150, 16u32..150),
    ) {
        let polygons = vec![polygon];
        prop_assume!(Mask::new(polygons.clone()).is_ok());
        let open = picture(size, &polygons, |_, _| None);
        let noisy = picture(size, &polygons, noise);
        for format in RAW {
            check(format.name(), size, in_format(&open, size, format), in_format(&noisy, size, format), &polygons, false);
        }
        check("jpeg", size, jpeg(&open, size), jpeg(&noisy, size), &polygons, false);
    }
}

/// Subsampled, progressive, with restart markers: as Pillow writes them.
#[test]
fn no_kind_of_jpeg_lets_a_masked_pixel_through() {
    let Some(python) = python() else {
        return skip("no Python with Pillow: set OCELLUS_PYTHON (`make test` does)");
    };
    let dir = tempfile::tempdir().unwrap();
    for size in [(640, 480), (333, 250)] {
        let pictures = [
            ("open", picture(size, &polygons(), |_, _| None)),
            ("secret", picture(size, &polygons(), |_, _| Some(SECRET))),
            ("noise", picture(size, &polygons(), noise)),
        ];
        for (name, rgb) in &pictures {
            let path = dir.path().join(format!("{name}.png"));
            image::save_buffer(&path, rgb, size.0, size.1, image::ExtendedColorType::Rgb8).unwrap();
        }
        let written = Command::new(&python)
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/jpeg_forms.py"))
            .arg(dir.path())
            .status();
        assert!(written.unwrap().success());
        let mut forms = 0;
        for entry in std::fs::read_dir(dir.path().join("open")).unwrap() {
            let file = entry.unwrap().file_name();
            let read =
                |name: &str| still(&std::fs::read(dir.path().join(name).join(&file)).unwrap());
            let form = file.to_string_lossy();
            check(&form, size, read("open"), read("secret"), &polygons(), true);
            check(
                &form,
                size,
                read("noise"),
                read("secret"),
                &polygons(),
                true,
            );
            forms += 1;
        }
        assert_eq!(forms, 9);
    }
}

fn toml(polygons: &Polygons) -> String {
    format!("privacy_masks = {polygons:?}\n")
}

/// The program itself: what it says of two films that differ only under the mask is the same, classes and embeddings.
#[test]
fn the_programs_results_do_not_depend_on_what_is_masked() {
    let dir = tempfile::tempdir().unwrap();
    let size = (640, 480);
    type Hidden = fn(u32, u32) -> Option<[u8; 3]>;
    let films: [(&str, Hidden); 3] = [
        ("open", |_, _| None),
        ("secret", |_, _| Some(SECRET)),
        ("noise", noise),
    ];
    let said = |name: &str, masks: &str| -> Vec<Value> {
        let config = dir.path().join("ocellus.toml");
        let text = format!(
            "[device]\nid = 'dev-1'\nstate_dir = '{0}/state'\n[[camera]]\nsource = 'files:{0}/{name}'\n{masks}[[model]]\npath = '{1}'\n\
             tasks = ['classify', 'embed']\n[output]\njsonl = true\n",
            dir.path().display(),
            shipped_model().display()
        );
        std::fs::write(&config, text).unwrap();
        let essence = |v: &Value| serde_json::json!([v["results"], v["embedding"]]);
        run_to_its_end(&config).iter().map(essence).collect()
    };
    for (name, hidden) in films {
        let film = dir.path().join(name);
        std::fs::create_dir(&film).unwrap();
        let rgb = picture(size, &polygons(), hidden);
        image::save_buffer(
            film.join("1.png"),
            &rgb,
            size.0,
            size.1,
            image::ExtendedColorType::Rgb8,
        )
        .unwrap();
        std::fs::write(film.join("2.jpg"), &jpeg(&rgb, size).data[..]).unwrap();
    }
    let masks = toml(&polygons());
    let open = said("open", &masks);
    assert_eq!(open.len(), 2);
    assert_eq!(open, said("secret", &masks));
    assert_eq!(open, said("noise", &masks));
    assert_ne!(open, said("secret", ""));
}

/// A camera whose whole frame is of one colour, as raw frames and as MJPEG: it is in no snapshot where the mask is.
#[test]
fn no_snapshot_shows_a_masked_pixel() {
    let Some(broker) = mosquitto_or_skip() else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let size = (320u32, 240u32);
    let rgb = SECRET.repeat((size.0 * size.1) as usize);
    std::fs::write(dir.path().join("frame.jpg"), &jpeg(&rgb, size).data[..]).unwrap();
    std::fs::write(
        dir.path().join("frame.yuyv"),
        &in_format(&rgb, size, PixelFormat::Yuyv).data[..],
    )
    .unwrap();
    let config = configure(dir.path(), &[], broker.port, "");
    let mut text = std::fs::read_to_string(&config).unwrap();
    for (id, file, format) in [
        ("coded", "frame.jpg", "mjpeg"),
        ("raw", "frame.yuyv", "yuyv"),
    ] {
        let file = dir.path().join(file);
        let command = format!(
            "while cat {} 2>/dev/null; do sleep 0.1; done",
            file.display()
        );
        text += &format!(
            "[[camera]]\nid = '{id}'\nsource = \"exec:sh -c '{command}'\"\nformat = '{format}'\nsize = [320, 240]\n{}",
            toml(&polygons())
        );
    }
    text += "[snapshot]\nquality = 95\n";
    std::fs::write(&config, text).unwrap();
    let observer = Observer::start(broker.port, "ocellus/dev-1/#");
    let device = Device::start(&config);
    // They come in no order.
    let expected = ["coded", "raw"].map(|id| {
        [
            format!("ocellus/dev-1/{id}/status"),
            format!("ocellus/dev-1/{id}/inference/state"),
        ]
    });
    let seen = std::cell::RefCell::new(std::collections::HashSet::new());
    observer.wait("both cameras", |s| {
        if !s.topic.ends_with("/status") || s.text() == "online" {
            seen.borrow_mut().insert(s.topic.clone());
        }
        expected.iter().flatten().all(|t| seen.borrow().contains(t))
    });
    for id in ["coded", "raw"] {
        let command =
            format!(r#"{{"id":"{id}","op":"snapshot","args":{{"camera":"{id}","quality":95}}}}"#);
        publish(broker.port, "ocellus/dev-1/cmd", &command, false);
        let seen = observer.wait("the picture", |s| {
            assert!(
                !s.topic.ends_with("cmd/result") || s.json()["ok"] == true,
                "{}",
                s.text()
            );
            s.topic == format!("ocellus/dev-1/{id}/snapshot")
        });
        let picture = image::load_from_memory(&seen.payload).unwrap().into_rgb8();
        assert_eq!(picture.dimensions(), size);
        let (mut masked, mut open) = (0, 0);
        for (x, y, pixel) in picture.enumerate_pixels() {
            // A block of the new JPEG may hold both.
            let centre = |v: u32, of: u32| (f64::from(v) + 0.5) / f64::from(of);
            let inside =
                |x: u32, y: u32| is_masked(&polygons(), centre(x, size.0), centre(y, size.1));
            let block =
                |v: u32, of: u32| (v / 16 * 16).saturating_sub(1)..(v / 16 * 16 + 17).min(of);
            let whole = block(y, size.1).all(|y| block(x, size.0).all(|x| inside(x, y)));
            if whole {
                assert!(pixel.0.iter().all(|v| *v < 4), "{id}: {pixel:?} at {x},{y}");
                masked += 1;
            }
            open += usize::from(pixel.0.iter().zip(SECRET).all(|(a, b)| a.abs_diff(b) < 12));
        }
        assert!(
            masked > 1000 && open > 1000,
            "{id}: {masked} masked, {open} open"
        );
    }
    assert!(device.stop().success());
}
