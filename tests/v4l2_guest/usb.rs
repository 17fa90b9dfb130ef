//! A USB camera, by the driver of real ones: Motion JPEG, stable ids, the plug.

use std::time::{Duration, Instant};

use ocellus::capture::{CaptureError, CaptureSettings, devices, open};
use ocellus::frame::PixelFormat;

use crate::BARS_JPEG;
use crate::camera::{context, eventually};
use crate::common::mosquitto::{Mosquitto, Observer};
use crate::frames::assert_bars;
use crate::program::{Program, wait_for_status};
use crate::usb_camera::{FPS, HEIGHT, UsbCamera, WIDTH};

const SERIAL: &str = "SN0042";
const BY_ID: &str = "/dev/v4l/by-id/usb-Ocellus_Test_Camera_SN0042-video-index0";

fn bars() -> Vec<u8> {
    std::fs::read(BARS_JPEG).unwrap()
}

/// Without the segments that define Huffman tables: USB cameras often leave them out, since Motion JPEG's are known.
fn without_huffman_tables(jpeg: &[u8]) -> Vec<u8> {
    let (mut out, mut at) = (jpeg[..2].to_vec(), 2);
    loop {
        let length = 2 + usize::from(u16::from_be_bytes([jpeg[at + 2], jpeg[at + 3]]));
        let marker = jpeg[at + 1];
        if marker == 0xDA {
            out.extend(&jpeg[at..]);
            assert!(out.len() < jpeg.len(), "it had none");
            return out;
        }
        if marker != 0xC4 {
            out.extend(&jpeg[at..at + length]);
        }
        at += length;
    }
}

#[test]
#[ignore = "runs in the guest"]
fn a_usb_camera_is_known_by_its_serial_number() {
    let camera = UsbCamera::plug_in(0, SERIAL, &bars());
    camera.wait_until_ready();
    let devices = devices();
    // Its second node is for metadata: no camera.
    let [device] = devices.as_slice() else {
        panic!("one camera is plugged in: {devices:?}");
    };
    assert_eq!(
        (&*device.driver, &*device.bus),
        ("uvcvideo", "usb-vhci_hcd.0-1")
    );
    assert_eq!(device.name, "Test Camera");
    let ids: Vec<_> = device
        .stable_ids
        .iter()
        .map(|id| id.to_str().unwrap())
        .collect();
    assert_eq!(
        ids,
        [
            BY_ID,
            "/dev/v4l/by-path/platform-vhci_hcd.0-usb-0:1:1.0-video-index0"
        ]
    );
    let [format] = device.formats.as_slice() else {
        panic!("one format: {device:?}");
    };
    assert_eq!(format.format, Some(PixelFormat::Mjpeg));
    let text = device.to_string();
    assert!(
        text.contains(&format!("\n    {WIDTH}x{HEIGHT} at {FPS} fps")),
        "{text}"
    );
}

#[test]
#[ignore = "runs in the guest"]
fn motion_jpeg_is_right_without_huffman_tables_too_and_bad_frames_are_skipped() {
    let whole = bars();
    let camera = UsbCamera::plug_in(0, SERIAL, &without_huffman_tables(&whole));
    camera.wait_until_ready();
    let settings = CaptureSettings::new("v4l2:".parse().unwrap());
    let context = context();
    let mut source = open(&settings, context.clone()).unwrap();
    let described = source.describe();
    assert!(
        described.starts_with("mjpeg 640x480 at 30 fps from /dev/video"),
        "{described}"
    );
    let frame = source.next().unwrap();
    let usual = frame.data.to_vec();
    assert_eq!(usual, without_huffman_tables(&whole));
    assert_bars(&frame, 8);
    camera.send_once(&whole);
    eventually("the frame with tables comes", || {
        let frame = source.next().unwrap();
        (*frame.data == *whole).then(|| assert_bars(&frame, 8))
    });
    for (bad, said) in [
        (&whole[..whole.len() - 2000], "truncated JPEG"),
        (&[0x55; 5000][..], "no JPEG"),
        (&whole[..100], "truncated JPEG"),
    ] {
        camera.send_once(bad);
        let why = eventually("the bad frame is skipped", || source.next().err());
        assert!(
            matches!(&why, CaptureError::Skip(why) if why.contains(said)),
            "{why} instead of {said}"
        );
        assert_eq!(*source.next().unwrap().data, usual);
    }
    // The driver itself keeps an empty frame to itself.
    camera.send_once(&[]);
    for _ in 0..10 {
        source.next().unwrap();
    }
    let began = Instant::now();
    for _ in 0..30 {
        source.next().unwrap();
    }
    println!("measured: 30 Motion JPEG frames in {:?}", began.elapsed());
}

#[test]
#[ignore = "runs in the guest"]
fn a_usb_camera_comes_back_in_any_socket() {
    let jpeg = bars();
    let broker = Mosquitto::start("");
    let observer = Observer::start(broker.port, "ocellus/guest/#");
    let mut camera = UsbCamera::plug_in(0, SERIAL, &jpeg);
    camera.wait_until_ready();
    let mut program = Program::start("v4l2:", &broker);
    wait_for_status(&observer, "online");
    let (held, mut slowest) = (program.held(), Duration::ZERO);
    for round in 1..=5 {
        drop(camera);
        wait_for_status(&observer, "offline");
        // Another socket each time: only the serial number tells that it is the same camera.
        camera = UsbCamera::plug_in(round % 3, SERIAL, &jpeg);
        camera.wait_until_ready();
        let plugged_in = Instant::now();
        let seen = program.observation_after(plugged_in);
        slowest = slowest.max(seen - plugged_in);
        wait_for_status(&observer, "online");
        eventually("nothing is left open", || {
            (program.held() == held).then_some(())
        });
    }
    println!("measured: pulled out 5 times, at most {slowest:?} from ready to observation");
    program.terminate();
}
