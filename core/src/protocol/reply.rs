//! The encoding of replies: the lines that the server sends to clients.

use super::backup::{push_part, push_pending};
use super::request::{BadRequest, Shape};
use crate::kv::{
    Found, Item, Key, KeyMeta, Outcome, Page, Revision, Txn, TxnOperation, TxnOutcome, TxnResult, Value,
    push, push_json_string,
};
use crate::memory::{Holder, MemoryReport, MemoryUse};
use crate::proxy::{Answered, ClusterReport, NodeReport, Reply, RequestError};
use crate::raft::{Configuration, LogIndex};
use crate::replica::{Answer, Status};

/// The message for an expired session. The error is definite for the request that got it, but not
/// for an earlier one.
const SESSION_EXPIRED: &str = "this session or sequence number has expired: this request had no effect, but \
    an earlier request with the same number may have; start a new session with a new client name";
const TOO_MANY_SESSIONS: &str = "too many sessions were started within ten minutes: this request had no \
    effect; retry later, or use a session that is in use";

/// The members of the reply for a key that does not exist.
const NOT_FOUND: &str =
    ",\"status\":\"error\",\"error\":\"not_found\",\"message\":\"no such key\",\"definite\":true";

/// The message for a request whose session and sequence number belong to another kind of request.
const OTHER_REQUEST: &str = "an earlier request with this session and sequence number was of another kind, \
    and has been carried out; this one had no effect";

/// The line for a client above the limit of connections, which is then disconnected.
#[must_use]
pub fn busy_line() -> String {
    let mut line = String::new();
    push_error(&mut line, "busy", "too many connections", true);
    close(&mut line, None);
    line
}

/// The last line for a client that is disconnected because `holder` uses too much memory.
#[must_use]
pub fn given_up_line(holder: Holder) -> String {
    if holder == Holder::Connections {
        return busy_line();
    }
    let mut line = String::new();
    let message =
        format!("the server closes this connection: {holder} have reached their memory limit (--memory-max)");
    push_error(&mut line, "busy", &message, true);
    close(&mut line, None);
    line
}

/// Appends the reply to a request of this shape.
pub(super) fn push_reply(
    line: &mut String,
    shape: &Shape,
    wants_meta: bool,
    id: Option<&str>,
    reply: &Reply,
    address: Option<&str>,
) {
    match reply {
        Err(failure) => {
            let message = if shape.only_reads() { failure.message_of_read() } else { failure.to_string() };
            push_error(line, code_of(*failure), &message, failure.is_definite());
            push_key_of(line, shape);
        }
        Ok(Answered::Status(report)) => push_status(line, report, address),
        Ok(Answered::ByNode(answer)) => push_answer(line, shape, wants_meta, answer),
    }
    close(line, id);
}

/// Appends the reply to a ping.
pub(super) fn push_pong(line: &mut String, id: Option<&str>) {
    line.push_str("{\"status\":\"ok\"");
    close(line, id);
}

/// Appends the reply to an invalid line.
/// Appends the reply to a valid token.
pub(super) fn push_authenticated(line: &mut String, name: &str, id: Option<&str>) {
    line.push_str("{\"name\":");
    push_json_string(line, name);
    line.push_str(",\"status\":\"ok\"");
    close(line, id);
}

pub(super) fn push_bad_request(line: &mut String, bad: &BadRequest) {
    let code = if bad.is_too_large { "too_large" } else { "bad_request" };
    push_error(line, code, &bad.message, true);
    if let Some(key) = &bad.key {
        line.push_str(",\"key\":");
        push_json_string(line, key);
    }
    close(line, bad.id.as_deref());
}

fn push_answer(line: &mut String, shape: &Shape, wants_meta: bool, answer: &Answer) {
    match (shape, answer) {
        (_, Answer::Applied { outcome, meta, .. }) => {
            push_outcome(line, shape, wants_meta, outcome, *meta);
        }
        (Shape::Get { key, .. }, Answer::Read { found: Found::Value(Some(value)), .. }) => {
            push_key_and_value(line, key, value.as_json());
            line.push_str(",\"status\":\"ok\"");
        }
        (Shape::Get { key, .. }, Answer::Read { found: Found::Entry(Some((value, meta))), .. }) => {
            push_key_and_value(line, key, value.as_json());
            push_meta(line, Some(*meta));
            line.push_str(",\"status\":\"ok\"");
        }
        (
            Shape::Get { key, is_plain },
            Answer::Read { found: Found::Value(None) | Found::Entry(None), .. },
        ) => {
            push_key_and_value(line, key, "null");
            line.push_str(if *is_plain { ",\"status\":\"error\"" } else { NOT_FOUND });
        }
        (_, Answer::Read { found: Found::Count(keys), .. }) => {
            push(line, format_args!("{{\"count\":{keys},\"status\":\"ok\""));
        }
        (_, Answer::Members(index, configuration) | Answer::MembershipChanged(index, configuration)) => {
            push_members(line, *index, configuration);
        }
        (_, Answer::BackupPart(part)) => push_part(line, part),
        (_, Answer::BackupPending(covering)) => push_pending(line, *covering),
        (_, Answer::Transferred { to }) => push(line, format_args!("{{\"leader\":{to},\"status\":\"ok\"")),
        (shape, answer) => panic!("the answer {answer:?} does not fit the request {shape:?}"),
    }
}

