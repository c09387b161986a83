//! Bounds of log and memory: a leader's uncommitted bytes stay within their limit, except for one
//! entry that may exceed it (S18). Windows and queues are asserted where they are implemented. At
//! rest, no log behind its snapshot is longer than the policy allows. The part of the log that a
//! node keeps in memory although a snapshot covers it stays within its limit, except for one run,
//! regardless of which follower still needs it.

use coracle_core::raft::{Entries, LogIndex, NodeId};
use coracle_core::{Replica, SnapshotPolicy};
use coracle_storage::{FileKind, FileName};

use super::{ByNode, Process, Verdict, require};

/// Far more entries than the unapplied tail of any simulated log should have.
const UNAPPLIED_MAX: u64 = 1_000_000;

/// The index up to which each node's log was compacted.
#[derive(Debug, Default)]
pub(super) struct Bounds {
    compacted: ByNode<LogIndex>,
    /// The most bytes of log that are kept although a snapshot covers them.
    kept_max: usize,
}

impl Bounds {
    pub(super) fn new(kept_max: usize) -> Self {
        Self { kept_max, ..Self::default() }
    }

    pub(super) fn restarted(&mut self, node: NodeId) {
        self.compacted.remove(&node);
    }

    /// Checks the length of the kept log in the turn that compacted it.
    pub(super) fn check_kept_log(&mut self, id: NodeId, replica: &Replica) -> Verdict {
        let snapshot = replica.status().snapshot_index;
        // After a start, the log is as long as the disk has it.
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

/// Checks the log behind the snapshot once the cluster is at rest.
pub(super) fn check_log_behind_snapshot(process: &Process, policy: SnapshotPolicy) -> Verdict {
    let Some(running) = &process.running else { return Ok(()) };
    require(!running.disk_queue.planner().can_renew(), "bounds", || {
        format!("node {} has not made its log anew", process.id)
    })?;
    let status = running.replica.status();
    let snapshot = process.disk.read(FileName::new(process.id, FileKind::Snapshot));
    // The log may be as large as the snapshot. Otherwise small states would be written again and
    // again.
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
