//! A client's host: what the reading and the writing half of its connection do next.
//!
//! A connection has two halves that share this state: one reads bytes and hands requests over, the
//! other writes replies. Each may let the other go on: requests that are answered at once give the
//! writer something to write, and replies that were written make room for requests that wait. Both
//! hand requests over, so the runtime keeps the state locked, or borrowed, until the router has
//! them: otherwise those of one half might overtake those of the other.
//!
//! Deliberately not here: what bytes mean ([`Connection`]), sockets, and how long a client may be
//! silent.

use std::borrow::Cow;
use std::sync::Arc;

use super::RouterInput;
use crate::memory::{ClientMemory, ConnectionMemory, Eviction, Holder, MemoryBudget, Progress};
use crate::protocol::{Connection, IDLE_LINE, given_up_line};
use crate::proxy::Reply;
use crate::replica::Request;

/// Bytes of a client read at once.
pub const CLIENT_READ_BYTES: usize = 64 << 10;
/// Replies are turned into bytes up to this many at a time; a reply that is longer goes alone.
pub const CLIENT_WRITE_BYTES: usize = 64 << 10;

/// What the writing half is told.
#[derive(Clone, Debug)]
pub enum ToWriter {
    /// The reply to a slot's request.
    Reply(u64, Reply),
    /// There may be lines to write that no reply brought about.
    Look,
    /// The client was silent for too long.
    Idle,
    /// The connection is given up: too much memory is held for this.
    GiveUp(Holder),
    /// The server stops, and every reply that is owed was given before this.
    Stop,
}

/// What the reading half does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadStep {
    /// Read from the socket.
    Read,
    /// Wait until the writing half has made room.
    WaitForRoom,
    /// End: nothing more is taken from the client.
    End,
}

/// What a half of a connection hands to the router, in this order: connections that have to be
/// given up, and requests.
pub type ForRouter = [Option<RouterInput>; 2];

/// The state that both halves of a connection share. See the module.
#[derive(Debug)]
pub struct ClientHost {
    number: u64,
    state: Connection,
    /// The last line, when the client was silent for too long, or is given up.
    last_line: Option<Cow<'static, str>>,
    memory: ClientMemory,
    /// How many lines were whole when that was told last what is held.
    lines: u64,
    /// Bytes of replies that are being written.
    being_written: usize,
    /// Connections that have to be given up for this one.
    evictions: Vec<Eviction>,
    /// No more replies come.
    is_stopping: bool,
}

impl ClientHost {
    /// The client with this number, which is not 0, of a server at `address`. What its connection
    /// holds is told to `memory`.
    #[must_use]
    pub fn new(number: u64, address: Arc<str>, memory: ClientMemory) -> Self {
        Self {
            number,
            state: Connection::new(Some(address)),
            last_line: None,
            memory,
            lines: 0,
            being_written: 0,
            evictions: Vec::new(),
            is_stopping: false,
        }
    }

    /// Accepts the client with this number, which is larger than those of all before it, if
    /// `budget` has room for its connection. Another one may be given up for it: that is for the
    /// router, at once.
    #[must_use]
    pub fn accept(
        number: u64,
        address: Arc<str>,
        budget: &MemoryBudget,
    ) -> Option<(Self, Option<RouterInput>)> {
        let (memory, eviction) = budget.connect(number)?;
        let given_up = eviction.map(|eviction| RouterInput::GiveUp(vec![eviction]));
        Some((Self::new(number, address, memory), given_up))
    }

    /// Says what is held now. `has_written`: some replies were taken since.
    fn note_memory(&mut self, has_written: bool) {
        let lines = self.state.lines();
        let has_read = std::mem::replace(&mut self.lines, lines) != lines;
        let held = ConnectionMemory {
            half_line: self.state.unread_bytes(),
            requests: self.state.request_bytes(),
            replies: self.state.reply_bytes() + self.being_written,
        };
        self.memory.note(held, Progress { has_read, has_written }, &mut self.evictions);
    }

    /// Connections that have to be given up: they hold too much, and this one needs room.
    fn evictions(&mut self) -> Option<RouterInput> {
        if self.evictions.is_empty() {
            None
        } else {
            Some(RouterInput::GiveUp(std::mem::take(&mut self.evictions)))
        }
    }

    /// The requests that may run now, in their order.
    fn requests(&mut self) -> Option<RouterInput> {
        let requests: Vec<(u64, Request)> = std::iter::from_fn(|| self.state.next_request()).collect();
        if requests.is_empty() { None } else { Some(RouterInput::Asked(self.number, requests)) }
    }

    /// For the reading half: what is to be handed to the router, whether the writing half has to
    /// look, and what to do then.
    #[must_use]
    pub fn next_read(&mut self) -> (ForRouter, bool, ReadStep) {
        let was_due = self.state.has_reply_due();
        let requests = self.requests();
        // Pings and lines that are no requests are answered without the router.
        let is_newly_due = self.state.has_reply_due() && !was_due;
        self.note_memory(false);
        if self.state.is_finished() {
            return ([self.evictions(), requests], true, ReadStep::End);
        }
        let step = if self.state.wants_input() { ReadStep::Read } else { ReadStep::WaitForRoom };
        ([self.evictions(), requests], is_newly_due, step)
    }

