//! File operations: the names of a node's files, their bytes, and the operations that change them.
//!
//! Nothing here touches a disk: a [`FileOp`] is an order, carried out by an executor
//! ([`blocking`](crate::blocking), [`asynchronous`](crate::asynchronous)) or by a simulated disk.
//! The power may fail after each operation and in the middle of it. So the code that plans a list
//! of operations is responsible for every point at which it may be interrupted.

use std::fmt;
use std::sync::Arc;

use coracle_core::mutant::{self, Mutant};
use coracle_core::raft::{Entries, NodeId};

/// The purpose of a node's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FileKind {
    /// The log, `log00.txt`.
    Log,
    /// Bytes that a start cut off the log's end, `log00.txt.cut`: kept for inspection until the
    /// next start that finds nothing to cut.
    LogCut,
    /// The log that is about to replace the old, `log00.txt.tmp`. Never read.
    LogTemporary,
    /// The incarnation of a node that has no cluster yet, `founding0.txt`.
    Founding,
    /// The metadata (term, vote and floor), `meta0.txt`.
    Meta,
    /// The metadata that is about to replace the old, `meta0.txt.tmp`. Never read.
    MetaTemporary,
    /// The latest snapshot, `snap0.txt`. It does not exist before the first snapshot.
    Snapshot,
    /// The snapshot that is about to replace the old, `snap0.txt.tmp`. It is read back once before
    /// it does. An interrupted one is never used; the next start or the next snapshot removes it.
    SnapshotTemporary,
}

/// The name of a node's file; displayed as its name in the data folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileName {
    /// The node that the file belongs to.
    pub node: NodeId,
    /// Which of the node's files it is.
    pub kind: FileKind,
}

impl FileName {
    /// Returns the name of the file of this kind that belongs to `node`.
    #[must_use]
    pub const fn new(node: NodeId, kind: FileKind) -> Self {
        Self { node, kind }
    }

    /// Parses a name in a data folder; `None` if it is not that of a node's file.
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

/// One operation on a file. A list of them is carried out in order, and ends at the first failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileOp {
    /// Create the file with exactly these bytes. An existing file with this name is removed first,
    /// and never written to, because it may be a link to another file.
    Create {
        /// The file.
        file: FileName,
        /// All of its bytes.
        bytes: Vec<u8>,
    },
    /// Append these lines to an existing file.
    Append {
        /// The file.
        file: FileName,
        /// The lines, in order. Sharing them costs nothing: at most the executor copies the text.
        entries: Vec<Entries>,
    },
    /// Append this text to an existing file.
    AppendText {
        /// The file.
        file: FileName,
        /// The text, shared with its producer.
        text: Arc<str>,
    },
    /// Overwrite the bytes from offset `at` on, without going past the end of the file.
    Overwrite {
        /// The file.
        file: FileName,
        /// The offset of the first byte.
        at: u64,
        /// The new bytes.
        bytes: Vec<u8>,
    },
    /// Truncate the file to its first `len` bytes.
    Truncate {
        /// The file.
        file: FileName,
        /// The new length; at most the current one.
        len: u64,
    },
    /// Wait until the file's bytes and length are on disk.
    Sync {
        /// The file.
        file: FileName,
    },
    /// Rename the file, atomically replacing a file that has the new name.
    Rename {
        /// The old name.
        from: FileName,
        /// The new name.
        to: FileName,
    },
    /// Remove the file.
    Remove {
        /// The file.
        file: FileName,
    },
    /// Wait until created, renamed and removed names of the folder are on disk.
    SyncFolder,
}

impl FileOp {
    /// Returns the file in which this operation keeps bytes that a start cuts off a log, if it
    /// does.
    pub(crate) fn keeps_cut_bytes(&self) -> Option<FileName> {
        match self {
            Self::Create { file, .. } | Self::Sync { file } if file.kind == FileKind::LogCut => Some(*file),
            _ => None,
        }
    }

    /// The number of bytes that it writes.
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

/// When a write waits for the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SyncPolicy {
    /// Every write is synced before it is reported as durable, so that it survives a power cut.
    #[default]
    Always,
    /// The operating system decides when to write. A reported write survives the end of the process
    /// at any moment, but not a power cut: after one, a node may have lost entries or refuse to
    /// start. Only new files are synced.
    Never,
}

impl SyncPolicy {
    /// Removes the syncs from `ops` if the policy says so.
    pub(crate) fn apply(self, mut ops: Vec<FileOp>) -> Vec<FileOp> {
        if self == Self::Never {
            ops.retain(|op| !matches!(op, FileOp::Sync { .. } | FileOp::SyncFolder));
        }
        ops.retain(|op| !is_skipped_by_mutant(op));
        ops
    }
}

/// The content of a node's files at a start; `None` for a file that does not exist.
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
    /// Whether there is a file with bytes that were cut off earlier.
    pub has_cut_bytes: bool,
}

/// Deliberate bugs: whether this sync is left out.
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

/// Replaces the metadata of `node` atomically: a crash leaves the old or the new file, each whole.
pub(crate) fn replace_meta(node: NodeId, bytes: Vec<u8>) -> [FileOp; 4] {
    let temporary = in_place_by_mutant().unwrap_or(FileKind::MetaTemporary);
    replace(FileName::new(node, temporary), FileName::new(node, FileKind::Meta), bytes)
}

/// Replaces the log of `node` atomically, as [`replace_meta`] does.
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

/// Deliberate bug: the metadata file is overwritten in place.
fn in_place_by_mutant() -> Option<FileKind> {
    mutant::is_active(Mutant::MetaInPlace).then_some(FileKind::Meta)
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
    fn only_syncs_are_left_out() {
        let ops = replace_meta(NodeId(0), b"x".to_vec()).to_vec();
        assert_eq!(SyncPolicy::Always.apply(ops.clone()), ops);
        assert_eq!(SyncPolicy::Never.apply(ops.clone()), [ops[0].clone(), ops[2].clone()]);
    }
}
