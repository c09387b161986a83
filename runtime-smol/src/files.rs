//! A node's files: opens the data folder, and carries out what the hosts of the log and of the snapshots hand out.
//!
//! The log and the snapshots have a task each: a snapshot is large and nobody waits for it, while every put waits for the
//! log's next sync.

use std::sync::Arc;

use coracle_core::Input;
use coracle_core::host::SnapshotOrder;
use coracle_core::raft::{NodeId, Persist};
use coracle_storage::asynchronous::Folder;
use coracle_storage::host::{DiskQueue, FolderNames, SnapshotTask, SnapshotWork, StartError};
use coracle_storage::{DiskError, FileError, FileOp, FolderLock, Medium, NodeFiles};
use smol::Timer;

use crate::clock::Clock;
use crate::inputs::NodeInput;
use crate::mailbox::{Receiver, Sender};

/// Locks the data folder, if there is one, and reads the files of these nodes in it, one node after the other.
pub(crate) async fn read(
    medium: &Medium,
    nodes: &[NodeId],
    mut look: impl FnMut(&NodeFiles),
) -> Result<(Option<FolderLock>, FolderNames), StartError> {
    let Medium::Folder { path, .. } = medium else { return Ok((None, FolderNames::default())) };
    let to_lock = path.clone();
    let lock = smol::unblock(move || FolderLock::take(&to_lock)).await?;
    let folder = Folder::new(path);
    for node in nodes {
        look(&folder.read(*node).await?);
    }
    Ok((Some(lock), folder.names().await?))
}

/// Carries operations out in the data folder, if there is one.
pub(crate) async fn write(medium: &Medium, operations: Vec<FileOp>) -> Result<(), FileError> {
    let Medium::Folder { path, .. } = medium else { return Ok(()) };
    Folder::new(path).run(operations).await
}

/// Writes the log until the persists end, then stops in order; or until an operation fails, and reports that.
pub(crate) async fn run_log(
    mut folder: Folder,
    mut queue: DiskQueue,
    persists: Receiver<Persist>,
    node: Sender<NodeInput>,
) {
    if let Err(error) = write_log(&mut folder, &mut queue, &persists, &node).await {
        // Nobody listens when the node has stopped before its disk did.
        let _ = node.send(NodeInput::DiskFailed(Arc::new(error.into())));
    }
}

async fn write_log(
    folder: &mut Folder,
    queue: &mut DiskQueue,
    persists: &Receiver<Persist>,
    node: &Sender<NodeInput>,
) -> Result<(), FileError> {
    loop {
        if !queue.has_work() {
            let Ok(persist) = persists.recv().await else { return folder.run_group(queue.close()).await };
            queue.push(persist);
        }
        std::iter::from_fn(|| persists.take()).for_each(|persist| queue.push(persist));
        if let Some(ops) = queue.begin() {
            if let Err(error) = folder.run_group(ops).await {
                folder.give_up(queue.failed(error)?).await?;
                continue;
            }
            if let Some(last) = queue.finish() {
                let _ = node.send(Input::Persisted(last).into());
            }
        }
    }
}

/// Writes and reads snapshots until the orders end, or an operation fails, and reports that.
pub(crate) async fn run_snapshots(
    mut folder: Folder,
    mut work: SnapshotWork,
    orders: Receiver<SnapshotOrder>,
    node: Sender<NodeInput>,
    clock: Clock,
) {
    while let Ok(order) = orders.recv().await {
        work.order(order);
        if let Err(error) = carry_out(&mut folder, &mut work, &node, clock).await {
            let _ = node.send(NodeInput::DiskFailed(Arc::new(error)));
            return;
        }
    }
}

async fn carry_out(
    folder: &mut Folder,
    work: &mut SnapshotWork,
    node: &Sender<NodeInput>,
    clock: Clock,
) -> Result<(), DiskError> {
    while let Some(task) = work.next_task() {
        match task {
            SnapshotTask::Run(ops) => {
                let begun = clock.now();
                match folder.run(ops).await {
                    Ok(()) => work.ran(clock.now().since(begun)),
                    Err(error) => folder.give_up(work.failed(error)?).await?,
                }
            }
            SnapshotTask::Rest(pause) => drop(Timer::after(pause).await),
            SnapshotTask::Verify(check) => {
                let read_back = folder.read_back(check.file()).await?;
                // The larger the snapshot, the longer this takes; the executor has nodes to drive meanwhile.
                work.verified(smol::unblock(move || check.check(&read_back)).await?);
            }
            SnapshotTask::Read(node, wanted) => work.was_read(folder.read_part(node, wanted).await?),
            SnapshotTask::Report(input) => drop(node.send(input.into())),
        }
    }
    Ok(())
}
