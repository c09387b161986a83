//! The gateway: which messages are believed at all.
//!
//! Every message passes here before anything of it is kept. What is refused is reported as an event
//! and changes nothing: a message for another node, a term that no election could have reached, a
//! second leader of a term, and answers that do not come from the member in the incarnation that
//! was asked. Whether a believed message is right is for its handler to say.

use super::event::Refusal;
use super::message::{Body, Message};
use super::state::{Node, Part};
use super::types::Term;
use crate::mutant::{self, Mutant};

impl Node {
    /// Whether the sender is a member that was removed, and that this leader still sends the entry
    /// that says so.
    fn is_leaving(&self, message: &Message) -> bool {
        let Part::Leader(leadership) = &self.part else { return false };
        leadership.followers.is_leaving(message.from, message.incarnation)
    }

    /// Whether the message may go on.
    pub(super) fn check_address(&self, message: &Message) -> Result<(), Refusal> {
        if message.to != self.config.id {
            return Err(Refusal::WrongAddress);
        }
        let is_term_believed =
            message.term <= Term::MAX && message.term.0 <= self.current_term.0.saturating_add(Term::JUMP_MAX);
        if !is_term_believed && !mutant::is_active(Mutant::AnyTermBelieved) {
            return Err(Refusal::TermTooHigh);
        }
        // Calls count from whoever makes them: the caller may be a member that this node has not
        // heard of yet, and this node one that the caller knows better than it knows itself
        // (etcd#10998). Answers count from members alone.
        let claims_to_lead =
            matches!(message.body, Body::AppendEntries(_) | Body::Heartbeat(_) | Body::InstallSnapshot(_));
        let may_be_new =
            claims_to_lead || matches!(message.body, Body::RequestPreVote(_) | Body::RequestVote(_));
        // But for a node that claims to lead a term whose leader is known: no member does that.
        let contradicts = may_be_new
            && message.term == self.current_term
            && self.leader().is_some_and(|leader| leader != message.from);
        if contradicts && claims_to_lead {
            return Err(Refusal::SecondLeader);
        }
        let is_member = self.configuration().contains(message.from);
        if message.from == self.config.id || !(is_member || may_be_new || self.is_leaving(message)) {
            return Err(Refusal::UnknownSender);
        }
        if may_be_new {
            return if is_member || !contradicts { Ok(()) } else { Err(Refusal::UnknownSender) };
        }
        // A vote or an acknowledgement of another incarnation is not the member's: that one may
        // have forgotten what this one promised, or the other way round.
        let counts = self.configuration().roster().counts(message.from, message.incarnation);
        if counts { Ok(()) } else { Err(Refusal::OtherIncarnation) }
    }
}
