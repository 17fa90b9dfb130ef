//! What the board says about itself: load, temperature, throttling, memory.
//!
//! In: `/proc` and `/sys`. Out: a [`BoardHealth`]. Read on the `io` thread, a few small files at a time. Always
//! holds: what this machine does not tell is `None`, never a guess.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

/// The board, now.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct BoardHealth {
    /// Share of all cores in use since the last reading, in percent; `None` at the first one.
    pub cpu_percent: Option<f64>,
    /// The hottest thermal zone, in °C.
    pub temperature_c: Option<f64>,
    /// Whether a Raspberry Pi's firmware holds the clock back now (under-voltage, frequency cap, heat).
    pub throttled: Option<bool>,
    /// Resident memory of this process.
    pub rss_bytes: Option<u64>,
    /// Time since the board started.
    pub board_uptime_s: Option<u64>,
}

/// Reads [`BoardHealth`]; remembers the last reading of the CPU's counters.
#[derive(Debug)]
pub struct HealthReader {
    root: PathBuf,
    cpu: Option<(u64, u64)>,
}

impl Default for HealthReader {
    fn default() -> Self {
        Self::new("/")
    }
}

impl HealthReader {
    /// Reads below `root`: `/`, or a directory of fixtures.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        let mut reader = Self {
            root: root.into(),
            cpu: None,
        };
        reader.cpu_percent();
        reader
    }

    /// Everything that can be known now.
    pub fn read(&mut self) -> BoardHealth {
        BoardHealth {
            cpu_percent: self.cpu_percent(),
            temperature_c: self.temperature_c(),
            throttled: self.throttled(),
            rss_bytes: self.rss_bytes(),
            board_uptime_s: self.uptime().map(|u| u.as_secs()),
        }
    }

    fn file(&self, path: &str) -> Option<String> {
        std::fs::read_to_string(self.root.join(path)).ok()
    }

    fn cpu_percent(&mut self) -> Option<f64> {
        let stat = self.file("proc/stat")?;
        let ticks: Vec<u64> = stat
            .lines()
            .next()?
            .strip_prefix("cpu ")?
            .split_whitespace()
            .map_while(|n| n.parse().ok())
            .collect();
        // user nice system idle iowait irq softirq steal; guest time is in user already.
        let total: u64 = ticks.iter().take(8).sum();
        let idle = ticks.get(3)? + ticks.get(4).unwrap_or(&0);
        let before = self.cpu.replace((total, idle));
        let (total_before, idle_before) = before?;
        let passed = total.checked_sub(total_before).filter(|p| *p > 0)?;
        let idle = idle.saturating_sub(idle_before).min(passed);
        Some(round1(100.0 * (passed - idle) as f64 / passed as f64))
    }

    fn temperature_c(&self) -> Option<f64> {
        let zones = std::fs::read_dir(self.root.join("sys/class/thermal")).ok()?;
        zones
            .filter_map(|z| z.ok())
            .filter(|z| z.file_name().to_string_lossy().starts_with("thermal_zone"))
            .filter_map(|z| read_number(&z.path().join("temp")))
            // A zone that is switched off reads as a wild value.
            .filter(|milli| (-50_000..=150_000).contains(milli))
            .max()
            .map(|milli| round1(milli as f64 / 1000.0))
    }

    fn throttled(&self) -> Option<bool> {
        let bits = self.file("sys/devices/platform/soc/soc:firmware/get_throttled")?;
        let bits = u32::from_str_radix(bits.trim().trim_start_matches("0x"), 16).ok()?;
        // Bits 0 to 3 are now; 16 to 19 say "since the start".
        Some(bits & 0xf != 0)
    }

    fn rss_bytes(&self) -> Option<u64> {
        let status = self.file("proc/self/status")?;
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
        let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(kib * 1024)
    }

    fn uptime(&self) -> Option<Duration> {
        let uptime = self.file("proc/uptime")?;
        let seconds: f64 = uptime.split_whitespace().next()?.parse().ok()?;
        Duration::try_from_secs_f64(seconds).ok()
    }
}

/// The board's name from its device tree (`Raspberry Pi 5 Model B Rev 1.0`) or its DMI table, if it tells.
pub fn board_name() -> Option<String> {
    ["/proc/device-tree/model", "/sys/class/dmi/id/product_name"]
        .iter()
        .filter_map(|p| std::fs::read_to_string(p).ok())
        .map(|s| s.trim_matches(['\0', '\n', ' ']).to_string())
        .find(|s| !s.is_empty())
}

fn read_number(path: &Path) -> Option<i64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn round1(x: f64) -> f64 {
    (x * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixture(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        dir
    }

    #[test]
    fn a_board_that_tells_everything() {
        let dir = fixture(&[
            ("proc/stat", "cpu  100 0 100 800 0 0 0 0 0 0\ncpu0 1 2 3\n"),
            ("proc/uptime", "4711.42 9000.00\n"),
            ("proc/self/status", "Name:\tx\nVmRSS:\t   51200 kB\n"),
            ("sys/class/thermal/thermal_zone0/temp", "48312\n"),
            ("sys/class/thermal/thermal_zone1/temp", "51204\n"),
            ("sys/class/thermal/thermal_zone2/temp", "-274000\n"),
            (
                "sys/devices/platform/soc/soc:firmware/get_throttled",
                "50005\n",
            ),
        ]);
        let mut reader = HealthReader::new(dir.path());
        std::fs::write(
            dir.path().join("proc/stat"),
            "cpu  150 0 125 825 0 0 0 0 0 0\n",
        )
        .unwrap();
        let health = reader.read();
        assert_eq!(health.cpu_percent, Some(75.0));
        assert_eq!(health.temperature_c, Some(51.2));
        assert_eq!(health.throttled, Some(true));
        assert_eq!(health.rss_bytes, Some(51200 * 1024));
        assert_eq!(health.board_uptime_s, Some(4711));
    }

    #[test]
    fn a_board_that_tells_nothing_or_nonsense() {
        let empty = fixture(&[]);
        assert_eq!(
            HealthReader::new(empty.path()).read(),
            BoardHealth::default()
        );
        let odd = fixture(&[
            ("proc/stat", "cpu\n"),
            ("proc/uptime", "soon"),
            ("proc/self/status", "VmRSS: lots"),
            ("sys/class/thermal/thermal_zone0/temp", ""),
            (
                "sys/devices/platform/soc/soc:firmware/get_throttled",
                "0xzz",
            ),
        ]);
        assert_eq!(HealthReader::new(odd.path()).read(), BoardHealth::default());
    }
}
