//! A link: one node's connection to another, which it dials again and again, and what waits to be
//! sent over it.
//!
//! A link is up while there is a connection. Then the node and the router know of it, once for each
//! time it goes up or down, and messages and requests go into its outbox. While it is down nothing
//! but answers is kept for later: all else would be too old. Why it is down is reported once per
//! reason, not once per attempt, and after each failure it backs off.
//!
//! While it is up, it asks the other node every [`PING_EVERY`] for a receipt, also when nothing
//! else is sent: a connection that a firewall has forgotten is noticed before an election needs it,
//! and one that is used is not forgotten. The receipts, and those that the other node sends while
//! it reads, say how much may be in flight (`flow.rs`).
//!
//! Deliberately not here: sockets. A runtime dials, tells the link what came of it, and carries to
//! their places what the link appends to its news; and it takes bytes out of the link while it is
//! up. Which links there are is decided by the [`Directory`](super::Directory).

use std::time::Duration;
use std::{fmt, io};

use super::flow::{Flow, WINDOW_BYTES_MAX};
use super::{HostInput, PeerNews};
use crate::memory::{MemoryBudget, PeerMemory};
use crate::peer::{
    Backoff, CallId, FrameBuffer, FrameFault, Meeting, Outbox, PeerEvent, PeerFrame, PeerRefusal,
};
use crate::proxy::ProxyInput;
use crate::raft::{Message, NodeId};
use crate::replica::{Answer, Input};
use crate::time::Instant;

/// How long a connection, or the answer to a handshake, is waited for.
pub const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(2);
/// How long a name's addresses are waited for. A resolver that takes longer has no answer: there
/// has to be time for an address that worked before.
pub const RESOLVE_PATIENCE: Duration = Duration::from_secs(1);
/// How long what a refused connection still sends is read, so that the refusal arrives.
pub const REFUSAL_PATIENCE: Duration = Duration::from_millis(500);
/// How long a peer may take none of the bytes that are sent to it before its connection is given
/// up: a hung peer.
pub const SEND_PATIENCE: Duration = Duration::from_secs(5);
/// How long the other machine may acknowledge nothing of what was sent, before the operating system
/// gives the connection up: it would wait for many minutes otherwise, with ever longer pauses.
pub const SILENCE_MAX: Duration = Duration::from_secs(2);
/// How often a node must hear from one other that it runs twice before it believes it: at the pace
/// at which it dials some eight seconds, in which the other has noticed the end of a run before
/// this one: twice as long as it holds on to that one.
const RUNS_TWICE_MAX: u32 = 24;
/// Bytes sent at once: what is urgent waits for no more than this.
pub const SEND_BYTES: usize = 256 << 10;
/// How often a link asks whether the other node is there.
pub const PING_EVERY: Duration = Duration::from_secs(1);
/// How long the other node may say nothing, though it is asked, before its connection is given up.
/// Chosen as several times what a node needs that builds a large map or does not get a processor; a
/// machine that is gone is noticed after [`SILENCE_MAX`]. So long a node that has dialled may be
/// silent, too.
pub const PEER_SILENCE_MAX: Duration = Duration::from_secs(10);

/// Why there is no connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DialFailure {
    /// It cannot be made, or it broke: in the words of the operating system.
    Failed(String),
    /// One of the two nodes refuses the other.
    Refused(PeerRefusal),
    /// The other node has no cluster yet.
    NotReady,
}

impl fmt::Display for DialFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(why) => f.write_str(why),
            Self::Refused(refusal) => refusal.fmt(f),
            Self::NotReady => f.write_str("it has no cluster yet"),
        }
    }
}

