//! Changing who takes part (§6), by joint consensus whatever the change.
//!
//! A configuration is in force from the moment it is appended, committed or not, and no longer than
//! it is in the log: a cut brings the one before back. So a node has exactly one, the latest of its
//! log, and two majorities that could decide without each other never exist.
//!
//! A change takes two entries. The first names both sets of voters; when it is committed the leader
//! appends the second, which names the new set alone. Whoever leads then finishes the change, also
//! if its beginner is gone. A change of learners alone takes one entry.
//!
//! What a leader refuses, and why:
//!
//! - a change while another is not committed: one at a time keeps any two neighbours' majorities
//!   overlapping;
//! - a change before it has committed an entry of its own term: two leaders could otherwise each
//!   start from a configuration that the other does not know (Ongaro, raft-dev, 2015);
//! - a voter that is far behind: with it the majority could be one that can commit nothing for a
//!   long time. It joins as a learner first, and is promoted when it has caught up.

use std::fmt;

use super::configuration::Configuration;
use super::event::StepDown;
use super::message::ReadRound;
use super::quorum::Voters;
use super::state::{Node, Part};
use super::types::{LogIndex, NodeId, Term};
use crate::mutant::{self, Mutant};
use crate::time::Instant;

/// How many entries a learner may lack when it becomes a voter: few enough to send in one call.
pub const PROMOTION_LAG_MAX: u64 = 1000;

/// Why the membership is not changed. Nothing has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeError {
    /// This node does not lead; the leader of its term, if it knows one.
    NotLeader(Option<NodeId>),
    /// Leadership is being handed over.
    TransferPending,
    /// An earlier change is not finished.
    InProgress,
    /// The leader has not committed an entry of its own term yet. It will soon.
    NotEstablished,
    /// This node would vote, and lacks too much of the log.
    CatchingUp(NodeId),
    /// This node would vote, and has not answered the round that asked for it.
    Silent(NodeId),
    /// A majority of the voters that would be left has not answered the round that asked for it:
    /// the cluster could commit nothing any more.
    MajoritySilent,
    /// This node is no member.
    NotMember(NodeId),
    /// The last voter cannot be removed.
    LastVoter,
    /// This member has the address already.
    AddressTaken(NodeId),
    /// The order was given for an earlier configuration, and the members have changed since.
    Outdated,
    /// The cluster is as the change would make it.
    Unchanged,
    /// Too many voters or learners, none, or a node twice.
    Invalid,
}

impl fmt::Display for ChangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotLeader(Some(leader)) => write!(f, "node {leader} leads"),
            Self::NotLeader(None) => f.write_str("no leader is known"),
            Self::TransferPending => f.write_str("leadership is being handed over"),
            Self::InProgress => f.write_str("an earlier change is not finished"),
            Self::NotEstablished => f.write_str("the leader is new and has not committed anything yet"),
            Self::CatchingUp(node) => {
                write!(f, "node {node} has not caught up with the log yet: a voter joins as a learner first")
            }
            Self::Silent(node) => {
                write!(f, "node {node} does not answer: start it, or look at its connection")
            }
            Self::MajoritySilent => f.write_str(
                "a majority of the voters that would be left does not answer, so nothing could be committed any \
                 more: start them first, or remove those that are down instead",
            ),
            Self::NotMember(node) => write!(f, "node {node} is no member of the cluster"),
            Self::LastVoter => f.write_str("the last voter cannot be removed"),
            Self::AddressTaken(node) => write!(f, "node {node} has that address already"),
            Self::Outdated => {
                f.write_str("the members have changed since the order was given: look at them and give it again")
            }
            Self::Unchanged => f.write_str("the members are these already"),
            Self::Invalid => f.write_str("too many members, none, or one twice"),
        }
    }
}

impl std::error::Error for ChangeError {}

impl Node {
    /// Up to which entry this node knows who takes part: the entry of the configuration in force,
    /// or the end of the snapshot that holds it.
    #[must_use]
    pub fn configuration_index(&self) -> LogIndex {
        self.membership.index()
    }

    /// Up to which entry this node's log names it: the same as [`Node::configuration_index`] unless
    /// the configuration in force does not name it. Of a node that was never named, the same as
    /// well.
    #[must_use]
    pub fn named_index(&self) -> LogIndex {
        self.membership.last_naming().unwrap_or_else(|| self.configuration_index())
    }

    /// The configurations in force since the log ended at `index`, that one first; `None` where
    /// this node no longer knows, or not yet.
    pub fn configurations_since(&self, index: LogIndex) -> Option<impl Iterator<Item = &Configuration>> {
        let is_known = self.membership.first_index() <= index && index <= self.log.last().index;
        is_known.then(|| self.membership.since(index))
    }

    /// Whether that configuration is committed and no change is under way.
    #[must_use]
    pub fn membership_is_settled(&self) -> bool {
        self.membership.index() <= self.commit_index && !self.configuration().is_joint()
    }

