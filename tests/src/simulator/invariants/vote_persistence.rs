//! Vote persistence: a vote that leaves a node is durable, together with its term, and never
//! changes later, even across restarts (§5.2, Figure 2; S7). A vote request is a vote for oneself.
//! A leader has received the votes of a majority (§5.2), each voter counted once.

use std::collections::BTreeMap;

use coracle_core::Output;
use coracle_core::raft::{Body, Configuration, Event, Message, NodeId, Term};

use super::{Verdict, majorities, require};
use crate::simulator::durable::DurableState;

/// The vote of each node in each term.
#[derive(Debug, Default)]
pub(super) struct VotePersistence {
    promised: BTreeMap<(NodeId, Term), NodeId>,
}

impl VotePersistence {
    pub(super) fn check(&mut self, message: &Message, durable: &DurableState) -> Verdict {
        let candidate = match &message.body {
            Body::RequestVote(_) => message.from,
            Body::RequestVoteResponse(response) if response.granted => message.to,
            _ => return Ok(()),
        };
        let held = durable.hard_state;
        let is_durable = held.current_term > message.term
            || (held.current_term == message.term && held.voted_for == Some(candidate));
        require(is_durable, "vote_persistence", || {
            format!(
                "node {}'s vote for {candidate} in term {} leaves before it is durable",
                message.from, message.term
            )
        })?;
        let first = *self.promised.entry((message.from, message.term)).or_insert(candidate);
        require(first == candidate, "vote_persistence", || {
            format!("node {} votes for {first} and for {candidate} in term {}", message.from, message.term)
        })
    }

    pub(super) fn check_elected(&self, id: NodeId, outputs: &[Output], members: &Configuration) -> Verdict {
        let elected_in = outputs.iter().find_map(|output| match output {
            Output::Event(Event::BecameLeader { term, .. }) => Some(*term),
            _ => None,
        });
        let Some(term) = elected_in else { return Ok(()) };
        let is_for_it = |((voter, voted_in), candidate): &(&(NodeId, Term), &NodeId)| {
            *voter != id && *voted_in == term && **candidate == id
        };
        let mut votes: Vec<_> =
            self.promised.iter().filter(is_for_it).map(|((voter, _), _)| *voter).collect();
        votes.push(id);
        require(majorities(members, &votes), "vote_persistence", || {
            format!("node {id} leads in term {term} with the votes of {votes:?} of the {members}")
        })
    }
}
