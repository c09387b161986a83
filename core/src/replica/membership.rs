//! Orders to change who takes part, and whoever waits for what comes of them.

use super::Replica;
use super::face::{Answer, MemberChange, Output, Refused, RequestId};
use crate::identity::Incarnation;
use crate::raft::{ChangeError, Configuration, LEARNERS_MAX, Member, NodeId, Role, Term, VOTERS_MAX, Voters};

/// The most nodes whose lives are remembered: more than a cluster has members, with room for some that come and go.
const MET_MAX: usize = 4 * (VOTERS_MAX + LEARNERS_MAX);

/// A change that somebody waits for.
#[derive(Debug)]
pub(super) struct Change {
    request: RequestId,
    /// The term of the leader that took the order.
    term: Term,
    order: MemberChange,
    /// What the members are to be, once that was proposed: a promotion may wait for its node to catch up.
    target: Option<Configuration>,
}

impl Replica {
    /// Takes an order; one that still waits for its node to catch up gives way. It is answered at once when it cannot be carried out, or when there is nothing to do.
    pub(super) fn start_change(
        &mut self,
        request: RequestId,
        order: MemberChange,
        outputs: &mut Vec<Output>,
    ) -> Option<Answer> {
        match self.change.take() {
            // Nothing has happened for it yet, and its node may never catch up.
            Some(waiting) if waiting.target.is_none() => {
                let node = match waiting.order {
                    MemberChange::Promote(node) => node,
                    _ => self.node.id(),
                };
                let refused = Refused::Change(ChangeError::CatchingUp(node));
                outputs.push(Output::Answer(waiting.request, Answer::Refused(refused)));
            }
            Some(under_way) => {
                self.change = Some(under_way);
                return Some(Answer::Refused(Refused::Change(ChangeError::InProgress)));
            }
            None => {}
        }
        let waits = matches!(order, MemberChange::Promote(_));
        let has_roster = !self.node.configuration().roster().is_empty();
        let mut change = Change { request, term: self.node.current_term(), order, target: None };
        let answer = match self.propose_change(&mut change) {
            Ok(()) => None,
            Err(ChangeError::Unchanged) => Some(self.changed()),
            Err(ChangeError::CatchingUp(_)) if waits => None,
            // Nobody asked for what is under way: the leader is binding a member, or is new.
            Err(ChangeError::InProgress | ChangeError::NotEstablished) if has_roster => None,
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

    fn propose_change(&mut self, change: &mut Change) -> Result<(), ChangeError> {
        let target = wanted(self.node.configuration(), &change.order).ok_or(ChangeError::Invalid)?;
        // Its votes must be those of one life.
        let is_known =
            |node: NodeId| target.roster().member(node).is_some_and(|member| member.incarnation.is_some());
        let has_roster = !target.roster().is_empty();
        let unbound = target.voters().nodes().iter().find(|node| has_roster && !is_known(**node));
        if let Some(node) = unbound {
            return Err(ChangeError::CatchingUp(*node));
        }
        self.node.change_membership(&target)?;
        change.target = Some(target);
        Ok(())
    }

    /// Answers who waits, once it is known what came of the change; goes on with a promotion whose node has caught up.
    pub(super) fn follow_change(&mut self, outputs: &mut Vec<Output>) {
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
            None => match self.propose_change(&mut change) {
                Ok(())
                | Err(ChangeError::CatchingUp(_) | ChangeError::InProgress | ChangeError::NotEstablished) => {
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

    fn changed(&self) -> Answer {
        Answer::MembershipChanged(self.node.configuration().clone())
    }
}

impl Replica {
    /// The leader writes down which life of a node came first under the id of a member that nobody had met: from then on
    /// no other is let in.
    pub(super) fn bind_met(&mut self) {
        if self.met.is_empty() {
            return;
        }
        let configuration = self.node.configuration();
        if configuration != &self.last_configuration {
            // Who comes back after a removal is somebody else.
            let was_removed = |node| self.last_configuration.contains(node) && !configuration.contains(node);
            let is_another = |node| {
                let known =
                    self.last_configuration.roster().member(node).and_then(|member| member.incarnation);
                known.is_some() && configuration.roster().is_unbound(node)
            };
            self.met.retain(|node, _| !was_removed(*node) && !is_another(*node));
            self.last_configuration = configuration.clone();
        }
        if self.node.role() != Role::Leader {
            return;
        }
        let unbound = configuration.roster().iter().filter(|(_, member)| member.incarnation.is_none());
        let met = unbound.filter_map(|(node, member)| {
            let incarnation = Some(*self.met.get(&node)?);
            Some((node, Member { incarnation, ..member.clone() }))
        });
        let met: Vec<_> = met.collect();
        if !met.is_empty() {
            let roster = met
                .into_iter()
                .fold(configuration.roster().clone(), |roster, (node, member)| roster.with(node, member));
            let target = configuration.clone().with_roster(&roster);
            // If that is not possible now it will be later.
            let _ = self.node.change_membership(&target);
        }
    }

    /// A leader that was removed hears nothing more of what it had proposed last.
    pub(super) fn give_up_when_removed(&mut self, outputs: &mut Vec<Output>) {
        let is_removed =
            || self.node.membership_is_settled() && !self.node.configuration().contains(self.node.id());
        if !self.waiting.is_empty() && self.node.role() != Role::Leader && is_removed() {
            let unknown = |request: super::Waiting| Output::Answer(request.request, Answer::OutcomeUnknown);
            outputs.extend(self.waiting.drain(..).map(unknown));
        }
    }

    /// The transport has met `peer`. Whoever takes an id that nobody had is remembered until the leader has written it
    /// down, whichever node leads by then.
    pub(super) fn meet(&mut self, peer: NodeId, incarnation: Incarnation) {
        if self.met.len() < MET_MAX || self.met.contains_key(&peer) {
            self.met.insert(peer, incarnation);
        }
    }
}

/// The members that the order asks for; `None` when there can be no such members.
fn wanted(current: &Configuration, order: &MemberChange) -> Option<Configuration> {
    let voters = current.voters().nodes();
    let learners = current.learners();
    let but =
        |nodes: &[NodeId], gone: NodeId| nodes.iter().copied().filter(move |node| *node != gone).collect();
    let and = |nodes: &[NodeId], new: NodeId| -> Vec<NodeId> {
        nodes.iter().copied().filter(|node| *node != new).chain([new]).collect()
    };
    let (voters, learners): (Vec<_>, Vec<_>) = match order {
        MemberChange::AddLearner(node) | MemberChange::AddLearnerAt(node, _) if current.is_voter(*node) => {
            return None;
        }
        MemberChange::AddLearner(node) => (voters.to_vec(), and(learners, *node)),
        MemberChange::Promote(node) if !current.contains(*node) => return None,
        MemberChange::Promote(node) => (and(voters, *node), but(learners, *node)),
        MemberChange::Remove(node) => (but(voters, *node), but(learners, *node)),
        MemberChange::AddLearnerAt(node, _) => (voters.to_vec(), and(learners, *node)),
        MemberChange::Set { voters, learners } => (voters.clone(), learners.clone()),
    };
    let mut roster = current.roster().clone();
    if let MemberChange::AddLearnerAt(node, address) = order {
        // Who is a member already stays in the life that it is in.
        let incarnation = roster.member(*node).and_then(|member| member.incarnation);
        roster = roster.with(*node, Member { address: address.clone(), incarnation });
    }
    Some(Configuration::new(Voters::new(voters)?, learners)?.with_roster(&roster))
}
