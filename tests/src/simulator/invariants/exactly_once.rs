//! A request is applied at most once, however often the proxy sent it (S11, without sessions). Every value that a simulated
//! client writes is unlike any other, so a payload that is committed twice was.

use std::collections::BTreeMap;

use coracle_core::raft::LogIndex;

use super::{Verdict, require};

/// Where each payload with a value was committed.
#[derive(Debug, Default)]
pub(super) struct ExactlyOnce {
    places: BTreeMap<Box<str>, LogIndex>,
}

impl ExactlyOnce {
    pub(super) fn check(&mut self, index: LogIndex, payload: &str) -> Verdict {
        if !payload.contains("\"value\":") {
            return Ok(());
        }
        let before = self.places.insert(payload.into(), index);
        require(before.is_none(), "exactly_once", || {
            format!("{payload} is committed at {before:?} and at {index}")
        })
    }
}
