//! A node's disk: takes persists in order, carries them out in groups, and reports each group's last.
//!
//! Group commit is nothing more than this: while one group is on its way to the disk, the next one gathers.

use std::sync::Arc;

use async_channel::{Receiver, Sender};
use coracle_core::Input;
use coracle_core::raft::Persist;
use coracle_storage::asynchronous::Folder;
use coracle_storage::{FileError, GROUP_BYTES_MAX, Planner};

use crate::node::NodeInput;

/// Works until the persists end, then stops in order; or until an operation fails, and reports that.
pub(crate) async fn run(
    mut folder: Folder,
    mut planner: Planner,
    persists: Receiver<Persist>,
    node: Sender<NodeInput>,
) {
    let worked = work(&mut folder, &mut planner, &persists, &node).await;
    if let Err(error) = worked {
        // Nobody listens when the node has stopped before its disk did.
        let _ = node.try_send(NodeInput::DiskFailed(Arc::new(error.into())));
    }
}

async fn work(
    folder: &mut Folder,
    planner: &mut Planner,
    persists: &Receiver<Persist>,
    node: &Sender<NodeInput>,
) -> Result<(), FileError> {
    let mut group = Vec::new();
    while let Ok(persist) = persists.recv().await {
        let mut bytes = persist.bytes();
        let mut last = persist.id;
        group.push(persist);
        while bytes < GROUP_BYTES_MAX
            && let Ok(persist) = persists.try_recv()
        {
            bytes += persist.bytes();
            last = persist.id;
            group.push(persist);
        }
        folder.run(&planner.plan(&group)).await?;
        group.clear();
        let _ = node.try_send(NodeInput::Core(Input::Persisted(last)));
    }
    folder.run(&planner.close()).await
}
