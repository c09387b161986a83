//! Transactions: conditions on keys, and the operations that are executed if all of them hold, or
//! if one does not. One log entry holds the whole transaction, so it happens entirely or not at
//! all, on every node and for every reader.
//!
//! | part | as JSON, in the log and in a request |
//! | --- | --- |
//! | condition | `{"key":K,"rev":N}` (0: absent), `{"key":K,"value":V}`, `{"key":K,"absent":true}` |
//! | operation | `{"op":"put","key":K,"value":V}`, also with `"ttl_ms":N`; `{"op":"delete","key":K}`, `{"op":"incr","key":K,"by":N}`, `{"op":"get","key":K}` |
//!
//! Each branch writes a key at most once. So whether an increment can fail depends only on the map
//! before the transaction, and is known before the first operation changes anything.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::revision::Revision;
use super::text::{Key, KeyError, Value, ValueError, given, push, push_json_string};
use super::ttl::{TTL_MS_MAX, Ttl, push_ttl};

/// The most operations of a transaction, in both branches together.
pub const TXN_OPERATIONS_MAX: usize = 128;
/// The most conditions of a transaction.
pub const TXN_CONDITIONS_MAX: usize = 128;
/// The most bytes of a transaction, as its text in the log.
pub const TXN_BYTES_MAX: usize = 512 << 10;
/// The most bytes of values that a transaction reads.
pub const TXN_FOUND_BYTES_MAX: usize = 1 << 20;

/// A transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Txn {
    conditions: Vec<Condition>,
    then: Vec<TxnOperation>,
    otherwise: Vec<TxnOperation>,
}

/// A condition on one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// The key.
    pub key: Key,
    /// The expected state of the key.
    pub expected: Expected,
}

/// The expected state of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// The key has this revision; [`Revision::NONE`]: it is absent.
    Revision(Revision),
    /// The key has this value, compared as text.
    Value(Value),
    /// The key is absent.
    Absent,
}

/// An operation of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TxnOperation {
    /// Sets the key to the value.
    Put {
        /// The key.
        key: Key,
        /// Its new value.
        value: Value,
        /// Its time to live; `None`: it does not expire.
        ttl: Option<Ttl>,
    },
    /// Removes the key.
    Delete {
        /// The key.
        key: Key,
    },
    /// Adds to the key's number.
    Incr {
        /// The key.
        key: Key,
        /// The number to add.
        by: i64,
    },
    /// Reads the key, after the operations before this one.
    Get {
        /// The key.
        key: Key,
    },
}

/// The reason why a transaction is invalid, and the place of the fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TxnError {
    /// The member of the request: `if`, `then` or `else`.
    pub part: &'static str,
    /// The position in that list, from 0; `None`: the fault concerns the list.
    pub position: Option<usize>,
    /// The fault.
    pub fault: TxnFault,
}

/// A fault of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TxnFault {
    /// The part is not a list of objects.
    NotAList,
    /// There are more than [`TXN_OPERATIONS_MAX`] operations or [`TXN_CONDITIONS_MAX`] conditions.
    TooMany,
    /// The transaction is longer than [`TXN_BYTES_MAX`].
    TooLarge,
    /// An object has unknown, duplicate or invalid members.
    Members,
    /// The condition has not exactly one of `rev`, `value` and `absent`.
    Condition,
    /// The operation is unknown.
    Operation,
    /// The operation lacks a member, or has one that belongs to another operation.
    Stray,
    /// The key is invalid.
    Key(KeyError),
    /// The value is invalid.
    Value(ValueError),
    /// The time to live is not 1 to [`TTL_MS_MAX`].
    Ttl,
    /// An earlier operation of the same branch writes the same key.
    WrittenTwice,
}

impl fmt::Display for TxnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.part)?;
        if let Some(position) = self.position {
            write!(f, "[{position}]")?;
        }
        f.write_str(": ")?;
        match self.fault {
            TxnFault::NotAList => f.write_str("a list of objects is expected"),
            TxnFault::TooMany if self.part == "if" => {
                write!(f, "a transaction has at most {TXN_CONDITIONS_MAX} conditions")
            }
            TxnFault::TooMany => write!(f, "a transaction has at most {TXN_OPERATIONS_MAX} operations"),
            TxnFault::TooLarge => write!(f, "a transaction has at most {TXN_BYTES_MAX} bytes"),
            TxnFault::Members if self.part == "if" => {
                f.write_str("a condition is {\"key\":K} with \"rev\":N, \"value\":V or \"absent\":true")
            }
            TxnFault::Members => f.write_str(
                "an operation is an object with \"op\", \"key\", and \"value\" for a put or \"by\", a whole \
                 number, for an incr",
            ),
            TxnFault::Condition => {
                f.write_str("a condition has exactly one of \"rev\", \"value\" and \"absent\":true")
            }
            TxnFault::Operation => f.write_str("\"op\" is \"put\", \"delete\", \"incr\" or \"get\""),
            TxnFault::Stray => f.write_str(
                "a put has \"key\", \"value\" and perhaps \"ttl_ms\", an incr \"key\" and \"by\", a delete and \
                 a get only \"key\"",
            ),
            TxnFault::Ttl => write!(f, "\"ttl_ms\" is 1 to {TTL_MS_MAX}"),
            TxnFault::Key(error) => error.fmt(f),
            TxnFault::Value(error) => error.fmt(f),
            TxnFault::WrittenTwice => f.write_str("a branch writes each key at most once"),
        }
    }
}

