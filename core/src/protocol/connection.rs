//! One client's connection with pipelining: bytes in, requests out; replies in, bytes out, in the
//! order of the requests.
//!
//! A client may send many requests before it reads a reply (pipelining). Each request occupies a
//! slot. Slots are answered in any order, and their replies are written in the order of the
//! requests. A write and another request for the same key do not overtake one another
//! (`footprint`). A read carries the highest log index that this connection has seen in a reply,
//! and a replica answers it only after applying that index. This gives read-your-writes and
//! monotonic reads, whichever follower answers.
//!
//! With [`PIPELINE_MAX`] slots in use, or [`CONNECTION_BYTES_MAX`] bytes in them, the connection
//! reads no more input, and TCP holds the client back. Replies are encoded only when there is room
//! to write them.
//!
//! Lines of watches (`connection_watches`) stand between replies.

use std::collections::VecDeque;
use std::sync::Arc;

use super::connection_watches::ConnectionWatches;
use super::footprint::Footprints;
use super::line::{LINE_BYTES_MAX, LineBuffer, NextLine};
use super::memory_sizes::{bytes_of, reply_bytes_max};
use super::other_protocols::{OtherProtocol, push_refusal_to_client, told_by_first_byte, told_by_first_line};
use super::permission::Access;
use super::reply::{push_bad_request, push_page, push_reply};
use super::request::{BadRequest, Shape, parse};
use crate::access::Gate;
use crate::identity::KnownCluster;
use crate::kv::{Found, Query};
use crate::memory::LongLines;
use crate::mutant::{self, Mutant};
use crate::proxy::{Answered, Reply, RequestError};
use crate::raft::LogIndex;
use crate::replica::{Answer, Request, WatchPart, WatchRequest};

mod calls;
mod watch_requests;

/// The most requests of one connection in flight.
pub const PIPELINE_MAX: usize = 1024;

/// The most bytes of requests and replies in flight: at this number, a connection accepts no more
/// requests. One request or reply may exceed it.
pub const CONNECTION_BYTES_MAX: usize = 4 << 20;

/// The last line to a client that was silent for too long and is then disconnected.
pub const IDLE_LINE: &str = "{\"close\":\"ok\"}\n";

/// The state of one client's connection.
#[derive(Debug)]
pub struct Connection {
    input: LineBuffer,
    slots: VecDeque<Slot>,
    /// The number of the first slot in `slots`.
    first_slot: u64,
    /// The approximate memory of all slots, in bytes.
    bytes: usize,
    /// The part of `bytes` that belongs to replies that were not written yet.
    due_bytes: usize,
    /// The part of `bytes` that is reserved for replies that may be large.
    reserved_bytes: usize,
    /// The number of items already written of the page in the first slot: a page is encoded as
    /// there is room to write it.
    page_items_written: usize,
    /// A request that waits for earlier requests for its key. No further line is read until it may
    /// run.
    held: Option<(Request, Waiting)>,
    footprints: Footprints,
    /// The highest log index in a reply so far.
    seen: LogIndex,
    /// Whether the connection accepts no more input.
    input_ended: bool,
    /// Whether only blank lines were read so far: the next line may belong to another protocol.
    is_new: bool,
    /// The address where clients reach this server, for status replies.
    address: Option<Arc<str>>,
    /// The cluster of this server, for watches.
    cluster: KnownCluster,
    watches: ConnectionWatches,
    access: Access,
    /// Whether the connection parses no lines for a while, because a token was not valid.
    rests: bool,
}

#[derive(Debug)]
struct Slot {
    state: SlotState,
    /// The approximate memory of the slot, in bytes.
    bytes: usize,
}

#[derive(Debug)]
enum SlotState {
    Waiting(Waiting),
    Answered(Waiting, Reply),
    /// A reply that did not need the cluster.
    Line(String),
}

/// The parts of a request that its reply needs.
#[derive(Debug)]
struct Waiting {
    id: Option<Box<str>>,
    shape: Shape,
    wants_meta: bool,
    bytes: usize,
}

