//! Conflict detection for pipelined requests: which requests of one connection must not overtake
//! one another.
//!
//! Pipelined requests run concurrently: reads at a follower, writes at the leader. But a client
//! expects them to take effect as if they were sent one by one. So a request waits while an
//! earlier, unanswered request of the same connection touches the same key and one of the two is a
//! write. A scan, a delete by prefix, and the beginning of a watch touch all keys: a watch reports
//! the writes after it and none before it. All other requests run at once.

use std::collections::BTreeMap;

use super::request::Shape;
use crate::kv::{Key, Txn};
use crate::mutant::{self, Mutant};

/// The most scans of one connection that run at once, because each may be a megabyte of work.
pub(super) const SCANS_OPEN_MAX: usize = 4;

/// The keys that a connection's open requests read and write.
#[derive(Debug, Default)]
pub(super) struct Footprints {
    keys: BTreeMap<Key, Touches>,
    writes: usize,
    /// Deletes by prefix.
    sweeps: usize,
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
    Transaction(&'a Txn),
    WriteMany,
    ReadMany,
    BackUp,
    Nothing,
}

fn footprint(shape: &Shape) -> Footprint<'_> {
    match shape {
        Shape::Get { key, .. } => Footprint::Read(key),
        Shape::Put { key, .. }
        | Shape::Delete { key }
        | Shape::Cas { key, .. }
        | Shape::Touch { key, .. }
        | Shape::Incr { key } => Footprint::Write(key),
        Shape::Txn(txn) => Footprint::Transaction(txn),
        Shape::DeletePrefix => Footprint::WriteMany,
        Shape::Scan | Shape::Watch(_) => Footprint::ReadMany,
        Shape::Backup => Footprint::BackUp,
        Shape::Status | Shape::Transfer | Shape::Members => Footprint::Nothing,
    }
}

impl Footprints {
    /// Returns whether a request may run concurrently with the open ones.
    pub(super) fn admit(&self, shape: &Shape) -> bool {
        match footprint(shape) {
            Footprint::Read(key) => self.may_read(key),
            Footprint::Write(key) => self.may_write(key),
            Footprint::Transaction(txn) => {
                txn.keys().all(|(key, writes)| if writes { self.may_write(key) } else { self.may_read(key) })
            }
            Footprint::WriteMany => self.keys.is_empty() && self.scans == 0 && self.sweeps == 0,
            Footprint::ReadMany => self.writes + self.sweeps == 0 && self.scans < SCANS_OPEN_MAX,
            // Reading a part is as much work as several scans.
            Footprint::BackUp => self.backups == 0,
            Footprint::Nothing => true,
        }
    }

    fn may_read(&self, key: &Key) -> bool {
        let is_written = self.sweeps > 0 || self.keys.get(key).is_some_and(|open| open.writes > 0);
        !is_written || mutant::is_active(Mutant::ReadOvertakesWrite)
    }

    fn may_write(&self, key: &Key) -> bool {
        let is_touched = self.scans + self.sweeps > 0 || self.keys.contains_key(key);
        !is_touched || mutant::is_active(Mutant::WriteOvertakesWrite)
    }

    /// Notes that a request runs.
    pub(super) fn open(&mut self, shape: &Shape) {
        match footprint(shape) {
            Footprint::Read(key) => self.open_key(key, false),
            Footprint::Write(key) => self.open_key(key, true),
            Footprint::Transaction(txn) => txn.keys().for_each(|(key, writes)| self.open_key(key, writes)),
            Footprint::WriteMany => self.sweeps += 1,
            Footprint::ReadMany => self.scans += 1,
            Footprint::BackUp => self.backups += 1,
            Footprint::Nothing => {}
        }
    }

    /// Notes that a running request was answered.
    pub(super) fn close(&mut self, shape: &Shape) {
        match footprint(shape) {
            Footprint::Read(key) => self.close_key(key, false),
            Footprint::Write(key) => self.close_key(key, true),
            Footprint::Transaction(txn) => txn.keys().for_each(|(key, writes)| self.close_key(key, writes)),
            Footprint::WriteMany => self.sweeps -= 1,
            Footprint::ReadMany => self.scans -= 1,
            Footprint::BackUp => self.backups -= 1,
            Footprint::Nothing => {}
        }
    }

    fn open_key(&mut self, key: &Key, writes: bool) {
        let touches = self.keys.entry(key.clone()).or_default();
        *(if writes { &mut touches.writes } else { &mut touches.reads }) += 1;
        self.writes += usize::from(writes);
    }

    fn close_key(&mut self, key: &Key, writes: bool) {
        let Some(touches) = self.keys.get_mut(key) else { return };
        *(if writes { &mut touches.writes } else { &mut touches.reads }) -= 1;
        self.writes -= usize::from(writes);
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
        Shape::Put { key: Key::new(key).unwrap(), value: Value::from_json("1").unwrap(), ttl: None }
    }

    /// A transaction that reads one key and writes another.
    fn txn(read: &str, written: &str) -> Shape {
        let condition = format!(r#"[{{"key":"{read}","absent":true}}]"#);
        let then = format!(r#"[{{"op":"get","key":"{read}"}},{{"op":"incr","key":"{written}","by":1}}]"#);
        Shape::Txn(Txn::from_json(Some(&condition), Some(&then), None).unwrap().into())
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
            (txn("a", "b"), get("a"), true),
            (txn("a", "b"), put("a"), false),
            (txn("a", "b"), get("b"), false),
            (txn("a", "b"), put("c"), true),
            (txn("a", "b"), txn("a", "c"), true),
            (txn("a", "b"), txn("b", "c"), false),
            (txn("a", "b"), Shape::Scan, false),
            (Shape::Scan, txn("a", "b"), false),
            (Shape::DeletePrefix, get("a"), false),
            (get("a"), Shape::DeletePrefix, false),
            (Shape::DeletePrefix, put("a"), false),
            (put("a"), Shape::DeletePrefix, false),
            (Shape::DeletePrefix, Shape::Scan, false),
            (Shape::Scan, Shape::DeletePrefix, false),
            (Shape::DeletePrefix, Shape::DeletePrefix, false),
            (Shape::DeletePrefix, Shape::Status, true),
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
