//! Log Matching: if two logs contain an entry with the same index and term, then the logs are
//! identical in all entries up through the given index (Raft, Figure 3; S3). Checksums are chained,
//! so comparing one compares all entries before it.

use std::collections::BTreeMap;

use coracle_core::Output;
use coracle_core::raft::{Checksum, LogIndex, Term};

use super::{Verdict, require};

/// The checksum of every log point that any node has written; it must never change.
#[derive(Debug, Default)]
pub(super) struct LogMatching {
    checksums: BTreeMap<(LogIndex, Term), Checksum>,
}

impl LogMatching {
    pub(super) fn check(&mut self, outputs: &[Output]) -> Verdict {
        let persists = outputs.iter().filter_map(|output| match output {
            Output::Persist(persist) => Some(persist),
            _ => None,
        });
        let points = persists.flat_map(|persist| {
            let anew = persist.compaction().into_iter();
            let starts: Vec<_> = anew.clone().map(|compaction| compaction.after).collect();
            let runs = anew.flat_map(|compaction| &compaction.entries).chain(persist.entries());
            starts.into_iter().chain(runs.flat_map(|run| run.iter().map(|entry| entry.point)))
        });
        for point in points {
            let first = *self.checksums.entry((point.index, point.term)).or_insert(point.checksum);
            require(first == point.checksum, "log_matching", || {
                format!("two histories up to index {} of term {}", point.index, point.term)
            })?;
        }
        Ok(())
    }
}
