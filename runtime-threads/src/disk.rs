//! A node's disk: takes persists in order, carries them out in groups, and reports each group's last.
//!
//! Group commit is nothing more than this: while one group is on its way to the disk, the next one gathers. Between two
//! groups the log is made anew behind a snapshot, a piece at a time.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};

use coracle_core::Input;
use coracle_core::raft::Persist;
use coracle_storage::blocking::Folder;
use coracle_storage::{FileError, GROUP_BYTES_MAX, Planner};

use crate::inbox::Inbox;
use crate::node::NodeInput;

/// Works until the persists end, then stops in order; or until an operation fails, and reports that.
pub(crate) fn run(mut folder: Folder, mut planner: Planner, persists: &Receiver<Persist>, node: &Inbox) {
    let worked = work(&mut folder, &mut planner, persists, node);
    if let Err(error) = worked {
        node.send(NodeInput::DiskFailed(Arc::new(error.into())));
    }
}

fn work(
    folder: &mut Folder,
    planner: &mut Planner,
    persists: &Receiver<Persist>,
    node: &Inbox,
) -> Result<(), FileError> {
    let mut group = Vec::new();
    while gather(persists, planner.can_renew(), &mut group) {
        if let Some(last) = group.last().map(|persist| persist.id) {
            folder.run(&planner.plan(&group))?;
            group.clear();
            node.send(NodeInput::Core(Input::Persisted(last)));
        }
        folder.run(&planner.renew())?;
    }
    folder.run(&planner.close())
}

/// Gathers the next group, which may be empty if there is other work. `false`: there is never going to be one again.
fn gather(persists: &Receiver<Persist>, has_other_work: bool, group: &mut Vec<Persist>) -> bool {
    let mut bytes = 0;
    if !has_other_work {
        let Ok(persist) = persists.recv() else { return false };
        bytes += persist.bytes();
        group.push(persist);
    }
    while bytes < GROUP_BYTES_MAX {
        match persists.try_recv() {
            Ok(persist) => {
                bytes += persist.bytes();
                group.push(persist);
            }
            Err(TryRecvError::Empty) => return true,
            // What was gathered is written; the next time there is nothing.
            Err(TryRecvError::Disconnected) => return !group.is_empty(),
        }
    }
    true
}
