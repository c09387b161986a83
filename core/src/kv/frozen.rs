//! A point-in-time view of the map (copy-on-write), read in parts while the map goes on changing.
//!
//! A snapshot of a million keys takes a while, and no step may take long. So nothing is copied when
//! the state is frozen. From then on, the first change of each key that was not read yet saves the
//! key's old value here. The reader returns the saved value where there is one, and the value in
//! the map elsewhere. The cost is one look-up per write while a snapshot is taken, and memory for
//! the keys that change meanwhile.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::ops::Bound;

use super::map::Map;
use super::revision::{KeyMeta, Revision};
use super::table::Held;
use super::text::{Key, push_json_string};
use crate::mutant::{self, Mutant};

/// The facts about the frozen moment that the map itself no longer holds.
#[derive(Clone, Debug)]
pub(super) struct Frozen {
    /// The entry that had raised the level; [`Revision::NONE`]: the level was the first one.
    first: Revision,
    /// All keys up to this one were read.
    read_to: Option<Key>,
    /// The old content of keys that have changed since the freeze and were not read yet; `None`:
    /// the key was absent.
    before: BTreeMap<Key, Option<Held>>,
}

impl Frozen {
    pub(super) fn new(first: Revision) -> Self {
        Self { first, read_to: None, before: BTreeMap::new() }
    }

    /// Saves the content of `key` in `values` before it changes.
    pub(super) fn preserve(&mut self, key: &Key, values: &Map) {
        let is_read = self.read_to.as_ref().is_some_and(|read_to| key <= read_to);
        if !is_read && !self.before.contains_key(key) && !mutant::is_active(Mutant::FrozenStateChanges) {
            self.before.insert(key.clone(), values.get(key).cloned());
        }
    }

    /// Appends lines to `text` until it holds `bytes_max` bytes or all keys were read. Returns
    /// whether all were read.
    pub(super) fn read(&mut self, values: &Map, text: &mut String, bytes_max: usize) -> bool {
        let read_to = self.read_to.clone();
        let start = read_to.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut now = values.range_from(start.map(Key::as_str)).peekable();
        let mut before = self.before.range((start, Bound::Unbounded)).peekable();
        let mut last = None;
        let is_done = loop {
            if text.len() >= bytes_max {
                break now.peek().is_none() && before.peek().is_none();
            }
            let changed_first = match (now.peek(), before.peek()) {
                (None, None) => break true,
                (Some((now, _)), Some((before, _))) => before <= now,
                (now, _) => now.is_none(),
            };
            let (key, held) = if changed_first {
                let (key, held) = before.next().expect("it was looked at");
                now.next_if(|(same, _)| *same == key);
                (key, held.as_ref())
            } else {
                let (key, held) = now.next().expect("it was looked at");
                (key, Some(held))
            };
            if let Some(held) = held {
                push_line(text, key, held, self.first);
            }
            last = Some(key);
        };
        if let Some(last) = last.cloned() {
            self.before = self.before.split_off(&last);
            self.before.remove(&last);
            self.read_to = Some(last);
        }
        is_done
    }
}

/// Appends the line of a key. `first` is the entry from which revisions are counted, if the level
/// was raised.
fn push_line(text: &mut String, key: &Key, held: &Held, first: Revision) {
    text.push_str("{\"key\":");
    push_json_string(text, key.as_str());
    if first > Revision::NONE {
        let meta = held.meta.counted_from(first);
        let created = created_by_mutant(&meta).unwrap_or(meta.created);
        write!(text, ",\"rev\":{},\"created\":{created}", meta.rev).expect("a String takes any text");
    }
    text.push_str(",\"value\":");
    text.push_str(held.value.as_json());
    text.push_str("}\n");
}

/// Deliberate bug: a snapshot says of each key that its last change created it.
fn created_by_mutant(meta: &KeyMeta) -> Option<Revision> {
    mutant::is_active(Mutant::CreationNotSaved).then_some(meta.rev)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::text::Value;

    fn key(number: u32) -> Key {
        Key::new(&format!("k{number:02}")).unwrap()
    }

    fn value(number: u32) -> Value {
        Value::from_json(&number.to_string()).unwrap()
    }

    #[test]
    fn a_frozen_view_is_not_affected_by_later_changes() {
        let mut rng = fastrand::Rng::with_seed(11);
        for first in (0..2000).map(|round| Revision(round % 40)) {
            let mut values = Map::default();
            let rev = |rng: &mut fastrand::Rng| Revision(rng.u64(1..50));
            (0..rng.u32(0..40)).for_each(|_| {
                values.set(&key(rng.u32(0..40)), &value(rng.u32(..)), rev(&mut rng));
            });
            let moment = values.clone();
            let mut frozen = Frozen::new(first);
            let mut text = String::new();
            loop {
                for _ in 0..rng.u32(0..6) {
                    let key = key(rng.u32(0..40));
                    frozen.preserve(&key, &values);
                    if rng.bool() {
                        values.set(&key, &value(rng.u32(..)), rev(&mut rng));
                    } else {
                        values.remove(&key);
                    }
                }
                let limit = text.len() + rng.usize(1..80);
                if frozen.read(&values, &mut text, limit) {
                    break;
                }
            }
            let mut expected = String::new();
            moment.iter().for_each(|(key, held)| push_line(&mut expected, key, held, first));
            assert_eq!(text, expected);
        }
    }

    #[test]
    fn a_line_has_revisions_once_the_level_is_raised() {
        let mut values = Map::default();
        values.set(&key(1), &value(5), Revision(3));
        values.set(&key(1), &value(6), Revision(9));
        let line = |first| {
            let mut text = String::new();
            Frozen::new(Revision(first)).read(&values, &mut text, 1);
            text
        };
        assert_eq!(line(0), "{\"key\":\"k01\",\"value\":6}\n");
        assert_eq!(line(2), "{\"key\":\"k01\",\"rev\":9,\"created\":3,\"value\":6}\n");
        assert_eq!(line(7), "{\"key\":\"k01\",\"rev\":9,\"created\":7,\"value\":6}\n");
    }
}
