//! Opening a data folder: one type per stage, so that no step can be skipped or done too early.
//!
//! ```text
//! ClusterOpening, MemberOpening      which files to read            the folder is locked, and read
//!        │ judge
//!        ▼
//! FoundCluster, FoundMember          which operations to carry out  the ports are bound; nothing was written so far
//!        │ operations, then opened
//!        ▼
//! NodeStart, OpenedMember            the state and settings that a node starts from
//! ```
//!
//! A cluster's opening is in `cluster`, a single node's in `member`.
//!
//! The folder is checked as a whole before any file in it is changed: a file of a node that does
//! not belong there is named and refused. Otherwise a wrong `--id` would create a new node beside
//! another node's log.
//!
//! Deliberately not here: reading and writing. A runtime locks the folder, reads the files of
//! [`ClusterOpening::nodes`] one node after the other and the names of all files, binds its ports,
//! and carries the operations out.

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

/// The names of the files of all nodes in a data folder.
#[derive(Debug, Default)]
pub struct FolderNames(pub Vec<FileName>);

impl FolderNames {
    /// Returns a file of a node that is not one of these. Temporary files do not count, because no
    /// other file depends on them.
    fn foreign_file(&self, is_own: impl Fn(NodeId) -> bool) -> Option<FileName> {
        self.0.iter().copied().find(|name| {
            let is_foreign = !is_own(name.node) && !is_temporary(name.kind);
            is_foreign && !mutant::is_active(Mutant::ForeignFilesAccepted)
        })
    }

    /// Plans the removal of temporary files that an earlier run of these nodes left. It comes
    /// before every other write of a start, which may need just this room on a full disk.
    fn removal_of_left_overs(&self, is_own: impl Fn(NodeId) -> bool) -> Vec<FileOp> {
        let left_over = |name: &&FileName| is_own(name.node) && is_temporary(name.kind);
        self.0.iter().filter(left_over).map(|file| FileOp::Remove { file: *file }).collect()
    }
}

fn is_temporary(kind: FileKind) -> bool {
    matches!(kind, FileKind::LogTemporary | FileKind::MetaTemporary | FileKind::SnapshotTemporary)
}

/// The last stage for a node with files: its folder and its recovered state.
#[derive(Debug)]
pub struct FileStart {
    /// The data folder.
    pub path: PathBuf,
    /// The state recovered from the files, or that of a new node.
    pub recovery: Recovery,
    /// The content of the node's snapshot, if that was parsed already.
    pub state: Option<RestoredState>,
}

#[cfg(test)]
mod tests;
