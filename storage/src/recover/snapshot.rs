//! Snapshot recovery: which combinations of snapshot and log a start accepts.
//!
//! A snapshot is renamed first and the log is rewritten behind it later, so the two may be from
//! different moments. A power cut explains some combinations; only a lost or exchanged file
//! explains the others:
//!
//! | found | what follows |
//! | --- | --- |
//! | no snapshot, and the log starts at the origin | nothing: there was no snapshot yet |
//! | the log starts at the snapshot's end, or before it and contains it | the log stays: it was rewritten already, or not yet |
//! | the log ends before the snapshot does | the snapshot was just renamed: the log is replaced by an empty one |
//! | the log has another entry where the snapshot ends | the same: it is the log of a deposed leader |
//! | the same, and the floor shows that the log was committed up to there | refused: files from different times |
//! | the log starts at the snapshot's end, with another entry | refused: files from different times |
//! | the log starts after the snapshot's end, or after an entry and there is no snapshot | refused: the snapshot was lost or exchanged |
//! | a byte of the snapshot is damaged | refused: the log behind it is useless without it |
//!
//! A log that ends before the snapshot is not kept, because all of it is in the snapshot or was
//! never committed, and no entry after the snapshot could follow its end.

use coracle_core::raft::{Entries, LogPoint, NodeId, RestoredSnapshot};

use super::RecoverError;
use crate::files::{FileKind, FileName, NodeFiles};
use crate::identity::Identity;
use crate::meta::Meta;
use crate::snapshot::SnapshotFile;

/// Reads the node's snapshot, if there is one, and checks that it is whole, belongs to the node,
/// and reaches the point that the log starts after.
pub(super) fn read(
    identity: &Identity,
    after: LogPoint,
    files: &NodeFiles,
) -> Result<Option<RestoredSnapshot>, RecoverError> {
    let node = identity.node;
    let [log, file] = [FileKind::Log, FileKind::Snapshot].map(|kind| FileName::new(node, kind));
    let Some(bytes) = files.snapshot.as_deref() else {
        let is_all = after == LogPoint::ORIGIN;
        return if is_all {
            Ok(None)
        } else {
            Err(RecoverError::NoSnapshot { log, snapshot: file, after: after.index })
        };
    };
    let snapshot = SnapshotFile::decode(bytes).map_err(|fault| RecoverError::Snapshot { file, fault })?;
    let header = &snapshot.header;
    if header.node != node {
        return Err(RecoverError::OfAnotherNode { file, owner: header.node });
    }
    if (header.cluster, header.incarnation) != (identity.cluster, identity.incarnation) {
        return Err(RecoverError::DifferentOwners { one: log, other: file });
    }
    let last = header.last();
    if last.index < after.index {
        let (after, reaches) = (after.index, last.index);
        return Err(RecoverError::OldSnapshot { log, snapshot: file, after, reaches });
    }
    if last.index == after.index && last != after {
        return Err(RecoverError::OtherSnapshot { snapshot: file, witness: log, last: last.index });
    }
    snapshot.check_lines().map_err(|fault| RecoverError::Snapshot { file, fault })?;
    Ok(Some(snapshot.restored()))
}

/// Whether the log has to be rewritten behind the snapshot. The caller has checked the log against
/// the metadata and that it starts at or before the snapshot's end.
pub(super) fn supersedes_log(
    node: NodeId,
    snapshot: &RestoredSnapshot,
    after: LogPoint,
    log: &[Entries],
    meta: &Meta,
) -> Result<bool, RecoverError> {
    let [log_file, meta_file, file] =
        [FileKind::Log, FileKind::Meta, FileKind::Snapshot].map(|kind| FileName::new(node, kind));
    let last = snapshot.meta.last;
    let current = meta.hard_state.current_term;
    if last.term > current {
        return Err(RecoverError::OldMeta { file, meta: meta_file, found: last.term, current });
    }
    if super::point_at(last.index, after, log) == Some(last) {
        return Ok(false);
    }
    // Two histories that were both committed up to here: one of the files is from another history
    // of the cluster.
    if meta.floor.index >= last.index {
        return Err(RecoverError::OtherSnapshot { snapshot: file, witness: log_file, last: last.index });
    }
    Ok(true)
}
