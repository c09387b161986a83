//! The names of a node's files, their bytes, and the operations that change them.
//!
//! Nothing here touches a disk: a [`FileOp`] is an order, carried out by an executor
//! ([`blocking`](crate::blocking), [`asynchronous`](crate::asynchronous)) or by a simulated disk.
//! After each operation, and in the middle of it, the power may fail: whoever makes a list of
//! operations answers for every place where it may end early.

use std::fmt;
use std::sync::Arc;

use coracle_core::mutant::{self, Mutant};
use coracle_core::raft::{Entries, NodeId};

/// What a file of a node is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FileKind {
    /// The log, `log00.txt`.
    Log,
    /// Bytes that were cut off the log's end at a start, `log00.txt.cut`: kept for a look until the
    /// next start that finds nothing to cut.
    LogCut,
    /// The log that is about to replace the old, `log00.txt.tmp`. Never read.
    LogTemporary,
    /// A node's incarnation while it has no cluster yet, `founding0.txt`.
    Founding,
    /// Term and vote, `meta0.txt`.
    Meta,
    /// The metadata that is about to replace the old, `meta0.txt.tmp`. Never read.
    MetaTemporary,
    /// The latest snapshot, `snap0.txt`. Not there before the first.
    Snapshot,
    /// The snapshot that is about to replace the old, `snap0.txt.tmp`. Read back once, before it
    /// does; what an interrupted one leaves is never used and goes when the next is begun.
    SnapshotTemporary,
}

/// A file of a node; displayed as its name in the data folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileName {
    /// Whose file.
    pub node: NodeId,
    /// Which of the node's files.
    pub kind: FileKind,
}

impl FileName {
    /// The file of this kind that belongs to `node`.
    #[must_use]
    pub const fn new(node: NodeId, kind: FileKind) -> Self {
        Self { node, kind }
    }

    /// The file that has this name in a data folder; `None`: it is not a node's.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let kinds = [
            FileKind::Log,
            FileKind::LogCut,
            FileKind::LogTemporary,
            FileKind::Founding,
            FileKind::Meta,
            FileKind::MetaTemporary,
            FileKind::Snapshot,
            FileKind::SnapshotTemporary,
        ];
        let digits = name.trim_start_matches(|symbol: char| symbol.is_ascii_lowercase());
        let node = NodeId(digits.split('.').next()?.parse().ok()?);
        kinds.into_iter().map(|kind| Self { node, kind }).find(|file| file.to_string() == name)
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let node = self.node.0;
        match self.kind {
            FileKind::Log => write!(f, "log{node:02}.txt"),
            FileKind::LogCut => write!(f, "log{node:02}.txt.cut"),
            FileKind::LogTemporary => write!(f, "log{node:02}.txt.tmp"),
            FileKind::Founding => write!(f, "founding{node}.txt"),
            FileKind::Meta => write!(f, "meta{node}.txt"),
            FileKind::MetaTemporary => write!(f, "meta{node}.txt.tmp"),
            FileKind::Snapshot => write!(f, "snap{node}.txt"),
            FileKind::SnapshotTemporary => write!(f, "snap{node}.txt.tmp"),
        }
    }
}

/// One operation on a file. A list of them is carried out in order, and ends at the first that
/// fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileOp {
    /// Create the file with exactly these bytes. A file that has the name already is removed
    /// before, and never written to: it may be a link to somewhere else.
    Create {
        /// Which file.
        file: FileName,
        /// All of its bytes.
        bytes: Vec<u8>,
    },
    /// Write these lines at the end of a file that exists.
    Append {
        /// Which file.
        file: FileName,
        /// The lines, in order. Sharing them costs nothing: the text is copied by the executor at
        /// most.
        entries: Vec<Entries>,
    },
    /// Write this text at the end of a file that exists.
    AppendText {
        /// Which file.
        file: FileName,
        /// The text, shared with whoever made it.
        text: Arc<str>,
    },
    /// Write these bytes over those that stand at `at`, without going past the file's end.
    Overwrite {
        /// Which file.
        file: FileName,
        /// The first byte's offset in the file.
        at: u64,
        /// What to write.
        bytes: Vec<u8>,
    },
    /// Drop everything past the first `len` bytes.
    Truncate {
        /// Which file.
        file: FileName,
        /// How many bytes stay; at most as many as there are.
        len: u64,
    },
    /// Wait until the file's bytes and length are on disk.
    Sync {
        /// Which file.
        file: FileName,
    },
    /// Give the file another name; a file that had it before is gone, in one step.
    Rename {
        /// The name so far.
        from: FileName,
        /// The name from now on.
        to: FileName,
    },
    /// Remove the file.
    Remove {
        /// Which file.
        file: FileName,
    },
    /// Wait until the names of the folder (created, renamed, removed) are on disk.
    SyncFolder,
}

impl FileOp {
    /// The file that this operation keeps the bytes in that a start cut off a log, if it does.
    pub(crate) fn keeps_cut_bytes(&self) -> Option<FileName> {
        match self {
            Self::Create { file, .. } | Self::Sync { file } if file.kind == FileKind::LogCut => Some(*file),
            _ => None,
        }
    }

