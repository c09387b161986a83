//! Membership changes on the replica: accepts orders to add, promote or remove members, and answers
//! them when the change is complete.
//!
//! `raft` executes a change by joint consensus (§6). The naive service around it appends the new
//! configuration at once and acknowledges it. That fails in four ways:
//!
//! - The order may be stale: a delayed or repeated "remove 4" would undo a later "add 4". So an
//!   order may name the configuration that it was given for, and is rejected if the members changed
//!   since.
//! - The new voters may be unable to commit: a promoted learner lags, or the remaining voters are
//!   down. So a promotion waits until the learner has caught up, and a round of heartbeats checks
//!   first which members answer. `insists` skips the check for the majority.
//! - An id does not identify a node: a node with empty files could vote again under its old id. So
//!   the leader binds each member to the first incarnation that completes a handshake.
//! - The leader may change. The next leader finishes the change or never had it, so the answer is
//!   [`Answer::OutcomeUnknown`].

use std::time::Duration;

use super::Replica;
use super::interface::{Answer, MemberChange, MemberOrder, Output, RequestId, RequestRefusal};
use crate::identity::Incarnation;
use crate::mutant::{self, Mutant};
use crate::raft::{
    Addition, ChangeError, Configuration, LEARNERS_MAX, Member, NodeId, ReadRound, Role, Term, VOTERS_MAX,
    Voters,
};
use crate::time::Instant;

/// The most nodes whose incarnations are remembered: more than a cluster has members, with room for
/// some that come and go.
pub(super) const HANDSHAKES_MAX: usize = 4 * (VOTERS_MAX + LEARNERS_MAX);

/// How long an order waits for nodes to answer and for a learner to catch up. Shorter than any
/// usual request timeout, so that it is rejected while the client still waits, and never executed
/// after the client gave up.
pub const ORDER_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a member's answer counts as a sign of life. Arbitrary: some round trips.
const ANSWER_VALID: Duration = Duration::from_millis(200);

/// A membership change in progress.
#[derive(Debug)]
pub(super) struct Change {
    request: RequestId,
    /// The term of the leader that accepted the order.
    term: Term,
    order: MemberOrder,
    /// The time when the order was accepted.
    since: Instant,
    /// The last round of heartbeats that checked which members answer, and its time.
    asked: Option<(ReadRound, Instant)>,
    /// The proposed configuration; `None` until it is proposed, because a promotion may wait for
    /// its node to catch up.
    target: Option<Configuration>,
}

impl Replica {
    /// Accepts an order, and replaces one that still waits for its node to catch up. Returns an
    /// answer at once if the order is rejected or nothing has to change.
    pub(super) fn start_change(
        &mut self,
        request: RequestId,
        order: MemberOrder,
        now: Instant,
        outputs: &mut Vec<Output>,
    ) -> Option<Answer> {
        if self.node.role() != Role::Leader {
            return Some(Answer::Refused(self.not_leader()));
        }
        if self.is_outdated(&order) && !mutant::is_active(Mutant::OutdatedOrderObeyed) {
            let is_done = holds(self.node.configuration(), &order.change);
            let outdated = Answer::Refused(RequestRefusal::Change(ChangeError::Outdated));
            return Some(if is_done { self.changed() } else { outdated });
        }
        match self.change.take() {
            // The earlier order was not proposed yet, and its node may never catch up.
            Some(waiting) if waiting.target.is_none() => {
                let refused = RequestRefusal::Change(ChangeError::CatchingUp(
                    waiting.order.change.node(self.node.id()),
                ));
                outputs.push(Output::Answer(waiting.request, Answer::Refused(refused)));
            }
            Some(under_way) => {
                self.change = Some(under_way);
                return Some(Answer::Refused(RequestRefusal::Change(ChangeError::InProgress)));
            }
            None => {}
        }
        let term = self.node.current_term();
        let mut change = Change { request, term, order, since: now, asked: None, target: None };
        let answer = match self.propose_change(&mut change, now) {
            Ok(()) => None,
            Err(ChangeError::Unchanged) => Some(self.changed()),
            Err(error) if self.may_pass(error, &change.order) => None,
            Err(ChangeError::NotLeader(_) | ChangeError::TransferPending) => {
                Some(Answer::Refused(self.not_leader()))
            }
            Err(error) => Some(Answer::Refused(RequestRefusal::Change(error))),
        };
        if answer.is_none() {
            self.change = Some(change);
        }
        answer
    }

    /// Returns whether the members have changed since the order was given, even if they changed
    /// back. The binding of an incarnation and the second entry of a joint change do not count.
    fn is_outdated(&self, order: &MemberOrder) -> bool {
        let Some(given_for) = order.given_for else { return false };
        let Some(mut since) = self.node.configurations_since(given_for) else { return true };
        let Some(then) = since.next().map(Configuration::without_outgoing) else { return true };
        let addresses = |of: &Configuration| -> Vec<_> {
            of.roster().iter().map(|(node, member)| (node, member.address.clone())).collect()
        };
        let is_other = |later: &Configuration| {
            let later = later.without_outgoing();
            then.voters() != later.voters()
                || then.learners() != later.learners()
                || addresses(&then) != addresses(&later)
        };
        since.any(is_other)
    }

