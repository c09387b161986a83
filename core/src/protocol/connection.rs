//! One client's connection: bytes in, requests out; replies in, bytes out, in the order of the
//! requests.
//!
//! A client may send many requests before it reads (pipelining). Each takes a slot; the slots are
//! answered in any order and written in theirs. A write does not overtake other requests of its
//! key, nor they it (`footprint`), and a read is asked for at least what this client has seen
//! answered before: it never loses sight of its own writes, and what it asks after a reply is never
//! older than that reply, whichever follower answers.
//!
//! With [`PIPELINE_MAX`] slots taken, or [`CONNECTION_BYTES_MAX`] bytes in them, no more input is
//! wanted: the client is held back by its own socket. Replies are turned into bytes only when there
//! is room to write them.

use std::collections::VecDeque;
use std::sync::Arc;

use super::footprint::Footprints;
use super::line::{LINE_BYTES_MAX, LineBuffer, NextLine};
use super::other_protocols::{OtherProtocol, push_refusal_to_client, told_by_first_byte, told_by_first_line};
use super::reply::{push_bad_request, push_page, push_pong, push_reply};
use super::request::{BadRequest, Call, Question, SCAN_BYTES_MAX, Shape, parse};
use crate::kv::{Found, Key, Query, Value};
use crate::mutant::{self, Mutant};
use crate::proxy::{Answered, Reply};
use crate::raft::LogIndex;
use crate::replica::{Answer, Request, SNAPSHOT_PART_BYTES};

/// The most requests of one connection under way.
pub const PIPELINE_MAX: usize = 1024;

/// With so many bytes of requests and replies under way, no more requests are taken from a
/// connection. One may pass it.
pub const CONNECTION_BYTES_MAX: usize = 4 << 20;

/// What a client is told that was silent for too long, before it is disconnected.
pub const IDLE_LINE: &str = "{\"close\":\"ok\"}\n";

/// The state of one client's connection.
#[derive(Debug)]
pub struct Connection {
    input: LineBuffer,
    slots: VecDeque<Slot>,
    /// The number of the first of `slots`.
    first_slot: u64,
    /// What all slots keep in memory, roughly.
    bytes: usize,
    /// That part of it which belongs to replies that were not written yet.
    due_bytes: usize,
    /// That part which is only set aside for replies that may be large.
    reserved_bytes: usize,
    /// How many items of the page in the first slot were written: a page is turned into bytes as
    /// there is room for them.
    page_items_written: usize,
    /// A request that waits for others of its key. No line is read until it may run.
    held: Option<(Request, Waiting)>,
    footprints: Footprints,
    /// The highest index that a reply was decided at.
    seen: LogIndex,
    /// Nothing more is taken from the client.
    input_ended: bool,
    /// No line was read yet but blank ones: it may be one of another protocol.
    is_new: bool,
    /// Where clients reach this server: a status tells it.
    address: Option<Arc<str>>,
}

#[derive(Debug)]
struct Slot {
    state: SlotState,
    /// What it keeps in memory, roughly.
    bytes: usize,
}

#[derive(Debug)]
enum SlotState {
    Waiting(Waiting),
    Answered(Waiting, Reply),
    /// Answered without the cluster.
    Line(String),
}

/// What a reply needs of its request.
#[derive(Debug)]
struct Waiting {
    id: Option<Box<str>>,
    shape: Shape,
    bytes: usize,
}

impl Slot {
    fn is_due(&self) -> bool {
        !matches!(self.state, SlotState::Waiting(_))
    }
}

/// What is set aside for the reply to a request of this shape until it is known, where that may be
/// much: otherwise a client could ask for a thousand pages before the first of them is there.
fn reply_bytes_max(shape: &Shape) -> usize {
    match shape {
        Shape::Scan => SCAN_BYTES_MAX,
        Shape::Backup => SNAPSHOT_PART_BYTES,
        _ => 0,
    }
}

/// What a reply keeps in memory, roughly.
fn bytes_of(reply: &Reply) -> usize {
    /// Two pointers to text with their lengths and counters.
    const ITEM_BYTES: usize = 64;
    match reply {
        Ok(Answered::ByNode(Answer::Read { found: Found::Value(Some(value)), .. })) => value.as_json().len(),
        Ok(Answered::ByNode(Answer::Read { found: Found::Page(page), .. })) => {
            let item = |(key, value): &(Key, Value)| key.as_str().len() + value.as_json().len() + ITEM_BYTES;
            page.items.iter().map(item).sum()
        }
        Ok(Answered::ByNode(Answer::BackupPart(part))) => part.text.len(),
        _ => 0,
    }
}

