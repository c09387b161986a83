//! Parser for a server's replies, with the members that the commands need.
//!
//! Values keep the JSON text in which they arrived. A number such as `1e400` or 2⁶⁴+1 would lose
//! digits in a number type, so it is never converted to one.

use std::fmt;

use serde::Deserialize;
use serde_json::value::RawValue;
use thiserror::Error;

use crate::exit::Exit;
use crate::request::{Effect, OUTCOME_UNKNOWN};

/// The code of an error reply.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ErrorCode {
    BadRequest,
    TooLarge,
    NotFound,
    CasMismatch,
    NotANumber,
    OutOfRange,
    NotYet,
    Unauthenticated,
    Forbidden,
    NoLeader,
    Timeout,
    SessionExpired,
    BackupGone,
    Compacted,
    Lagged,
    WrongCluster,
    Busy,
    ShuttingDown,
    Storage,
    /// A code that this program does not know, from a newer server.
    #[serde(other)]
    Unknown,
}

impl ErrorCode {
    fn name(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::TooLarge => "too_large",
            Self::NotFound => "not_found",
            Self::CasMismatch => "cas_mismatch",
            Self::NotANumber => "not_a_number",
            Self::OutOfRange => "out_of_range",
            Self::NotYet => "not_yet",
            Self::Unauthenticated => "unauthenticated",
            Self::Forbidden => "forbidden",
            Self::NoLeader => "no_leader",
            Self::Timeout => "timeout",
            Self::SessionExpired => "session_expired",
            Self::BackupGone => "backup_gone",
            Self::Compacted => "compacted",
            Self::Lagged => "lagged",
            Self::WrongCluster => "wrong_cluster",
            Self::Busy => "busy",
            Self::ShuttingDown => "shutting_down",
            Self::Storage => "storage",
            Self::Unknown => "unknown_error",
        }
    }

    fn exit(self) -> Exit {
        match self {
            Self::NotFound => Exit::NotFound,
            Self::CasMismatch | Self::NotANumber | Self::OutOfRange | Self::SessionExpired => {
                Exit::Precondition
            }
            Self::BadRequest | Self::TooLarge => Exit::Usage,
            Self::Unauthenticated | Self::Forbidden => Exit::Denied,
            Self::NoLeader | Self::Timeout | Self::BackupGone => Exit::NoOutcome,
            Self::Compacted | Self::Lagged | Self::WrongCluster => Exit::Failure,
            Self::NotYet | Self::Busy | Self::ShuttingDown | Self::Storage | Self::Unknown => Exit::Failure,
        }
    }
}

