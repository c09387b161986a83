//! Carries out, on the calling thread, the work that the hosts of a node's files hand out: opening
//! a data folder, group commits of the log, and snapshot tasks.

use coracle_core::Instant;
use coracle_core::raft::{NodeId, PersistId};

use super::Folder;
use crate::execution::{FileError, not_kept};
use crate::files::{FileOp, NodeFiles};
use crate::host::{DiskQueue, FileTask, FolderNames, SnapshotWork, StartError};
use crate::lock::FolderLock;
use crate::medium::{DiskError, Medium};

/// Locks the data folder, if there is one, and reads the files of these nodes one after the other.
///
/// # Errors
///
/// [`StartError`] when the folder cannot be locked or read.
pub fn open(
    medium: &Medium,
    nodes: &[NodeId],
    mut look: impl FnMut(&NodeFiles),
) -> Result<(Option<FolderLock>, FolderNames), StartError> {
    let Medium::Folder { path, .. } = medium else { return Ok((None, FolderNames::default())) };
    let lock = FolderLock::acquire(path)?;
    let folder = Folder::new(path);
    let mut files = NodeFiles::default();
    for node in nodes {
        files = folder.read_into(*node, files)?;
        look(&files);
    }
    Ok((Some(lock), folder.names()?))
}

/// Carries out operations in the data folder, if there is one. A copy of bytes that are cut off a
/// log is kept only if there is room for it.
///
/// # Errors
///
/// As for [`Folder::run`].
pub fn prepare(medium: &Medium, ops: &[FileOp]) -> Result<(), FileError> {
    let Medium::Folder { path, .. } = medium else { return Ok(()) };
    let mut folder = Folder::new(path);
    for stretch in ops.chunk_by(|one, next| one.keeps_cut_bytes() == next.keeps_cut_bytes()) {
        if let Err(error) = folder.run(stretch) {
            folder.give_up(not_kept(stretch, error)?)?;
        }
    }
    Ok(())
}

impl Folder {
    /// Carries out the next piece of work on a log, if there is any. Returns the persist to report,
    /// if it made one durable.
    ///
    /// # Errors
    ///
    /// [`FileError`] when the node has to stop because of it.
    pub fn run_next(&mut self, queue: &mut DiskQueue) -> Result<Option<PersistId>, FileError> {
        let Some(ops) = queue.begin() else { return Ok(None) };
        match self.run(&ops) {
            Ok(()) => Ok(queue.finish()),
            Err(error) => self.give_up(queue.failed(error)?).map(|()| None),
        }
    }

    /// Carries out a snapshot task and reports the result to `work`.
    ///
    /// # Errors
    ///
    /// [`DiskError`] when the node has to stop because of it.
    pub fn run_task(
        &mut self,
        task: FileTask,
        work: &mut SnapshotWork,
        now: impl Fn() -> Instant,
    ) -> Result<(), DiskError> {
        match task {
            FileTask::Run(ops) => {
                let begun = now();
                match self.run(&ops) {
                    Ok(()) => work.ran(now().since(begun)),
                    Err(error) => self.give_up(work.failed(error)?)?,
                }
            }
            FileTask::Verify(check) => {
                let read_back = self.read_back(check.file())?;
                work.verified(check.check(&read_back)?);
            }
            FileTask::Read(node, wanted) => work.was_read(self.read_part(node, wanted)?),
        }
        Ok(())
    }
}
