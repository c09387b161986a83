//! The operator of the cluster: bootstraps it, grows it, replaces broken nodes, moves machines, and
//! makes mistakes that the guide does not forbid.
//!
//! The operator is careful in one respect only: no folder is wiped if that would leave a majority
//! of any configuration in force without its promises. The program has to reject all other
//! mistakes.

use coracle_core::MemberChange;
use coracle_core::kv::Level;
use coracle_core::peer::Origin;
use coracle_core::raft::{Configuration, LogIndex, Member, NodeId, Roster, Voters};

use super::machine::{Machine, Unit};
use super::mistakes::Mistakes;
use super::world::{MACHINES, SimEvent, World};
use crate::simulator::disk::SimDisk;
use crate::simulator::invariants::Verdict;

/// The time for which the operator waits for the answer to an order, in microseconds.
const TIMEOUT: u64 = 6_000_000;
/// The typical time between two actions, in microseconds.
const EVERY: u64 = 200_000;
/// The operator's memory.
#[derive(Debug, Default)]
pub(super) struct Operator {
    pub(super) last_order: u64,
    /// The order whose answer is pending, and the time when it was given.
    pub(super) pending: Option<(u64, u64)>,
    last_id: u64,
    /// The index of the configuration that the operator saw last.
    pub(super) seen: Option<LogIndex>,
    /// The machine that is cut off until the faults end, and whose node is removed meanwhile.
    pub(super) kept_off: Option<usize>,
    pub(super) rests: bool,
    pub(super) mistakes: Mistakes,
}

impl World {
    /// Bootstraps the cluster on one, three or five machines.
    pub(super) fn found(&mut self) {
        let founders = self.dice.one_of(&[1, 3, 3, 5]);
        let member = |number: usize, machine: &Machine| {
            (NodeId(number as u64 + 1), Member::founder(machine.address(), None))
        };
        let roster = self.machines[..founders].iter().enumerate().map(|(number, it)| member(number, it));
        let roster = Roster::new(roster.collect::<Vec<_>>());
        for number in 0..founders {
            let origin = Origin::Found(roster.clone());
            self.machines[number].unit = Some(Unit::new(NodeId(number as u64 + 1), origin));
            let later = self.dice.exponential(200_000);
            self.schedule(later, SimEvent::Start(number));
        }
        if self.dice.happens(300) {
            for machine in 0..MACHINES {
                let is_old = self.dice.happens(600);
                self.machines[machine].supports = if is_old { Level::FIRST } else { Level::MAX };
            }
        }
        self.mistake_a_founder(founders, &roster);
        self.operator.last_id = founders as u64;
    }

    pub(super) fn operator_acts(&mut self) -> Verdict {
        let pause = 1 + self.dice.exponential(EVERY);
        self.schedule(pause, SimEvent::Operator);
        // While a copy of a folder runs, nothing else happens, so that it can be distinguished from
        // its original.
        if self.operator.rests || self.copied.is_some() {
            return Ok(());
        }
        if self.operator.pending.is_some_and(|(_, since)| self.now - since > TIMEOUT) {
            self.operator.pending = None;
        }
        if self.go_on_with_mistakes()? {
            return Ok(());
        }
        match self.dice.below(19) {
            0..=2 => self.grow(),
            3 | 4 | 10 => self.promote(),
            11 | 12 => self.remove(),
            5 => {
                self.lose_a_disk();
                Ok(())
            }
            6 => self.move_a_machine(),
            13 => self.remove_behind_its_back(),
            15 => {
                self.unmount();
                Ok(())
            }
            16 => {
                self.copy_a_folder();
                Ok(())
            }
            17 => self.exchange_folders(),
            18 => self.back_up_or_restore(),
            14 => self.add_where_a_member_is(),
            7 => {
                self.bring_a_removed_node_back();
                Ok(())
            }
            8 => {
                self.clean_up();
                Ok(())
            }
            _ => {
                self.restart();
                Ok(())
            }
        }
    }

