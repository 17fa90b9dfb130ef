//! Installing, upgrading, removing and purging the package.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::board::{Board, PATIENCE};
use crate::common::mosquitto::Observer;
use crate::common::schema::check_seen;

/// What the package or its service could have left.
const TRACES: &str = "{ find / -xdev \\( -path /tmp -o -path '/run/*' -o -path /proc -o -path /sys -o -path /dev \\) -prune \
    -o -name '*ocellus*' -print; grep -H ocellus /etc/passwd /etc/group /etc/shadow /etc/gshadow; ls -d /etc/ocellus /var/lib/ocellus; } 2>/dev/null";

/// The same package under a higher version number; removed when dropped.
pub struct Newer {
    _dir: tempfile::TempDir,
    deb: PathBuf,
}

impl Newer {
    pub fn path(&self) -> &Path {
        &self.deb
    }
}

pub fn newer(deb: &Path) -> Newer {
    let dir = tempfile::tempdir().unwrap();
    let newer = dir.path().join("newer.deb");
    let script = "dpkg-deb -R \"$1\" \"$2/root\" && sed -i 's/^Version: .*/&+newer/' \"$2/root/DEBIAN/control\" \
         && dpkg-deb --root-owner-group -Znone -b \"$2/root\" \"$3\" >/dev/null && rm -r \"$2/root\"";
    let status = Command::new("sh")
        .args(["-c", script, "sh"])
        .args([deb, dir.path(), &newer])
        .status();
    assert!(status.unwrap().success(), "dpkg-deb failed");
    Newer {
        _dir: dir,
        deb: newer,
    }
}

fn apt_install(board: &mut Board, deb: &Path) {
    let name = deb.file_name().unwrap().to_str().unwrap();
    board.sh(&format!(
        "DEBIAN_FRONTEND=noninteractive apt-get install -y -q ./{name}"
    ));
}

/// From nothing to observations, with the configuration that the package brings.
pub fn install(board: &mut Board, observer: &Observer, deb: &Path) {
    let (_, traces) = board.try_sh(TRACES);
    assert_eq!(traces, "", "there is something of ours before the package");
    apt_install(board, deb);
    board.done("installed");
    board.eventually("READY", "[ $(systemctl is-active ocellus) = active ]");
    assert_eq!(board.sh("systemctl is-enabled ocellus"), "enabled");
    let seen = observer.wait_for(PATIENCE, "an observation", |m| {
        m.topic.ends_with("/camera/classification")
    });
    check_seen(&seen);
    board.done("the first observation, with the configuration as it ships");
    let status = board.eventually(
        "the status line",
        "systemctl status ocellus | grep -E 'Status: \"camera online, [0-9]+ inferred; broker connected, [0-9]+ messages\"'",
    );
    board.done(&status);
    assert_eq!(
        board.sh("ps -o user= -p $(systemctl show -P MainPID ocellus)"),
        "ocellus"
    );
    // Secrets in the credential store are for root only, and the tools that were promised are there.
    assert_eq!(board.sh("stat -c '%U %a' /etc/credstore"), "root 700");
    board.sh("ls /usr/share/man/man1/ocellus.1.gz /usr/share/bash-completion/completions/ocellus /usr/share/doc/ocellus/copyright");
    board.sh("ocellus model list >/dev/null && ocellus devices | grep -q vivid");
    // In tenths: 2.0.
    let score = board.sh(
        "unit=/usr/lib/systemd/system/ocellus.service; systemd-analyze verify --man=no $unit && \
         set -o pipefail; systemd-analyze security --no-pager --offline=yes --threshold=20 $unit | tail -n 1",
    );
    board.done(&score);
}

/// Configuration, models and what the service keeps survive; the new version runs.
pub fn upgrade(board: &mut Board, observer: &Observer, newer: &Path) {
    board.sh("mkdir -p /var/lib/ocellus/models/mine && echo kept >/var/lib/ocellus/models/mine/model.onnx");
    // As the service would leave it: its own file, in its own directory.
    board.sh("install -o ocellus -g ocellus -m 600 /dev/null /var/lib/ocellus/kept && echo kept >/var/lib/ocellus/kept");
    let kept = "sha256sum /etc/ocellus/ocellus.toml /var/lib/ocellus/kept /var/lib/ocellus/models/mine/model.onnx; \
                stat -c '%U %a %n' /var/lib/ocellus/kept";
    let (before, pid) = (board.sh(kept), board.service("MainPID"));
    apt_install(board, newer);
    assert!(board.sh("dpkg-query -W ocellus").ends_with("+newer"));
    assert_eq!(board.sh(kept), before);
    board.eventually(
        "the new version is ready",
        &format!("[ $(systemctl is-active ocellus) = active ] && [ $(systemctl show -P MainPID ocellus) != {pid} ]"),
    );
    crate::camera::observations_flow(observer);
    board.done("upgraded");
}

/// A removed package has stopped and keeps its configuration; a purged one leaves nothing.
pub fn purge(board: &mut Board) {
    board.sh("systemctl start ocellus");
    board.sh("DEBIAN_FRONTEND=noninteractive apt-get remove -y -q ocellus");
    board.sh("! systemctl is-active ocellus && ! pgrep -x ocellus && [ -e /etc/ocellus/ocellus.toml ] && [ -e /var/lib/ocellus/kept ]");
    board.done("removed");
    board.sh("echo secret >/etc/credstore/ocellus.mqtt-password");
    // What a test put there is the test's to take away.
    board.sh("rm -rf /run/systemd/system/ocellus.service.d");
    board.sh("DEBIAN_FRONTEND=noninteractive apt-get purge -y -q ocellus");
    let (_, traces) = board.try_sh(TRACES);
    assert_eq!(traces, "", "left by a purged package");
    board.done("purged, and nothing is left");
}
