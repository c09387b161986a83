//! The committed log, replayed into the state that ships, as far as somebody wants to know.
//!
//! Whoever asks does so nearly always about the newest entries, and again about the same one when
//! the next node has come as far. So the state goes along with the questions, and only a question
//! about the past begins at a state that was kept.

use std::collections::BTreeMap;

use coracle_core::kv::{LoggedWrite, SessionLimits, State};
use coracle_core::raft::LogIndex;

use super::CommittedEntry;

/// Every so many entries the replayed state is kept, and that for ever at every so many of these.
/// Arbitrary: most snapshots are of what was committed last.
const KEPT_EVERY: u64 = 64;
const KEPT_LONG: u64 = 32;

/// What the committed log gives, at one index after the other.
#[derive(Debug, Default)]
pub(super) struct Replay {
    session_limits: SessionLimits,
    /// The state, and up to which entry.
    state: State,
    index: LogIndex,
    kept: BTreeMap<LogIndex, State>,
}

impl Replay {
    pub(super) fn new(session_limits: SessionLimits) -> Self {
        Self { session_limits, state: State::new(session_limits), ..Self::default() }
    }

    /// A state before the first entry.
    pub(super) fn empty(&self) -> State {
        State::new(self.session_limits)
    }

    /// What the committed log up to `index` gives.
    pub(super) fn up_to(&mut self, index: LogIndex, committed: &[CommittedEntry]) -> &mut State {
        if index < self.index {
            let kept = self.kept.range(..=index).next_back();
            (self.index, self.state) =
                kept.map_or_else(|| (LogIndex::ORIGIN, self.empty()), |(from, state)| (*from, state.clone()));
        }
        let place = |index: LogIndex| usize::try_from(index.0).expect("a simulated log is short");
        for entry in &committed[place(self.index)..place(index)] {
            if let Some(write) = LoggedWrite::read(&entry.payload) {
                self.state.apply(&write.into());
            }
            self.index = entry.point.index;
            if self.index.0.is_multiple_of(KEPT_EVERY) {
                self.keep();
            }
        }
        &mut self.state
    }

    fn keep(&mut self) {
        self.kept.entry(self.index).or_insert_with(|| self.state.clone());
        let old = LogIndex(self.index.0.saturating_sub(KEPT_EVERY * KEPT_LONG));
        if !old.0.is_multiple_of(KEPT_EVERY * KEPT_LONG) {
            self.kept.remove(&old);
        }
    }
}
