//! Checks of a calm cluster after the faults have ended: every two members are connected, and a
//! removed member learns of its removal from its leader, before it dials again.

use coracle_core::MemberChange;
use coracle_core::raft::NodeId;

use super::checks::violation;
use super::world::{MACHINES, World};
use crate::simulator::invariants::Verdict;

/// The time in which a calm cluster carries out an order, in simulated microseconds.
const OBEYED: u64 = 2_000_000;
/// The time in which a removed member reads its removal in its log, in simulated microseconds. It
/// is shorter than the time after which a member without a leader dials again.
const TOLD: u64 = 2_000_000;
/// A member that lacks more entries than this may need a snapshot.
const LAG: u64 = 10;

impl World {
    /// Checks that every member is connected to every other one, even if they have moved.
    pub(super) fn members_are_connected(&mut self, bound: u64) -> Verdict {
        let end = self.now + bound;
        while let Some((from, to)) = self.missing_connection() {
            if self.now >= end {
                let what = format!("machine {from} has no connection to the member on machine {to}");
                return violation("members_are_connected", what);
            }
            self.run_until(self.now + 500_000)?;
        }
        Ok(())
    }

    /// Returns two running members of which the first is not connected to the second.
    fn missing_connection(&self) -> Option<(usize, usize)> {
        let (_, latest) = self.checks.first.latest()?;
        let member = |machine: usize| {
            let place = &self.machines[machine];
            let is_awake = place.process.as_ref().is_some_and(|process| process.busy_until <= self.now);
            let runs = is_awake && place.running().is_some() && !self.is_copy(machine);
            place.holds.filter(|(id, incarnation)| runs && latest.names(*id, Some(*incarnation)))
        };
        let lacks = |from: usize, to: usize| {
            let (Some((own, _)), Some((node, _))) = (member(from), member(to)) else { return false };
            let process = self.machines[from].process.as_ref();
            let link = process.and_then(|process| process.links.get(&node));
            own != node && link.is_none_or(|seat| !seat.link.is_up())
        };
        let all = 0..MACHINES;
        all.clone().find_map(|from| all.clone().find(|to| lacks(from, *to)).map(|to| (from, to)))
    }

    /// Removes a member in some runs, and checks that it learns of its removal.
    pub(super) fn a_removed_member_is_told(&mut self) -> Verdict {
        let Some((leader, _, _)) = self.members().filter(|_| self.dice.happens(400)) else { return Ok(()) };
        let linked = |machine: usize| Some((machine, self.link_from(leader, machine)?));
        let members: Vec<_> = (0..MACHINES).filter_map(linked).collect();
        if members.is_empty() {
            return Ok(());
        }
        let (machine, (node, connection)) = members[self.dice.position(members.len())];
        self.operator.pending = None;
        self.order(MemberChange::Remove(node))?;
        let is_undisturbed = |world: &Self| {
            let link = world.machines[leader].process.as_ref().and_then(|process| process.links.get(&node));
            world.leader() == Some(leader) && link.is_some_and(|seat| seat.connection == Some(connection))
        };
        let knows = |world: &Self| {
            world.machines[machine].process.as_ref().is_none_or(|process| process.knows_its_removal)
        };
        let end = self.now + OBEYED;
        while self.checks.first.latest().is_some_and(|(_, latest)| latest.contains(node)) {
            if self.now >= end {
                return Ok(());
            }
            self.run_until(self.now + 10_000)?;
        }
        let end = self.now + TOLD;
        while is_undisturbed(self) && !knows(self) {
            if self.now >= end {
                return violation(
                    "a_removed_member_is_told",
                    format!("node {node} does not find its removal in its log"),
                );
            }
            self.run_until(self.now + 100_000)?;
        }
        self.sight("a member was removed in a calm cluster");
        Ok(())
    }

    /// Returns the member on this machine, and the connection over which the leader reaches it, if
    /// the member is awake and has most of the log.
    fn link_from(&self, leader: usize, machine: usize) -> Option<(NodeId, u64)> {
        let log_end = |of: usize| Some(self.machines[of].running()?.host.replica().node().log().last().index);
        let (node, incarnation) = self.machines[machine].holds?;
        let (_, members, _) = self.members()?;
        let process = self.machines[machine].process.as_ref()?;
        let is_fit = process.busy_until <= self.now
            && !process.knows_its_removal
            && members.names(node, Some(incarnation))
            && log_end(machine)?.0 + LAG >= log_end(leader)?.0;
        let seat = self.machines[leader].process.as_ref()?.links.get(&node)?;
        let connection = seat.connection.filter(|_| seat.link.is_up())?;
        (machine != leader && is_fit).then_some((node, connection))
    }
}
