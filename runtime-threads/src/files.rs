//! Threads that write and read a node's files: they receive orders, carry them out in the data
//! folder, and report to the node.
//!
//! Log and snapshots have separate threads: a snapshot is large and no client waits for it, while
//! every write waits for the log's next sync.

use std::sync::mpsc::Receiver;
use std::thread;

use coracle_core::Input;
use coracle_core::host::SnapshotOrder;
use coracle_core::raft::Persist;
use coracle_storage::DiskError;
use coracle_storage::blocking::Folder;
use coracle_storage::host::{DiskQueue, NodeInput, SnapshotTask, SnapshotWork};

use crate::clock::Clock;
use crate::inbox::Inbox;

/// Reports to the node that work on its files has failed.
pub(crate) fn report_failure(work: Result<(), DiskError>, node: &Inbox) {
    if let Err(error) = work {
        node.send(NodeInput::End(error.into()));
    }
}

/// Writes the log until the persists end, then closes it in order; or until an operation fails.
pub(crate) fn run_log(
    mut folder: Folder,
    mut queue: DiskQueue,
    persists: &Receiver<Persist>,
    node: &Inbox,
) -> Result<(), DiskError> {
    loop {
        if !queue.has_work() {
            let Ok(persist) = persists.recv() else { return Ok(folder.run(&queue.close())?) };
            queue.push(persist);
        }
        persists.try_iter().for_each(|persist| queue.push(persist));
        if let Some(last) = folder.run_next(&mut queue)? {
            node.send(Input::Persisted(last).into());
        }
    }
}

/// Writes and reads snapshots until the orders end or an operation fails.
pub(crate) fn run_snapshots(
    mut folder: Folder,
    mut work: SnapshotWork,
    orders: &Receiver<SnapshotOrder>,
    node: &Inbox,
    clock: Clock,
) -> Result<(), DiskError> {
    while let Ok(order) = orders.recv() {
        work.order(order);
        while let Some(task) = work.next_task() {
            match task {
                SnapshotTask::Files(task) => folder.run_task(task, &mut work, || clock.now())?,
                SnapshotTask::Rest(pause) => thread::sleep(pause),
                SnapshotTask::Report(input) => node.send(input.into()),
            }
        }
    }
    Ok(())
}
