//! A link: one node's connection to another, which is dialled again whenever it breaks, and the
//! frames that wait to be sent over it.
//!
//! Raft tolerates lost messages, so a link need not be reliable, but it must be current. The naive
//! way keeps everything until there is a connection, and reports each failed attempt. After an
//! outage the peer would then receive megabytes of outdated messages before the first useful one,
//! and requests whose clients have timed out; and a peer that stays down would flood the operator
//! with reports. So a link is *up* while there is a connection and *down* otherwise, and the node
//! and the router are notified once of each change. While it is up, messages and requests go into
//! its outbox. While it is down only answers are kept, because their clients may still wait. A
//! failure is reported once per reason, and after each failure the link backs off.
//!
//! A connection may also die silently. So a link that is up asks the other node every
//! [`PING_EVERY`] for a receipt, even when nothing else is sent: a connection that a firewall has
//! forgotten is noticed before an election needs it, and a connection in use is not forgotten.
//! These receipts, and those that the other node sends while it reads, limit the bytes in flight
//! (`flow.rs`).
//!
//! Deliberately not here: sockets. A runtime dials, reports the outcome to the link, delivers the
//! news that the link appends, and takes bytes out of the link while it is up. The
//! [`Directory`](super::Directory) decides which links there are.

use std::time::Duration;
use std::{fmt, io};

use super::flow::{Flow, WINDOW_BYTES_MAX};
use super::{HostInput, PeerNews};
use crate::memory::{MemoryBudget, PeerMemory};
use crate::peer::{
    Backoff, CallId, FrameBuffer, FrameError, HandshakeRefusal, HandshakeResult, Outbox, PeerEvent, PeerFrame,
};
use crate::proxy::ProxyInput;
use crate::raft::{Message, NodeId};
use crate::replica::{Answer, Input};
use crate::time::Instant;

/// How long to wait for a connection, or for the answer to a handshake.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long to wait for the addresses of a name. A slower resolver counts as failed, so that there
/// is time left to try an address that worked before.
pub const RESOLVE_TIMEOUT: Duration = Duration::from_secs(1);
/// How long the rest of a refused connection's bytes is read, so that the refusal arrives.
pub const REFUSAL_TIMEOUT: Duration = Duration::from_millis(500);
/// How long a peer may accept none of the bytes that are sent to it before its connection is
/// closed: the peer hangs.
pub const SEND_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the other machine may acknowledge nothing of what was sent before the operating system
/// closes the connection. The default is many minutes, with ever longer pauses.
pub const SILENCE_MAX: Duration = Duration::from_secs(2);
/// How often another node must report that this node runs twice before this node believes it. At
/// the interval at which it dials, that takes about eight seconds: twice as long as the other node
/// presumes an earlier run of this node, which has ended, to be alive.
const RUNS_TWICE_MAX: u32 = 24;
/// The bytes that are sent at once: an urgent frame waits for no more than this.
pub const SEND_BYTES: usize = 256 << 10;
/// The interval at which a link pings the other node.
pub const PING_EVERY: Duration = Duration::from_secs(1);
/// How long the other node may be silent, although it is pinged, before its connection is closed.
/// Chosen as several times the pause of a node that builds a large map or gets no processor; a
/// machine that is down is noticed after [`SILENCE_MAX`]. The same limit applies to a node that has
/// dialled.
pub const PEER_SILENCE_MAX: Duration = Duration::from_secs(10);

/// Why there is no connection.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DialError {
    /// The connection could not be made, or broke: the operating system's message.
    Failed(String),
    /// One of the two nodes refuses the other.
    Refused(HandshakeRefusal),
    /// The other end has not proven its identity, or does not accept that of this node: the reason.
    Unproven(Box<str>),
    /// The other node has no cluster yet.
    NotReady,
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(why) => f.write_str(why),
            Self::Refused(refusal) => refusal.fmt(f),
            Self::Unproven(why) => f.write_str(why),
            Self::NotReady => f.write_str("it has not joined a cluster yet"),
        }
    }
}

impl std::error::Error for DialError {}

