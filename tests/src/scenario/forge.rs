//! Hand-made disks and messages, for scenarios in which one node is real and the scenario plays the
//! others.

use coracle_core::raft::{
    AppendEntries, AppendEntriesResponse, AppendOutcome, BatchBuilder, Body, Entries, HardState, Heartbeat,
    HeartbeatResponse, LogIndex, LogPoint, Message, NodeId, ReadRound, RequestVote, RequestVoteResponse,
    Restored, Term,
};

/// Creates a disk with a log of these terms and no vote. Its term is that of the last entry.
#[must_use]
pub fn disk_of(log_terms: &[u64]) -> Restored {
    disk_in_term(log_terms.last().copied().unwrap_or(0), log_terms)
}

/// Creates a disk with this term, no vote, and a log of these terms.
#[must_use]
pub fn disk_in_term(term: u64, log_terms: &[u64]) -> Restored {
    Restored {
        hard_state: HardState { current_term: Term(term), voted_for: None },
        snapshot: None,
        log_start: LogPoint::ORIGIN,
        log: entries_of(log_terms, 1),
    }
}

/// The entries of a log of these terms, from the index `first` on. Logs of the same terms have the
/// same bytes.
#[must_use]
pub fn entries_of(log_terms: &[u64], first: u64) -> Vec<Entries> {
    let mut builder = BatchBuilder::new(LogPoint::ORIGIN);
    for (position, term) in log_terms.iter().enumerate() {
        let text = format!("\"op\":\"PUT\",\"key\":\"{}@{term}\",\"value\":{term}", position + 1);
        builder.seal(Term(*term), |line| line.push_str(&text));
    }
    let all = builder.finish();
    let rest = all.filter(|all| all.last().index.0 >= first).and_then(|all| all.starting_at(LogIndex(first)));
    rest.into_iter().collect()
}

/// Creates a message.
#[must_use]
pub fn message(from: u64, to: u64, term: u64, body: Body) -> Message {
    Message { from: NodeId(from), incarnation: None, to: NodeId(to), term: Term(term), body }
}

/// RequestVote from a candidate whose log ends with `last`, an index and a term.
#[must_use]
pub fn request_vote(from: u64, to: u64, term: u64, last: (u64, u64)) -> Message {
    message(from, to, term, Body::RequestVote(vote(term, last)))
}

/// RequestPreVote for the term after `term`, from a candidate whose log ends with `last`.
#[must_use]
pub fn request_pre_vote(from: u64, to: u64, term: u64, last: (u64, u64)) -> Message {
    message(from, to, term, Body::RequestPreVote(vote(term + 1, last)))
}

fn vote(election_term: u64, last: (u64, u64)) -> RequestVote {
    RequestVote {
        election_term: Term(election_term),
        round: 1,
        last_log_index: LogIndex(last.0),
        last_log_term: Term(last.1),
        is_transfer: false,
    }
}

/// AppendEntries from the leader `from`, with all entries of a log of these terms after the index
/// `prev`.
#[must_use]
pub fn append(from: u64, to: u64, term: u64, log_terms: &[u64], prev: u64, leader_commit: u64) -> Message {
    let before = prev
        .checked_sub(1)
        .map_or(0, |position| log_terms[usize::try_from(position).expect("scenario logs are short")]);
    let append = AppendEntries {
        sequence: 1,
        prev_log_index: LogIndex(prev),
        prev_log_term: Term(before),
        prev_log_checksum: None,
        entries: entries_of(log_terms, prev + 1).into(),
        leader_commit: LogIndex(leader_commit),
    };
    message(from, to, term, Body::AppendEntries(append))
}

/// Heartbeat of a leader, outside of any read round.
#[must_use]
pub fn heartbeat(from: u64, to: u64, term: u64, leader_commit: u64) -> Message {
    message(
        from,
        to,
        term,
        Body::Heartbeat(Heartbeat {
            leader_commit: LogIndex(leader_commit),
            commit_checksum: None,
            round: ReadRound(0),
            elapsed: None,
        }),
    )
}

/// Response to a heartbeat outside of any read round.
#[must_use]
pub fn heartbeat_response(from: u64, to: u64, term: u64) -> Message {
    heard_in_round(from, to, term, 0)
}

/// Response to a heartbeat of this read round.
#[must_use]
pub fn heard_in_round(from: u64, to: u64, term: u64, round: u64) -> Message {
    message(from, to, term, Body::HeartbeatResponse(HeartbeatResponse { round: ReadRound(round) }))
}

/// Response that reports a newer term to any call of an older one.
#[must_use]
pub fn newer_term(from: u64, to: u64, term: u64) -> Message {
    message(from, to, term, Body::NewerTerm)
}

/// Response that accepts an AppendEntries call: the follower holds the leader's log up to
/// `match_index`.
#[must_use]
pub fn accepted(from: u64, to: u64, term: u64, match_index: u64) -> Message {
    let outcome = AppendOutcome::Accepted { match_index: LogIndex(match_index) };
    answer_to_append(from, to, term, 1, outcome)
}

/// Response that rejects the AppendEntries call with number `sequence`, because the follower lacks
/// the entry before its entries. The hint is the index and term up to which the logs may agree.
#[must_use]
pub fn rejected(from: u64, to: u64, term: u64, sequence: u64, hint: (u64, u64)) -> Message {
    let outcome = AppendOutcome::Rejected { hint_index: LogIndex(hint.0), hint_term: Term(hint.1) };
    answer_to_append(from, to, term, sequence, outcome)
}

fn answer_to_append(from: u64, to: u64, term: u64, sequence: u64, outcome: AppendOutcome) -> Message {
    message(from, to, term, Body::AppendEntriesResponse(AppendEntriesResponse { sequence, outcome }))
}

/// A voter's response to an intercepted RequestVote or RequestPreVote.
///
/// # Panics
///
/// When `call` is neither of the two.
#[must_use]
pub fn vote_answer(call: &Message, granted: bool) -> Message {
    let answer = |request: RequestVote| RequestVoteResponse { round: request.round, granted };
    let body = match call.body {
        Body::RequestVote(request) => Body::RequestVoteResponse(answer(request)),
        Body::RequestPreVote(request) => Body::RequestPreVoteResponse(answer(request)),
        _ => panic!("{call:?} does not call for a vote"),
    };
    Message { from: call.to, incarnation: None, to: call.from, term: call.term, body }
}

/// Whether a vote response grants the vote; `None` for other messages.
#[must_use]
pub fn granted(message: &Message) -> Option<bool> {
    match message.body {
        Body::RequestVoteResponse(response) | Body::RequestPreVoteResponse(response) => {
            Some(response.granted)
        }
        _ => None,
    }
}

/// The outcome of an AppendEntries response; `None` for other messages.
#[must_use]
pub fn outcome(message: &Message) -> Option<AppendOutcome> {
    match &message.body {
        Body::AppendEntriesResponse(response) => Some(response.outcome),
        _ => None,
    }
}

/// The AppendEntries call in a message; `None` for other messages.
#[must_use]
pub fn as_append(message: &Message) -> Option<&AppendEntries> {
    match &message.body {
        Body::AppendEntries(append) => Some(append),
        _ => None,
    }
}
