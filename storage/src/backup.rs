//! Backups: writes a backup file, and restores a new cluster from one.
//!
//! A backup is a snapshot file that belongs to no cluster: its header names node 0, and a cluster
//! and an incarnation of zeros. So no node accepts it as its own snapshot if it is copied into a
//! data folder by mistake.
//!
//! A restore creates a new cluster: new identities, its own members, and a log that starts after
//! the backup's last entry. Snapshots are written first, then logs, then metadata, each atomically.
//! So once a snapshot exists, no start founds an empty cluster in the folder, and no start accepts
//! the folder before its last file exists.

use std::sync::Arc;

use coracle_core::raft::{
    Addition, Checksum, Configuration, HardState, Member, NodeId, Roster, SnapshotEnd, SnapshotMeta, Voters,
};
use crc32fast::Hasher;

use crate::files::{FileKind, FileName, FileOp, replace_log, replace_meta};
use crate::header::LogHeader;
use crate::identity::{ClusterId, Identity, Incarnation};
use crate::meta::Meta;
use crate::snapshot::{SnapshotFile, SnapshotHeader, encode_end, states_level};

/// The running size and checksum of a backup that is being written.
#[derive(Clone, Debug, Default)]
pub struct BackupSum {
    bytes: u64,
    hasher: Hasher,
}

/// The error that a backup was not received as it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the received backup is damaged: {} bytes with the checksum {}, where {} bytes with the checksum {} were \
     announced",
    .found.bytes, .found.checksum, .stated.bytes, .stated.checksum
)]
pub struct BackupBroken {
    /// The size and checksum that the server stated at the end.
    pub stated: SnapshotEnd,
    /// The size and checksum of the received parts.
    pub found: SnapshotEnd,
}

impl BackupSum {
    /// Adds a part of the content.
    pub fn add(&mut self, text: &str) {
        self.bytes += text.len() as u64;
        self.hasher.update(text.as_bytes());
    }

    /// The number of bytes of content so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns the last line of the file, with its line break.
    ///
    /// # Errors
    ///
    /// [`BackupBroken`] when the content does not match `stated`.
    pub fn finish(self, stated: SnapshotEnd) -> Result<Vec<u8>, BackupBroken> {
        let found = SnapshotEnd { bytes: self.bytes, checksum: Checksum(self.hasher.finalize()) };
        if found == stated { Ok(encode_end(stated)) } else { Err(BackupBroken { stated, found }) }
    }
}

/// Returns the first line of a backup with this metadata, with its line break. `content` is the
/// content, or its first part.
#[must_use]
pub fn backup_header(meta: SnapshotMeta, content: &str) -> Vec<u8> {
    let (cluster, incarnation) = (ClusterId(0), Incarnation(0));
    SnapshotHeader { node: NodeId(0), cluster, incarnation, meta, has_level: states_level(content) }.encode()
}

/// Returns the identity of the first node of a new cluster of processes: its only voter, which its
/// peers reach at `address`.
#[must_use]
pub fn first_member(
    node: NodeId,
    address: Box<str>,
    cluster: ClusterId,
    incarnation: Incarnation,
) -> Identity {
    let member = Member::founder(address, Some(incarnation));
    Identity {
        node,
        cluster,
        incarnation,
        voters: vec![node],
        roster: Roster::new([(node, member)]),
        joined_at: None,
        addition: Addition::default(),
    }
}

