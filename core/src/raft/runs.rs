//! Consecutive runs of entries, as messages and persists carry them.
//!
//! The entries that a turn appends are nearly always one batch, and under light load a batch is one
//! entry. So a single run is stored in place, and only more of them take an allocation.

use std::fmt;
use std::iter::Chain;
use std::ops::Deref;

use super::batch::Entries;

/// Consecutive runs of entries, usable as a slice.
#[derive(Clone, Default)]
pub struct Runs(Row);

#[derive(Clone)]
enum Row {
    AtMostOne(Option<Entries>),
    More(Vec<Entries>),
}

impl Default for Row {
    fn default() -> Self {
        Self::AtMostOne(None)
    }
}

impl Runs {
    /// No runs.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a run. The caller must ensure that it follows the previous one.
    pub fn push(&mut self, run: Entries) {
        match &mut self.0 {
            Row::AtMostOne(place @ None) => *place = Some(run),
            Row::AtMostOne(first) => self.0 = Row::More(first.take().into_iter().chain([run]).collect()),
            Row::More(runs) => runs.push(run),
        }
    }
}

impl Deref for Runs {
    type Target = [Entries];

    fn deref(&self) -> &[Entries] {
        match &self.0 {
            Row::AtMostOne(run) => run.as_slice(),
            Row::More(runs) => runs,
        }
    }
}

impl Extend<Entries> for Runs {
    fn extend<T: IntoIterator<Item = Entries>>(&mut self, runs: T) {
        runs.into_iter().for_each(|run| self.push(run));
    }
}

impl FromIterator<Entries> for Runs {
    fn from_iter<T: IntoIterator<Item = Entries>>(runs: T) -> Self {
        let mut row = Self::new();
        row.extend(runs);
        row
    }
}

impl From<Vec<Entries>> for Runs {
    fn from(runs: Vec<Entries>) -> Self {
        Self(Row::More(runs))
    }
}

impl From<Runs> for Vec<Entries> {
    fn from(runs: Runs) -> Self {
        match runs.0 {
            Row::AtMostOne(run) => run.into_iter().collect(),
            Row::More(runs) => runs,
        }
    }
}

impl IntoIterator for Runs {
    type Item = Entries;
    type IntoIter = Chain<std::option::IntoIter<Entries>, std::vec::IntoIter<Entries>>;

    fn into_iter(self) -> Self::IntoIter {
        let (run, runs) = match self.0 {
            Row::AtMostOne(run) => (run, Vec::new()),
            Row::More(runs) => (None, runs),
        };
        run.into_iter().chain(runs)
    }
}

impl<'a> IntoIterator for &'a Runs {
    type Item = &'a Entries;
    type IntoIter = std::slice::Iter<'a, Entries>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Debug for Runs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl PartialEq for Runs {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Runs {}

#[cfg(test)]
mod tests {
    use super::super::batch_builder::BatchBuilder;
    use super::super::types::{LogPoint, Term};
    use super::*;

    #[test]
    fn runs_are_equal_however_they_were_collected() {
        let mut builder = BatchBuilder::new(LogPoint::ORIGIN);
        let mut batch = || {
            builder.seal(Term(1), |line| line.push_str("\"op\":\"NOOP\""));
            builder.finish().unwrap()
        };
        let all = [batch(), batch(), batch()];
        for count in 0..=all.len() {
            let expected = all[..count].to_vec();
            let collected: Runs = expected.iter().cloned().collect();
            assert_eq!(*collected, *expected);
            assert_eq!(collected, Runs::from(expected.clone()));
            assert_eq!(Vec::from(collected.clone()), expected);
            assert_eq!(collected.into_iter().collect::<Vec<_>>(), expected);
        }
    }
}