impl Slot {
    fn is_due(&self) -> bool {
        !matches!(self.state, SlotState::Waiting(_))
    }
}

impl Connection {
    /// A new connection. `address` is the server's address, for replies that contain it.
    #[must_use]
    pub fn new(address: Option<Arc<str>>) -> Self {
        Self {
            input: LineBuffer::default(),
            slots: VecDeque::new(),
            first_slot: 0,
            bytes: 0,
            due_bytes: 0,
            reserved_bytes: 0,
            page_items_written: 0,
            held: None,
            footprints: Footprints::default(),
            seen: LogIndex::ORIGIN,
            input_ended: false,
            is_new: true,
            address,
            cluster: KnownCluster::default(),
            watches: ConnectionWatches::default(),
            access: Access::default(),
            rests: false,
        }
    }

    /// States this cluster in replies to watches.
    #[must_use]
    pub fn with_cluster(mut self, cluster: KnownCluster) -> Self {
        self.cluster = cluster;
        self
    }

    /// Lets the client do only what this gate grants to its proof of identity. Without a gate,
    /// everything is permitted.
    #[must_use]
    pub fn with_gate(mut self, gate: Option<Arc<dyn Gate>>) -> Self {
        self.access = gate.map_or_else(Access::default, Access::guarded);
        self
    }

    /// Rejects requests that need the role admin, if the server answers them at this other address.
    #[must_use]
    pub fn with_admin_elsewhere(mut self, admin: Option<Arc<str>>) -> Self {
        admin.into_iter().for_each(|admin| self.access.deny_admin(admin));
        self
    }

    /// Notes the name in the client's certificate, which was verified.
    pub fn certified(&mut self, name: &str) {
        self.access.certified(name);
    }

    /// Returns whether the connection rests because a token was not valid. It parses no lines until
    /// [`Connection::end_rest`].
    #[must_use]
    pub fn rests(&self) -> bool {
        self.rests
    }

    /// Ends the rest after an invalid token.
    pub fn end_rest(&mut self) {
        self.rests = false;
    }

    /// Borrows buffers for long lines from this pool.
    pub(crate) fn with_long_lines(mut self, long_lines: LongLines) -> Self {
        self.input = LineBuffer::new(long_lines);
        self
    }

    /// Accepts bytes that the client sent.
    pub fn receive(&mut self, bytes: &[u8]) {
        let has_room = self.try_receive(bytes);
        debug_assert!(has_room, "a connection without a server has a pool without a limit");
    }

    /// Like [`Connection::receive`]. Returns `false`, and accepts nothing, if there is no buffer
    /// for a long line.
    #[must_use]
    pub(crate) fn try_receive(&mut self, bytes: &[u8]) -> bool {
        self.input_ended || self.input.push(bytes)
    }

    /// Returns the next request and the slot for its reply; `None` when more input or more room is
    /// needed.
    ///
    /// Invalid lines and pings are answered here, without a request.
    pub fn next_request(&mut self) -> Option<(u64, Request)> {
        while self.has_room() && !self.rests {
            if let Some((request, waiting)) = self.held.take() {
                return self.admit(request, waiting);
            }
            if self.is_new
                && let Some(other) = self.input.first_byte().and_then(told_by_first_byte)
            {
                self.refuse_protocol(other);
                return None;
            }
            let (bytes, call) = match self.input.next_line() {
                NextLine::Incomplete => return None,
                NextLine::TooLong => {
                    self.refuse_long_line();
                    return None;
                }
                NextLine::Line(line) => {
                    let other = if self.is_new { told_by_first_line(line) } else { None };
                    if let Some(other) = other {
                        self.refuse_protocol(other);
                        return None;
                    }
                    self.is_new &= line.is_empty();
                    (line.len(), parse(line))
                }
            };
            match call {
                Ok(call) => {
                    if let Some((request, waiting)) = self.request_of(call, bytes) {
                        return self.admit(request, waiting);
                    }
                }
                Err(bad) => self.answer_at_once(|line| push_bad_request(line, &bad)),
            }
        }
        None
    }

