//! The memory use of a replica, cheap enough to be computed in every step.

use super::Replica;
use crate::kv::EVENT_BYTES;
use crate::memory::NodeMemory;

/// The memory per key: a slot in a half-full table, its place in the tree, and the counters of two
/// texts.
const KEY_BYTES: usize = 192;
/// The memory of a key's time to live: a slot in a half-full table, and its place in the schedule.
const EXPIRY_BYTES: usize = 192;

impl Replica {
    /// Sets whether memory is short. If it is, the log that is kept for followers is trimmed as far
    /// as possible, and the next snapshot is due earlier. Otherwise it would never be due, because
    /// the log does not grow while writes are rejected.
    pub fn set_memory_is_short(&mut self, is_short: bool) {
        self.memory_is_short = is_short;
        if is_short {
            self.node.trim_log();
        }
    }

    /// The memory use by category. This costs a look-up in the list of the log's runs.
    #[must_use]
    pub fn memory(&self) -> NodeMemory {
        let count = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        let (store, log) = (self.store(), self.node.log());
        let kept_log = count(log.bytes_up_to(self.snapshot_index()));
        let (sessions, text) = (self.sessions().memory_bytes(), store.text_bytes());
        NodeMemory {
            text: text
                + (count(log.bytes()) - kept_log)
                + self.readings.bytes()
                + self.history().text_bytes(),
            structures: KEY_BYTES * store.len() + EXPIRY_BYTES * store.expiring_len() + self.watch_bytes(),
            sessions,
            kept_log,
            copies: self.snapshots.text_bytes(),
            state_text: text,
        }
    }

    /// The total memory use in bytes, without the look-up.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let (store, log) = (self.store(), usize::try_from(self.node.log().bytes()).unwrap_or(usize::MAX));
        let text = store.text_bytes().saturating_add(log) + self.readings.bytes();
        let text = text + self.history().text_bytes() + self.watch_bytes();
        let structures = KEY_BYTES * store.len() + EXPIRY_BYTES * store.expiring_len();
        text + structures + self.sessions().memory_bytes() + self.snapshots.text_bytes()
    }

    /// The memory of watches, without the texts of the history, which nodes of one process share.
    fn watch_bytes(&self) -> usize {
        EVENT_BYTES * self.history().events() + self.views().1 + self.watches.request_bytes()
    }
}
