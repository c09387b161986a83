//! One run of the life-cycle simulation: a time with operator and faults, then calm, in which the
//! cluster has to serve again.

use std::collections::BTreeMap;
use std::time::Duration;

use coracle_core::kv::Level;
use coracle_core::peer::Origin;

use super::checks::violation;
use super::machine::{Machine, REMOVED, Unit};
use super::memory::shares_of;
use super::world::{MACHINES, SimEvent, World};
use crate::simulator::dice::Dice;
use crate::simulator::invariants::{Verdict, Violation};
use crate::simulator::panics;

/// The time in which a cluster serves again, once a majority of its voters runs and the network is
/// restored, in simulated microseconds.
const RECOVERY: u64 = 15_000_000;
/// The time in which a removed node learns of its removal, in simulated microseconds.
const REMOVAL_KNOWN: u64 = 40_000_000;
/// The longest time without a leader in a cluster without clients, after its leader has stopped, in
/// simulated microseconds.
const QUIET_RECOVERY: u64 = 5_000_000;

/// The result of a run.
#[derive(Debug)]
pub struct LifeReport {
    /// The violated property, if any.
    pub violation: Option<Violation>,
    /// The simulated time of the run.
    pub simulated: Duration,
    /// The number of events.
    pub events: u64,
    /// The number of acknowledged writes.
    pub acknowledged: u64,
    /// The number of answered reads that are not linearizable.
    pub reads: u64,
    /// How often each interesting situation occurred.
    pub sightings: BTreeMap<&'static str, u64>,
}

/// Runs a seed: `fault_time` of simulated time with an operator and faults, then the recovery.
/// `tells` prints the trace.
#[must_use]
pub fn run_seed(seed: u64, fault_time: Duration, tells: bool) -> LifeReport {
    panics::under_way(seed);
    let mut world = World::new(Dice::from_seed(seed), shares_of(seed), tells);
    let verdict = panics::caught(|| live(&mut world, fault_time));
    LifeReport {
        violation: verdict.err(),
        simulated: Duration::from_micros(world.now),
        events: world.events,
        acknowledged: world.clients.acknowledgements,
        reads: world.clients.reads,
        sightings: world.sightings().clone(),
    }
}

fn live(world: &mut World, fault_time: Duration) -> Verdict {
    world.run_until(u64::try_from(fault_time.as_micros()).unwrap_or(u64::MAX))?;
    calm_down(world);
    let before = world.clients.acknowledgements;
    serves_within(world, before, RECOVERY)?;
    world.members_are_connected(RECOVERY)?;
    world.members_forward()?;
    world.restored_cluster_serves()?;
    world.copies_end(RECOVERY)?;
    world.a_removed_member_is_told()?;
    removed_nodes_end(world)?;
    a_quiet_cluster_elects(world)
}

/// Checks that removed nodes end. Each is started again with the present content of its folder,
/// whether or not it ever knew that it was a member. It knows that it is no member, or learns it if
/// a member answers at any address that it knows.
fn removed_nodes_end(world: &mut World) -> Verdict {
    let removed = |world: &World, machine: usize| {
        let (id, incarnation) = world.machines[machine].holds?;
        world.checks.first.was_removed(id, incarnation).then_some(id)
    };
    for machine in 0..world.machines.len() {
        if let Some(id) = removed(world, machine) {
            let place = &mut world.machines[machine];
            place.unit = Some(Unit { is_in_memory: place.is_in_memory(), ..Unit::new(id, Origin::Known) });
            if place.ended.take().is_some_and(|why| why.starts_with(REMOVED)) {
                world.sight("a removed node was started again in the end");
            }
            world.schedule(1, SimEvent::Start(machine));
        }
    }
    let end = world.now + REMOVAL_KNOWN;
    // By then, all of them are started.
    world.run_until(world.now + 1_000)?;
    loop {
        let runs_on = |machine: &usize| {
            let process = world.machines[*machine].process.as_ref();
            let is_awake = process.is_some_and(|process| process.busy_until <= end);
            is_awake && removed(world, *machine).is_some() && reaches_a_member(world, *machine)
        };
        let Some(machine) = (0..world.machines.len()).find(runs_on) else { return Ok(()) };
        if world.now >= end {
            let holds = world.machines[machine].holds;
            return violation("removed_nodes_end", format!("machine {machine} with {holds:?} runs on"));
        }
        world.run_until(world.now + 500_000)?;
    }
}

/// Returns whether the node of this machine knows an address, except those of its id, at
/// which a member runs.
fn reaches_a_member(world: &World, machine: usize) -> bool {
    let Some((_, latest)) = world.checks.first.latest() else { return false };
    let Some(running) = world.machines[machine].running() else { return false };
    let node = running.host.replica().node();
    let links = world.machines[machine].process.as_ref().map(|process| &process.links);
    let known = || {
        let others = node.configuration().roster().iter().filter(|(other, _)| *other != node.id());
        // A member may have announced another address since.
        others.map(|(other, member)| {
            let dialled = links.and_then(|links| links.get(&other)).map(|seat| &seat.address);
            dialled.unwrap_or(&member.address)
        })
    };
    let is_member = |place: &&Machine| {
        let names = |(id, incarnation)| latest.names(id, Some(incarnation));
        place.running().is_some() && place.holds.is_some_and(names)
    };
    let mut members = world.machines.iter().filter(is_member);
    members.any(|place| known().any(|address| place.addresses.contains(address)))
}

