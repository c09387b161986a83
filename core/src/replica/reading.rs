//! Reading what the log says, once for all replicas of a process.
//!
//! The log is text, and what it says has to be read before it is applied. Nodes that live in one
//! process share their batches, so the first that applies a batch leaves what it read for the
//! others. They then share the keys and values, too: five maps of one process hold each text once,
//! which is a fifth of the memory, and less for the processor to fetch. Nothing depends on it: a
//! replica that finds nothing reads for itself, and reads the same.

use std::collections::VecDeque;
use std::sync::Arc;

use super::APPLY_BYTES_MAX;
use crate::kv::{LoggedWrite, Write};
use crate::raft::{Entries, EntryKind, LogIndex};

/// How many batches' readings a replica holds: as far as the nodes of one process are usually
/// apart, and some more. Who is further behind reads for itself.
const KEPT_MAX: usize = 8;
/// After a start the leader applies a long log as fast as it can, and followers learn the commit
/// index only with the next heartbeat. So more readings are held of large batches, as a start finds
/// them in a log: this many bytes. New, small batches displace them.
pub const READINGS_BYTES_MAX: usize = 64 << 20;
const LARGE_BATCH_BYTES: usize = 256 << 10;

/// The writes of some consecutive entries.
#[derive(Debug)]
pub(super) struct Writes {
    first: LogIndex,
    /// `None`: the entry is none for the state machine.
    writes: Vec<Option<Write>>,
}

impl Writes {
    fn of(entries: &Entries) -> Self {
        let read = |payload| LoggedWrite::read(payload).map(Write::from);
        let writes = entries.iter().map(|entry| match entry.kind() {
            EntryKind::Noop | EntryKind::Config => None,
            EntryKind::Command => read(entry.payload),
        });
        Self { first: entries.first_index(), writes: writes.collect() }
    }

    /// The write of the entry at `index`, which is one of those that were read.
    pub(super) fn at(&self, index: LogIndex) -> Option<&Write> {
        self.writes[usize::try_from(index.0 - self.first.0).expect("a batch fits memory")].as_ref()
    }
}

/// What a replica has read lately.
#[derive(Debug)]
pub(super) struct Readings {
    bytes_max: usize,
    /// Each with its bytes of text.
    kept: VecDeque<(usize, Arc<Writes>)>,
    kept_bytes: usize,
}

impl Readings {
    /// No readings yet; those of large batches hold at most `bytes_max` bytes.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, kept: VecDeque::new(), kept_bytes: 0 }
    }

    /// How many bytes of text were read for what is held.
    pub(super) fn bytes(&self) -> usize {
        self.kept_bytes
    }

    /// The writes of `entries`, and maybe of others around them.
    pub(super) fn read(&mut self, entries: &Entries) -> Arc<Writes> {
        let batch = entries.whole_batch();
        // A restarted node finds its log as a few large batches, and applies them in parts.
        if batch.text().len() > APPLY_BYTES_MAX {
            return Arc::new(Writes::of(entries));
        }
        if let Some(writes) = batch.reading() {
            return writes;
        }
        let writes = Arc::new(Writes::of(&batch));
        batch.leave_reading(&writes);
        self.keep(batch.bytes(), Arc::clone(&writes));
        writes
    }

    fn keep(&mut self, bytes: usize, writes: Arc<Writes>) {
        self.kept.push_back((bytes, writes));
        self.kept_bytes += bytes;
        let is_large = bytes >= LARGE_BATCH_BYTES;
        let mut given_up = 0;
        while (self.kept_bytes > self.bytes_max && self.kept.len() > 1)
            || (self.kept.len() > KEPT_MAX && !is_large && given_up < 2)
        {
            given_up += 1;
            self.kept_bytes -= self.kept.pop_front().map_or(0, |(bytes, _)| bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::{Command, Key, Value};
    use crate::raft::{BatchBuilder, LogPoint, Term};

    fn put(number: usize) -> Command {
        Command::Put { key: Key::new("k").unwrap(), value: Value::from_json(&number.to_string()).unwrap() }
    }

    fn batch(builder: &mut BatchBuilder) -> Entries {
        builder.seal(Term(1), |line| line.push_str("\"op\":\"NOOP\""));
        for number in 0..3 {
            builder.seal(Term(1), |line| put(number).write_payload(None, line));
        }
        builder.finish().unwrap()
    }

    #[test]
    fn a_batch_is_read_once_for_all_who_hold_it() {
        let entries = batch(&mut BatchBuilder::new(LogPoint::ORIGIN));
        let (mut one, mut other) = (Readings::new(READINGS_BYTES_MAX), Readings::new(READINGS_BYTES_MAX));
        let read = one.read(&entries.ending_at(LogIndex(2)).unwrap());
        assert!(Arc::ptr_eq(&read, &other.read(&entries.starting_at(LogIndex(3)).unwrap())));
        assert_eq!(read.at(LogIndex(1)), None, "it is the leader's");
        for number in 0..3 {
            let write = Write { session: None, command: put(number) };
            assert_eq!(read.at(LogIndex(2 + number as u64)), Some(&write));
        }
    }

    #[test]
    fn more_is_held_of_large_batches_until_small_ones_come() {
        let mut readings = Readings::new(READINGS_BYTES_MAX);
        let writes = || Arc::new(Writes { first: LogIndex(1), writes: Vec::new() });
        let large = 512 << 10;
        (0..1000).for_each(|_| readings.keep(large, writes()));
        assert_eq!(readings.kept.len(), READINGS_BYTES_MAX / large);
        let mut few = Readings::new(20 * large);
        (0..1000).for_each(|_| few.keep(large, writes()));
        assert_eq!(few.bytes(), 20 * large);
        let mut fewest = Readings::new(1);
        (0..10).for_each(|_| fewest.keep(100, writes()));
        assert_eq!(fewest.bytes(), 100, "the latest stays");
        (0..200).for_each(|_| readings.keep(100, writes()));
        assert_eq!((readings.kept.len(), readings.kept_bytes), (KEPT_MAX, 100 * KEPT_MAX));
    }

    #[test]
    fn what_nobody_holds_any_more_is_read_again() {
        let mut builder = BatchBuilder::new(LogPoint::ORIGIN);
        let first = batch(&mut builder);
        let (mut one, mut other) = (Readings::new(READINGS_BYTES_MAX), Readings::new(READINGS_BYTES_MAX));
        let read = Arc::downgrade(&one.read(&first));
        (0..KEPT_MAX).for_each(|_| drop(one.read(&batch(&mut builder))));
        assert!(read.upgrade().is_none());
        let again = other.read(&first);
        assert!(again.at(LogIndex(4)).is_some());
        assert!(Arc::ptr_eq(&again, &one.read(&first)), "who comes later finds the later one");
    }
}
