//! One run: the operator and the trouble for a while, then rest, in which the cluster has to serve
//! again.

use std::collections::BTreeMap;
use std::time::Duration;

use coracle_core::peer::Origin;

use super::checks::violation;
use super::machine::{Machine, REMOVED, Unit};
use super::memory::shares_of;
use super::world::{Happening, MACHINES, World};
use crate::simulator::dice::Dice;
use crate::simulator::invariants::{Verdict, Violation};
use crate::simulator::panics;

/// Within this much simulated time a cluster serves again, once a majority of its voters is there
/// and the network is whole.
const RECOVERY: u64 = 15_000_000;
/// Within this much simulated time a node that was removed hears of it.
const REMOVAL_KNOWN: u64 = 40_000_000;
/// How long a cluster to which nobody talks may be without a leader after its leader has gone.
const QUIET_RECOVERY: u64 = 5_000_000;

/// What a run came to.
#[derive(Debug)]
pub struct LifeReport {
    /// What did not hold, if anything.
    pub violation: Option<Violation>,
    /// Simulated time.
    pub simulated: Duration,
    /// How many things happened.
    pub events: u64,
    /// How many writes were acknowledged.
    pub acknowledged: u64,
    /// How many plain reads were answered.
    pub reads: u64,
    /// How often each thing worth counting was seen.
    pub sightings: BTreeMap<&'static str, u64>,
}

/// Runs a seed: `trouble` of simulated time with an operator and faults, then the recovery. `tells`
/// prints the story.
#[must_use]
pub fn run_seed(seed: u64, trouble: Duration, tells: bool) -> LifeReport {
    panics::under_way(seed);
    let mut world = World::new(Dice::from_seed(seed), shares_of(seed), tells);
    let verdict = panics::caught(|| live(&mut world, trouble));
    LifeReport {
        violation: verdict.err(),
        simulated: Duration::from_micros(world.now),
        events: world.events,
        acknowledged: world.clients.acknowledgements,
        reads: world.clients.reads,
        sightings: world.sightings().clone(),
    }
}

fn live(world: &mut World, trouble: Duration) -> Verdict {
    world.run_until(u64::try_from(trouble.as_micros()).unwrap_or(u64::MAX))?;
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

/// A node that was removed, whether or not it has ever known that it was a member, is started again
/// with whatever its folder holds by now. It knows that it is no member, or hears of it, if a
/// member answers at any address that it knows.
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
            world.schedule(1, Happening::Start(machine));
        }
    }
    let end = world.now + REMOVAL_KNOWN;
    // All of them are started now.
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

/// Whether the node of this machine knows an address, other than one of its own id, where a member
/// runs.
fn reaches_a_member(world: &World, machine: usize) -> bool {
    let Some((_, latest)) = world.checks.first.latest() else { return false };
    let Some(running) = world.machines[machine].running() else { return false };
    let node = running.host.replica().node();
    let links = world.machines[machine].process.as_ref().map(|process| &process.links);
    let known = || {
        let others = node.configuration().roster().iter().filter(|(other, _)| *other != node.id());
        // A member may have said itself that it is elsewhere since.
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

/// The operator rests, the network is whole, and every machine that holds a member's folder runs.
fn calm_down(world: &mut World) {
    world.tell(|| "the trouble is over".into());
    (world.has_trouble, world.operator.rests) = (false, true);
    world.cut.clear();
    world.operator.kept_off = None;
    world.end_mistakes();
    let latest = world.checks.first.latest().map(|(_, latest)| latest.clone());
    for machine in 0..world.machines.len() {
        world.mount(machine);
        if machine >= MACHINES {
            world.schedule(1, Happening::Start(machine));
            continue;
        }
        let place = &mut world.machines[machine];
        let Some((id, incarnation)) = place.holds else { continue };
        if let Some(latest) = latest.as_ref().filter(|latest| latest.names(id, Some(incarnation))) {
            // It has moved for good: nobody finds it any more where it was before.
            let known = latest.roster().member(id).map(|member| &member.address);
            let position = place.addresses.iter().position(|address| Some(address) == known);
            place.addresses.drain(..position.unwrap_or(0));
            place.unit = Some(Unit { is_in_memory: place.is_in_memory(), ..Unit::new(id, Origin::Known) });
            place.ended = None;
            world.schedule(1, Happening::Start(machine));
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

/// Without clients, any event that would make a node act stays away: its timers alone have to do.
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
    // It does nothing any more, and answers nobody.
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

/// Whether a majority of the voters runs and is awake, this machine's left aside: a pause may
/// outlast the trouble.
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

    const TROUBLE: Duration = Duration::from_secs(10);

    #[test]
    fn the_first_seeds_are_clean_and_something_happens_in_them() {
        let mut sightings = BTreeMap::new();
        for seed in 0..20 {
            let report = run_seed(seed, TROUBLE, false);
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
        let [one, other] = [(); 2].map(|()| run_seed(3, TROUBLE, false));
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
            let killed = (0..60).find(|seed| run_seed(*seed, TROUBLE, false).violation.is_some());
            Mutant::activate(None);
            assert!(killed.is_some(), "{} survives", mutant.name());
        }
    }
}
