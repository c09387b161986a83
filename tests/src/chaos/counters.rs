//! Counters that only one client increments, each by a compare-and-swap of a session, so that a
//! single read detects every violation.
//!
//! A value below the acknowledged one is a lost write, or a stale read. A value above the last one
//! sent was never written. A swap that does not find the value that its only writer left was
//! applied twice. Unlike the histories, counters have no limit of length.

use std::sync::atomic::{AtomicU32, Ordering};

use super::Violation;

/// One counter.
#[derive(Debug)]
pub(super) struct Counter {
    pub(super) key: String,
    acknowledged: AtomicU32,
    sent: AtomicU32,
}

impl Counter {
    pub(super) fn new(number: usize) -> Self {
        Self { key: format!("counter-{number}"), acknowledged: 0.into(), sent: 0.into() }
    }

    pub(super) fn acknowledged(&self) -> u32 {
        self.acknowledged.load(Ordering::SeqCst)
    }

    pub(super) fn is_in_doubt(&self) -> bool {
        self.sent.load(Ordering::SeqCst) != self.acknowledged()
    }

    /// Marks the next number as sent. Returns the expected value and the number.
    pub(super) fn send(&self) -> (Option<u32>, u32) {
        let known = self.acknowledged();
        self.sent.store(known + 1, Ordering::SeqCst);
        ((known > 0).then_some(known), known + 1)
    }

    pub(super) fn acknowledge(&self) {
        self.acknowledged.store(self.sent.load(Ordering::SeqCst), Ordering::SeqCst);
    }

    /// Records a read of the writer itself, with no request in flight: it reveals the outcome of a
    /// write in doubt.
    pub(super) fn settle(&self, found: Option<u32>) {
        let found = found.unwrap_or(0);
        self.acknowledged.store(found, Ordering::SeqCst);
        self.sent.store(found, Ordering::SeqCst);
    }

    /// Checks a linearizable read that found `found`; `floor` was acknowledged before the read was
    /// sent.
    pub(super) fn check(&self, floor: u32, found: Option<u32>) -> Result<(), Violation> {
        let (found, sent) = (found.unwrap_or(0), self.sent.load(Ordering::SeqCst));
        let what = || format!("{}: {found} was read, {floor} acknowledged before, {sent} sent", self.key);
        if found < floor {
            return Err(Violation { rule: "no loss, no stale read", what: what() });
        }
        if found > sent {
            return Err(Violation { rule: "no invention", what: what() });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_reveals_lost_and_invented_writes() {
        let counter = Counter::new(0);
        assert_eq!(counter.send(), (None, 1));
        counter.acknowledge();
        assert_eq!(counter.send(), (Some(1), 2));
        assert!(counter.is_in_doubt());
        assert!(counter.check(1, Some(1)).is_ok() && counter.check(1, Some(2)).is_ok());
        assert_eq!(counter.check(1, None).unwrap_err().rule, "no loss, no stale read");
        assert_eq!(counter.check(1, Some(3)).unwrap_err().rule, "no invention");
        counter.settle(Some(2));
        assert_eq!(counter.acknowledged(), 2);
    }
}
