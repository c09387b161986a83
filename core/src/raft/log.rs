//! The log in memory: runs of entries that share their bytes with the messages and the disk.
//!
//! This file does not deal with durability (see `durability`), nor with the question which entries
//! may be cut: the caller knows the commit index. The log holds everything after `start`.

use std::collections::VecDeque;

use super::batch::Entries;
use super::entry::Entry;
use super::runs::Runs;
use super::types::{LogIndex, LogPoint, Term};

/// The number of newest runs in which an index is searched one by one. Arbitrary: more than are
/// usually in flight to followers.
const NEAR_RUNS: usize = 8;

/// The log: the entries after `start`, in consecutive runs.
#[derive(Clone, Debug)]
pub struct Log {
    start: LogPoint,
    runs: VecDeque<Run>,
    last: LogPoint,
}

/// Some entries, with the values that a search needs from every run that it passes, so that it need
/// not access their batches.
#[derive(Clone, Debug)]
struct Run {
    entries: Entries,
    last: LogPoint,
    /// Bytes of text from the first run that this log ever held up to the end of this one.
    bytes_to: u64,
}

impl Log {
    /// A log that starts after `start` and holds `runs`.
    ///
    /// # Panics
    ///
    /// When the runs are not consecutive or do not follow `start`: a bug of their source.
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

    /// The first index that the log holds or, if it is empty, would hold.
    #[must_use]
    pub fn first_index(&self) -> LogIndex {
        self.start.index.next()
    }

    /// The point of the entry at `index`; also known for the start. `None` before the start and
    /// after the end.
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

    /// The term of the entry at `index`; known where [`Log::point_at`] is.
    #[must_use]
    pub fn term_at(&self, index: LogIndex) -> Option<Term> {
        self.point_at(index).map(|point| point.term)
    }

    /// The point of the last entry whose index is at most `at_most` and whose term is at most
    /// `term`; the start if there is none.
    ///
    /// Terms never decrease along a log, so all entries after it, up to `at_most`, have a higher
    /// term.
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

    /// Appends entries.
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

    /// Removes the entry at `from` and all entries after it.
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

    /// The number of bytes of all entries in memory.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let before = self.runs.front().map_or(0, |run| run.bytes_to - run.entries.bytes() as u64);
        self.runs.back().map_or(0, |run| run.bytes_to) - before
    }

    /// The number of bytes of the entries in memory up to `last`, counted in whole runs.
    #[must_use]
    pub fn bytes_up_to(&self, last: LogIndex) -> u64 {
        let before = self.runs.front().map_or(0, |run| run.bytes_to - run.entries.bytes() as u64);
        let covered = self.runs.partition_point(|run| run.last.index <= last);
        covered.checked_sub(1).map_or(0, |newest| self.runs[newest].bytes_to - before)
    }

    /// Drops entries from the front, up to `last` at most. Of the entries up to `last`, the newest
    /// `retained_bytes` bytes stay, and of those after `held_from`, the newest `held_bytes` bytes.
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

    /// Replaces the log with an empty one that starts after `start`.
    pub fn restart(&mut self, start: LogPoint) {
        *self = Self::new(start, Vec::new());
    }

    /// The entries from `from` on, as many as fit in `bytes_max` bytes, but at least one if there
    /// is any.
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

    /// Iterates over the entries from `first` to `last`, without copying. Empty if the log does not
    /// hold `first`.
    pub fn between(&self, first: LogIndex, last: LogIndex) -> impl Iterator<Item = Entry<'_>> {
        let from = self.run_with(first).unwrap_or(self.runs.len());
        let runs = self.runs.range(from..).take_while(move |run| run.entries.first_index() <= last);
        runs.flat_map(move |run| run.entries.between(first, last))
    }

    /// The position of the run that holds `index`.
    fn run_with(&self, index: LogIndex) -> Option<usize> {
        if index <= self.start.index || index > self.last.index {
            return None;
        }
        // Nearly every look-up is for one of the newest runs. A search through all runs would touch
        // memory all over a long log, none of which is in the CPU cache.
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

    /// A log whose entries have these terms, with `run_len` entries per run.
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
    fn a_cut_keeps_earlier_entries_and_the_log_continues_after_them() {
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
    fn the_last_index_of_a_term_equals_a_linear_search() {
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
    fn entries_are_returned_up_to_a_size_but_at_least_one() {
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
