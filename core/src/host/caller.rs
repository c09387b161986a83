//! Typed requests of callers in the same process: pairs each request with the conversion of its
//! answer.
//!
//! A [`Question`] is a request together with the function that reads its answer. The router gives
//! each caller the answer to that caller's own request, so an answer of another kind is a bug and
//! panics.

use crate::kv::{Command, Found, Key, KeyMeta, Outcome, Page, Query, Scan, ScanContent, Session, Value};
use crate::proxy::{Answered, NodeReport};
use crate::raft::{LogIndex, NodeId};
use crate::replica::{Answer, Request};

/// A request of a caller whose answer is a `T`. See the module.
#[derive(Debug)]
pub struct Question<T> {
    /// The request for the router.
    pub request: Request,
    /// Reads the answer: its value, and the log index at which it was decided (0 when the log is
    /// not involved). Panics at an answer to another kind of request.
    pub read: fn(Answered) -> (LogIndex, T),
}

impl Question<Outcome> {
    /// Executes a command, exactly once if it has a session.
    #[must_use]
    pub fn write(command: Command, session: Option<Session>) -> Self {
        Self { request: Request::Write { command, session, wants_meta: false }, read: applied }
    }
}

impl Question<()> {
    /// Sets `key` to `value`.
    #[must_use]
    pub fn put(key: Key, value: Value) -> Self {
        let request = Request::write(Command::Put { key, value });
        Self { request, read: |answered| (applied(answered).0, ()) }
    }

    /// Transfers leadership to `node`.
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
    /// Removes `key`; the answer says whether it existed.
    #[must_use]
    pub fn delete(key: Key) -> Self {
        let read = |answered| {
            let (index, outcome) = applied(answered);
            (index, outcome == Outcome::Done)
        };
        Self { request: Request::write(Command::Delete { key }), read }
    }
}

impl Question<Option<(Value, KeyMeta)>> {
    /// Reads the value of `key` and its revisions, from a node whose applied index is at least
    /// `at_least`.
    #[must_use]
    pub fn get_entry(key: Key, at_least: LogIndex) -> Self {
        let read = |answered| match found(answered) {
            (index, Found::Entry(entry)) => (index, entry),
            (_, found) => panic!("a get with revisions was answered with {found:?}"),
        };
        Self { request: Request::Read { query: Query::Entry(key), at_least }, read }
    }
}

impl Question<u64> {
    /// Counts the keys in the range of a scan, at a node whose applied index is at least
    /// `at_least`.
    #[must_use]
    pub fn count(scan: Scan, at_least: LogIndex) -> Self {
        let read = |answered| match found(answered) {
            (index, Found::Count(keys)) => (index, keys),
            (_, found) => panic!("a count was answered with {found:?}"),
        };
        let query = Query::Scan(Scan { content: ScanContent::Count, ..scan });
        Self { request: Request::Read { query, at_least }, read }
    }
}

impl Question<Option<Value>> {
    /// Reads the value of `key` from a node whose applied index is at least `at_least`.
    #[must_use]
    pub fn get(key: Key, at_least: LogIndex) -> Self {
        Self { request: Request::Read { query: Query::Value(key), at_least }, read: value }
    }

    /// Reads the value of `key` linearizably: the answer reflects every write that was acknowledged
    /// to any client before this request.
    #[must_use]
    pub fn get_linearizable(key: Key) -> Self {
        Self { request: Request::LinearizableRead(Query::Value(key)), read: value }
    }
}

impl Question<Page> {
    /// Reads a page of keys, with values unless the scan asks for keys alone, from a node whose
    /// applied index is at least `at_least`.
    #[must_use]
    pub fn scan(scan: Scan, at_least: LogIndex) -> Self {
        let read = |answered| match found(answered) {
            (index, Found::Page(page)) => (index, page),
            (_, found) => panic!("a scan was answered with {found:?}"),
        };
        let content = match scan.content {
            ScanContent::Count => ScanContent::Values,
            content => content,
        };
        let scan = Scan { content, ..scan };
        Self { request: Request::Read { query: Query::Scan(scan), at_least }, read }
    }
}

impl Question<Vec<NodeReport>> {
    /// Reads the status of every node, ascending by id.
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
        Answered::ByNode(Answer::Applied { index, outcome, .. }) => (index, outcome),
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
        (_, found) => panic!("a get was answered with {found:?}"),
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
    fn each_answer_is_converted_to_the_type_of_its_question() {
        let index = LogIndex(7);
        let applied =
            Answered::ByNode(Answer::Applied { index, outcome: Outcome::Done, meta: KeyMeta::default() });
        assert_eq!((Question::delete(key()).read)(applied), (index, true));
        let absent =
            Answered::ByNode(Answer::Applied { index, outcome: Outcome::NotFound, meta: KeyMeta::default() });
        assert_eq!((Question::delete(key()).read)(absent), (index, false));
        let value = Some(Value::from_json("1").unwrap());
        let read = Answered::ByNode(Answer::Read { index, found: Found::Value(value.clone()) });
        assert_eq!((Question::get(key(), LogIndex::ORIGIN).read)(read), (index, value));
        let status = ClusterReport { nodes: Vec::new(), memory: None };
        assert_eq!((Question::status().read)(Answered::Status(status)).0, LogIndex::ORIGIN);
    }

    #[test]
    fn a_read_carries_the_index_that_its_caller_has_seen() {
        let Request::Read { at_least, .. } = Question::get(key(), LogIndex(7)).request else { panic!() };
        assert_eq!(at_least, LogIndex(7));
    }

    #[test]
    #[should_panic(expected = "a read was answered with")]
    fn an_answer_to_something_else_is_a_bug() {
        let applied = Answered::ByNode(Answer::Applied {
            index: LogIndex(7),
            outcome: Outcome::Done,
            meta: KeyMeta::default(),
        });
        (Question::get_linearizable(key()).read)(applied);
    }
}
