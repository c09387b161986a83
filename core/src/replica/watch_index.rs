//! The index of waiting watches: finds those that a changed key concerns.
//!
//! Ten thousand watchers may wait at a node, and nearly no change concerns any of them. To compare
//! each change with each watcher would make writes slower with every watcher. So a change looks up
//! its key once among the watched keys, and each prefix of its key whose length is that of a
//! watched prefix among the watched prefixes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::interface::RequestId;
use crate::kv::{ChangeEvent, Key, Selection};

/// The waiting requests by what they select.
#[derive(Debug, Default)]
pub(super) struct WatchIndex {
    keys: BTreeMap<Key, BTreeSet<RequestId>>,
    prefixes: BTreeMap<Arc<str>, BTreeSet<RequestId>>,
    /// The number of different prefixes of each length in bytes.
    lengths: BTreeMap<usize, usize>,
}

impl WatchIndex {
    pub(super) fn insert(&mut self, id: RequestId, selection: &Selection) {
        match selection {
            Selection::Key(key) => drop(self.keys.entry(key.clone()).or_default().insert(id)),
            Selection::Prefix(prefix) => {
                if !self.prefixes.contains_key(prefix) {
                    *self.lengths.entry(prefix.len()).or_default() += 1;
                }
                self.prefixes.entry(Arc::clone(prefix)).or_default().insert(id);
            }
        }
    }

    pub(super) fn remove(&mut self, id: RequestId, selection: &Selection) {
        match selection {
            Selection::Key(key) => {
                let Some(requests) = self.keys.get_mut(key) else { return };
                requests.remove(&id);
                if requests.is_empty() {
                    self.keys.remove(key);
                }
            }
            Selection::Prefix(prefix) => {
                let Some(requests) = self.prefixes.get_mut(prefix) else { return };
                requests.remove(&id);
                if requests.is_empty() {
                    self.remove_prefix(prefix);
                }
            }
        }
    }

    /// Removes and returns the requests that the change concerns.
    pub(super) fn pop_concerned(&mut self, event: &ChangeEvent) -> BTreeSet<RequestId> {
        let mut concerned = self.keys.remove(&event.key).unwrap_or_default();
        let key = event.key.as_str();
        // A prefix that ends within a character has no watcher.
        let prefixes = self.lengths.keys().filter_map(|len| key.get(..*len));
        let watched: Vec<_> = prefixes.filter(|prefix| self.prefixes.contains_key(*prefix)).collect();
        for prefix in watched {
            concerned.append(&mut self.remove_prefix(prefix));
        }
        concerned
    }

    fn remove_prefix(&mut self, prefix: &str) -> BTreeSet<RequestId> {
        let removed = self.prefixes.remove(prefix).unwrap_or_default();
        if let Some(count) = self.lengths.get_mut(&prefix.len()) {
            *count -= 1;
            if *count == 0 {
                self.lengths.remove(&prefix.len());
            }
        }
        removed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::{Because, Change};

    fn event(key: &str) -> ChangeEvent {
        ChangeEvent { key: Key::new(key).unwrap(), change: Change::Removed(Because::Delete) }
    }

    fn index(selections: &[Selection]) -> WatchIndex {
        let mut index = WatchIndex::default();
        for (number, selection) in (0..).zip(selections) {
            index.insert(RequestId(number), selection);
        }
        index
    }

    fn concerned(index: &mut WatchIndex, key: &str) -> Vec<u64> {
        index.pop_concerned(&event(key)).into_iter().map(|id| id.0).collect()
    }

    #[test]
    fn a_change_concerns_those_that_select_its_key() {
        let key = |text: &str| Selection::Key(Key::new(text).unwrap());
        let prefix = |text: &str| Selection::Prefix(text.into());
        let selections =
            [key("a/1"), key("a/2"), prefix(""), prefix("a/"), prefix("a/1"), prefix("b/"), prefix("a/1/x")];
        for changed in ["a/1", "a/10", "b/", "b", "ä", "a/1/x/y"] {
            let mut index = index(&selections);
            let key = event(changed).key;
            let expected =
                (0..).zip(&selections).filter(|(_, it)| it.selects(&key)).map(|(number, _)| number);
            assert_eq!(concerned(&mut index, changed), expected.collect::<Vec<u64>>(), "{changed}");
            assert_eq!(concerned(&mut index, changed), [0; 0], "they wait no longer");
        }
    }

    #[test]
    fn a_request_that_was_removed_leaves_nothing() {
        let selections = [Selection::Prefix("ä".into()), Selection::Prefix("ab".into())];
        let mut index = index(&selections);
        index.remove(RequestId(0), &selections[0]);
        assert_eq!(concerned(&mut index, "ä"), [0; 0]);
        assert_eq!(concerned(&mut index, "€"), [0; 0], "the prefix would end within the character");
        assert_eq!(concerned(&mut index, "abc"), [1]);
        assert!(index.prefixes.is_empty() && index.lengths.is_empty());
    }
}
