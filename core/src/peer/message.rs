//! Encoding of Raft's messages, with validation of everything that another node sends.
//!
//! A message arrives in a frame whose checksum matches, so its bytes are those that were sent. The
//! naive way is to trust them. But the checksum says nothing about the sender: a node with a bug or
//! faulty memory may send an entry that differs from the one that was sealed, a configuration that
//! cannot be decoded, or a term near the end of its range. Such a value would be written to the log
//! and spread by the leader, and no later value could correct it. So decoding is strict: the
//! checksum chain of entries is verified from the entry before them, configurations must be
//! decodable, and terms and indexes have limits. The number of entries that a sender states never
//! decides how much memory is reserved. An invalid message ends its connection.
//!
//! Entries travel as the lines of text that the log and the disk share, so a leader does not encode
//! them again for each follower.

use std::sync::Arc;
use std::time::Duration;

use super::wire::{Reader, Writer};
use crate::raft::{
    AppendEntries, AppendEntriesResponse, AppendOutcome, BatchBuilder, Body, Checksum, Configuration,
    ELAPSED_MAX, Elapsed, Entries, Heartbeat, HeartbeatResponse, InstallOutcome, InstallSnapshotResponse,
    LogIndex, LogPoint, Message, NodeId, ReadBatch, ReadIndex, ReadIndexResponse, ReadRound, RequestVote,
    RequestVoteResponse, Runs, SnapshotEnd, SnapshotMeta, SnapshotPart, Term,
};
use crate::time::micros;

pub(super) fn write(message: &Message, to: &mut Writer<'_>) {
    to.u64(message.from.0);
    to.u64(message.to.0);
    to.u64(message.term.0);
    match &message.body {
        Body::RequestPreVote(call) => write_vote(1, *call, to),
        Body::RequestPreVoteResponse(response) => write_vote_response(2, *response, to),
        Body::RequestVote(call) => write_vote(3, *call, to),
        Body::RequestVoteResponse(response) => write_vote_response(4, *response, to),
        Body::AppendEntries(append) => {
            to.u8(5);
            write_append(append, to);
        }
        Body::AppendEntriesResponse(response) => {
            to.u8(6);
            write_append_response(*response, to);
        }
        Body::Heartbeat(heartbeat) => {
            write_heartbeat(heartbeat, to);
        }
        Body::HeartbeatResponse(response) => {
            to.u8(8);
            to.u64(response.round.0);
        }
        Body::NewerTerm => to.u8(9),
        Body::ReadIndex(question) => {
            to.u8(10);
            to.u64(question.batch.0);
        }
        Body::ReadIndexResponse(response) => {
            to.u8(11);
            to.u64(response.batch.0);
            to.option(response.index, |to, index| to.u64(index.0));
        }
        Body::InstallSnapshot(part) => {
            to.u8(12);
            write_part(part, to);
        }
        Body::InstallSnapshotResponse(response) => {
            to.u8(13);
            write_point(response.last, to);
            match response.outcome {
                InstallOutcome::Holds { bytes } => to.option(Some(bytes), Writer::u64),
                InstallOutcome::Installed => to.bool(false),
            }
        }
        Body::TimeoutNow => to.u8(14),
    }
}

/// Decodes a message; `None` when it is not a message of this version, or an entry of it is
/// invalid.
pub(super) fn read(from: &mut Reader<'_>) -> Option<Message> {
    let (sender, receiver, term) = (NodeId(from.u64()?), NodeId(from.u64()?), read_term(from)?);
    let body = match from.u8()? {
        1 => Body::RequestPreVote(read_vote(from)?),
        2 => Body::RequestPreVoteResponse(read_vote_response(from)?),
        3 => Body::RequestVote(read_vote(from)?),
        4 => Body::RequestVoteResponse(read_vote_response(from)?),
        5 => Body::AppendEntries(read_append(from)?),
        6 => Body::AppendEntriesResponse(read_append_response(from)?),
        kind @ (7 | 15 | 16) => Body::Heartbeat(read_heartbeat(kind, from)?),
        8 => Body::HeartbeatResponse(HeartbeatResponse { round: ReadRound(from.u64()?) }),
        9 => Body::NewerTerm,
        10 => Body::ReadIndex(ReadIndex { batch: ReadBatch(from.u64()?) }),
        11 => {
            let batch = ReadBatch(from.u64()?);
            let index = from.option(read_index)?;
            Body::ReadIndexResponse(ReadIndexResponse { batch, index })
        }
        12 => Body::InstallSnapshot(read_part(from)?),
        13 => {
            let last = read_point(from)?;
            let outcome = match from.option(Reader::u64)? {
                Some(bytes) => InstallOutcome::Holds { bytes },
                None => InstallOutcome::Installed,
            };
            Body::InstallSnapshotResponse(InstallSnapshotResponse { last, outcome })
        }
        14 => Body::TimeoutNow,
        _ => return None,
    };
    // The connection knows the sender's incarnation.
    Some(Message { from: sender, incarnation: None, to: receiver, term, body })
}

