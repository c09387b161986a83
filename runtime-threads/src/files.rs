//! A node's files: opens the data folder, and carries out what the hosts of the log and of the snapshots hand out.
//!
//! The log and the snapshots have a thread each: a snapshot is large and nobody waits for it, while every put waits for the
//! log's next sync.

use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::thread;

use coracle_core::Input;
use coracle_core::host::SnapshotOrder;
use coracle_core::raft::{NodeId, Persist};
use coracle_storage::blocking::Folder;
use coracle_storage::host::{DiskQueue, FolderNames, SnapshotTask, SnapshotWork, StartError};
use coracle_storage::{DiskError, FileError, FileOp, FolderLock, Medium, NodeFiles};

use crate::clock::Clock;
use crate::inbox::Inbox;
use crate::inputs::NodeInput;

/// Locks the data folder, if there is one, and reads the files of these nodes in it, one node after the other.
pub(crate) fn read(
    medium: &Medium,
    nodes: &[NodeId],
    mut look: impl FnMut(&NodeFiles),
) -> Result<(Option<FolderLock>, FolderNames), StartError> {
    let Medium::Folder { path, .. } = medium else { return Ok((None, FolderNames::default())) };
    let lock = FolderLock::take(path)?;
    let folder = Folder::new(path);
    for node in nodes {
        look(&folder.read(*node)?);
    }
    Ok((Some(lock), folder.names()?))
}

/// Carries operations out in the data folder, if there is one.
pub(crate) fn write(medium: &Medium, operations: &[FileOp]) -> Result<(), FileError> {
    let Medium::Folder { path, .. } = medium else { return Ok(()) };
    Folder::new(path).run(operations)
}

/// Writes the log until the persists end, then stops in order; or until an operation fails, and reports that.
pub(crate) fn run_log(mut folder: Folder, mut queue: DiskQueue, persists: &Receiver<Persist>, node: &Inbox) {
    if let Err(error) = write_log(&mut folder, &mut queue, persists, node) {
        node.send(NodeInput::DiskFailed(Arc::new(error.into())));
    }
}

fn write_log(
    folder: &mut Folder,
    queue: &mut DiskQueue,
    persists: &Receiver<Persist>,
    node: &Inbox,
) -> Result<(), FileError> {
    loop {
        if !queue.has_work() {
            let Ok(persist) = persists.recv() else { return folder.run(&queue.close()) };
            queue.push(persist);
        }
        persists.try_iter().for_each(|persist| queue.push(persist));
        if let Some(ops) = queue.begin() {
            if let Err(error) = folder.run(&ops) {
                folder.give_up(queue.failed(error)?)?;
                continue;
            }
            if let Some(last) = queue.finish() {
                node.send(Input::Persisted(last).into());
            }
        }
    }
}

/// Writes and reads snapshots until the orders end, or an operation fails, and reports that.
pub(crate) fn run_snapshots(
    mut folder: Folder,
    mut work: SnapshotWork,
    orders: &Receiver<SnapshotOrder>,
    node: &Inbox,
    clock: Clock,
) {
    while let Ok(order) = orders.recv() {
        work.order(order);
        if let Err(error) = carry_out(&mut folder, &mut work, node, clock) {
            return node.send(NodeInput::DiskFailed(Arc::new(error)));
        }
    }
}

fn carry_out(
    folder: &mut Folder,
    work: &mut SnapshotWork,
    node: &Inbox,
    clock: Clock,
) -> Result<(), DiskError> {
    while let Some(task) = work.next_task() {
        match task {
            SnapshotTask::Run(ops) => {
                let begun = clock.now();
                match folder.run(&ops) {
                    Ok(()) => work.ran(clock.now().since(begun)),
                    Err(error) => folder.give_up(work.failed(error)?)?,
                }
            }
            SnapshotTask::Rest(pause) => thread::sleep(pause),
            SnapshotTask::Verify(check) => {
                let read_back = folder.read_back(check.file())?;
                work.verified(check.check(&read_back)?);
            }
            SnapshotTask::Read(node, wanted) => work.was_read(folder.read_part(node, wanted)?),
            SnapshotTask::Report(input) => node.send(input.into()),
        }
    }
    Ok(())
}
