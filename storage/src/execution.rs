//! What the two executors share: the errors they give and the buffer that makes one write of an
//! append.
//!
//! No file is touched here. [`blocking`](crate::blocking) carries operations out and
//! [`asynchronous`](crate::asynchronous) has that done beside an executor, with the same behaviour,
//! which one suite of tests over both holds them to.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use coracle_core::raft::Entries;

use crate::files::{FileName, FileOp};

/// The most bytes of append buffer that an executor keeps from one group to the next. Arbitrary:
/// more than the usual group has, little enough to forget about.
const BUFFER_BYTES_KEPT: usize = 1024 * 1024;

/// What was tried with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Read it as a whole.
    Read,
    /// Make it, or make it anew, with its content.
    Create,
    /// Write at its end.
    Append,
    /// Write over a part of it.
    Overwrite,
    /// Make it shorter.
    Truncate,
    /// Wait for its content to be on disk.
    Sync,
    /// Give it another name.
    Rename,
    /// Remove it.
    Remove,
    /// Wait for the folder's names to be on disk.
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

/// What `op` does in `folder`, and with which path: for its error message and for the system call.
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

/// These operations of a start keep what was cut off a log, for a look. Nobody relies on that, and
/// the cut makes room: so where there is none for it, the start goes on, and this is the file that
/// has to go.
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

/// A file operation failed. What is on disk is unknown from here on: the node must stop without
/// sending anything, and must not try again, since a second sync may succeed without having written
/// the data.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot {operation} {}: {cause}{}{}",
    path.display(),
    advice(*operation, cause),
    room.as_ref().map(Room::to_string).unwrap_or_default()
)]
pub struct FileError {
    /// What was tried.
    pub operation: Operation,
    /// With which file or folder.
    pub path: PathBuf,
    /// What the operating system said.
    pub cause: io::Error,
    /// How much room there was, where there was too little.
    pub room: Option<Room>,
}

/// The room that a file operation needed, and what there was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// How many bytes were to be written. 0: only the file system knows, because they were written
    /// before.
    pub need: usize,
    /// How many bytes of the disk are free for this user; `None`: that cannot be found out.
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
    /// The error of an operation that failed for this cause.
    pub(crate) fn of(operation: Operation, path: PathBuf, cause: io::Error) -> Self {
        Self { operation, path, cause, room: None }
    }

    /// The error of an operation that finds no room, for a simulation.
    #[must_use]
    pub fn without_room(op: &FileOp) -> Self {
        let (operation, path) = target(Path::new("."), op);
        Self::of(operation, path, io::ErrorKind::StorageFull.into())
    }

    /// Whether there was no room: on the disk, within a quota, or within the largest size of a
    /// file.
    #[must_use]
    pub fn is_for_want_of_room(&self) -> bool {
        let kind = self.cause.kind();
        matches!(
            kind,
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
        )
    }

    /// Whether the operation was to fill this file.
    #[must_use]
    pub fn is_about(&self, file: FileName) -> bool {
        let fills = matches!(self.operation, Operation::Create | Operation::Append | Operation::Sync);
        fills && self.path.file_name().is_some_and(|name| name.to_str() == Some(&*file.to_string()))
    }
}

/// What to do about it, where the message of the operating system does not tell.
fn advice(operation: Operation, cause: &io::Error) -> &'static str {
    let syncs = matches!(operation, Operation::Sync | Operation::SyncFolder);
    if syncs && is_unsupported(cause) { SYNC_UNSUPPORTED } else { "" }
}

/// What to do where a file system cannot sync.
pub(crate) const SYNC_UNSUPPORTED: &str = ". This file system cannot sync, so a power cut could take away what was \
    acknowledged (some network and user-space file systems are like that): choose a --data-dir on another file system";

/// Whether a sync failed because there is no such thing here, and not because the disk is ill.
pub(crate) fn is_unsupported(cause: &io::Error) -> bool {
    matches!(cause.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported)
}

/// Makes one piece of bytes of an append's lines.
#[derive(Debug, Default)]
pub(crate) struct AppendBuffer {
    bytes: Vec<u8>,
}

impl AppendBuffer {
    /// The lines as one piece. A single run of entries is one already and is not copied.
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
