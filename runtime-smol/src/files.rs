//! Tasks that write and read a node's files: they wait for its orders, carry them out in its folder, and report.
//!
//! The log and the snapshots have a task each: a snapshot is large and nobody waits for it, while every put waits for the
//! log's next sync.

use coracle_core::Input;
use coracle_core::host::SnapshotOrder;
use coracle_core::raft::Persist;
use coracle_storage::asynchronous::Folder;
use coracle_storage::host::{DiskQueue, NodeInput, SnapshotTask, SnapshotWork};
use coracle_storage::{DiskError, FileError};
use smol::Timer;

use crate::clock::Clock;
use crate::mailbox::{Receiver, Sender};

/// Writes the log until the persists end, then stops in order; or until an operation fails, and reports that.
pub(crate) async fn run_log(
    mut folder: Folder,
    mut queue: DiskQueue,
    persists: Receiver<Persist>,
    node: Sender<NodeInput>,
) {
    if let Err(error) = write_log(&mut folder, &mut queue, &persists, &node).await {
        // Nobody listens when the node has stopped before its disk did.
        let _ = node.send(NodeInput::End(error.into()));
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
        if let Some(last) = folder.run_next(queue).await? {
            let _ = node.send(Input::Persisted(last).into());
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
            let _ = node.send(NodeInput::End(error.into()));
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
            SnapshotTask::Files(task) => folder.run_task(task, work, || clock.now()).await?,
            SnapshotTask::Rest(pause) => drop(Timer::after(pause).await),
            SnapshotTask::Report(input) => drop(node.send(input.into())),
        }
    }
    Ok(())
}
