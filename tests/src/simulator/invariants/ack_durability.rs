//! Durability of acknowledgements: a node acknowledges entries only when they are on its disk, in
//! the log or in a snapshot, on every code path (S8). The term of a response is durable as well.

use coracle_core::raft::{
    AppendEntriesResponse, AppendOutcome, InstallOutcome, InstallSnapshotResponse, LogIndex, Message,
};

use super::{Verdict, require};
use crate::simulator::durable::DurableState;

pub(super) fn check(message: &Message, response: &AppendEntriesResponse, durable: &DurableState) -> Verdict {
    check_term(message, durable)?;
    let AppendOutcome::Accepted { match_index } = response.outcome else { return Ok(()) };
    check_entries(message, match_index, durable)
}

pub(super) fn check_install(
    message: &Message,
    response: &InstallSnapshotResponse,
    durable: &DurableState,
) -> Verdict {
    check_term(message, durable)?;
    match response.outcome {
        InstallOutcome::Installed => check_entries(message, response.last.index, durable),
        InstallOutcome::Holds { .. } => Ok(()),
    }
}

fn check_term(message: &Message, durable: &DurableState) -> Verdict {
    require(durable.hard_state.current_term >= message.term, "ack_durability", || {
        format!("node {} answers in term {}, which is not on its disk", message.from, message.term)
    })
}

fn check_entries(message: &Message, match_index: LogIndex, durable: &DurableState) -> Verdict {
    require(durable.reaches(match_index), "ack_durability", || {
        let end = durable.end().index;
        format!("node {} acknowledges {match_index} and has entries up to {end} on disk", message.from)
    })
}
