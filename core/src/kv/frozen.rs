//! A point-in-time view of the map (copy-on-write), read in parts while the map goes on changing.
//!
//! A snapshot of a million keys takes a while, and no step may take long. So nothing is copied when
//! the state is frozen. From then on, the first change of each key that was not read yet saves the
//! key's old value here. The reader returns the saved value where there is one, and the value in
//! the map elsewhere. The cost is one look-up per write while a snapshot is taken, and memory for
//! the keys that change meanwhile.
//!
//! Snapshots read a view of the whole map as lines; watches read one of their range as items
//! (`views`).

use std::collections::BTreeMap;
use std::fmt::Write;
use std::ops::Bound;

use super::expiry::{Expiries, Expiry};
use super::map::{Held, Map};
use super::revision::{KeyMeta, Revision};
use super::text::{Key, push_json_string};
use super::ttl::LogTime;
use crate::mutant::{self, Mutant};

/// The facts about the frozen moment that the map itself no longer holds.
#[derive(Clone, Debug)]
pub(super) struct Frozen {
    /// The entry that had raised the level; [`Revision::NONE`]: the level was the first one.
    first: Revision,
    /// The first text of the range, and the first text after it.
    start: Box<str>,
    end: Option<Box<str>>,
    /// All keys up to this one were read.
    read_to: Option<Key>,
    /// The old content of keys that have changed since the freeze and were not read yet; `None`:
    /// the key was absent.
    before: BTreeMap<Key, Option<Content>>,
}

/// The content of a key with its time to live.
type Content = (Held, Option<Expiry>);

impl Frozen {
    /// A view of the whole map.
    pub(super) fn new(first: Revision) -> Self {
        Self::of_range(first, (Box::from(""), None))
    }

    /// A view of the keys from the first text on, below the second one.
    pub(super) fn of_range(first: Revision, (start, end): (Box<str>, Option<Box<str>>)) -> Self {
        Self { first, start, end, read_to: None, before: BTreeMap::new() }
    }

    /// Saves the content of `key` in `values`, and its time to live, before one of them changes.
    /// Returns the number of bytes of the saved content.
    pub(super) fn preserve(&mut self, key: &Key, values: &Map, expiries: &Expiries) -> usize {
        let is_read = self.read_to.as_ref().is_some_and(|read_to| key <= read_to);
        if !is_read && !self.before.contains_key(key) && !mutant::is_active(Mutant::FrozenStateChanges) {
            let content = values.get(key).map(|held| (held.clone(), expiries.get(key)));
            let bytes = saved_bytes(key, content.as_ref());
            self.before.insert(key.clone(), content);
            return bytes;
        }
        0
    }

    /// Returns whether the key is in the range.
    pub(super) fn covers(&self, key: &Key) -> bool {
        key.as_str() >= &*self.start && self.end.as_deref().is_none_or(|end| key.as_str() < end)
    }

    /// The number of bytes of saved content.
    pub(super) fn saved_bytes(&self) -> usize {
        self.before.iter().map(|(key, content)| saved_bytes(key, content.as_ref())).sum()
    }

    /// Appends lines to `text` until it holds `bytes_max` bytes or all keys were read. Returns
    /// whether all were read.
    pub(super) fn read(
        &mut self,
        values: &Map,
        expiries: &Expiries,
        text: &mut String,
        bytes_max: usize,
    ) -> bool {
        let first = self.first;
        self.walk(
            values,
            expiries,
            text,
            |text| text.len() >= bytes_max,
            |text, key, held, expiry| push_line(text, key, held, expiry, first),
        )
    }

