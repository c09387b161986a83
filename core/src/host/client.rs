//! A client connection's host: the shared state of its reading and its writing half, and what each
//! half does next.
//!
//! The reading half receives bytes and hands requests to the router; the writing half writes
//! replies. Each can unblock the other: a request that is answered at once gives the writer
//! something to write, and a written reply makes room for a request that waits. Because both halves
//! hand over requests, the runtime keeps the state locked, or borrowed, until the router has them.
//! Otherwise the requests of one half could overtake those of the other.
//!
//! Deliberately not here: the meaning of bytes ([`Connection`]), sockets, and the time after which
//! a silent client is disconnected.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use super::RouterInput;
use crate::access::Gate;
use crate::identity::KnownCluster;
use crate::memory::{ClientMemory, ConnectionMemory, Eviction, Holder, MemoryBudget, Progress};
use crate::protocol::{Connection, IDLE_LINE, given_up_line};
use crate::proxy::Reply;
use crate::replica::Request;

/// The most bytes of a client that are read at once.
pub const CLIENT_READ_BYTES: usize = 64 << 10;
/// The most bytes of replies that are encoded at once; a longer reply is encoded alone.
pub const CLIENT_WRITE_BYTES: usize = 64 << 10;

/// How long a connection that is closed reads on, for its client to stop sending. A socket that is
/// closed with unread bytes resets the connection, and the last reply may be lost with it.
const CLIENT_LINGER: Duration = Duration::from_millis(500);
/// How long a connection reads nothing after an invalid token. Arbitrary: tokens cannot be guessed,
/// but attempts cost time, and each is counted.
pub const INVALID_TOKEN_REST: Duration = Duration::from_secs(1);
/// How long a connection that is closed because it holds too much waits, without reading, for its
/// last replies to leave.
const GIVEN_UP_LINGER: Duration = Duration::from_millis(50);

/// A message to the writing half.
#[derive(Clone, Debug)]
pub enum ToWriter {
    /// The reply to the request in this slot.
    Reply(u64, Reply),
    /// There may be lines to write that did not come from the router.
    Look,
    /// The client was silent for too long.
    Idle,
    /// The connection is closed because too much memory is held for this purpose.
    GiveUp(Holder),
    /// The server is stopping; every outstanding reply was delivered before this message.
    Stop,
}

/// The next step of the reading half.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadStep {
    /// Read from the socket.
    Read,
    /// Wait until the writing half has made room.
    WaitForRoom,
    /// Read nothing for this time, then call [`ClientHost::end_rest`] and go on: the client has
    /// sent an invalid token.
    Rest(Duration),
    /// End: read nothing more from the client.
    End,
}

/// The inputs that a half of a connection hands to the router, in this order: connections to close
/// for memory, then requests.
pub type ForRouter = [Option<RouterInput>; 2];

/// The state that both halves of a connection share. See the module.
#[derive(Debug)]
pub struct ClientHost {
    number: u64,
    state: Connection,
    /// The last line to write, when the client was silent for too long or is closed to free memory.
    last_line: Option<Cow<'static, str>>,
    memory: ClientMemory,
    /// The number of complete lines when memory use was last reported.
    lines: u64,
    /// Bytes of replies that are being written.
    being_written: usize,
    /// Connections that must be closed to make room for this one.
    evictions: Vec<Eviction>,
    /// Whether the writing half ends once everything is written, because no more replies come.
    is_stopping: bool,
    /// Whether the connection is closed to free memory.
    is_given_up: bool,
    /// The name in the certificate by which the client has proven its identity.
    certified: Option<Box<str>>,
}

impl ClientHost {
    /// Creates the state of the client with this number, which is not 0, on a server of `cluster`
    /// at `address`. Its memory use is reported to `memory`.
    #[must_use]
    pub fn new(number: u64, address: Arc<str>, cluster: KnownCluster, memory: ClientMemory) -> Self {
        let long_lines = memory.budget().long_lines();
        Self {
            number,
            state: Connection::new(Some(address)).with_long_lines(long_lines).with_cluster(cluster),
            last_line: None,
            memory,
            lines: 0,
            being_written: 0,
            evictions: Vec::new(),
            is_stopping: false,
            is_given_up: false,
            certified: None,
        }
    }

