//! Mistakes of the operator: a founder is started as a joiner, a node is removed before it knows
//! that it was added, and a firewall rejects all connections to a restarted node.

use coracle_core::MemberChange;
use coracle_core::peer::Origin;
use coracle_core::raft::{Configuration, NodeId, Roster};

use super::machine::{Machine, Stage};
use super::world::{MACHINES, SimEvent, World};
use crate::simulator::invariants::Violation;

/// The time for which a machine cannot be dialed, in microseconds. It is longer than the others
/// take to notice a restart.
const CLOSED: u64 = 7_000_000;
/// The pause of a node that is added and removed in quick succession, in microseconds.
const HURRY: u64 = 3_000_000;

/// The mistakes that are not corrected yet.
#[derive(Debug, Default)]
pub(super) struct Mistakes {
    /// The founder that was started as a joiner, and the founders that it should have been given.
    mistaken: Option<(usize, Roster)>,
    /// The node that is added, removed and added again, and its machine.
    hurried: Option<Hurried>,
    /// The machine that cannot be dialed, and the end of that time.
    closed: Option<(usize, u64)>,
}

#[derive(Clone, Copy, Debug)]
struct Hurried {
    machine: usize,
    id: NodeId,
    is_bound: bool,
}

impl World {
    /// May start one of the founders as a joiner, with the address of another founder.
    pub(super) fn mistake_a_founder(&mut self, founders: usize, roster: &Roster) {
        if founders < 3 || !self.dice.happens(150) {
            return;
        }
        let machine = self.dice.position(founders);
        let address = self.machines[(machine + 1) % founders].address();
        if let Some(unit) = &mut self.machines[machine].unit {
            unit.origin = Origin::Join(address);
            self.operator.mistakes.mistaken = Some((machine, roster.clone()));
            self.sight("a founder was started as a joiner");
        }
    }

    /// Starts the founder that was started as a joiner again, as a founder.
    pub(super) fn correct_a_founder(&mut self) {
        let Some((machine, roster)) = self.operator.mistakes.mistaken.take() else { return };
        self.crash(machine, false);
        let place = &mut self.machines[machine];
        place.ended = None;
        if let Some(unit) = &mut place.unit {
            unit.origin = Origin::Found(roster);
        }
        self.schedule(1, SimEvent::Start(machine));
    }

    /// Takes the next step of a mistake in progress. Returns whether the operator acted.
    pub(super) fn go_on_with_mistakes(&mut self) -> Result<bool, Violation> {
        if self.operator.mistakes.mistaken.is_some() && self.dice.happens(200) {
            self.correct_a_founder();
            return Ok(true);
        }
        let is_idle = self.operator.pending.is_none();
        let Some(hurried) = self.operator.mistakes.hurried.filter(|_| is_idle) else { return Ok(false) };
        let place = &self.machines[hurried.machine];
        if place.process.as_ref().is_none_or(|process| process.id != hurried.id) {
            self.operator.mistakes.hurried = None;
            return Ok(false);
        }
        let Some((_, members, _)) = self.members().filter(|_| hurried.is_bound) else { return Ok(false) };
        let address = place.address();
        if members.contains(hurried.id) {
            self.order(MemberChange::Remove(hurried.id))?;
        } else {
            self.operator.mistakes.hurried = None;
            self.sight("a node was added, removed and added again in haste");
            self.order(MemberChange::AddLearnerAt(hurried.id, address))?;
        }
        Ok(true)
    }

    /// May plan to remove the node that is being added again at once.
    pub(super) fn hurry(&mut self, machine: usize, id: NodeId) {
        if self.operator.mistakes.hurried.is_none() && self.dice.happens(500) {
            self.operator.mistakes.hurried = Some(Hurried { machine, id, is_bound: false });
        }
    }

    /// May start a removed founder again while its id is given to a new machine. The founder has
    /// lost its files and dials the others as well, from its address.
    pub(super) fn start_an_old_founder(&mut self, id: NodeId) {
        let is_the_founder = |place: &Machine| {
            let unit = place.unit.as_ref().filter(|unit| unit.id == id);
            unit.is_some_and(|unit| matches!(unit.origin, Origin::Found(_)))
        };
        let Some(machine) = self.machines[..MACHINES].iter().position(is_the_founder) else { return };
        if !self.may_be_wiped(machine) || !self.dice.happens(500) {
            return;
        }
        self.sight("a removed founder lost its files and was started again");
        self.wipe(machine);
        self.machines[machine].ended = None;
        let later = self.dice.exponential(300_000);
        self.schedule(later, SimEvent::Start(machine));
    }

    /// Pauses the process of the node that is added in haste, once a leader's configuration names
    /// it, so that the node is removed before it learns of its addition.
    pub(super) fn pause_the_hurried(&mut self, changed: &Configuration) {
        let Some(hurried) = &mut self.operator.mistakes.hurried else { return };
        let incarnation = changed.roster().member(hurried.id).and_then(|member| member.incarnation);
        let Some(process) = self.machines[hurried.machine].process.as_mut() else { return };
        let is_new = matches!(&process.stage, Stage::Running(it) if !it.host.replica().node().was_named())
            || matches!(process.stage, Stage::Searching(_));
        if !hurried.is_bound && is_new && incarnation == Some(process.incarnation) {
            hurried.is_bound = true;
            process.busy_until = self.now + HURRY;
        }
    }

    /// Restarts a node that no machine can dial for a while. It can dial the others.
    pub(super) fn close_a_machine(&mut self) {
        let machine = self.dice.position(MACHINES);
        let place = &self.machines[machine];
        if self.closed_machine().is_some() || place.running().is_none() || place.is_in_memory() {
            return;
        }
        self.sight("a restarted node could not be dialled");
        self.operator.mistakes.closed = Some((machine, self.now + CLOSED));
        self.crash(machine, false);
        let later = 1 + self.dice.exponential(100_000);
        self.schedule(later, SimEvent::Start(machine));
    }

    /// The machine that cannot be dialed now.
    pub(super) fn closed_machine(&self) -> Option<usize> {
        let closed = self.operator.mistakes.closed.filter(|(_, until)| self.now < *until);
        closed.map(|(machine, _)| machine)
    }

    /// Corrects all mistakes once the faults have ended.
    pub(super) fn end_mistakes(&mut self) {
        self.correct_a_founder();
        self.operator.mistakes = Mistakes::default();
    }
}