fn push_outcome(line: &mut String, shape: &Shape, wants_meta: bool, outcome: &Outcome, found: KeyMeta) {
    let meta = Some(found).filter(|_| wants_meta);
    match (shape, outcome) {
        (Shape::Put { key, value, ttl } | Shape::Cas { key, value, ttl, .. }, Outcome::Done) => {
            push_key_and_value(line, key, value.as_json());
            push_meta(line, meta.map(|meta| KeyMeta { ttl: *ttl, ..meta }));
            line.push_str(",\"status\":\"ok\"");
        }
        (Shape::Delete { key }, Outcome::Done) => push_done(line, key, meta),
        (Shape::Touch { key, ttl }, Outcome::Done) => {
            push_done(line, key, meta.map(|meta| KeyMeta { ttl: *ttl, ..meta }));
        }
        (Shape::Incr { key }, Outcome::Sum(sum)) => {
            push_key_and_sum(line, key, *sum);
            push_meta(line, meta);
            line.push_str(",\"status\":\"ok\"");
        }
        (Shape::DeletePrefix, Outcome::Deleted { keys, more }) => {
            push(line, format_args!("{{\"deleted\":{keys},\"more\":{more},\"status\":\"ok\""));
        }
        (Shape::Txn(txn), Outcome::Txn(done)) if fits(txn, done) => push_txn(line, txn, done, found.rev),
        (_, Outcome::Mismatch { actual }) => {
            let by_rev = matches!(shape, Shape::Delete { .. } | Shape::Cas { by_rev: true, .. });
            let what = if by_rev { "revision" } else { "value" };
            push_error(line, "cas_mismatch", &format!("the key has another {what} than expected"), true);
            push_key_of(line, shape);
            line.push_str(",\"actual\":");
            line.push_str(actual.as_ref().map_or("null", Value::as_json));
            let rev = KeyMeta { created: Revision::NONE, ..found };
            push_meta(line, meta.or_else(|| by_rev.then_some(rev)));
        }
        (_, outcome) => {
            let (code, message) = match outcome {
                Outcome::NotFound => ("not_found", "no such key"),
                Outcome::NotANumber => ("not_a_number", "the value to increment is not a whole number"),
                Outcome::OutOfRange => ("out_of_range", "the sum does not fit a signed 64-bit number"),
                Outcome::TooLarge => ("too_large", "the values that the transaction reads are too large"),
                Outcome::SessionExpired => ("session_expired", SESSION_EXPIRED),
                Outcome::TooManySessions => ("busy", TOO_MANY_SESSIONS),
                _ => ("bad_request", OTHER_REQUEST),
            };
            push_error(line, code, message, true);
            push_key_of(line, shape);
        }
    }
}

fn push_done(line: &mut String, key: &Key, meta: Option<KeyMeta>) {
    line.push_str("{\"key\":");
    push_json_string(line, key.as_str());
    push_meta(line, meta);
    line.push_str(",\"status\":\"ok\"");
}

fn push_key_and_value(line: &mut String, key: &Key, json: &str) {
    line.push_str("{\"key\":");
    push_json_string(line, key.as_str());
    line.push_str(",\"value\":");
    line.push_str(json);
}

fn push_key_and_sum(line: &mut String, key: &Key, sum: i64) {
    push_key_and_value(line, key, "");
    push(line, format_args!("{sum}"));
}

/// Appends revisions and the time to live, as far as the key has them.
fn push_meta(line: &mut String, meta: Option<KeyMeta>) {
    let Some(KeyMeta { rev, created, ttl }) = meta else { return };
    push(line, format_args!(",\"rev\":{rev}"));
    if created > Revision::NONE {
        push(line, format_args!(",\"created\":{created}"));
    }
    if let Some(ttl) = ttl {
        push(line, format_args!(",\"ttl_ms\":{}", ttl.ms()));
    }
}

