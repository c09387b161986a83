//! The progress display of a benchmark: a line on stderr that is overwritten in place, shown only
//! on a terminal.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

/// The minimum time between two updates of the line. Arbitrary.
const EVERY: Duration = Duration::from_millis(200);

/// The progress line.
#[derive(Debug)]
pub(super) struct Progress {
    is_shown: bool,
    /// Text before every line, such as the round of a comparison.
    pub(super) prefix: String,
    last: Option<Duration>,
}

impl Progress {
    /// Creates a display that is visible only if stderr is a terminal.
    pub(super) fn new() -> Self {
        Self { is_shown: io::stderr().is_terminal(), prefix: String::new(), last: None }
    }

    /// Shows the name of a step that begins.
    pub(super) fn show(&mut self, what: &str) {
        self.last = None;
        if self.is_shown {
            // When stderr is closed, the line is lost.
            _ = write!(io::stderr(), "\r\x1b[K{}{what}", self.prefix);
        }
    }

    /// Shows the progress of a measurement of length `whole`, at most once every [`EVERY`].
    pub(super) fn measure(&mut self, operations: u64, now: Duration, warmup: Duration, whole: Duration) {
        if self.last.is_some_and(|last| now < last + EVERY) {
            return;
        }
        if now < warmup {
            self.show("warming up");
        } else {
            let (done, whole) = ((now - warmup).as_secs_f64(), whole.as_secs_f64());
            let rate = operations as f64 / done.max(0.001);
            self.show(&format!("measuring: {:.1} of {whole:.1} s, {rate:.0} a second", done.min(whole)));
        }
        self.last = Some(now);
    }

    /// Removes the line.
    pub(super) fn clear(&mut self) {
        if self.is_shown {
            _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}