    fn propose_change(&mut self, change: &mut Change, now: Instant) -> Result<(), ChangeError> {
        let target = wanted(self.node.configuration(), &change.order.change)?;
        // A voter must be bound to one incarnation before it votes.
        let is_known =
            |node: NodeId| target.roster().member(node).is_some_and(|member| member.incarnation.is_some());
        let has_roster = !target.roster().is_empty();
        let unbound = target.voters().nodes().iter().find(|node| has_roster && !is_known(**node));
        if let Some(node) = unbound {
            return Err(ChangeError::Silent(*node));
        }
        // A node that has answered may fail while the order waits, so an answer is valid only for a
        // short time.
        let is_stale = change.asked.is_none_or(|(_, at)| now.since(at) > ANSWER_VALID);
        if is_stale && has_roster {
            change.asked = self.node.ask_members(now).map(|round| (round, now));
        }
        let asked = change.asked.map(|(round, _)| round);
        self.node.change_membership(&target, asked, change.order.insists)?;
        change.target = Some(target);
        Ok(())
    }

    /// Answers the pending order once its result is known, and continues a promotion whose node has
    /// caught up.
    pub(super) fn follow_change(&mut self, now: Instant, outputs: &mut Vec<Output>) {
        let Some(mut change) = self.change.take() else { return };
        let leads_on = self.node.role() == Role::Leader && self.node.current_term() == change.term;
        let answer = match &change.target {
            Some(target) if self.node.membership_is_settled() && self.node.configuration() == target => {
                Some(self.changed())
            }
            // The next leader finishes the change, or its log never had it.
            Some(_) if !leads_on => Some(Answer::OutcomeUnknown),
            None if !leads_on => Some(Answer::Refused(self.not_leader())),
            Some(_) => None,
            None => match self.propose_change(&mut change, now) {
                Ok(()) => None,
                Err(error) if now < change.since + ORDER_TIMEOUT && self.may_pass(error, &change.order) => {
                    None
                }
                Err(ChangeError::Unchanged) => Some(self.changed()),
                Err(error) => Some(Answer::Refused(RequestRefusal::Change(error))),
            },
        };
        match answer {
            Some(answer) => outputs.push(Output::Answer(change.request, answer)),
            None => self.change = Some(change),
        }
    }

    /// Returns whether an order that fails for this reason may succeed in a moment.
    fn may_pass(&self, error: ChangeError, order: &MemberOrder) -> bool {
        match error {
            // The change in progress was not ordered by a client: the leader is binding an
            // incarnation, or it is new.
            ChangeError::InProgress | ChangeError::NotEstablished => {
                !self.node.configuration().roster().is_empty()
            }
            // The members have been asked, and may still answer.
            ChangeError::MajoritySilent | ChangeError::Silent(_) => true,
            ChangeError::CatchingUp(_) => matches!(order.change, MemberChange::Promote(_)),
            _ => false,
        }
    }

    fn changed(&self) -> Answer {
        Answer::MembershipChanged(self.node.configuration_index(), self.node.configuration().clone())
    }
}

impl Replica {
    /// Binds each unbound member to the first incarnation that completed a handshake under its id,
    /// by a configuration entry of the leader. From then on, no other incarnation is admitted.
    pub(super) fn bind_met(&mut self) {
        if self.handshakes.is_empty() {
            return;
        }
        let configuration = self.node.configuration();
        // A member that is bound needs no other incarnation.
        let is_bound = |node: NodeId| {
            configuration.roster().member(node).is_some_and(|member| member.incarnation.is_some())
        };
        self.handshakes.retain(|node, _| !is_bound(*node));
        if self.node.role() != Role::Leader {
            return;
        }
        let unbound = configuration.roster().iter().filter(|(_, member)| member.incarnation.is_none());
        let met = unbound.filter_map(|(node, member)| {
            // A node admitted under an earlier addition may have been the member then and was
            // removed, whether or not it knows that. The member that was added again is another
            // node.
            let is_meant = |(_, addition): &&(Incarnation, Addition)| {
                *addition == member.addition || mutant::is_active(Mutant::RemovedIncarnationBound)
            };
            let (incarnation, _) = *self.handshakes.get(&node).filter(is_meant)?;
            self.may_bind(node, incarnation).then_some(())?;
            Some((node, Member { incarnation: Some(incarnation), ..member.clone() }))
        });
        let met: Vec<_> = met.collect();
        if !met.is_empty() {
            let roster = met
                .into_iter()
                .fold(configuration.roster().clone(), |roster, (node, member)| roster.with(node, member));
            let target = configuration.clone().with_roster(&roster);
            // If this fails now, a later step tries again.
            let _ = self.node.change_membership(&target, None, false);
        }
    }

