//! A node's disk task: carries out what its [`DiskQueue`] hands out, and reports what is durable.

use std::sync::Arc;

use coracle_core::Input;
use coracle_core::raft::Persist;
use coracle_storage::FileError;
use coracle_storage::asynchronous::Folder;
use coracle_storage::host::DiskQueue;

use crate::mailbox::{Receiver, Sender};
use crate::node::NodeInput;

/// Works until the persists end, then stops in order; or until an operation fails, and reports that.
pub(crate) async fn run(
    mut folder: Folder,
    mut queue: DiskQueue,
    persists: Receiver<Persist>,
    node: Sender<NodeInput>,
) {
    if let Err(error) = work(&mut folder, &mut queue, &persists, &node).await {
        // Nobody listens when the node has stopped before its disk did.
        let _ = node.send(NodeInput::DiskFailed(Arc::new(error.into())));
    }
}

async fn work(
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
            folder.run_group(ops).await?;
            if let Some(last) = queue.finish() {
                let _ = node.send(Input::Persisted(last).into());
            }
        }
    }
}
