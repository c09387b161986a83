//! The key-value store: executes commands and answers queries on the map.

use std::ops::Bound;

use super::command::Command;
use super::counter;
use super::frozen::Frozen;
use super::level::Level;
use super::map::Map;
use super::outcome::{Applied, Outcome};
use super::revision::{KeyMeta, Revision};
use super::scan::{Found, Item, Page, Query, Scan, ScanContent};
use super::table::Held;
use super::text::{Key, Value};
use crate::mutant::{self, Mutant};

mod transaction;

/// The key-value map.
#[derive(Clone, Debug, Default)]
pub struct Store {
    values: Map,
    /// The entry that raised the level; [`Revision::NONE`]: the level is the first one. Revisions
    /// are counted from there.
    first: Revision,
    /// The frozen view, while a snapshot is being taken.
    frozen: Option<Frozen>,
}

/// Two stores are equal when their keys have the same values and the same known revisions. A
/// snapshot in progress makes no difference.
impl PartialEq for Store {
    fn eq(&self, other: &Self) -> bool {
        let is_same = |((key, held), (other_key, other_held)): ((&Key, &Held), (&Key, &Held))| {
            (key, &held.value, self.meta_of(held))
                == (other_key, &other_held.value, other.meta_of(other_held))
        };
        let is_level = self.first == other.first && self.len() == other.len();
        is_level && self.values.iter().zip(other.values.iter()).all(is_same)
    }
}

impl Eq for Store {}

impl Store {
    /// An empty store. The seed keeps others from choosing keys that collide in the hash table, and
    /// changes nothing else.
    pub(super) fn seeded(seed: u64) -> Self {
        Self { values: Map::seeded(seed), ..Self::default() }
    }

    /// Executes the command of the entry at revision `at`.
    pub fn apply(&mut self, command: &Command, at: Revision) -> Applied {
        match command {
            Command::Put { key, value } => self.set(key, value, at),
            Command::Delete { key } => self.remove(key, at),
            Command::Cas { key, expect, value } => {
                let actual = self.held(key).map(|held| &held.value);
                let is_expected = actual == expect.as_ref() || mutant::is_active(Mutant::SwapIgnoresExpected);
                if is_expected { self.set(key, value, at) } else { self.mismatch(key) }
            }
            Command::DeleteRevision { key, rev } => {
                if self.has_revision(key, *rev) {
                    self.remove(key, at)
                } else {
                    self.mismatch(key)
                }
            }
            Command::CasRevision { key, rev, value } => {
                if self.has_revision(key, *rev) {
                    self.set(key, value, at)
                } else {
                    self.mismatch(key)
                }
            }
            Command::Incr { key, by } => self.add(key, *by, at),
            Command::DeletePrefix { prefix, keys_max } => self.remove_prefix(prefix, *keys_max, at),
            Command::Txn(txn) => self.transact(txn, at),
            Command::RaiseLevel(_) => {
                if self.first == Revision::NONE {
                    self.first = at;
                }
                Outcome::Done.without_meta()
            }
        }
    }

    fn set(&mut self, key: &Key, value: &Value, at: Revision) -> Applied {
        self.preserve(key);
        let meta = self.values.set(key, value, at);
        Outcome::Done.with_meta(self.known(meta))
    }

    fn remove(&mut self, key: &Key, at: Revision) -> Applied {
        self.preserve(key);
        match self.values.remove(key) {
            Some(removed) => Outcome::Done.with_meta(self.known(KeyMeta { rev: at, ..removed })),
            None => Outcome::NotFound.without_meta(),
        }
    }

    fn add(&mut self, key: &Key, by: i64, at: Revision) -> Applied {
        match counter::sum(self.value_of(key), by) {
            Ok(sum) => Outcome::Sum(sum).with_meta(self.set(key, &counter::value_of(sum), at).meta),
            Err(outcome) => outcome.without_meta(),
        }
    }

    fn remove_prefix(&mut self, prefix: &str, keys_max: u32, at: Revision) -> Applied {
        let scan = Scan { prefix: prefix.to_owned(), ..Scan::default() };
        let Some((start, end)) = scan.range() else {
            return Outcome::Deleted { keys: 0, more: false }.without_meta();
        };
        let mut range = self.values.keys(start, end.as_ref().map(String::as_str));
        let most = usize::try_from(keys_max).unwrap_or(usize::MAX).saturating_add(one_more_by_mutant());
        let keys: Vec<_> = range.by_ref().take(most).cloned().collect();
        let more = range.next().is_some();
        drop(range);
        keys.iter().for_each(|key| drop(self.remove(key, at)));
        let removed = u32::try_from(keys.len()).expect("the limit is a small number");
        Outcome::Deleted { keys: removed, more }.without_meta()
    }

    /// Returns whether the key has this revision; [`Revision::NONE`]: whether it is absent.
    fn has_revision(&self, key: &Key, rev: Revision) -> bool {
        let current = self.held(key).map_or(Revision::NONE, |held| self.meta_of(held).rev);
        current == rev || mutant::is_active(Mutant::RevisionIgnored)
    }

    /// The outcome for a key that is not as the command expects.
    fn mismatch(&self, key: &Key) -> Applied {
        let held = self.held(key);
        let actual = held.map(|held| held.value.clone());
        Outcome::Mismatch { actual }.with_meta(held.map_or_else(KeyMeta::default, |held| self.meta_of(held)))
    }

    /// Saves the key for the frozen view before it changes.
    #[inline]
    fn preserve(&mut self, key: &Key) {
        if let Some(frozen) = &mut self.frozen {
            frozen.preserve(key, &self.values);
        }
    }

