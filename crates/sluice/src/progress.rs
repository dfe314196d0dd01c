//! Progress bars: on a terminal only, never in a log or a pipe.

use std::{io::IsTerminal as _, time::Duration};

use indicatif::{ProgressBar, ProgressStyle};

/// How often a bar is drawn anew.
const DRAW_EVERY: Duration = Duration::from_millis(100);

/// A bar on standard error. `known` is its template when the end is known,
/// `unknown` when it isn't.
pub(crate) fn bar(end: Option<u64>, known: &str, unknown: &str) -> ProgressBar {
    let bar = match (std::io::stderr().is_terminal(), end) {
        (false, _) => ProgressBar::hidden(),
        (true, Some(end)) => ProgressBar::new(end).with_style(style(known).progress_chars("=> ")),
        (true, None) => ProgressBar::new_spinner().with_style(style(unknown)),
    };
    bar.enable_steady_tick(DRAW_EVERY);
    bar
}

/// A bar for bytes on their way, under a heading such as `sending`.
pub(crate) fn bytes(size: Option<u64>, heading: &'static str) -> ProgressBar {
    let known = "{msg}  {bar:30} {percent:>3}%  {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left";
    bar(size, known, "{msg}  {spinner} {bytes}  {bytes_per_sec}  {elapsed}").with_message(heading)
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
