//! Opening a data folder: one type per stage, so that no step can be left out or taken too early.
//!
//! ```text
//! ClusterOpening, MemberOpening      which files to read            the folder is locked, and read
//!        │ judge
//!        ▼
//! FoundCluster, FoundMember          which operations to carry out  the ports are bound; nothing was written so far
//!        │ operations, then opened
//!        ▼
//! what the nodes start from
//! ```
//!
//! A cluster's opening is in `cluster`, a node's in `member`.
//!
//! The folder is judged before anything is written to it, and as a whole: files of any node that
//! does not belong are refused by name. A wrong `--id` must not make a new node beside another
//! one's log.
//!
//! Deliberately not here: reading and writing. A runtime locks the folder, reads the files of
//! [`ClusterOpening::nodes`], one node after the other, and the names of all that is there, binds
//! its ports, and carries the operations out.

mod cluster;
mod member;

use std::path::PathBuf;

use coracle_core::RestoredState;
use coracle_core::mutant::{self, Mutant};
use coracle_core::raft::NodeId;

use crate::files::{FileKind, FileName, FileOp};
use crate::recover::Recovery;
pub use cluster::{ClusterOpening, FoundCluster};
pub use member::{FoundMember, MemberOpening, OpenedMember};

/// The names of all files of any node in a data folder, as they were found.
#[derive(Debug, Default)]
pub struct FolderNames(pub Vec<FileName>);

impl FolderNames {
    /// A file of a node that is none of these. What has no final name yet does not count: nobody
    /// relies on it.
    fn foreign_file(&self, is_own: impl Fn(NodeId) -> bool) -> Option<FileName> {
        let is_blind = mutant::is_active(Mutant::ForeignFilesAccepted);
        self.0.iter().copied().find(|name| !is_own(name.node) && !is_temporary(name.kind) && !is_blind)
    }

    /// Removes what an earlier run of these nodes left unfinished. It comes before everything else
    /// that a start writes: on a full disk that may need just this room.
    fn removal_of_left_overs(&self, is_own: impl Fn(NodeId) -> bool) -> Vec<FileOp> {
        let left_over = |name: &&FileName| is_own(name.node) && is_temporary(name.kind);
        self.0.iter().filter(left_over).map(|file| FileOp::Remove { file: *file }).collect()
    }
}

fn is_temporary(kind: FileKind) -> bool {
    matches!(kind, FileKind::LogTemporary | FileKind::MetaTemporary | FileKind::SnapshotTemporary)
}

/// The last stage for a node with files: its folder, and what it goes on from.
#[derive(Debug)]
pub struct FileStart {
    /// The data folder.
    pub path: PathBuf,
    /// What was found in it, or is true of a new node.
    pub recovery: Recovery,
    /// What its snapshot says, if that was read.
    pub state: Option<RestoredState>,
}

#[cfg(test)]
mod tests;
