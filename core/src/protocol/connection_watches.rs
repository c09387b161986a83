//! The watches of one connection: asks the node for the next part of each watch, and writes it.
//!
//! The obvious way is to push each change to all connections that watch its key, which buffer it
//! until their clients read. A client that stops reading then costs memory without end. Here each
//! watch asks for its next part, and asks again only after the lines of the last one were written
//! to the socket. So a watch holds at most one part, whatever its client does.
//!
//! Requests of a watch have slots of their number range, because their answers are not replies in
//! the order of requests.

use std::collections::{BTreeMap, VecDeque};

use super::event_lines::{WatchEnd, push_content, push_end, push_entry, push_progress};
use super::permission::Denied;
use crate::kv::{Revision, Selection, ViewPart};
use crate::proxy::{Answered, Reply, RequestError};
use crate::replica::{Answer, NodeView, Request, WatchAnswer, WatchPart, WatchRequest};

/// The most watches of a connection; one more is rejected.
pub const CONNECTION_WATCHES_MAX: usize = 256;

/// The most bytes of keys and values in one part of a watch. One entry may exceed it.
pub const WATCH_PART_BYTES: usize = 64 << 10;

/// The most bytes of keys and values in the parts of all watches of a connection, unless they have
/// one entry each.
const ALL_PARTS_BYTES: usize = 1 << 20;

/// The first slot of watches: those of other requests never reach it.
const FIRST_SLOT: u64 = 1 << 63;

/// The memory of a watch, without its key or prefix: its places here and in the tables of proxy and
/// node. Approximate.
const WATCH_BYTES: usize = 1 << 10;

/// The watches of a connection. See the module.
#[derive(Debug, Default)]
pub(super) struct ConnectionWatches {
    given_out: u64,
    open: BTreeMap<u64, Watch>,
    /// Answers whose lines are not written yet.
    due: VecDeque<(u64, Reply)>,
    due_bytes: usize,
    /// The parts to ask for once everything that was handed out is written.
    next: VecDeque<(u64, Next)>,
    /// The approximate memory of the watches, in bytes.
    bytes: usize,
}

#[derive(Debug)]
struct Watch {
    selection: Selection,
    /// The cluster that the client expects.
    cluster: Option<Box<str>>,
    /// The view that the initial content is read from.
    view: Option<NodeView>,
}

/// The part of a watch to ask for.
#[derive(Clone, Copy, Debug)]
enum Next {
    Content(NodeView),
    Changes(Revision),
}

impl ConnectionWatches {
    /// Returns the number of the watch whose request has this slot; `None`: another request has it.
    pub(super) fn number_of(slot: u64) -> Option<u64> {
        slot.checked_sub(FIRST_SLOT)
    }

    /// Opens a watch and returns its number; `None`: there are too many.
    pub(super) fn open(&mut self, selection: Selection, cluster: Option<Box<str>>) -> Option<u64> {
        if self.open.len() >= CONNECTION_WATCHES_MAX {
            return None;
        }
        self.given_out += 1;
        self.bytes += WATCH_BYTES + selection.bytes();
        self.open.insert(self.given_out, Watch { selection, cluster, view: None });
        Some(self.given_out)
    }

    /// Closes a watch. No line of it is written from now on. Returns whether it was open.
    pub(super) fn close(&mut self, number: u64) -> bool {
        let Some(watch) = self.open.remove(&number) else { return false };
        self.bytes -= WATCH_BYTES + watch.selection.bytes();
        true
    }

    /// Closes the watches whose keys are denied, and returns their numbers with the reasons.
    pub(super) fn close_denied(
        &mut self,
        denied: impl Fn(&Selection) -> Option<Denied>,
    ) -> Vec<(u64, Denied)> {
        let of = |(number, watch): (&u64, &Watch)| Some((*number, denied(&watch.selection)?));
        let closed: Vec<_> = self.open.iter().filter_map(of).collect();
        for (number, _) in &closed {
            self.close(*number);
        }
        closed
    }

