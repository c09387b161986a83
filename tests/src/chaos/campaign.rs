//! A chaos campaign from its beginning to its end: cluster, clients, faults, healing, and the final
//! checks.

use std::path::Path;
use std::process::Command;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use super::caller::ask_once;
use super::clients::{Client, LEAVE, Shared};
use super::cluster::{Cluster, Shape};
use super::kinds::Kind;
use super::nemesis::{Journal, Nemesis, Until};
use super::probe::Abilities;
use super::report::Report;
use super::{Violation, ending, logs};
use crate::live::{Runtime, TIMEOUT};

/// The number of clients with sessions, and below it of those without.
const WITH_SESSION: usize = 6;
const WITHOUT_SESSION: usize = 2;
/// The number of schedule lines in a report.
const SCHEDULE_LINES: usize = 50;

/// The runtimes of the nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mix {
    /// The same runtime for all nodes.
    All(Runtime),
    /// Both runtimes, alternating.
    Mixed,
}

/// The settings of a campaign.
#[derive(Clone, Debug)]
pub struct Campaign {
    /// The seed, which decides everything that can be decided.
    pub seed: u64,
    /// The time during which faults are injected, in seconds.
    pub seconds: u64,
    /// The number of faults to inject, instead of a time.
    pub faults: Option<u64>,
    /// The runtimes of the nodes.
    pub mix: Mix,
    /// The number of nodes, 1 to 9.
    pub nodes: usize,
    /// The kinds of faults; empty to let the seed choose.
    pub kinds: Vec<Kind>,
    /// Additional flags of the nodes, separated by spaces; empty to let the seed choose.
    pub flags: String,
    /// Whether the schedule is printed as it happens.
    pub is_told: bool,
}

impl Campaign {
    /// Runs the campaign in `folder`, which has to be empty.
    ///
    /// # Panics
    ///
    /// When the machine has no free ports or no disk space.
    #[must_use]
    pub fn run(&self, folder: &Path) -> Report {
        let mut rng = fastrand::Rng::with_seed(self.seed);
        let abilities = Abilities::probe(folder);
        let chosen = self.choose_kinds(&mut rng);
        let skipped: Vec<_> =
            chosen.iter().filter_map(|kind| Some((*kind, kind.obstacle(&abilities)?))).collect();
        let kinds: Vec<Kind> =
            chosen.into_iter().filter(|kind| kind.obstacle(&abilities).is_none()).collect();
        let runtimes = (0..self.nodes).map(|at| match self.mix {
            Mix::All(runtime) => runtime,
            Mix::Mixed if at % 2 == 0 => Runtime::Smol,
            Mix::Mixed => Runtime::Threads,
        });
        let shape = Shape {
            folder,
            runtimes: runtimes.collect(),
            flags: self.choose_flags(&mut rng),
            with_mounts: abilities.mounts,
            seed: self.seed,
        };
        let shared = Shared::new(WITH_SESSION);
        let mut cluster = Cluster::new(&shape, &shared).expect("there are ports and room for a cluster");
        let mut journal = Journal::new(self.is_told);
        journal.note(format_args!("{} {:?}", abilities_text(&abilities), shape.flags));
        let mut report = Report { seed: self.seed, skipped, ..Report::default() };
        let result = self.break_and_mend(&mut cluster, &mut journal, kinds, rng, &mut report);
        report.violations.extend(result.err());
        for violation in shared.violations() {
            if !report.violations.contains(&violation) {
                report.violations.push(violation);
            }
        }
        summarize(&mut report, &shared, &cluster);
        let told = journal.lines.len().saturating_sub(SCHEDULE_LINES);
        // Ignore the error: the report contains the end of the schedule anyway.
        _ = std::fs::write(folder.join("schedule.txt"), journal.lines.join("\n"));
        report.schedule = journal.lines.split_off(told);
        if !report.violations.is_empty() {
            keep_files(&cluster, folder);
        }
        report
    }

    fn choose_kinds(&self, rng: &mut fastrand::Rng) -> Vec<Kind> {
        if !self.kinds.is_empty() {
            return self.kinds.clone();
        }
        // Choose a different subset each time: faults that always occur together hide the effect of
        // each alone.
        let mut kinds = Kind::all();
        kinds.retain(|_| rng.u8(..10) < 6);
        if kinds.is_empty() { Kind::all() } else { kinds }
    }

    fn choose_flags(&self, rng: &mut fastrand::Rng) -> Vec<String> {
        let chosen = ["", "--snapshot-entries 50", "--snapshot-entries 1000"][rng.usize(..3)];
        let flags = if self.flags.is_empty() { chosen } else { &self.flags };
        let mut words: Vec<String> = flags.split_whitespace().map(str::to_owned).collect();
        if !words.iter().any(|word| word == "--request-timeout") {
            // Shorter than the default, so that a request which a node cannot answer is soon sent
            // to another one.
            words.extend(["--request-timeout", "2s"].map(str::to_owned));
        }
        words
    }