/// One reply.
#[derive(Debug, Deserialize)]
pub(crate) struct Reply {
    /// The reply as the server sent it, without its line break.
    #[serde(skip)]
    pub(crate) line: String,
    status: Option<Status>,
    /// Present in the closing message to an idle client, which answers no request.
    close: Option<Box<RawValue>>,
    error: Option<ErrorCode>,
    message: Option<Box<str>>,
    definite: Option<bool>,
    pub(crate) value: Option<Box<RawValue>>,
    /// The actual value that a compare-and-swap found; `None` when the key is absent.
    pub(crate) actual: Option<Box<RawValue>>,
    /// The revision of the last change of the key, or of the transaction.
    pub(crate) rev: Option<u64>,
    /// The revision of the change that created the key.
    pub(crate) created: Option<u64>,
    /// The time to live that is left, in milliseconds.
    pub(crate) ttl_ms: Option<u64>,
    /// The number of keys in a range.
    pub(crate) count: Option<u64>,
    /// The number of keys that a delete by prefix removed.
    pub(crate) deleted: Option<u64>,
    /// Whether the conditions of a transaction held.
    pub(crate) succeeded: Option<bool>,
    /// The replies to the operations of a transaction.
    pub(crate) replies: Option<Vec<OperationReply>>,
    pub(crate) items: Option<Vec<Item>>,
    #[serde(default)]
    pub(crate) more: bool,
    pub(crate) nodes: Option<Vec<NodeStatus>>,
    /// Memory use of the server that answered; older servers do not report it.
    pub(crate) memory: Option<Memory>,
    pub(crate) members: Option<Vec<MemberRow>>,
    /// The log index as of which the members are reported.
    pub(crate) index: Option<u64>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Status {
    Ok,
    Error,
}

/// One key and its value in a reply to a scan.
#[derive(Debug, Deserialize)]
pub(crate) struct Item {
    pub(crate) key: String,
    /// Absent when the scan asks for keys alone.
    pub(crate) value: Option<Box<RawValue>>,
}

/// The reply to one operation of a transaction.
#[derive(Debug, Deserialize)]
pub(crate) struct OperationReply {
    status: Status,
    /// The value that was read, written or counted up; absent after a delete.
    pub(crate) value: Option<Box<RawValue>>,
}

impl OperationReply {
    pub(crate) fn is_ok(&self) -> bool {
        self.status == Status::Ok
    }
}

/// One node in a reply to `status`. The members stay JSON text, because a newer server may report
/// values that this program does not know.
#[derive(Debug, Deserialize)]
pub(crate) struct NodeStatus {
    pub(crate) id: Box<RawValue>,
    pub(crate) role: Box<RawValue>,
    pub(crate) term: Box<RawValue>,
    pub(crate) commit_index: Box<RawValue>,
    pub(crate) last_applied: Box<RawValue>,
    pub(crate) last_log_index: Box<RawValue>,
    pub(crate) leader: Option<Box<RawValue>>,
    pub(crate) address: Option<Box<RawValue>>,
    /// Not reported by servers without snapshots.
    pub(crate) snapshot_index: Option<Box<RawValue>>,
    /// The number of entries that its disk lacks; not reported by servers without a network.
    pub(crate) lag: Option<Box<RawValue>>,
    /// How long the disk has had pending writes without completing one, in milliseconds.
    pub(crate) disk_waiting_ms: Option<u64>,
    /// Whether the node runs in the server that answered; older servers do not report it.
    pub(crate) here: Option<bool>,
}

/// Memory use of a server, in bytes.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct Memory {
    /// The limit of the memory use, if there is one.
    pub(crate) max: Option<u64>,
    data: u64,
    /// Not reported by older servers, like the next two.
    #[serde(default)]
    sessions: u64,
    #[serde(default)]
    snapshots: u64,
    #[serde(default)]
    peers: u64,
    connections: u64,
    half_lines: u64,
    requests: u64,
    replies: u64,
}

impl Memory {
    /// Returns the bytes in use by purpose, in the words of the error messages.
    pub(crate) fn held_for(&self) -> [(u64, &'static str); 8] {
        [
            (self.data, "keys, values and the log"),
            (self.sessions, "sessions"),
            (self.snapshots, "snapshots and the log that is kept for followers"),
            (self.peers, "frames to and from other nodes"),
            (self.connections, "connections"),
            (self.half_lines, "incomplete request lines"),
            (self.requests, "requests in flight"),
            (self.replies, "replies that clients have not read"),
        ]
    }
}

/// One member in a reply to `members` or to a membership change; JSON text for the same reason.
#[derive(Debug, Deserialize)]
pub(crate) struct MemberRow {
    pub(crate) id: Box<RawValue>,
    pub(crate) role: Box<RawValue>,
    pub(crate) address: Option<Box<RawValue>>,
    pub(crate) incarnation: Option<Box<RawValue>>,
}

/// The error for a line that is not a reply of the protocol.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("the server's reply is not one of Coracle's protocol: is this address a Coracle server?")]
pub(crate) struct NotAReply;

impl Reply {
    /// Returns whether the server has rejected the request because of the client's rights.
    pub(crate) fn is_denial(&self) -> bool {
        matches!(self.error, Some(ErrorCode::Unauthenticated | ErrorCode::Forbidden))
    }

    pub(crate) fn parse(line: String) -> Result<Self, NotAReply> {
        let mut reply: Self = serde_json::from_str(&line).map_err(|_| NotAReply)?;
        if reply.status.is_none() && reply.close.is_none() {
            return Err(NotAReply);
        }
        reply.line = line;
        Ok(reply)
    }

    /// Returns whether this is the server's closing message to an idle client. It answers no
    /// request, and a request that crossed it was not processed.
    pub(crate) fn is_farewell(&self) -> bool {
        self.status.is_none()
    }

    /// Returns whether the request had no effect, for a reason that may not apply to another
    /// server.
    pub(crate) fn is_worth_another_server(&self) -> bool {
        let is_local =
            matches!(self.error, Some(ErrorCode::Busy | ErrorCode::ShuttingDown | ErrorCode::NoLeader));
        is_local && self.definite == Some(true)
    }

