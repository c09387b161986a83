//! Shared parsing of log batches: the replicas of one process parse each batch once and share the
//! keys and values.
//!
//! The log is text, and each entry must be parsed before it is applied. The naive way is that each
//! replica parses for itself. Then a process with five nodes parses each entry five times, and its
//! five maps hold five copies of each key and value.
//!
//! Nodes of one process already share the text of a batch. So the first replica that applies a
//! batch attaches the parsed writes to it, and the others reuse them. The five maps then hold each
//! text once: a fifth of the memory, and fewer cache misses.
//!
//! A batch refers to its writes only weakly, so that the log does not keep them in memory. Each
//! replica keeps its most recent ones alive, for the others that lag a little. Correctness does not
//! depend on this: a replica that finds no writes parses the batch itself, with the same result.

use std::collections::VecDeque;
use std::sync::Arc;

use super::APPLY_BYTES_MAX;
use crate::kv::{LoggedWrite, Write};
use crate::raft::{Entries, EntryKind, LogIndex};

/// The number of batches whose parsed writes a replica keeps alive: the usual lag between the nodes
/// of one process, and some more. A replica that lags further parses for itself.
const KEPT_MAX: usize = 8;
/// The most bytes of large batches whose parsed writes are kept alive. After a start, the leader
/// applies a long log as fast as it can, and followers learn the commit index only with the next
/// heartbeat. So more is kept of the large batches that a start finds in a log. New, small batches
/// displace them.
pub const PARSED_BYTES_MAX: usize = 64 << 20;
const LARGE_BATCH_BYTES: usize = 256 << 10;

/// The parsed writes of consecutive entries.
#[derive(Debug)]
pub(super) struct Writes {
    first: LogIndex,
    /// One per entry; `None`: the entry is not for the state machine.
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

    /// The write of the entry at `index`, which must be in the range.
    pub(super) fn at(&self, index: LogIndex) -> Option<&Write> {
        self.writes[usize::try_from(index.0 - self.first.0).expect("a batch fits memory")].as_ref()
    }
}

/// The parsed writes that a replica keeps alive for the other replicas of the process.
#[derive(Debug)]
pub(super) struct ParsedBatches {
    bytes_max: usize,
    /// The writes of one batch each, with the batch's bytes of text.
    kept: VecDeque<(usize, Arc<Writes>)>,
    kept_bytes: usize,
}

impl ParsedBatches {
    /// Starts empty; the writes of large batches hold at most `bytes_max` bytes of text.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, kept: VecDeque::new(), kept_bytes: 0 }
    }

    /// The number of bytes of text of the batches whose writes are kept.
    pub(super) fn bytes(&self) -> usize {
        self.kept_bytes
    }

    /// Returns the parsed writes of `entries`, possibly with those of other entries of the batch.
    pub(super) fn read(&mut self, entries: &Entries) -> Arc<Writes> {
        let batch = entries.whole_batch();
        // After a restart, the log is a few large batches, which are applied in parts.
        if batch.text().len() > APPLY_BYTES_MAX {
            return Arc::new(Writes::of(entries));
        }
        if let Some(writes) = batch.parsed() {
            return writes;
        }
        let writes = Arc::new(Writes::of(&batch));
        batch.attach_parsed(&writes);
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
    fn replicas_share_the_parsed_writes_of_a_batch() {
        let entries = batch(&mut BatchBuilder::new(LogPoint::ORIGIN));
        let (mut one, mut other) =
            (ParsedBatches::new(PARSED_BYTES_MAX), ParsedBatches::new(PARSED_BYTES_MAX));
        let read = one.read(&entries.ending_at(LogIndex(2)).unwrap());
        assert!(Arc::ptr_eq(&read, &other.read(&entries.starting_at(LogIndex(3)).unwrap())));
        assert_eq!(read.at(LogIndex(1)), None, "it is the leader's");
        for number in 0..3 {
            let write = Write { session: None, command: put(number) };
            assert_eq!(read.at(LogIndex(2 + number as u64)), Some(&write));
        }
    }

    #[test]
    fn more_large_batches_are_kept_until_small_ones_come() {
        let mut readings = ParsedBatches::new(PARSED_BYTES_MAX);
        let writes = || Arc::new(Writes { first: LogIndex(1), writes: Vec::new() });
        let large = 512 << 10;
        (0..1000).for_each(|_| readings.keep(large, writes()));
        assert_eq!(readings.kept.len(), PARSED_BYTES_MAX / large);
        let mut few = ParsedBatches::new(20 * large);
        (0..1000).for_each(|_| few.keep(large, writes()));
        assert_eq!(few.bytes(), 20 * large);
        let mut fewest = ParsedBatches::new(1);
        (0..10).for_each(|_| fewest.keep(100, writes()));
        assert_eq!(fewest.bytes(), 100, "the latest stays");
        (0..200).for_each(|_| readings.keep(100, writes()));
        assert_eq!((readings.kept.len(), readings.kept_bytes), (KEPT_MAX, 100 * KEPT_MAX));
    }

    #[test]
    fn a_batch_whose_writes_were_dropped_is_parsed_again() {
        let mut builder = BatchBuilder::new(LogPoint::ORIGIN);
        let first = batch(&mut builder);
        let (mut one, mut other) =
            (ParsedBatches::new(PARSED_BYTES_MAX), ParsedBatches::new(PARSED_BYTES_MAX));
        let read = Arc::downgrade(&one.read(&first));
        (0..KEPT_MAX).for_each(|_| drop(one.read(&batch(&mut builder))));
        assert!(read.upgrade().is_none());
        let again = other.read(&first);
        assert!(again.at(LogIndex(4)).is_some());
        assert!(Arc::ptr_eq(&again, &one.read(&first)), "who comes later finds the later one");
    }
}
