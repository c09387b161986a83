//! A node's snapshots: carries out what its [`SnapshotWork`] hands out, beside the node's disk and not through it.

use std::sync::Arc;

use coracle_core::host::SnapshotOrder;
use coracle_storage::DiskError;
use coracle_storage::asynchronous::Folder;
use coracle_storage::host::{SnapshotTask, SnapshotWork};
use smol::Timer;

use crate::clock::Clock;
use crate::mailbox::{Receiver, Sender};
use crate::node::NodeInput;

/// Works until the orders end, or an operation fails, and reports that.
pub(crate) async fn run(
    mut folder: Folder,
    mut work: SnapshotWork,
    orders: Receiver<SnapshotOrder>,
    node: Sender<NodeInput>,
    clock: Clock,
) {
    while let Ok(order) = orders.recv().await {
        work.order(order);
        if let Err(error) = carry_out(&mut folder, &mut work, &node, clock).await {
            // Nobody listens when the node has stopped before its snapshots did.
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
                folder.run(ops).await?;
                work.ran(clock.now().since(begun));
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
