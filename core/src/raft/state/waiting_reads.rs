//! Linearizable reads that wait (ReadIndex): at a leader for the confirmation that it leads, at any
//! other node for the answer of its leader.

use std::collections::VecDeque;

use crate::raft::message::{ReadBatch, ReadRound};
use crate::raft::types::{LogIndex, NodeId};
use crate::time::Instant;

/// The maximum number of batches of reads that wait at a node, both its own and those of other
/// nodes; further ones fail at once. Chosen because a turn asks for one batch and a round takes a
/// few turns.
pub const READ_BATCHES_MAX: usize = 1024;

/// The node that asked for a read index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::raft) enum Asker {
    /// This node.
    Own(ReadBatch),
    /// A follower.
    Peer(NodeId, ReadBatch),
}

/// The reads that wait at a leader, and the rounds that confirm that it leads.
#[derive(Clone, Debug, Default)]
pub(in crate::raft) struct LeaderReads {
    /// The latest round; a number is used once per term.
    pub(in crate::raft) round: ReadRound,
    /// The round that reads wait for, and the commit index when it began.
    pub(in crate::raft) confirming: Option<(ReadRound, LogIndex)>,
    /// The reads that this round will confirm.
    pub(in crate::raft) confirmed_with: Vec<Asker>,
    /// The reads that came after the round began.
    pub(in crate::raft) waiting: Vec<Asker>,
    /// The rounds that a majority has not answered yet, with their start times, for the lease.
    pub(in crate::raft) begun: VecDeque<(ReadRound, Instant)>,
    /// The time until which no other node can have become leader.
    pub(in crate::raft) lease_end: Option<Instant>,
}

/// This node's own reads that wait for an answer of its leader.
#[derive(Clone, Debug)]
pub(in crate::raft) struct OwnReads {
    pub(in crate::raft) next: u64,
    /// The batch of the turn under way, if it has one.
    pub(in crate::raft) open: Option<ReadBatch>,
    /// The batches that were forwarded to the leader, with the time.
    pub(in crate::raft) forwarded: VecDeque<(ReadBatch, Instant)>,
}

impl OwnReads {
    /// `first` is the number of the first batch: a different one after every restart.
    pub(in crate::raft) fn new(first: u64) -> Self {
        Self { next: first, open: None, forwarded: VecDeque::new() }
    }
}

impl LeaderReads {
    /// The latest round.
    pub(in crate::raft) fn round(&self) -> ReadRound {
        self.round
    }

    pub(in crate::raft) fn is_full(&self) -> bool {
        self.waiting.len() + self.confirmed_with.len() >= READ_BATCHES_MAX
    }

    /// Ends the lease. The caller prevents another one in this term.
    pub(in crate::raft) fn end_lease(&mut self) {
        self.lease_end = None;
    }

    /// Returns whether an answered round would confirm reads or renew the lease.
    pub(in crate::raft) fn is_counting(&self) -> bool {
        self.confirming.is_some() || !self.begun.is_empty()
    }

    /// Begins a round: for reads, for a lease, or to check which nodes answer.
    pub(in crate::raft) fn begin_round(&mut self, now: Instant) -> ReadRound {
        self.round = ReadRound(self.round.0 + 1);
        self.begun.push_back((self.round, now));
        self.round
    }

    pub(in crate::raft) fn take_all(&mut self) -> impl Iterator<Item = Asker> + use<> {
        self.confirming = None;
        std::mem::take(&mut self.confirmed_with).into_iter().chain(std::mem::take(&mut self.waiting))
    }
}
