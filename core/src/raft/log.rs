//! The log in memory: runs of entries that share their bytes with the messages and the disk.
//!
//! Durability is not its business (see `durability`), nor is what may be cut: the caller knows the
//! commit index. It holds everything after `start`.

use std::collections::VecDeque;

use super::batch::Entries;
use super::entry::Entry;
use super::runs::Runs;
use super::types::{LogIndex, LogPoint, Term};

/// In so many of the newest runs an index is looked for one by one. Arbitrary: more than are
/// usually on their way to followers.
const NEAR_RUNS: usize = 8;

/// The entries after `start`, in runs that follow one another.
#[derive(Clone, Debug)]
pub struct Log {
    start: LogPoint,
    runs: VecDeque<Run>,
    last: LogPoint,
}

/// Some entries, and beside them what a search asks of every run that it passes: so it need not
/// look into their batches.
#[derive(Clone, Debug)]
struct Run {
    entries: Entries,
    last: LogPoint,
    /// Bytes of text from the first run that this log ever held to the end of this one.
    bytes_to: u64,
}

impl Log {
    /// A log that starts after `start` and holds `runs`.
    ///
    /// # Panics
    ///
    /// When the runs do not follow `start` and one another: their source is broken.
    #[must_use]
    pub fn new(start: LogPoint, runs: Vec<Entries>) -> Self {
        let mut log = Self { start, runs: VecDeque::new(), last: start };
        for run in runs {
            log.append(run);
        }
        log
    }

    /// The point of the last entry, or the log's start when it is empty.
    #[must_use]
    pub fn last(&self) -> LogPoint {
        self.last
    }

    /// The point that the log starts after.
    #[must_use]
    pub fn start(&self) -> LogPoint {
        self.start
    }

    /// The first index that the log holds, or will hold.
    #[must_use]
    pub fn first_index(&self) -> LogIndex {
        self.start.index.next()
    }

    /// The entry's point at `index`; also known for the start. `None` before the start and after
    /// the end.
    #[must_use]
    pub fn point_at(&self, index: LogIndex) -> Option<LogPoint> {
        if index == self.last.index {
            return Some(self.last);
        }
        if index == self.start.index {
            return Some(self.start);
        }
        let run = &self.runs[self.run_with(index)?];
        if run.last.index == index { Some(run.last) } else { run.entries.point_at(index) }
    }

    /// The term of the entry at `index`, where [`Log::point_at`] knows it.
    #[must_use]
    pub fn term_at(&self, index: LogIndex) -> Option<Term> {
        self.point_at(index).map(|point| point.term)
    }

    /// The last index, at most `at_most`, whose term is at most `term`. At least the start's index.
    ///
    /// Terms never fall along a log, so everything after it up to `at_most` has a higher term.
    #[must_use]
    pub fn last_index_of_term_up_to(&self, at_most: LogIndex, term: Term) -> LogPoint {
        if at_most >= self.last.index && self.last.term <= term {
            return self.last;
        }
        let fits = |entry: &Entry<'_>| entry.point.index <= at_most && entry.point.term <= term;
        let begins_fitting = |run: &Run| run.entries.iter().next().is_some_and(|first| fits(&first));
        let fitting_runs = self.runs.partition_point(begins_fitting);
        let last_run = fitting_runs.checked_sub(1).map(|position| &self.runs[position].entries);
        let last = last_run.and_then(|run| run.iter().take_while(fits).last());
        last.map_or(self.start, |entry| entry.point)
    }

    /// Adds entries at the end.
    ///
    /// # Panics
    ///
    /// When they do not follow the last entry.
    pub fn append(&mut self, run: Entries) {
        assert_eq!(run.before(), self.last, "entries that do not follow the end of the log");
        self.push(run);
    }

