//! One run of the simulation: first faults, then recovery. The safety properties are checked at
//! every moment, and in the recovery also the liveness properties, within a bound of simulated
//! time.

use std::collections::BTreeMap;
use std::time::Duration;

use super::dice::Dice;
use super::invariants::{Verdict, Violation};
use super::panics;
use super::samples;
use super::settings::{Ending, SimSettings};
use super::trace::Trace;
use super::world::World;

/// The result of a run.
#[derive(Debug)]
pub struct RunReport {
    /// The violated property, if any.
    pub violation: Option<Violation>,
    /// The simulated time of the run.
    pub simulated: Duration,
    /// The number of events.
    pub events: u64,
    /// The number of requests with an outcome, which was checked.
    pub operations: u64,
    /// The number of requests without an outcome.
    pub failed: u64,
    /// How often each interesting situation occurred.
    pub sightings: BTreeMap<&'static str, u64>,
    /// A hash of the trace, equal for equal runs.
    pub hash: u64,
    /// The last lines of the trace, if it was kept.
    pub last_lines: Vec<String>,
    /// All random choices of the run.
    pub tape: Vec<u32>,
}

/// How much of the trace is kept or printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Telling {
    /// Nothing.
    Silent,
    /// The last lines are kept.
    LastLines,
    /// Every line is printed.
    Everything,
}

/// Runs a seed: `fault_time` of simulated time with faults, then the time that recovery may take.
#[must_use]
pub fn run_seed(seed: u64, fault_time: Duration, telling: Telling) -> RunReport {
    panics::under_way(seed);
    run(Dice::from_seed(seed), fault_time, telling)
}

/// Runs the choices of a tape.
#[must_use]
pub fn run_tape(tape: Vec<u32>, fault_time: Duration, telling: Telling) -> RunReport {
    run(Dice::from_tape(tape), fault_time, telling)
}

fn run(mut dice: Dice, fault_time: Duration, telling: Telling) -> RunReport {
    let settings = SimSettings::draw(&mut dice, fault_time);
    let mut trace = match telling {
        Telling::Silent => Trace::default(),
        Telling::LastLines => Trace::telling(false),
        Telling::Everything => Trace::telling(true),
    };
    trace.note(0, [0; 3], || format!("{settings:?}"));
    let mut world = World::new(settings, dice, trace);
    let verdict = panics::caught(|| live_through(&mut world));
    RunReport {
        violation: verdict.err(),
        simulated: Duration::from_micros(world.now),
        events: world.trace.events,
        operations: world.clients.answered,
        failed: world.clients.failed,
        sightings: world.trace.sightings().clone(),
        hash: world.trace.hash(),
        last_lines: world.trace.last_lines(),
        tape: world.dice.tape().to_vec(),
    }
}

fn live_through(world: &mut World) -> Verdict {
    let fault_time = micros(world.settings.fault_time);
    let bound = micros(world.settings.recovery_bound());
    world.run_until(fault_time * 3 / 4)?;
    world.clients.only_read = world.settings.writes_end_early;
    world.run_until(fault_time)?;
    world.end_faults();
    // L1, L2, L4: within the first half of the bound there is a leader again that serves requests.
    world.run_until(fault_time + bound / 2)?;
    have_all_vote(world)?;
    let start = world.now;
    let leader = world.leader();
    let leader = leader.ok_or_else(|| violation("there is no leader".into()))?;
    world.cut_off_a_follower(leader);
    let answered = world.clients.answered;
    let committed = world.invariants.committed.len();
    world.run_until(start + micros(world.settings.some_writes_take()))?;
    check(world.clients.answered > answered, || "clients get no answers".into())?;
    let commits = world.clients.only_read || world.invariants.committed.len() > committed;
    check(commits, || "nothing is committed".into())?;
    check_catch_up(world, committed)?;
    world.let_back_in();
    // Once the clients are at rest, every request has its reply, and all nodes that the leader
    // reaches converge.
    world.clients_ask = false;
    world.calm_watchers(leader);
    let rest = (micros(world.settings.request_timeout) + bound / 2).max(world.watchers.rest());
    let end = world.now + rest;
    world.run_until(end)?;
    // L3: a healthy leader keeps leading, also when a node that was cut off comes back.
    check(world.leader() == Some(leader), || {
        format!("leadership went from {leader} to {:?} without faults", world.leader())
    })?;
    check_log_is_committed(world, leader)?;
    world.invariants.check_overdue(world.now, start)?;
    samples::check(&world.samples, |what| world.trace.sight(what))?;
    check(world.clients.open() == 0, || format!("{} requests were never answered", world.clients.open()))?;
    world.let_watchers_catch_up()?;
    world.check_watchers_at_rest()?;
    if world.settings.ending == Ending::HubConnected {
        return Ok(());
    }
    for process in &world.processes {
        world.invariants.at_rest(process, world.settings.snapshots)?;
    }
    check_convergence(world)
}

