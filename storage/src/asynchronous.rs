//! Asynchronous executor of file operations: runs [`blocking`] on a pool of threads.
//!
//! A group of operations goes to the pool as one piece of work, and so does a read. So one thread
//! of the pool wakes once and waits for the disk, and the async executor, which is free in between,
//! is notified once. One piece of work per operation would cost three of each for every write. A
//! library that buffers writes between the two would report a failed write late or not at all.

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

/// How often the pool is given some work.
const POOL_TRIED_EVERY: Duration = Duration::from_secs(1);

/// Gives the pool of threads some work every second, and never returns. The pool ends its idle
/// threads and starts new ones only at the moment when work arrives. Without this, work that
/// arrives while the operating system refuses new threads would wait forever. `pause` returns a
/// future that completes after the given time.
pub async fn try_pool<T, P: Future>(pause: impl Fn(Duration) -> P) -> T {
    loop {
        pause(POOL_TRIED_EVERY).await;
        unblock(|| ()).detach();
    }
}

/// Async access to a node's files in a data folder: a [`blocking::Folder`] on a pool of threads.
///
/// The futures of its methods have to be driven to completion. When one is dropped before, the
/// state of the disk is unknown and the folder cannot be used again.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    /// `None` while the pool has it, and permanently after an error.
    folder: Option<blocking::Folder>,
}

impl Folder {
    /// The folder at `path`, which must exist by the time it is used.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        Self { folder: Some(blocking::Folder::new(path.clone())), path }
    }

    /// Reads with a second handle, since reading needs none of the open files of this one.
    async fn read_with<T: Send + 'static>(
        &self,
        read: impl FnOnce(blocking::Folder) -> T + Send + 'static,
    ) -> T {
        let folder = blocking::Folder::new(self.path.clone());
        unblock(move || read(folder)).await
    }

    /// Returns the names of the files of all nodes, sorted.
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

    /// Reads a whole file that must exist: a snapshot that was written, to be verified before it
    /// counts.
    ///
    /// # Errors
    ///
    /// As for [`blocking::Folder::read_back`].
    pub async fn read_back(&self, file: FileName) -> Result<Vec<u8>, FileError> {
        self.read_with(move |folder| folder.read_back(file)).await
    }

    /// Reads one part of a node's snapshot and only that part of the file; `None` when there is no
    /// such part any more.
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

    /// Carries out `ops` as one piece of work of the pool: all of them, or up to the first that
    /// fails.
    ///
    /// # Errors
    ///
    /// [`FileError`] names the operation that failed. The folder must not be used again.
    ///
    /// # Panics
    ///
    /// When it is used again after an error, or after the future of an earlier call was dropped: a
    /// write that failed is never retried.
    pub async fn run(&mut self, ops: Vec<FileOp>) -> Result<(), FileError> {
        let mut folder = self.folder.take().expect("a folder is not used after an error");
        if !ops.is_empty() {
            folder = unblock(move || folder.run(&ops).map(|()| folder)).await?;
        }
        self.folder = Some(folder);
        Ok(())
    }

    /// Does the same as [`blocking::Folder::give_up`].
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
