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
mod tests {
    use super::*;
    use crate::proxy::RequestError;

    fn client() -> ClientHost {
        let memory = MemoryBudget::unlimited().connect(3).unwrap().0;
        ClientHost::new(3, "127.0.0.1:3001".into(), KnownCluster::default(), memory)
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
        client.told(ToWriter::Reply(0, Err(RequestError::Busy)));
        assert!(written(&mut client).contains("busy"));
        assert!(!client.has_ended());
    }

    /// A fast sender would otherwise hold memory that does not count any more, until the router
    /// tells it.
    #[test]
    fn an_evicted_client_that_goes_on_sending_holds_nothing() {
        let budget = MemoryBudget::new(1 << 20, 10, 0);
        let mut clients = [3, 4].map(|number| {
            let memory = budget.connect(number).unwrap().0;
            ClientHost::new(number, "127.0.0.1:3001".into(), KnownCluster::default(), memory)
        });
        let piece = vec![b'x'; 100 << 10];
        clients[0].received(&piece);
        for _ in 0..2 {
            clients[1].received(&piece);
        }
        let ([evictions, _], ..) = clients[1].next_read();
        assert!(matches!(evictions, Some(RouterInput::GiveUp(given_up)) if given_up[0].connection == 3));
        clients[0].received(&piece);
        assert_eq!(clients[0].state.unread_bytes(), 0);
        assert_eq!(clients[0].next_read().2, ReadStep::End);
        assert!(written(&mut clients[0]).contains("busy"));
        assert_eq!(clients[0].linger(), (GIVEN_UP_LINGER, false));
        assert_eq!(client().linger(), (CLIENT_LINGER, true));
    }

    fn clients_of(budget: &MemoryBudget) -> impl FnMut(u64) -> ClientHost {
        |number| {
            let memory = budget.connect(number).unwrap().0;
            ClientHost::new(number, "127.0.0.1:3001".into(), KnownCluster::default(), memory)
        }
    }

    /// More connections than there are buffers for long lines can be between their eviction and the
    /// moment at which they hear of it.
    #[test]
    fn a_long_line_without_a_buffer_is_refused_until_there_is_one_again() {
        let budget = MemoryBudget::new(64 << 20, 1000, 0);
        let (line, mut connect) = (vec![b'x'; 1 << 20], clients_of(&budget));
        let mut clients = Vec::new();
        let mut refused = (1..1000)
            .find_map(|number| {
                let mut client = connect(number);
                // A reply that is still to come must not keep the reader.
                client.received(b"{\"key\":\"a\"}\n");
                let _ = client.next_read();
                client.received(&line);
                let is_refused = client.state.unread_bytes() == 0;
                clients.push(client);
                if is_refused { clients.pop() } else { None }
            })
            .expect("the pool has a limit");
        let held: usize = clients.iter().map(|client| client.state.unread_bytes()).sum();
        assert!((12 << 20..20 << 20).contains(&held), "{held}");
        let (_, wakes_writer, step) = refused.next_read();
        assert_eq!((wakes_writer, step), (true, ReadStep::End), "the client is told without the router");
        assert!(written(&mut refused).contains("incomplete request lines") && refused.has_ended());
        drop(clients);
        let mut later = connect(1000);
        later.received(&line);
        assert_eq!(later.next_read().2, ReadStep::Read);
    }

    /// Its writer may be blocked, because the client reads nothing either.
    #[test]
    fn an_evicted_client_frees_its_long_line_when_its_input_ends() {
        let budget = MemoryBudget::new(64 << 20, 100, 0);
        let mut connect = clients_of(&budget);
        let mut clients: Vec<_> = (1..12).map(&mut connect).collect();
        clients.iter_mut().for_each(|client| client.received(&vec![b'x'; 1 << 20]));
        assert!(clients[0].state.unread_bytes() > 0, "it does not know of its eviction yet");
        clients[0].input_ended();
        assert_eq!(clients[0].state.unread_bytes(), 0);
        assert_eq!(clients[0].next_read().2, ReadStep::End);
        assert!(written(&mut clients[0]).contains("busy"));
        clients[0].told(ToWriter::GiveUp(Holder::HalfLines));
        assert_eq!(written(&mut clients[0]), "", "it is told once");
    }

