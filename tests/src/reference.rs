//! Reference map: an independent implementation of the commands, against which the state machine
//! and the histories of clients are checked.
//!
//! It shares no code with the state machine: it parses the payload of an entry with its own parser,
//! keeps a plain map, and copies that map wherever a command may fail half-way. Checkers that
//! called the state machine would share its bugs.
//!
//! A revision may be unknown (`None`), because a client that got no answer does not know which
//! entry its write became. A condition on an unknown revision holds if the answer says so.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use coracle_core::kv::{Outcome, TxnOutcome, TxnResult, Value};
use serde::Deserialize;
use serde_json::value::RawValue;

/// The keys with their content.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReferenceMap {
    keys: BTreeMap<String, Content>,
}

/// The content of a key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Content {
    /// The value as JSON text.
    pub value: String,
    /// The revision of the last change, if it is known.
    pub rev: Option<u64>,
    /// The revision of the creation, if it is known.
    pub created: Option<u64>,
    /// The time to live, if the key expires.
    pub expiry: Option<Expiry>,
}

/// The time to live of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Expiry {
    /// The entry that has set it, if it is known.
    pub since: Option<u64>,
    /// The time to live, in milliseconds.
    pub ttl_ms: u64,
}

/// The members of an entry, or of an operation of a transaction.
#[derive(Debug, Deserialize)]
pub struct EntryText<'a> {
    /// The operation, in capitals or, within a transaction, in small letters.
    #[serde(borrow)]
    pub op: Cow<'a, str>,
    /// The key.
    #[serde(borrow)]
    pub key: Option<Cow<'a, str>>,
    /// The client of the session.
    #[serde(borrow)]
    pub client: Option<Cow<'a, str>>,
    /// The sequence number of the session.
    pub seq: Option<u64>,
    /// The expected revision.
    pub rev: Option<u64>,
    #[serde(borrow)]
    value: Option<&'a RawValue>,
    #[serde(borrow)]
    expect: Option<&'a RawValue>,
    by: Option<i64>,
    #[serde(borrow)]
    prefix: Option<Cow<'a, str>>,
    limit: Option<usize>,
    /// The time to live that the entry sets, in milliseconds.
    pub ttl_ms: Option<u64>,
    /// The last entry that the leader of a tick had applied.
    pub applied: Option<u64>,
    /// The log time of a tick, in microseconds.
    pub time_us: Option<u64>,
    #[serde(borrow, default)]
    expired: Vec<Cow<'a, str>>,
    #[serde(borrow, default, rename = "if")]
    conditions: Vec<ConditionText<'a>>,
    #[serde(borrow, default)]
    then: Vec<EntryText<'a>>,
    #[serde(borrow, default, rename = "else")]
    otherwise: Vec<EntryText<'a>>,
}

#[derive(Debug, Deserialize)]
struct ConditionText<'a> {
    #[serde(borrow)]
    key: Cow<'a, str>,
    rev: Option<u64>,
    #[serde(borrow)]
    value: Option<&'a RawValue>,
}

/// The keys that an entry may touch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Touched {
    /// These keys.
    Keys(Vec<String>),
    /// Every key with this prefix.
    Prefix(String),
}

impl<'a> EntryText<'a> {
    /// Parses the object of an entry: its payload in braces.
    ///
    /// # Panics
    ///
    /// When it is not the payload of an entry.
    #[must_use]
    pub fn parse(object: &'a str) -> Self {
        serde_json::from_str(object).expect("a payload is the members of an object")
    }

    /// The keys that the entry may touch.
    #[must_use]
    pub fn touches(&self) -> Touched {
        if let Some(prefix) = &self.prefix {
            return Touched::Prefix(prefix.clone().into_owned());
        }
        let conditions = self.conditions.iter().map(|condition| &condition.key);
        let operations =
            self.then.iter().chain(&self.otherwise).filter_map(|operation| operation.key.as_ref());
        let keys = self.key.iter().chain(conditions).chain(operations).chain(&self.expired);
        Touched::Keys(keys.map(|key| key.clone().into_owned()).collect())
    }

    /// The keys that expire by this entry, each with its time to live, in a map as it is before.
    #[must_use]
    pub fn expires(&self, map: &ReferenceMap) -> Vec<(String, Expiry)> {
        let is_older = |expiry: &Expiry| expiry.since <= self.applied;
        let expiry = |key: &str| map.content(key)?.expiry.filter(is_older);
        self.expired.iter().filter_map(|key| Some((key.clone().into_owned(), expiry(key)?))).collect()
    }

    /// Returns whether a condition asks for a revision.
    #[must_use]
    pub fn asks_for_revision(&self) -> bool {
        self.rev.is_some() || self.conditions.iter().any(|condition| condition.rev.is_some())
    }

    fn is(&self, op: &str) -> bool {
        self.op.eq_ignore_ascii_case(op)
    }

    fn key(&self) -> &str {
        self.key.as_deref().expect("the operation has a key")
    }
}

fn text(json: Option<&RawValue>) -> Option<String> {
    json.map(RawValue::get).filter(|json| *json != "null").map(str::to_owned)
}

fn as_value(json: &str) -> Value {
    Value::from_json(json).expect("a value that a client has sent")
}

impl ReferenceMap {
    /// The content of a key.
    #[must_use]
    pub fn content(&self, key: &str) -> Option<&Content> {
        self.keys.get(key)
    }

    /// The keys that expire, each with its time to live.
    pub fn expiring(&self) -> impl Iterator<Item = (&String, Expiry)> {
        self.keys.iter().filter_map(|(key, content)| Some((key, content.expiry?)))
    }