    fn read(&self, query: Query) -> Request {
        Request::Read { query, at_least: self.seen }
    }

    /// Starts a request, or holds it back until conflicting earlier requests are answered.
    fn admit(&mut self, mut request: Request, waiting: Waiting) -> Option<(u64, Request)> {
        if !self.footprints.admit(&waiting.shape) {
            self.held = Some((request, waiting));
            return None;
        }
        // A write that held this read, or watch, back may have been acknowledged since.
        match &mut request {
            Request::Read { at_least, .. } => *at_least = self.seen,
            Request::Watch(WatchRequest { part: WatchPart::Start { at_least, .. }, .. }) => {
                *at_least = self.seen;
            }
            _ => {}
        }
        self.footprints.open(&waiting.shape);
        let slot = self.first_slot + self.slots.len() as u64;
        let reserved = reply_bytes_max(&waiting.shape);
        self.reserved_bytes += reserved;
        self.push(waiting.bytes + reserved, SlotState::Waiting(waiting));
        Some((slot, request))
    }

    /// Returns the next request of a watch and its slot. Must be called only when everything that
    /// [`Connection::write_replies`] has returned is written to the client.
    pub fn next_watch_request(&mut self) -> Option<(u64, Request)> {
        self.watches.next_request()
    }

    /// Accepts the reply to the request of `slot`. A second reply for the same slot is ignored.
    pub fn reply(&mut self, slot: u64, reply: Reply) {
        if let Some(number) = ConnectionWatches::number_of(slot) {
            return self.accept_part(number, reply);
        }
        let position = slot.checked_sub(self.first_slot).and_then(|at| usize::try_from(at).ok());
        let Some(place) = position.and_then(|at| self.slots.get_mut(at)) else { return };
        let SlotState::Waiting(waiting) = &mut place.state else { return };
        self.footprints.close(&waiting.shape);
        if let Ok(Answered::ByNode(Answer::Applied { index, .. } | Answer::Read { index, .. })) = &reply {
            self.seen = self.seen.max(*index);
        }
        let waiting = Waiting { id: waiting.id.take(), shape: waiting.shape.clone(), ..*waiting };
        let bytes = waiting.bytes + bytes_of(&reply);
        self.bytes = self.bytes - place.bytes + bytes;
        self.due_bytes += bytes;
        self.reserved_bytes -= reply_bytes_max(&waiting.shape);
        place.bytes = bytes;
        place.state = SlotState::Answered(waiting, reply);
    }

    /// Appends the lines of due replies to `output`, as long as it holds less than `bytes_max`
    /// bytes.
    pub fn write_replies(&mut self, output: &mut String, bytes_max: usize) {
        self.reorder_by_mutant();
        if self.page_items_written == 0 {
            self.end_denied_watches(output);
            // At most half, so that watches do not hold up replies.
            self.watches.write_lines(output, bytes_max / 2);
        }
        while output.len() < bytes_max
            && let Some(slot) = self.slots.front_mut()
        {
            let (bytes, state) = (slot.bytes, &mut slot.state);
            match state {
                SlotState::Waiting(_) => return,
                SlotState::Line(line) => output.push_str(line),
                SlotState::Answered(
                    Waiting { id, .. },
                    Ok(Answered::ByNode(Answer::Read { found: Found::Page(page), .. })),
                ) => {
                    let written = self.page_items_written;
                    let rest = push_page(output, page, written, id.as_deref(), bytes_max);
                    self.page_items_written = rest.unwrap_or(0);
                    if rest.is_some() {
                        return;
                    }
                }
                SlotState::Answered(Waiting { id, shape: Shape::Watch(number), .. }, reply) => {
                    let (id, number) = (id.take(), *number);
                    let reply = std::mem::replace(reply, Err(RequestError::Storage));
                    self.write_watch_reply(output, number, id.as_deref(), reply);
                }
                SlotState::Answered(Waiting { id, shape, wants_meta, .. }, reply) => {
                    let address = self.address.as_deref();
                    push_reply(output, shape, *wants_meta, id.as_deref(), reply, address);
                }
            }
            self.bytes -= bytes;
            self.due_bytes -= bytes;
            self.slots.pop_front();
            self.first_slot += 1;
        }
    }

