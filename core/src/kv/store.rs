//! The key-value store: executes commands and answers queries on the map.

use std::ops::Bound;

use super::command::Command;
use super::frozen::Frozen;
use super::map::Map;
use super::text::{Key, Value};
use crate::mutant::{self, Mutant};

/// The outcome of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The command took effect.
    Done,
    /// No effect: the key to delete was absent.
    NotFound,
    /// No effect: the key does not have the value that the compare-and-swap expected.
    Mismatch {
        /// The current value of the key, if any.
        actual: Option<Value>,
    },
    /// No effect: the session table has forgotten too much to tell whether the write was applied
    /// before.
    SessionExpired,
}

/// A read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Query {
    /// Asks for the value of one key.
    Value(Key),
    /// Asks for a range of keys and their values.
    Scan(Scan),
}

impl Query {
    /// Returns whether the query is a scan.
    #[must_use]
    pub fn is_scan(&self) -> bool {
        matches!(self, Self::Scan(_))
    }

    /// The number of bytes of keys in the query.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Self::Value(key) => key.as_str().len(),
            Self::Scan(scan) => scan.prefix.len() + scan.after.as_ref().map_or(0, String::len),
        }
    }
}

/// The answer to a [`Query`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// The value, if the key has one.
    Value(Option<Value>),
    /// The keys and values.
    Page(Page),
}

impl Found {
    /// Returns whether this can be the answer to `query`.
    #[must_use]
    pub fn fits(&self, query: &Query) -> bool {
        matches!((self, query), (Self::Value(_), Query::Value(_)) | (Self::Page(_), Query::Scan(_)))
    }
}

/// A range read: keys with a prefix, in ascending order of their bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scan {
    /// Only keys with this prefix; empty for all keys.
    pub prefix: String,
    /// Only keys above this one.
    pub after: Option<String>,
    /// The most items in the answer.
    pub items_max: usize,
    /// The most bytes of keys and values in the answer. One item is returned even if it is larger.
    pub bytes_max: usize,
}

/// The answer to a [`Scan`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The keys and their values, ascending.
    pub items: Vec<(Key, Value)>,
    /// Whether the limits cut off further items.
    pub more: bool,
}

/// The key-value map.
#[derive(Clone, Debug, Default)]
pub struct Store {
    values: Map,
    /// The frozen view, while a snapshot is being taken.
    frozen: Option<Frozen>,
}

/// Two stores are equal when their keys have the same values. A snapshot in progress makes no
/// difference.
impl PartialEq for Store {
    fn eq(&self, other: &Self) -> bool {
        self.values == other.values
    }
}

impl Eq for Store {}

impl Store {
    /// An empty store. The seed keeps others from choosing keys that collide in the hash table, and
    /// changes nothing else.
    pub(super) fn seeded(seed: u64) -> Self {
        Self { values: Map::seeded(seed), frozen: None }
    }

    /// Executes a command.
    pub fn apply(&mut self, command: &Command) -> Outcome {
        if let Some(frozen) = &mut self.frozen {
            frozen.preserve(command.key(), &self.values);
        }
        match command {
            Command::Put { key, value } => {
                self.values.insert(key, value.clone());
                Outcome::Done
            }
            Command::Delete { key } if self.values.remove(key) => Outcome::Done,
            Command::Delete { .. } => Outcome::NotFound,
            Command::Cas { key, expect, value } => {
                let actual = self.values.get(key);
                let is_expected = actual == expect.as_ref() || mutant::is_active(Mutant::SwapIgnoresExpected);
                if !is_expected {
                    return Outcome::Mismatch { actual: actual.cloned() };
                }
                self.values.insert(key, value.clone());
                Outcome::Done
            }
        }
    }

    /// Freezes the current map for [`Store::read_frozen`].
    pub(super) fn freeze(&mut self) {
        self.frozen = Some(Frozen::default());
    }

    /// Discards the frozen map.
    pub(super) fn thaw(&mut self) {
        self.frozen = None;
    }

    /// Appends the next lines of the frozen map to `text`, until it holds `bytes_max` bytes.
    /// Returns whether all lines were read.
    pub(super) fn read_frozen(&mut self, text: &mut String, bytes_max: usize) -> bool {
        self.frozen.as_mut().is_none_or(|frozen| frozen.read(&self.values, text, bytes_max))
    }

    /// Adds a key and its value from a line of [`Store::read_frozen`]. Where the map `beside`, of
    /// another node in this process, has the same key or value, both share the text.
    pub(super) fn restore(&mut self, key: &Key, value: Value, beside: Option<&Self>) {
        match beside.and_then(|beside| beside.values.get_pair(key)) {
            Some((shared, same)) if *same == value => self.values.insert(shared, same.clone()),
            Some((shared, _)) => self.values.insert(shared, value),
            None => self.values.insert(key, value),
        }
    }

    /// The last key in the order of keys.
    pub(super) fn last_key(&self) -> Option<&Key> {
        self.values.last_key()
    }

    /// Answers a query.
    #[must_use]
    pub fn answer(&self, query: &Query) -> Found {
        match query {
            Query::Value(key) => Found::Value(self.values.get(key).cloned()),
            Query::Scan(scan) => Found::Page(self.scan(scan)),
        }
    }

    /// The value of the key.
    #[must_use]
    pub fn value(&self, key: &str) -> Option<&Value> {
        self.values.get(&Key::from_log(key))
    }