impl Connection {
    /// A new connection. `address` is the server's, for replies that name it.
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
        }
    }

    /// Takes bytes that the client sent.
    pub fn receive(&mut self, bytes: &[u8]) {
        if !self.input_ended {
            self.input.push(bytes);
        }
    }

    /// The next request, with the slot that its reply goes to. `None` when more input is needed, or
    /// room.
    ///
    /// Lines that are no requests, and pings, are answered on the way.
    pub fn next_request(&mut self) -> Option<(u64, Request)> {
        while self.has_room() {
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
                Ok(Call { id, question }) => {
                    let (request, shape) = match question {
                        Question::Ping => {
                            self.answer_at_once(|line| push_pong(line, id.as_deref()));
                            continue;
                        }
                        Question::Write(command, session, shape) => {
                            (Request::Write { command, session }, shape)
                        }
                        Question::Read(query, shape) => (self.read(query), shape),
                        Question::LinearizableRead(query, shape) => (Request::LinearizableRead(query), shape),
                        Question::Transfer(node) => (Request::Transfer(node), Shape::Transfer),
                        Question::Status => (Request::Status, Shape::Status),
                        Question::Backup(piece) => (Request::Backup(piece), Shape::Backup),
                        Question::Members => (Request::Members, Shape::Members),
                        Question::ChangeMembers(change) => (Request::ChangeMembers(change), Shape::Members),
                    };
                    return self.admit(request, Waiting { id, shape, bytes });
                }
                Err(bad) => self.answer_at_once(|line| push_bad_request(line, &bad)),
            }
        }
        None
    }

    fn read(&self, query: Query) -> Request {
        Request::Read { query, at_least: self.seen }
    }

    /// Lets a request run, or holds it back until those before it are answered.
    fn admit(&mut self, mut request: Request, waiting: Waiting) -> Option<(u64, Request)> {
        if !self.footprints.admit(&waiting.shape) {
            self.held = Some((request, waiting));
            return None;
        }
        if let Request::Read { query, .. } = request {
            // It may have been held back by a write that was seen since.
            request = self.read(query);
        }
        self.footprints.open(&waiting.shape);
        let slot = self.first_slot + self.slots.len() as u64;
        let reserved = reply_bytes_max(&waiting.shape);
        self.reserved_bytes += reserved;
        self.push(waiting.bytes + reserved, SlotState::Waiting(waiting));
        Some((slot, request))
    }

    /// The reply to the request of `slot`. A second one for the same slot is ignored.
    pub fn reply(&mut self, slot: u64, reply: Reply) {
        let position = slot.checked_sub(self.first_slot).and_then(|at| usize::try_from(at).ok());
        let Some(place) = position.and_then(|at| self.slots.get_mut(at)) else { return };
        let SlotState::Waiting(waiting) = &mut place.state else { return };
        self.footprints.close(&waiting.shape);
        if let Ok(Answered::ByNode(Answer::Applied { index, .. } | Answer::Read { index, .. })) = &reply {
            self.seen = self.seen.max(*index);
        }
        let waiting = Waiting { id: waiting.id.take(), shape: waiting.shape.clone(), bytes: waiting.bytes };
        let bytes = waiting.bytes + bytes_of(&reply);
        self.bytes = self.bytes - place.bytes + bytes;
        self.due_bytes += bytes;
        self.reserved_bytes -= reply_bytes_max(&waiting.shape);
        place.bytes = bytes;
        place.state = SlotState::Answered(waiting, reply);
    }

    /// Appends the lines of replies that are due to `output`, as long as it holds less than
    /// `bytes_max` bytes.
    pub fn write_replies(&mut self, output: &mut String, bytes_max: usize) {
        if mutant::is_active(Mutant::RepliesOutOfOrder)
            && let Some(due) = self.slots.iter().position(Slot::is_due)
        {
            self.slots.swap(0, due);
        }
        while output.len() < bytes_max
            && let Some(slot) = self.slots.front()
        {
            match &slot.state {
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
                SlotState::Answered(Waiting { id, shape, .. }, reply) => {
                    push_reply(output, shape, id.as_deref(), reply, self.address.as_deref());
                }
            }
            self.bytes -= slot.bytes;
            self.due_bytes -= slot.bytes;
            self.slots.pop_front();
            self.first_slot += 1;
        }
    }

    /// Whether there is something to write now.
    #[must_use]
    pub fn has_reply_due(&self) -> bool {
        self.slots.front().is_some_and(Slot::is_due)
    }

    /// Whether to read from the socket.
    #[must_use]
    pub fn wants_input(&self) -> bool {
        !self.input_ended && self.has_room() && self.input.unread() <= LINE_BYTES_MAX + 1
    }

    /// How many requests have come so far.
    #[must_use]
    pub fn lines(&self) -> u64 {
        self.first_slot + self.slots.len() as u64
    }

    /// Bytes that arrived and belong to no request yet: the beginning of a line, most often.
    #[must_use]
    pub fn unread_bytes(&self) -> usize {
        self.input.unread()
    }

    /// Bytes of requests that wait for their replies.
    #[must_use]
    pub fn request_bytes(&self) -> usize {
        self.bytes - self.due_bytes - self.reserved_bytes
    }

    /// Bytes of replies that wait to be written.
    #[must_use]
    pub fn reply_bytes(&self) -> usize {
        self.due_bytes
    }

    /// Whether no reply is owed.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.slots.is_empty() && self.held.is_none()
    }

    /// Whether there may be requests that no new input is needed for: after a reply it is worth a
    /// look.
    #[must_use]
    pub fn may_have_requests(&self) -> bool {
        self.held.is_some() || self.input.may_hold_line()
    }

    /// Whether nothing more will come of it: nothing is taken in, and every reply was written.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.input_ended && self.slots.is_empty() && !self.may_have_requests()
    }

    /// The client has sent its last byte. The lines that it sent whole are still answered; a half
    /// one is not: what was cut off may have been meant otherwise.
    pub fn end_input(&mut self) {
        self.input_ended = true;
    }

    /// The server takes no more requests from this client; those under way are still answered.
    pub fn refuse_input(&mut self) {
        self.input_ended = true;
        self.input = LineBuffer::default();
        self.held = None;
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
}

#[cfg(test)]
mod tests;
