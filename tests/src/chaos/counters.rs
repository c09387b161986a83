//! Numbers that only one client counts up, each by a swap of a session, so that a single look tells
//! everything.
//!
//! Less than what was acknowledged is a loss, or a stale read; more than what was sent is an
//! invention; and a swap that does not find what its only writer left there was done twice. Unlike
//! the histories these may be as long as they like.

use std::sync::atomic::{AtomicU32, Ordering};

use super::Violation;

/// One number.
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

    /// The next number is about to be sent. Returns what it takes the place of, and it.
    pub(super) fn send(&self) -> (Option<u32>, u32) {
        let known = self.acknowledged();
        self.sent.store(known + 1, Ordering::SeqCst);
        ((known > 0).then_some(known), known + 1)
    }

    pub(super) fn acknowledge(&self) {
        self.acknowledged.store(self.sent.load(Ordering::SeqCst), Ordering::SeqCst);
    }

    /// The writer itself has read this, with nothing under way: the outcome of what was in doubt.
    pub(super) fn settle(&self, found: Option<u32>) {
        let found = found.unwrap_or(0);
        self.acknowledged.store(found, Ordering::SeqCst);
        self.sent.store(found, Ordering::SeqCst);
    }

    /// A linearizable read found this; `floor` was acknowledged before it was asked.
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
    fn a_look_tells_losses_and_inventions() {
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
