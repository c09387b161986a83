//! Commands: the writes of clients, and the entry by which a leader raises the level.
//!
//! | command | effect |
//! | --- | --- |
//! | put | sets a key |
//! | delete | removes a key; also on condition of its revision |
//! | compare-and-swap (CAS) | sets a key on condition of its value or its revision |
//! | expiring put, expiring CAS | sets a key with a time to live |
//! | touch, persist | sets a key's time to live, or takes it away |
//! | tick | lets keys expire; only a leader proposes it |
//! | incr | adds to a key's number |
//! | delete by prefix | removes the first keys with a prefix |
//! | transaction | conditions, and operations that happen together |
//!
//! Their encoding in the log is in `payload`.

use std::borrow::Cow;
use std::sync::Arc;

use super::level::Level;
use super::revision::Revision;
use super::session::{LoggedSession, Session};
use super::text::{Key, Value};
use super::ttl::{Tick, Ttl};
use super::txn::{Expected, Txn};

/// The most keys that one delete by prefix removes.
pub const DELETE_PREFIX_KEYS_MAX: u32 = 1000;

/// A checked command.
///
/// ```
/// use coracle_core::kv::{Command, Key, Value};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // Sets the key only if it is absent.
/// let key = Key::new("lock")?;
/// let acquire = Command::Cas { key, expect: None, value: Value::from_text("till-4")? };
/// assert_eq!(acquire.key().map(Key::as_str), Some("lock"));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Sets the key to the value.
    Put {
        /// The key.
        key: Key,
        /// Its new value.
        value: Value,
    },
    /// Removes the key.
    Delete {
        /// The key.
        key: Key,
    },
    /// Compare-and-swap: sets the key to the value if its current value is the expected one. Values
    /// are compared as text.
    Cas {
        /// The key.
        key: Key,
        /// The expected value; `None`: the key must be absent.
        expect: Option<Value>,
        /// Its new value.
        value: Value,
    },
    /// Removes the key if it has this revision.
    DeleteRevision {
        /// The key.
        key: Key,
        /// The expected revision; [`Revision::NONE`]: the key must be absent.
        rev: Revision,
    },
    /// Sets the key to the value if it has this revision.
    CasRevision {
        /// The key.
        key: Key,
        /// The expected revision; [`Revision::NONE`]: the key must be absent.
        rev: Revision,
        /// Its new value.
        value: Value,
    },
    /// Sets the key to the value, and its time to live.
    PutExpiring {
        /// The key.
        key: Key,
        /// Its new value.
        value: Value,
        /// Its time to live, from the commit on.
        ttl: Ttl,
    },
    /// Sets the key to the value, and its time to live, if the key is as expected.
    CasExpiring {
        /// The key.
        key: Key,
        /// The expected state.
        expected: Expected,
        /// Its new value.
        value: Value,
        /// Its time to live, from the commit on.
        ttl: Ttl,
    },
    /// Sets the time to live of the key. Its value and its revisions stay.
    Touch {
        /// The key.
        key: Key,
        /// Its time to live, from the commit on.
        ttl: Ttl,
    },
    /// Lets the key live without a limit. Its value and its revisions stay.
    Persist {
        /// The key.
        key: Key,
    },
    /// Lets keys expire. Only a leader proposes it.
    Tick(Arc<Tick>),
    /// Adds to the number of the key, which counts as 0 if the key is absent.
    Incr {
        /// The key.
        key: Key,
        /// The number to add.
        by: i64,
    },
    /// Removes the first keys with a prefix, in the order of keys.
    DeletePrefix {
        /// The prefix, at most [`KEY_BYTES_MAX`](super::KEY_BYTES_MAX) bytes; empty for all keys.
        prefix: Box<str>,
        /// The most keys to remove: 1 to [`DELETE_PREFIX_KEYS_MAX`].
        keys_max: u32,
    },
    /// Executes a transaction.
    Txn(Arc<Txn>),
    /// Raises the level. Only a leader proposes it.
    RaiseLevel(Level),
}

impl Command {
    /// A compare-and-swap on any condition, with a time to live if the new value has one.
    #[must_use]
    pub fn cas(key: Key, expected: Expected, value: Value, ttl: Option<Ttl>) -> Self {
        match (expected, ttl) {
            (expected, Some(ttl)) => Self::CasExpiring { key, expected, value, ttl },
            (Expected::Absent, None) => Self::Cas { key, expect: None, value },
            (Expected::Value(expect), None) => Self::Cas { key, expect: Some(expect), value },
            (Expected::Revision(rev), None) => Self::CasRevision { key, rev, value },
        }
    }