impl From<io::Error> for DialError {
    fn from(error: io::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<HandshakeRefusal> for DialError {
    fn from(refusal: HandshakeRefusal) -> Self {
        Self::Refused(refusal)
    }
}

/// The state of a link. See the module.
#[derive(Debug)]
pub struct Link {
    own: NodeId,
    node: NodeId,
    outbox: Outbox,
    /// Counts the waiting bytes in the memory budget.
    memory: PeerMemory,
    window_max: u64,
    backoff: Backoff,
    is_up: bool,
    /// The shortest election timeout of the cluster.
    election_timeout_min: Duration,
    flow: Flow,
    /// Bytes from the other node that are not a complete frame yet.
    heard: FrameBuffer,
    /// When the other node last sent something, and when it is pinged next.
    heard_at: Instant,
    ping_at: Instant,
    /// Whether a ping waits to be sent.
    asks: bool,
    /// Whether the bytes that were taken last may still be in the process of being sent.
    is_sending: bool,
    /// Whether the link must end.
    is_over: bool,
    /// Whether anything was to be sent since [`Link::was_used`] was last called.
    is_used: bool,
    /// How often the other node has reported, since the link was last up, that another process runs
    /// as this node.
    runs_twice: u32,
    /// The last failure that was reported since the link was last up.
    reported: String,
}

impl Link {
    /// Creates a link from the node `own` to `node`, which is down, in a cluster whose shortest
    /// election timeout is `election_timeout_min`. `seed` randomizes its backoff.
    #[must_use]
    pub fn new(own: NodeId, node: NodeId, seed: u64, election_timeout_min: Duration) -> Self {
        let memory = PeerMemory::new(&MemoryBudget::unlimited());
        Self {
            own,
            node,
            outbox: Outbox::default(),
            memory,
            window_max: WINDOW_BYTES_MAX,
            backoff: Backoff::new(seed),
            is_up: false,
            election_timeout_min,
            flow: Flow::new(election_timeout_min, WINDOW_BYTES_MAX, Instant::default()),
            heard: FrameBuffer::default(),
            heard_at: Instant::default(),
            ping_at: Instant::default(),
            asks: false,
            is_sending: false,
            is_over: false,
            is_used: true,
            runs_twice: 0,
            reported: String::new(),
        }
    }

    /// Returns the link limited to its share of this budget.
    #[must_use]
    pub fn with_memory(self, budget: &MemoryBudget) -> Self {
        let shares = budget.shares();
        let (memory, window_max) = (PeerMemory::new(budget), shares.window_bytes);
        Self { outbox: Outbox::new(shares.outbox_bytes), memory, window_max, ..self }
    }

    /// Notes that a connection was made; `false`: the link must end, and the connection with it.
    pub fn go_up(&mut self, handshake: &HandshakeResult, now: Instant, news: &mut Vec<PeerNews>) -> bool {
        if self.is_over {
            return false;
        }
        self.is_up = true;
        self.flow = Flow::new(self.election_timeout_min, self.window_max, now);
        self.heard = FrameBuffer::default();
        self.heard_at = now;
        self.ping_at = now;
        self.asks = false;
        self.backoff.reset();
        self.runs_twice = 0;
        self.reported.clear();
        news.push(PeerNews::Report(PeerEvent::Connected(self.node)));
        news.push(PeerNews::Node(HostInput::Core(handshake.to_input())));
        let reachable = ProxyInput::Reachable(self.node, handshake.client_address.clone());
        news.push(PeerNews::Router(vec![reachable]));
        true
    }

    /// Notes that the connection is gone, if there was one.
    pub fn go_down(&mut self, news: &mut Vec<PeerNews>) {
        if !std::mem::replace(&mut self.is_up, false) {
            return;
        }
        self.is_sending = false;
        self.outbox.disconnect();
        self.note_waiting();
        news.push(PeerNews::Router(vec![ProxyInput::Unreachable(self.node)]));
        news.push(PeerNews::Node(HostInput::Core(Input::PeerUnreachable(self.node))));
    }

    /// Notes that the connection broke, or could not be made. Returns how long to wait before
    /// dialling again.
    pub fn failed(&mut self, failure: DialError, news: &mut Vec<PeerNews>) -> Duration {
        self.go_down(news);
        if let DialError::Refused(refusal) = &failure {
            self.runs_twice += u32::from(refusal.says_runs_twice(self.own));
            if refusal.says_removed(self.own) || self.runs_twice >= RUNS_TWICE_MAX {
                news.push(PeerNews::Node(HostInput::Core(Input::Dismissed)));
                news.push(PeerNews::Removed(refusal.clone()));
            }
        }
        let why = failure.to_string();
        if why != self.reported {
            self.reported.clone_from(&why);
            news.push(PeerNews::Report(match failure {
                DialError::Refused(refusal) => PeerEvent::Refused(self.node, refusal),
                DialError::Unproven(why) => PeerEvent::Unproven(Some(self.node), why),
                DialError::Failed(_) | DialError::NotReady => PeerEvent::Lost(self.node, why),
            }));
        }
        self.backoff.pause()
    }

    /// Ends the link, which is not needed any more.
    pub fn end(&mut self, news: &mut Vec<PeerNews>) {
        self.is_over = true;
        self.go_down(news);
    }

    /// Returns whether the link must end.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.is_over
    }

    /// Returns whether the link is up.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.is_up
    }

