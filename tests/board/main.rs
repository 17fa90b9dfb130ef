//! The package on an emulated ARM board: Debian's kernel, systemd, a V4L2 camera, mosquitto; nothing is an imitation.
//!
//! `make test-board` builds the package, prepares the board (`prepare.sh`) and runs this, as two processors: a Cortex-A72
//! (Raspberry Pi 4) has no dot product, a Cortex-A76 (Raspberry Pi 5) has. There is no KVM: the board is some twenty times
//! slower than a real one, so nothing is timed. What a failed run leaves is `target/tmp/board-CPU.console`: the serial
//! console, with the journal.
#![cfg(all(target_os = "linux", feature = "v4l2"))]

#[path = "../common/mod.rs"]
mod common;

mod board;
mod camera;
mod life;
mod outputs;
mod package;

use std::path::PathBuf;

use board::Board;
use common::mosquitto::Observer;

#[test]
#[ignore = "needs the package and the board: make test-board"]
fn as_cortex_a72() {
    whole("cortex-a72");
}

#[test]
#[ignore = "needs the package and the board: make test-board"]
fn as_cortex_a76() {
    whole("cortex-a76");
}

/// The package as `make deb` left it.
fn deb() -> PathBuf {
    let version = env!("CARGO_PKG_VERSION");
    let deb = format!("target/deb/ocellus_{version}_arm64.deb");
    let deb = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(deb);
    assert!(deb.exists(), "no {}: run make deb", deb.display());
    deb
}

/// From an empty board to a purged package. Each step finds the board as the one before left it.
fn whole(cpu: &str) {
    let deb = deb();
    let newer = package::newer(&deb);
    let known = outputs::Known::on_this_machine();
    let mut files = vec![&*deb, newer.path()];
    files.extend(known.files());
    let mut board = match Board::boot(cpu, &files) {
        Ok(board) => board,
        Err(why) => return common::skip(&why),
    };
    board.sh(
        "printf 'listener 1883\\nallow_anonymous true\\n' >/etc/mosquitto/conf.d/board.conf\n\
         systemctl restart mosquitto",
    );
    board.eventually("mosquitto answers", "mosquitto_pub -t up -m up");
    camera::plug_in_vivid(&mut board);
    let observer = Observer::start(board.mqtt_port, "ocellus/#");

    package::install(&mut board, &observer, &deb);
    known.compare(&mut board);
    camera::every_format(&mut board, &observer);
    camera::motion_jpeg(&mut board, &observer);
    camera::replug(&mut board, &observer);
    life::broker_restarts(&mut board, &observer);
    life::hangs_end_in_a_restart(&mut board, &observer);
    life::a_killed_service_comes_back(&mut board, &observer);
    life::a_broken_configuration_is_told_once(&mut board);
    life::the_password_comes_from_the_credential_store(&mut board, &observer);
    package::upgrade(&mut board, &observer, newer.path());
    life::a_stop_is_clean(&mut board, &observer);
    package::purge(&mut board);
}
