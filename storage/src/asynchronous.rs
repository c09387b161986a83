//! Carries file operations out beside an async executor, on a small pool of threads.
//!
//! A group of operations goes to the pool as a whole, and [`blocking`] carries it out there: what waits
//! for the disk is one thread that was woken once, and the executor hears of it once. An operation at a time would
//! be three of each for every group of a log.

use std::path::PathBuf;

use ::blocking::unblock;
use coracle_core::raft::{NodeId, SnapshotPart};

use crate::blocking;
use crate::execution::FileError;
use crate::files::{FileName, FileOp, NodeFiles};
use crate::snapshot::{PartWanted, ReadPartError};

/// A node's way to its files in a data folder: a [`blocking::Folder`] that is used from an async executor.
///
/// The futures of its methods are to be driven to their end: what is on disk when one is dropped before is unknown, and
/// the folder is gone.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    /// Gone for good after an error.
    folder: Option<blocking::Folder>,
}

impl Folder {
    /// The folder at `path`, which must exist by the time it is used.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        Self { folder: Some(blocking::Folder::new(path.clone())), path }
    }

    /// Reads a node's files as they are.
    ///
    /// # Errors
    ///
    /// As for [`blocking::Folder::read`].
    pub async fn read(&self, node: NodeId) -> Result<NodeFiles, FileError> {
        let folder = blocking::Folder::new(&self.path);
        unblock(move || folder.read(node)).await
    }

    /// Reads a file that must be there, all of it: a snapshot that was written, to be checked before it counts.
    ///
    /// # Errors
    ///
    /// As for [`blocking::Folder::read_back`].
    pub async fn read_back(&self, file: FileName) -> Result<Vec<u8>, FileError> {
        let folder = blocking::Folder::new(&self.path);
        unblock(move || folder.read_back(file)).await
    }

    /// Reads a part of a node's snapshot, and only that of the file; `None` when there is no such part, or no longer.
    ///
    /// # Errors
    ///
    /// As for [`blocking::Folder::read_part`].
    pub async fn read_part(
        &self,
        node: NodeId,
        wanted: PartWanted,
    ) -> Result<Option<SnapshotPart>, ReadPartError> {
        let folder = blocking::Folder::new(&self.path);
        unblock(move || folder.read_part(node, wanted)).await
    }

    /// Carries `ops` out, in order; all of them, or up to the first that fails.
    ///
    /// # Errors
    ///
    /// [`FileError`] names the operation that failed. The folder is not to be used again.
    ///
    /// # Panics
    ///
    /// When it is used again after an error or after the future of an earlier call was dropped: a write that failed is
    /// never retried.
    pub async fn run(&mut self, ops: Vec<FileOp>) -> Result<(), FileError> {
        let mut folder = self.folder.take().expect("a folder is not used after an error");
        if !ops.is_empty() {
            folder = unblock(move || folder.run(&ops).map(|()| folder)).await?;
        }
        self.folder = Some(folder);
        Ok(())
    }
}