/// Returns whether the outcome can be that of this transaction, and not of another one that had the
/// same session and sequence number.
fn fits(txn: &Txn, outcome: &TxnOutcome) -> bool {
    let operations = txn.branch(outcome.succeeded);
    let is_right = |(operation, result): (&TxnOperation, &TxnResult)| match operation {
        TxnOperation::Put { .. } => *result == TxnResult::Done,
        TxnOperation::Delete { .. } => matches!(result, TxnResult::Done | TxnResult::NotFound),
        TxnOperation::Incr { .. } => matches!(result, TxnResult::Sum(_)),
        TxnOperation::Get { .. } => matches!(result, TxnResult::Found(_)),
    };
    operations.len() == outcome.results.len() && operations.iter().zip(&outcome.results).all(is_right)
}

/// Appends the outcome of a transaction, with a reply for each operation as it would be alone.
fn push_txn(line: &mut String, txn: &Txn, outcome: &TxnOutcome, rev: Revision) {
    push(line, format_args!("{{\"succeeded\":{},\"replies\":[", outcome.succeeded));
    for (position, (operation, result)) in
        txn.branch(outcome.succeeded).iter().zip(&outcome.results).enumerate()
    {
        line.push_str(if position > 0 { "," } else { "" });
        let key = operation.key();
        match (operation, result) {
            (TxnOperation::Put { value, .. }, _) => push_key_and_value(line, key, value.as_json()),
            (_, TxnResult::Found(Some(value))) => push_key_and_value(line, key, value.as_json()),
            (_, TxnResult::Sum(sum)) => push_key_and_sum(line, key, *sum),
            (_, TxnResult::Found(None)) => push_key_and_value(line, key, "null"),
            (_, TxnResult::Done | TxnResult::NotFound) => {
                line.push_str("{\"key\":");
                push_json_string(line, key.as_str());
            }
        }
        let is_missing = matches!(result, TxnResult::NotFound | TxnResult::Found(None));
        line.push_str(if is_missing { NOT_FOUND } else { ",\"status\":\"ok\"" });
        line.push('}');
    }
    push(line, format_args!("],\"rev\":{rev},\"status\":\"ok\""));
}

/// Appends a page from its item number `written` on, as long as `line` is shorter than `bytes_max`
/// bytes; it may exceed that by one item. Returns the number of items written so far; `None`: the
/// page is complete.
pub(super) fn push_page(
    line: &mut String,
    page: &Page,
    written: usize,
    id: Option<&str>,
    bytes_max: usize,
) -> Option<usize> {
    if written == 0 {
        line.push_str("{\"items\":[");
    }
    for (position, item) in page.items.iter().enumerate().skip(written) {
        if position > written && line.len() >= bytes_max {
            return Some(position);
        }
        if position > 0 {
            line.push(',');
        }
        push_item(line, item);
        line.push('}');
    }
    line.push_str(if page.more { "],\"more\":true" } else { "],\"more\":false" });
    line.push_str(",\"status\":\"ok\"");
    close(line, id);
    None
}

fn push_item(line: &mut String, Item { key, value, meta }: &Item) {
    match value {
        Some(value) => push_key_and_value(line, key, value.as_json()),
        None => {
            line.push_str("{\"key\":");
            push_json_string(line, key.as_str());
        }
    }
    push_meta(line, Some(*meta).filter(|meta| meta.is_known()));
}

fn push_status(line: &mut String, report: &ClusterReport, address: Option<&str>) {
    let rows = &report.nodes;
    let longest = rows.iter().filter_map(|row| row.status).map(|status| status.last_log_index).max();
    line.push_str("{\"nodes\":[");
    for (position, row) in rows.iter().enumerate() {
        if position > 0 {
            line.push(',');
        }
        push_status_row(line, row);
        line.push_str(",\"address\":");
        let known = if row.is_here { address } else { row.client_address.as_deref() };
        push_text_or_null(line, known);
        match (&row.status, longest) {
            (Some(status), Some(longest)) => {
                // The lag counts entries that are not on the node's disk, so that a stalled disk
                // shows here.
                let lag = longest.0.saturating_sub(status.durable_index.0);
                let Status { snapshot_index, disk_waiting_ms, .. } = status;
                push(
                    line,
                    format_args!(",\"snapshot_index\":{snapshot_index},\"reachable\":true,\"lag\":{lag}"),
                );
                push(line, format_args!(",\"disk_waiting_ms\":{disk_waiting_ms}"));
            }
            _ => line.push_str(
                ",\"snapshot_index\":null,\"reachable\":false,\"lag\":null,\"disk_waiting_ms\":null",
            ),
        }
        push(line, format_args!(",\"here\":{}}}", row.is_here));
    }
    line.push(']');
    if let Some(memory) = &report.memory {
        push_memory(line, memory);
    }
    line.push_str(",\"status\":\"ok\"");
}

