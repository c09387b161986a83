//! Carries out what the hosts of a node's files hand out, beside an async executor: the opening of
//! a data folder, the groups of a log, the tasks of its snapshots.

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

/// Locks the data folder, if there is one, and reads the files of these nodes in it, one node after
/// the other.
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
    let lock = unblock(move || FolderLock::take(&to_lock)).await?;
    let folder = Folder::new(path);
    for node in nodes {
        look(&folder.read(*node).await?);
    }
    Ok((Some(lock), folder.names().await?))
}

/// Carries operations out in the data folder, if there is one. What was cut off a log is kept where
/// there is room for it.
///
/// # Errors
///
/// As for [`Folder::run`].
pub async fn prepare(medium: &Medium, ops: Vec<FileOp>) -> Result<(), FileError> {
    let medium = medium.clone();
    unblock(move || blocking::prepare(&medium, &ops)).await
}

impl Folder {
    /// Carries out the next piece of work of a log, if there is any. Returns the persist that is to
    /// be reported, if one is.
    ///
    /// # Errors
    ///
    /// [`FileError`] when the node has to stop for it.
    pub async fn run_next(&mut self, queue: &mut DiskQueue) -> Result<Option<PersistId>, FileError> {
        let Some(ops) = queue.begin() else { return Ok(None) };
        match self.run(ops).await {
            Ok(()) => Ok(queue.finish()),
            Err(error) => self.give_up(queue.failed(error)?).await.map(|()| None),
        }
    }

    /// Carries out a task of the snapshots, and says to `work` what came of it. A snapshot is
    /// checked on the pool of threads: the larger it is, the longer that takes.
    ///
    /// # Errors
    ///
    /// [`DiskError`] when the node has to stop for it.
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