    fn push(&mut self, entries: Entries) {
        let before = self.runs.back().map_or(0, |run| run.bytes_to);
        let bytes_to = before + entries.bytes() as u64;
        self.last = entries.last();
        self.runs.push_back(Run { last: self.last, bytes_to, entries });
    }

    /// Removes the entry at `from` and all after it.
    ///
    /// # Panics
    ///
    /// When `from` is not in the log.
    pub fn cut(&mut self, from: LogIndex) {
        assert!(from > self.start.index && from <= self.last.index, "a cut outside of the log");
        while let Some(run) = self.runs.pop_back_if(|run| run.last.index >= from) {
            if let Some(kept) = run.entries.ending_at(from.previous()) {
                self.push(kept);
                break;
            }
        }
        self.last = self.runs.back().map_or(self.start, |run| run.last);
    }

    /// Bytes of all entries that are in memory.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let before = self.runs.front().map_or(0, |run| run.bytes_to - run.entries.bytes() as u64);
        self.runs.back().map_or(0, |run| run.bytes_to) - before
    }

    /// Bytes of those of them that are in entries up to `last`, in whole runs.
    #[must_use]
    pub fn bytes_up_to(&self, last: LogIndex) -> u64 {
        let before = self.runs.front().map_or(0, |run| run.bytes_to - run.entries.bytes() as u64);
        let covered = self.runs.partition_point(|run| run.last.index <= last);
        covered.checked_sub(1).map_or(0, |newest| self.runs[newest].bytes_to - before)
    }

    /// Forgets entries from the front, none after `last`, as long as `retained_bytes` of those up
    /// to `last` are left, and `held_bytes` of those of them that come after `held_from`.
    pub fn compact(
        &mut self,
        last: LogIndex,
        retained_bytes: usize,
        (held_from, held_bytes): (LogIndex, usize),
    ) {
        let covered = self.runs.partition_point(|run| run.last.index <= last);
        let Some(end) = covered.checked_sub(1).map(|newest| self.runs[newest].bytes_to) else { return };
        let is_unneeded = |run: &Run| {
            let needed =
                if run.last.index <= held_from { retained_bytes } else { held_bytes.max(retained_bytes) };
            run.last.index <= last && end - run.bytes_to >= needed as u64
        };
        while let Some(run) = self.runs.pop_front_if(|run| is_unneeded(run)) {
            self.start = run.last;
        }
    }

    /// An empty log that starts after `start`, whatever it held.
    pub fn restart(&mut self, start: LogPoint) {
        *self = Self::new(start, Vec::new());
    }

    /// Entries from `from` on, as many as fit `bytes_max` bytes, but one if there is any.
    #[must_use]
    pub fn entries_from(&self, from: LogIndex, bytes_max: usize) -> Runs {
        let mut found = Runs::new();
        let mut room = bytes_max;
        let Some(first) = self.run_with(from) else { return found };
        for run in self.runs.range(first..) {
            let Some(run) = run.entries.clone().into_starting_at(from) else { break };
            let len = run.len();
            let fitting = run.into_fitting(room);
            let size = fitting.bytes();
            if size > room && !found.is_empty() {
                break;
            }
            let run_fits = fitting.len() == len;
            room = room.saturating_sub(size);
            found.push(fitting);
            if !run_fits {
                break;
            }
        }
        found
    }

    /// The entries from `first` on up to `last`, one by one and where they lie. None where the log
    /// does not hold `first`.
    pub fn between(&self, first: LogIndex, last: LogIndex) -> impl Iterator<Item = Entry<'_>> {
        let from = self.run_with(first).unwrap_or(self.runs.len());
        let runs = self.runs.range(from..).take_while(move |run| run.entries.first_index() <= last);
        runs.flat_map(move |run| run.entries.between(first, last))
    }

    /// Position of the run that holds `index`.
    fn run_with(&self, index: LogIndex) -> Option<usize> {
        if index <= self.start.index || index > self.last.index {
            return None;
        }
        // Nearly every question is about one of the newest runs. A search through all of them would
        // reach for places all over a long log, none of which is in the processor's cache.
        let newest = self.runs.len() - 1;
        for position in (newest.saturating_sub(NEAR_RUNS)..newest).rev() {
            if self.runs[position].last.index < index {
                return Some(position + 1);
            }
        }
        Some(self.runs.partition_point(|run| run.last.index < index))
    }
}