    /// Adds a Raft message, if the link is up.
    pub fn push_message(&mut self, message: &Message) {
        self.is_used = true;
        if self.is_up {
            self.outbox.push_message(message);
            self.note_waiting();
        }
    }

    /// Adds an answer. It waits for the next connection if necessary, because its client may still
    /// wait.
    pub fn push_answer(&mut self, call: CallId, answer: &Answer) {
        self.is_used = true;
        self.outbox.push_answer(call, answer);
        self.note_waiting();
    }

    /// Returns the bytes that wait in the bulk lane.
    #[must_use]
    pub fn waiting_bulk(&self) -> usize {
        self.outbox.bulk_bytes()
    }

    /// Returns the bytes that wait to be sent.
    #[must_use]
    pub fn waiting_bytes(&self) -> usize {
        self.outbox.bytes()
    }

    /// Returns the outbox for requests, if the link is up. Call [`Link::note_waiting`] afterwards.
    pub fn requests(&mut self) -> Option<&mut Outbox> {
        self.is_used = true;
        self.is_up.then_some(&mut self.outbox)
    }

    /// Counts the waiting bytes in the memory budget.
    pub fn note_waiting(&mut self) {
        self.memory.note(self.outbox.bytes());
    }

    /// Returns whether there is something that may be sent now.
    #[must_use]
    pub fn has_work(&self) -> bool {
        self.outbox.has_urgent() || (self.outbox.has_bulk() && self.flow.room() > 0)
    }

    /// Moves the bytes to send next to the end of `bytes`. The bytes taken before have been sent.
    pub fn drain(&mut self, now: Instant, bytes: &mut Vec<u8>) {
        self.outbox.drain(bytes, SEND_BYTES, self.flow.room());
        self.note_waiting();
        self.flow.sent(bytes.len(), std::mem::take(&mut self.asks), now);
        self.is_sending = !bytes.is_empty();
    }

    /// Returns when the other node is to be pinged next.
    #[must_use]
    pub fn ping_at(&self) -> Instant {
        self.ping_at
    }

    /// Pings the other node if that is due.
    ///
    /// # Errors
    ///
    /// The other node was silent for too long, and the connection must be closed.
    pub fn ask(&mut self, now: Instant) -> io::Result<()> {
        if self.is_up && now >= self.ping_at {
            self.ping_at = now + PING_EVERY;
            self.asks = true;
            self.outbox.push_ping();
        }
        if self.is_up && now.since(self.heard_at) >= PEER_SILENCE_MAX {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "it does not answer pings"));
        }
        Ok(())
    }

    /// Accepts bytes from the other node; none means that it has closed the connection.
    ///
    /// # Errors
    ///
    /// The connection must be closed.
    pub fn hear(&mut self, bytes: &[u8], now: Instant) -> io::Result<()> {
        if bytes.is_empty() {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the other end closed the connection"));
        }
        self.hear_frames(bytes, now).map_err(|fault| io::Error::new(io::ErrorKind::InvalidData, fault))
    }

    fn hear_frames(&mut self, bytes: &[u8], now: Instant) -> Result<(), FrameError> {
        self.heard_at = now;
        self.heard.push(bytes);
        while let Some(frame) = self.heard.next_frame()? {
            let PeerFrame::Receipt(read) = PeerFrame::read(frame)? else { return Err(FrameError::Unknown) };
            self.flow.receipt(read, now).map_err(|_| FrameError::Unknown)?;
        }
        Ok(())
    }

    /// Notes that the bytes taken last have been sent.
    pub fn sent(&mut self) {
        self.is_sending = false;
    }

    /// Returns whether everything that waited was sent, or there is no connection.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        !self.is_up || (self.outbox.is_empty() && !self.is_sending)
    }

    /// Returns whether anything was to be sent since the last call.
    pub fn was_used(&mut self) -> bool {
        std::mem::take(&mut self.is_used)
    }
}

#[cfg(test)]
mod tests;
