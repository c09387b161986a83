//! A leader advances its commit index to an entry of its own term that a majority holds durably (§5.4.2; S9). Whoever learns
//! of a commit first is checked: on a majority of disks there is the same entry.

use coracle_core::Replica;
use coracle_core::raft::LogIndex;

use super::{Process, Verdict, require};

pub(super) fn check(replica: &Replica, commit_index: LogIndex, all: &[Process]) -> Verdict {
    let node = replica.node();
    let Some(point) = node.log().point_at(commit_index) else {
        return require(false, "commit_quorum", || {
            format!("committed {commit_index}, which is not in the log")
        });
    };
    let holders = all.iter().filter(|process| process.durable.point_at(commit_index) == Some(point)).count();
    require(holders >= node.voters().majority(), "commit_quorum", || {
        format!("node {} committed {commit_index}, which {holders} of {} disks hold", node.id(), all.len())
    })
}
