//! Changes of keys: what a log entry did to the map, as watchers are told.
//!
//! The store notes the changes of the entry that it is applying, and the replica moves them into
//! its [history](super::History) after each entry. Nearly every entry changes one key, so that case
//! needs no allocation: an event holds two references to texts that the map holds as well.

use super::revision::Revision;
use super::text::{Key, Value};

/// The reason why a key was removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Because {
    /// A client has deleted it.
    Delete,
    /// Its time to live has ended.
    Expire,
}

impl Because {
    /// The name of the reason in the protocol.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Delete => "delete",
            Self::Expire => "expire",
        }
    }
}

/// A change of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The key has this value now.
    Set(Value),
    /// The key was removed.
    Removed(Because),
}

/// A change with its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeEvent {
    /// The key.
    pub key: Key,
    /// Its change.
    pub change: Change,
}

impl ChangeEvent {
    /// The number of bytes of key and value.
    #[must_use]
    pub fn text_bytes(&self) -> usize {
        let value = if let Change::Set(value) = &self.change { value.as_json().len() } else { 0 };
        self.key.as_str().len() + value
    }
}

/// Changes of one entry, in the order in which they were made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Changes {
    /// None.
    #[default]
    None,
    /// One.
    One(ChangeEvent),
    /// Two or more.
    Many(Vec<ChangeEvent>),
}

impl Changes {
    /// Adds a change.
    #[inline]
    pub(super) fn push(&mut self, event: ChangeEvent) {
        match self {
            Self::None => *self = Self::One(event),
            Self::One(_) => {
                if let Self::One(first) = std::mem::take(self) {
                    *self = Self::Many(vec![first, event]);
                }
            }
            Self::Many(events) => events.push(event),
        }
    }

    /// The changes.
    #[must_use]
    pub fn as_slice(&self) -> &[ChangeEvent] {
        match self {
            Self::None => &[],
            Self::One(event) => std::slice::from_ref(event),
            Self::Many(events) => events,
        }
    }

    /// Returns whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::None)
    }
}

/// The changes that one entry made, or those of them that a watch selects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangedEntry {
    /// The entry.
    pub rev: Revision,
    /// Its changes.
    pub changes: Changes,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn removal(key: &str) -> ChangeEvent {
        ChangeEvent { key: Key::new(key).unwrap(), change: Change::Removed(Because::Delete) }
    }

    #[test]
    fn changes_keep_their_order() {
        let mut changes = Changes::default();
        assert!(changes.is_empty() && changes.as_slice().is_empty());
        for (count, key) in (1..).zip(["b", "a", "c"]) {
            changes.push(removal(key));
            assert_eq!(changes.as_slice().len(), count);
        }
        let keys: Vec<_> = changes.as_slice().iter().map(|event| event.key.as_str()).collect();
        assert_eq!(keys, ["b", "a", "c"]);
    }

    /// The history holds tens of thousands of these.
    #[test]
    fn the_change_of_one_key_is_small() {
        assert!(size_of::<ChangedEntry>() <= 56, "{}", size_of::<ChangedEntry>());
    }
}
