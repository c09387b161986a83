//! The nemesis: injects one fault after another, drawn from a shuffled deck of kinds, until the
//! time is over and every kind has occurred.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use super::Violation;
use super::clients::LEAVE;
use super::cluster::Cluster;
use super::kinds::Kind;

/// The number of draws without effect after which a kind is given up and the run is invalid.
const VAIN_DRAWS_MAX: u64 = 8;

/// The schedule: a line for everything that was done.
#[derive(Debug)]
pub(super) struct Journal {
    start: Instant,
    pub(super) lines: Vec<String>,
    is_told: bool,
}

impl Journal {
    pub(super) fn new(is_told: bool) -> Self {
        Self { start: Instant::now(), lines: Vec::new(), is_told }
    }

    pub(super) fn note(&mut self, what: impl std::fmt::Display) {
        let line = format!("{:9.3} {what}", self.start.elapsed().as_secs_f64());
        if self.is_told {
            // Ignore the error: when stderr is closed, the line cannot be delivered.
            _ = writeln!(io::stderr(), "{line}");
        }
        self.lines.push(line);
    }
}

/// When the faults end.
#[derive(Clone, Copy, Debug)]
pub(super) enum Until {
    /// After this time.
    Time(Duration),
    /// After this number of faults.
    Faults(u64),
}

/// The fault injector.
pub(super) struct Nemesis<'a, 'b> {
    pub(super) cluster: &'b mut Cluster<'a>,
    pub(super) rng: fastrand::Rng,
    pub(super) journal: &'b mut Journal,
    /// The kinds of this run.
    pub(super) kinds: Vec<Kind>,
    /// How often each kind has taken effect.
    pub(super) struck: BTreeMap<Kind, u64>,
    pub(super) in_vain: BTreeMap<Kind, u64>,
    /// Whether all nodes can reach one another.
    pub(super) is_fair: bool,
    /// Whether requests that nodes forward may arrive twice.
    pub(super) repeats_asks: bool,
}

impl Nemesis<'_, '_> {
    /// Injects and heals faults until the end.
    pub(super) fn rage(&mut self, until: Until) -> Result<(), Violation> {
        let start = Instant::now();
        let mut deck: Vec<Kind> = Vec::new();
        while !self.is_over(until, start.elapsed()) {
            if self.cluster.shared.order.load(Ordering::Relaxed) == LEAVE {
                return Ok(());
            }
            if deck.is_empty() {
                deck.clone_from(&self.kinds);
                self.rng.shuffle(&mut deck);
            }
            let Some(kind) = deck.pop() else { return Ok(()) };
            self.strike(kind)?;
            self.cluster.check_alive()?;
            if let Some(violation) = self.cluster.shared.violations().into_iter().next() {
                return Err(violation);
            }
            // Half of the pauses are up to 1.5 s, and the others less than 50 ms.
            let rest = if self.rng.bool() { self.rng.u64(..1500) } else { self.rng.u64(..50) };
            thread::sleep(Duration::from_millis(rest));
        }
        Ok(())
    }

    fn is_over(&self, until: Until, elapsed: Duration) -> bool {
        let missing = self.kinds.iter().filter(|kind| self.count(**kind) == 0);
        let is_hopeless = |kind: &&Kind| self.in_vain.get(kind).is_some_and(|draws| *draws >= VAIN_DRAWS_MAX);
        let all_struck = missing.clone().next().is_none() || missing.clone().any(|kind| is_hopeless(&kind));
        match until {
            Until::Time(time) => elapsed >= time && all_struck,
            Until::Faults(faults) => {
                self.struck.values().sum::<u64>() >= faults
                    || (elapsed.as_secs() > 60 && self.struck.is_empty())
            }
        }
    }

    fn count(&self, kind: Kind) -> u64 {
        self.struck.get(&kind).copied().unwrap_or(0)
    }

    /// Injects and heals one fault, and counts whether it took effect.
    pub(super) fn strike(&mut self, kind: Kind) -> Result<(), Violation> {
        let has_struck = match kind {
            _ if kind.is_of_network() => self.break_network(kind)?,
            _ if kind.is_of_operator() => self.change_members(kind)?,
            _ => self.break_nodes(kind)?,
        };
        let counts = if has_struck { &mut self.struck } else { &mut self.in_vain };
        *counts.entry(kind).or_default() += 1;
        if !has_struck {
            self.journal.note(format_args!("{} did not strike", kind.name()));
        }
        Ok(())
    }

    /// Returns a random node.
    pub(super) fn any_node(&mut self) -> u64 {
        let ids = self.cluster.ids();
        ids[self.rng.usize(..ids.len())]
    }

    /// Returns the leader, if there is one within two seconds.
    pub(super) fn find_leader(&self) -> Option<u64> {
        (0..20).find_map(|_| {
            let leader = self.cluster.leader();
            if leader.is_none() {
                thread::sleep(Duration::from_millis(100));
            }
            leader
        })
    }

    pub(super) fn hold(&mut self, ms: std::ops::Range<u64>) {
        thread::sleep(Duration::from_millis(self.rng.u64(ms)));
    }
}
