//! The key-value store: executes commands and answers queries on the map.

use std::ops::Bound;

use super::change::{Because, Change, ChangeEvent, Changes};
use super::command::Command;
use super::counter;
use super::expiry::{Expiries, Expiry};
use super::frozen::Frozen;
use super::level::Level;
use super::map::{Held, Map};
use super::outcome::{Applied, Outcome};
use super::revision::{KeyMeta, Revision, Stamp};
use super::scan::{Found, Item, Page, Query, Scan, ScanContent};
use super::selection::Selection;
use super::text::{Key, Value};
use super::ttl::{LogTime, Tick, Ttl};
use super::txn::Expected;
use super::views::{ViewId, ViewPart, Views};
use crate::mutant::{self, Mutant};

mod transaction;

/// The key-value map.
#[derive(Clone, Debug)]
pub struct Store {
    values: Map,
    expiries: Expiries,
    /// The entry that raised the level; [`Revision::NONE`]: the level is the first one. Revisions
    /// are counted from there.
    first: Revision,
    /// The frozen view, while a snapshot is being taken.
    frozen: Option<Frozen>,
    /// The frozen views of watches.
    pub(super) views: Views,
    /// The changes of the entry that is being applied.
    changes: Changes,
}

impl Default for Store {
    fn default() -> Self {
        Self::seeded(0)
    }
}

/// Two stores are equal when their keys have the same values, the same known revisions and the same
/// expiry. A snapshot in progress makes no difference.
impl PartialEq for Store {
    fn eq(&self, other: &Self) -> bool {
        let is_same = |((key, held), (other_key, other_held)): ((&Key, &Held), (&Key, &Held))| {
            (key, &held.value, self.known(held.stamp), self.expiries.get(key))
                == (other_key, &other_held.value, other.known(other_held.stamp), other.expiries.get(key))
        };
        let is_level = self.first == other.first && self.len() == other.len();
        is_level
            && self.expiries == other.expiries
            && self.values.iter().zip(other.values.iter()).all(is_same)
    }
}

impl Eq for Store {}

