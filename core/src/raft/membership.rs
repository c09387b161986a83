//! Membership changes (§6): adding and removing voters and learners, always by joint consensus.
//!
//! Decisions by majority are safe because any two majorities of one set of voters overlap. The
//! naive change, from the old set to the new one in a single step, breaks that: the nodes learn of
//! it at different times, so a majority of the old set and a majority of the new set may exist side
//! by side without a common node, and elect two leaders in one term.
//!
//! A change of voters therefore takes two entries. The first one names both sets, and a decision
//! needs a majority of each; when it is committed, the leader appends the second one, which names
//! the new set alone. If the leader fails in between, the next leader finishes the change. A change
//! of learners alone takes one entry, because no majority changes.
//!
//! A configuration is in force as soon as it is appended, committed or not, and a cut of the log
//! brings the previous one back. So a node always has exactly one, the latest of its log.
//!
//! A leader rejects:
//!
//! - a change while another one is not committed: with one change at a time, the majorities of
//!   consecutive configurations overlap;
//! - a change before it has committed an entry of its term: otherwise two leaders could each start
//!   from a configuration that the other one does not know (Ongaro, raft-dev, 2015);
//! - a new voter that lags far behind: a majority that depends on it could commit nothing for a
//!   long time. Such a node joins as a learner first, and is promoted when it has caught up.

use std::fmt;

use super::configuration::Configuration;
use super::event::StepDown;
use super::message::ReadRound;
use super::quorum::Voters;
use super::state::{Node, Part};
use super::types::{LogIndex, NodeId, Term};
use crate::mutant::{self, Mutant};
use crate::time::Instant;

/// The number of entries that a learner may lack when it becomes a voter: few enough to send in one
/// call.
pub const PROMOTION_LAG_MAX: u64 = 1000;

/// Why a membership change was rejected. A rejected change has no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChangeError {
    /// This node does not lead; the payload is the leader of its term, if it knows one.
    NotLeader(Option<NodeId>),
    /// A leadership transfer is under way.
    TransferPending,
    /// An earlier change is not finished.
    InProgress,
    /// The leader has not committed an entry of its term yet. It soon will.
    NotEstablished,
    /// This node would become a voter, but lacks too much of the log.
    CatchingUp(NodeId),
    /// This node would become a voter, but has not answered the round that asked for it.
    Silent(NodeId),
    /// A majority of the remaining voters has not answered the round that asked for it: the cluster
    /// could commit nothing any more.
    MajoritySilent,
    /// This node is not a member.
    NotMember(NodeId),
    /// The last voter cannot be removed.
    LastVoter,
    /// This member already has the address.
    AddressTaken(NodeId),
    /// The order was given for an earlier configuration, and the members have changed since.
    Outdated,
    /// The cluster already has the target configuration.
    Unchanged,
    /// The target has too many voters or learners, no voter, or a node twice.
    Invalid,
}

impl fmt::Display for ChangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotLeader(Some(leader)) => write!(f, "node {leader} leads"),
            Self::NotLeader(None) => f.write_str("no leader is known"),
            Self::TransferPending => f.write_str("a leadership transfer is in progress"),
            Self::InProgress => f.write_str("an earlier change is not finished"),
            Self::NotEstablished => f.write_str("the leader is new and has not committed anything yet"),
            Self::CatchingUp(node) => {
                write!(f, "node {node} has not caught up with the log yet: a voter joins as a learner first")
            }
            Self::Silent(node) => {
                write!(f, "node {node} does not answer: start it, or check its connection")
            }
            Self::MajoritySilent => f.write_str(
                "a majority of the remaining voters does not answer, so nothing could be committed: start \
                 them first, or remove those that are down instead",
            ),
            Self::NotMember(node) => write!(f, "node {node} is not a member of the cluster"),
            Self::LastVoter => f.write_str("the last voter cannot be removed"),
            Self::AddressTaken(node) => write!(f, "node {node} has that address already"),
            Self::Outdated => {
                f.write_str("the members have changed since the request was prepared: list them and retry")
            }
            Self::Unchanged => f.write_str("the configuration is already like this"),
            Self::Invalid => f.write_str("the configuration has too many members, no voter, or a node twice"),
        }
    }
}

impl std::error::Error for ChangeError {}

impl Node {
    /// The index of the configuration in force or, if it came with a snapshot, the last index of
    /// that snapshot.
    #[must_use]
    pub fn configuration_index(&self) -> LogIndex {
        self.membership.index()
    }

    /// The index of the last configuration that names this node. The same as
    /// [`Node::configuration_index`] if the configuration in force names the node, or if none ever
    /// did.
    #[must_use]
    pub fn named_index(&self) -> LogIndex {
        self.membership.last_naming().unwrap_or_else(|| self.configuration_index())
    }

    /// The configurations in force since the log ended at `index`, starting with the one at
    /// `index`; `None` if this node does not know them any more, or not yet.
    pub fn configurations_since(&self, index: LogIndex) -> Option<impl Iterator<Item = &Configuration>> {
        let is_known = self.membership.first_index() <= index && index <= self.log.last().index;
        is_known.then(|| self.membership.since(index))
    }

