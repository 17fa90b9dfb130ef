//! Progress bars of long work, on standard error; nothing where that is no terminal.

use indicatif::{ProgressBar, ProgressStyle};

/// A bar that counts `what`.
pub(super) fn counting(length: u64, what: &str) -> ProgressBar {
    bar(
        Some(length),
        &format!("{{bar:40}} {{pos}}/{{len}} {what}, {{eta}} left"),
    )
}

/// A bar of bytes; the length may be learnt later.
#[cfg(feature = "pull")]
pub(super) fn bytes(length: Option<u64>) -> ProgressBar {
    bar(
        length,
        "{bar:40} {bytes}/{total_bytes} {bytes_per_sec}, {eta} left",
    )
}

fn bar(length: Option<u64>, template: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(template).expect("the template is valid");
    let bar = length.map_or_else(ProgressBar::no_length, ProgressBar::new);
    bar.with_style(style)
}