impl From<io::Error> for DialFailure {
    fn from(error: io::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<PeerRefusal> for DialFailure {
    fn from(refusal: PeerRefusal) -> Self {
        Self::Refused(refusal)
    }
}

/// The state of a link. See the module.
#[derive(Debug)]
pub struct Link {
    own: NodeId,
    node: NodeId,
    outbox: Outbox,
    /// What waits counts in the memory budget, and that says how much may be in flight.
    memory: PeerMemory,
    window_max: u64,
    backoff: Backoff,
    is_up: bool,
    /// The shortest time after which the cluster holds an election.
    election_timeout_min: Duration,
    flow: Flow,
    /// What came back and is not a whole frame yet.
    heard: FrameBuffer,
    /// When the other node said something last, and when it is asked next.
    heard_at: Instant,
    ping_at: Instant,
    /// Whether a question waits to be sent.
    asks: bool,
    /// Whether what was taken last may still be on its way.
    is_sending: bool,
    /// Whether the link has to end.
    is_over: bool,
    /// Whether anything was sent since it was last asked.
    is_used: bool,
    /// How often the other node has said, since the link was up, that another process runs as this
    /// node.
    runs_twice: u32,
    /// The failure that was reported last, since the link was up.
    reported: String,
}

impl Link {
    /// A link from the node `own` to `node`, which is down, in a cluster whose elections begin
    /// after `election_timeout_min` or later. `seed` decides how it backs off.
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

    /// The same within its share of this budget.
    #[must_use]
    pub fn with_memory(self, budget: &MemoryBudget) -> Self {
        let shares = budget.shares();
        let (memory, window_max) = (PeerMemory::new(budget), shares.window_bytes);
        Self { outbox: Outbox::new(shares.outbox_bytes), memory, window_max, ..self }
    }

    /// There is a connection; `false`: the link has to end, and the connection with it.
    pub fn go_up(&mut self, meeting: &Meeting, now: Instant, news: &mut Vec<PeerNews>) -> bool {
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
        news.push(PeerNews::Node(HostInput::Core(meeting.met())));
        let reachable = ProxyInput::Reachable(self.node, meeting.client_address.clone());
        news.push(PeerNews::Router(vec![reachable]));
        true
    }

    /// There is no connection any more, if there was one.
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

    /// The connection broke, or could not be made. Returns how long to wait before it is dialled
    /// again.
    pub fn failed(&mut self, failure: DialFailure, news: &mut Vec<PeerNews>) -> Duration {
        self.go_down(news);
        if let DialFailure::Refused(refusal) = &failure {
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
                DialFailure::Refused(refusal) => PeerEvent::Refused(self.node, refusal),
                DialFailure::Failed(_) | DialFailure::NotReady => PeerEvent::Lost(self.node, why),
            }));
        }
        self.backoff.pause()
    }

    /// The link is not wanted any more.
    pub fn end(&mut self, news: &mut Vec<PeerNews>) {
        self.is_over = true;
        self.go_down(news);
    }

    /// Whether the link has to end.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.is_over
    }

    /// Whether there is a connection.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.is_up
    }

    /// Adds a message of Raft, if the link is up.
    pub fn push_message(&mut self, message: &Message) {
        self.is_used = true;
        if self.is_up {
            self.outbox.push_message(message);
            self.note_waiting();
        }
    }

    /// Adds an answer. It waits for the next connection: who asked was there a moment ago.
    pub fn push_answer(&mut self, call: CallId, answer: &Answer) {
        self.is_used = true;
        self.outbox.push_answer(call, answer);
        self.note_waiting();
    }

    /// How many bytes wait to be sent that are not urgent.
    #[must_use]
    pub fn waiting_bulk(&self) -> usize {
        self.outbox.bulk_bytes()
    }

    /// How many bytes wait to be sent.
    #[must_use]
    pub fn waiting_bytes(&self) -> usize {
        self.outbox.bytes()
    }

    /// Where requests go, if the link is up; then [`Link::note_waiting`].
    pub fn requests(&mut self) -> Option<&mut Outbox> {
        self.is_used = true;
        self.is_up.then_some(&mut self.outbox)
    }

    /// Counts what waits in the memory budget.
    pub fn note_waiting(&mut self) {
        self.memory.note(self.outbox.bytes());
    }

    /// Whether there is something that may be sent now.
    #[must_use]
    pub fn has_work(&self) -> bool {
        self.outbox.has_urgent() || (self.outbox.has_bulk() && self.flow.room() > 0)
    }

    /// Moves what is to be sent next to the end of `bytes`. What was taken before has been sent.
    pub fn take(&mut self, now: Instant, bytes: &mut Vec<u8>) {
        self.outbox.take(bytes, SEND_BYTES, self.flow.room());
        self.note_waiting();
        self.flow.sent(bytes.len(), std::mem::take(&mut self.asks), now);
        self.is_sending = !bytes.is_empty();
    }

    /// When the other node is to be asked whether it is there.
    #[must_use]
    pub fn ping_at(&self) -> Instant {
        self.ping_at
    }

    /// Asks the other node whether it is there, if it is time for that.
    ///
    /// # Errors
    ///
    /// It has said nothing for too long, and the connection is of no more use.
    pub fn ask(&mut self, now: Instant) -> io::Result<()> {
        if self.is_up && now >= self.ping_at {
            self.ping_at = now + PING_EVERY;
            self.asks = true;
            self.outbox.push_ping();
        }
        if self.is_up && now.since(self.heard_at) >= PEER_SILENCE_MAX {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "it says nothing"));
        }
        Ok(())
    }

    /// The other node has sent these bytes back, or has hung up: then there are none.
    ///
    /// # Errors
    ///
    /// The connection is of no more use.
    pub fn hear(&mut self, bytes: &[u8], now: Instant) -> io::Result<()> {
        if bytes.is_empty() {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the other end hung up"));
        }
        self.hear_frames(bytes, now).map_err(|fault| io::Error::new(io::ErrorKind::InvalidData, fault))
    }

    fn hear_frames(&mut self, bytes: &[u8], now: Instant) -> Result<(), FrameFault> {
        self.heard_at = now;
        self.heard.push(bytes);
        while let Some(frame) = self.heard.next_frame()? {
            let PeerFrame::Receipt(read) = PeerFrame::read(frame)? else { return Err(FrameFault::Unknown) };
            self.flow.receipt(read, now).map_err(|_| FrameFault::Unknown)?;
        }
        Ok(())
    }

    /// What was taken last has been sent.
    pub fn sent(&mut self) {
        self.is_sending = false;
    }

    /// Whether everything was sent that waited, if there is a connection.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        !self.is_up || (self.outbox.is_empty() && !self.is_sending)
    }

    /// Whether anything was to be sent since this was asked last.
    pub fn was_used(&mut self) -> bool {
        std::mem::take(&mut self.is_used)
    }
}

#[cfg(test)]
mod tests;