#[cfg(test)]
mod tests {
    use super::super::batch_builder::BatchBuilder;
    use super::*;

    /// A log whose entries have these terms, `run_len` entries to a run.
    fn log_of_terms(terms: &[u64], run_len: usize) -> Log {
        let mut builder = BatchBuilder::new(LogPoint::ORIGIN);
        let mut runs = Vec::new();
        for chunk in terms.chunks(run_len) {
            for &term in chunk {
                builder.seal(Term(term), |line| line.push_str("\"op\":\"NOOP\""));
            }
            runs.push(builder.finish().unwrap());
        }
        Log::new(LogPoint::ORIGIN, runs)
    }

    fn terms_of(log: &Log) -> Vec<u64> {
        (1..=log.last().index.0).map(|index| log.term_at(LogIndex(index)).unwrap().0).collect()
    }

    #[test]
    fn terms_are_found_in_every_run() {
        let terms = [1, 1, 2, 2, 2, 5, 6];
        for run_len in 1..=7 {
            let log = log_of_terms(&terms, run_len);
            assert_eq!(terms_of(&log), terms);
            assert_eq!(log.term_at(LogIndex(0)), Some(Term(0)));
            assert_eq!(log.term_at(LogIndex(8)), None);
        }
    }

    #[test]
    fn a_cut_keeps_what_is_before_it_and_the_log_goes_on_from_there() {
        for run_len in 1..=4 {
            for from in 1..=6 {
                let mut log = log_of_terms(&[1, 1, 2, 3, 3, 4], run_len);
                log.cut(LogIndex(from));
                assert_eq!(terms_of(&log), [1, 1, 2, 3, 3, 4][..usize::try_from(from).unwrap() - 1]);
                let mut builder = BatchBuilder::new(log.last());
                builder.seal(Term(9), |line| line.push_str("\"op\":\"NOOP\""));
                log.append(builder.finish().unwrap());
                assert_eq!(log.last().index, LogIndex(from));
            }
        }
    }

    #[test]
    fn the_last_index_of_a_term_is_found_as_by_walking_back() {
        let terms = [1, 1, 2, 2, 4, 4, 4, 7];
        for run_len in 1..=8 {
            let log = log_of_terms(&terms, run_len);
            for at_most in 0..=9_u64 {
                for term in 0..=8 {
                    let expected = (1..=at_most.min(8))
                        .rev()
                        .find(|&index| terms[usize::try_from(index).unwrap() - 1] <= term)
                        .unwrap_or(0);
                    let found = log.last_index_of_term_up_to(LogIndex(at_most), Term(term));
                    assert_eq!(found.index, LogIndex(expected), "{at_most} {term} {run_len}");
                }
            }
        }
    }

    #[test]
    fn entries_are_handed_out_up_to_a_size_but_one_at_the_least() {
        for run_len in 1..=6 {
            let log = log_of_terms(&[1; 6], run_len);
            let size = log.entries_from(LogIndex(6), 1)[0].text().len();
            for from in 1..=6_u64 {
                for fit in 0..=7_usize {
                    let runs = log.entries_from(LogIndex(from), fit * size + 3);
                    let count: usize = runs.iter().map(Entries::len).sum();
                    let available = usize::try_from(7 - from).unwrap();
                    assert_eq!(count, fit.clamp(1, available), "{from} {fit} {run_len}");
                    assert_eq!(runs[0].first_index(), LogIndex(from));
                }
            }
            assert!(log.entries_from(LogIndex(7), 1000).is_empty());
        }
    }
}