    /// Accepts the client with this number, which is larger than all earlier ones, if `budget` has
    /// room for its connection. Another connection may have to be closed to make that room; the
    /// returned input tells the router which one, and must be handed to it at once.
    #[must_use]
    pub fn accept(
        number: u64,
        address: Arc<str>,
        cluster: &KnownCluster,
        budget: &MemoryBudget,
    ) -> Option<(Self, Option<RouterInput>)> {
        let (memory, eviction) = budget.connect(number)?;
        let given_up = eviction.map(|eviction| RouterInput::GiveUp(vec![eviction]));
        Some((Self::new(number, address, cluster.clone(), memory), given_up))
    }

    /// Reports how much memory is held now. `has_written`: some replies were written since the last
    /// report.
    fn note_memory(&mut self, has_written: bool) {
        let lines = self.state.lines();
        let has_read = std::mem::replace(&mut self.lines, lines) != lines;
        let half_line = self.state.unread_bytes();
        let held = ConnectionMemory {
            half_line,
            requests: self.state.request_bytes(),
            replies: self.state.reply_bytes() + self.being_written,
            is_blocked: half_line > CLIENT_READ_BYTES && !self.state.wants_input(),
        };
        self.memory.note(held, Progress { has_read, has_written }, &mut self.evictions);
    }

    /// Takes the connections that must be closed because they hold too much while this one needs
    /// room.
    fn evictions(&mut self) -> Option<RouterInput> {
        if self.evictions.is_empty() {
            None
        } else {
            Some(RouterInput::GiveUp(std::mem::take(&mut self.evictions)))
        }
    }

    /// Takes the requests that may run now, in order.
    fn requests(&mut self) -> Option<RouterInput> {
        let requests: Vec<(u64, Request)> = std::iter::from_fn(|| self.state.next_request()).collect();
        if requests.is_empty() { None } else { Some(RouterInput::Asked(self.number, requests)) }
    }

    /// Takes the requests that may run now that everything before is written: those of watches, and
    /// those that waited for room.
    fn requests_of_writer(&mut self) -> Option<RouterInput> {
        let mut requests: Vec<_> = std::iter::from_fn(|| self.state.next_watch_request()).collect();
        if self.state.may_have_requests() {
            requests.extend(std::iter::from_fn(|| self.state.next_request()));
        }
        if requests.is_empty() { None } else { Some(RouterInput::Asked(self.number, requests)) }
    }

    /// Returns, for the reading half: the inputs for the router, whether to wake the writing half,
    /// and the next step.
    #[must_use]
    pub fn next_read(&mut self) -> (ForRouter, bool, ReadStep) {
        let was_due = self.state.has_reply_due();
        let requests = self.requests();
        // Pings and malformed lines are answered without the router.
        let is_newly_due = self.state.has_reply_due() && !was_due;
        self.note_memory(false);
        if self.state.is_finished() {
            return ([self.evictions(), requests], true, ReadStep::End);
        }
        if self.is_given_up {
            return ([self.evictions(), requests], true, ReadStep::End);
        }
        if self.state.rests() {
            return ([self.evictions(), requests], is_newly_due, ReadStep::Rest(INVALID_TOKEN_REST));
        }
        let step = if self.state.wants_input() { ReadStep::Read } else { ReadStep::WaitForRoom };
        ([self.evictions(), requests], is_newly_due, step)
    }

    /// Accepts bytes that the client has sent.
    pub fn received(&mut self, bytes: &[u8]) {
        if !self.state.try_receive(bytes) {
            self.give_up(Holder::HalfLines);
        }
        self.note_memory(false);
        // The account of a long line does not change while the line grows, so the budget is asked.
        let is_long = self.state.unread_bytes() > CLIENT_READ_BYTES;
        let evicted = if is_long { self.memory.evicted_by_now() } else { self.memory.evicted() };
        if let Some(holder) = evicted {
            self.give_up(holder);
        }
    }

