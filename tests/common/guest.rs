//! A virtual machine with Debian's own kernel: where a test finds devices that the host has not.
//!
//! In: programs and files of this machine. Out: what the guest wrote on its console. The kernel and its modules are
//! `tests/guest/prepare.sh`'s; all else is in an initramfs that is made for each boot and lives in a temporary
//! directory. The guest has no network but its loopback. It is emulated (no KVM), so it runs where containers run.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What is copied from this machine into every guest.
const PROGRAMS: [&str; 4] = [
    "/bin/busybox",
    "/bin/udevadm",
    "/lib/udev/v4l_id",
    "/usr/bin/v4l2-ctl",
];

/// udev's rules that concern cameras and the loading of their drivers.
const RULES: [&str; 3] = [
    "50-udev-default.rules",
    "60-persistent-v4l.rules",
    "80-drivers.rules",
];

/// A guest that is being put together.
pub struct Guest {
    kernel: PathBuf,
    root: tempfile::TempDir,
}

impl Guest {
    /// A guest with udev and the drivers of cameras. The error says what this machine lacks.
    pub fn new() -> Result<Self, String> {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let prepared = here.join("target/guest/amd64");
        let kernel = prepared.join("vmlinuz");
        let needed = PROGRAMS.iter().map(Path::new);
        for file in needed.chain([&*kernel, "/usr/bin/qemu-system-x86_64".as_ref()]) {
            if !file.exists() {
                return Err(format!("no {}: run tests/guest/prepare.sh", file.display()));
            }
        }
        let root = tempfile::tempdir().map_err(|e| e.to_string())?;
        let guest = Self { kernel, root };
        guest
            .fill(here, &prepared)
            .map_err(|e| format!("cannot make the guest's files: {e}"))?;
        Ok(guest)
    }

    fn fill(&self, here: &Path, prepared: &Path) -> io::Result<()> {
        for dir in ["proc", "sys", "dev", "tmp", "run", "root", "var", "etc"] {
            fs::create_dir_all(self.root.path().join(dir))?;
        }
        for program in PROGRAMS {
            self.install(program.as_ref())?;
        }
        std::os::unix::fs::symlink("/bin/udevadm", self.inside("/lib/systemd/systemd-udevd")?)?;
        for rules in RULES {
            self.copy(&Path::new("/lib/udev/rules.d").join(rules))?;
        }
        // The rules name groups.
        self.copy("/etc/group".as_ref())?;
        self.copy("/etc/passwd".as_ref())?;
        fs::copy(here.join("tests/guest/init"), self.inside("/init")?)?;
        let status = Command::new("cp")
            .arg("-r")
            .arg(prepared.join("lib/modules"))
            .arg(self.inside("/lib/modules")?)
            .status()?;
        status
            .success()
            .then_some(())
            .ok_or_else(|| io::Error::other("cp failed"))
    }

    /// Where a path of the guest lies on this machine; its directory is made.
    fn inside(&self, path: impl AsRef<Path>) -> io::Result<PathBuf> {
        let path = path.as_ref();
        let path = self
            .root
            .path()
            .join(path.strip_prefix("/").unwrap_or(path));
        fs::create_dir_all(path.parent().expect("a file has a directory"))?;
        Ok(path)
    }

    /// Copies a file to the same path in the guest.
    pub fn copy(&self, file: &Path) -> io::Result<()> {
        self.copy_to(file, file)
    }

    /// Copies a file to `path` in the guest.
    pub fn copy_to(&self, file: &Path, path: &Path) -> io::Result<()> {
        let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", file.display()));
        fs::copy(file, self.inside(path)?).map_err(named)?;
        Ok(())
    }

    /// Copies a program and its shared libraries to the same paths in the guest.
    pub fn install(&self, program: &Path) -> io::Result<()> {
        self.copy(program)?;
        // A statically linked program has none: then `ldd` fails.
        let ldd = Command::new("ldd").arg(program).output()?;
        for word in String::from_utf8_lossy(&ldd.stdout).split_whitespace() {
            if word.starts_with('/') && !self.inside(word)?.exists() {
                self.copy(word.as_ref())?;
            }
        }
        Ok(())
    }

    /// Boots; the guest runs `script` and switches itself off. Returns its console, which is also written to `log` as
    /// it comes. A guest that takes longer than `limit` is ended, and that is an error.
    pub fn run(self, script: &str, log: &Path, limit: Duration) -> io::Result<String> {
        let guest = self.inside("/guest")?;
        fs::write(&guest, format!("#!/bin/sh\n{script}\n"))?;
        fs::set_permissions(&guest, fs::Permissions::from_mode(0o755))?;
        let packed = tempfile::tempdir()?;
        let initramfs = packed.path().join("initramfs");
        let cpio = Command::new("sh")
            .args(["-c", "find . | cpio --quiet -o -H newc"])
            .current_dir(self.root.path())
            .stdout(File::create(&initramfs)?)
            .status()?;
        if !cpio.success() {
            return Err(io::Error::other("cpio failed"));
        }
        let mut qemu = Command::new("qemu-system-x86_64")
            .args("-machine pc -accel tcg -cpu max -smp 2 -m 1024 -nodefaults".split(' '))
            .args("-display none -no-reboot -serial stdio".split(' '))
            .arg("-kernel")
            .arg(&self.kernel)
            .arg("-initrd")
            .arg(&initramfs)
            // The kernel's lesser messages would cut the programs' lines: they are shown after a failure.
            .args(["-append", "console=ttyS0 loglevel=2 panic=-1"])
            .stdin(Stdio::null())
            .stdout(File::create(log)?)
            .spawn()?;
        let deadline = Instant::now() + limit;
        while qemu.try_wait()?.is_none() {
            if Instant::now() > deadline {
                qemu.kill()?;
                qemu.wait()?;
                let why = format!("the guest did not end within {limit:?}");
                return Err(io::Error::other(why));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(String::from_utf8_lossy(&fs::read(log)?).into_owned())
    }
}