    /// Answers the pending writes of a leader that was removed: it will not learn their outcomes.
    pub(super) fn give_up_when_removed(&mut self, outputs: &mut Vec<Output>) {
        let is_removed = || {
            let has_left = !self.node.configuration().contains(self.node.id());
            self.node.membership_is_settled() && (has_left || self.node.removed_at().is_some())
        };
        if !self.waiting.is_empty() && self.node.role() != Role::Leader && is_removed() {
            let unknown = |request: super::Waiting| Output::Answer(request.request, Answer::OutcomeUnknown);
            outputs.extend(self.waiting.drain(..).map(unknown));
        }
    }

    /// Notes that the transport completed a handshake with `peer`, which was admitted under
    /// `addition`. An incarnation of an unbound member is remembered until the leader has bound it,
    /// whichever node leads by then. Of two, the one with the later addition is kept.
    pub(super) fn note_handshake(&mut self, peer: NodeId, incarnation: Incarnation, addition: Addition) {
        let is_late = self.handshakes.get(&peer).is_some_and(|(_, known)| addition < *known);
        let has_room = self.handshakes.len() < HANDSHAKES_MAX || self.handshakes.contains_key(&peer);
        if has_room && !is_late {
            self.handshakes.insert(peer, (incarnation, addition));
        }
    }
}

impl MemberChange {
    /// The node that the change is about; `other` if it is about several.
    fn node(&self, other: NodeId) -> NodeId {
        match self {
            Self::AddLearner(node)
            | Self::AddLearnerAt(node, _)
            | Self::Promote(node)
            | Self::Remove(node) => *node,
            Self::Set { .. } => other,
        }
    }
}

/// Returns whether the members already are as the change would make them.
fn holds(current: &Configuration, change: &MemberChange) -> bool {
    !current.is_joint()
        && match change {
            MemberChange::AddLearner(node) => current.contains(*node),
            MemberChange::AddLearnerAt(node, address) => {
                current.roster().member(*node).is_some_and(|member| member.address == *address)
            }
            MemberChange::Promote(node) => current.voters().contains(*node),
            MemberChange::Remove(node) => !current.contains(*node),
            MemberChange::Set { .. } => wanted(current, change).as_ref() == Ok(current),
        }
}

/// Computes the configuration that the change asks for.
fn wanted(current: &Configuration, change: &MemberChange) -> Result<Configuration, ChangeError> {
    let voters = current.voters().nodes();
    let learners = current.learners();
    let but =
        |nodes: &[NodeId], gone: NodeId| nodes.iter().copied().filter(move |node| *node != gone).collect();
    let and = |nodes: &[NodeId], new: NodeId| -> Vec<NodeId> {
        nodes.iter().copied().filter(|node| *node != new).chain([new]).collect()
    };
    let (mut roster, mut last_addition) = (current.roster().clone(), current.last_addition());
    let (voters, learners): (Vec<_>, Vec<_>) = match change {
        MemberChange::AddLearner(node) if current.is_voter(*node) => return Err(ChangeError::Invalid),
        MemberChange::AddLearner(node) => (voters.to_vec(), and(learners, *node)),
        MemberChange::Promote(node) | MemberChange::Remove(node) if !current.contains(*node) => {
            return Err(ChangeError::NotMember(*node));
        }
        MemberChange::Promote(node) => (and(voters, *node), but(learners, *node)),
        MemberChange::Remove(node) if voters == [*node] => return Err(ChangeError::LastVoter),
        MemberChange::Remove(node) => (but(voters, *node), but(learners, *node)),
        MemberChange::AddLearnerAt(node, address) => {
            let is_taken = |(other, member): &(NodeId, &Member)| other != node && member.address == *address;
            if let Some((taken, _)) = roster.iter().find(is_taken)
                && !mutant::is_active(Mutant::SharedAddressAccepted)
            {
                return Err(ChangeError::AddressTaken(taken));
            }
            let (incarnation, addition) = match roster.member(*node) {
                // A member keeps its incarnation.
                Some(member) => (member.incarnation, member.addition),
                None if current.contains(*node) => (None, Addition::default()),
                None => {
                    last_addition = last_addition.next();
                    (None, last_addition)
                }
            };
            roster = roster.with(*node, Member { address: address.clone(), incarnation, addition });
            let learners = if current.contains(*node) { learners.to_vec() } else { and(learners, *node) };
            (voters.to_vec(), learners)
        }
        MemberChange::Set { voters, learners } => (voters.clone(), learners.clone()),
    };
    let target = Voters::new(voters).and_then(|voters| Configuration::new(voters, learners));
    let target = target.ok_or(ChangeError::Invalid)?;
    Ok(target.with_roster(&roster).with_last_addition(last_addition))
}