impl std::error::Error for TxnError {}

impl TxnError {
    /// Returns whether a value, or the transaction, is too long.
    #[must_use]
    pub fn is_too_large(&self) -> bool {
        matches!(self.fault, TxnFault::TooLarge | TxnFault::Value(ValueError::TooLong))
    }
}

impl TxnOperation {
    /// The key that the operation reads or changes.
    #[must_use]
    pub fn key(&self) -> &Key {
        match self {
            Self::Put { key, .. } | Self::Delete { key } | Self::Incr { key, .. } | Self::Get { key } => key,
        }
    }

    fn writes(&self) -> bool {
        !matches!(self, Self::Get { .. })
    }

    fn push_json(&self, line: &mut String) {
        line.push_str(match self {
            Self::Put { .. } => "{\"op\":\"put\",\"key\":",
            Self::Delete { .. } => "{\"op\":\"delete\",\"key\":",
            Self::Incr { .. } => "{\"op\":\"incr\",\"key\":",
            Self::Get { .. } => "{\"op\":\"get\",\"key\":",
        });
        push_json_string(line, self.key().as_str());
        match self {
            Self::Put { value, ttl, .. } => {
                push_ttl(line, *ttl);
                line.push_str(",\"value\":");
                line.push_str(value.as_json());
            }
            Self::Incr { by, .. } => push(line, format_args!(",\"by\":{by}")),
            Self::Delete { .. } | Self::Get { .. } => {}
        }
        line.push('}');
    }
}

impl Condition {
    fn push_json(&self, line: &mut String) {
        line.push_str("{\"key\":");
        push_json_string(line, self.key.as_str());
        match &self.expected {
            Expected::Revision(rev) => push(line, format_args!(",\"rev\":{rev}")),
            Expected::Value(value) => {
                line.push_str(",\"value\":");
                line.push_str(value.as_json());
            }
            Expected::Absent => line.push_str(",\"absent\":true"),
        }
        line.push('}');
    }
}

/// A condition as JSON.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ConditionText<'a> {
    #[serde(borrow)]
    key: Cow<'a, str>,
    rev: Option<u64>,
    #[serde(borrow, default, deserialize_with = "given")]
    value: Option<&'a RawValue>,
    absent: Option<bool>,
}

/// An operation as JSON.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OperationText<'a> {
    #[serde(borrow)]
    op: Cow<'a, str>,
    #[serde(borrow)]
    key: Cow<'a, str>,
    #[serde(borrow, default, deserialize_with = "given")]
    value: Option<&'a RawValue>,
    by: Option<i64>,
    ttl_ms: Option<u64>,
}

impl ConditionText<'_> {
    fn read(&self) -> Result<Condition, TxnFault> {
        let key = Key::new(&self.key).map_err(TxnFault::Key)?;
        let expected = match (self.rev, self.value, self.absent) {
            (Some(rev), None, None) => Expected::Revision(Revision(rev)),
            (None, Some(json), None) => Expected::Value(Value::new(json).map_err(TxnFault::Value)?),
            (None, None, Some(true)) => Expected::Absent,
            _ => return Err(TxnFault::Condition),
        };
        Ok(Condition { key, expected })
    }
}

impl OperationText<'_> {
    fn read(&self) -> Result<TxnOperation, TxnFault> {
        let key = Key::new(&self.key).map_err(TxnFault::Key)?;
        let ttl = self.ttl_ms.map(|ms| Ttl::from_ms(ms).ok_or(TxnFault::Ttl)).transpose()?;
        if ttl.is_some() && self.op != "put" {
            return Err(TxnFault::Stray);
        }
        match (&*self.op, self.value, self.by) {
            ("put", Some(json), None) => {
                Ok(TxnOperation::Put { key, value: Value::new(json).map_err(TxnFault::Value)?, ttl })
            }
            ("delete", None, None) => Ok(TxnOperation::Delete { key }),
            ("incr", None, Some(by)) => Ok(TxnOperation::Incr { key, by }),
            ("get", None, None) => Ok(TxnOperation::Get { key }),
            ("put" | "delete" | "incr" | "get", ..) => Err(TxnFault::Stray),
            _ => Err(TxnFault::Operation),
        }
    }
}

