//! Why a node cannot go on from its files: what is wrong, with which file, and what to do about it.

use coracle_core::raft::{LogIndex, NodeId, Term};

use crate::files::FileName;
use crate::scan::Damage;
use crate::sealed::SealedLineFault;
use crate::snapshot::SnapshotFault;

/// Why a node cannot go on from its files. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecoverError {
    /// A file is not there.
    #[error("{file} is missing: {ADVICE}")]
    Missing {
        /// The file.
        file: FileName,
    },
    /// The log's first line cannot be read.
    #[error("{file}, line 1: {fault}. {ADVICE_START}")]
    Header {
        /// The log.
        file: FileName,
        /// What is wrong.
        fault: SealedLineFault,
    },
    /// The metadata cannot be read: the node may have voted, and nobody knows for whom.
    #[error("{file}, line 1: {fault}. {ADVICE_START}")]
    Meta {
        /// The metadata file.
        file: FileName,
        /// What is wrong.
        fault: SealedLineFault,
    },
    /// A file says that it belongs to another node.
    #[error("{file} belongs to node {owner}: the file was renamed or copied. Put the right file back")]
    OfAnotherNode {
        /// The file.
        file: FileName,
        /// The node that it names.
        owner: NodeId,
    },
    /// Two files name different clusters or incarnations.
    #[error(
        "{one} and {other} do not belong together: they are of different clusters, or of different lives \
         of the node. Put back the two that do"
    )]
    DifferentOwners {
        /// The log.
        one: FileName,
        /// The metadata file or the snapshot.
        other: FileName,
    },
    /// A line of the log was durable once and is not what it was.
    #[error("{file}: {damage}. {ADVICE_START}")]
    Damaged {
        /// The log.
        file: FileName,
        /// What is damaged.
        damage: Damage,
    },
    /// The log ends before an entry that was durable and committed.
    #[error(
        "{log} ends at entry {last}, but entry {floor} was on disk and committed, as {meta} says: \
         the end of the log is lost. {ADVICE_START}"
    )]
    LostEntries {
        /// The log.
        log: FileName,
        /// The metadata file.
        meta: FileName,
        /// The last entry there is.
        last: LogIndex,
        /// The entry that must be there.
        floor: LogIndex,
    },
    /// The log holds another entry than the one that was durable and committed.
    #[error(
        "{log} has another entry {floor} than the one that was on disk and committed, as {meta} says: \
         the two are not of the same time. {ADVICE_START}"
    )]
    OtherEntries {
        /// The log.
        log: FileName,
        /// The metadata file.
        meta: FileName,
        /// The entry that differs.
        floor: LogIndex,
    },
    /// The log or the snapshot has entries of a term that the metadata does not know of.
    #[error(
        "{file} has entries of term {found}, but {meta} knows of no term after {current}: it is older than \
         that, and votes may be lost. {ADVICE_START}"
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
    /// The snapshot is not whole. The log behind it is nothing without it, so there is no way around it.
    #[error("{file}: {fault}. {ADVICE_START}")]
    Snapshot {
        /// The snapshot.
        file: FileName,
        /// What is wrong.
        fault: SnapshotFault,
    },
    /// The log starts after a snapshot that is not there.
    #[error("{snapshot} is missing, and {log} starts only after entry {after}: {ADVICE}")]
    NoSnapshot {
        /// The log.
        log: FileName,
        /// The snapshot.
        snapshot: FileName,
        /// The last entry that is not in the log.
        after: LogIndex,
    },
    /// The snapshot does not reach the log's start.
    #[error(
        "{log} starts after entry {after}, but {snapshot} reaches only to entry {reaches}: what is in between \
         is lost. {ADVICE_START}"
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
        "{snapshot} ends with another entry {last} than the one that was committed, as {witness} shows: the two \
         are not of the same time. {ADVICE_START}"
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

const ADVICE: &str = "the node must not go on without it, since it may have promised what it would not know \
     of. Put the file back, or start anew in an empty folder";
const ADVICE_START: &str = "Nothing was changed. Put the folder back from a copy that was made while the server was \
     stopped and nothing has run since, or start anew in an empty folder";
