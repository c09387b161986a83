//! Orders to change who takes part, and whoever waits for what comes of them.

use std::time::Duration;

use super::Replica;
use super::face::{Answer, MemberChange, MemberOrder, Output, Refused, RequestId};
use crate::identity::Incarnation;
use crate::mutant::{self, Mutant};
use crate::raft::{
    Addition, ChangeError, Configuration, LEARNERS_MAX, Member, NodeId, ReadRound, Role, Term, VOTERS_MAX,
    Voters,
};
use crate::time::Instant;

/// The most nodes whose incarnations are remembered: more than a cluster has members, with room for
/// some that come and go.
const MET_MAX: usize = 4 * (VOTERS_MAX + LEARNERS_MAX);

/// How long an order waits for nodes to answer and for a learner to catch up: shorter than any
/// usual request timeout, so that it is refused while its giver still listens, and never carried
/// out behind its back.
pub const ORDER_PATIENCE: Duration = Duration::from_secs(2);

/// How long an answer to the question whether a node is there is good for. Arbitrary: some round
/// trips.
const ANSWER_VALID: Duration = Duration::from_millis(200);

/// A change that is waited for.
#[derive(Debug)]
pub(super) struct Change {
    request: RequestId,
    /// The term of the leader that accepted the order.
    term: Term,
    order: MemberOrder,
    /// When it came.
    since: Instant,
    /// The round in which the members were asked whether they are there, and when.
    asked: Option<(ReadRound, Instant)>,
    /// What the members are to be, once that was proposed: a promotion may wait for its node to
    /// catch up.
    target: Option<Configuration>,
}

impl Replica {
    /// Accepts an order, in place of one that still waits for its node to catch up. It is answered
    /// at once when it cannot be carried out, or when there is nothing to do.
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
            let outdated = Answer::Refused(Refused::Change(ChangeError::Outdated));
            return Some(if is_done { self.changed() } else { outdated });
        }
        match self.change.take() {
            // Nothing has happened for it yet, and its node may never catch up.
            Some(waiting) if waiting.target.is_none() => {
                let refused =
                    Refused::Change(ChangeError::CatchingUp(waiting.order.change.node(self.node.id())));
                outputs.push(Output::Answer(waiting.request, Answer::Refused(refused)));
            }
            Some(under_way) => {
                self.change = Some(under_way);
                return Some(Answer::Refused(Refused::Change(ChangeError::InProgress)));
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
            Err(error) => Some(Answer::Refused(Refused::Change(error))),
        };
        if answer.is_none() {
            self.change = Some(change);
        }
        answer
    }

    /// Whether the members were changed since the order was given, be it there and back. That a
    /// member was met, or a change took its second entry, is no change in this sense.
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
        // Its votes must be those of one incarnation.
        let is_known =
            |node: NodeId| target.roster().member(node).is_some_and(|member| member.incarnation.is_some());
        let has_roster = !target.roster().is_empty();
        let unbound = target.voters().nodes().iter().find(|node| has_roster && !is_known(**node));
        if let Some(node) = unbound {
            return Err(ChangeError::Silent(*node));
        }
        // While the order waits, a node that has answered may die: so nobody is counted on for
        // long.
        let is_stale = change.asked.is_none_or(|(_, at)| now.since(at) > ANSWER_VALID);
        if is_stale && has_roster {
            change.asked = self.node.ask_members(now).map(|round| (round, now));
        }
        let asked = change.asked.map(|(round, _)| round);
        self.node.change_membership(&target, asked, change.order.insists)?;
        change.target = Some(target);
        Ok(())
    }

    /// Answers who waits, once it is known what came of the change; goes on with a promotion whose
    /// node has caught up.
    pub(super) fn follow_change(&mut self, now: Instant, outputs: &mut Vec<Output>) {
        let Some(mut change) = self.change.take() else { return };
        let leads_on = self.node.role() == Role::Leader && self.node.current_term() == change.term;
        let answer = match &change.target {
            Some(target) if self.node.membership_is_settled() && self.node.configuration() == target => {
                Some(self.changed())
            }
            // The next leader finishes it, or its log never had it.
            Some(_) if !leads_on => Some(Answer::OutcomeUnknown),
            None if !leads_on => Some(Answer::Refused(self.not_leader())),
            Some(_) => None,
            None => match self.propose_change(&mut change, now) {
                Ok(()) => None,
                Err(error) if now < change.since + ORDER_PATIENCE && self.may_pass(error, &change.order) => {
                    None
                }
                Err(ChangeError::Unchanged) => Some(self.changed()),
                Err(error) => Some(Answer::Refused(Refused::Change(error))),
            },
        };
        match answer {
            Some(answer) => outputs.push(Output::Answer(change.request, answer)),
            None => self.change = Some(change),
        }
    }

    /// Whether an order that fails for this reason may be possible in a moment.
    fn may_pass(&self, error: ChangeError, order: &MemberOrder) -> bool {
        match error {
            // Nobody ordered what is under way: the leader is binding a member that it has met, or
            // is new.
            ChangeError::InProgress | ChangeError::NotEstablished => {
                !self.node.configuration().roster().is_empty()
            }
            // They have been asked whether they are there.
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
    /// The leader writes down which incarnation of a node came first under the id of a member that
    /// was never met: from then on no other is let in.
    pub(super) fn bind_met(&mut self) {
        if self.met.is_empty() {
            return;
        }
        let configuration = self.node.configuration();
        // A member that has its incarnation needs no other.
        let is_bound = |node: NodeId| {
            configuration.roster().member(node).is_some_and(|member| member.incarnation.is_some())
        };
        self.met.retain(|node, _| !is_bound(*node));
        if self.node.role() != Role::Leader {
            return;
        }
        let unbound = configuration.roster().iter().filter(|(_, member)| member.incarnation.is_none());
        let met = unbound.filter_map(|(node, member)| {
            // One that was let in as an earlier addition may have been the member since then, and
            // was removed, whether or not it knows: the member that was added again is another
            // node.
            let is_meant = |(_, addition): &&(Incarnation, Addition)| {
                *addition == member.addition || mutant::is_active(Mutant::RemovedIncarnationBound)
            };
            let (incarnation, _) = *self.met.get(&node).filter(is_meant)?;
            Some((node, Member { incarnation: Some(incarnation), ..member.clone() }))
        });
        let met: Vec<_> = met.collect();
        if !met.is_empty() {
            let roster = met
                .into_iter()
                .fold(configuration.roster().clone(), |roster, (node, member)| roster.with(node, member));
            let target = configuration.clone().with_roster(&roster);
            // If that is not possible now it will be later.
            let _ = self.node.change_membership(&target, None, false);
        }
    }

    /// A leader that was removed hears nothing more of what it had proposed last.
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

    /// The transport has met `peer`, which was let in as this addition. A node that comes under an
    /// id that was never met is remembered until the leader has written it down, whichever node
    /// leads by then; of two, the one of the later addition.
    pub(super) fn meet(&mut self, peer: NodeId, incarnation: Incarnation, addition: Addition) {
        let is_late = self.met.get(&peer).is_some_and(|(_, known)| addition < *known);
        let has_room = self.met.len() < MET_MAX || self.met.contains_key(&peer);
        if has_room && !is_late {
            self.met.insert(peer, (incarnation, addition));
        }
    }
}

impl MemberChange {
    /// The node that it is about; `other` where it is about several.
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

/// Whether the members are as the change would make them.
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

/// The members that the change asks for.
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
                // A member stays the incarnation that it is.
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