    /// Accepts no more input, frees what was received, and says why at the end.
    fn give_up(&mut self, holder: Holder) {
        if std::mem::replace(&mut self.is_given_up, true) {
            return;
        }
        self.state.refuse_input();
        self.last_line = Some(given_up_line(holder).into());
    }

    /// Notes that the client has closed its sending side, or that the router has ended the input
    /// because the connection is evicted.
    pub fn input_ended(&mut self) {
        self.state.end_input();
        if let Some(holder) = self.memory.evicted_by_now() {
            self.give_up(holder);
        }
    }

    /// Lets the client do only what this gate grants to its proof of identity.
    #[must_use]
    pub fn guarded_by(mut self, gate: Option<Arc<dyn Gate>>) -> Self {
        self.state = self.state.with_gate(gate);
        self
    }

    /// Rejects requests that need the role admin, if the server answers them at this other address.
    #[must_use]
    pub fn without_admin(mut self, admin: Option<Arc<str>>) -> Self {
        self.state = self.state.with_admin_elsewhere(admin);
        self
    }

    /// Ends the rest after an invalid token.
    pub fn end_rest(&mut self) {
        self.state.end_rest();
    }

    /// Notes that the client has proven by a certificate that it has this name. Call it once,
    /// before its first bytes.
    pub fn certified(&mut self, name: &str) {
        self.state.certified(name);
        self.certified = Some(name.into());
    }

    /// Returns the name that the client has proven by a certificate.
    #[must_use]
    pub fn certified_name(&self) -> Option<&str> {
        self.certified.as_deref()
    }

    /// Notes that the client's bytes ended in the middle of an encrypted session, or that they were
    /// changed on the way: an incomplete line is dropped, and nothing more is accepted.
    pub fn cut_off(&mut self) {
        self.state.refuse_input();
    }

    /// Handles a client that has reached the idle timeout. Returns whether it is disconnected, so
    /// that the writing half must be notified; a client that waits for a reply is not.
    pub fn was_silent(&mut self) -> bool {
        let is_over = self.state.is_idle();
        if is_over {
            self.state.refuse_input();
        }
        is_over
    }

    /// Handles a message to the writing half.
    pub fn told(&mut self, told: ToWriter) {
        match told {
            ToWriter::Reply(slot, reply) => self.state.reply(slot, reply),
            ToWriter::Look => {}
            ToWriter::Stop => self.is_stopping = true,
            ToWriter::Idle => self.last_line = Some(IDLE_LINE.into()),
            ToWriter::GiveUp(holder) => self.give_up(holder),
        }
        self.note_memory(false);
    }

    /// Puts the text to write next into `output`, which stays empty when there is none. Returns the
    /// inputs to hand to the router before writing: each written reply makes room for a request
    /// that waits.
    #[must_use]
    pub fn next_write(&mut self, output: &mut String) -> ForRouter {
        let requests = self.write_next(output);
        [self.evictions(), requests]
    }

    fn write_next(&mut self, output: &mut String) -> Option<RouterInput> {
        output.clear();
        output.shrink_to(2 * CLIENT_WRITE_BYTES);
        if let Some(line) = self.last_line.take() {
            output.push_str(&line);
            self.is_stopping = true;
            return None;
        }
        let requests = self.requests_of_writer();
        self.state.write_replies(output, CLIENT_WRITE_BYTES);
        let has_written = std::mem::replace(&mut self.being_written, output.len()) > 0;
        self.note_memory(has_written);
        requests
    }

    /// How long the connection stays open once everything is written, and whether it reads on
    /// meanwhile. One that holds too much does not.
    #[must_use]
    pub fn linger(&self) -> (Duration, bool) {
        if self.is_given_up { (GIVEN_UP_LINGER, false) } else { (CLIENT_LINGER, true) }
    }

    /// Returns whether the writing half ends after it has written `output`.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.is_stopping || self.state.is_finished()
    }
}

#[cfg(test)]
mod tests;