impl Store {
    /// An empty store. The seed keeps others from choosing keys that collide in the hash table, and
    /// changes nothing else.
    pub(super) fn seeded(seed: u64) -> Self {
        let (values, expiries) = (Map::seeded(seed), Expiries::seeded(seed));
        let (views, changes) = (Views::default(), Changes::default());
        Self { values, expiries, first: Revision::NONE, frozen: None, views, changes }
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
            Command::PutExpiring { key, value, ttl } => self.set_expiring(key, value, *ttl, at),
            Command::CasExpiring { key, expected, value, ttl } => {
                if self.is_as_expected(key, expected) {
                    self.set_expiring(key, value, *ttl, at)
                } else {
                    self.mismatch(key)
                }
            }
            Command::Touch { key, ttl } => self.change_expiry(key, Some(*ttl), at),
            Command::Persist { key } => self.change_expiry(key, None, at),
            Command::Tick(tick) => self.tick(tick, at),
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

    /// Sets the key, which does not expire from then on.
    fn set(&mut self, key: &Key, value: &Value, at: Revision) -> Applied {
        self.preserve(key);
        let stamp = self.values.set(key, value, at);
        if stamp.expires() && !mutant::is_active(Mutant::PutKeepsExpiry) {
            self.expiries.remove(key);
            self.values.set_expires(key, false);
        }
        self.note_change(key, Change::Set(value.clone()));
        Outcome::Done.with_meta(self.known(stamp))
    }

    fn set_expiring(&mut self, key: &Key, value: &Value, ttl: Ttl, at: Revision) -> Applied {
        self.preserve(key);
        let stamp = self.values.set(key, value, at);
        self.expiries.set(key, ttl, at);
        self.values.set_expires(key, true);
        self.note_change(key, Change::Set(value.clone()));
        Outcome::Done.with_meta(self.known(stamp))
    }

    /// Sets when the key expires, or that it does not, and leaves its value and revisions.
    fn change_expiry(&mut self, key: &Key, ttl: Option<Ttl>, at: Revision) -> Applied {
        let Some(stamp) = self.held(key).map(|held| held.stamp) else {
            return Outcome::NotFound.without_meta();
        };
        self.preserve_for_snapshot(key);
        match ttl {
            Some(ttl) => self.expiries.set(key, kept_by_mutant(&self.expiries, key).unwrap_or(ttl), at),
            None => self.expiries.remove(key),
        }
        self.values.set_expires(key, ttl.is_some());
        Outcome::Done.with_meta(self.known(stamp))
    }

    /// Removes the keys that expire, and dates those that the leader had applied.
    fn tick(&mut self, tick: &Tick, at: Revision) -> Applied {
        let expired = tick.expired.iter().filter(|key| self.expiries.is_expired_by(key, tick.applied));
        let expired: Vec<_> = expired.chain(&self.overdue_here_by_mutant()).cloned().collect();
        for key in &expired {
            self.remove_because(key, at, Because::Expire);
        }
        for key in self.expiries.dated_by(tick.applied) {
            self.preserve_for_snapshot(&key);
            self.expiries.date(&key, tick.time);
        }
        self.expiries.ticked(at, tick.time);
        Outcome::Done.without_meta()
    }

    fn remove(&mut self, key: &Key, at: Revision) -> Applied {
        self.remove_because(key, at, Because::Delete)
    }

    fn remove_because(&mut self, key: &Key, at: Revision, because: Because) -> Applied {
        self.preserve(key);
        let Some(stamp) = self.values.remove(key) else { return Outcome::NotFound.without_meta() };
        if stamp.expires() {
            self.expiries.remove(key);
        }
        self.note_removal_unless_mutant(key, because);
        Outcome::Done.with_meta(self.known(Stamp::of(KeyMeta { rev: at, ..stamp.meta() })))
    }

    /// Notes a change for watchers.
    #[inline]
    fn note_change(&mut self, key: &Key, change: Change) {
        self.changes.push(ChangeEvent { key: key.clone(), change });
    }

    /// Removes the changes that entries have made since the last call.
    #[inline]
    pub(super) fn take_changes(&mut self) -> Changes {
        std::mem::take(&mut self.changes)
    }

    /// Notes a removal for watchers; deliberate bug: does not.
    fn note_removal_unless_mutant(&mut self, key: &Key, because: Because) {
        if !mutant::is_active(Mutant::DeleteNotReported) {
            self.note_change(key, Change::Removed(because));
        }
    }

    /// Adds to the key's number. A key that expires still does.
    fn add(&mut self, key: &Key, by: i64, at: Revision) -> Applied {
        match counter::sum(self.value_of(key), by) {
            Ok(sum) => {
                self.preserve(key);
                let value = counter::value_of(sum);
                let stamp = self.values.set(key, &value, at);
                self.note_change(key, Change::Set(value));
                Outcome::Sum(sum).with_meta(self.meta_of(key, stamp))
            }
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
        let current = self.held(key).map_or(Revision::NONE, |held| self.known(held.stamp).rev);
        current == rev || mutant::is_active(Mutant::RevisionIgnored)
    }

    fn is_as_expected(&self, key: &Key, expected: &Expected) -> bool {
        match expected {
            Expected::Revision(rev) => self.has_revision(key, *rev),
            Expected::Value(value) => self.value_of(key) == Some(value),
            Expected::Absent => self.held(key).is_none(),
        }
    }

    /// The outcome for a key that is not as the command expects.
    fn mismatch(&self, key: &Key) -> Applied {
        let held = self.held(key);
        let actual = held.map(|held| held.value.clone());
        let meta = held.map_or_else(KeyMeta::default, |held| self.known(held.stamp));
        Outcome::Mismatch { actual }.with_meta(meta)
    }

    /// Saves the key for the view of a snapshot before its value or its time to live changes.
    #[inline]
    fn preserve_for_snapshot(&mut self, key: &Key) {
        if let Some(frozen) = &mut self.frozen {
            frozen.preserve(key, &self.values, &self.expiries);
        }
    }

    /// Saves the key for all frozen views before its value changes.
    #[inline]
    fn preserve(&mut self, key: &Key) {
        self.preserve_for_snapshot(key);
        if !self.views.is_empty() {
            self.views.preserve(key, &self.values, &self.expiries);
        }
    }

    /// Freezes the current content of the selected keys as the view `id`. See [`Views::open`].
    pub(super) fn open_view(&mut self, id: ViewId, selection: &Selection, bytes_max: usize) {
        self.views.open(id, Frozen::of_range(self.first, selection.range()), bytes_max);
    }

    /// Reads the next part of a view. See [`Views::read`].
    pub(super) fn read_view(&mut self, id: ViewId, bytes_max: usize) -> Option<ViewPart> {
        self.views.read(id, &self.values, &self.expiries, self.first, bytes_max)
    }

    fn held(&self, key: &Key) -> Option<&Held> {
        self.values.get(key)
    }

    fn value_of(&self, key: &Key) -> Option<&Value> {
        self.held(key).map(|held| &held.value)
    }

    /// The revisions of a key, and the time to live that is left.
    fn meta_of(&self, key: &Key, stamp: Stamp) -> KeyMeta {
        let ttl = if stamp.expires() { self.expiries.left(key) } else { None };
        KeyMeta { ttl, ..self.known(stamp) }
    }

    /// The revisions as every node knows them. See [`Level`].
    fn known(&self, stamp: Stamp) -> KeyMeta {
        let meta = stamp.meta();
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
    pub(crate) fn first_revision(&self) -> Revision {
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
        self.frozen.as_mut().is_none_or(|frozen| frozen.read(&self.values, &self.expiries, text, bytes_max))
    }

    /// Adds a key and its value from a line of [`Store::read_frozen`]. Where the map `beside`, of
    /// another node in this process, has the same key or value, both share the text.
    pub(super) fn restore(
        &mut self,
        key: &Key,
        mut held: Held,
        expiry: Option<Expiry>,
        beside: Option<&Self>,
    ) {
        if let Some(expiry) = expiry {
            held.stamp.set_expires(true);
            self.expiries.restore(key, expiry);
        }
        match beside.and_then(|beside| beside.values.get_pair(key)) {
            Some((shared, same)) if same.value == held.value => {
                self.values.restore(shared, Held { value: same.value.clone(), stamp: held.stamp });
            }
            Some((shared, _)) => self.values.restore(shared, held),
            None => self.values.restore(key, held),
        }
    }

    /// The times to live, read-only.
    pub(super) fn expiries(&self) -> &Expiries {
        &self.expiries
    }

    /// The times to live, to move their clock on or to restore them.
    pub(super) fn expiries_mut(&mut self) -> &mut Expiries {
        &mut self.expiries
    }

    /// The number of keys that expire.
    #[must_use]
    pub fn expiring_len(&self) -> usize {
        self.expiries.len()
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
                Found::Entry(self.held(key).map(|held| (held.value.clone(), self.meta_of(key, held.stamp))))
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
        let meta = self.held(&Key::from_log(key)).map(|held| self.known(held.stamp));
        meta.filter(|meta| meta.is_known())
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
            let meta = if scan.wants_meta { self.meta_of(key, held.stamp) } else { KeyMeta::default() };
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

impl Store {
    /// Deliberate bug: a tick also removes the keys that are due by this node's own clock.
    fn overdue_here_by_mutant(&self) -> Vec<Key> {
        let due = || self.expiries.due_tick(LogTime::default(), Revision::MAX, false, |_| false);
        let tick = mutant::is_active(Mutant::ExpiryJudgedWhenApplied).then(due).flatten();
        tick.map(|tick| tick.expired).unwrap_or_default()
    }
}

/// Deliberate bug: a touch sets the time to live that the key had.
fn kept_by_mutant(expiries: &Expiries, key: &Key) -> Option<Ttl> {
    expiries.get(key).map(|expiry| expiry.ttl).filter(|_| mutant::is_active(Mutant::TouchChangesNothing))
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
