//! Backoff: how long a node waits before it dials again after a failed connection.

use std::time::Duration;

/// The pause after the first failure.
pub const BACKOFF_MIN: Duration = Duration::from_millis(20);
/// The longest pause: short enough that a node that returns is connected within an election timeout
/// or two.
pub const BACKOFF_MAX: Duration = Duration::from_millis(500);

/// The pause before the next attempt. It doubles with each failure, and half of it is random, so
/// that nodes that lost their connections together do not keep dialling in step.
#[derive(Debug)]
pub struct Backoff {
    rng: fastrand::Rng,
    next: Duration,
}

impl Backoff {
    /// Creates the state before the first failure.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { rng: fastrand::Rng::with_seed(seed), next: BACKOFF_MIN }
    }

    /// Resets the pause after a connection was made.
    pub fn reset(&mut self) {
        self.next = BACKOFF_MIN;
    }

    /// Returns how long to wait after a failure.
    pub fn pause(&mut self) -> Duration {
        let longest = self.next;
        self.next = (2 * self.next).min(BACKOFF_MAX);
        longest.mul_f64(0.5 + 0.5 * self.rng.f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_limit_and_differ() {
        let mut backoff = Backoff::new(1);
        let pauses: Vec<_> = (0..10).map(|_| backoff.pause()).collect();
        assert!(pauses[0] <= BACKOFF_MIN && pauses[0] >= BACKOFF_MIN / 2);
        assert!(pauses[9] <= BACKOFF_MAX && pauses[9] >= BACKOFF_MAX / 2);
        assert_ne!(pauses[8], pauses[9]);
        backoff.reset();
        assert!(backoff.pause() <= BACKOFF_MIN);
    }
}
