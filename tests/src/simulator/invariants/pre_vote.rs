//! Pre-vote: a node raises its term only after a majority has granted this round of its pre-vote
//! (thesis, §9.6), or after the leader of the term before has called it to take over (thesis,
//! §3.10). Otherwise a node that was cut off would depose a healthy leader.

use std::collections::{BTreeMap, BTreeSet};

use coracle_core::Output;
use coracle_core::raft::{Body, Configuration, Event, Message, NodeId, Term};

use super::{ByNode, Verdict, majorities, require};

/// The pre-votes that were requested and granted.
#[derive(Debug, Default)]
pub(super) struct PreVote {
    /// The latest pre-vote round of each node.
    asked: ByNode<u64>,
    granted: BTreeMap<(NodeId, u64), BTreeSet<NodeId>>,
    /// The nodes that a leader called to campaign, with the leader's term.
    called: BTreeSet<(NodeId, Term)>,
}

impl PreVote {
    pub(super) fn note(&mut self, message: &Message) {
        match &message.body {
            Body::RequestPreVote(request) => drop(self.asked.insert(message.from, request.round)),
            Body::RequestPreVoteResponse(response) if response.granted => {
                self.granted.entry((message.to, response.round)).or_default().insert(message.from);
            }
            Body::TimeoutNow => drop(self.called.insert((message.to, message.term))),
            _ => {}
        }
    }

    pub(super) fn check(&self, id: NodeId, outputs: &[Output], members: &Configuration) -> Verdict {
        let stood = outputs.iter().find_map(|output| match output {
            Output::Event(Event::BecameCandidate { term }) => Some(*term),
            _ => None,
        });
        let Some(term) = stood else { return Ok(()) };
        if self.called.iter().any(|(called, before)| *called == id && before.next() == term) {
            return Ok(());
        }
        let round = self.asked.get(&id).copied().unwrap_or_default();
        let mut yes: Vec<_> = self.granted.get(&(id, round)).into_iter().flatten().copied().collect();
        yes.push(id);
        require(majorities(members, &yes), "pre_vote", || {
            format!("node {id} stands for election, and of the {members} only {yes:?} would vote for it")
        })
    }
}
