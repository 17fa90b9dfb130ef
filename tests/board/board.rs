//! An emulated ARM board: Debian's kernel and root (`prepare.sh`) under `qemu-system-aarch64`, and a root shell on it.
//!
//! In: a CPU, files to bring along. Out: what shell scripts say, a port of this machine that leads to the board's MQTT
//! broker, the serial console in a file (the board's journal is written there too). Always holds: the root is the same
//! at each boot, since what is written goes to a temporary file of qemu's; the board is switched off when dropped.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::mosquitto::free_port;

/// How long anything on the board may take; it ends the test, it does not measure.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// The disk of files that are brought along, as the board sees it: a tar archive.
const LUGGAGE: &str = "/dev/disk/by-id/virtio-luggage";

pub struct Board {
    cpu: String,
    qemu: Child,
    shell: TcpStream,
    answers: BufReader<TcpStream>,
    scripts: u32,
    booted: Instant,
    /// Leads to port 1883 of the board.
    pub mqtt_port: u16,
    pub console: PathBuf,
    _luggage: tempfile::TempDir,
}

impl Board {
    /// Boots; `files` are then in `/tmp` of the board. The error says what this machine lacks.
    pub fn boot(cpu: &str, files: &[&Path]) -> Result<Self, String> {
        let prepared = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/guest/arm64");
        let [kernel, initramfs, root] =
            ["vmlinuz", "initramfs", "root.ext4"].map(|f| prepared.join(f));
        let qemu = "/usr/bin/qemu-system-aarch64";
        for file in [&kernel, &initramfs, &root, Path::new(qemu)] {
            if !file.exists() {
                return Err(format!("no {}: run tests/board/prepare.sh", file.display()));
            }
        }
        let luggage = tempfile::tempdir().unwrap();
        let tar = luggage.path().join("luggage.tar");
        pack(files, &tar);

        let console = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("board-{cpu}.console"));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let (port, mqtt_port) = (listener.local_addr().unwrap().port(), free_port());
        let booted = Instant::now();
        let log = File::create(&console).unwrap();
        let qemu = Command::new(qemu)
            .args(["-machine", "virt", "-cpu", cpu, "-smp", "2", "-m", "1024"])
            .args("-nodefaults -display none -no-reboot -serial stdio".split(' '))
            .arg("-kernel")
            .arg(&kernel)
            .arg("-initrd")
            .arg(&initramfs)
            .args([
                "-append",
                &format!("console=ttyAMA0 loglevel=4 net.ifnames=0 panic=-1 board.port={port}"),
            ])
            .args([
                "-drive",
                // The board's disk is thrown away: it need not survive a power cut.
                &format!(
                    "file={},format=raw,if=none,id=root,snapshot=on,cache=unsafe",
                    root.display()
                ),
            ])
            .args(["-device", "virtio-blk-device,drive=root"])
            .args([
                "-drive",
                &format!(
                    "file={},format=raw,if=none,id=luggage,readonly=on",
                    tar.display()
                ),
            ])
            .args(["-device", "virtio-blk-device,drive=luggage,serial=luggage"])
            .args([
                "-netdev",
                &format!("user,id=net,hostfwd=tcp:127.0.0.1:{mqtt_port}-:1883"),
            ])
            .args(["-device", "virtio-net-device,netdev=net"])
            .stdin(Stdio::null())
            .stderr(log.try_clone().unwrap())
            .stdout(log)
            .spawn()
            .map_err(|e| format!("qemu does not start: {e}"))?;
        let mut qemu = Some(qemu);
        let shell = accept(&listener, || {
            // Ended by itself: there is nothing to wait for.
            qemu.as_mut()
                .is_some_and(|q| q.try_wait().unwrap().is_none())
        });
        let mut qemu = qemu.take().expect("it was started");
        let Some(shell) = shell else {
            let _ = qemu.kill();
            let _ = qemu.wait();
            panic!(
                "the board does not come up; its console: {}",
                console.display()
            );
        };
        shell.set_read_timeout(Some(PATIENCE)).unwrap();
        let answers = BufReader::new(shell.try_clone().unwrap());
        let mut board = Self {
            cpu: cpu.into(),
            qemu,
            shell,
            answers,
            scripts: 0,
            booted,
            mqtt_port,
            console,
            _luggage: luggage,
        };
        board.done("booted");
        board.sh(&format!(
            "until [ -e {LUGGAGE} ]; do sleep 0.2; done && tar xf {LUGGAGE}"
        ));
        Ok(board)
    }

    /// Says what was done, and when.
    pub fn done(&self, what: &str) {
        let seconds = self.booted.elapsed().as_secs_f64();
        println!("{} {seconds:6.1} s  {what}", self.cpu);
    }

    /// Runs a script of bash as root; its exit status and what it said.
    pub fn try_sh(&mut self, script: &str) -> (i32, String) {
        self.scripts += 1;
        let marker = format!("board-script-{}", self.scripts);
        // The script is an argument: it may read its standard input, and a mistake in it ends only itself.
        write!(
            self.shell,
            "bash -c \"$(cat <<'{marker}'\n{script}\n{marker}\n)\" </dev/null 2>&1; status=$?; echo; echo {marker} $status\n"
        )
        .unwrap();
        let mut said = String::new();
        loop {
            let mut line = String::new();
            match self.answers.read_line(&mut line) {
                Ok(n) if n > 0 => {}
                e => panic!(
                    "the board does not answer ({e:?}) to\n{script}\nit said\n{said}\nits console: {}",
                    self.console.display()
                ),
            }
            if let Some(status) = line.strip_prefix(&format!("{marker} ")) {
                return (status.trim().parse().unwrap(), said.trim().to_string());
            }
            said += &line;
        }
    }

    /// Runs a script that must succeed; what it said.
    pub fn sh(&mut self, script: &str) -> String {
        let (status, said) = self.try_sh(script);
        assert_eq!(
            status,
            0,
            "{script}\nsaid\n{said}\nThe board's console and journal: {}",
            self.console.display()
        );
        said
    }

    /// Runs a script again and again until it succeeds.
    pub fn eventually(&mut self, what: &str, script: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (status, said) = self.try_sh(script);
            if status == 0 {
                return said;
            }
            assert!(
                Instant::now() < deadline,
                "did not happen: {what}; {script}\nsaid at last\n{said}\nThe board's console and journal: {}",
                self.console.display()
            );
            std::thread::sleep(Duration::from_millis(300));
        }
    }

    /// A property of the service.
    pub fn service(&mut self, property: &str) -> String {
        self.sh(&format!("systemctl show -P {property} ocellus.service"))
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

/// The first connection, if one comes while `alive`.
pub fn accept(listener: &TcpListener, mut alive: impl FnMut() -> bool) -> Option<TcpStream> {
    listener.set_nonblocking(true).unwrap();
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline && alive() {
        if let Ok((stream, _)) = listener.accept() {
            stream.set_nonblocking(false).unwrap();
            return Some(stream);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    None
}

/// Files, each under its own name only.
fn pack(files: &[&Path], tar: &Path) {
    let mut command = Command::new("tar");
    command.arg("-cf").arg(tar);
    for file in files {
        command.arg("-C").arg(file.parent().unwrap());
        command.arg(file.file_name().unwrap());
    }
    assert!(command.status().unwrap().success(), "{command:?}");
}
