//! A hash table from keys to their content: open addressing with linear probing, and no tombstones.
//!
//! A look-up touches one place in memory, because the slot holds the key's hash beside the
//! references to key and value. So the text of a key is compared only once, when the hash matches.
//! Tables with control bytes apart from their slots touch two places, and with the maps of several
//! nodes in one process, these memory accesses are the cost of a look-up.

use super::text::Key;

/// The number of slots when the first key is added.
const SLOTS_MIN: usize = 8;

/// The table grows when more than this many of four slots are full: beyond, probe sequences get
/// long.
const FILLED_OF_FOUR: usize = 3;

/// The hash table.
#[derive(Clone, Debug)]
pub(super) struct Table<T> {
    /// The slots: none, a power of two, or one and a half times that. At least one of them is
    /// empty.
    slots: Vec<Option<(Key, T)>>,
    len: usize,
    seed: u64,
}

impl<T> Table<T> {
    /// An empty table. A client that does not know the seed cannot choose keys that collide.
    pub(super) fn seeded(seed: u64) -> Self {
        Self { slots: Vec::new(), len: 0, seed }
    }

    pub(super) fn get(&self, key: &Key) -> Option<&T> {
        self.get_pair(key).map(|(_, held)| held)
    }

    /// The table's own copy of the key, and its content.
    pub(super) fn get_pair(&self, key: &Key) -> Option<&(Key, T)> {
        self.slots.get(self.find(key)?)?.as_ref()
    }

    #[inline]
    pub(super) fn get_mut(&mut self, key: &Key) -> Option<&mut T> {
        let at = self.find(key)?;
        self.slots[at].as_mut().map(|(_, held)| held)
    }

    /// Adds a key that is absent.
    pub(super) fn insert(&mut self, key: &Key, held: T) {
        if 4 * (self.len + 1) > FILLED_OF_FOUR * self.slots.len() {
            self.grow();
        }
        let at = self.find(key).expect("there is an empty slot");
        debug_assert!(self.slots[at].is_none(), "the key is absent");
        self.slots[at] = Some((key.clone(), held));
        self.len += 1;
    }

    /// Removes a key. Returns its content.
    pub(super) fn remove(&mut self, key: &Key) -> Option<T> {
        let mut gap = self.find(key)?;
        let (_, removed) = self.slots[gap].take()?;
        self.len -= 1;
        // Backward shift: an entry after the gap that was displaced from its home slot moves into
        // the gap, so that no probe ends too early.
        let mut at = gap;
        loop {
            at = self.after(at);
            let Some((key, _)) = &self.slots[at] else { return Some(removed) };
            let home = self.home(key);
            let is_reached_past_gap = self.distance(home, at) >= self.distance(gap, at);
            if is_reached_past_gap {
                self.slots[gap] = self.slots[at].take();
                gap = at;
            }
        }
    }

    /// Returns the slot of the key, or the empty slot where it would be; `None` when there are no
    /// slots.
    #[inline]
    fn find(&self, key: &Key) -> Option<usize> {
        if self.slots.is_empty() {
            return None;
        }
        let mut at = self.home(key);
        while let Some((present, _)) = &self.slots[at]
            && present != key
        {
            at = self.after(at);
        }
        Some(at)
    }

    /// The home slot of a key: the upper bits of a product that depend on all bits of hash and
    /// seed.
    #[inline]
    fn home(&self, key: &Key) -> usize {
        /// Odd, with about as many ones as zeros: the digits of the golden ratio.
        const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
        let mixed = (key.hash() ^ self.seed).wrapping_mul(FACTOR);
        let mixed = (mixed ^ (mixed >> 32) ^ self.seed.rotate_left(32)).wrapping_mul(FACTOR);
        // Maps 32 bits to the slots without a division, for any number of slots.
        let scaled = (mixed >> 32) * self.slots.len() as u64;
        usize::try_from(scaled >> 32).expect("32 bits fit")
    }

    fn after(&self, at: usize) -> usize {
        if at + 1 == self.slots.len() { 0 } else { at + 1 }
    }

    /// The number of steps from one slot to another.
    fn distance(&self, from: usize, to: usize) -> usize {
        if from <= to { to - from } else { to + self.slots.len() - from }
    }

    /// Makes room by half as many slots again, or a third, in turns. Doubling would leave more than
    /// half of the slots empty for most of the time, and their memory decides how many look-ups
    /// miss the caches.
    fn grow(&mut self) {
        let len = match self.slots.len() {
            0 => SLOTS_MIN,
            len if len.is_power_of_two() => len / 2 * 3,
            len => len / 3 * 4,
        };
        let full = std::mem::take(&mut self.slots);
        self.slots.resize_with(len, || None);
        for (key, held) in full.into_iter().flatten() {
            let at = self.find(&key).expect("there is an empty slot");
            self.slots[at] = Some((key, held));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn key(number: u32) -> Key {
        Key::new(&format!("k{number}")).unwrap()
    }

    fn held(number: u32) -> String {
        number.to_string()
    }

    fn check(table: &Table<String>, tree: &BTreeMap<Key, String>, numbers: u32) {
        assert_eq!(table.len, tree.len());
        assert_eq!(table.slots.iter().flatten().count(), tree.len());
        assert!((0..numbers).all(|number| table.get(&key(number)) == tree.get(&key(number))));
    }

    #[test]
    fn it_behaves_like_a_tree_for_any_seed() {
        for seed in 0..40 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut table: Table<String> = Table::seeded(rng.u64(..));
            let mut tree = BTreeMap::new();
            // Few keys in few slots, so that runs of full slots wrap around the end; with more keys
            // the table grows.
            let numbers = [5, 6, 12, 300][rng.usize(..4)];
            for _ in 0..2000 {
                let (key, held) = (key(rng.u32(..numbers)), held(rng.u32(..)));
                if rng.bool() {
                    match table.get_mut(&key) {
                        Some(present) => present.clone_from(&held),
                        None => table.insert(&key, held.clone()),
                    }
                    tree.insert(key, held);
                } else {
                    assert_eq!(table.remove(&key), tree.remove(&key));
                }
                if numbers < 100 {
                    check(&table, &tree, numbers);
                }
            }
            check(&table, &tree, numbers);
        }
    }

    #[test]
    fn an_empty_table_has_no_slots_and_a_full_one_an_empty_slot() {
        let mut table = Table::seeded(1);
        assert!(table.slots.is_empty() && table.get(&key(0)).is_none() && table.remove(&key(0)).is_none());
        for number in 0..1000 {
            table.insert(&key(number), held(number));
            assert!(4 * table.len <= FILLED_OF_FOUR * table.slots.len());
        }
        assert_eq!(table.slots.len(), 1536);
    }

    #[test]
    fn the_seed_decides_where_keys_are() {
        let places = |seed| {
            let mut table = Table::seeded(seed);
            for number in 0..100 {
                table.insert(&key(number), held(0));
            }
            (0..100).map(|number| table.find(&key(number))).collect::<Vec<_>>()
        };
        assert_eq!(places(1), places(1));
        assert_ne!(places(1), places(2));
    }
}
