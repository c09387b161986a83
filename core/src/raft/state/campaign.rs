//! A campaign: the votes that a candidate has received in an election or a pre-vote (§5.2; thesis,
//! §9.6).

use std::collections::BTreeMap;

use crate::mutant::{self, Mutant};
use crate::raft::message::RequestVoteResponse;
use crate::raft::types::NodeId;

/// The votes of one campaign, granted or rejected.
#[derive(Clone, Debug)]
pub(in crate::raft) struct Campaign {
    pub(in crate::raft) round: u64,
    pub(in crate::raft) votes: BTreeMap<NodeId, bool>,
}

impl Campaign {
    pub(in crate::raft) fn new(round: u64) -> Self {
        Self { round, votes: BTreeMap::new() }
    }

    /// Records a vote of this round; the first answer of a voter counts.
    pub(in crate::raft) fn record(&mut self, voter: NodeId, response: RequestVoteResponse) {
        let voter = another_by_mutant(self.votes.len()).unwrap_or(voter);
        if response.round == self.round || mutant::is_active(Mutant::PreVoteRoundIgnored) {
            self.votes.entry(voter).or_insert(response.granted);
        }
    }
}

/// Deliberate bug: each answer is one of another voter.
fn another_by_mutant(votes: usize) -> Option<NodeId> {
    mutant::is_active(Mutant::VotesCountedTwice).then_some(NodeId(votes as u64))
}
