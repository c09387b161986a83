//! A client's host: what the reading and the writing half of its connection do next.
//!
//! A connection has two halves that share this state: one reads bytes and hands requests over, the other writes replies. Each
//! may let the other go on: requests that are answered at once give the writer something to write, and replies that were
//! written make room for requests that wait. Both hand requests over, so the runtime keeps the state locked, or borrowed,
//! until the router has them: otherwise those of one half might overtake those of the other.
//!
//! Deliberately not here: what bytes mean ([`Connection`]), sockets, and how long a client may be silent.

use std::sync::Arc;

use super::RouterInput;
use crate::protocol::{Connection, IDLE_LINE};
use crate::proxy::Reply;
use crate::replica::Request;

/// Bytes of a client read at once.
pub const CLIENT_READ_BYTES: usize = 64 << 10;
/// Replies are turned into bytes up to this many at a time; a reply that is longer goes alone.
pub const CLIENT_WRITE_BYTES: usize = 64 << 10;

/// What the writing half is told.
#[derive(Debug)]
pub enum ToWriter {
    /// The reply to a slot's request.
    Reply(u64, Reply),
    /// There may be lines to write that no reply brought about.
    Look,
    /// The client was silent for too long.
    Idle,
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

/// The state that both halves of a connection share. See the module.
#[derive(Debug)]
pub struct ClientHost {
    number: u64,
    state: Connection,
    /// The last line, when the client was silent for too long.
    last_line: Option<&'static str>,
    /// No more replies come.
    is_stopping: bool,
}

impl ClientHost {
    /// The client with this number, which is not 0, of a server at `address`.
    #[must_use]
    pub fn new(number: u64, address: Arc<str>) -> Self {
        Self { number, state: Connection::new(Some(address)), last_line: None, is_stopping: false }
    }

    /// The requests that may run now, in their order.
    fn requests(&mut self) -> Option<RouterInput> {
        let requests: Vec<(u64, Request)> = std::iter::from_fn(|| self.state.next_request()).collect();
        if requests.is_empty() { None } else { Some(RouterInput::Asked(self.number, requests)) }
    }

    /// For the reading half: what is to be handed to the router, whether the writing half has to look, and what to do then.
    #[must_use]
    pub fn next_read(&mut self) -> (Option<RouterInput>, bool, ReadStep) {
        let was_due = self.state.has_reply_due();
        let requests = self.requests();
        // Pings and lines that are no requests are answered without the router.
        let is_newly_due = self.state.has_reply_due() && !was_due;
        if self.state.is_finished() {
            return (requests, true, ReadStep::End);
        }
        let step = if self.state.wants_input() { ReadStep::Read } else { ReadStep::WaitForRoom };
        (requests, is_newly_due, step)
    }

    /// The client has sent these bytes.
    pub fn received(&mut self, bytes: &[u8]) {
        self.state.receive(bytes);
    }

    /// The client will send nothing more.
    pub fn input_ended(&mut self) {
        self.state.end_input();
    }

    /// The client was silent for as long as it may be. Whether it is disconnected for that, and the writing half is to be told:
    /// not while it waits for a reply.
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
            ToWriter::Idle => self.last_line = Some(IDLE_LINE),
        }
    }

    /// For the writing half: puts what is to be written next into `output`, nothing when there is nothing. Returns what is to be
    /// handed to the router before: every reply that was written makes room for a request that waits.
    #[must_use]
    pub fn next_write(&mut self, output: &mut String) -> Option<RouterInput> {
        output.clear();
        output.shrink_to(2 * CLIENT_WRITE_BYTES);
        if let Some(line) = self.last_line.take() {
            output.push_str(line);
            self.is_stopping = true;
            return None;
        }
        let requests = if self.state.may_have_requests() { self.requests() } else { None };
        self.state.write_replies(output, CLIENT_WRITE_BYTES);
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
        ClientHost::new(3, "127.0.0.1:3001".into())
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
        let (requests, wakes_writer, step) = client.next_read();
        assert!(matches!(requests, Some(RouterInput::Asked(3, requests)) if requests.len() == 1));
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
        let (requests, wakes_writer, _) = client.next_read();
        assert!(requests.is_none() && wakes_writer);
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
}
