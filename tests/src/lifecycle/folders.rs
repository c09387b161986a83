//! Accidents with data folders: a folder is copied while its node runs, a volume is not mounted
//! when its unit starts, two folders are exchanged. Also nodes without a folder, which lose
//! everything when they end.

use coracle_core::Incarnation;
use coracle_core::peer::Origin;
use coracle_storage::MemberError;
use coracle_storage::host::StartError;

use super::checks::violation;
use super::machine::{Machine, Unit};
use super::world::{MACHINES, SimEvent, World};
use crate::simulator::disk::SimDisk;
use crate::simulator::invariants::Verdict;

/// The typical time until the operator notices a missing volume, in microseconds.
const UNMOUNTED: u64 = 1_500_000;

impl World {
    /// Starts a unit before the volume of its folder is mounted, so that the folder is empty. The
    /// volume is mounted later.
    pub(super) fn unmount(&mut self) {
        let machine = self.dice.position(MACHINES);
        let place = &self.machines[machine];
        let is_usual = place.unmounted.is_none() && place.holds.is_some() && place.unit.is_some();
        let is_unsure = self.operator.pending.is_some();
        if !is_usual || is_unsure || place.is_in_memory() || !self.may_be_wiped(machine) {
            return;
        }
        self.tell(|| format!("m{machine} starts without its volume"));
        self.crash(machine, false);
        let place = &mut self.machines[machine];
        place.unmounted = Some((std::mem::take(&mut place.folder), place.holds.take()));
        (place.ended, place.has_lost_files) = (None, true);
        self.forget_the_founding();
        self.schedule(1, SimEvent::Start(machine));
        let later = 300_000 + self.dice.exponential(UNMOUNTED);
        self.schedule(later, SimEvent::Mount(machine));
    }

    /// Mounts the volume again, and restarts the unit.
    pub(super) fn mount(&mut self, machine: usize) {
        let Some((folder, holds)) = self.machines[machine].unmounted.take() else { return };
        // A node that was admitted meanwhile stays, because its id now belongs to another
        // incarnation.
        if self.machines[machine].holds.is_some() {
            return;
        }
        self.crash(machine, false);
        self.tell(|| format!("m{machine} has its volume again"));
        self.sight("a volume came back");
        let place = &mut self.machines[machine];
        (place.folder, place.holds, place.ended) = (folder, holds, None);
        // The operator may have considered the machine free in the meantime.
        if let Some((id, _)) = place.holds {
            place.unit.get_or_insert(Unit::new(id, Origin::Known));
        }
        self.schedule(1, SimEvent::Start(machine));
    }

    /// Exchanges the folders of two machines while they are down. Each unit must refuse to start
    /// and name the node that it finds. Then both are exchanged back.
    pub(super) fn exchange_folders(&mut self) -> Verdict {
        let pair = [(); 2].map(|()| self.dice.position(MACHINES));
        let is_usual =
            |place: &Machine| place.holds.is_some() && place.unit.is_some() && !place.is_in_memory();
        let ids = pair.map(|machine| self.machines[machine].holds.map(|(id, _)| id));
        if ids[0] == ids[1] || !pair.iter().all(|machine| is_usual(&self.machines[*machine])) {
            return Ok(());
        }
        self.sight("two folders were exchanged");
        pair.iter().for_each(|machine| self.crash(*machine, false));
        for (machine, other) in [(pair[0], pair[1]), (pair[1], pair[0])] {
            let Some(unit) = self.machines[machine].unit.clone() else { continue };
            let judged = self.judge(&unit, &self.machines[other].folder, (Incarnation(1), 1));
            if !matches!(judged, Err(StartError::Member(MemberError::OtherNode { .. }))) {
                let what = format!("node {} starts from the folder of machine {other}", unit.id);
                return violation("a_foreign_folder_is_refused", what);
            }
            self.schedule(1, SimEvent::Start(machine));
        }
        Ok(())
    }

    /// Copies the folder of a member to another machine, and starts it there while the member runs.
    /// Cases that no node can distinguish are left out: the other nodes reach the member, and
    /// nothing else happens until the copy has ended.
    pub(super) fn copy_a_folder(&mut self) {
        let Some((_, members, _)) = self.members() else { return };
        let (original, copy) = (self.dice.position(MACHINES), self.dice.position(MACHINES));
        let place = &self.machines[original];
        let Some((id, incarnation)) = place.holds.filter(|_| place.running().is_some()) else { return };
        let is_fit = !place.is_in_memory() && members.names(id, Some(incarnation)) && !members.is_joint();
        let is_alone = members.voters().nodes().len() < 2;
        let target = &self.machines[copy];
        let is_free = target.unit.is_none() && target.process.is_none() && target.unmounted.is_none();
        if self.copied.is_some() || self.operator.pending.is_some() || !is_fit || is_alone || !is_free {
            return;
        }
        let is_cut = self
            .cut
            .iter()
            .any(|(from, to)| [*from, *to].contains(&original) || [*from, *to].contains(&copy));
        let is_reached = |(number, other): (usize, &Machine)| {
            let is_other = number != original && other.running().is_some();
            !is_other
                || other
                    .process
                    .as_ref()
                    .is_some_and(|it| it.links.get(&id).is_some_and(|it| it.link.is_up()))
        };
        let was_there = target.addresses.iter().any(|address| self.checks.first.was_at(id, address));
        let knows_all =
            place.running().is_some_and(|it| *it.host.replica().node().configuration() == members);
        let all_reach_it = self.machines[..MACHINES].iter().enumerate().all(is_reached);
        let is_cut = is_cut || self.closed_machine().is_some();
        if is_cut || was_there || !knows_all || !all_reach_it || self.operator.kept_off.is_some() {
            return;
        }
        self.tell(|| format!("the folder of m{original} is copied to m{copy}, and started"));
        self.sight("a folder was copied");
        let (folder, supports) = (self.machines[original].folder.clone(), self.machines[original].supports);
        let target = &mut self.machines[copy];
        (target.folder, target.unit, target.ended) = (folder, Some(Unit::new(id, Origin::Known)), None);
        target.supports = supports;
        self.copied = Some(copy);
        self.schedule(1, SimEvent::Start(copy));
    }

    pub(super) fn is_copy(&self, machine: usize) -> bool {
        self.copied == Some(machine)
    }

    /// Removes the folder of the copy, which has ended.
    pub(super) fn remove_the_copy(&mut self) {
        let Some(copy) = self.copied.take() else { return };
        self.sight("a copy of a folder ended");
        let place = &mut self.machines[copy];
        (place.folder, place.unit, place.ended) = (SimDisk::default(), None, None);
    }

    /// Checks that a running copy, which every member rejects, ends.
    pub(super) fn copies_end(&mut self, bound: u64) -> Verdict {
        let end = self.now + bound;
        while let Some(copy) = self.copied
            && self.machines[copy].process.is_some()
        {
            if self.now >= end {
                return violation("copies_end", format!("machine {copy} runs on"));
            }
            self.run_until(self.now + 500_000)?;
        }
        Ok(())
    }

    /// Returns whether a process may end without violating the operator's precaution. The promises
    /// of a node in memory are lost with it.
    pub(super) fn may_stop(&self, machine: usize) -> bool {
        let is_safe = self.operator.pending.is_none() && self.may_be_wiped(machine);
        !self.machines[machine].is_in_memory() || is_safe
    }
}
