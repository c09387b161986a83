//! A node's snapshots: carries out what its [`SnapshotWork`] hands out, beside the node's disk and not through it.

use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::thread;

use coracle_core::host::SnapshotOrder;
use coracle_storage::DiskError;
use coracle_storage::blocking::Folder;
use coracle_storage::host::{SnapshotTask, SnapshotWork};

use crate::clock::Clock;
use crate::inbox::Inbox;
use crate::node::NodeInput;

/// Works until the orders end, or an operation fails, and reports that.
pub(crate) fn run(
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
                folder.run(&ops)?;
                work.ran(clock.now().since(begun));
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