    /// Closes all watches.
    pub(super) fn close_all(&mut self) {
        *self = Self { given_out: self.given_out, ..Self::default() };
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// The cluster that the client of this watch expects.
    pub(super) fn expected_cluster(&self, number: u64) -> Option<&str> {
        self.open.get(&number)?.cluster.as_deref()
    }

    /// The approximate memory of the watches without their lines, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The bytes of answers that are not written yet.
    pub(super) fn due_bytes(&self) -> usize {
        self.due_bytes
    }

    pub(super) fn has_line_due(&self) -> bool {
        !self.due.is_empty()
    }

    /// The number of bytes of keys and values to ask for at once.
    pub(super) fn part_bytes(&self) -> usize {
        WATCH_PART_BYTES.min(ALL_PARTS_BYTES / self.open.len().max(1))
    }

    /// Notes that the reply was written that begins the watch after `after`.
    pub(super) fn started(&mut self, number: u64, after: Revision, content: Option<(NodeView, ViewPart)>) {
        let Some(watch) = self.open.get_mut(&number) else { return };
        match content {
            None => self.next.push_back((number, Next::Changes(after))),
            Some((view, part)) => {
                watch.view = Some(view);
                let answer = WatchAnswer::Content { part, as_of: view.as_of };
                self.accept(number, Ok(Answered::ByNode(Answer::Watch(Box::new(answer)))));
            }
        }
    }

    /// Accepts the answer to a request of a watch.
    pub(super) fn accept(&mut self, number: u64, reply: Reply) {
        if self.open.contains_key(&number) {
            self.due_bytes += bytes_of(&reply);
            self.due.push_back((number, reply));
        }
    }

    /// Returns the next request and its slot. Must be called only when everything that was handed
    /// out is written.
    pub(super) fn next_request(&mut self) -> Option<(u64, Request)> {
        let bytes_max = self.part_bytes();
        while let Some((number, next)) = self.next.pop_front() {
            let Some(watch) = self.open.get(&number) else { continue };
            let part = match next {
                Next::Content(view) => WatchPart::Content { view, bytes_max },
                Next::Changes(after) => WatchPart::Changes { after, bytes_max },
            };
            let request = WatchRequest { selection: watch.selection.clone(), part };
            return Some((FIRST_SLOT + number, Request::Watch(request)));
        }
        None
    }

    /// Appends the lines of answers to `output`, as long as it holds less than `bytes_max` bytes.
    pub(super) fn write_lines(&mut self, output: &mut String, bytes_max: usize) {
        while output.len() < bytes_max
            && let Some((number, reply)) = self.due.pop_front()
        {
            self.due_bytes -= bytes_of(&reply);
            let Some(watch) = self.open.get_mut(&number) else { continue };
            match write_answer(output, number, watch.view, &reply) {
                Ok(next) => {
                    watch.view = watch.view.filter(|_| matches!(next, Next::Content(_)));
                    self.next.push_back((number, next));
                }
                Err(end) => {
                    push_end(output, number, end, None);
                    self.close(number);
                }
            }
        }
    }
}

/// Appends the lines of an answer. Returns the part that comes next, or the end of the watch.
fn write_answer(
    output: &mut String,
    number: u64,
    view: Option<NodeView>,
    reply: &Reply,
) -> Result<Next, WatchEnd> {
    let answer = match reply {
        Ok(Answered::ByNode(Answer::Watch(answer))) => &**answer,
        Ok(_) => return Err(WatchEnd::Failed(RequestError::Storage)),
        Err(failure) => return Err(WatchEnd::Failed(*failure)),
    };
    match answer {
        WatchAnswer::Content { part, as_of } => {
            push_content(output, number, *as_of, part);
            let rest = view.filter(|_| !part.is_last);
            Ok(rest.map_or(Next::Changes(*as_of), Next::Content))
        }
        WatchAnswer::Changes { entries, up_to } => {
            entries.iter().for_each(|entry| push_entry(output, number, entry));
            if entries.is_empty() {
                push_progress(output, number, *up_to);
            }
            Ok(Next::Changes(*up_to))
        }
        WatchAnswer::Lagged { resume } if view.is_some() => Err(WatchEnd::ViewLost(*resume)),
        WatchAnswer::Lagged { resume } => Err(WatchEnd::Lagged(*resume)),
        WatchAnswer::Compacted { oldest } => Err(WatchEnd::Compacted(*oldest)),
        WatchAnswer::Started { .. } => Err(WatchEnd::Failed(RequestError::Storage)),
    }
}

fn bytes_of(reply: &Reply) -> usize {
    match reply {
        Ok(Answered::ByNode(Answer::Watch(answer))) => answer.bytes(),
        _ => 0,
    }
}
