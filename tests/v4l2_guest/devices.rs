//! `ocellus devices` beside what the kernel's own tool says.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::common::ocellus;
use crate::vivid::{Vivid, run};

#[test]
#[ignore = "runs in the guest"]
fn devices_are_listed_as_the_driver_has_them() {
    let vivid = Vivid::webcam();
    let node = vivid.node().display().to_string();
    let text = run(ocellus().args(["devices", "--json"]));
    let list: Vec<Value> = serde_json::from_str(&text).unwrap();
    let [camera] = list.as_slice() else {
        panic!("one camera is plugged in: {text}");
    };
    assert_eq!(camera["name"], "vivid-000-vid-cap");
    assert_eq!(camera["driver"], "vivid");
    assert_eq!(camera["bus"], "platform:vivid-000");
    assert_eq!(camera["path"], *node);
    assert_eq!(camera["problem"], Value::Null);
    // udev's: vivid has a place on the platform's bus, but no serial number.
    let by_path = "/dev/v4l/by-path/platform-vivid.0-video-index0";
    assert_eq!(camera["stable_ids"], serde_json::json!([by_path]));

    let formats = camera["formats"].as_array().unwrap();
    let ours: BTreeSet<&str> = formats
        .iter()
        .map(|f| f["fourcc"].as_str().unwrap())
        .collect();
    let theirs = run(std::process::Command::new("v4l2-ctl").args(["-d", &node, "--list-formats"]));
    let theirs: BTreeSet<&str> = theirs
        .lines()
        .filter_map(|line| line.split('\'').nth(1))
        .collect();
    assert_eq!(ours, theirs);
    let read: Vec<&Value> = formats.iter().filter(|f| !f["format"].is_null()).collect();
    assert_eq!(read.len(), 7, "all but MJPEG: {read:?}");
    for format in read {
        let sizes: Vec<String> = format["sizes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|s| format!("{}x{} {}", s["width"], s["height"], s["rates"]))
            .collect();
        let wanted = [
            "320x180 [1.0,2.0,4.0,5.0,10.0,12.5,15.0,25.0,30.0,40.0,50.0,60.0]",
            "640x360 [1.0,2.0,4.0,5.0,10.0,12.5,15.0,25.0,30.0,40.0]",
            "640x480 [1.0,2.0,4.0,5.0,10.0,12.5,15.0,25.0]",
            "1280x720 [1.0,2.0,4.0,5.0,10.0,12.5]",
            "1920x1080 [1.0,2.0,4.0,5.0]",
            "3840x2160 [1.0,2.0]",
        ];
        assert_eq!(sizes, wanted, "{}", format["fourcc"]);
    }
    // For people: how to name it, and what it can.
    let text = run(ocellus().arg("devices"));
    for line in [
        "vivid-000-vid-cap (vivid, platform:vivid-000)".to_string(),
        format!("  v4l2:{by_path}"),
        format!("  v4l2:{node}"),
        "  YUYV (YUYV 4:2:2)".into(),
        "    1280x720 at 1, 2, 4, 5, 10, 12.5 fps".into(),
    ] {
        assert!(text.lines().any(|l| l == line), "no `{line}` in\n{text}");
    }
}

#[test]
#[ignore = "runs in the guest"]
fn a_machine_without_a_camera_says_so() {
    let text = run(ocellus().arg("devices"));
    assert!(text.starts_with("No V4L2 capture device"), "{text}");
}
