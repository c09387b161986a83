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

use super::table::Table;
use super::text::{Key, Value};

/// The number of hash tables. A full table moves all its entries to one twice as large at once;
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

/// A map from keys to values.
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

/// Two maps are equal when their keys have the same values.
impl PartialEq for Map {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().eq(other.iter())
    }
}

impl Eq for Map {}

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

    pub(super) fn get(&self, key: &Key) -> Option<&Value> {
        self.shards[shard(key)].get(key)
    }

    /// The map's own copy of the key, and its value.
    pub(super) fn get_pair(&self, key: &Key) -> Option<&(Key, Value)> {
        self.shards[shard(key)].get_pair(key)
    }

    /// Sets a key to a value.
    pub(super) fn insert(&mut self, key: &Key, value: Value) {
        self.text_bytes += value.as_json().len();
        match self.shards[shard(key)].insert(key, value) {
            Some(before) => self.text_bytes -= before.as_json().len(),
            None => {
                self.text_bytes += key.as_str().len();
                self.keys.insert(InOrder(key.clone()));
            }
        }
    }

    /// Removes a key. Returns whether it was present.
    pub(super) fn remove(&mut self, key: &Key) -> bool {
        let Some(value) = self.shards[shard(key)].remove(key) else { return false };
        self.text_bytes -= key.as_str().len() + value.as_json().len();
        self.keys.remove(key.as_str());
        true
    }

    /// The last key in order.
    pub(super) fn last_key(&self) -> Option<&Key> {
        self.keys.last().map(|InOrder(key)| key)
    }

    /// Iterates over the keys from `start` on, ascending, with their values.
    pub(super) fn range_from(&self, start: Bound<&str>) -> impl Iterator<Item = (&Key, &Value)> {
        let keys = self.keys.range::<str, _>((start, Bound::Unbounded));
        keys.map(|InOrder(key)| (key, self.get(key).expect("every key of the tree is in its table")))
    }

    fn iter(&self) -> impl Iterator<Item = (&Key, &Value)> {
        self.range_from(Bound::Unbounded)
    }
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
            let mut tree = BTreeMap::new();
            for _ in 0..4000 {
                let (key, value) = (key(rng.u32(0..300)), value(rng.u32(..)));
                if rng.bool() {
                    map.insert(&key, value.clone());
                    tree.insert(key.clone(), value);
                } else {
                    assert_eq!(map.remove(&key), tree.remove(&key).is_some());
                }
                assert_eq!(map.get(&key), tree.get(&key));
                assert_eq!((map.len(), map.is_empty()), (tree.len(), tree.is_empty()));
            }
            assert!(map.iter().eq(tree.iter()));
            let start = key(150);
            let bound = Bound::Excluded(start.as_str());
            assert!(
                map.range_from(bound).eq(tree.range::<Key, _>((Bound::Excluded(&start), Bound::Unbounded)))
            );
        }
    }

    #[test]
    fn maps_are_equal_when_their_keys_have_the_same_values() {
        let filled = |seed| {
            let mut map = Map::seeded(seed);
            (0..100).for_each(|number| map.insert(&key(number), value(number)));
            map
        };
        let (one, mut other) = (filled(1), filled(2));
        assert_eq!(one, other);
        other.insert(&key(7), value(8));
        assert_ne!(one, other);
        other.insert(&key(7), value(7));
        other.remove(&key(8));
        assert_ne!(one, other);
    }
}