    /// Starts a change to `target`. It is over when [`Node::membership_is_settled`] again.
    ///
    /// A new voter, and a majority of the voters that there will be, must have answered `asked`, a
    /// round that was begun for this change a moment ago: what was heard from a node before does
    /// not tell whether it is still there, and a leader that slept finds old answers in its inbox.
    /// `None` does not ask: where all nodes live and die together. `insists` goes on although that
    /// majority has not: right only if it is about to.
    ///
    /// # Errors
    ///
    /// [`ChangeError`].
    pub fn change_membership(
        &mut self,
        target: &Configuration,
        asked: Option<ReadRound>,
        insists: bool,
    ) -> Result<(LogIndex, Term), ChangeError> {
        let leader = self.leader();
        let Part::Leader(leadership) = &self.part else { return Err(ChangeError::NotLeader(leader)) };
        if leadership.transfer.is_some() {
            return Err(ChangeError::TransferPending);
        }
        if !self.membership_is_settled() || self.proposals.has_configuration() {
            return Err(ChangeError::InProgress);
        }
        if !self.commits_own_term() && !mutant::is_active(Mutant::ChangeBeforeOwnCommit) {
            return Err(ChangeError::NotEstablished);
        }
        if target.is_joint() {
            return Err(ChangeError::Invalid);
        }
        let current = self.configuration();
        if target == current {
            return Err(ChangeError::Unchanged);
        }
        let is_new = |node: &&NodeId| !current.is_voter(**node);
        let asked = asked.filter(|_| !mutant::is_active(Mutant::MembersNotAsked));
        let is_silent =
            |node: &&NodeId| is_new(node) && asked.is_some_and(|asked| !self.has_answered(**node, asked));
        let new_voters = || target.voters().nodes().iter();
        if let Some(node) = new_voters().find(is_silent)
            && !mutant::is_active(Mutant::SilentLearnerPromoted)
        {
            return Err(ChangeError::Silent(*node));
        }
        if let Some(node) = new_voters().find(|node| is_new(node) && !self.has_caught_up(**node)) {
            return Err(ChangeError::CatchingUp(*node));
        }
        let changes_voters = target.voters() != current.voters();
        let is_ignored = mutant::is_active(Mutant::SilentMajorityLeft);
        let majority_is_silent =
            || asked.is_some_and(|asked| !self.majority_has_answered(target.voters(), asked));
        if changes_voters && !insists && !is_ignored && majority_is_silent() {
            return Err(ChangeError::MajoritySilent);
        }
        let next = if target.voters() == current.voters() { target.clone() } else { current.joint(target) };
        Ok(self.propose_configuration(&next))
    }

    /// Whether a node lacks so little that it may vote. It must hold the configuration that names
    /// its incarnation: by that entry a voter knows itself.
    #[must_use]
    pub fn has_caught_up(&self, node: NodeId) -> bool {
        let Part::Leader(leadership) = &self.part else { return false };
        let last_index = self.last_entry().index.0;
        let is_blind = mutant::is_active(Mutant::PromotedBeforeItKnowsItself);
        let named_at = if is_blind { 0 } else { self.membership.index().0 };
        // In a young log no node lacks much, so it must at least have answered.
        let has_most = |held: u64| held > 0 && held >= named_at && held + PROMOTION_LAG_MAX >= last_index;
        let progress = leadership.followers.of(node);
        let is_any = mutant::is_active(Mutant::LaggardPromoted);
        node == self.config.id
            || is_any
            || progress.is_some_and(|progress| has_most(progress.match_index().0))
    }

    /// Asks all members, as their leader, whether they are there: a round of heartbeats, to be
    /// named in [`Node::change_membership`]. `None` when this node does not lead.
    pub fn ask_members(&mut self, now: Instant) -> Option<ReadRound> {
        let Part::Leader(leadership) = &mut self.part else { return None };
        let round = leadership.reads.begin_round(now);
        self.send_heartbeats();
        Some(round)
    }

    /// Whether a node has answered this round or a later one, in the incarnation that is a member.
    fn has_answered(&self, node: NodeId, round: ReadRound) -> bool {
        let Part::Leader(leadership) = &self.part else { return false };
        let progress = leadership.followers.of(node);
        node == self.config.id || progress.is_some_and(|progress| progress.answered_round() >= round)
    }

    /// Whether a majority of these voters has.
    fn majority_has_answered(&self, voters: &Voters, round: ReadRound) -> bool {
        let answered = voters.nodes().iter().filter(|node| self.has_answered(**node, round)).count();
        answered >= voters.majority()
    }

    fn propose_configuration(&mut self, configuration: &Configuration) -> (LogIndex, Term) {
        let point = self.proposals.seal(self.current_term, |line| configuration.write_payload(line));
        (point.index, point.term)
    }

    /// Whether this node leads, and the configuration in force leaves it something to do. Nearly
    /// always it does not, and no turn looks further.
    fn awaits_configuration(&self) -> bool {
        matches!(&self.part, Part::Leader(leadership) if leadership.awaits_configuration)
    }

    /// Whether the second entry of a change is due: the first one is committed.
    pub(super) fn is_leave_due(&self) -> bool {
        self.awaits_configuration()
            && self.configuration().is_joint()
            && self.commits_own_term()
            && (self.membership.index() <= self.commit_index || mutant::is_active(Mutant::JointLeftEarly))
            && !self.proposals.has_configuration()
    }

    /// §6: once the joint configuration is committed, the leader appends the new one.
    pub(super) fn leave_joint_configuration(&mut self) {
        if self.is_leave_due() {
            let next = self.configuration().without_outgoing();
            self.propose_configuration(&next);
        }
    }

    /// §6: a leader that is no longer a member leads until its removal is committed, without
    /// counting itself.
    pub(super) fn step_down_if_removed(&mut self, now: Instant) {
        let leads_on = mutant::is_active(Mutant::RemovedLeaderLeadsOn);
        if self.awaits_configuration() && self.membership_is_settled() && !self.votes_itself() && !leads_on {
            self.become_follower(self.current_term, None, StepDown::Removed, now);
        }
    }

    /// The voters of the configuration in force.
    #[must_use]
    pub fn voters(&self) -> &Voters {
        self.configuration().voters()
    }
}