    /// Returns the error that the reply reports, if any.
    pub(crate) fn refusal(&self, effect: Effect) -> Option<Refusal> {
        if self.status == Some(Status::Ok) {
            return None;
        }
        // The short form of a get reports a missing key without an error code.
        let code = self.error.unwrap_or(ErrorCode::NotFound);
        let is_outcome_unknown = effect == Effect::Writes && self.definite == Some(false);
        let message = self.message.as_deref().unwrap_or_default().into();
        Some(Refusal { code, message, is_outcome_unknown })
    }
}

/// An error reply.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: ErrorCode,
    message: Box<str>,
    is_outcome_unknown: bool,
}

impl Refusal {
    pub(crate) fn exit(&self) -> Exit {
        self.code.exit()
    }

    /// Returns whether the request may have taken effect nevertheless.
    pub(crate) fn is_outcome_unknown(&self) -> bool {
        self.is_outcome_unknown
    }

    /// Returns whether the same request may succeed later.
    pub(crate) fn may_pass(&self) -> bool {
        matches!(
            self.code,
            ErrorCode::NoLeader
                | ErrorCode::Timeout
                | ErrorCode::NotYet
                | ErrorCode::Busy
                | ErrorCode::ShuttingDown
                | ErrorCode::Storage
        )
    }

    /// Returns whether the server cannot serve this watch from where it has to begin.
    pub(crate) fn ends_watch(&self) -> bool {
        matches!(self.code, ErrorCode::Compacted | ErrorCode::Lagged | ErrorCode::WrongCluster)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code.name())?;
        if !self.message.is_empty() {
            write!(f, ": {}", self.message)?;
        }
        if self.is_outcome_unknown {
            write!(f, "\n{OUTCOME_UNKNOWN}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(line: &str) -> Reply {
        Reply::parse(line.to_owned()).unwrap()
    }

    #[test]
    fn values_stay_the_text_they_came_as() {
        for value in ["1e400", "18446744073709551617", "0.10", r#""\ud800""#, r#"{"b":1,"a":[1,2]}"#] {
            let reply = reply(&format!(r#"{{"key":"k","value":{value},"status":"ok"}}"#));
            assert_eq!(reply.value.unwrap().get(), value);
        }
    }

    #[test]
    fn every_code_of_the_protocol_has_its_exit_code() {
        let exit = |code: &str| {
            let line = format!(r#"{{"status":"error","error":"{code}","message":"m","definite":true}}"#);
            let refusal = reply(&line).refusal(Effect::Reads).unwrap();
            if code != "from_the_future" {
                assert_eq!(refusal.to_string(), format!("{code}: m"));
            }
            refusal.exit()
        };
        assert_eq!(exit("bad_request"), Exit::Usage);
        assert_eq!(exit("too_large"), Exit::Usage);
        assert_eq!(exit("not_found"), Exit::NotFound);
        assert_eq!(exit("cas_mismatch"), Exit::Precondition);
        assert_eq!(exit("no_leader"), Exit::NoOutcome);
        assert_eq!(exit("timeout"), Exit::NoOutcome);
        assert_eq!(exit("backup_gone"), Exit::NoOutcome);
        for code in ["session_expired", "not_a_number", "out_of_range"] {
            assert_eq!(exit(code), Exit::Precondition, "{code}");
        }
        let of_watch = ["compacted", "lagged", "wrong_cluster"];
        for code in ["not_yet", "busy", "shutting_down", "storage", "from_the_future"].iter().chain(&of_watch)
        {
            assert_eq!(exit(code), Exit::Failure, "{code}");
        }
    }

    #[test]
    fn only_a_write_leaves_an_unknown_outcome() {
        let reply = reply(r#"{"status":"error","error":"timeout","message":"m","definite":false}"#);
        assert!(reply.refusal(Effect::Writes).unwrap().to_string().contains("outcome is unknown"));
        assert!(!reply.refusal(Effect::Reads).unwrap().to_string().contains("outcome is unknown"));
        assert!(!reply.is_worth_another_server());
    }

    #[test]
    fn a_missing_key_without_a_code_and_a_closing_message_are_distinguished() {
        let missing = reply(r#"{"key":"nope","value":null,"status":"error"}"#);
        assert_eq!(missing.refusal(Effect::Reads).unwrap().code, ErrorCode::NotFound);
        assert!(!missing.is_farewell());
        assert!(reply(r#"{"close":"ok"}"#).is_farewell());
    }

    #[test]
    fn a_line_that_is_no_reply_is_rejected() {
        for line in ["", "HTTP/1.1 400 Bad Request", "{}", "[]", r#"{"status":"great"}"#] {
            assert_eq!(Reply::parse(line.to_owned()).unwrap_err(), NotAReply, "{line}");
        }
    }
}
