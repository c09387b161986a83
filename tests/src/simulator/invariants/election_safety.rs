//! Election Safety: at most one leader can be elected in a given term (Raft, Figure 3; S1).

use std::collections::BTreeMap;

use coracle_core::Replica;
use coracle_core::raft::{NodeId, Role, Term};

use super::{Verdict, require};

/// The first node that was seen leading in each term.
#[derive(Debug, Default)]
pub(super) struct ElectionSafety {
    leaders: BTreeMap<Term, NodeId>,
}

impl ElectionSafety {
    pub(super) fn check(&mut self, replica: &Replica) -> Verdict {
        let node = replica.node();
        if node.role() != Role::Leader {
            return Ok(());
        }
        let first = *self.leaders.entry(node.current_term()).or_insert(node.id());
        require(first == node.id(), "election_safety", || {
            format!("nodes {first} and {} both lead in term {}", node.id(), node.current_term())
        })
    }
}