fn push_memory(line: &mut String, memory: &MemoryReport) {
    match memory.max {
        Some(max) => push(line, format_args!(",\"memory\":{{\"max\":{max}")),
        None => line.push_str(",\"memory\":{\"max\":null"),
    }
    let MemoryUse { data, sessions, snapshots, peers, connections, half_lines, requests, replies } =
        memory.in_use;
    let clients = format_args!("\"half_lines\":{half_lines},\"requests\":{requests},\"replies\":{replies}}}");
    let nodes = format_args!("\"sessions\":{sessions},\"snapshots\":{snapshots},\"peers\":{peers}");
    push(line, format_args!(",\"data\":{data},{nodes},\"connections\":{connections},{clients}"));
}

fn push_status_row(line: &mut String, row: &NodeReport) {
    let Some(status) = &row.status else {
        let unknown = "\"term\":null,\"commit_index\":null,\"last_applied\":null,\"last_log_index\":null,\"leader\":null";
        let role = if row.is_here { "stopped" } else { "unreachable" };
        push(line, format_args!("{{\"id\":{},\"role\":\"{role}\",{unknown}", row.node));
        return;
    };
    let Status { id, role, term, commit_index, last_applied, last_log_index, leader, .. } = status;
    let without_vote = status.is_learner.then_some("learner");
    push(
        line,
        format_args!("{{\"id\":{id},\"role\":\"{}\",\"term\":{term}", without_vote.unwrap_or(role.name())),
    );
    push(line, format_args!(",\"commit_index\":{commit_index},\"last_applied\":{last_applied}"));
    push(line, format_args!(",\"last_log_index\":{last_log_index},\"leader\":"));
    match leader {
        Some(leader) => push(line, format_args!("{leader}")),
        None => line.push_str("null"),
    }
}

fn push_members(line: &mut String, index: LogIndex, configuration: &Configuration) {
    line.push_str("{\"members\":[");
    for (position, node) in configuration.members().into_iter().enumerate() {
        if position > 0 {
            line.push(',');
        }
        let role = match (configuration.voters().contains(node), configuration.is_voter(node)) {
            (true, _) => "voter",
            (false, true) => "outgoing",
            (false, false) => "learner",
        };
        push(line, format_args!("{{\"id\":{node},\"role\":\"{role}\",\"address\":"));
        let member = configuration.roster().member(node);
        push_text_or_null(line, member.map(|member| &*member.address));
        line.push_str(",\"incarnation\":");
        let incarnation =
            member.and_then(|member| member.incarnation).map(|incarnation| incarnation.to_string());
        push_text_or_null(line, incarnation.as_deref());
        line.push('}');
    }
    line.push(']');
    // Membership orders name this index. A cluster in one process has fixed members and needs none.
    if !configuration.roster().is_empty() {
        push(line, format_args!(",\"index\":{index}"));
    }
    line.push_str(",\"status\":\"ok\"");
}

fn push_text_or_null(line: &mut String, text: Option<&str>) {
    match text {
        Some(text) => push_json_string(line, text),
        None => line.push_str("null"),
    }
}

pub(super) fn push_error(line: &mut String, code: &str, message: &str, is_definite: bool) {
    push(line, format_args!("{{\"status\":\"error\",\"error\":\"{code}\",\"message\":"));
    push_json_string(line, message);
    push(line, format_args!(",\"definite\":{is_definite}"));
}

fn push_key_of(line: &mut String, shape: &Shape) {
    shape.key().into_iter().for_each(|key| push_key(line, key));
}

/// Appends the key as a member of an object.
pub(super) fn push_key(line: &mut String, key: &Key) {
    line.push_str(",\"key\":");
    push_json_string(line, key.as_str());
}

pub(super) fn close(line: &mut String, id: Option<&str>) {
    if let Some(id) = id {
        line.push_str(",\"id\":");
        line.push_str(id);
    }
    line.push_str("}\n");
}

pub(super) fn code_of(failure: RequestError) -> &'static str {
    match failure {
        RequestError::NoLeader => "no_leader",
        RequestError::Timeout | RequestError::TransferFailed => "timeout",
        RequestError::NotVoter | RequestError::Change(_) | RequestError::MembersAreFixed => "bad_request",
        RequestError::BackupGone => "backup_gone",
        RequestError::NotYet => "not_yet",
        RequestError::Busy | RequestError::NoMemory(_) => "busy",
        RequestError::ShuttingDown => "shutting_down",
        RequestError::Storage => "storage",
    }
}
