//! What a run did, in a table or a log line.

#[cfg(feature = "broker")]
use std::fmt::Write;
#[cfg(feature = "broker")]
use std::time::Duration;

#[cfg(feature = "broker")]
use crate::stats::CameraStats;
use crate::stats::Stats;

/// One line a camera, for the log of a service that stops.
pub(super) fn log(stats: &Stats) {
    for c in &stats.cameras {
        tracing::info!(
            camera = %c.id,
            captured = c.captured.get(),
            inferred = c.inferred.get(),
            overwritten = c.overwritten.get(),
            undecodable = c.undecodable.get(),
            failed = c.failed.get(),
            still = c.still.get(),
            crops = c.crops.get(),
            crops_deferred = c.crops_deferred.get(),
            rejected = c.rejected.get(),
            device_gaps = c.device_gaps.get(),
            "stopped"
        );
    }
    tracing::info!(
        published = stats.published.get(),
        queue_full = stats.queue_full.get(),
        "messages"
    );
}

/// A table for people: the demo's.
#[cfg(feature = "broker")]
pub(super) fn table(stats: &Stats, ran: Duration) -> String {
    let mut out = String::new();
    for c in &stats.cameras {
        camera(&mut out, c, ran);
    }
    let _ = writeln!(
        out,
        "  messages published {} · queue full {}",
        stats.published.get(),
        stats.queue_full.get()
    );
    let _ = writeln!(
        out,
        "\n  {:<14}{:>10}{:>10}{:>10}",
        "latency (ms)", "p50", "p99", "max"
    );
    for l in stats.latencies() {
        let _ = writeln!(
            out,
            "  {:<14}{:>10.2}{:>10.2}{:>10.2}",
            l.stage.name(),
            l.p50_ms,
            l.p99_ms,
            l.max_ms
        );
    }
    out
}

#[cfg(feature = "broker")]
fn camera(out: &mut String, c: &CameraStats, ran: Duration) {
    let fps = c.inferred.get() as f64 / ran.as_secs_f64().max(1e-3);
    let _ = writeln!(
        out,
        "  {}: {} captured · {} inferred ({fps:.1} fps) · dropped: {} overwritten, {} undecodable, {} failed, {} at the stop, {} lost by the device",
        c.id,
        c.captured.get(),
        c.inferred.get(),
        c.overwritten.get(),
        c.undecodable.get() + c.rejected.get(),
        c.failed.get(),
        c.abandoned.get(),
        c.device_gaps.get(),
    );
    if c.disabled.get() > 0 {
        let _ = writeln!(out, "  {} while inference was off", c.disabled.get());
    }
    if c.still.get() > 0 {
        let percent = 100.0 * c.still.get() as f64 / c.captured.get().max(1) as f64;
        let _ = writeln!(
            out,
            "  {} not inferred because nothing had moved ({percent:.1} %)",
            c.still.get()
        );
    }
    if c.crops.get() > 0 {
        let _ = writeln!(
            out,
            "  {} crops of what was found were looked at, {} times one had to wait",
            c.crops.get(),
            c.crops_deferred.get()
        );
    }
    if c.judged.get() > 0 {
        let percent = 100.0 * c.right.get() as f64 / c.judged.get() as f64;
        let _ = writeln!(
            out,
            "  accuracy against the ground truth {percent:.1} % ({} of {})",
            c.right.get(),
            c.judged.get()
        );
    }
}
