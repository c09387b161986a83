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

use super::revision::{Revision, Stamp};
use super::shards::Shards;
use super::text::{Key, Value};
use crate::mutant::{self, Mutant};

/// The content of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) value: Value,
    pub(super) stamp: Stamp,
}

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
    held: Shards<Held>,
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
        Self { held: Shards::seeded(seed), keys: BTreeSet::new(), text_bytes: 0 }
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
        self.held.get(key)
    }

    /// The map's own copy of the key, and its content.
    pub(super) fn get_pair(&self, key: &Key) -> Option<(&Key, &Held)> {
        self.held.get_pair(key)
    }

    /// Sets a key to a value by the entry at `rev`, and returns the key's stamp. Whether the key
    /// expires is not changed.
    #[inline]
    pub(super) fn set(&mut self, key: &Key, value: &Value, rev: Revision) -> Stamp {
        self.text_bytes += value.as_json().len();
        if let Some(present) = self.held.get_mut(key) {
            let before = std::mem::replace(&mut present.value, value.clone());
            self.text_bytes -= before.as_json().len();
            present.stamp.change(rev);
            present.stamp = created_again_by_mutant(rev).unwrap_or(present.stamp);
            return present.stamp;
        }
        let stamp = Stamp::created_at(rev);
        self.held.insert(key, Held { value: value.clone(), stamp });
        self.text_bytes += key.as_str().len();
        self.keys.insert(InOrder(key.clone()));
        stamp
    }

    /// Sets whether a key expires, if it is present.
    pub(super) fn set_expires(&mut self, key: &Key, expires: bool) {
        if let Some(present) = self.held.get_mut(key) {
            present.stamp.set_expires(expires);
        }
    }

    /// Adds a key that is absent.
    pub(super) fn restore(&mut self, key: &Key, held: Held) {
        self.text_bytes += key.as_str().len() + held.value.as_json().len();
        self.held.insert(key, held);
        self.keys.insert(InOrder(key.clone()));
    }

    /// Removes a key. Returns its stamp, if it was present.
    pub(super) fn remove(&mut self, key: &Key) -> Option<Stamp> {
        let held = self.held.remove(key)?;
        self.text_bytes -= key.as_str().len() + held.value.as_json().len();
        self.keys.remove(key.as_str());
        Some(held.stamp)
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
fn created_again_by_mutant(rev: Revision) -> Option<Stamp> {
    mutant::is_active(Mutant::CreationForgotten).then_some(Stamp::created_at(rev))
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
                    let mut stamp = tree.get(&key).map_or(Stamp::created_at(rev), |held| held.stamp);
                    stamp.change(rev);
                    assert_eq!(map.set(&key, &value, rev), stamp);
                    tree.insert(key.clone(), Held { value, stamp });
                } else {
                    assert_eq!(map.remove(&key), tree.remove(&key).map(|held| held.stamp));
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
