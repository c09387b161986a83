//! Callers: a program that asks its own cluster gets each reply as what it asked for.
//!
//! A [`Question`] is a request together with the way in which its answer is read. A router gives
//! every caller the answer to its own request. So an answer of another kind is a bug, and a panic.

use crate::kv::{Command, Found, Key, Outcome, Page, Query, Scan, Session, Value};
use crate::proxy::{Answered, NodeReport};
use crate::raft::{LogIndex, NodeId};
use crate::replica::{Answer, Request};

/// What a caller asks, to be answered by a `T`. See the module.
#[derive(Debug)]
pub struct Question<T> {
    /// What is asked of the router.
    pub request: Request,
    /// What the answer says, and the index at which it was decided: 0 when the log has no part in
    /// it. Panics at the answer to something else.
    pub read: fn(Answered) -> (LogIndex, T),
}

impl Question<Outcome> {
    /// Carries out a command, once for a session.
    #[must_use]
    pub fn write(command: Command, session: Option<Session>) -> Self {
        Self { request: Request::Write { command, session }, read: applied }
    }
}

impl Question<()> {
    /// Sets `key` to `value`.
    #[must_use]
    pub fn put(key: Key, value: Value) -> Self {
        let request = Request::write(Command::Put { key, value });
        Self { request, read: |answered| (applied(answered).0, ()) }
    }

    /// Lets `node` lead.
    #[must_use]
    pub fn transfer(node: NodeId) -> Self {
        let read = |answered| match answered {
            Answered::ByNode(Answer::Transferred { .. }) => (LogIndex::ORIGIN, ()),
            other => panic!("a transfer was answered with {other:?}"),
        };
        Self { request: Request::Transfer(node), read }
    }
}

impl Question<bool> {
    /// Removes `key`; whether it was there.
    #[must_use]
    pub fn delete(key: Key) -> Self {
        let read = |answered| {
            let (index, outcome) = applied(answered);
            (index, outcome == Outcome::Done)
        };
        Self { request: Request::write(Command::Delete { key }), read }
    }
}

impl Question<Option<Value>> {
    /// The value of `key`, by a node that has applied everything up to `at_least`.
    #[must_use]
    pub fn get(key: Key, at_least: LogIndex) -> Self {
        Self { request: Request::Read { query: Query::Value(key), at_least }, read: value }
    }

    /// The value of `key`, at least as new as everything that anybody had an answer to when this
    /// was asked.
    #[must_use]
    pub fn get_linearizable(key: Key) -> Self {
        Self { request: Request::LinearizableRead(Query::Value(key)), read: value }
    }
}

impl Question<Page> {
    /// Some keys and their values, by a node that has applied everything up to `at_least`.
    #[must_use]
    pub fn scan(scan: Scan, at_least: LogIndex) -> Self {
        let read = |answered| match found(answered) {
            (index, Found::Page(page)) => (index, page),
            (_, Found::Value(_)) => panic!("a scan was answered with a value"),
        };
        Self { request: Request::Read { query: Query::Scan(scan), at_least }, read }
    }
}

impl Question<Vec<NodeReport>> {
    /// How every node is doing, ascending by id.
    #[must_use]
    pub fn status() -> Self {
        let read = |answered| match answered {
            Answered::Status(report) => (LogIndex::ORIGIN, report.nodes),
            other @ Answered::ByNode(_) => panic!("a status was answered with {other:?}"),
        };
        Self { request: Request::Status, read }
    }
}

fn applied(answered: Answered) -> (LogIndex, Outcome) {
    match answered {
        Answered::ByNode(Answer::Applied { index, outcome }) => (index, outcome),
        other => panic!("a write was answered with {other:?}"),
    }
}

fn found(answered: Answered) -> (LogIndex, Found) {
    match answered {
        Answered::ByNode(Answer::Read { index, found }) => (index, found),
        other => panic!("a read was answered with {other:?}"),
    }
}

fn value(answered: Answered) -> (LogIndex, Option<Value>) {
    match found(answered) {
        (index, Found::Value(value)) => (index, value),
        (_, Found::Page(_)) => panic!("a get was answered with a page"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::ClusterReport;

    fn key() -> Key {
        Key::new("k").unwrap()
    }

    #[test]
    fn an_answer_is_read_as_what_was_asked_for() {
        let index = LogIndex(7);
        let applied = Answered::ByNode(Answer::Applied { index, outcome: Outcome::Done });
        assert_eq!((Question::delete(key()).read)(applied), (index, true));
        let absent = Answered::ByNode(Answer::Applied { index, outcome: Outcome::NotFound });
        assert_eq!((Question::delete(key()).read)(absent), (index, false));
        let value = Some(Value::from_json("1").unwrap());
        let read = Answered::ByNode(Answer::Read { index, found: Found::Value(value.clone()) });
        assert_eq!((Question::get(key(), LogIndex::ORIGIN).read)(read), (index, value));
        let status = ClusterReport { nodes: Vec::new(), memory: None };
        assert_eq!((Question::status().read)(Answered::Status(status)).0, LogIndex::ORIGIN);
    }

    #[test]
    fn a_read_asks_for_what_its_caller_has_seen() {
        let Request::Read { at_least, .. } = Question::get(key(), LogIndex(7)).request else { panic!() };
        assert_eq!(at_least, LogIndex(7));
    }

    #[test]
    #[should_panic(expected = "a read was answered with")]
    fn an_answer_to_something_else_is_a_bug() {
        let applied = Answered::ByNode(Answer::Applied { index: LogIndex(7), outcome: Outcome::Done });
        (Question::get_linearizable(key()).read)(applied);
    }
}