    /// Its reader waits for room and its writer for the client: only the end of its socket frees
    /// it.
    #[test]
    fn a_client_with_a_long_line_behind_unread_replies_is_cut_off() {
        let budget = MemoryBudget::new(64 << 20, 100, 0);
        let mut connect = clients_of(&budget);
        let mut blocked = connect(1);
        blocked.received(b"{\"key\":\"a\"}\n");
        let put = format!("{{\"key\":\"a\",\"value\":\"{}\"}}\n", "x".repeat(200 << 10));
        blocked.received(put.as_bytes());
        blocked.received(&b"{\"key\":\"a\"}\n".repeat(20_000));
        assert_eq!(blocked.next_read().2, ReadStep::WaitForRoom);
        let mut clients: Vec<_> = (2..20).map(&mut connect).collect();
        let evictions: Vec<_> = clients
            .iter_mut()
            .flat_map(|client| {
                client.received(&vec![b'x'; 1 << 20]);
                client.next_read().0.into_iter().flatten().collect::<Vec<_>>()
            })
            .collect();
        let first = Eviction { connection: 1, holder: Holder::Replies };
        assert!(
            matches!(&evictions[0], RouterInput::GiveUp(evicted) if evicted[0] == first),
            "{evictions:?}"
        );
        assert!(
            matches!(&evictions[1], RouterInput::GiveUp(evicted) if evicted[0].holder == Holder::HalfLines)
        );
    }

    /// The lines behind a request that waits for another one stay in the socket: they would need a
    /// buffer for long lines.
    #[test]
    fn short_lines_behind_a_held_request_are_not_read_without_limit() {
        let mut client = client();
        client.received(b"{\"key\":\"a\",\"value\":1}\n{\"key\":\"a\"}\n");
        let mut bytes = 0;
        while client.next_read().2 == ReadStep::Read {
            client.received(&b"{\"key\":\"a\"}\n".repeat(1000));
            bytes += 12 * 1000;
        }
        assert!(bytes < 2 * CLIENT_READ_BYTES, "{bytes}");
        client.told(ToWriter::Reply(0, Err(RequestError::Busy)));
        let [_, requests] = client.next_write(&mut String::new());
        assert!(matches!(requests, Some(RouterInput::Asked(3, gets)) if gets.len() > 1000));
    }

    #[test]
    fn a_request_answered_without_the_router_wakes_the_writer_once() {
        let mut client = client();
        client.received(b"{\"op\":\"ping\"}\n");
        let (for_router, wakes_writer, _) = client.next_read();
        assert!(matches!(for_router, [None, None]) && wakes_writer);
        assert!(!client.next_read().1, "it was told before");
        assert!(!written(&mut client).is_empty());
    }

    #[test]
    fn a_client_that_closes_its_side_still_gets_its_replies() {
        let mut client = client();
        client.received(b"{\"key\":\"a\"}\n");
        client.input_ended();
        assert_ne!(client.next_read().2, ReadStep::End, "a reply is owed");
        client.told(ToWriter::Reply(0, Err(RequestError::Busy)));
        assert!(!written(&mut client).is_empty() && client.has_ended());
        assert_eq!(client.next_read().2, ReadStep::End);
    }

    #[test]
    fn an_idle_client_is_disconnected_unless_it_waits_for_a_reply() {
        let mut client = client();
        client.received(b"{\"key\":\"a\"}\n");
        let _ = client.next_read();
        assert!(!client.was_silent(), "it waits for a reply");
        client.told(ToWriter::Reply(0, Err(RequestError::Busy)));
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
        client.told(ToWriter::Reply(0, Err(RequestError::ShuttingDown)));
        client.told(ToWriter::Stop);
        assert!(client.has_ended() && !written(&mut client).is_empty());
    }
    #[test]
    fn accepting_a_client_reports_the_connection_that_is_closed_for_it() {
        let budget = MemoryBudget::new(1 << 20, 10, 200 << 10);
        let accept =
            |number| ClientHost::accept(number, "127.0.0.1:3001".into(), &KnownCluster::default(), &budget);
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
