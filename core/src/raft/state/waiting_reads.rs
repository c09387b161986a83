//! Linearizable reads that wait: at a leader for the proof that it leads, at any node for its
//! leader's answer.

use std::collections::VecDeque;

use crate::raft::message::{ReadBatch, ReadRound};
use crate::raft::types::{LogIndex, NodeId};
use crate::time::Instant;

/// The most batches of reads that wait at a node, of its own and of others; what is above it fails
/// at once. Chosen because a turn asks for one batch and a round takes a few turns.
pub const READ_BATCHES_MAX: usize = 1024;

/// Who waits for a read index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::raft) enum Asker {
    /// This node.
    Own(ReadBatch),
    /// A follower.
    Peer(NodeId, ReadBatch),
}

/// The reads that wait at a leader, and what proves that it leads.
#[derive(Clone, Debug, Default)]
pub(in crate::raft) struct LeaderReads {
    /// The round begun last; numbers are given out once per term.
    pub(in crate::raft) round: ReadRound,
    /// The round that reads wait for, and the commit index when it began.
    pub(in crate::raft) confirming: Option<(ReadRound, LogIndex)>,
    /// Those that it is for.
    pub(in crate::raft) confirmed_with: Vec<Asker>,
    /// Those that came later.
    pub(in crate::raft) waiting: Vec<Asker>,
    /// When the rounds began that a majority has not answered yet, for the lease.
    pub(in crate::raft) begun: VecDeque<(ReadRound, Instant)>,
    /// Until when no other node can have become leader.
    pub(in crate::raft) lease_end: Option<Instant>,
}

/// The reads of this node that wait for an answer of its leader.
#[derive(Clone, Debug)]
pub(in crate::raft) struct OwnReads {
    pub(in crate::raft) next: u64,
    /// The batch of the turn under way.
    pub(in crate::raft) open: Option<ReadBatch>,
    /// Passed on to the leader, since when.
    pub(in crate::raft) passed_on: VecDeque<(ReadBatch, Instant)>,
}

impl OwnReads {
    /// `first` is the number of the first batch: another one in every life of a node.
    pub(in crate::raft) fn new(first: u64) -> Self {
        Self { next: first, open: None, passed_on: VecDeque::new() }
    }
}

impl LeaderReads {
    /// The round begun last.
    pub(in crate::raft) fn round(&self) -> ReadRound {
        self.round
    }

    pub(in crate::raft) fn is_full(&self) -> bool {
        self.waiting.len() + self.confirmed_with.len() >= READ_BATCHES_MAX
    }

    /// The lease is over, and there will be no other in this term.
    pub(in crate::raft) fn end_lease(&mut self) {
        self.lease_end = None;
    }

    /// Whether anything is going to follow from a majority's answers.
    pub(in crate::raft) fn is_counting(&self) -> bool {
        self.confirming.is_some() || !self.begun.is_empty()
    }

    /// Begins a round, for reads, for a lease, or to ask who is there.
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