    /// The keys with a prefix, ascending.
    pub fn with_prefix(&self, prefix: &str) -> impl Iterator<Item = (&String, &Content)> {
        self.keys.iter().filter(move |(key, _)| key.starts_with(prefix))
    }

    /// Counts all changes so far as made at this revision.
    pub fn count_revisions_from(&mut self, first: u64) {
        for content in self.keys.values_mut() {
            (content.rev, content.created) = (Some(first), Some(first));
        }
    }

    /// Executes an entry. `at` is its revision, if it is known; `answered` is the outcome that its
    /// client got, which decides conditions on unknown revisions.
    pub fn execute(&mut self, entry: &EntryText<'_>, at: Option<u64>, answered: Option<&Outcome>) -> Outcome {
        if entry.is("delete_prefix") {
            return self.delete_prefix(entry);
        }
        if entry.is("txn") {
            return self.transact(entry, at, answered);
        }
        if entry.is("tick") {
            entry.expires(self).iter().for_each(|(key, _)| drop(self.keys.remove(key)));
            return Outcome::Done;
        }
        let key = entry.key();
        let actual = || self.content(key).map(|content| content.value.clone());
        let is_refused = matches!(answered, Some(Outcome::Mismatch { .. }));
        let is_met = match (entry.rev, entry.is("cas")) {
            (Some(rev), _) => self.has_revision(key, rev).unwrap_or(!is_refused),
            (None, true) => actual() == text(entry.expect),
            (None, false) => true,
        };
        if !is_met {
            return Outcome::Mismatch { actual: actual().as_deref().map(as_value) };
        }
        if entry.is("delete") {
            return if self.keys.remove(key).is_some() { Outcome::Done } else { Outcome::NotFound };
        }
        let expiry = entry.ttl_ms.map(|ttl_ms| Expiry { since: at, ttl_ms });
        if entry.is("touch") || entry.is("persist") {
            let Some(content) = self.keys.get_mut(key) else { return Outcome::NotFound };
            content.expiry = expiry;
            return Outcome::Done;
        }
        if entry.is("incr") {
            let sum = match self.sum(key, entry.by.expect("an increment has a number")) {
                Ok(sum) => sum,
                Err(outcome) => return outcome,
            };
            let expiry = self.keys.get(key).and_then(|content| content.expiry);
            self.set(key, sum.to_string(), at, expiry);
            return Outcome::Sum(sum);
        }
        self.set(key, text(entry.value).expect("a put has a value"), at, expiry);
        Outcome::Done
    }

    fn set(&mut self, key: &str, value: String, at: Option<u64>, expiry: Option<Expiry>) {
        let created = self.keys.get(key).map_or(at, |content| content.created);
        self.keys.insert(key.to_owned(), Content { value, rev: at, created, expiry });
    }

    /// Returns whether a key has a revision; `None`: its revision is not known.
    fn has_revision(&self, key: &str, rev: u64) -> Option<bool> {
        match self.keys.get(key) {
            None => Some(rev == 0),
            Some(content) => content.rev.map(|known| known == rev),
        }
    }

    fn sum(&self, key: &str, by: i64) -> Result<i64, Outcome> {
        let number = match self.keys.get(key).map(|content| content.value.as_str()) {
            None => 0,
            Some(text) if text.chars().all(|it| it == '-' || it.is_ascii_digit()) => {
                text.parse::<i128>().expect("the value is short")
            }
            Some(_) => return Err(Outcome::NotANumber),
        };
        i64::try_from(number + i128::from(by)).map_err(|_| Outcome::OutOfRange)
    }

    fn delete_prefix(&mut self, entry: &EntryText<'_>) -> Outcome {
        let prefix = entry.prefix.as_deref().expect("it has a prefix");
        let all: Vec<_> = self.with_prefix(prefix).map(|(key, _)| key.clone()).collect();
        let gone = all.len().min(entry.limit.expect("it has a limit"));
        all[..gone].iter().for_each(|key| drop(self.keys.remove(key)));
        let keys = u32::try_from(gone).expect("a run has few keys");
        Outcome::Deleted { keys, more: gone < all.len() }
    }

    fn transact(&mut self, entry: &EntryText<'_>, at: Option<u64>, answered: Option<&Outcome>) -> Outcome {
        let holds = |condition: &ConditionText<'_>| match condition.rev {
            Some(rev) => self.has_revision(&condition.key, rev),
            None => {
                let actual = self.content(&condition.key).map(|content| content.value.as_str());
                Some(actual == condition.value.map(RawValue::get))
            }
        };
        let conditions: Vec<_> = entry.conditions.iter().map(holds).collect();
        let is_unsure = conditions.contains(&None) && !conditions.contains(&Some(false));
        let succeeded = match answered {
            Some(Outcome::Txn(txn)) if is_unsure => txn.succeeded,
            _ => !conditions.contains(&Some(false)),
        };
        let mut after = self.clone();
        let mut results = Vec::new();
        for operation in if succeeded { &entry.then } else { &entry.otherwise } {
            if operation.is("get") {
                let content = after.content(operation.key());
                results.push(TxnResult::Found(content.map(|content| as_value(&content.value))));
                continue;
            }
            results.push(match after.execute(operation, at, None) {
                Outcome::Done => TxnResult::Done,
                Outcome::NotFound => TxnResult::NotFound,
                Outcome::Sum(sum) => TxnResult::Sum(sum),
                failed => return failed,
            });
        }
        *self = after;
        Outcome::Txn(Arc::new(TxnOutcome { succeeded, results }))
    }
}
