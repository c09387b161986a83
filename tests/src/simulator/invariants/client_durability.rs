//! Durability for clients: an acknowledged write is committed permanently, and the entry at its
//! index is that write (S10).

use super::{CommittedEntry, Verdict, committed_at, require};
use crate::simulator::clients::{Operation, Returned};

pub(super) fn check(operation: &Operation, returned: &Returned, committed: &[CommittedEntry]) -> Verdict {
    let Returned::Applied { index, .. } = returned else { return Ok(()) };
    let entry = committed_at(committed, *index);
    require(entry.is_some(), "client_durability", || {
        format!("acknowledged at {index}, which is not committed")
    })?;
    let is_it = operation.payload.as_deref() == entry.map(|entry| &*entry.payload);
    require(is_it, "client_durability", || {
        format!(
            "acknowledged {:?} at {index}, where {:?} is committed",
            operation.payload,
            entry.map(|entry| &entry.payload)
        )
    })
}
