//! The holder's view of its lock: when to renew it, and when it must be taken for lost.
//!
//! The holder cannot know when the server has committed a renewal, but it knows when it has asked
//! for it, which was before. So it counts the time to live from there, by its monotonic clock, and
//! gives up a little earlier than the server does.

use std::time::{Duration, Instant};

/// A lock that is renewed.
#[derive(Debug)]
pub(super) struct Lease {
    ttl: Duration,
    /// When the last renewal that took effect was asked for.
    from: Instant,
    /// When a renewal was last asked for.
    asked_at: Instant,
    is_replaced: bool,
}

impl Lease {
    /// A lock that a request at `asked_at` has acquired.
    pub(super) fn new(ttl: Duration, asked_at: Instant) -> Self {
        Self { ttl, from: asked_at, asked_at, is_replaced: false }
    }

    /// Returns whether the next renewal is due: three fit into the time to live.
    pub(super) fn wants_renewal(&self, now: Instant) -> bool {
        now >= self.asked_at + self.ttl / 3
    }

    /// Notes that a renewal was asked for.
    pub(super) fn asked(&mut self, now: Instant) {
        self.asked_at = now;
    }

    /// Notes that the renewal asked for at `asked_at` took effect.
    pub(super) fn renewed(&mut self, asked_at: Instant) {
        self.from = self.from.max(asked_at);
    }

    /// Notes that the key has another value, or none.
    pub(super) fn replaced(&mut self) {
        self.is_replaced = true;
    }

    /// Returns whether another holder may have the lock: nine tenths of the time to live have
    /// passed. The last tenth is for the command to end.
    pub(super) fn is_lost(&self, now: Instant) -> bool {
        self.is_replaced || now >= self.from + self.ttl * 9 / 10
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_renewed_in_time_and_lost_before_it_expires() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut lease = Lease::new(Duration::from_millis(3000), start);
        assert!(!lease.wants_renewal(at(999)) && lease.wants_renewal(at(1000)));
        lease.asked(at(1000));
        assert!(!lease.wants_renewal(at(1999)) && lease.wants_renewal(at(2000)));
        assert!(!lease.is_lost(at(2699)) && lease.is_lost(at(2700)));
        lease.renewed(at(1000));
        assert!(!lease.is_lost(at(3699)) && lease.is_lost(at(3700)));
        lease.renewed(start);
        assert!(!lease.is_lost(at(3699)), "a late reply changes nothing");
        lease.replaced();
        assert!(lease.is_lost(start));
    }
}