/// Makes all nodes voters again, if members were changed. This must be possible.
fn have_all_vote(world: &mut World) -> Verdict {
    let all = world.processes.len();
    let is_open = |world: &World| {
        let leader = world.leader().and_then(|leader| world.processes[leader].running.as_ref());
        leader.is_some_and(|running| running.replica.node().voters().nodes().len() < all)
    };
    if !is_open(world) {
        return Ok(());
    }
    // A learner catches up only if entries are written more slowly than it can receive them. Where
    // messages hold one entry, it receives little.
    world.clients_ask = false;
    let verdict = make_all_voters(world);
    world.clients_ask = true;
    verdict
}

/// The number of election timeouts that may pass without any node's progress.
const ROUNDS_WITHOUT_PROGRESS_MAX: usize = 40;

fn make_all_voters(world: &mut World) -> Verdict {
    let all = world.processes.len();
    let (mut furthest, mut waited) = (0, 0);
    while waited < ROUNDS_WITHOUT_PROGRESS_MAX {
        // A log that arrives one entry at a time, with a sync after each, takes time in proportion
        // to its length. It does not grow meanwhile.
        let running = world.processes.iter().filter_map(|process| process.running.as_ref());
        let entries = running.map(|running| running.replica.node().commit_index().0).sum::<u64>();
        waited = if entries > furthest { 0 } else { waited + 1 };
        furthest = furthest.max(entries);
        let leader = world.leader().ok_or_else(|| violation("there is no leader".into()))?;
        let Some(running) = &world.processes[leader].running else { continue };
        let node = running.replica.node();
        let is_settled = node.membership_is_settled();
        let voters = node.configuration().voters().nodes().len();
        let members = node.configuration().members().len();
        if voters == all && !node.configuration().is_joint() {
            return Ok(());
        }
        if is_settled && members == all {
            world.order_all_to_vote(leader);
        } else {
            world.order_all_to_take_part(leader);
        }
        let pause = micros(world.settings.election_max);
        world.run_until(world.now + pause)?;
    }
    check(false, || "not everybody became a voter again".into())
}

/// L5: a node that receives the leader's messages catches up while clients go on writing, even if
/// it needs snapshots. No such node lacks entries that were committed a while ago.
fn check_catch_up(world: &World, committed: usize) -> Verdict {
    if !matches!(world.settings.ending, Ending::Healed | Ending::MajorityAlive) {
        return Ok(());
    }
    let running = world.processes.iter().filter(|process| !world.network.is_deaf(process.id));
    for status in
        running.filter_map(|process| process.running.as_ref()).map(|running| running.replica.status())
    {
        check(status.last_applied.0 >= committed as u64, || {
            format!(
                "node {} is at {}, where {committed} were committed long ago",
                status.id, status.last_applied
            )
        })?;
    }
    Ok(())
}

/// §8: an entry of its current term lets a leader commit all entries that older leaders have left
/// behind.
fn check_log_is_committed(world: &World, leader: usize) -> Verdict {
    let Some(running) = &world.processes[leader].running else { return Ok(()) };
    let status = running.replica.status();
    check(status.commit_index == status.last_log_index, || {
        format!("leader {leader} has committed {} of {}", status.commit_index, status.last_log_index)
    })
}

fn check_convergence(world: &World) -> Verdict {
    let mut stores = world.processes.iter().filter_map(|process| process.running.as_ref()).map(|running| {
        (running.replica.status().last_applied, running.replica.store(), running.replica.sessions())
    });
    let first = stores.next();
    let committed = world.invariants.committed.len() as u64;
    check(first.is_some_and(|(applied, ..)| applied.0 == committed), || {
        format!("{:?} of {committed} entries are applied", first.map(|(applied, ..)| applied))
    })?;
    check(stores.all(|store| Some(store) == first), || "the nodes do not agree in the end".into())
}

fn check(holds: bool, what: impl FnOnce() -> String) -> Verdict {
    if holds { Ok(()) } else { Err(violation(what())) }
}

fn violation(what: String) -> Violation {
    Violation { property: "liveness", what }
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).expect("a short time")
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAULT_TIME: Duration = Duration::from_secs(5);

    #[test]
    fn a_seed_and_its_tape_repeat_the_same_run() {
        for seed in 0..5 {
            let first = run_seed(seed, FAULT_TIME, Telling::Silent);
            let again = run_seed(seed, FAULT_TIME, Telling::LastLines);
            assert_eq!((first.hash, first.events), (again.hash, again.events));
            let played = run_tape(first.tape, FAULT_TIME, Telling::Silent);
            assert_eq!(played.hash, first.hash);
        }
    }

    #[test]
    fn some_seeds_run_clean() {
        for seed in 0..60 {
            let report = run_seed(seed, FAULT_TIME, Telling::LastLines);
            assert_eq!(report.violation, None, "seed {seed}\n{}", report.last_lines.join("\n"));
        }
    }
}
