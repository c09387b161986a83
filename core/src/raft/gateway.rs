//! The gateway for messages: validates the sender, term and incarnation of every message before a
//! handler sees it.
//!
//! A rejected message changes nothing and is reported as an event. Rejected are: a message for
//! another node, a term that no election could have reached, a second leader of a term, and answers
//! that do not come from the member in the incarnation that was asked. The handler of a valid
//! message checks its content.

use super::event::MessageRefusal;
use super::message::{Body, Message};
use super::state::{Node, Part};
use super::types::Term;
use crate::mutant::{self, Mutant};

impl Node {
    /// Returns whether the sender is a removed member to which this leader still sends the entry
    /// that removed it.
    fn is_leaving(&self, message: &Message) -> bool {
        let Part::Leader(leadership) = &self.part else { return false };
        leadership.followers.is_leaving(message.from, message.incarnation)
    }

    /// Checks whether the message may go to its handler.
    pub(super) fn check_message(&self, message: &Message) -> Result<(), MessageRefusal> {
        if message.to != self.config.id {
            return Err(MessageRefusal::WrongAddress);
        }
        let is_term_believed =
            message.term <= Term::MAX && message.term.0 <= self.current_term.0.saturating_add(Term::JUMP_MAX);
        if !is_term_believed && !mutant::is_active(Mutant::AnyTermBelieved) {
            return Err(MessageRefusal::TermTooHigh);
        }
        // Calls are accepted from any node: the caller may be a member that this node has not heard
        // of yet, and this node may be a member without knowing it, while the caller does
        // (etcd#10998). Answers are accepted only from members.
        let claims_to_lead =
            matches!(message.body, Body::AppendEntries(_) | Body::Heartbeat(_) | Body::InstallSnapshot(_));
        let may_be_new =
            claims_to_lead || matches!(message.body, Body::RequestPreVote(_) | Body::RequestVote(_));
        // The exception is a node that claims to lead a term whose leader is known: no member does
        // that.
        let contradicts = may_be_new
            && message.term == self.current_term
            && self.leader().is_some_and(|leader| leader != message.from);
        if contradicts && claims_to_lead {
            return Err(MessageRefusal::SecondLeader);
        }
        let is_member = self.configuration().contains(message.from);
        if message.from == self.config.id || !(is_member || may_be_new || self.is_leaving(message)) {
            return Err(MessageRefusal::UnknownSender);
        }
        if may_be_new {
            return if is_member || !contradicts { Ok(()) } else { Err(MessageRefusal::UnknownSender) };
        }
        // A vote or an acknowledgement of another incarnation does not count for the member: either
        // incarnation may have forgotten what the other one promised.
        let counts = self.configuration().roster().counts(message.from, message.incarnation);
        if counts { Ok(()) } else { Err(MessageRefusal::OtherIncarnation) }
    }
}
