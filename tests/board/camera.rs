//! The camera: `vivid` in several pixel formats, a USB camera with Motion JPEG, and their plugs.

use std::net::{Ipv4Addr, TcpListener};
use std::process::Command;
use std::time::Duration;

use crate::board::{Board, PATIENCE, accept};
use crate::common::mosquitto::{Observer, Seen};
use crate::common::schema::check_seen;
use crate::common::usb_camera::{ATTACH, DEVICE_ID, SPEED, UsbCamera};

const VIVID: &str = "v4l2:/dev/v4l/by-path/platform-vivid.0-video-index0";

/// A webcam with a node for capturing only.
pub fn plug_in_vivid(board: &mut Board) {
    board.sh("modprobe vivid n_devs=1 node_types=1 num_inputs=1 input_types=0");
    board.eventually("vivid has a node", &format!("[ -e {} ]", &VIVID[5..]));
}

/// Writes the configuration and starts the service anew with it. Few frames a second leave the emulated processor to the rest.
pub fn configure(board: &mut Board, camera: &str) {
    board.sh(&format!(
        "cat >/etc/ocellus/ocellus.toml <<'END'\n\
         [device]\nid = \"board\"\n\
         [[camera]]\nid = \"porch\"\ntimeout_ms = 2000\nfps = 4\n{camera}\n\
         [[model]]\npath = \"/usr/share/ocellus/models/cifar10-resnet20-int8\"\n\
         [mqtt]\nurl = \"mqtt://127.0.0.1\"\n\
         END\n\
         systemctl reset-failed ocellus; systemctl restart ocellus"
    ));
}

pub fn vivid(format: &str) -> String {
    format!("source = \"{VIVID}\"\nsize = [320, 180]\nformat = \"{format}\"")
}

/// Waits for an observation of a frame that was taken from now on, each message on the way being valid.
pub fn observations_flow(observer: &Observer) -> Seen {
    // What is on its way was taken before.
    while observer.next_within(Duration::ZERO).is_some() {}
    observer.wait_for(PATIENCE, "an observation of the board", |m| {
        check_seen(m);
        m.topic == "ocellus/board/porch/classification"
    })
}

pub fn wait_for_status(observer: &Observer, status: &str) {
    observer.wait_for(PATIENCE, &format!("the camera is {status}"), |m| {
        m.topic == "ocellus/board/porch/status" && m.text() == status
    });
}

/// The journal since a moment of this boot, in seconds, and that moment.
fn now(board: &mut Board) -> String {
    board.sh("date '+%F %T'")
}

fn assert_logged(board: &mut Board, since: &str, said: &str) {
    board.eventually(
        &format!("the journal says: {said}"),
        &format!("journalctl -u ocellus --since '{since}' -o cat | grep -F '{said}'"),
    );
}

/// Each is what the driver gives, by the service's own words, and observations of it arrive.
pub fn every_format(board: &mut Board, observer: &Observer) {
    for format in ["yuyv", "nv12", "rgb24"] {
        let since = now(board);
        configure(board, &vivid(format));
        assert_logged(board, &since, &format!("camera online: {format} 320x180"));
        let seen = observations_flow(observer).json();
        assert_eq!(seen["frame"]["width"], 320, "{seen}");
        board.done(&format!("{format}: observations arrive"));
    }
}

/// A USB camera at the kernel's own driver for them.
pub fn motion_jpeg(board: &mut Board, observer: &Observer) {
    let dir = tempfile::tempdir().unwrap();
    let jpeg = dir.path().join("bars.jpg");
    let ffmpeg = Command::new("ffmpeg")
        .args(
            "-loglevel error -f lavfi -i pal100bars=size=640x480 -frames:v 1 -pix_fmt yuvj420p"
                .split(' '),
        )
        .arg(&jpeg)
        .status();
    assert!(ffmpeg.unwrap().success(), "ffmpeg");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    board.sh(&format!(
        "modprobe vhci-hcd && exec 3<>/dev/tcp/$HOST/{port} && echo 0 3 {DEVICE_ID} {SPEED} >{ATTACH}"
    ));
    let socket = accept(&listener, || true).expect("the board connects");
    let camera = UsbCamera::new(socket, "SN0042", &std::fs::read(jpeg).unwrap()).unwrap();
    let node = "/dev/v4l/by-id/usb-Ocellus_Test_Camera_SN0042-video-index0";
    board.eventually("udev has it", &format!("[ -e {node} ]"));
    // The package's udev rule: it is not put to sleep.
    board.eventually(
        "it stays awake",
        "[ $(cat /sys/devices/platform/vhci_hcd.0/usb*/*-1/power/control) = on ]",
    );
    let since = now(board);
    configure(board, &format!("source = \"v4l2:{node}\""));
    assert_logged(board, &since, "camera online: mjpeg 640x480");
    observations_flow(observer);
    board.done("mjpeg through uvcvideo: observations arrive");
    drop(camera);
    wait_for_status(observer, "offline");
}

/// Out and in five times, in two ways; the process stays the same one.
pub fn replug(board: &mut Board, observer: &Observer) {
    configure(board, &vivid("yuyv"));
    wait_for_status(observer, "online");
    let driver = "/sys/bus/platform/drivers/vivid";
    let pid = board.service("MainPID");
    for round in 1..=5 {
        if round % 2 == 0 {
            // The node stays, every call fails; vivid connects again when its last user has closed it.
            board.sh("v4l2-ctl -d /dev/video0 --set-ctrl=disconnect=1");
            wait_for_status(observer, "offline");
        } else {
            board.sh(&format!("echo vivid.0 >{driver}/unbind"));
            wait_for_status(observer, "offline");
            board.sh(&format!("echo vivid.0 >{driver}/bind"));
        }
        wait_for_status(observer, "online");
        observations_flow(observer);
    }
    assert_eq!(board.service("MainPID"), pid);
    assert_eq!(board.service("NRestarts"), "0");
    board.done("unplugged and plugged in five times");
}
