//! Counts and latency histograms of a load.
//!
//! Which requests count depends on the kind of loop. In a closed loop, those that were answered
//! during the measurement count. In an open loop, those that were due during the measurement count,
//! however late they were sent and answered: leaving out the late ones would hide the stall that
//! made them late (coordinated omission).

use std::time::Duration;

use hdrhistogram::Histogram;

use super::requests::Kind;

/// The highest latency that the histogram distinguishes, in microseconds: ten minutes. Arbitrary.
const MICROS_MAX: u64 = 600_000_000;

/// The measurement window, which decides which requests count. Times are measured from the start of
/// the load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    /// Inclusive.
    pub(super) from: Duration,
    /// Exclusive.
    pub(super) until: Duration,
    pub(super) is_open_loop: bool,
}

/// The counts of one measurement.
#[derive(Debug)]
pub(super) struct Tally {
    window: Window,
    puts: Count,
    gets: Count,
    /// All replies, whether they count or not.
    answers: u64,
    last_answer: Duration,
    first_error: Option<String>,
}

/// The counts of one kind of request.
#[derive(Debug)]
pub(super) struct Count {
    /// The latencies of the successful requests, in microseconds.
    pub(super) micros: Histogram<u64>,
    pub(super) errors: u64,
}

impl Count {
    fn new() -> Self {
        // Three significant digits distinguish 1.00 ms from 1.01 ms.
        let micros = Histogram::new_with_bounds(1, MICROS_MAX, 3).expect("the bounds are in order");
        Self { micros, errors: 0 }
    }
}

impl Tally {
    pub(super) fn new(window: Window) -> Self {
        let (puts, gets) = (Count::new(), Count::new());
        Self { window, puts, gets, answers: 0, last_answer: Duration::ZERO, first_error: None }
    }

    /// Records a reply: `line` arrived at `now`, for a request that was sent, or was due, at
    /// `since`.
    pub(super) fn answered(&mut self, kind: Kind, since: Duration, now: Duration, line: &[u8]) {
        self.answers += 1;
        let is_fine = is_ok(line);
        if !is_fine && self.first_error.is_none() {
            self.first_error = Some(String::from_utf8_lossy(line).into_owned());
        }
        let deciding = if self.window.is_open_loop { since } else { now };
        if !self.counts(deciding) {
            return;
        }
        self.last_answer = self.last_answer.max(now);
        let count = self.of(kind);
        if is_fine {
            let micros = now.saturating_sub(since).as_micros().try_into().unwrap_or(MICROS_MAX);
            count.micros.saturating_record(micros);
        } else {
            count.errors += 1;
        }
    }

    /// Records a request that was sent, or was due, at `since` and got no reply.
    pub(super) fn abandoned(&mut self, kind: Kind, since: Duration) {
        if self.counts(since) {
            self.of(kind).errors += 1;
        }
    }

    fn counts(&self, moment: Duration) -> bool {
        (self.window.from..self.window.until).contains(&moment)
    }

    fn of(&mut self, kind: Kind) -> &mut Count {
        match kind {
            Kind::Put | Kind::Delete => &mut self.puts,
            Kind::Get => &mut self.gets,
        }
    }

    pub(super) fn puts(&self) -> &Count {
        &self.puts
    }

    pub(super) fn gets(&self) -> &Count {
        &self.gets
    }

    /// Returns the number of requests that have succeeded so far.
    pub(super) fn operations(&self) -> u64 {
        self.puts.micros.len() + self.gets.micros.len()
    }

    /// Returns the number of replies, whether they count or not.
    pub(super) fn answers(&self) -> u64 {
        self.answers
    }

    /// Returns the first reply that was not `ok`, including those of the warm-up.
    pub(super) fn first_error(&self) -> Option<&str> {
        self.first_error.as_deref()
    }

    /// Returns the length of the measurement. In an open loop it extends to the last reply that
    /// counts: a server that cannot keep up takes longer than the window.
    pub(super) fn elapsed(&self) -> Duration {
        let end = if self.window.is_open_loop { self.last_answer } else { Duration::ZERO };
        end.max(self.window.until) - self.window.from
    }
}

/// Returns whether a reply reports success. Values and keys of a benchmark contain no quotes, so
/// these words appear nowhere else in a reply.
fn is_ok(line: &[u8]) -> bool {
    const OK: &[u8] = b"\"status\":\"ok\"";
    line.strip_suffix(b"}").is_some_and(|line| line.ends_with(OK))
        || line.windows(OK.len()).any(|at| at == OK)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OK: &[u8] = br#"{"key":"k","value":"v","status":"ok"}"#;
    const MISSING: &[u8] = br#"{"key":"k","value":null,"status":"error"}"#;

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    fn window(is_open_loop: bool) -> Window {
        Window { from: seconds(1), until: seconds(3), is_open_loop }
    }

    #[test]
    fn a_reply_is_read_for_its_status_alone() {
        assert!(is_ok(OK));
        assert!(is_ok(br#"{"status":"ok","id":7}"#));
        assert!(!is_ok(MISSING));
        assert!(!is_ok(b""));
    }

    #[test]
    fn a_closed_loop_counts_what_is_answered_in_time() {
        let mut tally = Tally::new(window(false));
        tally.answered(Kind::Put, seconds(0), Duration::from_millis(999), OK);
        tally.answered(Kind::Put, seconds(0), seconds(1), OK);
        tally.answered(Kind::Get, seconds(2), seconds(2), MISSING);
        tally.answered(Kind::Get, seconds(2), seconds(3), OK);
        assert_eq!((tally.puts().micros.len(), tally.puts().errors), (1, 0));
        assert_eq!((tally.gets().micros.len(), tally.gets().errors), (0, 1));
        assert_eq!(tally.elapsed(), seconds(2));
        assert!(tally.first_error().is_some_and(|line| line.contains("null")));
    }

    #[test]
    fn an_open_loop_counts_what_was_due_in_time_and_takes_as_long_as_the_answers() {
        let mut tally = Tally::new(window(true));
        tally.answered(Kind::Put, seconds(0), seconds(2), OK);
        tally.answered(Kind::Put, seconds(2), seconds(7), OK);
        tally.abandoned(Kind::Get, seconds(2));
        tally.abandoned(Kind::Get, seconds(3));
        assert_eq!(tally.puts().micros.len(), 1);
        assert_eq!(tally.gets().errors, 1);
        assert_eq!(tally.elapsed(), seconds(6));
    }
}
