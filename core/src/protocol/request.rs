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
//! Decoding values has a second trap: most JSON parsers round large numbers. So a value stays raw
//! text from the line to the store, and is only checked and compacted ([`Value::new`]).
//!
//! Everything is checked here, before a node sees the request. So every error of this file is
//! definite. Its reply repeats `id` and `key` where they can be read from the invalid line, so that
//! a client with many requests in flight knows which one failed.

use std::borrow::Cow;
use std::fmt::Display;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::backup::piece;
use super::plain::plain;
use crate::kv::{ClientName, Command, Key, Query, Scan, Session, SessionError, Value, ValueError};
use crate::raft::{LogIndex, NodeId, is_address};
use crate::replica::{BackupPiece, MemberChange, MemberOrder};

/// The number of items that a scan returns if the request gives no limit.
pub const SCAN_ITEMS_DEFAULT: usize = 1000;
/// The most items that one scan may ask for.
pub const SCAN_ITEMS_MAX: usize = 10_000;
/// The most bytes of keys and values in one scan's reply; one item may exceed it.
pub const SCAN_BYTES_MAX: usize = 1 << 20;

/// A valid request.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) id: Option<Box<str>>,
    pub(super) question: Question,
}

/// All values of `op`.
const OPS: [&str; 13] = [
    "put",
    "get",
    "delete",
    "cas",
    "scan",
    "status",
    "ping",
    "transfer",
    "members",
    "member_add",
    "member_promote",
    "member_remove",
    "backup",
];

/// The operation that a client asks for.
#[derive(Debug)]
pub(super) enum Question {
    /// Checks only that the server responds.
    Ping,
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
}

/// The form of a reply, with the members that it repeats from the request.
#[derive(Clone, Debug)]
pub(super) enum Shape {
    Put {
        key: Key,
        value: Value,
    },
    /// `is_plain`: the request has no `op`; then the reply for a missing key carries no error.
    Get {
        key: Key,
        is_plain: bool,
    },
    Delete {
        key: Key,
    },
    Cas {
        key: Key,
        value: Value,
    },
    Scan,
    Status,
    Transfer,
    Members,
    Backup,
}

impl Shape {
    /// Returns whether the request is read-only.
    pub(super) fn only_reads(&self) -> bool {
        matches!(self, Self::Get { .. } | Self::Scan | Self::Status | Self::Backup)
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

/// Text that is borrowed from the line unless it has escapes.
#[derive(Deserialize)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Members<'a> {
    #[serde(borrow, default)]
    op: Option<Text<'a>>,
    #[serde(borrow, default)]
    key: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "given")]
    value: Option<&'a RawValue>,
    #[serde(borrow, default)]
    consistency: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "given")]
    expect: Option<&'a RawValue>,
    #[serde(borrow, default)]
    prefix: Option<Text<'a>>,
    #[serde(default)]
    limit: Option<usize>,
    #[serde(borrow, default)]
    after: Option<Text<'a>>,
    #[serde(default)]
    node: Option<u64>,
    #[serde(borrow, default)]
    address: Option<Text<'a>>,
    #[serde(default)]
    index: Option<u64>,
    #[serde(default)]
    force: Option<bool>,
    #[serde(borrow, default, deserialize_with = "given")]
    backup: Option<&'a RawValue>,
    #[serde(default)]
    offset: Option<u64>,
    #[serde(default)]
    covering: Option<u64>,
    #[serde(borrow, default, deserialize_with = "given")]
    id: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "given")]
    session: Option<&'a RawValue>,
}

/// The members of a session.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SessionMembers<'a> {
    #[serde(borrow, default)]
    client: Option<&'a RawValue>,
    #[serde(borrow, default)]
    seq: Option<&'a RawValue>,
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

