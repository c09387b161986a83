//! The heartbeat of a leader (Fig. 2, leaders 1): a sign that it leads, with its commit index.
//!
//! A heartbeat is a separate message and not an empty AppendEntries, because the answer to an
//! AppendEntries waits for a disk.

use super::durability::Promise;
use super::message::{Body, Heartbeat};
use super::state::{Node, Part};
use super::types::{LogIndex, NodeId};
use crate::mutant::{self, Mutant};

impl Node {
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
        let heartbeat = Heartbeat { leader_commit, commit_checksum, round: leadership.reads.round() };
        let heartbeat = unclamped_by_mutant(&heartbeat, self.commit_index).unwrap_or(heartbeat);
        self.send(to, Promise::Nothing, Body::Heartbeat(heartbeat));
    }
}

/// Deliberate bug: the heartbeat names the commit index, wherever the logs match.
fn unclamped_by_mutant(heartbeat: &Heartbeat, leader_commit: LogIndex) -> Option<Heartbeat> {
    let unclamped = Heartbeat { leader_commit, commit_checksum: None, round: heartbeat.round };
    mutant::is_active(Mutant::HeartbeatCommitUnclamped).then_some(unclamped)
}
