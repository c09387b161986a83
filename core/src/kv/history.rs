//! The history ring: the latest changes, from which watchers are served.
//!
//! A watcher asks for the changes after a revision. The log holds them too, but as commands, whose
//! outcome depends on the map before them: whether a swap took place, which keys a delete by prefix
//! found. So each node keeps what its latest entries did, as it applied them. Equal logs give equal
//! changes, so a watcher may continue at any node.
//!
//! The ring has a limit. It states from which revision on it is complete, and a watcher that needs
//! an older change is told so. It is empty after a snapshot was installed, because the snapshot
//! says what the keys are and not how they became so. Nor does it reach below the entry that raised
//! the level, if keys were changed before: their revisions count from there.

use std::collections::VecDeque;

use super::change::{ChangedEntry, Changes};
use super::revision::Revision;
use crate::mutant::{self, Mutant};

/// The most events in a history ring. Arbitrary: about a second of writes as fast as a cluster can,
/// and hours of ordinary ones.
pub const HISTORY_EVENTS_MAX: usize = 65_536;
/// The most bytes in a history ring: of keys, values, and the structures around them. The latest
/// entry stays even if it is larger.
pub const HISTORY_BYTES_MAX: usize = 16 << 20;
/// The memory of an event without its texts: a place in the ring, and the counters of two texts.
pub(crate) const EVENT_BYTES: usize = 96;

/// The limits of a history ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryLimits {
    /// See [`HISTORY_EVENTS_MAX`].
    pub events: usize,
    /// See [`HISTORY_BYTES_MAX`].
    pub bytes: usize,
}

impl Default for HistoryLimits {
    fn default() -> Self {
        Self { events: HISTORY_EVENTS_MAX, bytes: HISTORY_BYTES_MAX }
    }
}

/// A history ring. See the module.
#[derive(Debug)]
pub struct History {
    limits: HistoryLimits,
    /// The entries that changed keys, ascending.
    entries: VecDeque<ChangedEntry>,
    events: usize,
    text_bytes: usize,
    /// All changes from this revision on are in `entries`.
    oldest: Revision,
}

impl History {
    /// An empty history of a map that the entry at `last` was the last one to change.
    pub(crate) fn new(limits: HistoryLimits, last: Revision) -> Self {
        let (entries, oldest) = (VecDeque::new(), Revision(last.0 + 1));
        Self { limits, entries, events: 0, text_bytes: 0, oldest }
    }

    /// Forgets everything: the map was replaced by one that the entry at `last` was the last one to
    /// change. Deliberate bug: forgets nothing.
    pub(crate) fn restart_unless_mutant(&mut self, last: Revision) {
        if !mutant::is_active(Mutant::HistoryKept) {
            *self = Self::new(self.limits, last);
        }
    }

    /// Notes that the entry at `rev` has raised the level, so that no older change has a revision.
    pub(crate) fn level_raised(&mut self, rev: Revision) {
        let has_older = !self.entries.is_empty() || self.oldest > Revision(1);
        if has_older {
            *self = Self::new(self.limits, Revision(rev.0 - 1));
        }
    }

    /// Adds the changes of an entry, which come after all others.
    #[inline]
    pub(crate) fn push(&mut self, rev: Revision, changes: Changes) {
        for event in changes.as_slice() {
            self.events += 1;
            self.text_bytes += event.text_bytes();
        }
        self.entries.push_back(ChangedEntry { rev, changes });
        while self.is_too_large() && self.entries.len() > 1 && !mutant::is_active(Mutant::HistoryUnlimited) {
            self.forget_first();
        }
    }

    fn is_too_large(&self) -> bool {
        self.events > self.limits.events || self.text_bytes + EVENT_BYTES * self.events > self.limits.bytes
    }

    fn forget_first(&mut self) {
        let Some(first) = self.entries.pop_front() else { return };
        for event in first.changes.as_slice() {
            self.events -= 1;
            self.text_bytes -= event.text_bytes();
        }
        self.oldest = Revision(first.rev.0 + 1);
    }

    /// The revision from which on the history is complete.
    #[must_use]
    pub fn oldest(&self) -> Revision {
        self.oldest
    }

