//! Replay of the committed log into the real state machine, up to any index on demand.
//!
//! Nearly all requests are for the newest entries, and again for the same one when the next node
//! has come as far. So the state moves forward with the requests, and only a request for the past
//! starts from a saved state.

use std::collections::BTreeMap;

use coracle_core::kv::{LoggedWrite, Revision, SessionLimits, State};
use coracle_core::raft::LogIndex;

use super::CommittedEntry;

/// The number of entries between saved states, and below it the number of saved states between
/// those that are kept permanently. Both are arbitrary: most snapshots are of recently committed
/// entries.
const KEPT_EVERY: u64 = 64;
const KEPT_LONG: u64 = 32;

/// The state of the committed log at one index.
#[derive(Debug, Default)]
pub(super) struct Replay {
    session_limits: SessionLimits,
    /// The state, and below it the index of its last entry.
    state: State,
    index: LogIndex,
    kept: BTreeMap<LogIndex, State>,
}

impl Replay {
    pub(super) fn new(session_limits: SessionLimits) -> Self {
        Self { session_limits, state: State::new(session_limits), ..Self::default() }
    }

    /// Creates the state before the first entry.
    pub(super) fn empty(&self) -> State {
        State::new(self.session_limits)
    }

    /// Returns the state of the committed log up to `index`.
    pub(super) fn up_to(&mut self, index: LogIndex, committed: &[CommittedEntry]) -> &mut State {
        if index < self.index {
            let kept = self.kept.range(..=index).next_back();
            (self.index, self.state) =
                kept.map_or_else(|| (LogIndex::ORIGIN, self.empty()), |(from, state)| (*from, state.clone()));
        }
        let place = |index: LogIndex| usize::try_from(index.0).expect("a simulated log is short");
        for entry in &committed[place(self.index)..place(index)] {
            if let Some(write) = LoggedWrite::read(&entry.payload) {
                self.state.apply(&write.into(), Revision(entry.point.index.0));
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