    /// How many bytes it writes.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Create { bytes, .. } | Self::Overwrite { bytes, .. } => bytes.len(),
            Self::Append { entries, .. } => entries.iter().map(|run| run.text().len()).sum(),
            Self::AppendText { text, .. } => text.len(),
            Self::Truncate { .. }
            | Self::Sync { .. }
            | Self::Rename { .. }
            | Self::Remove { .. }
            | Self::SyncFolder => 0,
        }
    }
}

/// Whether the program waits for the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SyncPolicy {
    /// What was reported as durable outlives a power cut.
    #[default]
    Always,
    /// The operating system decides when to write. What was reported outlives the end of the
    /// process, at any moment, but not a power cut: after one, a node may have lost entries or
    /// refuse to start. Only new files are waited for.
    Never,
}

impl SyncPolicy {
    /// Leaves the waiting out of `ops` where the policy says so.
    pub(crate) fn apply(self, mut ops: Vec<FileOp>) -> Vec<FileOp> {
        if self == Self::Never {
            ops.retain(|op| !matches!(op, FileOp::Sync { .. } | FileOp::SyncFolder));
        }
        ops.retain(|op| !is_skipped_by_mutant(op));
        ops
    }
}

/// The bytes of a node's files as found at start; `None` for a file that is not there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeFiles {
    /// The log.
    pub log: Option<Vec<u8>>,
    /// The metadata.
    pub meta: Option<Vec<u8>>,
    /// The incarnation of a node without a cluster.
    pub founding: Option<Vec<u8>>,
    /// The latest snapshot.
    pub snapshot: Option<Vec<u8>>,
    /// Whether a file with bytes cut off earlier is there.
    pub has_cut_bytes: bool,
}

/// Which waiting a mutant leaves out.
fn is_skipped_by_mutant(op: &FileOp) -> bool {
    match op {
        FileOp::SyncFolder => mutant::is_active(Mutant::FolderNotSynced),
        FileOp::Sync { file } => match file.kind {
            FileKind::Log | FileKind::LogTemporary => mutant::is_active(Mutant::LogNotSynced),
            FileKind::Snapshot | FileKind::SnapshotTemporary => mutant::is_active(Mutant::SnapshotNotSynced),
            FileKind::LogCut | FileKind::Founding | FileKind::Meta | FileKind::MetaTemporary => {
                mutant::is_active(Mutant::MetaNotSynced)
            }
        },
        _ => false,
    }
}

/// Replaces the metadata of `node` in one step: a crash leaves the old or the new, each whole.
pub(crate) fn replace_meta(node: NodeId, bytes: Vec<u8>) -> [FileOp; 4] {
    let is_in_place = mutant::is_active(Mutant::MetaInPlace);
    let temporary = if is_in_place { FileKind::Meta } else { FileKind::MetaTemporary };
    replace(FileName::new(node, temporary), FileName::new(node, FileKind::Meta), bytes)
}

/// Replaces the log of `node`, as [`replace_meta`] does.
pub(crate) fn replace_log(node: NodeId, bytes: Vec<u8>) -> [FileOp; 4] {
    replace(FileName::new(node, FileKind::LogTemporary), FileName::new(node, FileKind::Log), bytes)
}

fn replace(temporary: FileName, to: FileName, bytes: Vec<u8>) -> [FileOp; 4] {
    [
        FileOp::Create { file: temporary, bytes },
        FileOp::Sync { file: temporary },
        FileOp::Rename { from: temporary, to },
        FileOp::SyncFolder,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_documentation() {
        let name = |node, kind| FileName::new(NodeId(node), kind).to_string();
        assert_eq!(name(0, FileKind::Log), "log00.txt");
        assert_eq!(name(7, FileKind::LogCut), "log07.txt.cut");
        assert_eq!(name(12, FileKind::Meta), "meta12.txt");
        assert_eq!(name(123, FileKind::MetaTemporary), "meta123.txt.tmp");
        assert_eq!(name(4, FileKind::LogTemporary), "log04.txt.tmp");
        assert_eq!(name(0, FileKind::Snapshot), "snap0.txt");
        assert_eq!(name(12, FileKind::SnapshotTemporary), "snap12.txt.tmp");
    }

    #[test]
    fn a_name_is_parsed_when_it_is_a_nodes() {
        for name in
            ["log00.txt", "log12.txt.cut", "log123.txt.tmp", "founding4.txt", "meta0.txt", "snap7.txt.tmp"]
        {
            assert_eq!(FileName::parse(name).map(|file| file.to_string()).as_deref(), Some(name));
        }
        for name in
            ["LOCK", "log0.txt", "log.txt", "logs00.txt", "snap0.txt.cut", "backup.txt", "", "log-1.txt"]
        {
            assert_eq!(FileName::parse(name), None, "{name}");
        }
    }

    #[test]
    fn only_the_waiting_is_left_out() {
        let ops = replace_meta(NodeId(0), b"x".to_vec()).to_vec();
        assert_eq!(SyncPolicy::Always.apply(ops.clone()), ops);
        assert_eq!(SyncPolicy::Never.apply(ops.clone()), [ops[0].clone(), ops[2].clone()]);
    }
}
