//! Shared parts of the two executors of file operations: their errors, and the buffer that joins an
//! append into one write.
//!
//! No file is touched here. [`blocking`](crate::blocking) carries operations out and
//! [`asynchronous`](crate::asynchronous) runs that on a pool of threads. One test suite checks that
//! both behave alike.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use coracle_core::raft::Entries;

use crate::files::{FileName, FileOp};

/// The most bytes of append buffer that an executor keeps from one group to the next. An arbitrary
/// value: more than a usual group has, and small enough not to matter.
const BUFFER_BYTES_KEPT: usize = 1024 * 1024;

/// A kind of file operation, for error messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Read a file.
    Read,
    /// Create a file with its content.
    Create,
    /// Append to a file.
    Append,
    /// Overwrite a part of a file.
    Overwrite,
    /// Truncate a file.
    Truncate,
    /// Wait until a file's content is on disk.
    Sync,
    /// Rename a file.
    Rename,
    /// Remove a file.
    Remove,
    /// Wait until the folder's names are on disk.
    SyncFolder,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Create => "create",
            Self::Append => "append to",
            Self::Overwrite => "overwrite the end of",
            Self::Truncate => "truncate",
            Self::Sync => "sync",
            Self::Rename => "rename",
            Self::Remove => "remove",
            Self::SyncFolder => "sync the folder",
        })
    }
}

/// Returns the kind of `op` and its path in `folder`, for the system call and the error message.
pub(crate) fn target(folder: &Path, op: &FileOp) -> (Operation, PathBuf) {
    let path = |file: &FileName| folder.join(file.to_string());
    match op {
        FileOp::Create { file, .. } => (Operation::Create, path(file)),
        FileOp::Append { file, .. } | FileOp::AppendText { file, .. } => (Operation::Append, path(file)),
        FileOp::Overwrite { file, .. } => (Operation::Overwrite, path(file)),
        FileOp::Truncate { file, .. } => (Operation::Truncate, path(file)),
        FileOp::Sync { file } => (Operation::Sync, path(file)),
        FileOp::Rename { to, .. } => (Operation::Rename, path(to)),
        FileOp::Remove { file } => (Operation::Remove, path(file)),
        FileOp::SyncFolder => (Operation::SyncFolder, folder.to_owned()),
    }
}

/// Decides whether a start may go on after one of these operations failed. They keep a copy of
/// bytes cut off a log, which is only for inspection, while the cut itself frees room. So if there
/// is no room for the copy, returns its file, which has to be removed.
///
/// # Errors
///
/// The error itself, where the start must not go on.
pub(crate) fn not_kept(ops: &[FileOp], error: FileError) -> Result<FileName, FileError> {
    let file = ops.first().and_then(FileOp::keeps_cut_bytes);
    match file.filter(|file| error.is_for_want_of_room() && error.is_about(*file)) {
        Some(file) => Ok(file),
        None => Err(error),
    }
}

/// The error of a file operation. The state of the disk is unknown from here on: the node must stop
/// without sending anything, and must not try again, because a second sync may succeed without
/// having written the data.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot {operation} {}: {cause}{}{}",
    path.display(),
    advice(*operation, cause),
    room.as_ref().map(Room::to_string).unwrap_or_default()
)]
pub struct FileError {
    /// The operation that was tried.
    pub operation: Operation,
    /// The file or folder.
    pub path: PathBuf,
    /// The error of the operating system.
    pub cause: io::Error,
    /// The room needed and left, if there was too little.
    pub room: Option<Room>,
}

/// The room that a file operation needed, and how much was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// How many bytes were to be written. 0: only the file system knows, because an earlier
    /// operation wrote them.
    pub need: usize,
    /// How many bytes of the disk are free for this user; `None` if that is unknown.
    pub free: Option<u64>,
}

impl fmt::Display for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.need, self.free) {
            (0, None) => Ok(()),
            (0, Some(free)) => write!(f, ": {free} bytes are free"),
            (need, None) => write!(f, ": it needs {need} bytes"),
            (need, Some(free)) => write!(f, ": it needs {need} bytes, and {free} are free"),
        }
    }
}

impl FileError {
    /// Creates the error of an operation that failed for this cause.
    pub(crate) fn of(operation: Operation, path: PathBuf, cause: io::Error) -> Self {
        Self { operation, path, cause, room: None }
    }

    /// Creates the error of an operation that found no room, for a simulation.
    #[must_use]
    pub fn without_room(op: &FileOp) -> Self {
        let (operation, path) = target(Path::new("."), op);
        Self::of(operation, path, io::ErrorKind::StorageFull.into())
    }

    /// Whether there was no room: on the disk, within a quota, or below the largest size of a file.
    #[must_use]
    pub fn is_for_want_of_room(&self) -> bool {
        let kind = self.cause.kind();
        matches!(
            kind,
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
        )
    }

    /// Whether the operation was to write this file.
    #[must_use]
    pub fn is_about(&self, file: FileName) -> bool {
        let fills = matches!(self.operation, Operation::Create | Operation::Append | Operation::Sync);
        fills && self.path.file_name().is_some_and(|name| name.to_str() == Some(&*file.to_string()))
    }
}

/// Returns advice for the user, where the message of the operating system gives none.
fn advice(operation: Operation, cause: &io::Error) -> &'static str {
    let syncs = matches!(operation, Operation::Sync | Operation::SyncFolder);
    if syncs && is_unsupported(cause) { SYNC_UNSUPPORTED } else { "" }
}

/// Advice for a file system that cannot sync.
pub(crate) const SYNC_UNSUPPORTED: &str = ". This file system cannot sync, so a power cut could lose \
    acknowledged writes (some network and user-space file systems are like that): choose a --data-dir on \
    another file system";

/// Whether a sync failed because the file system does not support it, and not because the disk
/// failed.
pub(crate) fn is_unsupported(cause: &io::Error) -> bool {
    matches!(cause.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported)
}

/// Joins the lines of an append into one buffer.
#[derive(Debug, Default)]
pub(crate) struct AppendBuffer {
    bytes: Vec<u8>,
}

impl AppendBuffer {
    /// Returns the lines as one slice. A single run of entries is one slice already and is not
    /// copied.
    pub(crate) fn join<'a>(&'a mut self, entries: &'a [Entries]) -> &'a [u8] {
        if let [entries] = entries {
            return entries.text().as_bytes();
        }
        self.bytes.clear();
        self.bytes.shrink_to(BUFFER_BYTES_KEPT);
        self.bytes.reserve(entries.iter().map(|entries| entries.text().len()).sum());
        for entries in entries {
            self.bytes.extend_from_slice(entries.text().as_bytes());
        }
        &self.bytes
    }
}

#[cfg(test)]
mod tests;