/// Encodes a heartbeat. Programs without levels know only the kinds without an age.
fn write_heartbeat(heartbeat: &Heartbeat, to: &mut Writer<'_>) {
    match (heartbeat.elapsed, heartbeat.commit_checksum) {
        (Some(_), _) => to.u8(16),
        (None, Some(_)) => to.u8(15),
        (None, None) => to.u8(7),
    }
    to.u64(heartbeat.leader_commit.0);
    match (heartbeat.elapsed, heartbeat.commit_checksum) {
        (Some(Elapsed { since, time }), checksum) => {
            to.option(checksum, |to, checksum| to.u32(checksum.0));
            to.u64(since.0);
            to.u64(micros(time));
        }
        (None, Some(checksum)) => to.u32(checksum.0),
        (None, None) => {}
    }
    to.u64(heartbeat.round.0);
}

fn read_heartbeat(kind: u8, from: &mut Reader<'_>) -> Option<Heartbeat> {
    let leader_commit = read_index(from)?;
    let commit_checksum = match kind {
        16 => from.option(|from| from.u32().map(Checksum))?,
        15 => Some(Checksum(from.u32()?)),
        _ => None,
    };
    let elapsed = match kind {
        16 => {
            let (since, time) = (read_index(from)?, Duration::from_micros(from.u64()?));
            (time <= ELAPSED_MAX).then_some(Some(Elapsed { since, time }))?
        }
        _ => None,
    };
    Some(Heartbeat { leader_commit, commit_checksum, round: ReadRound(from.u64()?), elapsed })
}

fn write_vote(kind: u8, call: RequestVote, to: &mut Writer<'_>) {
    to.u8(kind);
    to.u64(call.election_term.0);
    to.u64(call.round);
    to.u64(call.last_log_index.0);
    to.u64(call.last_log_term.0);
    to.bool(call.is_transfer);
}

fn read_vote(from: &mut Reader<'_>) -> Option<RequestVote> {
    Some(RequestVote {
        election_term: read_term(from)?,
        round: from.u64()?,
        last_log_index: read_index(from)?,
        last_log_term: read_term(from)?,
        is_transfer: from.bool()?,
    })
}

fn write_vote_response(kind: u8, response: RequestVoteResponse, to: &mut Writer<'_>) {
    to.u8(kind);
    to.u64(response.round);
    to.bool(response.granted);
}

fn read_vote_response(from: &mut Reader<'_>) -> Option<RequestVoteResponse> {
    Some(RequestVoteResponse { round: from.u64()?, granted: from.bool()? })
}

fn write_append(append: &AppendEntries, to: &mut Writer<'_>) {
    let checksum = append.prev_log_checksum.unwrap_or_default();
    to.u64(append.sequence);
    to.u64(append.leader_commit.0);
    write_point(LogPoint { index: append.prev_log_index, term: append.prev_log_term, checksum }, to);
    let count: usize = append.entries.iter().map(Entries::len).sum();
    to.u32(u32::try_from(count).expect("a frame holds fewer"));
    for run in &append.entries {
        to.text(run.text());
    }
    to.text("");
}

