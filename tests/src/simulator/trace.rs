//! Trace of a run: readable lines, and a hash that is equal for equal runs.

use std::collections::{BTreeMap, VecDeque};

/// The number of lines that are kept for a failing run.
const LINES_KEPT: usize = 50;

/// The trace of a run.
#[derive(Debug, Default)]
pub struct Trace {
    hash: u64,
    /// The number of events.
    pub events: u64,
    lines: Option<VecDeque<String>>,
    prints: bool,
    sightings: BTreeMap<&'static str, u64>,
}

impl Trace {
    /// Creates a trace that keeps its last lines, and prints all lines if `prints` is set.
    #[must_use]
    pub fn telling(prints: bool) -> Self {
        Self { lines: Some(VecDeque::new()), prints, ..Self::default() }
    }

    /// Records an event at `now`, identified by these numbers. The text is made only when it is
    /// kept or printed.
    #[expect(clippy::print_stdout, reason = "a trace is for reading")]
    pub fn note(&mut self, now: u64, numbers: [u64; 3], text: impl FnOnce() -> String) {
        self.events += 1;
        for number in [now, numbers[0], numbers[1], numbers[2]] {
            self.hash = (self.hash.rotate_left(5) ^ number).wrapping_mul(0x517c_c1b7_2722_0a95);
        }
        let Some(lines) = &mut self.lines else { return };
        let line = format!("{:>4}.{:06} {}", now / 1_000_000, now % 1_000_000, text());
        if self.prints {
            println!("{line}");
        }
        if lines.len() == LINES_KEPT {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    /// Counts an interesting situation.
    pub fn sight(&mut self, what: &'static str) {
        *self.sightings.entry(what).or_default() += 1;
    }

    /// How often each interesting situation occurred.
    #[must_use]
    pub fn sightings(&self) -> &BTreeMap<&'static str, u64> {
        &self.sightings
    }

    /// A hash of all events, equal for equal runs.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// The last lines, if they were kept.
    #[must_use]
    pub fn last_lines(&self) -> Vec<String> {
        self.lines.iter().flatten().cloned().collect()
    }
}
