//! Callers: a program that asks its own cluster gets each reply as what it asked for.
//!
//! A router gives every caller the answer to its own request. So an answer of another kind is a bug, and a panic.

use crate::kv::{Found, Outcome, Page, Value};
use crate::proxy::{Answered, NodeReport};
use crate::raft::LogIndex;
use crate::replica::Answer;

impl Answered {
    /// The outcome of a write, and the index at which it was decided.
    ///
    /// # Panics
    ///
    /// When this is the answer to something else.
    #[must_use]
    pub fn into_applied(self) -> (LogIndex, Outcome) {
        match self {
            Self::ByNode(Answer::Applied { index, outcome }) => (index, outcome),
            other => panic!("a write was answered with {other:?}"),
        }
    }

    /// What a read has found, and the index at which it was decided.
    ///
    /// # Panics
    ///
    /// When this is the answer to something else.
    #[must_use]
    pub fn into_found(self) -> (LogIndex, Found) {
        match self {
            Self::ByNode(Answer::Read { index, found }) => (index, found),
            other => panic!("a read was answered with {other:?}"),
        }
    }

    /// Nothing: leadership was handed over.
    ///
    /// # Panics
    ///
    /// When this is the answer to something else.
    pub fn into_transferred(self) {
        assert!(
            matches!(self, Self::ByNode(Answer::Transferred { .. })),
            "a transfer was answered with {self:?}"
        );
    }

    /// How every node is doing, ascending by id.
    ///
    /// # Panics
    ///
    /// When this is the answer to something else.
    #[must_use]
    pub fn into_status(self) -> Vec<NodeReport> {
        match self {
            Self::Status(rows) => rows,
            other @ Self::ByNode(_) => panic!("a status was answered with {other:?}"),
        }
    }
}

impl Found {
    /// The value that a query for one key has found.
    ///
    /// # Panics
    ///
    /// When a scan has found it.
    #[must_use]
    pub fn into_value(self) -> Option<Value> {
        match self {
            Self::Value(value) => value,
            Self::Page(_) => panic!("a get was answered with a page"),
        }
    }

    /// The page that a scan has found.
    ///
    /// # Panics
    ///
    /// When a query for one key has found it.
    #[must_use]
    pub fn into_page(self) -> Page {
        match self {
            Self::Page(page) => page,
            Self::Value(_) => panic!("a scan was answered with a value"),
        }
    }
}
