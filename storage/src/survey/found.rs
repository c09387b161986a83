//! Summary of a node's files: which exist, and whether they show that the cluster has been used.

use coracle_core::raft::{LogPoint, NodeId};

use crate::files::{FileKind, FileName, NodeFiles};
use crate::header::LogHeader;
use crate::meta::Meta;
use crate::recover::RecoverError;
use crate::sealed::SealedLineError;

/// A summary of a node's files.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) node: NodeId,
    pub(super) log: FoundLog,
    pub(super) meta: FoundMeta,
    /// Whether it exists, whatever its content: a snapshot gets its name only when it is whole.
    has_snapshot: bool,
}

#[derive(Debug)]
pub(super) enum FoundLog {
    Missing,
    /// It has no complete line, as after a power cut during the founding.
    Unfinished,
    Readable {
        header: LogHeader,
        /// Whether there are entries, in the file or in the snapshot before it.
        has_entries: bool,
    },
    Unreadable(SealedLineError),
}

#[derive(Debug)]
pub(super) enum FoundMeta {
    Missing,
    Readable(Meta),
    Unreadable(SealedLineError),
}

impl Found {
    pub(super) fn new(node: NodeId, files: &NodeFiles) -> Self {
        let log = match &files.log {
            None => FoundLog::Missing,
            Some(bytes) => match bytes.iter().position(|byte| *byte == b'\n') {
                None => FoundLog::Unfinished,
                Some(end) => match LogHeader::decode(&bytes[..=end]) {
                    Ok(header) => {
                        let has_entries = header.after != LogPoint::ORIGIN || bytes.len() > end + 1;
                        FoundLog::Readable { header, has_entries }
                    }
                    Err(fault) => FoundLog::Unreadable(fault),
                },
            },
        };
        let meta = match files.meta.as_deref().map(Meta::decode) {
            None => FoundMeta::Missing,
            Some(Ok(meta)) => FoundMeta::Readable(meta),
            Some(Err(fault)) => FoundMeta::Unreadable(fault),
        };
        Self { node, log, meta, has_snapshot: files.snapshot.is_some() }
    }

    pub(super) fn file(&self, kind: FileKind) -> FileName {
        FileName::new(self.node, kind)
    }

    /// Returns a file that was never created, never finished, or removed.
    pub(super) fn lost_file(&self) -> Option<FileName> {
        if matches!(self.log, FoundLog::Missing | FoundLog::Unfinished) {
            return Some(self.file(FileKind::Log));
        }
        matches!(self.meta, FoundMeta::Missing).then(|| self.file(FileKind::Meta))
    }

    /// Returns a file that shows that the node was used.
    pub(super) fn witness(&self) -> Option<FileName> {
        if matches!(self.log, FoundLog::Readable { has_entries: true, .. }) {
            return Some(self.file(FileKind::Log));
        }
        if self.has_snapshot {
            return Some(self.file(FileKind::Snapshot));
        }
        let has_promised = matches!(&self.meta, FoundMeta::Readable(meta) if meta.holds_a_promise());
        has_promised.then(|| self.file(FileKind::Meta))
    }

    /// Returns the fault of a file that cannot be read, and so may show that the node was used.
    pub(super) fn unreadable(&self) -> Option<RecoverError> {
        if let FoundLog::Unreadable(fault) = &self.log {
            return Some(RecoverError::Header { file: self.file(FileKind::Log), fault: fault.clone() });
        }
        let FoundMeta::Unreadable(fault) = &self.meta else { return None };
        Some(RecoverError::Meta { file: self.file(FileKind::Meta), fault: fault.clone() })
    }
}
