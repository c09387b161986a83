//! The members of a request, and the operation that they describe.
//!
//! A new operation needs a name in [`OPS`], its members in [`Members::check_members`], and a method
//! that turns them into a [`Question`].

use std::borrow::Cow;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::backup::piece;
use super::request::{BadRequest, Question, Shape, Token, refuse, refuse_value};
use crate::kv::{
    ClientName, Command, DELETE_PREFIX_KEYS_MAX, Expected, KEY_BYTES_MAX, Key, Query, Revision, Scan,
    ScanContent, Selection, Session, SessionError, TTL_MS_MAX, Ttl, Txn, Value, given,
};
use crate::raft::{LogIndex, NodeId, is_address};
use crate::replica::{MemberChange, MemberOrder};

/// The number of items that a scan returns if the request gives no limit.
pub const SCAN_ITEMS_DEFAULT: usize = 1000;
/// The most items that one scan may ask for.
pub const SCAN_ITEMS_MAX: usize = 10_000;
/// The most bytes of keys and values in one scan's reply; one item may exceed it.
pub const SCAN_BYTES_MAX: usize = 1 << 20;

/// All values of `op`.
const OPS: [&str; 21] = [
    "auth",
    "put",
    "get",
    "delete",
    "cas",
    "touch",
    "persist",
    "incr",
    "delete_prefix",
    "txn",
    "scan",
    "status",
    "ping",
    "transfer",
    "members",
    "member_add",
    "member_promote",
    "member_remove",
    "backup",
    "watch",
    "unwatch",
];

/// Text that is borrowed from the line unless it has escapes.
#[derive(Deserialize)]
#[serde(transparent)]
pub(super) struct Text<'a>(#[serde(borrow)] pub(super) Cow<'a, str>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Members<'a> {
    #[serde(borrow, default)]
    op: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) key: Option<Text<'a>>,
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
    #[serde(default)]
    rev: Option<u64>,
    #[serde(default)]
    by: Option<i64>,
    #[serde(default)]
    ttl_ms: Option<u64>,
    #[serde(default)]
    meta: Option<bool>,
    #[serde(borrow, default)]
    end: Option<Text<'a>>,
    #[serde(default)]
    reverse: Option<bool>,
    #[serde(default)]
    keys_only: Option<bool>,
    #[serde(default)]
    count: Option<bool>,
    #[serde(borrow, default, rename = "if", deserialize_with = "given")]
    conditions: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "given")]
    then: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "else", deserialize_with = "given")]
    otherwise: Option<&'a RawValue>,
    #[serde(default)]
    initial: Option<bool>,
    #[serde(default)]
    from: Option<u64>,
    #[serde(borrow, default)]
    cluster: Option<Text<'a>>,
    #[serde(default)]
    watch: Option<u64>,
    #[serde(borrow, default)]
    token: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "given")]
    pub(super) id: Option<&'a RawValue>,
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

impl<'a> Members<'a> {
    /// Returns whether the reply has the revisions of the key.
    pub(super) fn wants_meta(&self) -> bool {
        self.meta == Some(true)
    }

    pub(super) fn question(&self) -> Result<Question, Box<BadRequest>> {
        // A session has no effect on a read, but an invalid one is an error everywhere.
        let session = self.session()?;
        let op = self.op.as_ref().map(|op| op.0.as_ref());
        self.check_members(op)?;
        match op {
            None if self.value.is_some() => self.put(session),
            None => self.get(true),
            Some("put") => self.put(session),
            Some("get") => self.get(false),
            Some("delete") => self.delete(session),
            Some("cas") => self.cas(session),
            Some("touch") => {
                let ttl = self.ttl()?.ok_or_else(|| refuse(Some(self), "\"ttl_ms\" is missing"))?;
                let key = self.key()?;
                let command = Command::Touch { key: key.clone(), ttl };
                Ok(Question::Write(command, session, Shape::Touch { key, ttl: Some(ttl) }))
            }
            Some("persist") => {
                let key = self.key()?;
                let command = Command::Persist { key: key.clone() };
                Ok(Question::Write(command, session, Shape::Touch { key, ttl: None }))
            }
            Some("incr") => {
                let (key, by) = (self.key()?, self.by.unwrap_or(1));
                Ok(Question::Write(Command::Incr { key: key.clone(), by }, session, Shape::Incr { key }))
            }
            Some("delete_prefix") => self.delete_prefix(session),
            Some("txn") => self.txn(session),
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
            Some("watch") => self.watch(),
            Some("unwatch") => {
                let missing = || refuse(Some(self), "\"watch\" is missing: the number of the watch");
                self.watch.map(Question::Unwatch).ok_or_else(missing)
            }
            Some("auth") => match &self.token {
                Some(token) => Ok(Question::Auth(Token::new(&token.0))),
                None => Err(refuse(Some(self), "\"token\" is missing")),
            },
            Some("ping") => Ok(Question::Ping),
            Some(op) => Err(refuse(Some(self), format_args!("unknown op {op:?}"))),
        }
    }

