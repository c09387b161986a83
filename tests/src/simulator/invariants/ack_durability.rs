//! An acknowledgement of entries leaves a node only when they are on its disk, on every path (S8). A term that leaves with a
//! response is on disk as well.

use coracle_core::raft::{AppendEntriesResponse, AppendOutcome, Message};

use super::{Verdict, require};
use crate::simulator::process::DurableState;

pub(super) fn check(message: &Message, response: &AppendEntriesResponse, durable: &DurableState) -> Verdict {
    require(durable.hard_state.current_term >= message.term, "ack_durability", || {
        format!("node {} answers in term {}, which is not on its disk", message.from, message.term)
    })?;
    let AppendOutcome::Accepted { match_index } = response.outcome else { return Ok(()) };
    require(durable.point_at(match_index).is_some(), "ack_durability", || {
        format!("node {} acknowledges {match_index} and has {} on disk", message.from, durable.log.len())
    })
}