fn read_append(from: &mut Reader<'_>) -> Option<AppendEntries> {
    let (sequence, leader_commit) = (from.u64()?, read_index(from)?);
    let before = read_point(from)?;
    let count = usize::try_from(from.u32()?).ok()?;
    let mut batch = BatchBuilder::new(before);
    let mut entries = Runs::new();
    let mut found = 0;
    loop {
        let text = from.text()?;
        if text.is_empty() {
            break;
        }
        // The sender states the count, so it must not make this node reserve more memory than the
        // text can fill with entries.
        batch.reserve((count - found.min(count)).min(text.len() / 32 + 1), text.len());
        for line in text.strip_suffix('\n')?.split('\n') {
            batch.accept(line.as_bytes()).ok()?;
            found += 1;
        }
        entries.extend(batch.finish());
    }
    let (prev_log_index, prev_log_term) = (before.index, before.term);
    // An earlier version of the program sends no checksum in a call without entries.
    let has_none = entries.is_empty() && before.checksum == Checksum::default();
    let prev_log_checksum = (!has_none).then_some(before.checksum);
    let is_known = entries.iter().all(Entries::configurations_are_known);
    let has_room = entries.last().is_none_or(|run| run.last().index <= LogIndex::MAX);
    (found == count && is_known && has_room).then_some(AppendEntries {
        sequence,
        prev_log_index,
        prev_log_term,
        prev_log_checksum,
        entries,
        leader_commit,
    })
}

fn write_append_response(response: AppendEntriesResponse, to: &mut Writer<'_>) {
    to.u64(response.sequence);
    match response.outcome {
        AppendOutcome::Accepted { match_index } => {
            to.bool(true);
            to.u64(match_index.0);
        }
        AppendOutcome::Rejected { hint_index, hint_term } => {
            to.bool(false);
            to.u64(hint_index.0);
            to.u64(hint_term.0);
        }
    }
}

fn read_append_response(from: &mut Reader<'_>) -> Option<AppendEntriesResponse> {
    let sequence = from.u64()?;
    let outcome = if from.bool()? {
        AppendOutcome::Accepted { match_index: read_index(from)? }
    } else {
        AppendOutcome::Rejected { hint_index: read_index(from)?, hint_term: read_term(from)? }
    };
    Some(AppendEntriesResponse { sequence, outcome })
}

pub(super) fn write_point(point: LogPoint, to: &mut Writer<'_>) {
    to.u64(point.index.0);
    to.u64(point.term.0);
    to.u32(point.checksum.0);
}

/// Decodes an index, within the limit that a correct node can reach.
pub(super) fn read_index(from: &mut Reader<'_>) -> Option<LogIndex> {
    from.u64().map(LogIndex).filter(|index| *index <= LogIndex::MAX)
}

/// Decodes a term, within the same kind of limit. Raft decides how far a message's term may be
/// above the node's term.
fn read_term(from: &mut Reader<'_>) -> Option<Term> {
    from.u64().map(Term).filter(|term| *term <= Term::MAX)
}

pub(super) fn read_point(from: &mut Reader<'_>) -> Option<LogPoint> {
    let (index, term) = (read_index(from)?, read_term(from)?);
    Some(LogPoint { index, term, checksum: Checksum(from.u32()?) })
}

pub(super) fn write_part(part: &SnapshotPart, to: &mut Writer<'_>) {
    write_point(part.meta.last, to);
    write_configuration(&part.meta.configuration, to);
    to.u64(part.offset);
    to.text(&part.text);
    to.option(part.end, |to, end| {
        to.u64(end.bytes);
        to.u32(end.checksum.0);
    });
}

pub(super) fn read_part(from: &mut Reader<'_>) -> Option<SnapshotPart> {
    let (last, configuration) = (read_point(from)?, read_configuration(from)?);
    Some(SnapshotPart {
        meta: SnapshotMeta { last, configuration },
        offset: from.u64()?,
        text: Arc::from(from.text()?),
        end: from.option(|from| {
            let (bytes, checksum) = (from.u64()?, Checksum(from.u32()?));
            Some(SnapshotEnd { bytes, checksum })
        })?,
    })
}

/// Encodes a configuration as in the log.
pub(super) fn write_configuration(configuration: &Configuration, to: &mut Writer<'_>) {
    to.text(&configuration.to_payload());
}

pub(super) fn read_configuration(from: &mut Reader<'_>) -> Option<Configuration> {
    Configuration::read(from.text()?)
}