    /// The key that the command reads or changes, if it is a single one.
    #[must_use]
    pub fn key(&self) -> Option<&Key> {
        match self {
            Self::Put { key, .. }
            | Self::Delete { key }
            | Self::Cas { key, .. }
            | Self::DeleteRevision { key, .. }
            | Self::CasRevision { key, .. }
            | Self::PutExpiring { key, .. }
            | Self::CasExpiring { key, .. }
            | Self::Touch { key, .. }
            | Self::Persist { key }
            | Self::Incr { key, .. } => Some(key),
            Self::DeletePrefix { .. } | Self::Txn(_) | Self::RaiseLevel(_) | Self::Tick(_) => None,
        }
    }

    /// The number of bytes of keys and values in the command.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let key = self.key().map_or(0, |key| key.as_str().len());
        let rest = match self {
            Self::Put { value, .. } | Self::CasRevision { value, .. } | Self::PutExpiring { value, .. } => {
                value.as_json().len()
            }
            Self::CasExpiring { expected, value, .. } => {
                let expected = if let Expected::Value(value) = expected { value.as_json().len() } else { 0 };
                expected + value.as_json().len()
            }
            Self::Cas { expect, value, .. } => {
                expect.as_ref().map_or(0, |value| value.as_json().len()) + value.as_json().len()
            }
            Self::DeletePrefix { prefix, .. } => prefix.len(),
            Self::Txn(txn) => txn.text_bytes(),
            Self::Tick(tick) => tick.expired.iter().map(|key| key.as_str().len()).sum(),
            Self::Delete { .. }
            | Self::DeleteRevision { .. }
            | Self::Touch { .. }
            | Self::Persist { .. }
            | Self::Incr { .. }
            | Self::RaiseLevel(_) => 0,
        };
        key + rest
    }

    /// The lowest level of a cluster whose members can all apply the command.
    #[must_use]
    pub fn level(&self) -> Level {
        match self {
            Self::Put { .. } | Self::Delete { .. } | Self::Cas { .. } => Level::FIRST,
            Self::DeleteRevision { .. }
            | Self::CasRevision { .. }
            | Self::PutExpiring { .. }
            | Self::CasExpiring { .. }
            | Self::Touch { .. }
            | Self::Persist { .. }
            | Self::Tick(_)
            | Self::Incr { .. }
            | Self::DeletePrefix { .. }
            | Self::Txn(_) => Level::REVISIONS,
            Self::RaiseLevel(level) => *level,
        }
    }

    /// Returns whether only a leader proposes the command, and no client.
    #[must_use]
    pub fn is_leaders(&self) -> bool {
        matches!(self, Self::RaiseLevel(_) | Self::Tick(_))
    }

    /// The time to live that the command sets, if any.
    #[must_use]
    pub fn ttl(&self) -> Option<Ttl> {
        match self {
            Self::PutExpiring { ttl, .. } | Self::CasExpiring { ttl, .. } | Self::Touch { ttl, .. } => {
                Some(*ttl)
            }
            _ => None,
        }
    }

    /// Returns whether the command can only remove keys, so that it needs no memory for data.
    #[must_use]
    pub fn only_deletes(&self) -> bool {
        match self {
            Self::Delete { .. } | Self::DeleteRevision { .. } | Self::DeletePrefix { .. } => true,
            Self::Txn(txn) => txn.only_deletes(),
            _ => false,
        }
    }
}

/// A command as parsed from the log, borrowed from its line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation<'a> {
    /// See [`Command::Put`].
    Put {
        /// The key.
        key: Cow<'a, str>,
        /// The value as JSON text.
        value: &'a str,
    },
    /// See [`Command::Delete`].
    Delete {
        /// The key.
        key: Cow<'a, str>,
    },
    /// See [`Command::Cas`].
    Cas {
        /// The key.
        key: Cow<'a, str>,
        /// The expected value as JSON text; `None`: the key must be absent.
        expect: Option<&'a str>,
        /// The new value as JSON text.
        value: &'a str,
    },
    /// Any other command, which is checked as it is parsed.
    Other(Command),
}

/// A command with its session, if it has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// The client name and sequence number, if the client sent them.
    pub session: Option<Session>,
    /// The command to execute.
    pub command: Command,
}

/// A write as parsed from the log, borrowed from its line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedWrite<'a> {
    /// The client name and sequence number, if the client sent them.
    pub session: Option<LoggedSession<'a>>,
    /// The operation to execute.
    pub operation: Operation<'a>,
}

impl From<LoggedWrite<'_>> for Write {
    fn from(LoggedWrite { session, operation }: LoggedWrite<'_>) -> Self {
        let key = |text: Cow<'_, str>| Key::from_log(&text);
        let command = match operation {
            Operation::Put { key: text, value } => {
                Command::Put { key: key(text), value: Value::from_log(value) }
            }
            Operation::Delete { key: text } => Command::Delete { key: key(text) },
            Operation::Cas { key: text, expect, value } => Command::Cas {
                key: key(text),
                expect: expect.map(Value::from_log),
                value: Value::from_log(value),
            },
            Operation::Other(command) => command,
        };
        Self { session: session.map(Session::from), command }
    }
}
