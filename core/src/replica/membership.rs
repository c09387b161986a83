//! Orders to change who takes part, and whoever waits for what comes of them.

use super::Replica;
use super::face::{Answer, MemberChange, Output, Refused, RequestId};
use crate::raft::{ChangeError, Configuration, NodeId, Role, Term, Voters};

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
        let mut change = Change { request, term: self.node.current_term(), order, target: None };
        let answer = match self.propose_change(&mut change) {
            Ok(()) => None,
            Err(ChangeError::Unchanged) => Some(self.changed()),
            Err(ChangeError::CatchingUp(_)) if waits => None,
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
                Ok(()) | Err(ChangeError::CatchingUp(_) | ChangeError::InProgress) => None,
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
        MemberChange::AddLearner(node) if current.is_voter(*node) => return None,
        MemberChange::AddLearner(node) => (voters.to_vec(), and(learners, *node)),
        MemberChange::Promote(node) if !current.contains(*node) => return None,
        MemberChange::Promote(node) => (and(voters, *node), but(learners, *node)),
        MemberChange::Remove(node) => (but(voters, *node), but(learners, *node)),
        MemberChange::Set { voters, learners } => (voters.clone(), learners.clone()),
    };
    Configuration::new(Voters::new(voters)?, learners)
}
