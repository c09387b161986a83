//! What a run came to, for people and for programs.

use std::fmt;

use serde_json::{Value, json};

use super::{GapSummary, Kind, Violation};

/// The result of a run.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The run's seed.
    pub seed: u64,
    /// How often each kind of fault struck.
    pub struck: Vec<(Kind, u64)>,
    /// Kinds that were chosen and cannot be done here, and why.
    pub skipped: Vec<(Kind, &'static str)>,
    /// Kinds that were chosen, are possible and never struck: a run that proves less than it
    /// claims.
    pub missed: Vec<Kind>,
    /// Writes that were acknowledged.
    pub acknowledged: u64,
    /// Linearizable reads that were answered.
    pub reads: u64,
    /// How often a write of a session was sent again.
    pub retried: u64,
    /// Requests that were certainly not done.
    pub refused: u64,
    /// Writes of unknown outcome.
    pub unknown: u64,
    /// Keys, operations on them, and histories that were too much for the search.
    pub keys: usize,
    /// Operations in the histories of these keys.
    pub operations: usize,
    /// Histories that were too much for the search: no pass.
    pub gave_up: usize,
    /// The last index of the log on which all nodes agreed.
    pub last_index: u64,
    /// How many starts of nodes there were.
    pub starts: u32,
    /// Frames that the proxies passed on.
    pub frames: u64,
    /// How long writes waited after a leader's death.
    pub gaps: GapSummary,
    /// What must never be.
    pub violations: Vec<Violation>,
    /// The last lines of the schedule.
    pub schedule: Vec<String>,
}

impl Report {
    /// Whether everything held, and everything that was to be tried was tried.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.violations.is_empty() && self.missed.is_empty() && self.gave_up == 0 && self.operations > 0
    }

    /// The report as an object of JSON.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let ms = |gap: std::time::Duration| gap.as_secs_f64() * 1e3;
        let named = |list: &[(Kind, u64)]| -> Value {
            list.iter()
                .map(|(kind, count)| (kind.name().to_owned(), json!(count)))
                .collect::<serde_json::Map<_, _>>()
                .into()
        };
        json!({
            "seed": self.seed,
            "good": self.is_good(),
            "acknowledged": self.acknowledged,
            "reads": self.reads,
            "retried": self.retried,
            "refused": self.refused,
            "unknown": self.unknown,
            "keys": self.keys,
            "operations_searched": self.operations,
            "gave_up": self.gave_up,
            "last_index": self.last_index,
            "starts": self.starts,
            "frames": self.frames,
            "faults": named(&self.struck),
            "skipped": self.skipped.iter().map(|(kind, why)| json!({"kind":kind.name(),"why":why})).collect::<Vec<_>>(),
            "missed": self.missed.iter().map(|kind| kind.name()).collect::<Vec<_>>(),
            "gaps_after_leader_kill_ms": {
                "count": self.gaps.count, "p50": ms(self.gaps.p50), "p99": ms(self.gaps.p99), "max": ms(self.gaps.max),
            },
            "violations": self.violations.iter().map(ToString::to_string).collect::<Vec<_>>(),
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}: {}", self.seed, if self.is_good() { "good" } else { "NOT GOOD" })?;
        writeln!(
            f,
            "  {} writes acknowledged, {} reads; {} sent again, {} refused, {} of unknown outcome",
            self.acknowledged, self.reads, self.retried, self.refused, self.unknown
        )?;
        writeln!(
            f,
            "  {} operations on {} keys searched, {} given up",
            self.operations, self.keys, self.gave_up
        )?;
        writeln!(
            f,
            "  log of {} entries, {} starts of nodes, {} frames",
            self.last_index, self.starts, self.frames
        )?;
        let struck: Vec<String> =
            self.struck.iter().map(|(kind, count)| format!("{} {count}", kind.name())).collect();
        writeln!(f, "  faults: {}", struck.join(", "))?;
        for (kind, why) in &self.skipped {
            writeln!(f, "  SKIPPED {}: {why}", kind.name())?;
        }
        for kind in &self.missed {
            writeln!(f, "  INVALID: {} never struck", kind.name())?;
        }
        let GapSummary { count, p50, p99, max } = self.gaps;
        writeln!(
            f,
            "  no write was acknowledged after {count} deaths of a leader for: p50 {p50:.0?}, p99 {p99:.0?}, max {max:.0?}"
        )?;
        for violation in &self.violations {
            writeln!(f, "  VIOLATED {violation}")?;
        }
        if !self.violations.is_empty() {
            writeln!(f, "  the end of the schedule:")?;
            self.schedule.iter().try_for_each(|line| writeln!(f, "    {line}"))?;
        }
        Ok(())
    }
}
