//! Inbound connections: decodes the frames of a node that has dialled, and sorts them by receiver.
//!
//! Messages and requests go to the node, as one input for everything that arrived together; answers
//! go to the router. A message that names another sender or receiver than the two ends of the
//! connection ends it. Frames of an earlier run (boot) of either side are dropped: an answer to a
//! request of an earlier run of this node, and a request of an earlier run of the sender, which has
//! forgotten it.
//!
//! Receipts go back to the sender: they report how many bytes were read, so that the sender can
//! measure the delay.

use crate::host::HostInput;
use crate::memory::{MemoryBudget, PeerMemory};
use crate::mutant::{self, Mutant};
use crate::peer::{FrameBuffer, FrameError, HandshakeResult, PeerFrame, push_receipt};
use crate::proxy::ProxyInput;
use crate::raft::NodeId;

/// The number of items at which a node's inbox counts as full.
pub const INBOX_ITEMS_MAX: usize = 4096;

/// Returns whether an inbox with this many items is full. The connections of peers are not read
/// then; within a process the message is dropped, and Raft sends a newer one.
#[must_use]
pub fn inbox_is_full(items: usize) -> bool {
    items >= INBOX_ITEMS_MAX
}
/// The number of bytes of peers' frames at which a node's inbox counts as full, where memory has no
/// limit. Chosen as two full outboxes of a peer: a node that processes less than that per turn is
/// overloaded anyway.
pub const INBOX_BYTES_MAX: usize = 64 << 20;

/// The number of bytes after which a receipt is due: half of the longest piece, so that each piece
/// gets one.
const RECEIPT_BYTES: u64 = 8 << 10;

/// The result of receiving bytes.
#[derive(Debug, Default)]
pub struct Received {
    /// Input for the node.
    pub input: Option<HostInput>,
    /// Input for the router.
    pub answers: Vec<ProxyInput>,
    /// Bytes to send back, if any.
    pub reply: Vec<u8>,
}

/// Why a connection is closed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InboundError {
    /// The bytes are not frames of this protocol version.
    Frame(FrameError),
    /// A message that is not from the node that has dialled, or not for this node.
    Misaddressed,
}

impl std::fmt::Display for InboundError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Frame(fault) => fault.fmt(f),
            Self::Misaddressed => f.write_str("a message with a wrong sender or receiver"),
        }
    }
}

impl std::error::Error for InboundError {}

/// A connection that another node of the cluster has dialled. See the module.
#[derive(Debug)]
pub struct Inbound {
    own: NodeId,
    boot: u64,
    handshake: HandshakeResult,
    buffer: FrameBuffer,
    /// The pieces of a long frame.
    pieces: FrameBuffer,
    /// Counts unfinished frames in the memory budget.
    memory: PeerMemory,
    /// The bytes that were read, and the bytes that the last receipt reported.
    read: u64,
    receipted: u64,
}

impl Inbound {
    /// Creates a connection from the node that `handshake` describes to the node `own`, in this run
    /// (`boot`) of `own`, within its share of the budget.
    #[must_use]
    pub fn new(own: NodeId, boot: u64, handshake: HandshakeResult, budget: &MemoryBudget) -> Self {
        let frame_max = budget.shares().frame_bytes;
        let (buffer, pieces) = (FrameBuffer::new(frame_max), FrameBuffer::new(frame_max));
        let memory = PeerMemory::new(budget);
        Self { own, boot, handshake, buffer, pieces, memory, read: 0, receipted: 0 }
    }

    /// Returns the number of bytes of unfinished frames.
    #[must_use]
    pub fn unfinished_bytes(&self) -> usize {
        self.buffer.unfinished() + self.pieces.unfinished()
    }

