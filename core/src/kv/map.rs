//! An ordered map: a hash table for look-ups, and a tree of its keys for scans and snapshots.
//!
//! A put changes the maps of all nodes. In a tree of a hundred thousand keys, each map would
//! compare about twenty keys scattered in memory, which took longer than the rest of a put
//! together. So the hash table finds values, and the tree only keeps the keys in order. The tree
//! changes only when a key is added or removed.
//!
//! Nothing that leaves this file depends on the order of the hash table, which depends on a seed.
//! The price of the tree is a second reference to every key, about thirty bytes.

use std::borrow::Borrow;
use std::collections::BTreeSet;
use std::ops::Bound;

use super::revision::{KeyMeta, Revision};
use super::table::{Held, Table};
use super::text::{Key, Value};
use crate::mutant::{self, Mutant};

/// The number of hash tables. A full table moves all its entries to a larger one at once;
/// with this number of tables, that takes a fraction of a millisecond even for a million keys.
const SHARDS: usize = 256;

/// A key that is ordered by its text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct InOrder(Key);

impl Borrow<str> for InOrder {
    fn borrow(&self) -> &str {
        self.0.as_str()
    }
}

/// A map from keys to values with their revisions.
#[derive(Clone, Debug)]
pub(super) struct Map {
    shards: Box<[Table]>,
    keys: BTreeSet<InOrder>,
    /// The number of bytes of all keys and values.
    text_bytes: usize,
}

impl Default for Map {
    fn default() -> Self {
        Self::seeded(0)
    }
}

impl Map {
    /// An empty map. The seed does not affect its content.
    pub(super) fn seeded(seed: u64) -> Self {
        let table = || Table::seeded(seed);
        let shards = std::iter::repeat_with(table).take(SHARDS).collect();
        Self { shards, keys: BTreeSet::new(), text_bytes: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The number of bytes of all keys and values.
    pub(super) fn text_bytes(&self) -> usize {
        self.text_bytes
    }

    pub(super) fn get(&self, key: &Key) -> Option<&Held> {
        self.shards[shard(key)].get(key)
    }

    /// The map's own copy of the key, and its content.
    pub(super) fn get_pair(&self, key: &Key) -> Option<(&Key, &Held)> {
        self.shards[shard(key)].get_pair(key).map(|(key, held)| (key, held))
    }

    /// Sets a key to a value by the entry at `rev`, and returns the key's revisions.
    #[inline]
    pub(super) fn set(&mut self, key: &Key, value: &Value, rev: Revision) -> KeyMeta {
        self.text_bytes += value.as_json().len();
        let table = &mut self.shards[shard(key)];
        if let Some(present) = table.get_mut(key) {
            let before = std::mem::replace(&mut present.value, value.clone());
            self.text_bytes -= before.as_json().len();
            present.meta.rev = rev;
            present.meta.created = created_again_by_mutant(rev).unwrap_or(present.meta.created);
            return present.meta;
        }
        let meta = KeyMeta::created_at(rev);
        table.insert(key, Held { value: value.clone(), meta });
        self.text_bytes += key.as_str().len();
        self.keys.insert(InOrder(key.clone()));
        meta
    }

    /// Adds a key that is absent.
    pub(super) fn restore(&mut self, key: &Key, held: Held) {
        self.text_bytes += key.as_str().len() + held.value.as_json().len();
        self.shards[shard(key)].insert(key, held);
        self.keys.insert(InOrder(key.clone()));
    }

    /// Removes a key. Returns its revisions, if it was present.
    pub(super) fn remove(&mut self, key: &Key) -> Option<KeyMeta> {
        let held = self.shards[shard(key)].remove(key)?;
        self.text_bytes -= key.as_str().len() + held.value.as_json().len();
        self.keys.remove(key.as_str());
        Some(held.meta)
    }

    /// The last key in order.
    pub(super) fn last_key(&self) -> Option<&Key> {
        self.keys.last().map(|InOrder(key)| key)
    }

    /// Iterates over the keys between two bounds, ascending. Panics when the bounds are in the
    /// wrong order.
    pub(super) fn keys(&self, start: Bound<&str>, end: Bound<&str>) -> impl DoubleEndedIterator<Item = &Key> {
        self.keys.range::<str, _>((start, end)).map(|InOrder(key)| key)
    }

    /// Iterates over the keys between two bounds, ascending, with their content. Panics when the
    /// bounds are in the wrong order.
    pub(super) fn range(
        &self,
        start: Bound<&str>,
        end: Bound<&str>,
    ) -> impl DoubleEndedIterator<Item = (&Key, &Held)> {
        self.keys(start, end).map(|key| (key, self.get(key).expect("every key of the tree is in its table")))
    }

    /// Iterates over the keys from `start` on, ascending, with their content.
    pub(super) fn range_from(&self, start: Bound<&str>) -> impl Iterator<Item = (&Key, &Held)> {
        self.range(start, Bound::Unbounded)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Key, &Held)> {
        self.range_from(Bound::Unbounded)
    }
}

/// Deliberate bug: each change of a key counts as its creation.
fn created_again_by_mutant(rev: Revision) -> Option<Revision> {
    mutant::is_active(Mutant::CreationForgotten).then_some(rev)
}

fn shard(key: &Key) -> usize {
    let [lowest, ..] = key.hash().to_le_bytes();
    usize::from(lowest) % SHARDS
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn key(number: u32) -> Key {
        Key::new(&format!("k{number}")).unwrap()
    }

    fn value(number: u32) -> Value {
        Value::from_json(&number.to_string()).unwrap()
    }

    #[test]
    fn it_behaves_like_a_tree_for_any_seed() {
        for seed in 0..8 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut map = Map::seeded(seed);
            let mut tree: BTreeMap<Key, Held> = BTreeMap::new();
            for rev in (1..4000).map(Revision) {
                let (key, value) = (key(rng.u32(0..300)), value(rng.u32(..)));
                if rng.bool() {
                    let created = tree.get(&key).map_or(rev, |held| held.meta.created);
                    let meta = KeyMeta { rev, created };
                    assert_eq!(map.set(&key, &value, rev), meta);
                    tree.insert(key.clone(), Held { value, meta });
                } else {
                    assert_eq!(map.remove(&key), tree.remove(&key).map(|held| held.meta));
                }
                assert_eq!(map.get(&key), tree.get(&key));
                assert_eq!((map.len(), map.is_empty()), (tree.len(), tree.is_empty()));
            }
            assert!(map.iter().eq(tree.iter()));
            let text = |(key, held): (&Key, &Held)| key.as_str().len() + held.value.as_json().len();
            assert_eq!(map.text_bytes(), tree.iter().map(text).sum::<usize>());
            let (start, end) = (key(150), key(250));
            let bound = Bound::Excluded(start.as_str());
            let from_start = tree.range::<Key, _>((Bound::Excluded(&start), Bound::Unbounded));
            assert!(map.range_from(bound).eq(from_start));
            let between = tree.range::<Key, _>((Bound::Excluded(&start), Bound::Excluded(&end)));
            assert!(map.range(bound, Bound::Excluded(end.as_str())).rev().eq(between.rev()));
        }
    }
}
