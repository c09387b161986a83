//! Result of a chaos campaign, as text and as JSON.

use std::fmt;

use serde_json::{Value, json};

use super::{GapSummary, Kind, Violation};

/// The result of a run.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The run's seed.
    pub seed: u64,
    /// How often each kind of fault took effect.
    pub struck: Vec<(Kind, u64)>,
    /// The kinds that were chosen but are impossible here, and why.
    pub skipped: Vec<(Kind, &'static str)>,
    /// The kinds that were chosen, are possible and never took effect. Such a run proves less than
    /// it claims.
    pub missed: Vec<Kind>,
    /// The number of acknowledged writes.
    pub acknowledged: u64,
    /// The number of answered linearizable reads.
    pub reads: u64,
    /// How often a write of a session was retried.
    pub retried: u64,
    /// The number of requests that certainly had no effect.
    pub refused: u64,
    /// The number of writes of unknown outcome.
    pub unknown: u64,
    /// The number of keys with a history.
    pub keys: usize,
    /// The number of operations in these histories.
    pub operations: usize,
    /// The number of histories that were too large for the search, which is not a success.
    pub gave_up: usize,
    /// The last index of the log on which all nodes agreed.
    pub last_index: u64,
    /// The number of starts of nodes.
    pub starts: u32,
    /// The number of frames that the proxies carried.
    pub frames: u64,
    /// The time without acknowledged writes after a leader's death.
    pub gaps: GapSummary,
    /// The violated invariants.
    pub violations: Vec<Violation>,
    /// The last lines of the schedule.
    pub schedule: Vec<String>,
}

impl Report {
    /// Returns whether all invariants held, and all chosen faults were tried.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.violations.is_empty() && self.missed.is_empty() && self.gave_up == 0 && self.operations > 0
    }

    /// The report as a JSON object.
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
