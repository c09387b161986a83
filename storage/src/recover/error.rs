//! Recovery errors: why a node cannot go on from its files. The advice for an error depends on
//! whether other nodes hold the same entries.

use coracle_core::raft::{LogIndex, NodeId, Term};

use crate::files::FileName;
use crate::scan::Damage;
use crate::sealed::SealedLineError;
use crate::snapshot::SnapshotError;

/// Why a node cannot go on from its files. No file was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecoverError {
    /// A file is missing.
    #[error("{file} is missing")]
    Missing {
        /// The file.
        file: FileName,
    },
    /// A file is missing or empty, and another file shows that the cluster has been in use.
    #[error("{file} is missing or was never finished, but {witness} shows that the cluster has been in use")]
    Lost {
        /// The file.
        file: FileName,
        /// A file with a term, a vote, an entry or a snapshot.
        witness: FileName,
    },
    /// The log's first line cannot be read.
    #[error("{file}, line 1: {fault}")]
    Header {
        /// The log.
        file: FileName,
        /// The fault.
        fault: SealedLineError,
    },
    /// The metadata cannot be read: the node may have voted for an unknown candidate.
    #[error("{file}, line 1: {fault}")]
    Meta {
        /// The metadata file.
        file: FileName,
        /// The fault.
        fault: SealedLineError,
    },
    /// A file states another node as its owner.
    #[error("{file} belongs to node {owner}: the file was renamed or copied")]
    OfAnotherNode {
        /// The file.
        file: FileName,
        /// The node that it names.
        owner: NodeId,
    },
    /// Two files name different clusters or incarnations.
    #[error(
        "{one} and {other} do not belong together: they are of different clusters, or of different \
         incarnations of the node"
    )]
    DifferentOwners {
        /// The log.
        one: FileName,
        /// The metadata file or the snapshot.
        other: FileName,
    },
    /// A line of the log was durable once and has changed since.
    #[error("{file}: {damage}")]
    Damaged {
        /// The log.
        file: FileName,
        /// The damaged line.
        damage: Damage,
    },
    /// The log ends before an entry that was durable and committed.
    #[error(
        "{log} ends at entry {last}, but entry {floor} was on disk and committed, as {meta} says: \
         the end of the log is lost"
    )]
    LostEntries {
        /// The log.
        log: FileName,
        /// The metadata file.
        meta: FileName,
        /// The last entry in the log.
        last: LogIndex,
        /// The last committed entry, which the log should contain.
        floor: LogIndex,
    },
    /// The log has another entry in the place of a durable and committed one.
    #[error(
        "{log} has another entry {floor} than the one that was on disk and committed, as {meta} says: the \
         two files are from different times"
    )]
    OtherEntries {
        /// The log.
        log: FileName,
        /// The metadata file.
        meta: FileName,
        /// The entry that differs.
        floor: LogIndex,
    },
    /// The log or the snapshot has entries of a term later than the metadata's.
    #[error(
        "{file} has entries of term {found}, but the term in {meta} is {current}: that file is older, and \
         votes may be lost"
    )]
    OldMeta {
        /// The log or the snapshot.
        file: FileName,
        /// The metadata file.
        meta: FileName,
        /// The last term of the log or the snapshot.
        found: Term,
        /// The term in the metadata.
        current: Term,
    },
    /// The node's term is further above its last entry than elections can lead.
    #[error(
        "{meta}, line 1: the term {current} is too far above {last}, that of the last entry: other nodes \
         would reject it"
    )]
    TermTooFar {
        /// The metadata file.
        meta: FileName,
        /// The term in the metadata.
        current: Term,
        /// The term of the last entry.
        last: Term,
    },
    /// The snapshot is not whole. The log behind it is useless without it, so recovery cannot
    /// continue.
    #[error("{file}: {fault}")]
    Snapshot {
        /// The snapshot.
        file: FileName,
        /// The fault.
        fault: SnapshotError,
    },
    /// The log starts after a snapshot that is missing.
    #[error("{snapshot} is missing, and {log} starts only after entry {after}")]
    NoSnapshot {
        /// The log.
        log: FileName,
        /// The snapshot.
        snapshot: FileName,
        /// The last entry that is not in the log.
        after: LogIndex,
    },
    /// The snapshot ends before the log starts.
    #[error(
        "{log} starts after entry {after}, but {snapshot} reaches only to entry {reaches}: what is in between \
         is lost"
    )]
    OldSnapshot {
        /// The log.
        log: FileName,
        /// The snapshot.
        snapshot: FileName,
        /// The last entry that is not in the log.
        after: LogIndex,
        /// The last entry that the snapshot covers.
        reaches: LogIndex,
    },
    /// The snapshot ends with another entry than the one that was committed.
    #[error(
        "{snapshot} ends with another entry {last} than the one that was committed, as {witness} shows: the \
         two files are from different times"
    )]
    OtherSnapshot {
        /// The snapshot.
        snapshot: FileName,
        /// The file with the other entry.
        witness: FileName,
        /// The last entry that the snapshot covers.
        last: LogIndex,
    },
}

impl RecoverError {
    /// Returns advice, as a sentence, for a node that has a folder for itself.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        match self {
            Self::OfAnotherNode { .. } => "Put the right file back",
            Self::DifferentOwners { .. } => "Put back two files that belong together",
            Self::Missing { .. } | Self::Lost { .. } | Self::NoSnapshot { .. } => {
                "The node may have voted or acknowledged entries that it no longer knows. Put the file back, \
                 or start again with an empty folder"
            }
            _ => {
                "Nothing was changed. Restore the folder from a copy that was made after the server last \
                 stopped, or start again with an empty folder"
            }
        }
    }
}
