//! What a replica holds in memory, as far as it is worth a look every turn.

use super::Replica;
use crate::memory::NodeMemory;

/// A key's slot in a table that is half full, its place in the tree, and the counters of two texts.
const KEY_BYTES: usize = 160;

impl Replica {
    /// From the next step on the log gives way to the state, or need not. What is kept of it for
    /// followers goes as far as it may, and a snapshot is due earlier: while writes are refused the
    /// log does not grow, so the next one would never be due.
    pub fn set_memory_is_short(&mut self, is_short: bool) {
        self.memory_is_short = is_short;
        if is_short {
            self.node.trim_log();
        }
    }

    /// What it holds. It costs a look-up in the list of the log's runs.
    #[must_use]
    pub fn memory(&self) -> NodeMemory {
        let count = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        let (store, log) = (self.store(), self.node.log());
        let kept_log = count(log.bytes_up_to(self.snapshot_index()));
        let (sessions, text) = (self.sessions().memory_bytes(), store.text_bytes());
        NodeMemory {
            text: text + (count(log.bytes()) - kept_log) + self.readings.bytes(),
            structures: KEY_BYTES * store.len(),
            sessions,
            kept_log,
            copies: self.snapshots.text_bytes(),
            state_text: text,
        }
    }

    /// How much that is in all, without the look-up.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let (store, log) = (self.store(), usize::try_from(self.node.log().bytes()).unwrap_or(usize::MAX));
        let text = store.text_bytes().saturating_add(log) + self.readings.bytes();
        text + KEY_BYTES * store.len() + self.sessions().memory_bytes() + self.snapshots.text_bytes()
    }
}
