//! Handing leadership over (thesis, §3.10).
//!
//! The leader takes no more proposals and reads, brings the target's log up to its own, and tells
//! it to stand for election at once. Voters listen to such a candidate although they hear the
//! leader: its call says that the leader wants it so. If no other leader is known after the longest
//! election timeout, the leader goes on as before.

use std::fmt;

use super::durability::Promise;
use super::event::Event;
use super::message::Body;
use super::state::{Node, Part, Transfer};
use super::types::NodeId;
use crate::mutant::{self, Mutant};
use crate::time::Instant;

/// Why leadership is not handed over. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransferError {
    /// This node does not lead; the leader of its term, if it knows one.
    NotLeader(Option<NodeId>),
    /// The target does not vote, so it could not lead.
    NotVoter,
}

impl fmt::Display for TransferError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotLeader(Some(leader)) => write!(f, "node {leader} leads"),
            Self::NotLeader(None) => f.write_str("no leader is known"),
            Self::NotVoter => f.write_str("only a voter can lead"),
        }
    }
}

impl std::error::Error for TransferError {}

impl Node {
    /// Starts to hand leadership to `target`. It is over when [`Node::transfer_target`] is `None`:
    /// then another node leads or is about to, or the longest election timeout has passed and this
    /// node leads on.
    ///
    /// Asking for the same target again changes nothing, another target takes the place of the
    /// first, and this node itself ends the transfer.
    ///
    /// # Errors
    ///
    /// [`TransferError`].
    pub fn transfer_leadership(&mut self, target: NodeId, now: Instant) -> Result<(), TransferError> {
        let (id, leader) = (self.config.id, self.leader());
        let is_voter = self.configuration().voters().contains(target);
        let Part::Leader(leadership) = &mut self.part else { return Err(TransferError::NotLeader(leader)) };
        if !is_voter {
            return Err(TransferError::NotVoter);
        }
        if target == id {
            leadership.transfer = None;
        } else if leadership.transfer.as_ref().is_none_or(|transfer| transfer.target != target) {
            let deadline = now + self.config.election_timeout_max;
            leadership.transfer = Some(Transfer { target, deadline, is_called: false });
            self.tell(Event::TransferStarted { to: target });
        }
        Ok(())
    }

    /// Who could take leadership over soonest: of the other voters that have answered within an
    /// election timeout, the one whose log is closest. `None` when this node does not lead, or
    /// there is nobody.
    #[must_use]
    pub fn successor(&self) -> Option<NodeId> {
        let Part::Leader(leadership) = &self.part else { return None };
        let voters = self.configuration().voters().nodes().iter().copied();
        let candidates = voters.filter_map(|node| {
            let progress = leadership.followers.of(node)?;
            let silence = self.last_turn.since(progress.last_heard());
            (silence < self.config.election_timeout_min).then_some((progress.match_index(), node))
        });
        candidates.max().map(|(_, node)| node)
    }

    /// To whom this node is handing leadership over, if it is.
    #[must_use]
    pub fn transfer_target(&self) -> Option<NodeId> {
        let Part::Leader(leadership) = &self.part else { return None };
        leadership.transfer.as_ref().map(|transfer| transfer.target)
    }

    /// The leader's part of a turn's end: calls the target as soon as it holds all that the leader
    /// holds.
    pub(super) fn lead_transfer(&mut self, now: Instant) {
        let Part::Leader(leadership) = &mut self.part else { return };
        let Some(transfer) = &mut leadership.transfer else { return };
        let last_index = self.log.last().index;
        let target = transfer.target;
        if now >= transfer.deadline {
            leadership.transfer = None;
            return self.tell(Event::TransferFailed { to: target });
        }
        let holds_all = leadership.followers.of(target).is_some_and(|of| of.match_index() >= last_index);
        if transfer.is_called || !holds_all {
            return;
        }
        transfer.is_called = true;
        // From here on followers may vote at any time, also should this call arrive long after the
        // transfer failed.
        leadership.has_called_election = true;
        if !mutant::is_active(Mutant::LeaseUsedInTransfer) {
            leadership.reads.end_lease();
        }
        self.send(target, Promise::Nothing, Body::TimeoutNow);
    }

    /// The leader wants this node to lead.
    pub(super) fn on_timeout_now(&mut self, from: NodeId, now: Instant) {
        let follows_sender = self.leader() == Some(from);
        if follows_sender && self.votes_itself() {
            self.fail_reads();
            self.stand_for_election(true, now);
        }
    }
}