/// Deserializes a member that is present, so that an explicit `null` differs from an absent member.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// Parses a line.
pub(super) fn parse(line: &[u8]) -> Result<Call, Box<BadRequest>> {
    match plain(line) {
        Some(question) => Ok(Call { id: None, question }),
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
    Ok(Call { id, question })
}

impl Members<'_> {
    fn question(&self) -> Result<Question, Box<BadRequest>> {
        // A session has no effect on a read, but an invalid one is an error everywhere.
        let session = self.session()?;
        let op = self.op.as_ref().map(|op| op.0.as_ref());
        self.check_members(op)?;
        match op {
            None if self.value.is_some() => self.put(session),
            None => self.get(true),
            Some("put") => self.put(session),
            Some("get") => self.get(false),
            Some("delete") => {
                let key = self.key()?;
                Ok(Question::Write(Command::Delete { key: key.clone() }, session, Shape::Delete { key }))
            }
            Some("cas") => self.cas(session),
            Some("scan") => self.scan(),
            Some("status") => Ok(Question::Status),
            Some("transfer") => Ok(Question::Transfer(self.node("the next leader")?)),
            Some("members") => Ok(Question::Members),
            Some("member_add") => self.add_member(),
            Some("member_promote") => Ok(self.order(MemberChange::Promote(self.node("the next voter")?))),
            Some("member_remove") => Ok(self.order(MemberChange::Remove(self.node("the member to remove")?))),
            Some("backup") => match piece(self.backup, self.offset, self.covering) {
                Some(piece) => Ok(Question::Backup(piece)),
                None => Err(refuse(
                    Some(self),
                    "op \"backup\" has no other members, or \"covering\", or \"backup\" and \"offset\", as \
                     in an earlier reply",
                )),
            },
            Some("ping") => Ok(Question::Ping),
            Some(op) => Err(refuse(Some(self), format_args!("unknown op {op:?}"))),
        }
    }

    /// Rejects members that the operation does not have: such a typo could otherwise change the
    /// meaning of the request.
    fn check_members(&self, op: Option<&str>) -> Result<(), Box<BadRequest>> {
        let allowed: &[&str] = match op {
            None | Some("put") => &["key", "value"],
            Some("get") => &["key", "consistency"],
            Some("delete") => &["key"],
            Some("cas") => &["key", "expect", "value"],
            Some("scan") => &["prefix", "limit", "after", "consistency"],
            Some("transfer") => &["node"],
            Some("member_promote") => &["node", "index"],
            Some("member_remove") => &["node", "index", "force"],
            Some("member_add") => &["node", "address", "index"],
            Some("backup") => &["backup", "offset", "covering"],
            Some(_) => &[],
        };
        let present = [
            ("key", self.key.is_some()),
            ("value", self.value.is_some()),
            ("consistency", self.consistency.is_some()),
            ("expect", self.expect.is_some()),
            ("prefix", self.prefix.is_some()),
            ("limit", self.limit.is_some()),
            ("after", self.after.is_some()),
            ("node", self.node.is_some()),
            ("address", self.address.is_some()),
            ("index", self.index.is_some()),
            ("force", self.force.is_some()),
            ("backup", self.backup.is_some()),
            ("offset", self.offset.is_some()),
            ("covering", self.covering.is_some()),
        ];
        let is_known = op.is_none_or(|op| OPS.contains(&op));
        let stray = present.iter().find(|(name, is_there)| *is_there && !allowed.contains(name));
        match stray {
            Some((name, _)) if is_known => {
                let what = op.map_or_else(|| "a plain request".to_owned(), |op| format!("op {op:?}"));
                Err(refuse(Some(self), format_args!("{what} has no member {name:?}")))
            }
            _ => Ok(()),
        }
    }

    fn node(&self, who: &str) -> Result<NodeId, Box<BadRequest>> {
        let missing = || refuse(Some(self), format_args!("\"node\" is missing: the id of {who}"));
        self.node.map(NodeId).ok_or_else(missing)
    }

    fn order(&self, change: MemberChange) -> Question {
        let given_for = self.index.map(LogIndex);
        Question::ChangeMembers(MemberOrder { change, given_for, insists: self.force.unwrap_or(false) })
    }

    fn add_member(&self) -> Result<Question, Box<BadRequest>> {
        let node = self.node("the new member")?;
        let address = self.address.as_ref().map(|address| address.0.as_ref());
        match address.filter(|address| is_address(address)) {
            Some(address) => Ok(self.order(MemberChange::AddLearnerAt(node, Box::from(address)))),
            None => {
                Err(refuse(Some(self), "\"address\" must be HOST:PORT, where peers reach the new member"))
            }
        }
    }

    fn put(&self, session: Option<Session>) -> Result<Question, Box<BadRequest>> {
        let (key, value) = (self.key()?, self.value()?);
        let command = Command::Put { key: key.clone(), value: value.clone() };
        Ok(Question::Write(command, session, Shape::Put { key, value }))
    }

    fn get(&self, is_plain: bool) -> Result<Question, Box<BadRequest>> {
        let key = self.key()?;
        self.read(Query::Value(key.clone()), Shape::Get { key, is_plain })
    }

    fn read(&self, query: Query, shape: Shape) -> Result<Question, Box<BadRequest>> {
        match self.consistency.as_ref().map(|consistency| consistency.0.as_ref()) {
            None | Some("eventual") => Ok(Question::Read(query, shape)),
            Some("linearizable") => Ok(Question::LinearizableRead(query, shape)),
            Some(other) => Err(refuse(Some(self), format_args!("unknown consistency {other:?}"))),
        }
    }

    fn cas(&self, session: Option<Session>) -> Result<Question, Box<BadRequest>> {
        let (key, value) = (self.key()?, self.value()?);
        let expect = match self.expect {
            None => {
                return Err(refuse(Some(self), "op \"cas\" needs \"expect\": a value, or null for absent"));
            }
            Some(json) if json.get() == "null" => None,
            Some(json) => Some(Value::new(json).map_err(|error| refuse_value(self, error))?),
        };
        let command = Command::Cas { key: key.clone(), expect, value: value.clone() };
        Ok(Question::Write(command, session, Shape::Cas { key, value }))
    }

    fn scan(&self) -> Result<Question, Box<BadRequest>> {
        let items_max = self.limit.unwrap_or(SCAN_ITEMS_DEFAULT);
        if !(1..=SCAN_ITEMS_MAX).contains(&items_max) {
            return Err(refuse(Some(self), format_args!("\"limit\" is 1 to {SCAN_ITEMS_MAX}")));
        }
        let scan = Scan {
            prefix: self.prefix.as_ref().map_or_else(String::new, |prefix| prefix.0.to_string()),
            after: self.after.as_ref().map(|after| after.0.to_string()),
            items_max,
            bytes_max: SCAN_BYTES_MAX,
        };
        self.read(Query::Scan(scan), Shape::Scan)
    }

    fn session(&self) -> Result<Option<Session>, Box<BadRequest>> {
        let Some(json) = self.session else { return Ok(None) };
        if !json.get().starts_with('{') {
            return Err(refuse(Some(self), "\"session\" is an object with \"client\" and \"seq\""));
        }
        let members: SessionMembers<'_> = serde_json::from_str(json.get())
            .map_err(|error| refuse(Some(self), format_args!("\"session\": {error}")))?;
        let client = members.client.and_then(|json| serde_json::from_str::<String>(json.get()).ok());
        let client = client.ok_or(SessionError::Client).and_then(|text| ClientName::new(&text));
        let seq = members.seq.and_then(|json| serde_json::from_str::<u64>(json.get()).ok());
        let session = client.and_then(|client| Session::new(client, seq.ok_or(SessionError::Seq)?));
        session.map(Some).map_err(|error| refuse(Some(self), error))
    }

    fn key(&self) -> Result<Key, Box<BadRequest>> {
        let key = self.key.as_ref().ok_or_else(|| refuse(Some(self), "\"key\" is missing"))?;
        Key::new(&key.0).map_err(|error| refuse(Some(self), error))
    }

    fn value(&self) -> Result<Value, Box<BadRequest>> {
        let value = self.value.ok_or_else(|| refuse(Some(self), "\"value\" is missing"))?;
        Value::new(value).map_err(|error| refuse_value(self, error))
    }
}

fn refuse(members: Option<&Members<'_>>, message: impl Display) -> Box<BadRequest> {
    // An invalid id is not repeated.
    let id = members.and_then(|members| repeatable(members.id));
    let key = members.and_then(|members| members.key.as_ref()).map(|key| shortened(&key.0));
    Box::new(BadRequest { id, key, is_too_large: false, message: limited(&message.to_string()) })
}

fn refuse_value(members: &Members<'_>, error: ValueError) -> Box<BadRequest> {
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
