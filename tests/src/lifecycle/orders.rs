//! Membership orders of the operator, and checks that their answers are true.

use coracle_core::raft::{ChangeError, Configuration, LogIndex};
use coracle_core::{Answer, MemberChange, MemberOrder, Request, RequestRefusal};

use super::checks::violation;
use super::clients::Asked;
use super::world::World;
use crate::simulator::invariants::Verdict;

/// A node that has not run for this time could not have answered its leader, in microseconds.
const LONG: u64 = 5_000_000;

/// An order that was given.
#[derive(Clone, Debug)]
pub(super) struct Order {
    change: MemberChange,
    number: u64,
    /// The time of the order, and below it the configuration for which it was given.
    given_at: u64,
    given_for: Option<LogIndex>,
    /// The configuration that the leader had in force at that time.
    before: Configuration,
}

impl World {
    /// The leader and the configuration that it has in force, if there is a leader.
    pub(super) fn members(&self) -> Option<(usize, Configuration, LogIndex)> {
        let leader = self.leader()?;
        let node = self.machines[leader].running()?.host.replica().node();
        Some((leader, node.configuration().clone(), node.configuration_index()))
    }

    /// Gives an order to the leader: for the present configuration, for the one that the operator
    /// saw last, or for any.
    pub(super) fn order(&mut self, change: MemberChange) -> Verdict {
        let Some((leader, before, index)) = self.members() else { return Ok(()) };
        if self.operator.pending.is_some() {
            return Ok(());
        }
        self.operator.last_order += 1;
        let number = self.operator.last_order;
        self.operator.pending = Some((number, self.now));
        let given_for = match self.dice.below(3) {
            0 => None,
            1 => self.operator.seen,
            _ => Some(index),
        };
        self.operator.seen = Some(index);
        self.tell(|| format!("the operator orders {change:?} for {given_for:?} at m{leader}"));
        let order = MemberOrder { change: change.clone(), given_for, insists: false };
        let given_at = self.now;
        let asked = Asked::Order(Order { change, number, given_at, given_for, before });
        self.ask(leader, Request::ChangeMembers(order), asked)
    }

    /// Checks that the answer to an order is true.
    pub(super) fn order_answered(&mut self, order: &Order, answer: &Answer) -> Verdict {
        if self.operator.pending.is_some_and(|(number, _)| number == order.number) {
            self.operator.pending = None;
        }
        self.tell(|| format!("the operator is told of {:?}: {answer:?}", order.change));
        let told = match answer {
            Answer::Refused(RequestRefusal::Change(error)) => {
                self.sight(sight(*error));
                return Ok(());
            }
            Answer::MembershipChanged(_, told) => told,
            _ => return Ok(()),
        };
        self.is_not_outdated(order)?;
        match &order.change {
            MemberChange::Remove(node) => {
                self.sight("a member was removed");
                let kept_off = self.operator.kept_off.and_then(|machine| self.machines[machine].holds);
                if kept_off.is_some_and(|(id, _)| id == *node) {
                    self.sight("a member was removed behind its back");
                }
                self.checks.first.told_removed(*node, told)
            }
            MemberChange::Promote(node) => {
                self.sight("a learner was promoted");
                // An earlier voter does not have to answer again.
                let is_new = !order.before.is_voter(*node);
                let since = if is_new { order.given_at } else { self.now.saturating_sub(LONG) };
                self.checks.first.told_promoted(*node, told, since)?;
                let incarnation = told.roster().member(*node).and_then(|member| member.incarnation);
                let place = self.machines.iter().find(|it| it.holds == incarnation.map(|its| (*node, its)));
                let running = place.and_then(|place| place.running());
                if running.is_some_and(|running| !running.host.replica().node().was_named()) {
                    return violation("orders", format!("{node} votes, and its log does not name it"));
                }
                Ok(())
            }
            MemberChange::AddLearnerAt(..) => {
                self.sight("a member was added or moved");
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Checks an executed order: the members are those for which it was given, or already were as
    /// it requires.
    fn is_not_outdated(&self, order: &Order) -> Verdict {
        let Some(then) = order.given_for.and_then(|index| self.checks.first.configuration_at(index)) else {
            return Ok(());
        };
        if holds(&order.before, &order.change) || places(then) == places(&order.before) {
            return Ok(());
        }
        let what =
            format!("{:?} was obeyed, given for {then}, with the members {}", order.change, order.before);
        violation("an_outdated_order_is_refused", what)
    }
}

/// The roles and addresses of the members that stay.
fn places(of: &Configuration) -> impl PartialEq {
    let stays = |node| of.voters().contains(node) || of.learners().contains(&node);
    let staying = of.roster().iter().filter(|(node, _)| stays(*node));
    let places: Vec<_> = staying.map(|(node, member)| (node, member.address.clone())).collect();
    (of.voters().clone(), of.learners().to_vec(), places)
}

fn holds(of: &Configuration, change: &MemberChange) -> bool {
    match change {
        MemberChange::AddLearnerAt(node, address) => {
            of.roster().member(*node).is_some_and(|member| member.address == *address)
        }
        MemberChange::Promote(node) => of.voters().contains(*node),
        MemberChange::Remove(node) => !of.contains(*node),
        _ => false,
    }
}

fn sight(error: ChangeError) -> &'static str {
    match error {
        ChangeError::Silent(_) => "refused: a node that does not answer",
        ChangeError::MajoritySilent => "refused: a majority would not answer",
        ChangeError::NotMember(_) => "refused: no member",
        ChangeError::LastVoter => "refused: the last voter",
        ChangeError::Outdated => "refused: the members have changed since",
        ChangeError::CatchingUp(_) => "refused: it has not caught up",
        ChangeError::AddressTaken(_) => "refused: another member has the address",
        _ => "refused: for another reason",
    }
}
