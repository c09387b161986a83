//! When a listener accepts the next client.
//!
//! A connection costs more to open than to keep: a socket, memory, on some runtimes threads.
//! Clients that are closed because they use too much memory, and that connect again at once, would
//! occupy the processors with that, and the requests of others would wait. So while memory for
//! clients is short, only a few connections are accepted in a short time; the others wait in the
//! queue of the operating system. With enough memory no client waits, whatever their number.

use std::time::Duration;

use crate::time::Instant;

/// The time in which at most [`ARRIVALS_MAX`] clients are accepted while memory is short.
const WINDOW: Duration = Duration::from_millis(10);
/// The most clients that are accepted in a window while memory is short: 400 in a second.
const ARRIVALS_MAX: u32 = 4;

/// The most connections that are closed and still have threads, before the next one is accepted.
/// Arbitrary: a few megabytes.
const ENDING_MAX: usize = 64;
/// The interval at which the listener counts them again.
const COUNT_AGAIN_AFTER: Duration = Duration::from_millis(1);

/// The clients that a listener has accepted in a short time. It reads no clock: each call provides
/// the time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Arrivals {
    window_end: Instant,
    accepted: u32,
}

impl Arrivals {
    /// Returns the time at which to ask again, or nothing if a client may be accepted at `now`,
    /// which counts it. `is_short`: memory for clients is short. `ending`: the number of
    /// connections that are closed and still have threads. Their memory is in no account any more,
    /// so without a limit they could be any number.
    pub fn next(&mut self, now: Instant, is_short: bool, ending: usize) -> Option<Instant> {
        if ending > ENDING_MAX {
            return Some(now + COUNT_AGAIN_AFTER);
        }
        if now >= self.window_end {
            (self.window_end, self.accepted) = (now + WINDOW, 0);
        }
        if is_short && self.accepted >= ARRIVALS_MAX {
            return Some(self.window_end);
        }
        self.accepted = self.accepted.saturating_add(1);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The number of clients that are accepted in a second if one is always waiting and each takes
    /// `each`.
    fn accepted_in_a_second(is_short: bool, each: Duration) -> u32 {
        let (mut arrivals, mut now, mut accepted) = (Arrivals::default(), Instant::default(), 0);
        let end = now + Duration::from_secs(1);
        while now < end {
            match arrivals.next(now, is_short, 0) {
                Some(later) => now = later,
                None => (accepted, now) = (accepted + 1, now + each),
            }
        }
        accepted
    }

    #[test]
    fn clients_wait_only_while_memory_is_short() {
        let each = Duration::from_micros(10);
        assert_eq!(accepted_in_a_second(false, each), 100_000);
        assert_eq!(accepted_in_a_second(true, each), 100 * ARRIVALS_MAX);
        assert_eq!(accepted_in_a_second(true, Duration::from_millis(5)), 200);
    }

    #[test]
    fn clients_wait_for_the_threads_of_closed_connections() {
        let (mut arrivals, now) = (Arrivals::default(), Instant::default() + Duration::from_secs(9));
        for is_short in [false, true] {
            assert_eq!(arrivals.next(now, is_short, ENDING_MAX + 1), Some(now + COUNT_AGAIN_AFTER));
            assert_eq!(arrivals.next(now, is_short, ENDING_MAX), None);
        }
    }

    #[test]
    fn a_client_waits_no_longer_than_a_window() {
        let (mut arrivals, now) = (Arrivals::default(), Instant::default() + Duration::from_secs(9));
        let waits: Vec<_> = (0..=ARRIVALS_MAX).map(|_| arrivals.next(now, true, 0)).collect();
        assert_eq!(waits[..waits.len() - 1], [None; ARRIVALS_MAX as usize]);
        assert_eq!(waits.last(), Some(&Some(now + WINDOW)));
        assert_eq!(arrivals.next(now + WINDOW, true, 0), None);
    }
}
