//! Leadership: the state that a node keeps only while it is leader (Fig. 2, volatile state on
//! leaders).

use std::collections::VecDeque;
use std::time::Duration;

use super::followers::Followers;
use super::waiting_reads::LeaderReads;
use crate::mutant::{self, Mutant};
use crate::raft::types::{LogIndex, NodeId};
use crate::time::Instant;

/// The volatile state of a leader (Fig. 2, volatile state on leaders).
#[derive(Clone, Debug)]
pub(in crate::raft) struct Leadership {
    pub(in crate::raft) followers: Followers,
    pub(in crate::raft) reads: LeaderReads,
    pub(in crate::raft) transfer: Option<Transfer>,
    /// Whether this leader has sent TimeoutNow in this term.
    pub(in crate::raft) has_called_election: bool,
    /// Whether a step is due once the configuration in force is committed: to append the second
    /// entry of a change, or to step down.
    pub(in crate::raft) awaits_configuration: bool,
    /// The index from which on all entries are of this leader's term.
    first_own: LogIndex,
    pub(in crate::raft) next_heartbeat: Instant,
    /// For each turn with entries above the commit index: the index of its last entry, and the
    /// number of their bytes.
    uncommitted: VecDeque<(LogIndex, usize)>,
    uncommitted_bytes: usize,
}

/// A leadership transfer under way, on the side of the leader.
#[derive(Clone, Debug)]
pub(in crate::raft) struct Transfer {
    pub(in crate::raft) target: NodeId,
    /// When the leader aborts the transfer.
    pub(in crate::raft) deadline: Instant,
    pub(in crate::raft) is_called: bool,
}

impl Leadership {
    /// The state of a new leader, without followers yet, whose log ends at `last_index` with an
    /// entry of an earlier term.
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

    /// Returns whether the entry at `index`, if the log holds it, is of the leader's own term: that
    /// is so for all entries appended since it became leader, and for none before.
    pub(in crate::raft) fn is_own(&self, index: LogIndex) -> bool {
        index >= self.first_own
    }

    /// Returns whether the leader accepts requests for read indexes.
    pub(in crate::raft) fn takes_reads(&self) -> bool {
        let hands_over = self.transfer.is_some() && !mutant::is_active(Mutant::LeaseUsedInTransfer);
        !hands_over && !self.reads.is_full()
    }

    /// When the next turn is due if nothing arrives before.
    pub(in crate::raft) fn deadline(&self) -> Instant {
        let given_up = self.transfer.as_ref().map(|transfer| transfer.deadline);
        given_up.map_or(self.next_heartbeat, |given_up| given_up.min(self.next_heartbeat))
    }

    pub(in crate::raft) fn uncommitted_bytes(&self) -> usize {
        self.uncommitted_bytes
    }

    /// Records new entries that wait to be committed: `bytes` bytes up to `last_index`.
    pub(in crate::raft) fn appended(&mut self, last_index: LogIndex, bytes: usize) {
        self.uncommitted.push_back((last_index, bytes));
        self.uncommitted_bytes += bytes;
    }

    pub(in crate::raft) fn unreachable(&mut self, peer: NodeId) {
        if let Some(progress) = self.followers.of_mut(peer) {
            progress.unreachable();
        }
    }

    /// Does not count the time asleep as silence of the followers: they may have answered
    /// meanwhile.
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
