//! A hash table in shards, so that growing never takes long.
//!
//! A full table moves all its entries to a larger one at once. In one large table, that would stop
//! a node for many milliseconds, and all nodes at the same entry of the log. So the keys are
//! divided among many tables by their hash, and one of them grows at a time.

use super::table::Table;
use super::text::Key;

/// The number of tables: with a million keys, one of them grows in a fraction of a millisecond.
const SHARDS: usize = 256;

/// A hash table from keys to their content.
#[derive(Clone, Debug)]
pub(super) struct Shards<T> {
    /// The tables: none until the first key is added.
    tables: Vec<Table<T>>,
    seed: u64,
}

impl<T> Shards<T> {
    /// An empty table. A client that does not know the seed cannot choose keys that collide.
    pub(super) fn seeded(seed: u64) -> Self {
        Self { tables: Vec::new(), seed }
    }

    #[inline]
    pub(super) fn get(&self, key: &Key) -> Option<&T> {
        self.tables.get(shard(key))?.get(key)
    }

    /// The table's own copy of the key, and its content.
    pub(super) fn get_pair(&self, key: &Key) -> Option<(&Key, &T)> {
        self.tables.get(shard(key))?.get_pair(key).map(|(key, held)| (key, held))
    }

    #[inline]
    pub(super) fn get_mut(&mut self, key: &Key) -> Option<&mut T> {
        self.tables.get_mut(shard(key))?.get_mut(key)
    }

    /// Adds a key that is absent.
    pub(super) fn insert(&mut self, key: &Key, held: T) {
        if self.tables.is_empty() {
            let seed = self.seed;
            self.tables.resize_with(SHARDS, || Table::seeded(seed));
        }
        self.tables[shard(key)].insert(key, held);
    }

    /// Removes a key. Returns its content.
    pub(super) fn remove(&mut self, key: &Key) -> Option<T> {
        self.tables.get_mut(shard(key))?.remove(key)
    }
}

fn shard(key: &Key) -> usize {
    let [lowest, ..] = key.hash().to_le_bytes();
    usize::from(lowest) % SHARDS
}
