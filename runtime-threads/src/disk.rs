//! A node's disk thread: carries out what its [`DiskQueue`] hands out, and reports what is durable.

use std::sync::Arc;
use std::sync::mpsc::Receiver;

use coracle_core::Input;
use coracle_core::raft::Persist;
use coracle_storage::FileError;
use coracle_storage::blocking::Folder;
use coracle_storage::host::DiskQueue;

use crate::inbox::Inbox;
use crate::node::NodeInput;

/// Works until the persists end, then stops in order; or until an operation fails, and reports that.
pub(crate) fn run(mut folder: Folder, mut queue: DiskQueue, persists: &Receiver<Persist>, node: &Inbox) {
    if let Err(error) = work(&mut folder, &mut queue, persists, node) {
        node.send(NodeInput::DiskFailed(Arc::new(error.into())));
    }
}

fn work(
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
            folder.run(&ops)?;
            if let Some(last) = queue.finish() {
                node.send(Input::Persisted(last).into());
            }
        }
    }
}
