//! Carries out, for an async executor, the work that the hosts of a node's files hand out: opening
//! a data folder, group commits of the log, and snapshot tasks.

use ::blocking::unblock;
use coracle_core::Instant;
use coracle_core::raft::{NodeId, PersistId};

use super::Folder;
use crate::blocking;
use crate::execution::FileError;
use crate::files::{FileOp, NodeFiles};
use crate::host::{DiskQueue, FileTask, FolderNames, SnapshotWork, StartError};
use crate::lock::FolderLock;
use crate::medium::{DiskError, Medium};

/// Locks the data folder, if there is one, and reads the files of these nodes one after the other.
///
/// # Errors
///
/// [`StartError`] when the folder cannot be locked or read.
pub async fn open(
    medium: &Medium,
    nodes: &[NodeId],
    mut look: impl FnMut(&NodeFiles),
) -> Result<(Option<FolderLock>, FolderNames), StartError> {
    let Medium::Folder { path, .. } = medium else { return Ok((None, FolderNames::default())) };
    let to_lock = path.clone();
    let lock = unblock(move || FolderLock::acquire(&to_lock)).await?;
    let folder = Folder::new(path);
    let mut files = NodeFiles::default();
    for node in nodes {
        let (node, before) = (*node, files);
        files = folder.read_with(move |folder| folder.read_into(node, before)).await?;
        look(&files);
    }
    Ok((Some(lock), folder.names().await?))
}

/// Carries out operations in the data folder, if there is one. A copy of bytes that are cut off a
/// log is kept only if there is room for it.
///
/// # Errors
///
/// As for [`Folder::run`].
pub async fn prepare(medium: &Medium, ops: Vec<FileOp>) -> Result<(), FileError> {
    let medium = medium.clone();
    unblock(move || blocking::prepare(&medium, &ops)).await
}

impl Folder {
    /// Carries out the next piece of work on a log, if there is any. Returns the persist to report,
    /// if it made one durable.
    ///
    /// # Errors
    ///
    /// [`FileError`] when the node has to stop because of it.
    pub async fn run_next(&mut self, queue: &mut DiskQueue) -> Result<Option<PersistId>, FileError> {
        let Some(ops) = queue.begin() else { return Ok(None) };
        match self.run(ops).await {
            Ok(()) => Ok(queue.finish()),
            Err(error) => self.give_up(queue.failed(error)?).await.map(|()| None),
        }
    }

    /// Carries out a snapshot task and reports the result to `work`. A snapshot is verified on the
    /// pool of threads, because the time that takes grows with its size.
    ///
    /// # Errors
    ///
    /// [`DiskError`] when the node has to stop because of it.
    pub async fn run_task(
        &mut self,
        task: FileTask,
        work: &mut SnapshotWork,
        now: impl Fn() -> Instant,
    ) -> Result<(), DiskError> {
        match task {
            FileTask::Run(ops) => {
                let begun = now();
                match self.run(ops).await {
                    Ok(()) => work.ran(now().since(begun)),
                    Err(error) => self.give_up(work.failed(error)?).await?,
                }
            }
            FileTask::Verify(check) => {
                let read_back = self.read_back(check.file()).await?;
                work.verified(unblock(move || check.check(&read_back)).await?);
            }
            FileTask::Read(node, wanted) => work.was_read(self.read_part(node, wanted).await?),
        }
        Ok(())
    }
}
