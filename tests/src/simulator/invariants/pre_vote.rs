//! A node raises its term only after a majority has said, in answer to this very question, that it would vote for it
//! (thesis, §9.6). Otherwise a node that was cut off would unseat a leader that is well.

use std::collections::{BTreeMap, BTreeSet};

use coracle_core::Output;
use coracle_core::raft::{Body, Event, Message, NodeId};

use super::{ByNode, Verdict, require};

/// Who has said yes to what.
#[derive(Debug, Default)]
pub(super) struct PreVote {
    /// The round that each node asked about last.
    asked: ByNode<u64>,
    granted: BTreeMap<(NodeId, u64), BTreeSet<NodeId>>,
}

impl PreVote {
    pub(super) fn note(&mut self, message: &Message) {
        match &message.body {
            Body::RequestPreVote(request) => drop(self.asked.insert(message.from, request.round)),
            Body::RequestPreVoteResponse(response) if response.granted => {
                self.granted.entry((message.to, response.round)).or_default().insert(message.from);
            }
            _ => {}
        }
    }

    pub(super) fn check(&self, id: NodeId, outputs: &[Output], voters: usize) -> Verdict {
        let stands =
            outputs.iter().any(|output| matches!(output, Output::Event(Event::BecameCandidate { .. })));
        if !stands {
            return Ok(());
        }
        let round = self.asked.get(&id).copied().unwrap_or_default();
        let others = self.granted.get(&(id, round)).map_or(0, BTreeSet::len);
        require(2 * (1 + others) > voters, "pre_vote", || {
            format!(
                "node {id} stands for election, and {others} others had said in round {round} to vote for it"
            )
        })
    }
}
