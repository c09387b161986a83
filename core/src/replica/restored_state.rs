//! The state of a snapshot, built before the replica starts.
//!
//! A process that runs a whole cluster reads the snapshots of all nodes one after the other. Each
//! may be as large as the map, so its text is dropped before the next one is read, and nodes share
//! equal keys and values.

use std::sync::Arc;

use super::ReplicaError;
use crate::kv::{SessionLimits, State};
use crate::raft::{LogIndex, RestoredSnapshot};

/// The state that was built from a node's snapshot.
#[derive(Debug)]
pub struct RestoredState {
    pub(super) state: State,
    pub(super) last: LogIndex,
    /// The number of bytes of the snapshot's text.
    pub(super) bytes: u64,
}

impl RestoredState {
    /// Builds the state from the snapshot's text, and drops the text. `beside` is the state of
    /// another node in this process, if there is one. `seed` decides the layout of the map in
    /// memory.
    ///
    /// # Errors
    ///
    /// [`ReplicaError::UnknownSnapshot`] when a line is not known to this version.
    pub fn build(
        snapshot: &mut RestoredSnapshot,
        limits: SessionLimits,
        seed: u64,
        beside: Option<&Self>,
    ) -> Result<Self, ReplicaError> {
        let text = std::mem::replace(&mut snapshot.text, Arc::from(""));
        let last = snapshot.meta.last.index;
        let mut state = State::seeded(limits, seed);
        let beside = beside.map(|beside| &beside.state);
        let restored = text.lines().try_for_each(|line| state.restore_beside(line, beside));
        restored.map_err(|_| ReplicaError::UnknownSnapshot(last))?;
        Ok(Self { state, last, bytes: text.len() as u64 })
    }

    /// The last entry that the snapshot covers.
    #[must_use]
    pub fn last(&self) -> LogIndex {
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::Value;
    use crate::raft::{Configuration, LogPoint, NodeId, SnapshotMeta, Voters};

    fn read(text: &str, beside: Option<&RestoredState>) -> RestoredState {
        let voters = Voters::new([NodeId(1)]).unwrap();
        let configuration = Configuration::of_voters(voters);
        let meta = SnapshotMeta { last: LogPoint::ORIGIN, configuration };
        let mut snapshot = RestoredSnapshot { meta, text: text.into() };
        let state = RestoredState::build(&mut snapshot, SessionLimits::default(), 7, beside).unwrap();
        assert_eq!(&*snapshot.text, "", "it is not kept beside what it says");
        state
    }

    #[test]
    fn nodes_of_one_process_share_equal_keys_and_values() {
        let first = read("{\"key\":\"a\",\"value\":\"same\"}\n{\"key\":\"b\",\"value\":1}\n", None);
        let second = read(
            "{\"key\":\"a\",\"value\":\"same\"}\n{\"key\":\"b\",\"value\":2}\n{\"key\":\"c\",\"value\":3}\n",
            Some(&first),
        );
        let text = |state: &RestoredState, key| {
            state.state.store().value(key).map(Value::as_json).map(|json| (json.to_owned(), json.as_ptr()))
        };
        assert_eq!(text(&first, "a"), text(&second, "a"), "the very same memory");
        assert_eq!(text(&first, "b").map(|(json, _)| json), Some("1".into()));
        assert_eq!(text(&second, "b").map(|(json, _)| json), Some("2".into()));
        assert_eq!(text(&second, "c").map(|(json, _)| json), Some("3".into()));
        assert_eq!(second.state.store().len(), 3);
    }
}
