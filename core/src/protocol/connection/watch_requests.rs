//! The requests that begin and end a watch, and the replies to them.

use super::{Connection, Waiting};
use crate::kv::{Revision, Selection};
use crate::protocol::connection_watches::CONNECTION_WATCHES_MAX;
use crate::protocol::event_lines::{WatchEnd, push_end, push_started, push_unwatched};
use crate::protocol::reply::{close, push_bad_request, push_error};
use crate::protocol::request::{BadRequest, Shape};
use crate::proxy::{Answered, Reply};
use crate::replica::{Answer, Request, WatchAnswer, WatchPart, WatchRequest};

/// A request to begin a watch.
pub(super) struct NewWatch {
    pub(super) selection: Selection,
    pub(super) from: Option<Revision>,
    pub(super) wants_content: bool,
    pub(super) cluster: Option<Box<str>>,
}

impl Connection {
    /// Opens a watch. Returns the request that begins it; `None`: it was rejected.
    pub(super) fn open_watch(
        &mut self,
        new: NewWatch,
        id: Option<Box<str>>,
        bytes: usize,
    ) -> Option<(Request, Waiting)> {
        let NewWatch { selection, from, wants_content, cluster } = new;
        let is_other = self.is_other_cluster(cluster.as_deref());
        let Some(number) = self.watches.open(selection.clone(), cluster) else {
            let message = format!("a connection has at most {CONNECTION_WATCHES_MAX} watches");
            self.answer_at_once(|line| {
                push_error(line, "busy", &message, true);
                close(line, id.as_deref());
            });
            return None;
        };
        if is_other {
            self.watches.close(number);
            self.answer_at_once(|line| push_end(line, number, WatchEnd::WrongCluster, id.as_deref()));
            return None;
        }
        let (at_least, bytes_max) = (self.seen, self.watches.part_bytes());
        let part = WatchPart::Start { from, wants_content, at_least, bytes_max };
        let request = Request::Watch(WatchRequest { selection, part });
        Some((request, Waiting { id, shape: Shape::Watch(number), wants_meta: false, bytes }))
    }

    /// Closes a watch on request of the client.
    pub(super) fn unwatch(&mut self, number: u64, id: Option<Box<str>>) {
        if self.watches.close(number) {
            return self.answer_at_once(|line| push_unwatched(line, number, id.as_deref()));
        }
        let message = format!("there is no watch {number}: it has ended, or never began");
        let bad = BadRequest { id, key: None, is_too_large: false, message };
        self.answer_at_once(|line| push_bad_request(line, &bad));
    }

    /// Returns whether the client expects another cluster than that of this server, as far as that
    /// is known.
    fn is_other_cluster(&self, expected: Option<&str>) -> bool {
        let own = self.cluster.id().map(|cluster| cluster.to_string());
        expected.is_some_and(|expected| own.is_some_and(|own| own != expected))
    }

    /// Ends the watches that the client's grant does not cover any more.
    pub(super) fn end_denied_watches(&mut self, output: &mut String) {
        if self.access.must_check_watches() {
            let access = &self.access;
            for (number, denied) in self.watches.close_denied(|selection| access.denied_watch(selection)) {
                push_end(output, number, WatchEnd::Denied(denied), None);
            }
        }
    }

    /// Accepts the answer to a request of a watch. Later reads of this connection see what its
    /// lines report.
    pub(super) fn accept_part(&mut self, number: u64, reply: Reply) {
        if let Ok(Answered::ByNode(Answer::Watch(answer))) = &reply
            && let WatchAnswer::Changes { up_to, .. } = **answer
        {
            self.seen = self.seen.max(crate::raft::LogIndex(up_to.0));
        }
        self.watches.accept(number, reply);
    }

    /// Appends the reply to the request that has opened the watch `number`.
    pub(super) fn write_watch_reply(
        &mut self,
        output: &mut String,
        number: u64,
        id: Option<&str>,
        reply: Reply,
    ) {
        let end = match reply {
            Ok(Answered::ByNode(Answer::Watch(answer))) => match *answer {
                WatchAnswer::Started { .. }
                    if self.is_other_cluster(self.watches.expected_cluster(number)) =>
                {
                    WatchEnd::WrongCluster
                }
                WatchAnswer::Started { after, content } => {
                    push_started(output, number, after, self.cluster.id(), id);
                    return self.watches.started(number, after, content);
                }
                WatchAnswer::Compacted { oldest } => WatchEnd::Compacted(oldest),
                other => panic!("a watch was begun with {other:?}"),
            },
            Ok(other) => panic!("a watch was answered with {other:?}"),
            Err(failure) => WatchEnd::Failed(failure),
        };
        push_end(output, number, end, id);
        self.watches.close(number);
    }
}
