//! Leader Completeness: if an entry is committed, it is present in the logs of the leaders of all
//! later terms (Raft, Figure 3; S4). The check is made when a leader is elected, for the last entry
//! that is committed at that time.

use coracle_core::raft::Event;
use coracle_core::{Output, Replica};

use super::{CommittedEntry, Verdict, require};

pub(super) fn check(replica: &Replica, outputs: &[Output], committed: &[CommittedEntry]) -> Verdict {
    // The term of the election. In the same turn, the node may have learned of a newer term and may
    // follow by now.
    let elected_in = outputs.iter().rev().find_map(|output| match output {
        Output::Event(Event::BecameLeader { term, .. }) => Some(*term),
        _ => None,
    });
    let Some((term, last)) = elected_in.zip(committed.last()) else { return Ok(()) };
    let node = replica.node();
    // A leader of an older term than the entry's may be elected late. It cannot commit anything any
    // more.
    let is_later = term > last.point.term;
    let held = node.log().point_at(last.point.index);
    require(!is_later || held == Some(last.point), "leader_completeness", || {
        format!("leader {} of term {term} lacks the committed entry {}", node.id(), last.point.index)
    })
}