    /// The node that has dialled.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.handshake.node
    }

    /// Decodes the next bytes.
    ///
    /// # Errors
    ///
    /// [`InboundError`]: the connection must be closed.
    pub fn receive(&mut self, bytes: &[u8]) -> Result<Received, InboundError> {
        self.read += bytes.len() as u64;
        self.buffer.push(bytes);
        let (mut received, mut frames) = (Received::default(), Vec::new());
        let (mut peer_bytes, mut is_asked) = (0, false);
        while let Some(frame) = self.next_frame(&mut peer_bytes).map_err(InboundError::Frame)? {
            match frame {
                PeerFrame::Message(message)
                    if (message.from, message.to) != (self.handshake.node, self.own) =>
                {
                    return Err(InboundError::Misaddressed);
                }
                PeerFrame::Answer { call, answer } if call.boot == self.boot => {
                    received.answers.push(ProxyInput::Answer(self.handshake.node, call.request, answer));
                }
                PeerFrame::Answer { .. } => {}
                PeerFrame::Ask { call, .. } if call.boot != self.handshake.boot => {}
                PeerFrame::Ping => is_asked = true,
                PeerFrame::Receipt(_) => return Err(InboundError::Frame(FrameError::Unknown)),
                frame => frames.push(frame),
            }
        }
        self.note_unfinished_unless_mutant();
        if is_asked || self.read - self.receipted >= RECEIPT_BYTES {
            self.receipted = self.read;
            push_receipt(&mut received.reply, self.read);
        }
        let HandshakeResult { node, incarnation, .. } = self.handshake;
        received.input =
            (!frames.is_empty()).then_some(HostInput::FromPeer { node, incarnation, frames, peer_bytes });
        Ok(received)
    }

    /// Returns the next complete frame, including one that came in pieces. Adds its bytes to
    /// `peer_bytes`.
    fn next_frame(&mut self, peer_bytes: &mut usize) -> Result<Option<PeerFrame>, FrameError> {
        loop {
            if let Some(whole) = self.pieces.next_frame()? {
                return match PeerFrame::read(whole)? {
                    PeerFrame::Piece(_) => Err(FrameError::Unknown),
                    frame => Ok(Some(frame)),
                };
            }
            let Some(bytes) = self.buffer.next_frame()? else { return Ok(None) };
            *peer_bytes += bytes.len();
            match PeerFrame::read(bytes)? {
                PeerFrame::Piece(piece) => self.pieces.push(&piece),
                frame => return Ok(Some(frame)),
            }
        }
    }

    /// Counts an incomplete frame in the memory budget; deliberate bug: does not.
    fn note_unfinished_unless_mutant(&mut self) {
        if !mutant::is_active(Mutant::UnfinishedFrameNotCounted) {
            self.memory.note(self.unfinished_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Incarnation;
    use crate::kv::Level;
    use crate::memory::{FRAME_BYTES_MIN, MemoryShares};
    use crate::peer::{CallId, Outbox};
    use crate::raft::{Addition, Body, Heartbeat, LogIndex, Message, ReadRound, Term};
    use crate::replica::{Answer, Request, RequestId};

    const OWN_BOOT: u64 = 1;
    const THEIR_BOOT: u64 = 2;

    fn inbound_within(budget: &MemoryBudget) -> Inbound {
        let handshake = HandshakeResult {
            node: NodeId(2),
            incarnation: Incarnation(20),
            address: None,
            client_address: None,
            configuration_index: LogIndex(0),
            boot: THEIR_BOOT,
            addition: Addition::default(),
            supports: Level::MAX,
            is_of_cluster: true,
        };
        Inbound::new(NodeId(1), OWN_BOOT, handshake, budget)
    }

    fn inbound() -> Inbound {
        inbound_within(&MemoryBudget::unlimited())
    }

    fn message(from: u64, to: u64) -> Message {
        let heartbeat = Heartbeat {
            leader_commit: LogIndex(1),
            commit_checksum: None,
            round: ReadRound(1),
            elapsed: None,
        };
        let (from, to) = (NodeId(from), NodeId(to));
        Message { from, incarnation: None, to, term: Term(3), body: Body::Heartbeat(heartbeat) }
    }

    fn call(boot: u64) -> CallId {
        CallId { boot, request: RequestId(7) }
    }

    fn bytes(fill: impl FnOnce(&mut Outbox)) -> Vec<u8> {
        let (mut outbox, mut bytes) = (Outbox::default(), Vec::new());
        fill(&mut outbox);
        outbox.drain(&mut bytes, usize::MAX, usize::MAX);
        bytes
    }

    #[test]
    fn messages_and_requests_go_to_the_node_and_answers_to_the_router() {
        let sent = bytes(|outbox| {
            outbox.push_message(&message(2, 1));
            assert!(outbox.push_ask(call(THEIR_BOOT), 1, &Request::Status));
            outbox.push_answer(call(OWN_BOOT), &Answer::OutcomeUnknown);
        });
        let mut inbound = inbound();
        let (first, rest) = sent.split_at(sent.len() - 1);
        let early = inbound.receive(first).unwrap();
        let late = inbound.receive(rest).unwrap();
        let Some(HostInput::FromPeer { node, incarnation, frames, peer_bytes }) = early.input else {
            panic!("{early:?}")
        };
        assert_eq!((node, incarnation, frames.len()), (NodeId(2), Incarnation(20), 2));
        assert!(peer_bytes > 0 && early.answers.is_empty());
        assert!(late.input.is_none() && late.answers.len() == 1);
    }

    #[test]
    fn frames_of_an_earlier_run_are_dropped() {
        let sent = bytes(|outbox| {
            assert!(outbox.push_ask(call(THEIR_BOOT + 5), 1, &Request::Status));
            outbox.push_answer(call(OWN_BOOT + 5), &Answer::OutcomeUnknown);
        });
        let received = inbound().receive(&sent).unwrap();
        assert!(received.input.is_none() && received.answers.is_empty());
    }

    #[test]
    fn a_frame_in_another_nodes_name_ends_the_connection() {
        for (from, to) in [(3, 1), (2, 3)] {
            let sent = bytes(|outbox| outbox.push_message(&message(from, to)));
            assert!(matches!(inbound().receive(&sent), Err(InboundError::Misaddressed)));
        }
        let mut damaged = bytes(|outbox| outbox.push_message(&message(2, 1)));
        let last = damaged.len() - 1;
        damaged[last] ^= 1;
        assert!(matches!(inbound().receive(&damaged), Err(InboundError::Frame(_))));
    }

    #[test]
    fn urgent_frames_go_between_the_pieces_of_a_long_frame() {
        let put = crate::kv::Command::Put {
            key: crate::kv::Key::new("k").unwrap(),
            value: crate::kv::Value::from_text(&"x".repeat(500_000)).unwrap(),
        };
        let (mut outbox, mut inbound) = (Outbox::default(), inbound());
        assert!(outbox.push_ask(call(THEIR_BOOT), 1, &Request::write(put)));
        outbox.push_answer(call(OWN_BOOT), &Answer::OutcomeUnknown);
        let (mut messages, mut requests, mut answers) = (0, 0, 0);
        while !outbox.is_empty() {
            outbox.push_message(&message(2, 1));
            let mut bytes = Vec::new();
            outbox.drain(&mut bytes, usize::MAX, 1);
            let received = inbound.receive(&bytes).unwrap();
            answers += received.answers.len();
            let Some(HostInput::FromPeer { frames, .. }) = received.input else { panic!("no heartbeat") };
            messages += frames.iter().filter(|frame| matches!(frame, PeerFrame::Message(_))).count();
            requests += frames.iter().filter(|frame| matches!(frame, PeerFrame::Ask { .. })).count();
        }
        assert!(messages > 30 && requests == 1 && answers == 1, "{messages} {requests} {answers}");
    }

    #[test]
    fn receipts_report_the_bytes_read_after_many_bytes_or_a_ping() {
        let said = |received: Received| {
            let mut buffer = FrameBuffer::default();
            buffer.push(&received.reply);
            buffer.next_frame().unwrap().map(|bytes| PeerFrame::read(bytes).unwrap())
        };
        let mut inbound = inbound();
        let heartbeat = bytes(|outbox| outbox.push_message(&message(2, 1)));
        assert_eq!(said(inbound.receive(&heartbeat).unwrap()), None);
        let ping = bytes(Outbox::push_ping);
        let read = (heartbeat.len() + ping.len()) as u64;
        assert_eq!(said(inbound.receive(&ping).unwrap()), Some(PeerFrame::Receipt(read)));
        let many = heartbeat.repeat(1 << 10);
        assert_eq!(said(inbound.receive(&many).unwrap()), Some(PeerFrame::Receipt(read + many.len() as u64)));
        let mut receipt = Vec::new();
        push_receipt(&mut receipt, 1);
        assert!(inbound.receive(&receipt).is_err(), "who dials sends none");
    }

    #[test]
    fn a_frame_that_has_not_ended_counts_and_has_a_limit() {
        let budget = MemoryBudget::new(64 << 20, 1, 0).with_shares(MemoryShares::of_member(64 << 20));
        let mut inbound = inbound_within(&budget);
        let frame_of = |len: u32| {
            let head = [len.to_le_bytes(), [0; 4]].concat();
            let checksum = crc32fast::hash(&head).to_le_bytes();
            [&head[..], &checksum].concat()
        };
        let longest = u32::try_from(FRAME_BYTES_MIN).unwrap();
        assert!(inbound.receive(&frame_of(longest)).unwrap().input.is_none());
        inbound.receive(&vec![0; 1 << 20]).unwrap();
        assert_eq!(budget.in_use().peers, inbound.unfinished_bytes());
        drop(inbound);
        assert_eq!(budget.in_use().peers, 0, "the connection is over");
        let fault = inbound_within(&budget).receive(&frame_of(longest + 1)).unwrap_err();
        assert_eq!(fault, InboundError::Frame(FrameError::Length(FRAME_BYTES_MIN + 1)));
    }
}
