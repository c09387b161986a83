//! Leadership transfer (thesis, §3.10).
//!
//! The leader rejects new proposals and reads, brings the target's log up to its own, and sends it
//! TimeoutNow, which starts an election at once. Voters grant their votes to such a candidate
//! although they hear from the leader, because its request says that the leader wants the election.
//! If the target has not become leader within the longest election timeout, the transfer aborts and
//! the leader continues as before.

use std::fmt;

use super::durability::Promise;
use super::event::Event;
use super::message::Body;
use super::state::{Leadership, Node, Part, Transfer};
use super::types::NodeId;
use crate::mutant::{self, Mutant};
use crate::time::Instant;

/// Why a leadership transfer was rejected. A rejected transfer has no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransferError {
    /// This node does not lead; the payload is the leader of its term, if it knows one.
    NotLeader(Option<NodeId>),
    /// The target is not a voter, so it could not lead.
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
    /// Starts to transfer leadership to `target`. The transfer is over when
    /// [`Node::transfer_target`] is `None`: then another node leads or is about to, or the longest
    /// election timeout has passed and this node continues to lead.
    ///
    /// The same target again changes nothing, another target replaces the first one, and this node
    /// itself as the target aborts the transfer.
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
            self.report(Event::TransferStarted { to: target });
        }
        Ok(())
    }

    /// The best target for a transfer: among the other voters that have answered within an election
    /// timeout, the one whose log is closest. `None` when this node does not lead, or no voter has
    /// answered.
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

    /// The target of the transfer under way, if there is one.
    #[must_use]
    pub fn transfer_target(&self) -> Option<NodeId> {
        let Part::Leader(leadership) = &self.part else { return None };
        leadership.transfer.as_ref().map(|transfer| transfer.target)
    }

    /// The leader's part of the end of a turn: sends TimeoutNow to the target as soon as it holds
    /// the whole log of the leader.
    pub(super) fn lead_transfer(&mut self, now: Instant) {
        let Part::Leader(leadership) = &mut self.part else { return };
        let Some(transfer) = &mut leadership.transfer else { return };
        let last_index = self.log.last().index;
        let target = transfer.target;
        if now >= transfer.deadline {
            leadership.transfer = None;
            return self.report(Event::TransferFailed { to: target });
        }
        let holds_all = leadership.followers.of(target).is_some_and(|of| of.match_index() >= last_index);
        if transfer.is_called || !holds_all {
            return;
        }
        transfer.is_called = true;
        // From now on followers may vote at any time, even if this message arrives long after the
        // transfer was aborted.
        leadership.has_called_election = true;
        end_lease_unless_mutant(leadership);
        self.send(target, Promise::Nothing, Body::TimeoutNow);
    }

    /// Handles TimeoutNow: starts an election because the leader transfers leadership to this node.
    pub(super) fn on_timeout_now(&mut self, from: NodeId, now: Instant) {
        let follows_sender = self.leader() == Some(from);
        if follows_sender && self.votes_itself() {
            self.fail_reads();
            self.stand_for_election(true, now);
        }
    }
}

/// Ends the lease; deliberate bug: the leader goes on using it.
fn end_lease_unless_mutant(leadership: &mut Leadership) {
    if !mutant::is_active(Mutant::LeaseUsedInTransfer) {
        leadership.reads.end_lease();
    }
}
