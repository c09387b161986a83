//! State Machine Safety: if a server has applied a log entry at a given index, no other server will
//! ever apply a different entry for the same index (Raft, Figure 3; S5). The applied entries of a
//! node are a prefix of the committed ones.

use coracle_core::Replica;

use super::{CommittedEntry, Verdict, committed_at, require};

pub(super) fn check(replica: &Replica, committed: &[CommittedEntry]) -> Verdict {
    let applied = replica.status().last_applied;
    let Some(entry) = committed_at(committed, applied) else {
        return require(applied.0 == 0, "state_machine_safety", || {
            format!("applied {applied}, which nobody has committed")
        });
    };
    let held = replica.node().log().point_at(applied);
    require(held == Some(entry.point), "state_machine_safety", || {
        format!("node {} applied another entry at {applied}", replica.node().id())
    })
}
