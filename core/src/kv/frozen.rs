//! A point-in-time view of the map (copy-on-write), read in parts while the map goes on changing.
//!
//! A snapshot of a million keys takes a while, and no step may take long. So nothing is copied when
//! the state is frozen. From then on, the first change of each key that was not read yet saves the
//! key's old value here. The reader returns the saved value where there is one, and the value in
//! the map elsewhere. The cost is one look-up per write while a snapshot is taken, and memory for
//! the keys that change meanwhile.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::map::Map;
use super::text::{Key, Value, push_json_string};
use crate::mutant::{self, Mutant};

/// The facts about the frozen moment that the map itself no longer holds.
#[derive(Clone, Debug, Default)]
pub(super) struct Frozen {
    /// All keys up to this one were read.
    read_to: Option<Key>,
    /// The old values of keys that have changed since the freeze and were not read yet; `None`: the
    /// key was absent.
    before: BTreeMap<Key, Option<Value>>,
}

impl Frozen {
    /// Saves the value of `key` in `values` before it changes.
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
            let (key, value) = if changed_first {
                let (key, value) = before.next().expect("it was looked at");
                now.next_if(|(same, _)| *same == key);
                (key, value.as_ref())
            } else {
                let (key, value) = now.next().expect("it was looked at");
                (key, Some(value))
            };
            if let Some(value) = value {
                push_line(text, key, value);
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

fn push_line(text: &mut String, key: &Key, value: &Value) {
    text.push_str("{\"key\":");
    push_json_string(text, key.as_str());
    text.push_str(",\"value\":");
    text.push_str(value.as_json());
    text.push_str("}\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u32) -> Key {
        Key::new(&format!("k{number:02}")).unwrap()
    }

    fn value(number: u32) -> Value {
        Value::from_json(&number.to_string()).unwrap()
    }

    #[test]
    fn a_frozen_view_is_not_affected_by_later_changes() {
        let mut rng = fastrand::Rng::with_seed(11);
        for _ in 0..2000 {
            let mut values = Map::default();
            (0..rng.u32(0..40)).for_each(|_| values.insert(&key(rng.u32(0..40)), value(rng.u32(..))));
            let moment = values.clone();
            let mut frozen = Frozen::default();
            let mut text = String::new();
            loop {
                for _ in 0..rng.u32(0..6) {
                    let key = key(rng.u32(0..40));
                    frozen.preserve(&key, &values);
                    if rng.bool() {
                        values.insert(&key, value(rng.u32(..)));
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
            moment.range_from(Bound::Unbounded).for_each(|(key, value)| push_line(&mut expected, key, value));
            assert_eq!(text, expected);
        }
    }
}
