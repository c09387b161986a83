//! A request is applied at most once, however often the proxy sent it (S11, without sessions), and never when its client was
//! told that nothing happened. Every value that a simulated client writes is unlike any other, so payloads tell requests
//! apart.

use std::collections::{BTreeMap, BTreeSet};

use coracle_core::proxy::Failure;
use coracle_core::raft::LogIndex;

use super::{Verdict, require};
use crate::simulator::clients::{Operation, Returned};

/// Where each payload with a value was committed.
#[derive(Debug, Default)]
pub(super) struct ExactlyOnce {
    places: BTreeMap<Box<str>, LogIndex>,
    /// Payloads of which their clients were told that nothing happened and nothing will.
    refused: BTreeSet<Box<str>>,
}

impl ExactlyOnce {
    pub(super) fn check(&mut self, index: LogIndex, payload: &str) -> Verdict {
        if !has_value(payload) {
            return Ok(());
        }
        require(!self.refused.contains(payload), "exactly_once", || {
            format!("{payload} is committed at {index}; its client was told that nothing happened")
        })?;
        let before = self.places.insert(payload.into(), index);
        require(before.is_none(), "exactly_once", || {
            format!("{payload} is committed at {before:?} and at {index}")
        })
    }

    pub(super) fn returned(&mut self, operation: &Operation, returned: &Returned) -> Verdict {
        let nothing_happened =
            matches!(returned, Returned::Failed(Failure::NoLeader | Failure::Busy | Failure::ShuttingDown));
        let Some(payload) = operation.payload.as_ref().filter(|text| nothing_happened && has_value(text))
        else {
            return Ok(());
        };
        self.refused.insert(payload.clone());
        require(!self.places.contains_key(payload), "exactly_once", || {
            format!("{payload} is committed, and its client is told that nothing happened")
        })
    }
}

fn has_value(payload: &str) -> bool {
    payload.contains("\"value\":")
}