impl Txn {
    /// Parses a transaction from its three lists, which may be absent.
    ///
    /// # Errors
    ///
    /// [`TxnError`] for the first fault.
    pub fn from_json(
        conditions: Option<&str>,
        then: Option<&str>,
        otherwise: Option<&str>,
    ) -> Result<Self, TxnError> {
        let txn = Self {
            conditions: read_list("if", conditions, TXN_CONDITIONS_MAX, ConditionText::read)?,
            then: read_list("then", then, TXN_OPERATIONS_MAX, OperationText::read)?,
            otherwise: read_list("else", otherwise, TXN_OPERATIONS_MAX, OperationText::read)?,
        };
        if txn.then.len() + txn.otherwise.len() > TXN_OPERATIONS_MAX {
            return Err(TxnError { part: "else", position: None, fault: TxnFault::TooMany });
        }
        for (part, operations) in [("then", &txn.then), ("else", &txn.otherwise)] {
            let mut written = BTreeSet::new();
            let mut places = operations.iter().enumerate().filter(|(_, operation)| operation.writes());
            if let Some((position, _)) = places.find(|(_, operation)| !written.insert(operation.key())) {
                return Err(TxnError { part, position: Some(position), fault: TxnFault::WrittenTwice });
            }
        }
        if txn.text_bytes() > TXN_BYTES_MAX {
            return Err(TxnError { part: "then", position: None, fault: TxnFault::TooLarge });
        }
        Ok(txn)
    }

    /// The conditions.
    #[must_use]
    pub fn conditions(&self) -> &[Condition] {
        &self.conditions
    }

    /// The operations of a branch: `then`, if all conditions hold, or `else`.
    #[must_use]
    pub fn branch(&self, succeeded: bool) -> &[TxnOperation] {
        if succeeded { &self.then } else { &self.otherwise }
    }

    /// The number of bytes of the transaction as text.
    #[must_use]
    pub fn text_bytes(&self) -> usize {
        let mut text = String::new();
        self.push_json(&mut text);
        text.len()
    }

    /// Returns whether an operation reads a key.
    #[must_use]
    pub fn reads(&self) -> bool {
        self.operations().any(|operation| !operation.writes())
    }

    /// Returns whether a transaction removes keys and does nothing else. One that holds values for
    /// its conditions does not count: they take up memory in the log.
    #[must_use]
    pub fn only_deletes(&self) -> bool {
        let holds_value = |condition: &Condition| matches!(condition.expected, Expected::Value(_));
        if self.conditions.iter().any(holds_value) || !self.operations().any(TxnOperation::writes) {
            return false;
        }
        self.operations().all(|it| matches!(it, TxnOperation::Delete { .. } | TxnOperation::Get { .. }))
    }

    fn operations(&self) -> impl Iterator<Item = &TxnOperation> {
        self.then.iter().chain(&self.otherwise)
    }

    /// The keys of all conditions and operations, each with whether the operation may write it.
    /// Keys may repeat.
    pub fn keys(&self) -> impl Iterator<Item = (&Key, bool)> {
        let conditions = self.conditions.iter().map(|condition| (&condition.key, false));
        conditions.chain(self.operations().map(|operation| (operation.key(), operation.writes())))
    }

    /// Appends the three lists as members of an object.
    pub(super) fn push_json(&self, line: &mut String) {
        line.push_str("\"if\":[");
        push_list(line, &self.conditions, Condition::push_json);
        line.push_str("],\"then\":[");
        push_list(line, &self.then, TxnOperation::push_json);
        line.push_str("],\"else\":[");
        push_list(line, &self.otherwise, TxnOperation::push_json);
        line.push(']');
    }
}

fn push_list<T>(line: &mut String, items: &[T], push: impl Fn(&T, &mut String)) {
    for (position, item) in items.iter().enumerate() {
        line.push_str(if position > 0 { "," } else { "" });
        push(item, line);
    }
}

fn read_list<'a, Text: Deserialize<'a>, T>(
    part: &'static str,
    json: Option<&'a str>,
    items_max: usize,
    read: impl Fn(&Text) -> Result<T, TxnFault>,
) -> Result<Vec<T>, TxnError> {
    let Some(json) = json else { return Ok(Vec::new()) };
    let of_list = |fault| TxnError { part, position: None, fault };
    let texts: Vec<&RawValue> = serde_json::from_str(json).map_err(|_| of_list(TxnFault::NotAList))?;
    if texts.len() > items_max {
        return Err(of_list(TxnFault::TooMany));
    }
    let item = |(position, text): (usize, &&'a RawValue)| {
        let fault = match serde_json::from_str::<Text>(text.get()) {
            Ok(text) => read(&text),
            Err(_) => Err(TxnFault::Members),
        };
        fault.map_err(|fault| TxnError { part, position: Some(position), fault })
    };
    texts.iter().enumerate().map(item).collect()
}

#[cfg(test)]
mod tests;