    /// Makes a machine without a unit a new node, with a new id or one that was removed.
    fn grow(&mut self) -> Verdict {
        let Some((_, members, _)) = self.members() else { return Ok(()) };
        let is_free = |machine: &Machine| {
            machine.unit.is_none() && machine.process.is_none() && machine.unmounted.is_none()
        };
        let free: Vec<_> = (0..MACHINES).filter(|it| is_free(&self.machines[*it])).collect();
        if free.is_empty() || members.members().len() >= 6 || self.operator.pending.is_some() {
            return Ok(());
        }
        let machine = free[self.dice.position(free.len())];
        // A machine that joined as this node before, and lost its disk, would join again in place
        // of the new one. It would learn only then that the two have different addresses.
        let joins = |unit: &Unit, id| unit.id == id && matches!(unit.origin, Origin::Join(_));
        let is_free = |id: &NodeId| {
            !members.contains(*id)
                && !self.machines[..MACHINES]
                    .iter()
                    .any(|it| it.unit.as_ref().is_some_and(|it| joins(it, *id)))
        };
        let old: Vec<_> = (1..=self.operator.last_id).map(NodeId).filter(is_free).collect();
        let id = if old.is_empty() || self.dice.happens(500) {
            self.operator.last_id += 1;
            NodeId(self.operator.last_id)
        } else {
            self.sight("an id was used again");
            old[self.dice.position(old.len())]
        };
        let any = self.dice.position(MACHINES);
        let via = if self.dice.happens(900) { self.leader().unwrap_or(any) } else { any };
        let address = self.machines[via].address();
        self.machines[machine].unit =
            Some(Unit { is_in_memory: self.dice.happens(150), ..Unit::new(id, Origin::Join(address)) });
        self.machines[machine].ended = None;
        let later = self.dice.exponential(500_000);
        self.schedule(later, SimEvent::Start(machine));
        let address = self.machines[machine].address();
        self.hurry(machine, id);
        self.start_an_old_founder(id);
        self.order(MemberChange::AddLearnerAt(id, address))
    }

    fn promote(&mut self) -> Verdict {
        let Some((_, members, _)) = self.members() else { return Ok(()) };
        let learners = members.learners();
        if learners.is_empty() {
            return Ok(());
        }
        let learner = learners[self.dice.position(learners.len())];
        self.order(MemberChange::Promote(learner))
    }

    fn remove(&mut self) -> Verdict {
        let Some((_, members, _)) = self.members() else { return Ok(()) };
        let all = members.members();
        let member = all[self.dice.position(all.len())];
        self.order(MemberChange::Remove(member))
    }

    /// Cuts a member off until the faults end, and removes it. It does not learn of that, and keeps
    /// answering reads from its old state.
    fn remove_behind_its_back(&mut self) -> Verdict {
        let Some((leader, members, _)) = self.members() else { return Ok(()) };
        let machine = self.dice.position(MACHINES);
        let member = self.machines[machine].running().and(self.machines[machine].holds);
        let Some((id, _)) = member.filter(|(id, incarnation)| members.names(*id, Some(*incarnation))) else {
            return Ok(());
        };
        if machine == leader || self.operator.pending.is_some() || self.operator.kept_off.is_some() {
            return Ok(());
        }
        self.tell(|| format!("m{machine} is kept off"));
        self.operator.kept_off = Some(machine);
        self.order(MemberChange::Remove(id))
    }

    /// Orders, by mistake, that a node is added at the address of another one.
    fn add_where_a_member_is(&mut self) -> Verdict {
        let Some((_, members, _)) = self.members() else { return Ok(()) };
        let all = members.members();
        let member = members.roster().member(all[self.dice.position(all.len())]);
        let Some(address) = member.map(|member| member.address.clone()) else { return Ok(()) };
        self.order(MemberChange::AddLearnerAt(NodeId(self.operator.last_id + 1), address))
    }

    /// Gives a machine another address. It keeps answering at the old one, because a move may be
    /// rejected.
    fn move_a_machine(&mut self) -> Verdict {
        let Some((_, members, _)) = self.members() else { return Ok(()) };
        let machine = self.dice.position(MACHINES);
        let Some((id, incarnation)) = self.machines[machine].holds else { return Ok(()) };
        if !members.names(id, Some(incarnation)) {
            return Ok(());
        }
        let count = self.machines[machine].addresses.len() + 1;
        let address: Box<str> = format!("m{machine}:{count}").into();
        self.machines[machine].addresses.push(address.clone());
        self.sight("a machine moved");
        self.order(MemberChange::AddLearnerAt(id, address))
    }

    /// Loses a folder, and starts the unit again unchanged, with --peers or --join.
    fn lose_a_disk(&mut self) {
        let machine = self.dice.position(MACHINES);
        // While an order is in progress, the majority that it leads to is not known yet.
        let is_unsure = self.operator.pending.is_some();
        if self.machines[machine].unit.is_none() || is_unsure || !self.may_be_wiped(machine) {
            return;
        }
        self.tell(|| format!("m{machine} loses its disk"));
        self.sight("a disk was lost");
        self.wipe(machine);
        let later = self.dice.exponential(300_000);
        self.schedule(later, SimEvent::Start(machine));
    }

    /// Crashes a machine by a power failure that also loses its folder.
    pub(super) fn wipe(&mut self, machine: usize) {
        self.crash(machine, true);
        let place = &mut self.machines[machine];
        (place.folder, place.holds, place.has_lost_files) = (SimDisk::default(), None, true);
        self.forget_the_founding();
    }

