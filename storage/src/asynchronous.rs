//! Carries file operations out beside an async executor.
//!
//! It is [`blocking`], on a pool of threads: a group of operations goes there as a whole, and so
//! does what is to be read. What waits for the disk then is one thread that was woken once, and the
//! executor, free in between, hears of it once. An operation at a time would be three of each for
//! every put; and a library that buffers what is written between the two tells later, or not at
//! all, why it was not.

mod work;

use std::path::PathBuf;
use std::time::Duration;

use ::blocking::unblock;
use coracle_core::raft::{NodeId, SnapshotPart};

use crate::blocking;
use crate::execution::FileError;
use crate::files::{FileName, FileOp, NodeFiles};
use crate::host::FolderNames;
use crate::snapshot::{PartWanted, ReadPartError};
pub use work::{open, prepare};

/// How often the pool is given something to do.
const POOL_TRIED_EVERY: Duration = Duration::from_secs(1);

/// Gives the pool of threads something to do every second, and never ends. The pool ends its idle
/// threads, and starts new ones only at the moment when work arrives. Work that arrives while the
/// operating system refuses threads would wait for ever without this. `pause` ends after the time
/// that it is given.
pub async fn try_pool<T, P: Future>(pause: impl Fn(Duration) -> P) -> T {
    loop {
        pause(POOL_TRIED_EVERY).await;
        unblock(|| ()).detach();
    }
}

/// A node's way to its files in a data folder: a [`blocking::Folder`] for an async executor.
///
/// The futures of its methods are to be driven to their end: what is on disk when one is dropped
/// before is unknown, and the folder is gone.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    /// Gone while it is on the pool, and for good after an error.
    folder: Option<blocking::Folder>,
}

impl Folder {
    /// The folder at `path`, which must exist by the time it is used.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        Self { folder: Some(blocking::Folder::new(path.clone())), path }
    }

    /// Reads with another handle, which needs nothing that this one has open.
    async fn read_with<T: Send + 'static>(
        &self,
        read: impl FnOnce(blocking::Folder) -> T + Send + 'static,
    ) -> T {
        let folder = blocking::Folder::new(self.path.clone());
        unblock(move || read(folder)).await
    }

    /// The names of all files of any node, sorted.
    ///
    /// # Errors
    ///
    /// [`FileError`] when the folder cannot be read.
    pub async fn names(&self) -> Result<FolderNames, FileError> {
        self.read_with(|folder| folder.names()).await
    }

    /// Reads a node's files as they are.
    ///
    /// # Errors
    ///
    /// As for [`blocking::Folder::read`].
    pub async fn read(&self, node: NodeId) -> Result<NodeFiles, FileError> {
        self.read_with(move |folder| folder.read(node)).await
    }

    /// Reads a file that must be there, all of it: a snapshot that was written, to be checked
    /// before it counts.
    ///
    /// # Errors
    ///
    /// As for [`blocking::Folder::read_back`].
    pub async fn read_back(&self, file: FileName) -> Result<Vec<u8>, FileError> {
        self.read_with(move |folder| folder.read_back(file)).await
    }

    /// Reads a part of a node's snapshot, and only that of the file; `None` when there is no such
    /// part, or no longer.
    ///
    /// # Errors
    ///
    /// As for [`blocking::Folder::read_part`].
    pub async fn read_part(
        &self,
        node: NodeId,
        wanted: PartWanted,
    ) -> Result<Option<SnapshotPart>, ReadPartError> {
        self.read_with(move |folder| folder.read_part(node, wanted)).await
    }

    /// Carries `ops` out as one errand to the pool of threads; all of them, or up to the first that
    /// fails.
    ///
    /// # Errors
    ///
    /// [`FileError`] names the operation that failed. The folder is not to be used again.
    ///
    /// # Panics
    ///
    /// When it is used again after an error or after the future of an earlier call was dropped: a
    /// write that failed is never retried.
    pub async fn run(&mut self, ops: Vec<FileOp>) -> Result<(), FileError> {
        let mut folder = self.folder.take().expect("a folder is not used after an error");
        if !ops.is_empty() {
            folder = unblock(move || folder.run(&ops).map(|()| folder)).await?;
        }
        self.folder = Some(folder);
        Ok(())
    }

    /// As [`blocking::Folder::give_up`].
    ///
    /// # Errors
    ///
    /// [`FileError`] when the file cannot be removed.
    pub async fn give_up(&mut self, file: FileName) -> Result<(), FileError> {
        let mut folder = self.folder.take().unwrap_or_else(|| blocking::Folder::new(self.path.clone()));
        self.folder = Some(unblock(move || folder.give_up(file).map(|()| folder)).await?);
        Ok(())
    }
}
