//! Conflict detection for pipelined requests: which requests of one connection must not overtake
//! one another.
//!
//! Pipelined requests run concurrently: reads at a follower, writes at the leader. But a client
//! expects them to take effect as if they were sent one by one. So a request waits while an
//! earlier, unanswered request of the same connection touches the same key and one of the two is a
//! write. All other requests run at once.

use std::collections::BTreeMap;

use super::request::Shape;
use crate::kv::Key;
use crate::mutant::{self, Mutant};

/// The most scans of one connection that run at once, because each may be a megabyte of work.
pub(super) const SCANS_OPEN_MAX: usize = 4;

/// The keys that a connection's open requests read and write.
#[derive(Debug, Default)]
pub(super) struct Footprints {
    keys: BTreeMap<Key, Touches>,
    writes: usize,
    scans: usize,
    backups: usize,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Touches {
    reads: usize,
    writes: usize,
}

/// The keys that a request reads or writes.
enum Footprint<'a> {
    Read(&'a Key),
    Write(&'a Key),
    ReadMany,
    BackUp,
    Nothing,
}

fn footprint(shape: &Shape) -> Footprint<'_> {
    match shape {
        Shape::Get { key, .. } => Footprint::Read(key),
        Shape::Put { key, .. } | Shape::Delete { key } | Shape::Cas { key, .. } => Footprint::Write(key),
        Shape::Scan => Footprint::ReadMany,
        Shape::Backup => Footprint::BackUp,
        Shape::Status | Shape::Transfer | Shape::Members => Footprint::Nothing,
    }
}

impl Footprints {
    /// Returns whether a request may run concurrently with the open ones.
    pub(super) fn admit(&self, shape: &Shape) -> bool {
        match footprint(shape) {
            Footprint::Read(key) => {
                self.keys.get(key).is_none_or(|open| open.writes == 0)
                    || mutant::is_active(Mutant::ReadOvertakesWrite)
            }
            Footprint::Write(key) => {
                (self.scans == 0 && !self.keys.contains_key(key))
                    || mutant::is_active(Mutant::WriteOvertakesWrite)
            }
            Footprint::ReadMany => self.writes == 0 && self.scans < SCANS_OPEN_MAX,
            // Reading a part is as much work as several scans.
            Footprint::BackUp => self.backups == 0,
            Footprint::Nothing => true,
        }
    }

    /// Notes that a request runs.
    pub(super) fn open(&mut self, shape: &Shape) {
        match footprint(shape) {
            Footprint::Read(key) => self.keys.entry(key.clone()).or_default().reads += 1,
            Footprint::Write(key) => {
                self.keys.entry(key.clone()).or_default().writes += 1;
                self.writes += 1;
            }
            Footprint::ReadMany => self.scans += 1,
            Footprint::BackUp => self.backups += 1,
            Footprint::Nothing => {}
        }
    }

    /// Notes that a running request was answered.
    pub(super) fn close(&mut self, shape: &Shape) {
        match footprint(shape) {
            Footprint::Read(key) => self.close_key(key, |touches| touches.reads -= 1),
            Footprint::Write(key) => {
                self.close_key(key, |touches| touches.writes -= 1);
                self.writes -= 1;
            }
            Footprint::ReadMany => self.scans -= 1,
            Footprint::BackUp => self.backups -= 1,
            Footprint::Nothing => {}
        }
    }

    fn close_key(&mut self, key: &Key, take: impl FnOnce(&mut Touches)) {
        let Some(touches) = self.keys.get_mut(key) else { return };
        take(touches);
        if *touches == Touches::default() {
            self.keys.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::Value;

    fn get(key: &str) -> Shape {
        Shape::Get { key: Key::new(key).unwrap(), is_plain: true }
    }

    fn put(key: &str) -> Shape {
        Shape::Put { key: Key::new(key).unwrap(), value: Value::from_json("1").unwrap() }
    }

    #[test]
    fn the_number_of_concurrent_scans_is_limited() {
        let mut footprints = Footprints::default();
        for _ in 0..SCANS_OPEN_MAX {
            assert!(footprints.admit(&Shape::Scan));
            footprints.open(&Shape::Scan);
        }
        assert!(!footprints.admit(&Shape::Scan) && footprints.admit(&get("a")));
        footprints.close(&Shape::Scan);
        assert!(footprints.admit(&Shape::Scan));
    }

    #[test]
    fn only_a_write_and_another_request_of_its_key_exclude_each_other() {
        let table = [
            (get("a"), get("a"), true),
            (get("a"), put("a"), false),
            (put("a"), get("a"), false),
            (put("a"), put("a"), false),
            (put("a"), get("b"), true),
            (put("a"), put("b"), true),
            (Shape::Scan, put("a"), false),
            (put("a"), Shape::Scan, false),
            (Shape::Scan, get("a"), true),
            (Shape::Scan, Shape::Scan, true),
            (put("a"), Shape::Status, true),
            (put("a"), Shape::Backup, true),
            (Shape::Backup, put("a"), true),
            (Shape::Backup, Shape::Backup, false),
        ];
        for (open, next, is_admitted) in table {
            let mut footprints = Footprints::default();
            assert!(footprints.admit(&open));
            footprints.open(&open);
            assert_eq!(footprints.admit(&next), is_admitted, "{next:?} beside {open:?}");
            footprints.close(&open);
            assert!(footprints.admit(&next), "{next:?} after {open:?}");
            assert!(footprints.keys.is_empty());
        }
    }
}
