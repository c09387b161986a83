//! What a leader leaves uncommitted stays within its limit, but for one entry that may pass it (S18). Windows and queues are
//! asserted where they are. At rest no log is longer behind its snapshot than the policy allows.

use coracle_core::{Replica, SnapshotPolicy};
use coracle_storage::{FileKind, FileName};

use super::{Process, Verdict, require};

/// Far more than any simulated log's tail should ever be.
const UNAPPLIED_MAX: u64 = 1_000_000;

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
    // As many bytes as the snapshot has may be in the log, or small states would be written over and over again.
    let bytes_max = policy.log_bytes.max(snapshot.map_or(0, |bytes| bytes.len() as u64));
    let behind = running.replica.node().log().entries_from(status.snapshot_index.next(), usize::MAX);
    let bytes: usize = behind.iter().map(|run| run.text().len()).sum();
    let entries: usize = behind.iter().map(coracle_core::raft::Entries::len).sum();
    require((bytes as u64) < bytes_max && (entries as u64) < policy.log_entries, "bounds", || {
        format!(
            "node {} has {entries} entries of {bytes} bytes behind snapshot {}, and the policy is {policy:?}",
            process.id, status.snapshot_index
        )
    })
}