    /// Returns whether a reply can be written now.
    #[must_use]
    pub fn has_reply_due(&self) -> bool {
        self.slots.front().is_some_and(Slot::is_due) || self.watches.has_line_due()
    }

    /// Returns whether to read from the socket.
    #[must_use]
    pub fn wants_input(&self) -> bool {
        // Behind a request that is held back, lines wait in the socket, not in memory.
        let is_behind = self.held.is_some() && self.input.is_large();
        !self.input_ended && self.has_room() && self.input.unread() <= LINE_BYTES_MAX + 1 && !is_behind
    }

    /// The number of lines accepted so far, each of which gets a reply.
    #[must_use]
    pub fn lines(&self) -> u64 {
        self.first_slot + self.slots.len() as u64
    }

    /// Bytes held for input that belongs to no request yet, usually the beginning of a line.
    #[must_use]
    pub fn unread_bytes(&self) -> usize {
        self.input.held()
    }

    /// Bytes of requests without a reply.
    #[must_use]
    pub fn request_bytes(&self) -> usize {
        self.bytes - self.due_bytes - self.reserved_bytes + self.watches.bytes()
    }

    /// Bytes of replies that are not written yet.
    #[must_use]
    pub fn reply_bytes(&self) -> usize {
        self.due_bytes + self.watches.due_bytes()
    }

    /// Returns whether every request was answered and every reply written, and no watch is open.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.slots.is_empty() && self.held.is_none() && self.watches.is_empty()
    }

    /// Returns whether [`Connection::next_request`] may return a request without new input, as it
    /// may after a reply.
    #[must_use]
    pub fn may_have_requests(&self) -> bool {
        self.held.is_some() || self.input.may_hold_line()
    }

    /// Returns whether the connection is done: it accepts no more input, and every reply was
    /// written.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.input_ended && self.slots.is_empty() && !self.may_have_requests()
    }

    /// Handles the end of the client's input. Complete lines are still answered. An incomplete line
    /// is dropped, because the missing part could change its meaning. Watches end.
    pub fn end_input(&mut self) {
        self.input_ended = true;
        self.watches.close_all();
    }

    /// Stops accepting requests from this client; requests in flight are still answered.
    pub fn refuse_input(&mut self) {
        self.input_ended = true;
        self.input.clear();
        self.held = None;
        self.watches.close_all();
    }

    fn refuse_long_line(&mut self) {
        let message = format!("a line has at most {LINE_BYTES_MAX} bytes; the connection is closed");
        let bad = BadRequest { id: None, key: None, is_too_large: true, message };
        self.answer_at_once(|line| push_bad_request(line, &bad));
        self.refuse_input();
    }

    fn refuse_protocol(&mut self, other: OtherProtocol) {
        let address = self.address.clone();
        self.answer_at_once(|line| push_refusal_to_client(line, other, address.as_deref()));
        self.refuse_input();
    }

    fn answer_at_once(&mut self, push: impl FnOnce(&mut String)) {
        let mut line = String::new();
        push(&mut line);
        self.due_bytes += line.len();
        self.push(line.len(), SlotState::Line(line));
    }

    fn push(&mut self, bytes: usize, state: SlotState) {
        self.bytes += bytes;
        self.slots.push_back(Slot { state, bytes });
    }

    fn has_room(&self) -> bool {
        self.slots.len() < PIPELINE_MAX && self.bytes < CONNECTION_BYTES_MAX
    }

    /// Deliberate bug: the next reply that is due comes before those that are not.
    fn reorder_by_mutant(&mut self) {
        if mutant::is_active(Mutant::RepliesOutOfOrder)
            && let Some(due) = self.slots.iter().position(Slot::is_due)
        {
            self.slots.swap(0, due);
        }
    }
}

#[cfg(test)]
mod tests;