/// Plans the files of a new cluster of these nodes, in a folder without any. Once all operations
/// are carried out, the nodes start from the backup's content; before that they refuse to start.
///
/// # Panics
///
/// When an identity has no voters, or too many.
#[must_use]
pub fn restore(backup: &SnapshotFile<'_>, identities: &[Identity]) -> Vec<FileOp> {
    let last = backup.header.last();
    let content: Arc<str> = backup.content.into();
    let end: Arc<str> = String::from_utf8(encode_end(backup.end)).expect("JSON is UTF-8").into();
    let snapshots = identities.iter().flat_map(|identity| {
        let [temporary, snapshot] =
            [FileKind::SnapshotTemporary, FileKind::Snapshot].map(|kind| FileName::new(identity.node, kind));
        let voters = Voters::new(identity.voters.iter().copied()).expect("a cluster has voters");
        let configuration = Configuration::of_voters(voters).with_roster(&identity.roster);
        let header = SnapshotHeader::new(identity, SnapshotMeta { last, configuration }, &content);
        [
            FileOp::Create { file: temporary, bytes: header.encode() },
            FileOp::AppendText { file: temporary, text: content.clone() },
            FileOp::AppendText { file: temporary, text: end.clone() },
            FileOp::Sync { file: temporary },
            FileOp::Rename { from: temporary, to: snapshot },
            FileOp::SyncFolder,
        ]
    });
    let logs = identities.iter().flat_map(|identity| {
        let header = LogHeader { identity: identity.clone(), after: last };
        replace_log(identity.node, header.encode())
    });
    let metas = identities.iter().flat_map(|identity| {
        // No vote: the new cluster has held no election in the term of the last entry.
        let hard_state = HardState { current_term: last.term, voted_for: None };
        replace_meta(identity.node, Meta::new(identity, hard_state, last).encode())
    });
    snapshots.chain(logs).chain(metas).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Disk, content, end_of, identities};
    use crate::{MemberStart, NodeFiles, SyncPolicy, open_member, survey};
    use coracle_core::raft::{LogIndex, LogPoint, Term};

    const LAST: LogPoint = LogPoint { index: LogIndex(70), term: Term(6), checksum: Checksum(0xabc) };

    /// A backup of a cluster that has other members than the new one.
    fn backup(content: &str) -> Vec<u8> {
        let voters = Voters::new([NodeId(4), NodeId(7)]).unwrap();
        let meta = SnapshotMeta { last: LAST, configuration: Configuration::of_voters(voters) };
        let mut bytes = backup_header(meta, "");
        let mut sum = BackupSum::default();
        for line in content.split_inclusive('\n') {
            sum.add(line);
            bytes.extend(line.as_bytes());
        }
        bytes.extend(sum.finish(end_of(content)).unwrap());
        bytes
    }

    fn files(disk: &Disk, count: u64) -> Vec<NodeFiles> {
        (0..count).map(|node| disk.files(NodeId(node))).collect()
    }

    #[test]
    fn a_restored_cluster_starts_from_the_backup_with_new_identities() {
        let content = content(3, 40);
        let bytes = backup(&content);
        let backup = SnapshotFile::decode(&bytes).unwrap();
        let fresh = identities(3);
        let mut disk = Disk::default();
        disk.run(&restore(&backup, &fresh));
        let survey = survey(files(&disk, 3), &fresh, SyncPolicy::Always).unwrap();
        assert!(survey.creation.is_empty());
        for (recovery, identity) in survey.nodes.iter().zip(&fresh) {
            assert_eq!(&recovery.identity, identity);
            assert!(recovery.notices.is_empty());
            let restored = &recovery.restored;
            assert_eq!(restored.log_start, LAST);
            assert!(restored.log.is_empty());
            assert_eq!(restored.hard_state, HardState { current_term: Term(6), voted_for: None });
            let snapshot = restored.snapshot.as_ref().unwrap();
            assert_eq!(&*snapshot.text, content);
            assert_eq!(snapshot.meta.configuration.voters().nodes(), identity.voters);
        }
    }

    #[test]
    fn a_restored_member_is_a_founded_one() {
        let bytes = backup("{\"key\":\"a\",\"value\":1}\n");
        let backup = SnapshotFile::decode(&bytes).unwrap();
        let identity = first_member(NodeId(1), "h:1".into(), ClusterId(5), Incarnation(6));
        let mut disk = Disk::default();
        disk.run(&restore(&backup, std::slice::from_ref(&identity)));
        let start =
            open_member(NodeId(1), &disk.files(NodeId(1)), Incarnation(9), SyncPolicy::Always).unwrap();
        let MemberStart::Founded(recovery) = start else { panic!("it has a cluster") };
        assert_eq!(recovery.identity, identity);
        let configuration = &recovery.restored.snapshot.as_ref().unwrap().meta.configuration;
        assert_eq!(configuration.roster(), &identity.roster);
        assert_eq!(configuration.voters().nodes(), [NodeId(1)]);
    }

    /// Until the last file exists, a start either refuses or finds an unused folder: it never
    /// founds an empty cluster beside restored files.
    #[test]
    fn an_interrupted_restore_is_refused_or_was_never_begun() {
        let bytes = backup(&content(3, 10));
        let backup = SnapshotFile::decode(&bytes).unwrap();
        let fresh = identities(3);
        let ops = restore(&backup, &fresh);
        let member = first_member(NodeId(0), "h:1".into(), ClusterId(5), Incarnation(6));
        for (ops, is_member) in [(ops, false), (restore(&backup, &[member]), true)] {
            for done in 0..ops.len() {
                for survives in [0, 1, usize::MAX] {
                    let mut disk = Disk::default();
                    disk.run(&ops[..done]);
                    let disk = disk.crashed(|steps| survives.min(steps));
                    let is_begun = disk.files(NodeId(0)).snapshot.is_some();
                    let starts = if is_member {
                        let start = open_member(
                            NodeId(0),
                            &disk.files(NodeId(0)),
                            Incarnation(9),
                            SyncPolicy::Always,
                        );
                        start.is_ok()
                    } else {
                        survey(files(&disk, 3), &fresh, SyncPolicy::Always).is_ok()
                    };
                    let is_complete = ops[done..].iter().all(|op| matches!(op, FileOp::SyncFolder));
                    assert!(!starts || !is_begun || is_complete, "after {done} operations of {}", ops.len());
                }
            }
        }
    }

    #[test]
    fn a_backup_that_arrives_broken_gets_no_last_line() {
        let content = content(3, 10);
        let mut sum = BackupSum::default();
        sum.add(&content[1..]);
        assert_eq!(sum.bytes(), content.len() as u64 - 1);
        let broken = sum.finish(end_of(&content)).unwrap_err();
        assert_eq!(broken.stated, end_of(&content));
    }

    #[test]
    fn a_backup_is_rejected_as_a_nodes_snapshot() {
        let bytes = backup(&content(3, 10));
        let fresh = identities(1);
        let mut disk = Disk::default();
        disk.run(&restore(&SnapshotFile::decode(&bytes).unwrap(), &fresh));
        disk.replace(FileName::new(NodeId(0), FileKind::Snapshot), bytes);
        assert!(survey(files(&disk, 1), &fresh, SyncPolicy::Always).is_err());
    }
}
