//! Recovery: a node that restarts has everything that was durable when it went down: term, vote,
//! snapshot and log (S15). Entries that a snapshot covers need not be in the log. A log that does
//! not agree with the snapshot was never committed.

use coracle_core::raft::LogPoint;

use super::{Process, Verdict, require};
use crate::simulator::durable::DurableState;

pub(super) fn check(process: &Process, before: &DurableState) -> Verdict {
    let id = process.id;
    let (old, new) = (before.hard_state, process.durable.hard_state);
    let keeps_term = new.current_term > old.current_term
        || new == old
        || (new.current_term == old.current_term && old.voted_for.is_none());
    require(keeps_term, "recoverability", || {
        format!("node {id} had {old:?} on disk and came back with {new:?}")
    })?;
    // `before` excludes the entries that a cut in progress may have removed. A leader of a later
    // term had ordered the cut.
    let now = &process.durable;
    require(now.snapshot_index() >= before.snapshot_index(), "recoverability", || {
        format!("node {id} had snapshot {:?} on disk and came back with {:?}", before.snapshot, now.snapshot)
    })?;
    let agrees = now
        .snapshot
        .is_none_or(|last| last.index < before.log_start.index || before.point_at(last.index) == Some(last));
    let is_lost = |point: &&LogPoint| point.index > now.snapshot_index() && !now.holds(**point);
    let lost = before.log.iter().find(is_lost).filter(|_| agrees);
    require(lost.is_none(), "recoverability", || {
        format!("node {id} had {lost:?} on disk and came back with entries up to {}", now.end().index)
    })
}
