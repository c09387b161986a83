//! The heartbeat of a leader (Fig. 2, leaders 1): a sign that it leads, with its commit index.
//!
//! A heartbeat is a separate message and not an empty AppendEntries, because the answer to an
//! AppendEntries waits for a disk.

use super::durability::Promise;
use super::message::{Body, Elapsed, Heartbeat};
use super::state::{Node, Part};
use super::types::{LogIndex, NodeId};
use crate::mutant::{self, Mutant};

impl Node {
    /// Sets what the next heartbeats state about the age of an entry, if this node leads. It means
    /// nothing to Raft: a state machine that needs to know how much time has passed since an entry
    /// was applied learns it on the followers with [`Node::take_elapsed`].
    pub fn set_elapsed(&mut self, elapsed: Option<Elapsed>) {
        self.elapsed = elapsed;
    }

    /// Returns what the last heartbeat of a leader has stated since this was called last.
    pub fn take_elapsed(&mut self) -> Option<Elapsed> {
        self.heard_elapsed.take()
    }

    pub(super) fn send_heartbeats(&mut self) {
        let Part::Leader(leadership) = &self.part else { return };
        let followers: Vec<_> = leadership.followers.iter().map(|(node, _)| node).collect();
        for follower in followers {
            self.send_heartbeat(follower);
        }
    }

    pub(super) fn send_heartbeat(&mut self, to: NodeId) {
        let Part::Leader(leadership) = &self.part else { return };
        let Some(progress) = leadership.followers.of(to) else { return };
        let leader_commit = self.commit_index.min(progress.match_index());
        let commit_checksum = self.log.point_at(leader_commit).map(|point| point.checksum);
        let round = leadership.reads.round();
        let heartbeat = Heartbeat { leader_commit, commit_checksum, round, elapsed: self.elapsed };
        let heartbeat = unclamped_by_mutant(&heartbeat, self.commit_index).unwrap_or(heartbeat);
        self.send(to, Promise::Nothing, Body::Heartbeat(heartbeat));
    }
}

/// Deliberate bug: the heartbeat names the commit index, wherever the logs match.
fn unclamped_by_mutant(heartbeat: &Heartbeat, leader_commit: LogIndex) -> Option<Heartbeat> {
    let unclamped = Heartbeat { leader_commit, commit_checksum: None, ..*heartbeat };
    mutant::is_active(Mutant::HeartbeatCommitUnclamped).then_some(unclamped)
}
