//! Tasks that write and read a node's files: they receive orders, carry them out in the data
//! folder, and report to the node.
//!
//! Log and snapshots have separate tasks: a snapshot is large and no client waits for it, while
//! every write waits for the log's next sync.

use coracle_core::Input;
use coracle_core::host::SnapshotOrder;
use coracle_core::raft::Persist;
use coracle_storage::DiskError;
use coracle_storage::asynchronous::Folder;
use coracle_storage::host::{DiskQueue, NodeInput, SnapshotTask, SnapshotWork};
use smol::Timer;

use crate::clock::Clock;
use crate::mailbox::{Receiver, Sender};

/// Reports to the node that work on its files has failed. No receiver is left if the node stopped
/// before its disk did.
pub(crate) async fn report_failure(
    work: impl Future<Output = Result<(), DiskError>>,
    node: Sender<NodeInput>,
) {
    if let Err(error) = work.await {
        let _ = node.send(NodeInput::End(error.into()));
    }
}

/// Writes the log until the persists end, then closes it in order; or until an operation fails.
pub(crate) async fn run_log(
    mut folder: Folder,
    mut queue: DiskQueue,
    persists: Receiver<Persist>,
    node: Sender<NodeInput>,
) -> Result<(), DiskError> {
    loop {
        if !queue.has_work() {
            let Ok(persist) = persists.recv().await else {
                return Ok(folder.run(queue.close()).await?);
            };
            queue.push(persist);
        }
        std::iter::from_fn(|| persists.take()).for_each(|persist| queue.push(persist));
        if let Some(last) = folder.run_next(&mut queue).await? {
            let _ = node.send(Input::Persisted(last).into());
        }
    }
}

/// Writes and reads snapshots until the orders end or an operation fails.
pub(crate) async fn run_snapshots(
    mut folder: Folder,
    mut work: SnapshotWork,
    orders: Receiver<SnapshotOrder>,
    node: Sender<NodeInput>,
    clock: Clock,
) -> Result<(), DiskError> {
    while let Ok(order) = orders.recv().await {
        work.order(order);
        while let Some(task) = work.next_task() {
            match task {
                SnapshotTask::Files(task) => folder.run_task(task, &mut work, || clock.now()).await?,
                SnapshotTask::Rest(pause) => drop(Timer::after(pause).await),
                SnapshotTask::Report(input) => drop(node.send(input.into())),
            }
        }
    }
    Ok(())
}
