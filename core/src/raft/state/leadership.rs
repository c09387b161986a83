//! Leadership: what only a leader keeps (Fig. 2, volatile state on leaders), and only for as long
//! as it leads.

use std::collections::VecDeque;
use std::time::Duration;

use super::followers::Followers;
use super::waiting_reads::LeaderReads;
use crate::mutant::{self, Mutant};
use crate::raft::types::{LogIndex, NodeId};
use crate::time::Instant;

/// What only a leader knows (Fig. 2, leader's volatile state).
#[derive(Clone, Debug)]
pub(in crate::raft) struct Leadership {
    pub(in crate::raft) followers: Followers,
    pub(in crate::raft) reads: LeaderReads,
    pub(in crate::raft) transfer: Option<Transfer>,
    /// Whether a follower was told to stand for election in this term.
    pub(in crate::raft) has_called_election: bool,
    /// Whether there is something to do once the configuration in force is committed: to append the
    /// second entry of a change, or to step down.
    pub(in crate::raft) awaits_configuration: bool,
    /// Where the entries of this leader's own term begin.
    first_own: LogIndex,
    pub(in crate::raft) next_heartbeat: Instant,
    /// Where each turn's new entries end, and how many bytes they are; those above the commit
    /// index.
    uncommitted: VecDeque<(LogIndex, usize)>,
    uncommitted_bytes: usize,
}

/// A transfer under way, as its leader sees it.
#[derive(Clone, Debug)]
pub(in crate::raft) struct Transfer {
    pub(in crate::raft) target: NodeId,
    /// When the leader gives the transfer up.
    pub(in crate::raft) deadline: Instant,
    pub(in crate::raft) is_called: bool,
}

impl Leadership {
    /// A leader of nobody yet, whose predecessors' entries end at `last_index`.
    pub(in crate::raft) fn new(last_index: LogIndex, now: Instant) -> Self {
        Self {
            followers: Followers::default(),
            reads: LeaderReads::default(),
            transfer: None,
            has_called_election: false,
            awaits_configuration: false,
            first_own: last_index.next(),
            next_heartbeat: now,
            uncommitted: VecDeque::new(),
            uncommitted_bytes: 0,
        }
    }

    /// Whether the entry at `index` is of the leader's own term, if the log has it: all of its
    /// reign are, and none before.
    pub(in crate::raft) fn is_own(&self, index: LogIndex) -> bool {
        index >= self.first_own
    }

    /// Whether it may be asked for read indexes.
    pub(in crate::raft) fn takes_reads(&self) -> bool {
        let hands_over = self.transfer.is_some() && !mutant::is_active(Mutant::LeaseUsedInTransfer);
        !hands_over && !self.reads.is_full()
    }

    /// When there is something to do if nothing arrives before.
    pub(in crate::raft) fn deadline(&self) -> Instant {
        let given_up = self.transfer.as_ref().map(|transfer| transfer.deadline);
        given_up.map_or(self.next_heartbeat, |given_up| given_up.min(self.next_heartbeat))
    }

    pub(in crate::raft) fn uncommitted_bytes(&self) -> usize {
        self.uncommitted_bytes
    }

    /// New entries, `bytes` bytes up to `last_index`, wait to be committed.
    pub(in crate::raft) fn appended(&mut self, last_index: LogIndex, bytes: usize) {
        self.uncommitted.push_back((last_index, bytes));
        self.uncommitted_bytes += bytes;
    }

    pub(in crate::raft) fn unreachable(&mut self, peer: NodeId) {
        if let Some(progress) = self.followers.of_mut(peer) {
            progress.unreachable();
        }
    }

    /// The followers may have answered while the leader was asleep.
    pub(in crate::raft) fn forgive(&mut self, asleep: Duration, now: Instant) {
        for progress in self.followers.iter_mut() {
            progress.forgive(asleep, now);
        }
    }

    pub(in crate::raft) fn committed(&mut self, index: LogIndex) {
        while let Some((_, bytes)) = self.uncommitted.pop_front_if(|(last, _)| *last <= index) {
            self.uncommitted_bytes -= bytes;
        }
    }
}
