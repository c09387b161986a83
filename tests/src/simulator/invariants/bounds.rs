//! What a leader leaves uncommitted stays within its limit, but for one entry that may pass it
//! (S18). Windows and queues are asserted where they are. At rest no log is longer behind its
//! snapshot than the policy allows. What a snapshot leaves of the log that it covers stays within
//! its limit, but for one run, whoever still needs it: all of it is in memory.

use coracle_core::raft::{Entries, LogIndex, NodeId};
use coracle_core::{Replica, SnapshotPolicy};
use coracle_storage::{FileKind, FileName};

use super::{ByNode, Process, Verdict, require};

/// Far more than any simulated log's tail should ever be.
const UNAPPLIED_MAX: u64 = 1_000_000;

/// Up to where the logs were compacted.
#[derive(Debug, Default)]
pub(super) struct Bounds {
    compacted: ByNode<LogIndex>,
    /// The most bytes of the log behind a snapshot that are kept.
    kept_max: usize,
}

impl Bounds {
    pub(super) fn new(kept_max: usize) -> Self {
        Self { kept_max, ..Self::default() }
    }

    pub(super) fn restarted(&mut self, node: NodeId) {
        self.compacted.remove(&node);
    }

    /// The log that is kept is as long as it may be when it was compacted in this turn.
    pub(super) fn check_kept_log(&mut self, id: NodeId, replica: &Replica) -> Verdict {
        let snapshot = replica.status().snapshot_index;
        // What a start finds is as long as the disk has it.
        let before = self.compacted.insert(id, snapshot);
        if before.is_none_or(|before| before == snapshot) {
            return Ok(());
        }
        let log = replica.node().log();
        let kept = usize::try_from(log.bytes_up_to(snapshot)).unwrap_or(usize::MAX);
        let first =
            log.entries_from(log.start().index.next(), usize::MAX).iter().next().map_or(0, Entries::bytes);
        require(kept <= self.kept_max + first, "bounds", || {
            format!("node {id} keeps {kept} bytes behind snapshot {snapshot}, and may {}", self.kept_max)
        })
    }
}

pub(super) fn check(replica: &Replica) -> Verdict {
    let status = replica.status();
    let unapplied = status.last_log_index.0 - status.last_applied.0;
    require(unapplied < UNAPPLIED_MAX, "bounds", || format!("{unapplied} entries are not applied"))
}

/// The cluster is at rest.
pub(super) fn check_log_behind_snapshot(process: &Process, policy: SnapshotPolicy) -> Verdict {
    let Some(running) = &process.running else { return Ok(()) };
    require(!running.disk_queue.planner().can_renew(), "bounds", || {
        format!("node {} has not made its log anew", process.id)
    })?;
    let status = running.replica.status();
    let snapshot = process.disk.read(FileName::new(process.id, FileKind::Snapshot));
    // As many bytes as the snapshot has may be in the log, or small states would be written over
    // and over again.
    let bytes_max = policy.log_bytes.max(snapshot.map_or(0, |bytes| bytes.len() as u64));
    let bytes_max = bytes_max.min(policy.log_bytes_max);
    let behind = running.replica.node().log().entries_from(status.snapshot_index.next(), usize::MAX);
    let bytes: usize = behind.iter().map(|run| run.text().len()).sum();
    let entries: usize = behind.iter().map(Entries::len).sum();
    require((bytes as u64) < bytes_max && (entries as u64) < policy.log_entries, "bounds", || {
        format!(
            "node {} has {entries} entries of {bytes} bytes behind snapshot {}, and the policy is {policy:?}",
            process.id, status.snapshot_index
        )
    })
}