    /// The number of keys.
    #[must_use]
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// The number of bytes of all keys and values.
    #[must_use]
    pub fn text_bytes(&self) -> usize {
        self.values.text_bytes()
    }

    /// Returns whether there are no keys.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Returns the keys that `scan` asks for.
    #[must_use]
    pub fn scan(&self, scan: &Scan) -> Page {
        let prefix = scan.prefix.as_str();
        let start = match scan.after.as_deref() {
            Some(after) if after >= prefix => repeated_by_mutant(after).unwrap_or(Bound::Excluded(after)),
            _ => Bound::Included(prefix),
        };
        let mut page = Page::default();
        let mut bytes = 0;
        let range = self.values.range_from(start).skip(skipped_by_mutant(scan));
        for (key, value) in range.take_while(|(key, _)| key.as_str().starts_with(prefix)) {
            bytes += key.as_str().len() + value.as_json().len();
            let is_full = page.items.len() >= scan.items_max;
            if is_full || (bytes > scan.bytes_max && !page.items.is_empty()) {
                page.more = true;
                break;
            }
            page.items.push((key.clone(), value.clone()));
        }
        page
    }
}

/// Deliberate bug: a page begins with the key after which it should begin.
fn repeated_by_mutant(after: &str) -> Option<Bound<&str>> {
    mutant::is_active(Mutant::ScanRepeatsKey).then_some(Bound::Included(after))
}

/// Deliberate bug: how many keys a page leaves out at its start.
fn skipped_by_mutant(scan: &Scan) -> usize {
    usize::from(scan.after.is_some() && mutant::is_active(Mutant::ScanSkipsKey))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Key {
        Key::new(text).unwrap()
    }

    fn value(json: &str) -> Value {
        Value::from_json(json).unwrap()
    }

    fn put(text: &str, json: &str) -> Command {
        Command::Put { key: key(text), value: value(json) }
    }

    fn store_of(keys: &[&str]) -> Store {
        let mut store = Store::default();
        for key in keys {
            store.apply(&put(key, "1"));
        }
        store
    }

    fn scan(prefix: &str, after: Option<&str>, items_max: usize) -> Scan {
        Scan { prefix: prefix.into(), after: after.map(Into::into), items_max, bytes_max: 1 << 20 }
    }

    fn keys(page: &Page) -> Vec<&str> {
        page.items.iter().map(|(key, _)| key.as_str()).collect()
    }

    #[test]
    fn a_put_sets_and_replaces_and_a_delete_removes_once() {
        let mut store = Store::default();
        assert_eq!(store.apply(&put("a", "1")), Outcome::Done);
        assert_eq!(store.apply(&put("a", "[2]")), Outcome::Done);
        assert_eq!(store.value("a").map(Value::as_json), Some("[2]"));
        assert_eq!(store.apply(&Command::Delete { key: key("a") }), Outcome::Done);
        assert_eq!(store.apply(&Command::Delete { key: key("a") }), Outcome::NotFound);
        assert!(store.is_empty());
    }

    #[test]
    fn a_swap_happens_only_on_the_expected_value() {
        let mut store = store_of(&["a"]);
        let swap = |expect: Option<&str>, json| Command::Cas {
            key: key("a"),
            expect: expect.map(value),
            value: value(json),
        };
        let actual = Some(value("1"));
        assert_eq!(store.apply(&swap(None, "9")), Outcome::Mismatch { actual: actual.clone() });
        assert_eq!(store.apply(&swap(Some("2"), "9")), Outcome::Mismatch { actual });
        assert_eq!(store.apply(&swap(Some("1"), "2")), Outcome::Done);
        assert_eq!(store.value("a").map(Value::as_json), Some("2"));
        let absent = Command::Cas { key: key("b"), expect: Some(value("1")), value: value("2") };
        assert_eq!(store.apply(&absent), Outcome::Mismatch { actual: None });
        let create = Command::Cas { key: key("b"), expect: None, value: value("2") };
        assert_eq!(store.apply(&create), Outcome::Done);
    }

    #[test]
    fn a_scan_returns_the_keys_of_a_prefix_in_byte_order() {
        let store = store_of(&["b", "a/2", "a/10", "a", "ä", "a/1", "a0"]);
        assert_eq!(keys(&store.scan(&scan("", None, 99))), ["a", "a/1", "a/10", "a/2", "a0", "b", "ä"]);
        assert_eq!(keys(&store.scan(&scan("a/", None, 99))), ["a/1", "a/10", "a/2"]);
        assert_eq!(keys(&store.scan(&scan("a/", Some("a/1"), 99))), ["a/10", "a/2"]);
        assert_eq!(keys(&store.scan(&scan("a/", Some("a"), 99))), ["a/1", "a/10", "a/2"]);
        assert!(keys(&store.scan(&scan("a/", Some("b"), 99))).is_empty());
    }

    #[test]
    fn a_scan_reports_whether_its_limits_cut_off_items() {
        let store = store_of(&["a", "b", "c"]);
        let two = store.scan(&scan("", None, 2));
        assert_eq!((keys(&two), two.more), (vec!["a", "b"], true));
        assert!(!store.scan(&scan("", None, 3)).more);
        let by_bytes = |bytes_max| store.scan(&Scan { bytes_max, ..scan("", None, 9) });
        assert_eq!(by_bytes(4).items.len(), 2);
        assert!(by_bytes(4).more);
        assert_eq!(by_bytes(0).items.len(), 1);
        assert!(!by_bytes(6).more);
    }
}