    fn held(&self, key: &Key) -> Option<&Held> {
        self.values.get(key)
    }

    fn value_of(&self, key: &Key) -> Option<&Value> {
        self.held(key).map(|held| &held.value)
    }

    fn meta_of(&self, held: &Held) -> KeyMeta {
        self.known(held.meta)
    }

    /// The revisions as every node knows them. See [`Level`].
    fn known(&self, meta: KeyMeta) -> KeyMeta {
        match self.level() {
            Level::FIRST => KeyMeta::default(),
            _ => uncounted_by_mutant(meta).unwrap_or_else(|| meta.counted_from(self.first)),
        }
    }

    /// The level.
    #[must_use]
    pub fn level(&self) -> Level {
        if self.first == Revision::NONE { Level::FIRST } else { Level::REVISIONS }
    }

    /// The entry that raised the level, from which revisions are counted; [`Revision::NONE`]: the
    /// level is the first one.
    pub(super) fn first_revision(&self) -> Revision {
        self.first
    }

    /// Sets the entry that raised the level, in a store that is being restored.
    pub(super) fn restore_level(&mut self, first: Revision) {
        self.first = first;
    }

    /// Freezes the current map for [`Store::read_frozen`].
    pub(super) fn freeze(&mut self) {
        self.frozen = Some(Frozen::new(self.first));
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
    pub(super) fn restore(&mut self, key: &Key, held: Held, beside: Option<&Self>) {
        match beside.and_then(|beside| beside.values.get_pair(key)) {
            Some((shared, same)) if same.value == held.value => {
                self.values.restore(shared, Held { value: same.value.clone(), meta: held.meta });
            }
            Some((shared, _)) => self.values.restore(shared, held),
            None => self.values.restore(key, held),
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
            Query::Value(key) => Found::Value(self.value_of(key).cloned()),
            Query::Entry(key) => {
                Found::Entry(self.held(key).map(|held| (held.value.clone(), self.meta_of(held))))
            }
            Query::Scan(scan) if scan.content == ScanContent::Count => Found::Count(self.count(scan)),
            Query::Scan(scan) => Found::Page(self.scan(scan)),
        }
    }

    /// The value of the key.
    #[must_use]
    pub fn value(&self, key: &str) -> Option<&Value> {
        self.value_of(&Key::from_log(key))
    }

    /// The revisions of the key, if it has a value and they are known.
    #[must_use]
    pub fn meta(&self, key: &str) -> Option<KeyMeta> {
        self.held(&Key::from_log(key)).map(|held| self.meta_of(held)).filter(|meta| meta.is_known())
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

    /// Returns the number of keys in the range of `scan`.
    fn count(&self, scan: &Scan) -> u64 {
        let Some((start, end)) = scan.range() else { return 0 };
        self.values.keys(start, end.as_ref().map(String::as_str)).count() as u64
    }

    /// Returns the keys that `scan` asks for.
    #[must_use]
    pub fn scan(&self, scan: &Scan) -> Page {
        let Some((start, end)) = scan.range() else { return Page::default() };
        let start = repeated_by_mutant(scan).unwrap_or(start);
        let end = end_by_mutant(scan).unwrap_or(end.as_ref().map(String::as_str));
        let range = self.values.range(start, end);
        if scan.is_reverse { self.page(scan, range.rev()) } else { self.page(scan, range) }
    }

    fn page<'a>(&self, scan: &Scan, range: impl Iterator<Item = (&'a Key, &'a Held)>) -> Page {
        let (mut page, mut bytes) = (Page::default(), 0);
        for (key, held) in range.skip(skipped_by_mutant(scan)) {
            let value = (scan.content == ScanContent::Values).then(|| held.value.clone());
            let meta = if scan.wants_meta { self.meta_of(held) } else { KeyMeta::default() };
            let item = Item { key: key.clone(), value, meta };
            bytes += item.bytes();
            let is_full = page.items.len() >= scan.items_max;
            if is_full || (bytes > scan.bytes_max && !page.items.is_empty()) {
                page.more = true;
                break;
            }
            page.items.push(item);
        }
        page
    }
}

/// Deliberate bug: a page begins with the key after which it should begin.
fn repeated_by_mutant(scan: &Scan) -> Option<Bound<&str>> {
    let after = scan.after.as_deref().filter(|after| !scan.is_reverse && *after >= &*scan.prefix)?;
    mutant::is_active(Mutant::ScanRepeatsKey).then_some(Bound::Included(after))
}

/// Deliberate bug: how many keys a page leaves out at its start.
fn skipped_by_mutant(scan: &Scan) -> usize {
    usize::from(scan.after.is_some() && mutant::is_active(Mutant::ScanSkipsKey))
}

/// Deliberate bug: a scan returns the key before which it should end.
fn end_by_mutant(scan: &Scan) -> Option<Bound<&str>> {
    let end = scan.end.as_deref()?;
    mutant::is_active(Mutant::ScanEndIncluded).then_some(Bound::Included(end))
}

/// Deliberate bug: the revisions of a key from before the level was raised, which not all nodes
/// know.
fn uncounted_by_mutant(meta: KeyMeta) -> Option<KeyMeta> {
    mutant::is_active(Mutant::OldRevisionsCounted).then_some(meta)
}

/// Deliberate bug: how many keys more than its limit a delete by prefix removes.
fn one_more_by_mutant() -> usize {
    usize::from(mutant::is_active(Mutant::PrefixLimitExceeded))
}

#[cfg(test)]
mod tests;