/// Ends operator and faults: the network is restored, and every machine with a member's folder
/// runs.
fn calm_down(world: &mut World) {
    world.tell(|| "the time of faults is over".into());
    (world.has_faults, world.operator.rests) = (false, true);
    world.cut.clear();
    world.operator.kept_off = None;
    world.end_mistakes();
    let latest = world.checks.first.latest().map(|(_, latest)| latest.clone());
    for machine in 0..world.machines.len() {
        world.mount(machine);
        if world.machines[machine].supports < Level::MAX && !world.machines[machine].is_in_memory() {
            world.crash(machine, false);
            world.upgrade(machine);
            world.schedule(1, SimEvent::Start(machine));
        }
        if machine >= MACHINES {
            world.schedule(1, SimEvent::Start(machine));
            continue;
        }
        let place = &mut world.machines[machine];
        let Some((id, incarnation)) = place.holds else { continue };
        if let Some(latest) = latest.as_ref().filter(|latest| latest.names(id, Some(incarnation))) {
            // The move is complete: the machine no longer answers at its former addresses.
            let known = latest.roster().member(id).map(|member| &member.address);
            let position = place.addresses.iter().position(|address| Some(address) == known);
            place.addresses.drain(..position.unwrap_or(0));
            place.unit = Some(Unit { is_in_memory: place.is_in_memory(), ..Unit::new(id, Origin::Known) });
            place.ended = None;
            world.schedule(1, SimEvent::Start(machine));
        }
    }
}

fn serves_within(world: &mut World, before: u64, bound: u64) -> Verdict {
    let end = world.now + bound;
    while world.now < end {
        world.run_until(world.now + 100_000)?;
        if world.clients.acknowledgements > before + 10 {
            return Ok(());
        }
    }
    let latest = world.checks.first.latest().map(|(index, latest)| format!("entry {index}: {latest}"));
    violation("serves_again", format!("not within {} s; members by {latest:?}", bound / 1_000_000))
}

/// Checks that a cluster without clients elects a leader, although no request makes a node act and
/// only timers are left.
fn a_quiet_cluster_elects(world: &mut World) -> Verdict {
    world.clients.are_quiet = true;
    world.run_until(world.now + 3_000_000)?;
    let Some(leader) = world.leader() else {
        return violation("quiet", "no leader in a calm cluster".into());
    };
    if !majority_runs_without(world, leader) {
        return Ok(());
    }
    let process = world.machines[leader].process.as_mut();
    // The leader stops for the rest of the run.
    if let Some(process) = process {
        process.busy_until = u64::MAX / 2;
    }
    let end = world.now + QUIET_RECOVERY;
    while world.now < end {
        world.run_until(world.now + 100_000)?;
        if world.leader().is_some_and(|now| now != leader) {
            world.sight("a quiet cluster elected a leader");
            return Ok(());
        }
    }
    violation("quiet", "a cluster that nobody talks to elects no leader".into())
}

/// Returns whether a majority of the voters runs and is awake, without this machine. A pause may
/// outlast the faults.
fn majority_runs_without(world: &World, left_aside: usize) -> bool {
    let Some((_, latest)) = world.checks.first.latest() else { return false };
    let votes = |(machine, place): (usize, &Machine)| {
        let is_voter = |(id, incarnation)| latest.names_voter(id, Some(incarnation));
        let is_awake = place.process.as_ref().is_some_and(|process| process.busy_until <= world.now);
        machine != left_aside && is_awake && place.running().is_some() && place.holds.is_some_and(is_voter)
    };
    let running = world.machines.iter().enumerate().filter(|place| votes(*place)).count();
    !latest.is_joint() && running >= latest.voters().majority()
}

#[cfg(test)]
mod tests {
    use coracle_core::mutant::Mutant;

    use super::*;

    const FAULT_TIME: Duration = Duration::from_secs(10);

    #[test]
    fn the_first_seeds_are_clean_and_cover_membership_events() {
        let mut sightings = BTreeMap::new();
        for seed in 0..20 {
            let report = run_seed(seed, FAULT_TIME, false);
            assert!(report.violation.is_none(), "seed {seed}: {:?}", report.violation);
            for (what, times) in report.sightings {
                *sightings.entry(what).or_insert(0) += times;
            }
        }
        for what in [
            "a learner was promoted",
            "a member was removed",
            "a disk was lost",
            "a node read in its log that it was removed",
        ] {
            assert!(sightings.contains_key(what), "{what}: never in {sightings:?}");
        }
    }

    #[test]
    fn the_same_seed_is_the_same_run() {
        let [one, other] = [(); 2].map(|()| run_seed(3, FAULT_TIME, false));
        assert_eq!((one.events, one.acknowledged), (other.events, other.acknowledged));
        assert_eq!(one.sightings, other.sightings);
    }

    #[test]
    fn the_first_seeds_kill_mutants() {
        for mutant in [
            Mutant::IncarnationIgnoredBySelf,
            Mutant::JoinerReadsAtOnce,
            Mutant::MembersNotAsked,
            Mutant::RemovalByOldConfiguration,
            Mutant::OutboxShareIgnored,
            Mutant::UnfinishedFrameNotCounted,
        ] {
            Mutant::activate(Some(mutant));
            let killed = (0..60).find(|seed| run_seed(*seed, FAULT_TIME, false).violation.is_some());
            Mutant::activate(None);
            assert!(killed.is_some(), "{} survives", mutant.name());
        }
    }
}
