//! Memory meters for connections between nodes: outboxes, inboxes, and incomplete frames; and the
//! number of clients' connections.
//!
//! Links and connections report often, so they take no lock. Each adds its change to one atomic
//! number, and only if the change is large enough.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::MemoryBudget;
use crate::host::inbox_is_full;

impl MemoryBudget {
    /// The number of clients' connections that have their memory, without those that were evicted.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.held().connections.len()
    }
}

/// The memory of one connection with another node. Dropping it subtracts the memory from the
/// budget.
#[derive(Debug)]
pub(crate) struct PeerMemory {
    budget: MemoryBudget,
    noted: usize,
}

impl PeerMemory {
    /// A meter for a connection that uses no memory yet.
    pub(crate) fn new(budget: &MemoryBudget) -> Self {
        Self { budget: budget.clone(), noted: 0 }
    }

    /// Notes the number of bytes that the connection uses now.
    pub(crate) fn note(&mut self, bytes: usize) {
        let is_near = bytes.abs_diff(self.noted) < self.budget.shares().noted_bytes;
        if bytes == self.noted || (is_near && bytes > 0) {
            return;
        }
        self.budget.count_peers(std::mem::replace(&mut self.noted, bytes), bytes);
    }
}

impl Drop for PeerMemory {
    fn drop(&mut self) {
        self.budget.count_peers(self.noted, 0);
    }
}

/// The bytes of peers' frames in one node's inbox, which has a limit.
#[derive(Debug)]
pub struct InboxMemory {
    budget: MemoryBudget,
    bytes: AtomicUsize,
}

impl InboxMemory {
    /// A meter for an empty inbox.
    #[must_use]
    pub fn new(budget: &MemoryBudget) -> Self {
        Self { budget: budget.clone(), bytes: AtomicUsize::new(0) }
    }

    /// Adds the bytes of a peer's frame.
    pub fn add(&self, bytes: usize) {
        if bytes > 0 {
            self.bytes.fetch_add(bytes, Ordering::Relaxed);
            self.budget.count_peers(0, bytes);
        }
    }

    /// Subtracts the bytes of frames that were taken out.
    pub fn remove(&self, bytes: usize) {
        if bytes > 0 {
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.budget.count_peers(bytes, 0);
        }
    }

    /// Returns whether an inbox with this many items must accept no more from peers. Their
    /// connections are not read then. Raft resends lost messages.
    #[must_use]
    pub fn is_full(&self, items: usize) -> bool {
        inbox_is_full(items) || self.bytes.load(Ordering::Relaxed) >= self.budget.shares().inbox_bytes
    }
}

impl Drop for InboxMemory {
    fn drop(&mut self) {
        self.budget.count_peers(*self.bytes.get_mut(), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::super::MemoryShares;
    use super::*;
    use crate::host::INBOX_BYTES_MAX;
    use crate::host::INBOX_ITEMS_MAX;

    #[test]
    fn an_inbox_is_full_by_items_or_by_bytes() {
        let small = MemoryBudget::new(64 << 20, 1, 0).with_shares(MemoryShares::of_member(64 << 20));
        for (budget, bytes_max) in [(MemoryBudget::unlimited(), INBOX_BYTES_MAX), (small, 4 << 20)] {
            let inbox = InboxMemory::new(&budget);
            inbox.add(bytes_max - 1);
            assert!(!inbox.is_full(INBOX_ITEMS_MAX - 1) && inbox.is_full(INBOX_ITEMS_MAX));
            inbox.add(1);
            assert!(inbox.is_full(1));
            assert_eq!(budget.in_use().peers, bytes_max);
            inbox.remove(2);
            assert!(!inbox.is_full(1));
            drop(inbox);
            assert_eq!(budget.in_use().peers, 0);
        }
    }

    #[test]
    fn small_changes_of_a_connection_are_not_counted() {
        let budget = MemoryBudget::unlimited();
        let noted = budget.shares().noted_bytes;
        let (mut one, mut other) = (PeerMemory::new(&budget), PeerMemory::new(&budget));
        one.note(noted - 1);
        assert_eq!(budget.in_use().peers, 0);
        one.note(noted);
        other.note(5 * noted);
        one.note(noted + 1);
        assert_eq!(budget.in_use().peers, 6 * noted);
        one.note(0);
        drop(other);
        assert_eq!(budget.in_use().peers, 0);
    }
}
