//! What is going on, on stderr: a line that is written over and over, and only when somebody sees
//! it.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

/// How often the line changes. Arbitrary.
const EVERY: Duration = Duration::from_millis(200);

/// The line.
#[derive(Debug)]
pub(super) struct Progress {
    is_shown: bool,
    /// Before every line, such as the round of a comparison.
    pub(super) prefix: String,
    last: Option<Duration>,
}

impl Progress {
    /// Shown if stderr is a terminal.
    pub(super) fn new() -> Self {
        Self { is_shown: io::stderr().is_terminal(), prefix: String::new(), last: None }
    }

    /// Shows the beginning of something.
    pub(super) fn show(&mut self, what: &str) {
        self.last = None;
        if self.is_shown {
            // Nobody is left to be told when stderr is closed.
            _ = write!(io::stderr(), "\r\x1b[K{}{what}", self.prefix);
        }
    }

    /// Shows how far a measurement of `whole` has come, unless it did just now.
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

    /// Takes the line away.
    pub(super) fn clear(&mut self) {
        if self.is_shown {
            _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}