    /// Rejects members that the operation does not have: such a typo could otherwise change the
    /// meaning of the request.
    fn check_members(&self, op: Option<&str>) -> Result<(), Box<BadRequest>> {
        let allowed: &[&str] = match op {
            None | Some("put") => &["key", "value", "ttl_ms", "meta"],
            Some("get") => &["key", "consistency", "meta"],
            Some("delete") => &["key", "rev", "meta"],
            Some("cas") => &["key", "expect", "rev", "value", "ttl_ms", "meta"],
            Some("touch") => &["key", "ttl_ms", "meta"],
            Some("persist") => &["key", "meta"],
            Some("incr") => &["key", "by", "meta"],
            Some("delete_prefix") => &["prefix", "limit"],
            Some("txn") => &["if", "then", "else"],
            Some("scan") => {
                &["prefix", "limit", "after", "end", "reverse", "keys_only", "count", "meta", "consistency"]
            }
            Some("transfer") => &["node"],
            Some("member_promote") => &["node", "index"],
            Some("member_remove") => &["node", "index", "force"],
            Some("member_add") => &["node", "address", "index"],
            Some("backup") => &["backup", "offset", "covering"],
            Some("watch") => &["key", "prefix", "initial", "from", "cluster"],
            Some("unwatch") => &["watch"],
            Some("auth") => &["token"],
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
            ("rev", self.rev.is_some()),
            ("by", self.by.is_some()),
            ("ttl_ms", self.ttl_ms.is_some()),
            ("meta", self.meta.is_some()),
            ("end", self.end.is_some()),
            ("reverse", self.reverse.is_some()),
            ("keys_only", self.keys_only.is_some()),
            ("count", self.count.is_some()),
            ("if", self.conditions.is_some()),
            ("then", self.then.is_some()),
            ("else", self.otherwise.is_some()),
            ("initial", self.initial.is_some()),
            ("from", self.from.is_some()),
            ("cluster", self.cluster.is_some()),
            ("watch", self.watch.is_some()),
            ("token", self.token.is_some()),
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
        let (key, value, ttl) = (self.key()?, self.value()?, self.ttl()?);
        let command = match ttl {
            None => Command::Put { key: key.clone(), value: value.clone() },
            Some(ttl) => Command::PutExpiring { key: key.clone(), value: value.clone(), ttl },
        };
        Ok(Question::Write(command, session, Shape::Put { key, value, ttl }))
    }

    fn get(&self, is_plain: bool) -> Result<Question, Box<BadRequest>> {
        let key = self.key()?;
        let query = if self.wants_meta() { Query::Entry(key.clone()) } else { Query::Value(key.clone()) };
        self.read(query, Shape::Get { key, is_plain })
    }

    fn read(&self, query: Query, shape: Shape) -> Result<Question, Box<BadRequest>> {
        match self.consistency.as_ref().map(|consistency| consistency.0.as_ref()) {
            None | Some("eventual") => Ok(Question::Read(query, shape)),
            Some("linearizable") => Ok(Question::LinearizableRead(query, shape)),
            Some(other) => Err(refuse(Some(self), format_args!("unknown consistency {other:?}"))),
        }
    }

    fn delete(&self, session: Option<Session>) -> Result<Question, Box<BadRequest>> {
        let key = self.key()?;
        let command = match self.rev.map(Revision) {
            Some(rev) => Command::DeleteRevision { key: key.clone(), rev },
            None => Command::Delete { key: key.clone() },
        };
        Ok(Question::Write(command, session, Shape::Delete { key }))
    }

    fn cas(&self, session: Option<Session>) -> Result<Question, Box<BadRequest>> {
        let (key, value, ttl) = (self.key()?, self.value()?, self.ttl()?);
        let expected = match (self.expect, self.rev.map(Revision)) {
            (Some(json), None) if json.get() == "null" => Expected::Absent,
            (Some(json), None) => {
                Expected::Value(Value::new(json).map_err(|error| refuse_value(self, error))?)
            }
            (None, Some(rev)) => Expected::Revision(rev),
            _ => {
                return Err(refuse(
                    Some(self),
                    "op \"cas\" needs \"expect\", a value or null for absent, or \"rev\", a revision or 0 for \
                     absent",
                ));
            }
        };
        let by_rev = self.rev.is_some();
        let command = Command::cas(key.clone(), expected, value.clone(), ttl);
        Ok(Question::Write(command, session, Shape::Cas { key, value, ttl, by_rev }))
    }

    fn ttl(&self) -> Result<Option<Ttl>, Box<BadRequest>> {
        let of_ms = |ms| {
            let out_of_range = || refuse(Some(self), format_args!("\"ttl_ms\" is 1 to {TTL_MS_MAX}"));
            Ttl::from_ms(ms).ok_or_else(out_of_range)
        };
        self.ttl_ms.map(of_ms).transpose()
    }

    fn delete_prefix(&self, session: Option<Session>) -> Result<Question, Box<BadRequest>> {
        let prefix = self.prefix.as_ref().ok_or_else(|| refuse(Some(self), "\"prefix\" is missing"))?;
        if prefix.0.len() > KEY_BYTES_MAX {
            return Err(refuse(Some(self), format_args!("a prefix has at most {KEY_BYTES_MAX} bytes")));
        }
        let keys_max = match self.limit.map(u32::try_from) {
            None => DELETE_PREFIX_KEYS_MAX,
            Some(Ok(limit)) if (1..=DELETE_PREFIX_KEYS_MAX).contains(&limit) => limit,
            Some(_) => {
                return Err(refuse(Some(self), format_args!("\"limit\" is 1 to {DELETE_PREFIX_KEYS_MAX}")));
            }
        };
        let command = Command::DeletePrefix { prefix: prefix.0.as_ref().into(), keys_max };
        Ok(Question::Write(command, session, Shape::DeletePrefix))
    }

    fn txn(&self, session: Option<Session>) -> Result<Question, Box<BadRequest>> {
        let text = |json: Option<&'a RawValue>| json.map(RawValue::get);
        let txn = Txn::from_json(text(self.conditions), text(self.then), text(self.otherwise));
        let txn = Arc::new(txn.map_err(|error| {
            Box::new(BadRequest { is_too_large: error.is_too_large(), ..*refuse(Some(self), error) })
        })?);
        Ok(Question::Write(Command::Txn(Arc::clone(&txn)), session, Shape::Txn(txn)))
    }

    fn scan(&self) -> Result<Question, Box<BadRequest>> {
        let items_max = self.limit.unwrap_or(SCAN_ITEMS_DEFAULT);
        if !(1..=SCAN_ITEMS_MAX).contains(&items_max) {
            return Err(refuse(Some(self), format_args!("\"limit\" is 1 to {SCAN_ITEMS_MAX}")));
        }
        let text = |text: &Option<Text<'_>>| text.as_ref().map(|text| text.0.to_string());
        let content = match (self.count, self.keys_only) {
            (Some(true), _) => ScanContent::Count,
            (_, Some(true)) => ScanContent::Keys,
            _ => ScanContent::Values,
        };
        let scan = Scan {
            prefix: text(&self.prefix).unwrap_or_default(),
            after: text(&self.after),
            end: text(&self.end),
            is_reverse: self.reverse == Some(true),
            content,
            wants_meta: self.wants_meta() && content != ScanContent::Count,
            items_max,
            bytes_max: SCAN_BYTES_MAX,
        };
        self.read(Query::Scan(scan), Shape::Scan)
    }

    fn watch(&self) -> Result<Question, Box<BadRequest>> {
        let selection = match (&self.key, &self.prefix) {
            (Some(_), None) => Selection::Key(self.key()?),
            (None, Some(prefix)) if prefix.0.len() <= KEY_BYTES_MAX => Selection::Prefix((&*prefix.0).into()),
            (None, Some(_)) => {
                return Err(refuse(Some(self), format_args!("a prefix has at most {KEY_BYTES_MAX} bytes")));
            }
            _ => {
                let what = "op \"watch\" needs either \"key\", or \"prefix\", which may be empty";
                return Err(refuse(Some(self), what));
            }
        };
        let (from, wants_content) = (self.from.map(Revision), self.initial == Some(true));
        if from.is_some() && wants_content {
            return Err(refuse(Some(self), "\"initial\" and \"from\" exclude each other"));
        }
        if from.is_some_and(|from| from > Revision::MAX) {
            return Err(refuse(Some(self), "\"from\" is no revision: it is too high"));
        }
        let cluster = self.cluster.as_ref().map(|cluster| Box::from(&*cluster.0));
        Ok(Question::Watch { selection, from, wants_content, cluster })
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