    /// The client has sent these bytes.
    pub fn received(&mut self, bytes: &[u8]) {
        self.state.receive(bytes);
        self.note_memory(false);
    }

    /// The client will send nothing more.
    pub fn input_ended(&mut self) {
        self.state.end_input();
    }

    /// The client was silent for as long as it may be. Whether it is disconnected for that, and the
    /// writing half is to be told: not while it waits for a reply.
    pub fn was_silent(&mut self) -> bool {
        let is_over = self.state.is_idle();
        if is_over {
            self.state.refuse_input();
        }
        is_over
    }

    /// For the writing half: what it was told.
    pub fn told(&mut self, told: ToWriter) {
        match told {
            ToWriter::Reply(slot, reply) => self.state.reply(slot, reply),
            ToWriter::Look => {}
            ToWriter::Stop => self.is_stopping = true,
            ToWriter::Idle => self.last_line = Some(IDLE_LINE.into()),
            ToWriter::GiveUp(holder) => {
                self.state.refuse_input();
                self.last_line = Some(given_up_line(holder).into());
            }
        }
        self.note_memory(false);
    }

    /// For the writing half: puts what is to be written next into `output`, nothing when there is
    /// nothing. Returns what is to be handed to the router before: every reply that was written
    /// makes room for a request that waits.
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
        let requests = if self.state.may_have_requests() { self.requests() } else { None };
        self.state.write_replies(output, CLIENT_WRITE_BYTES);
        let has_written = std::mem::replace(&mut self.being_written, output.len()) > 0;
        self.note_memory(has_written);
        requests
    }

    /// Whether the writing half ends once it has written what there is.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.is_stopping || self.state.is_finished()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::Failure;

    fn client() -> ClientHost {
        let memory = MemoryBudget::unlimited().connect(3).unwrap().0;
        ClientHost::new(3, "127.0.0.1:3001".into(), memory)
    }

    fn written(client: &mut ClientHost) -> String {
        let mut output = String::new();
        let _ = client.next_write(&mut output);
        output
    }

    #[test]
    fn a_request_goes_to_the_router_and_its_reply_to_the_writer() {
        let mut client = client();
        client.received(b"{\"key\":\"a\"}\n");
        let (for_router, wakes_writer, step) = client.next_read();
        assert!(matches!(for_router, [None, Some(RouterInput::Asked(3, requests))] if requests.len() == 1));
        assert_eq!((wakes_writer, step), (false, ReadStep::Read));
        assert_eq!(written(&mut client), "");
        client.told(ToWriter::Reply(0, Err(Failure::Busy)));
        assert!(written(&mut client).contains("busy"));
        assert!(!client.has_ended());
    }

    #[test]
    fn what_needs_no_router_wakes_the_writer_once() {
        let mut client = client();
        client.received(b"{\"op\":\"ping\"}\n");
        let (for_router, wakes_writer, _) = client.next_read();
        assert!(matches!(for_router, [None, None]) && wakes_writer);
        assert!(!client.next_read().1, "it was told before");
        assert!(!written(&mut client).is_empty());
    }

    #[test]
    fn a_client_that_leaves_is_answered_first() {
        let mut client = client();
        client.received(b"{\"key\":\"a\"}\n");
        client.input_ended();
        assert_ne!(client.next_read().2, ReadStep::End, "a reply is owed");
        client.told(ToWriter::Reply(0, Err(Failure::Busy)));
        assert!(!written(&mut client).is_empty() && client.has_ended());
        assert_eq!(client.next_read().2, ReadStep::End);
    }

    #[test]
    fn a_silent_client_is_told_unless_it_waits() {
        let mut client = client();
        client.received(b"{\"key\":\"a\"}\n");
        let _ = client.next_read();
        assert!(!client.was_silent(), "it waits for a reply");
        client.told(ToWriter::Reply(0, Err(Failure::Busy)));
        assert!(!written(&mut client).is_empty());
        assert!(client.was_silent());
        client.told(ToWriter::Idle);
        assert_eq!(written(&mut client), IDLE_LINE);
        assert_eq!(written(&mut client), "");
        assert!(client.has_ended());
    }

    #[test]
    fn a_stop_ends_the_writer_when_everything_is_written() {
        let mut client = client();
        client.received(b"{\"key\":\"a\"}\n");
        let _ = client.next_read();
        client.told(ToWriter::Reply(0, Err(Failure::ShuttingDown)));
        client.told(ToWriter::Stop);
        assert!(client.has_ended() && !written(&mut client).is_empty());
    }
    #[test]
    fn a_client_for_whom_another_one_gives_way_says_so_at_once() {
        let budget = MemoryBudget::new(1 << 20, 10, 200 << 10);
        let accept = |number| ClientHost::accept(number, "127.0.0.1:3001".into(), &budget);
        let mut held = Vec::new();
        let given_up = (1..10).find_map(|number| {
            let (client, given_up) = accept(number)?;
            held.push(client);
            given_up
        });
        let Some(RouterInput::GiveUp(evictions)) = given_up else { panic!("{given_up:?}") };
        assert_eq!(evictions, [Eviction { connection: 1, holder: Holder::Connections }]);
    }
}