    /// Returns whether the configuration in force is committed and no change is under way.
    #[must_use]
    pub fn membership_is_settled(&self) -> bool {
        self.membership.index() <= self.commit_index && !self.configuration().is_joint()
    }

    /// Starts a membership change to `target`. It is over when [`Node::membership_is_settled`] is
    /// true again.
    ///
    /// Each new voter, and a majority of the voters after the change, must have answered `asked`, a
    /// round of heartbeats that was begun just before for this change: earlier answers do not show
    /// that a node is still there, and a leader that slept finds old answers in its inbox. `None`
    /// skips the question, for clusters whose nodes all run in one process. `insists` starts the
    /// change although that majority has not answered: right only if it is about to answer.
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
        let asked = asked.filter(are_asked_unless_mutant);
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
        let majority_is_silent =
            || asked.is_some_and(|asked| !self.majority_has_answered(target.voters(), asked));
        let matters = changes_voters && !insists;
        if matters && majority_is_silent() && !mutant::is_active(Mutant::SilentMajorityLeft) {
            return Err(ChangeError::MajoritySilent);
        }
        let next = if target.voters() == current.voters() { target.clone() } else { current.joint(target) };
        Ok(self.propose_configuration(&next))
    }

    /// Returns whether a node lags by so little that it may become a voter. It must hold the
    /// configuration that names its incarnation: a voter recognises itself by that entry.
    #[must_use]
    pub fn has_caught_up(&self, node: NodeId) -> bool {
        let Part::Leader(leadership) = &self.part else { return false };
        let last_index = self.last_entry().index.0;
        let named_at = self.membership.index().0;
        let knows_itself =
            |held: u64| held >= named_at || mutant::is_active(Mutant::PromotedBeforeItKnowsItself);
        // In a short log no node lacks much, so the node must have acknowledged at least one entry.
        let has_most = |held: u64| held > 0 && knows_itself(held) && held + PROMOTION_LAG_MAX >= last_index;
        let progress = leadership.followers.of(node);
        node == self.config.id
            || progress.is_some_and(|progress| has_most(progress.match_index().0))
            || mutant::is_active(Mutant::LaggardPromoted)
    }

    /// Asks all members whether they are reachable: begins a round of heartbeats, to be passed to
    /// [`Node::change_membership`]. `None` when this node does not lead.
    pub fn ask_members(&mut self, now: Instant) -> Option<ReadRound> {
        let Part::Leader(leadership) = &mut self.part else { return None };
        let round = leadership.reads.begin_round(now);
        self.send_heartbeats();
        Some(round)
    }

    /// Returns whether a node has answered this round or a later one, in the incarnation that is a
    /// member.
    fn has_answered(&self, node: NodeId, round: ReadRound) -> bool {
        let Part::Leader(leadership) = &self.part else { return false };
        let progress = leadership.followers.of(node);
        node == self.config.id || progress.is_some_and(|progress| progress.answered_round() >= round)
    }

    /// Returns whether a majority of these voters has answered this round or a later one.
    fn majority_has_answered(&self, voters: &Voters, round: ReadRound) -> bool {
        let answered = voters.nodes().iter().filter(|node| self.has_answered(**node, round)).count();
        answered >= voters.majority()
    }

    fn propose_configuration(&mut self, configuration: &Configuration) -> (LogIndex, Term) {
        let point = self.proposals.seal(self.current_term, |line| configuration.write_payload(line));
        (point.index, point.term)
    }

    /// Returns whether this node leads and the configuration in force requires another step. That
    /// is rare, and in all other turns the check ends here.
    fn awaits_configuration(&self) -> bool {
        matches!(&self.part, Part::Leader(leadership) if leadership.awaits_configuration)
    }

    /// Returns whether the second entry of a change is due: the first one is committed.
    pub(super) fn is_leave_due(&self) -> bool {
        self.awaits_configuration()
            && self.configuration().is_joint()
            && self.commits_own_term()
            && (self.membership.index() <= self.commit_index || mutant::is_active(Mutant::JointLeftEarly))
            && !self.proposals.has_configuration()
    }

    /// Appends the new configuration once the joint one is committed (§6).
    pub(super) fn leave_joint_configuration(&mut self) {
        if self.is_leave_due() {
            let next = self.configuration().without_outgoing();
            self.propose_configuration(&next);
        }
    }

    /// Steps down once this leader's own removal is committed (§6). Until then it leads without
    /// counting itself.
    pub(super) fn step_down_if_removed(&mut self, now: Instant) {
        let is_removed = self.awaits_configuration() && self.membership_is_settled() && !self.votes_itself();
        if is_removed && !mutant::is_active(Mutant::RemovedLeaderLeadsOn) {
            self.become_follower(self.current_term, None, StepDown::Removed, now);
        }
    }

    /// The voters of the configuration in force.
    #[must_use]
    pub fn voters(&self) -> &Voters {
        self.configuration().voters()
    }
}

/// Returns whether members are asked before a change; deliberate bug: none is.
fn are_asked_unless_mutant<T>(_asked: &T) -> bool {
    !mutant::is_active(Mutant::MembersNotAsked)
}
