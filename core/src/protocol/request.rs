//! Parsing of client requests: turns one line into a validated request, or an error reply.
//!
//! A request is a JSON object with an optional `op`. An object without one is a put if it has a
//! `value`, and a get otherwise, so that the most common requests are short.
//!
//! The obvious parser takes the members that an operation needs and ignores the others. Then a typo
//! changes the meaning: `{"key":"k","vlaue":1}` would be a get, and a delete with a misplaced
//! `expect` would delete unconditionally. So an unknown member is an error, and so is a known
//! member that the operation does not have.
//!
//! Which members there are, and which operation has which of them, is in `members`.
//!
//! Decoding values has a second trap: most JSON parsers round large numbers. So a value stays raw
//! text from the line to the store, and is only checked and compacted ([`Value::new`]).
//!
//! Everything is checked here, before a node sees the request. So every error of this file is
//! definite. Its reply repeats `id` and `key` where they can be read from the invalid line, so that
//! a client with many requests in flight knows which one failed.

use std::fmt::{self, Display};
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::members::Members;
use super::plain::plain;
use crate::kv::{Command, Key, Query, Revision, Selection, Session, Ttl, Txn, Value, ValueError, given};
use crate::raft::NodeId;
use crate::replica::{BackupPiece, MemberOrder};

/// A valid request.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) id: Option<Box<str>>,
    pub(super) question: Question,
    /// Whether the reply has the revisions of the key.
    pub(super) wants_meta: bool,
}

/// The operation that a client asks for.
#[derive(Debug)]
pub(super) enum Question {
    /// Checks only that the server responds.
    Ping,
    /// Proves the client's identity by a token.
    Auth(Token),
    /// A write with its session, if any, and the shape of the reply.
    Write(Command, Option<Session>, Shape),
    /// An eventual read, and the shape of the reply.
    Read(Query, Shape),
    /// A linearizable read, and the shape of the reply.
    LinearizableRead(Query, Shape),
    /// Transfers leadership to this node.
    Transfer(NodeId),
    /// Asks for the members of the cluster.
    Members,
    /// Adds, promotes or removes a member.
    ChangeMembers(MemberOrder),
    /// Asks for a part of a backup.
    Backup(BackupPiece),
    /// Asks for the state of all nodes.
    Status,
    /// Begins a watch.
    Watch {
        /// The keys that it is about.
        selection: Selection,
        /// The first entry whose changes are of interest.
        from: Option<Revision>,
        /// Whether the present content is sent first.
        wants_content: bool,
        /// The cluster that the client expects.
        cluster: Option<Box<str>>,
    },
    /// Ends the watch with this number.
    Unwatch(u64),
}

impl Question {
    /// The key that the request is about, if it is a single one.
    pub(super) fn key(&self) -> Option<&Key> {
        match self {
            Self::Write(_, _, shape) | Self::Read(_, shape) | Self::LinearizableRead(_, shape) => shape.key(),
            Self::Watch { selection: Selection::Key(key), .. } => Some(key),
            _ => None,
        }
    }
}

/// A token, which no message shows.
pub(super) struct Token(Box<str>);

