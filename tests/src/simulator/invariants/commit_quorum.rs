//! Commit rule: a leader advances its commit index to an entry of its current term that a majority
//! holds durably (§5.4.2; S9). The first node to learn of a commit is checked: it leads, the entry
//! is of its term, and the same entry is on a majority of disks. The majority is counted here, not
//! by the node.

use coracle_core::Replica;
use coracle_core::raft::{LogIndex, Role};

use super::{Process, Verdict, majorities, require};

pub(super) fn check(replica: &Replica, commit_index: LogIndex, all: &[Process]) -> Verdict {
    let node = replica.node();
    let Some(point) = node.log().point_at(commit_index) else {
        return require(false, "commit_quorum", || {
            format!("committed {commit_index}, which is not in the log")
        });
    };
    // A leader that this configuration removes has stepped down by now.
    let leads = node.role() == Role::Leader || !node.configuration().is_voter(node.id());
    let is_own = leads && point.term == node.current_term();
    require(is_own, "commit_quorum", || {
        format!("{} {} committed {commit_index}, which is of term {}", node.role(), node.id(), point.term)
    })?;
    let holders: Vec<_> =
        all.iter().filter(|process| process.durable.holds(point)).map(|process| process.id).collect();
    require(majorities(node.configuration(), &holders), "commit_quorum", || {
        let members = node.configuration();
        format!("node {} committed {commit_index}, which only {holders:?} hold of the {members}", node.id())
    })
}