    fn break_and_mend(
        &self,
        cluster: &mut Cluster<'_>,
        journal: &mut Journal,
        kinds: Vec<Kind>,
        mut rng: fastrand::Rng,
        report: &mut Report,
    ) -> Result<(), Violation> {
        cluster.start_all()?;
        found(cluster)?;
        journal.note("the cluster is founded");
        let (shared, with_storm) = (cluster.shared, rng.bool());
        // In a run with repeated requests, only clients with sessions write. In the others, each
        // request arrives once.
        let repeats = kinds.iter().any(|kind| [Kind::Duplicate, Kind::Replay].contains(kind));
        let repeats_asks = repeats && rng.bool();
        thread::scope(|scope| {
            let clients: Vec<_> = (0..WITH_SESSION + WITHOUT_SESSION)
                .map(|number| {
                    let client = Client::new(shared, number, number < WITH_SESSION, self.seed);
                    let client = client.only_sessions_write(repeats_asks);
                    scope.spawn(move || client.run())
                })
                .collect();
            let time = Duration::from_secs(self.seconds);
            let until = self.faults.map_or(Until::Time(time), Until::Faults);
            let (struck, in_vain) = Default::default();
            let kinds_too = kinds.clone();
            let mut nemesis = Nemesis {
                cluster,
                rng,
                journal,
                kinds: kinds_too,
                struck,
                in_vain,
                is_fair: true,
                repeats_asks,
            };
            let result = nemesis.rage(until);
            report.struck = nemesis.struck.into_iter().collect();
            report.missed = kinds
                .into_iter()
                .filter(|kind| !report.struck.iter().any(|(struck, _)| struck == kind))
                .collect();
            let result = result.and_then(|()| {
                let connections = if with_storm { "broken" } else { "as they are" };
                journal.note(format_args!("everything heals, connections are left {connections}"));
                ending::heal(cluster, with_storm)?;
                ending::finish(shared, || clients.iter().all(thread::ScopedJoinHandle::is_finished))
            });
            shared.order.store(LEAVE, Ordering::Relaxed);
            result
        })?;
        report.last_index = ending::converge(cluster)?;
        journal.note("all nodes agree");
        ending::read_everything(cluster)?;
        ending::stop(cluster)?;
        journal.note("all nodes have ended in order");
        let folders: Vec<_> = cluster.nodes.iter().map(|node| (node.id(), node.home.data())).collect();
        logs::check(&folders)?;
        let searched = shared.history.check()?;
        (report.keys, report.operations, report.gave_up) =
            (searched.keys, searched.operations, searched.gave_up);
        Ok(())
    }
}

/// Waits until the cluster exists, which is when a write succeeds.
fn found(cluster: &Cluster<'_>) -> Result<(), Violation> {
    let give_up_at = Instant::now() + TIMEOUT;
    loop {
        let addresses = cluster.shared.addresses.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let put = json!({"op":"put","key":"first","value":1});
        let reply = addresses.first().and_then(|address| ask_once(*address, TIMEOUT, put));
        if reply.as_ref().is_some_and(|reply| reply["status"] == "ok") {
            return Ok(());
        }
        if Instant::now() > give_up_at {
            return Err(Violation { rule: "nodes that meet found a cluster", what: format!("{reply:?}") });
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// Copies the data of the nodes into `folder`, because their mounted file systems disappear after
/// the run.
fn keep_files(cluster: &Cluster<'_>, folder: &Path) {
    for node in &cluster.nodes {
        let (from, to) = (node.home.data(), folder.join(format!("data{}", node.id())));
        // Ignore errors: a file that cannot be copied is missing from the copy.
        _ = Command::new("cp").arg("-r").args([from, to]).status();
    }
}

fn abilities_text(abilities: &Abilities) -> String {
    let word = |is_there: bool| if is_there { "yes" } else { "no" };
    let Abilities { injects, mounts, cuts_power } = *abilities;
    format!(
        "calls can fail: {}, file systems of their own: {}, power cuts: {};",
        word(injects),
        word(mounts),
        word(cuts_power)
    )
}

fn summarize(report: &mut Report, shared: &Shared, cluster: &Cluster<'_>) {
    report.acknowledged = shared.acknowledged.load(Ordering::Relaxed);
    report.reads = shared.reads.load(Ordering::Relaxed);
    report.retried = shared.retried.load(Ordering::Relaxed);
    report.refused = shared.refused.load(Ordering::Relaxed);
    report.unknown = shared.unknown.load(Ordering::Relaxed);
    report.starts = cluster.nodes.iter().map(|node| node.starts).sum();
    report.frames = cluster.network.count(|done| &done.carried);
    report.gaps = shared.gaps.summary();
}