impl Token {
    pub(super) fn new(text: &str) -> Self {
        Self(text.into())
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

/// The form of a reply, with the members that it repeats from the request.
#[derive(Clone, Debug)]
pub(super) enum Shape {
    Put {
        key: Key,
        value: Value,
        ttl: Option<Ttl>,
    },
    /// `is_plain`: the request has no `op`; then the reply for a missing key carries no error.
    Get {
        key: Key,
        is_plain: bool,
    },
    Delete {
        key: Key,
    },
    /// `by_rev`: the condition is the revision of the key, so a reply about a mismatch has it.
    Cas {
        key: Key,
        value: Value,
        ttl: Option<Ttl>,
        by_rev: bool,
    },
    /// The time to live of a key, set or taken away.
    Touch {
        key: Key,
        ttl: Option<Ttl>,
    },
    Incr {
        key: Key,
    },
    DeletePrefix,
    Txn(Arc<Txn>),
    Scan,
    Status,
    Transfer,
    Members,
    Backup,
    /// The beginning of the watch with this number.
    Watch(u64),
}

impl Shape {
    /// The key that the reply repeats.
    pub(super) fn key(&self) -> Option<&Key> {
        match self {
            Self::Put { key, .. }
            | Self::Get { key, .. }
            | Self::Delete { key }
            | Self::Cas { key, .. }
            | Self::Touch { key, .. }
            | Self::Incr { key } => Some(key),
            Self::DeletePrefix
            | Self::Txn(_)
            | Self::Scan
            | Self::Status
            | Self::Transfer
            | Self::Members
            | Self::Backup
            | Self::Watch(_) => None,
        }
    }

    /// Returns whether the request is read-only.
    pub(super) fn only_reads(&self) -> bool {
        matches!(self, Self::Get { .. } | Self::Scan | Self::Status | Self::Backup | Self::Watch(_))
    }
}

/// The error for a line that is not a valid request.
#[derive(Debug)]
pub(super) struct BadRequest {
    pub(super) id: Option<Box<str>>,
    pub(super) key: Option<String>,
    pub(super) is_too_large: bool,
    pub(super) message: String,
}

/// The members that a reply repeats, parsed leniently from an invalid line.
#[derive(Default, Deserialize)]
struct Repeated<'a> {
    #[serde(borrow, default, deserialize_with = "given")]
    id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    key: Option<&'a RawValue>,
}

/// The longest message about an invalid request, in characters.
const MESSAGE_CHARS_MAX: usize = 500;

/// Parses a line.
pub(super) fn parse(line: &[u8]) -> Result<Call, Box<BadRequest>> {
    match plain(line) {
        Some(question) => Ok(Call { id: None, question, wants_meta: false }),
        None => parse_in_full(line),
    }
}

/// Parses a line without the fast path for plain requests.
pub(super) fn parse_in_full(line: &[u8]) -> Result<Call, Box<BadRequest>> {
    let is_object = line.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{');
    if !is_object {
        return Err(refuse(None, "a request is a JSON object on one line"));
    }
    let members: Members<'_> = serde_json::from_slice(line).map_err(|error| not_understood(line, &error))?;
    // A reply repeats the id, so the id must obey the rules of a value. Otherwise it could end the
    // reply line early or be nested too deep.
    let id = match members.id {
        Some(id) if id.get() == "null" => Some("null".into()),
        Some(id) => Some(Value::new(id).map_err(|error| refuse(Some(&members), error))?.as_json().into()),
        None => None,
    };
    let question = members.question()?;
    Ok(Call { id, question, wants_meta: members.wants_meta() })
}

pub(super) fn refuse(members: Option<&Members<'_>>, message: impl Display) -> Box<BadRequest> {
    // An invalid id is not repeated.
    let id = members.and_then(|members| repeatable(members.id));
    let key = members.and_then(|members| members.key.as_ref()).map(|key| shortened(&key.0));
    Box::new(BadRequest { id, key, is_too_large: false, message: limited(&message.to_string()) })
}

pub(super) fn refuse_value(members: &Members<'_>, error: ValueError) -> Box<BadRequest> {
    let is_too_large = error == ValueError::TooLong;
    Box::new(BadRequest { is_too_large, ..*refuse(Some(members), error) })
}

fn not_understood(line: &[u8], error: &serde_json::Error) -> Box<BadRequest> {
    let repeated: Repeated<'_> = serde_json::from_slice(line).unwrap_or_default();
    let key = repeated.key.and_then(|key| serde_json::from_str::<String>(key.get()).ok());
    let id = repeatable(repeated.id);
    let key = key.map(|key| shortened(&key));
    Box::new(BadRequest { id, key, is_too_large: false, message: limited(&error.to_string()) })
}

/// Shortens a message: it quotes the request, and so may be nearly as long.
fn limited(message: &str) -> String {
    match message.char_indices().nth(MESSAGE_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &message[..end]),
        None => message.to_owned(),
    }
}

fn repeatable(id: Option<&RawValue>) -> Option<Box<str>> {
    let id = id?;
    if id.get() == "null" { Some("null".into()) } else { Value::new(id).ok().map(|id| id.as_json().into()) }
}

/// Shortens a key for an error reply, because an invalid one may be very long.
fn shortened(key: &str) -> String {
    const CHARS_MAX: usize = 64;
    if key.len() <= crate::kv::KEY_BYTES_MAX {
        return key.to_owned();
    }
    key.chars().take(CHARS_MAX).chain(['…']).collect()
}