    /// Passes the next keys with their content to `push`, until `is_full` returns true for `out` or
    /// all keys were read. Returns whether all were read.
    pub(super) fn walk<T: ?Sized>(
        &mut self,
        values: &Map,
        expiries: &Expiries,
        out: &mut T,
        is_full: impl Fn(&T) -> bool,
        push: impl Fn(&mut T, &Key, &Held, Option<Expiry>),
    ) -> bool {
        let read_to = self.read_to.clone();
        let start =
            read_to.as_ref().map_or(Bound::Included(&*self.start), |key| Bound::Excluded(key.as_str()));
        let end = self.end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut now = values.range(start, end).peekable();
        let saved_from = read_to.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut before = self.before.range((saved_from, Bound::Unbounded)).peekable();
        let mut last = None;
        let is_done = loop {
            if is_full(out) {
                break now.peek().is_none() && before.peek().is_none();
            }
            let changed_first = match (now.peek(), before.peek()) {
                (None, None) => break true,
                (Some((now, _)), Some((before, _))) => before <= now,
                (now, _) => now.is_none(),
            };
            let key = if changed_first {
                let (key, content) = before.next().expect("it was looked at");
                now.next_if(|(same, _)| *same == key);
                if let Some((held, expiry)) = content {
                    push(out, key, held, *expiry);
                }
                key
            } else {
                let (key, held) = now.next().expect("it was looked at");
                let expiry = if held.stamp.expires() { expiries.get(key) } else { None };
                push(out, key, held, expiry);
                key
            };
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

/// The number of bytes of a key and its saved content.
fn saved_bytes(key: &Key, content: Option<&Content>) -> usize {
    key.as_str().len() + content.map_or(0, |(held, _)| held.value.as_json().len())
}

/// Appends the line of a key. `first` is the entry from which revisions are counted, if the level
/// was raised.
fn push_line(text: &mut String, key: &Key, held: &Held, expiry: Option<Expiry>, first: Revision) {
    text.push_str("{\"key\":");
    push_json_string(text, key.as_str());
    if first > Revision::NONE {
        let meta = held.stamp.meta().counted_from(first);
        let created = created_by_mutant(&meta).unwrap_or(meta.created);
        write!(text, ",\"rev\":{},\"created\":{created}", meta.rev).expect("a String takes any text");
    }
    if let Some(Expiry { since, ttl, until }) = left_out_by_mutant(expiry) {
        write!(text, ",\"since\":{since},\"ttl_ms\":{}", ttl.ms()).expect("a String takes any text");
        if let Some(LogTime(until)) = until {
            write!(text, ",\"until_us\":{until}").expect("a String takes any text");
        }
    }
    text.push_str(",\"value\":");
    text.push_str(held.value.as_json());
    text.push_str("}\n");
}

/// Deliberate bug: a snapshot says of each key that its last change created it.
fn created_by_mutant(meta: &KeyMeta) -> Option<Revision> {
    mutant::is_active(Mutant::CreationNotSaved).then_some(meta.rev)
}

/// Deliberate bug: a snapshot does not say that a key expires.
fn left_out_by_mutant(expiry: Option<Expiry>) -> Option<Expiry> {
    expiry.filter(|_| !mutant::is_active(Mutant::ExpiryNotSaved))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::text::Value;
    use crate::kv::ttl::Ttl;

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
            let (mut values, mut expiries) = (Map::default(), Expiries::seeded(1));
            let rev = |rng: &mut fastrand::Rng| Revision(rng.u64(1..50));
            let change =
                |values: &mut Map, expiries: &mut Expiries, rng: &mut fastrand::Rng, key: &Key| match rng
                    .u32(..5)
                {
                    0 | 1 => drop(values.set(key, &value(rng.u32(..)), rev(rng))),
                    2 if values.get(key).is_some() => {
                        values.set_expires(key, true);
                        expiries.set(key, Ttl::from_ms(rng.u64(1..9)).unwrap(), rev(rng));
                    }
                    3 => expiries.date(key, LogTime(rng.u64(..99))),
                    _ => {
                        values.remove(key);
                        expiries.remove(key);
                    }
                };
            for _ in 0..rng.u32(0..40) {
                let key = key(rng.u32(0..40));
                change(&mut values, &mut expiries, &mut rng, &key);
            }
            let moment = (values.clone(), expiries.clone());
            let mut frozen = Frozen::new(first);
            let mut text = String::new();
            loop {
                for _ in 0..rng.u32(0..6) {
                    let key = key(rng.u32(0..40));
                    frozen.preserve(&key, &values, &expiries);
                    change(&mut values, &mut expiries, &mut rng, &key);
                }
                let limit = text.len() + rng.usize(1..80);
                if frozen.read(&values, &expiries, &mut text, limit) {
                    break;
                }
            }
            let mut expected = String::new();
            let (values, expiries) = &moment;
            values.iter().for_each(|(key, held)| {
                push_line(&mut expected, key, held, expiries.get(key), first);
            });
            assert_eq!(text, expected);
        }
    }

    #[test]
    fn a_line_has_revisions_once_the_level_is_raised_and_a_time_to_live_if_there_is_one() {
        let (mut values, mut expiries) = (Map::default(), Expiries::seeded(1));
        values.set(&key(1), &value(5), Revision(3));
        values.set(&key(1), &value(6), Revision(9));
        let line = |values: &Map, expiries: &Expiries, first| {
            let mut text = String::new();
            Frozen::new(Revision(first)).read(values, expiries, &mut text, 1);
            text
        };
        assert_eq!(line(&values, &expiries, 0), "{\"key\":\"k01\",\"value\":6}\n");
        let with_revisions = "{\"key\":\"k01\",\"rev\":9,\"created\":3,\"value\":6}\n";
        assert_eq!(line(&values, &expiries, 2), with_revisions);
        let counted = "{\"key\":\"k01\",\"rev\":9,\"created\":7,\"value\":6}\n";
        assert_eq!(line(&values, &expiries, 7), counted);
        values.set_expires(&key(1), true);
        expiries.set(&key(1), Ttl::from_ms(250).unwrap(), Revision(11));
        let expiring = with_revisions.replace(",\"value\"", ",\"since\":11,\"ttl_ms\":250,\"value\"");
        assert_eq!(line(&values, &expiries, 2), expiring);
        expiries.date(&key(1), LogTime(1000));
        let dated = expiring.replace("250,", "250,\"until_us\":251000,");
        assert_eq!(line(&values, &expiries, 2), dated);
    }
}