    /// Returns whether the history has all changes after `rev`.
    #[must_use]
    pub fn reaches(&self, rev: Revision) -> bool {
        rev.0 + 1 >= self.oldest.0 || mutant::is_active(Mutant::LagNotNoticed)
    }

    /// The entries after `rev` that changed keys, ascending.
    pub fn after(&self, rev: Revision) -> impl Iterator<Item = &ChangedEntry> {
        let skipped = self.entries.partition_point(|entry| entry.rev <= rev);
        self.entries.range((skipped + one_more_by_mutant()).min(self.entries.len())..)
    }

    /// The number of events.
    #[must_use]
    pub fn events(&self) -> usize {
        self.events
    }

    /// The number of bytes of keys and values.
    #[must_use]
    pub fn text_bytes(&self) -> usize {
        self.text_bytes
    }

    /// The limits.
    #[must_use]
    pub fn limits(&self) -> HistoryLimits {
        self.limits
    }
}

/// Deliberate bug: how many entries too many are passed over.
fn one_more_by_mutant() -> usize {
    usize::from(mutant::is_active(Mutant::HistorySkipsEntry))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::change::{Because, Change, ChangeEvent};
    use crate::kv::text::{Key, Value};

    fn put(key: &str, json: &str) -> ChangeEvent {
        let value = Value::from_json(json).unwrap();
        ChangeEvent { key: Key::new(key).unwrap(), change: Change::Set(value) }
    }

    fn revisions(history: &History, after: u64) -> Vec<u64> {
        history.after(Revision(after)).map(|entry| entry.rev.0).collect()
    }

    fn history(events: usize, bytes: usize) -> History {
        History::new(HistoryLimits { events, bytes }, Revision(10))
    }

    #[test]
    fn the_history_begins_after_the_last_change_of_the_map() {
        let mut history = history(9, 10_000);
        assert_eq!(history.oldest(), Revision(11));
        assert!(history.reaches(Revision(10)) && !history.reaches(Revision(9)));
        history.push(Revision(12), Changes::One(put("a", "1")));
        history.push(Revision(15), Changes::One(put("b", "1")));
        assert_eq!(revisions(&history, 10), [12, 15]);
        assert_eq!(revisions(&history, 12), [15]);
        assert_eq!(revisions(&history, 14), [15]);
        assert_eq!(revisions(&history, 15), [0; 0]);
        history.restart_unless_mutant(Revision(20));
        assert_eq!((history.oldest(), history.events(), history.text_bytes()), (Revision(21), 0, 0));
    }

    #[test]
    fn the_oldest_entries_leave_first_and_entire() {
        let mut history = history(3, 10_000);
        history.push(Revision(11), Changes::Many(vec![put("a", "1"), put("b", "1")]));
        history.push(Revision(12), Changes::One(put("a", "2")));
        assert_eq!(history.oldest(), Revision(11));
        history.push(Revision(13), Changes::One(put("a", "3")));
        assert_eq!((revisions(&history, 0), history.oldest()), (vec![12, 13], Revision(12)));
        history.push(Revision(14), Changes::Many(vec![put("a", "1"); 7]));
        assert_eq!((revisions(&history, 0), history.events()), (vec![14], 7), "the latest stays");
        let removal = ChangeEvent { key: Key::new("abc").unwrap(), change: Change::Removed(Because::Delete) };
        history.push(Revision(15), Changes::One(removal));
        assert_eq!((revisions(&history, 0), history.text_bytes()), (vec![15], 3));
    }

    #[test]
    fn long_values_count() {
        let long = format!("\"{}\"", "x".repeat(1000));
        let mut history = history(100, 2500);
        (11..20).for_each(|rev| history.push(Revision(rev), Changes::One(put("a", &long))));
        assert_eq!(revisions(&history, 0), [18, 19]);
    }

    #[test]
    fn no_change_from_before_the_level_stays() {
        let mut fresh = History::new(HistoryLimits::default(), Revision::NONE);
        fresh.level_raised(Revision(2));
        assert_eq!(fresh.oldest(), Revision(1), "there was nothing to forget");
        let mut used = History::new(HistoryLimits::default(), Revision::NONE);
        used.push(Revision(2), Changes::One(put("a", "1")));
        used.level_raised(Revision(3));
        assert_eq!((used.oldest(), used.events()), (Revision(3), 0));
    }
}
