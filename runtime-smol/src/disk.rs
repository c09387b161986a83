//! A node's disk: takes persists in order, carries them out in groups, and reports each group's last.
//!
//! Group commit is nothing more than this: while one group is on its way to the disk, the next one gathers. Between two
//! groups the log is made anew behind a snapshot, a piece at a time.

use std::sync::Arc;

use coracle_core::Input;
use coracle_core::raft::Persist;
use coracle_storage::asynchronous::Folder;
use coracle_storage::{FileError, GROUP_BYTES_MAX, Planner};

use crate::mailbox::{Receiver, Sender};
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
        let _ = node.send(NodeInput::DiskFailed(Arc::new(error.into())));
    }
}

async fn work(
    folder: &mut Folder,
    planner: &mut Planner,
    persists: &Receiver<Persist>,
    node: &Sender<NodeInput>,
) -> Result<(), FileError> {
    let mut group = Vec::new();
    while gather(persists, planner.can_renew(), &mut group).await {
        if let Some(last) = group.last().map(|persist| persist.id) {
            folder.run(planner.plan(&group)).await?;
            group.clear();
            let _ = node.send(NodeInput::Core(Input::Persisted(last)));
        }
        folder.run(planner.renew()).await?;
    }
    folder.run(planner.close()).await
}

/// Gathers the next group, which may be empty if there is other work. `false`: there is never going to be one again.
async fn gather(persists: &Receiver<Persist>, has_other_work: bool, group: &mut Vec<Persist>) -> bool {
    let mut bytes = 0;
    if !has_other_work {
        let Ok(persist) = persists.recv().await else { return false };
        bytes += persist.bytes();
        group.push(persist);
    }
    while bytes < GROUP_BYTES_MAX {
        let Some(persist) = persists.take() else {
            // What was gathered is written; the next time there is nothing.
            return !group.is_empty() || !persists.is_closed();
        };
        bytes += persist.bytes();
        group.push(persist);
    }
    true
}
