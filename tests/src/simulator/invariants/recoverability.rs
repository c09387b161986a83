//! A node that starts again has everything that was durable when it went down: term, vote and log (S15).

use super::{Process, Verdict, require};
use crate::simulator::process::DurableState;

pub(super) fn check(process: &Process, before: &DurableState) -> Verdict {
    let id = process.id;
    let (old, new) = (before.hard_state, process.durable.hard_state);
    let keeps_term = new.current_term > old.current_term
        || new == old
        || (new.current_term == old.current_term && old.voted_for.is_none());
    require(keeps_term, "recoverability", || {
        format!("node {id} had {old:?} on disk and came back with {new:?}")
    })?;
    // `before` is without what a cut under way may have taken: a leader of a later term had ordered it.
    let kept = process.durable.log.iter().zip(&before.log).take_while(|(new, old)| new == old).count();
    let lost_nothing = kept == before.log.len();
    require(lost_nothing, "recoverability", || {
        format!("node {id} had {} entries on disk and came back with {kept} of them", before.log.len())
    })
}
