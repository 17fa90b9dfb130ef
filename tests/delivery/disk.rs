//! The disk at its worst: the program goes on publishing, says so in `health`, and never ends.

use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::bench::Bench;
use crate::common::skip;
use crate::firmware::{Firmware, Home, Setup};
use crate::ledger::wait_until;

fn bench(mode: &str) -> Option<Bench> {
    Bench::new(Setup {
        fps: 40.0,
        spool: format!("mode = '{mode}'\ndrain_rate = 0"),
        ..Setup::default()
    })
}

/// Starts the program where its state directory is a file system of its own, of this kind.
fn start_on(home: &mut Home, options: &str) -> Option<Firmware> {
    let unshare = |c: &mut Command| {
        if !rustix::process::geteuid().is_root() {
            c.arg("--map-root-user");
        }
        c.arg("--mount").args(["sh", "-c"]);
    };
    let mut probe = Command::new("unshare");
    unshare(&mut probe);
    let able = probe
        .args(["mount -t tmpfs -o size=64k none /mnt"])
        .stderr(Stdio::null())
        .status();
    if !able.is_ok_and(|s| s.success()) {
        skip("a file system cannot be mounted here (needs root or user namespaces)");
        return None;
    }
    let state = home.path().join("state");
    std::fs::create_dir_all(&state).unwrap();
    let script = format!(
        "mount -t tmpfs -o {options} none '{}' && exec \"$@\"",
        state.display()
    );
    Some(home.start_with(|inner| {
        let mut outer = Command::new("unshare");
        unshare(&mut outer);
        outer
            .arg(script)
            .arg("sh")
            .arg(inner.get_program())
            .args(inner.get_args());
        for (name, value) in inner.get_envs() {
            match value {
                Some(value) => outer.env(name, value),
                None => outer.env_remove(name),
            };
        }
        outer
    }))
}

fn use_state_directory(home: &Home, port: u16, mode: &str) {
    home.configure(&Setup {
        port,
        fps: 40.0,
        spool: format!(
            "mode = '{mode}'\ndrain_rate = 0\npath = '{}/spool'",
            home.path().join("state").display()
        ),
        ..Setup::default()
    });
}

#[test]
fn a_full_disk() {
    for mode in ["offline", "always"] {
        let Some(mut b) = bench(mode) else { return };
        use_state_directory(&b.home, b.proxy.port, mode);
        b.proxy.close();
        let Some(mut firmware) = start_on(&mut b.home, "size=400k") else {
            return;
        };
        wait_until("the disk is full", || {
            b.home.log().contains("the disk is full")
        });
        // Longer than the time for which a failing disk is left alone.
        std::thread::sleep(Duration::from_secs(if mode == "offline" { 11 } else { 1 }));
        assert!(firmware.is_running());
        b.proxy.open();
        let health = b.health("it is told", |h| h["spool_fault"].is_string());
        assert!(
            health["spool_fault"]
                .as_str()
                .unwrap()
                .contains("the disk is full"),
            "{health}"
        );
        assert!(health["spool_errors"].as_u64() >= Some(1), "{health}");
        b.publishes();
        let told = b.home.log().matches("the disk is full").count();
        assert!(told <= 3, "told {told} times");
        b.finish(firmware);
    }
}

#[test]
fn a_disk_that_cannot_be_written() {
    for mode in ["offline", "always"] {
        let Some(mut b) = bench(mode) else { return };
        use_state_directory(&b.home, b.proxy.port, mode);
        let Some(firmware) = start_on(&mut b.home, "ro,size=400k") else {
            return;
        };
        b.publishes();
        let health = b.health("it is told", |h| h["spool_fault"].is_string());
        assert!(
            health["spool_fault"]
                .as_str()
                .unwrap()
                .contains("state/spool"),
            "{health}"
        );
        // A number that the last life may have given is not given again: the clock is ahead of any count.
        assert!(
            b.home
                .made()
                .iter()
                .all(|(_, seq)| *seq > 1_000_000_000_000)
        );
        b.finish(firmware);
    }
}

#[test]
fn a_damaged_file() {
    for mode in ["offline", "always"] {
        let Some(mut b) = bench(mode) else { return };
        let spool = b.home.path().join("spool");
        std::fs::create_dir(&spool).unwrap();
        std::fs::write(spool.join("messages.db"), vec![7; 20_000]).unwrap();
        let mut firmware = b.home.start();
        b.publishes();
        let health = b.health("it is told", |h| h["spool_errors"].as_u64() >= Some(1));
        assert_eq!(
            health["spool_fault"],
            Value::Null,
            "a new file is there: {health}"
        );
        let damaged = || {
            let names = crate::common::sorted(&spool);
            names
                .iter()
                .filter(|n| n.to_string_lossy().contains(".damaged-"))
                .count()
        };
        assert_eq!(damaged(), 1);
        // Damaged under its hands.
        b.proxy.close();
        wait_until("something is stored", || !b.home.stored().is_empty());
        for file in ["messages.db", "messages.db-wal"] {
            let length = std::fs::metadata(spool.join(file)).unwrap().len() as usize;
            let scribble = std::fs::OpenOptions::new()
                .write(true)
                .open(spool.join(file));
            std::io::Write::write_all(&mut scribble.unwrap(), &vec![0x55; length]).unwrap();
        }
        std::thread::sleep(Duration::from_secs(2));
        assert!(firmware.is_running());
        b.proxy.open();
        b.publishes();
        b.health("the spool works again", |h| {
            h["spool"].as_u64().is_some_and(|n| n < 20) && h["spool_fault"].is_null()
        });
        assert!(firmware.is_running());
        firmware.stop();
    }
}
