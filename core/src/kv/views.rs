//! The frozen views of watches: the content of a range of keys as of one revision, which a watcher
//! reads at its own pace before it is told of later changes.
//!
//! A view costs memory for each key of its range that changes before it is read. So a view has a
//! limit: beyond it, it is dropped, and its watcher has to begin again. How many there may be, and
//! how long one may wait for its reader, is decided by the replica.

use std::collections::BTreeMap;

use super::expiry::{Expiries, Expiry};
use super::frozen::Frozen;
use super::map::{Held, Map};
use super::revision::Revision;
use super::text::{Key, Value};
use crate::mutant::{self, Mutant};

/// Identifies a view of one node's map, until that node stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ViewId(pub u64);

/// A key of a view with its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ViewItem {
    /// The key.
    pub key: Key,
    /// Its value.
    pub value: Value,
    /// The revision of its last change.
    pub rev: Revision,
}

/// A part of a view.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ViewPart {
    /// The keys, in order.
    pub items: Vec<ViewItem>,
    /// Whether it is the last part.
    pub is_last: bool,
    bytes: usize,
}

impl ViewPart {
    /// The number of bytes of keys and values.
    #[must_use]
    pub fn text_bytes(&self) -> usize {
        self.bytes
    }
}

/// The open views of a store.
#[derive(Clone, Debug, Default)]
pub(crate) struct Views(BTreeMap<ViewId, View>);

#[derive(Clone, Debug)]
struct View {
    frozen: Frozen,
    /// The number of bytes of old content, and its limit.
    bytes: usize,
    bytes_max: usize,
}

impl Views {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn contains(&self, id: ViewId) -> bool {
        self.0.contains_key(&id)
    }

    /// The number of bytes of old content in all views.
    pub(crate) fn bytes(&self) -> usize {
        self.0.values().map(|view| view.bytes).sum()
    }

    /// Opens a view that may hold `bytes_max` bytes of old content.
    pub(super) fn open(&mut self, id: ViewId, frozen: Frozen, bytes_max: usize) {
        self.0.insert(id, View { frozen, bytes: 0, bytes_max });
    }

    pub(super) fn close(&mut self, id: ViewId) {
        self.0.remove(&id);
    }

    /// Saves the content of `key` in `values` before it changes. Drops the views that hold too much
    /// then.
    pub(super) fn preserve(&mut self, key: &Key, values: &Map, expiries: &Expiries) {
        for view in self.0.values_mut().filter(|view| view.frozen.covers(key)) {
            view.preserve_unless_mutant(key, values, expiries);
        }
        self.0.retain(|_, view| view.bytes <= view.bytes_max);
    }

    /// Reads the next items of a view, until they have `bytes_max` bytes or all were read. Then the
    /// view is closed. Revisions count from `first`. `None`: there is no such view.
    pub(super) fn read(
        &mut self,
        id: ViewId,
        values: &Map,
        expiries: &Expiries,
        first: Revision,
        bytes_max: usize,
    ) -> Option<ViewPart> {
        let view = self.0.get_mut(&id)?;
        let mut part = ViewPart::default();
        let push = |part: &mut ViewPart, key: &Key, held: &Held, _: Option<Expiry>| {
            let (key, value) = (key.clone(), held.value.clone());
            part.bytes += key.as_str().len() + value.as_json().len();
            part.items.push(ViewItem { key, value, rev: held.stamp.meta().counted_from(first).rev });
        };
        part.is_last = view.frozen.walk(values, expiries, &mut part, |part| part.bytes >= bytes_max, push);
        view.bytes = view.frozen.saved_bytes();
        if part.is_last {
            self.close(id);
        }
        Some(part)
    }
}

impl View {
    /// Saves the content of a key; deliberate bug: does not, so that the view has later content.
    fn preserve_unless_mutant(&mut self, key: &Key, values: &Map, expiries: &Expiries) {
        if !mutant::is_active(Mutant::ViewChanges) {
            self.bytes += self.frozen.preserve(key, values, expiries);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::command::Command;
    use crate::kv::level::Level;
    use crate::kv::selection::Selection;
    use crate::kv::store::Store;

    const ID: ViewId = ViewId(1);
    const BYTES_MAX: usize = 10_000;

    fn key(text: &str) -> Key {
        Key::new(text).unwrap()
    }

    fn put(store: &mut Store, text: &str, json: &str, at: u64) {
        let command = Command::Put { key: key(text), value: Value::from_json(json).unwrap() };
        store.apply(&command, Revision(at));
    }

    fn store() -> Store {
        let mut store = Store::default();
        store.apply(&Command::RaiseLevel(Level::REVISIONS), Revision(1));
        for (text, at) in [("a", 2), ("b/1", 3), ("b/2", 4), ("b/3", 5), ("c", 6)] {
            put(&mut store, text, "0", at);
        }
        store
    }

    fn items(part: &ViewPart) -> Vec<(&str, &str, u64)> {
        part.items.iter().map(|item| (item.key.as_str(), item.value.as_json(), item.rev.0)).collect()
    }

    #[test]
    fn a_view_has_the_content_as_of_its_opening() {
        let mut store = store();
        store.open_view(ID, &Selection::Prefix("b/".into()), BYTES_MAX);
        put(&mut store, "b/0", "9", 7);
        put(&mut store, "b/2", "9", 8);
        put(&mut store, "c", "9", 9);
        store.apply(&Command::Delete { key: key("b/3") }, Revision(10));
        let first = store.read_view(ID, 4).unwrap();
        assert_eq!((items(&first), first.is_last), (vec![("b/1", "0", 3)], false));
        put(&mut store, "b/1", "9", 11);
        put(&mut store, "b/2", "8", 12);
        let rest = store.read_view(ID, 1000).unwrap();
        assert_eq!((items(&rest), rest.is_last), (vec![("b/2", "0", 4), ("b/3", "0", 5)], true));
        assert!(store.read_view(ID, 1000).is_none() && store.views.is_empty());
    }

    #[test]
    fn a_view_of_one_key_has_only_that_key() {
        let mut store = store();
        store.open_view(ID, &Selection::Key(key("b/2")), BYTES_MAX);
        put(&mut store, "b/2", "9", 7);
        put(&mut store, "b/20", "9", 8);
        let part = store.read_view(ID, 1000).unwrap();
        assert_eq!((items(&part), part.is_last), (vec![("b/2", "0", 4)], true));
    }

    #[test]
    fn a_view_that_holds_too_much_is_dropped() {
        let mut store = Store::default();
        let long = format!("\"{}\"", "x".repeat(BYTES_MAX / 10));
        (0..11).for_each(|number| put(&mut store, &format!("k{number}"), &long, 1));
        store.open_view(ID, &Selection::Prefix("k".into()), BYTES_MAX);
        (0..9).for_each(|number| put(&mut store, &format!("k{number}"), "0", 2));
        assert!(store.views.contains(ID) && store.views.bytes() > BYTES_MAX / 10 * 8);
        (9..11).for_each(|number| put(&mut store, &format!("k{number}"), "0", 3));
        assert!(store.read_view(ID, 1).is_none());
        assert_eq!(store.views.bytes(), 0);
    }
}