    /// Returns whether a majority of every set of voters in force keeps its promises without this
    /// folder.
    pub(super) fn may_be_wiped(&self, machine: usize) -> bool {
        let Some((_, latest)) = self.checks.first.latest() else { return false };
        let holders = self.machines[..MACHINES].iter().filter(|place| place.holds.is_some());
        let mut configurations = vec![latest.clone()];
        configurations.extend(holders.filter_map(|place| place.members.clone()));
        let held: Vec<_> =
            self.machines.iter().enumerate().filter(|(number, _)| *number != machine).collect();
        let is_held = |configuration: &Configuration, voter: NodeId| {
            held.iter().any(|(_, place)| {
                place.holds.is_some_and(|(id, incarnation)| {
                    id == voter && configuration.names(id, Some(incarnation))
                })
            })
        };
        configurations.iter().all(|configuration| {
            let keeps = |voters: &Voters| {
                let held = voters.nodes().iter().filter(|voter| is_held(configuration, **voter)).count();
                held > voters.nodes().len() / 2
            };
            keeps(configuration.voters()) && configuration.outgoing().is_none_or(keeps)
        })
    }

    /// Starts the founders without --peers, once no founder's machine has its files any more. The
    /// guide says that --peers is for the first start: founders that lost their files would
    /// bootstrap another cluster, including a founder that was started before and still waits for
    /// the others.
    pub(super) fn forget_the_founding(&mut self) {
        let is_founder =
            |place: &Machine| place.unit.as_ref().is_some_and(|unit| matches!(unit.origin, Origin::Found(_)));
        if self.machines.iter().any(|place| is_founder(place) && place.holds.is_some()) {
            return;
        }
        for machine in 0..self.machines.len() {
            if is_founder(&self.machines[machine]) {
                self.crash(machine, false);
                if let Some(unit) = &mut self.machines[machine].unit {
                    unit.origin = Origin::Known;
                }
                self.schedule(1, SimEvent::Start(machine));
            }
        }
    }

    /// Starts a node again that ended because it was removed, or believed so. Nothing else is
    /// changed.
    fn bring_a_removed_node_back(&mut self) {
        let machine = self.dice.position(MACHINES);
        let place = &mut self.machines[machine];
        if place.unit.is_some() && place.process.is_none() && place.ended.take().is_some() {
            self.sight("a node that had ended was started again");
            self.schedule(1, SimEvent::Start(machine));
        }
    }

    /// Removes the folder of a node that is no member, so that its machine is free for another.
    fn clean_up(&mut self) {
        let machine = self.dice.position(MACHINES);
        let place = &self.machines[machine];
        if place.ended.is_none()
            || place.process.is_some()
            || place.unmounted.is_some()
            || !self.may_be_wiped(machine)
        {
            return;
        }
        let place = &mut self.machines[machine];
        (place.folder, place.holds, place.unit, place.ended) = (SimDisk::default(), None, None, None);
        self.sight("a machine was cleaned up");
        self.forget_the_founding();
    }

    fn restart(&mut self) {
        let machine = self.dice.position(MACHINES);
        if self.machines[machine].process.is_some() && self.may_stop(machine) {
            self.crash(machine, false);
            self.upgrade(machine);
            let later = 1 + self.dice.exponential(100_000);
            self.schedule(later, SimEvent::Start(machine));
        }
    }

    /// Installs the current version on a machine whose process is about to start.
    pub(super) fn upgrade(&mut self, machine: usize) {
        let before = std::mem::replace(&mut self.machines[machine].supports, Level::MAX);
        if before < Level::MAX {
            self.sight("a machine was upgraded");
        }
    }

    /// Injects a fault: machines crash, hang, or lose their links.
    pub(super) fn inject_fault(&mut self) {
        let pause = 1 + self.dice.exponential(500_000);
        self.schedule(pause, SimEvent::Fault);
        if !self.has_faults || self.copied.is_some() {
            return;
        }
        let count = if self.restores.is_founded { self.machines.len() } else { MACHINES };
        let machine = self.dice.position(count);
        match self.dice.below(9) {
            0 | 1 => self.cut.clear(),
            8 => self.close_a_machine(),
            2 => {
                let others = (0..count).filter(|other| *other != machine);
                let pairs: Vec<_> = others.flat_map(|other| [(machine, other), (other, machine)]).collect();
                self.cut.extend(pairs);
                self.sight("a machine was cut off");
            }
            3 => {
                let other = self.dice.position(count);
                self.cut.insert((machine, other));
                self.sight("a link was cut in one direction");
            }
            4 => {
                let busy = 10_000 + self.dice.exponential(1_500_000);
                let now = self.now;
                if let Some(process) = self.machines[machine].process.as_mut() {
                    process.busy_until = now + busy;
                }
                self.sight("a process was paused");
            }
            kind => {
                if self.machines[machine].process.is_some() && self.may_stop(machine) {
                    self.crash(machine, kind != 5);
                    self.sight(if kind == 5 { "a process was killed" } else { "the power failed" });
                    let down = 1 + self.dice.exponential(700_000);
                    self.schedule(down, SimEvent::Start(machine));
                }
            }
        }
    }
}
