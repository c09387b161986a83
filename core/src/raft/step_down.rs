//! Stepping down: a node becomes a follower (§5.1), from any role and for any reason.

use super::event::{Event, StepDown};
use super::state::{Node, Part, Role};
use super::types::{NodeId, Term};
use crate::mutant::{self, Mutant};
use crate::time::Instant;

impl Node {
    /// Becomes a follower in `term`, with or without a known leader. A new term begins without a
    /// vote.
    pub(super) fn become_follower(
        &mut self,
        term: Term,
        leader: Option<NodeId>,
        because: StepDown,
        now: Instant,
    ) {
        assert!(term >= self.current_term, "a term never falls");
        self.seal_proposals();
        self.fail_reads();
        let was = self.role();
        if term > self.current_term && !mutant::is_active(Mutant::VoteKeptInNewTerm) {
            self.voted_for = None;
        }
        if term > self.current_term {
            self.current_term = term;
            self.turn.hard_state_changed = true;
        }
        self.part = Part::Follower { leader };
        if was == Role::Leader {
            // A leader has no election timer running.
            self.reset_election_timer(now);
        }
        if was != Role::Follower {
            self.report(Event::BecameFollower { term, because });
        }
    }
}
