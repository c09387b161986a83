//! The outbox of a link: the queue of frames that wait to be sent to one peer.
//!
//! There are two lanes. The urgent lane has the small messages that keep the cluster together
//! (heartbeats, votes, acknowledgements); it goes first, so that they never wait behind megabytes
//! of entries or of a snapshot. The bulk lane has everything else. If one of its frames is longer
//! than may be in flight, it is cut into pieces, and urgent frames go between them. Both lanes have
//! a limit, above which Raft's messages are dropped, the oldest first: Raft tolerates lost
//! messages, and a newer message replaces an older one. Requests and answers are not dropped. A
//! request that finds no room is rejected before it is sent, so that the proxy may send it
//! elsewhere. The limit of the bulk lane is a share of the memory budget, and one frame may exceed
//! it, so that every frame can be sent.

use std::collections::VecDeque;

use super::{CallId, push_answer, push_ask, push_message, push_piece, push_ping};
use crate::mutant::{self, Mutant};
use crate::raft::{Body, Message};
use crate::replica::{Answer, Request};

/// The most bytes in the urgent lane: some thousand heartbeats.
pub const URGENT_BYTES_MAX: usize = 256 << 10;
/// The most bytes in the bulk lane (entries, snapshots, requests and answers) where memory has no
/// limit; one frame may exceed it.
pub const BULK_BYTES_MAX: usize = 32 << 20;

/// The size of a piece, in bytes: a longer frame of the bulk lane for which there is no room is cut
/// into pieces of this size. Chosen because a line of 1 Mbit/s sends a piece within half of the
/// usual shortest election timeout, and heads are less than a thousandth of it.
pub const PIECE_BYTES: usize = 16 << 10;

/// A lane: frames, oldest first.
#[derive(Debug, Default)]
struct Lane {
    frames: VecDeque<Frame>,
    bytes: usize,
}

#[derive(Debug)]
struct Frame {
    bytes: Vec<u8>,
    may_be_dropped: bool,
    /// Whether it is an answer, which may wait for the next connection: it names the run that it is
    /// for.
    is_answer: bool,
}

/// The frames for one peer, in the order in which they are sent. See the module.
#[derive(Debug)]
pub struct Outbox {
    urgent: Lane,
    bulk: Lane,
    /// The most bytes in the bulk lane; one frame may exceed it.
    bulk_max: usize,
    /// The frame that was partly sent as pieces, and the number of its bytes that were sent. The
    /// other pieces must follow.
    cut: Option<(Frame, usize)>,
    dropped: u64,
}

impl Default for Outbox {
    fn default() -> Self {
        Self::new(BULK_BYTES_MAX)
    }
}

impl Outbox {
    /// Creates an empty outbox, whose bulk lane holds at most `bulk_max` bytes.
    #[must_use]
    pub fn new(bulk_max: usize) -> Self {
        let bulk_max = unlimited_by_mutant().unwrap_or(bulk_max);
        Self { urgent: Lane::default(), bulk: Lane::default(), bulk_max, cut: None, dropped: 0 }
    }

    /// Returns the bytes that wait, in both lanes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.urgent.bytes + self.bulk_bytes()
    }

    /// Returns the bytes that wait in the bulk lane, including the frame that was partly sent.
    #[must_use]
    pub fn bulk_bytes(&self) -> usize {
        self.bulk.bytes + self.cut.as_ref().map_or(0, |(frame, _)| frame.bytes.len())
    }

    /// Adds a Raft message.
    pub fn push_message(&mut self, message: &Message) {
        let mut bytes = Vec::new();
        push_message(&mut bytes, message);
        let is_bulky = matches!(message.body, Body::AppendEntries(_) | Body::InstallSnapshot(_));
        let (lane, bytes_max) =
            if is_bulky { (&mut self.bulk, self.bulk_max) } else { (&mut self.urgent, URGENT_BYTES_MAX) };
        lane.push(Frame { bytes, may_be_dropped: true, is_answer: false });
        self.dropped += lane.make_room(bytes_max);
    }

    /// Adds a request with its number; `false`: there is no room, and it will not be sent.
    #[must_use]
    pub fn push_ask(&mut self, call: CallId, sequence: u64, request: &Request) -> bool {
        self.dropped += self.bulk.make_room(self.bulk_max);
        if self.bulk.bytes > self.bulk_max {
            return false;
        }
        let mut bytes = Vec::new();
        push_ask(&mut bytes, call, sequence, request);
        self.bulk.push(Frame { bytes, may_be_dropped: false, is_answer: false });
        true
    }

    /// Adds an answer, also while there is no connection. Without room it is dropped, and the
    /// client is told that the outcome is unknown.
    pub fn push_answer(&mut self, call: CallId, answer: &Answer) {
        self.dropped += self.bulk.make_room(self.bulk_max);
        if self.bulk.bytes <= self.bulk_max {
            let mut bytes = Vec::new();
            push_answer(&mut bytes, call, answer);
            self.bulk.push(Frame { bytes, may_be_dropped: false, is_answer: true });
        }
    }

    /// Adds a ping.
    pub fn push_ping(&mut self) {
        let mut bytes = Vec::new();
        push_ping(&mut bytes);
        self.urgent.push(Frame { bytes, may_be_dropped: true, is_answer: false });
        self.dropped += self.urgent.make_room(URGENT_BYTES_MAX);
    }

    /// Returns whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.has_urgent() && !self.has_bulk()
    }

    /// Returns whether an urgent frame waits.
    #[must_use]
    pub fn has_urgent(&self) -> bool {
        !self.urgent.frames.is_empty()
    }

    /// Returns whether a bulk frame waits.
    #[must_use]
    pub fn has_bulk(&self) -> bool {
        self.cut.is_some() || !self.bulk.frames.is_empty()
    }

    /// Moves frames to the end of `stream`, until none waits or `stream` has `bytes_max` bytes.
    /// Bulk frames end with the frame or piece that reaches `bulk_max` bytes.
    pub fn drain(&mut self, stream: &mut Vec<u8>, bytes_max: usize, bulk_max: usize) {
        while stream.len() < bytes_max
            && let Some(frame) = self.urgent.pop()
        {
            stream.extend_from_slice(&frame.bytes);
        }
        let bulk_from = stream.len();
        while stream.len() < bytes_max && stream.len() - bulk_from < bulk_max {
            let next = self.cut.take().or_else(|| self.bulk.pop().map(|frame| (frame, 0)));
            let Some((frame, sent)) = next else { break };
            let room = bulk_max - (stream.len() - bulk_from);
            if sent > 0 || frame.bytes.len() > room.max(PIECE_BYTES) {
                let end = (sent + PIECE_BYTES).min(frame.bytes.len());
                push_piece(stream, &frame.bytes[sent..end]);
                self.cut = (end < frame.bytes.len()).then_some((frame, end));
            } else if stream.is_empty() {
                *stream = frame.bytes;
            } else {
                stream.extend_from_slice(&frame.bytes);
            }
        }
    }

    /// Notes that the connection is gone. Drops everything that was to be sent over it except
    /// answers, because their clients may still wait.
    pub fn disconnect(&mut self) {
        self.urgent = Lane::default();
        if let Some((frame, _)) = self.cut.take() {
            self.bulk.frames.push_front(frame);
        }
        self.bulk.frames.retain(|frame| frame.is_answer);
        self.bulk.bytes = self.bulk.frames.iter().map(|frame| frame.bytes.len()).sum();
    }

    /// Returns how many messages were dropped so far.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }
}

impl Lane {
    fn push(&mut self, frame: Frame) {
        self.bytes += frame.bytes.len();
        self.frames.push_back(frame);
    }

    fn pop(&mut self) -> Option<Frame> {
        let frame = self.frames.pop_front()?;
        self.bytes -= frame.bytes.len();
        Some(frame)
    }

    /// Drops the oldest messages that may be dropped, but never the newest frame; returns how many.
    fn make_room(&mut self, bytes_max: usize) -> u64 {
        let mut dropped = 0;
        while self.bytes > bytes_max && self.frames.len() > 1 {
            let oldest = self.frames.iter().position(|frame| frame.may_be_dropped);
            let Some(position) = oldest.filter(|position| position + 1 < self.frames.len()) else { break };
            if let Some(frame) = self.frames.remove(position) {
                self.bytes -= frame.bytes.len();
                dropped += 1;
            }
        }
        dropped
    }
}

/// Deliberate bug: an outbox holds as much as if memory had no limit.
fn unlimited_by_mutant() -> Option<usize> {
    mutant::is_active(Mutant::OutboxShareIgnored).then_some(BULK_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::{FrameBuffer, PeerFrame};
    use super::*;
    use crate::raft::{
        Configuration, Heartbeat, LogIndex, LogPoint, NodeId, ReadRound, SnapshotMeta, SnapshotPart, Term,
        Voters,
    };
    use crate::replica::RequestId;

    fn message(body: Body) -> Message {
        Message { from: NodeId(1), incarnation: None, to: NodeId(2), term: Term(3), body }
    }

    fn heartbeat(round: u64) -> Message {
        message(Body::Heartbeat(Heartbeat {
            leader_commit: LogIndex(1),
            commit_checksum: None,
            round: ReadRound(round),
            elapsed: None,
        }))
    }

    fn part(offset: u64) -> Message {
        let configuration = Configuration::of_voters(Voters::new([NodeId(1)]).unwrap());
        let meta = SnapshotMeta { last: LogPoint::ORIGIN, configuration };
        let text = Arc::from("x".repeat(1 << 20));
        message(Body::InstallSnapshot(SnapshotPart { meta, offset, text, end: None }))
    }

    fn call(id: u64) -> CallId {
        CallId { boot: 7, request: RequestId(id) }
    }

    fn frames(outbox: &mut Outbox) -> Vec<PeerFrame> {
        let mut stream = Vec::new();
        outbox.drain(&mut stream, usize::MAX, usize::MAX);
        read(&stream)
    }

    fn read(stream: &[u8]) -> Vec<PeerFrame> {
        let (mut buffer, mut pieces) = (FrameBuffer::default(), FrameBuffer::default());
        buffer.push(stream);
        let mut found = Vec::new();
        while let Some(bytes) = buffer.next_frame().unwrap() {
            match PeerFrame::read(bytes).unwrap() {
                PeerFrame::Piece(piece) => pieces.push(&piece),
                frame => found.push(frame),
            }
            let whole = pieces.next_frame().unwrap();
            found.extend(whole.map(|bytes| PeerFrame::read(bytes).unwrap()));
        }
        found
    }

    #[test]
    fn urgent_frames_go_first() {
        let mut outbox = Outbox::default();
        outbox.push_message(&part(0));
        assert!(outbox.push_ask(call(1), 1, &Request::Status));
        outbox.push_message(&heartbeat(1));
        let sent = frames(&mut outbox);
        assert!(matches!(&sent[0], PeerFrame::Message(Message { body: Body::Heartbeat(_), .. })));
        assert!(matches!(&sent[1], PeerFrame::Message(Message { body: Body::InstallSnapshot(_), .. })));
        assert!(matches!(&sent[2], PeerFrame::Ask { .. }));
        assert!(outbox.is_empty());
    }

    #[test]
    fn the_oldest_messages_are_dropped_and_requests_stay() {
        let mut outbox = Outbox::default();
        assert!(outbox.push_ask(call(1), 1, &Request::Status));
        let fits = (BULK_BYTES_MAX >> 20) as u64;
        (0..2 * fits).for_each(|offset| outbox.push_message(&part(offset)));
        (0..20_000).for_each(|round| outbox.push_message(&heartbeat(round)));
        assert!(outbox.urgent.bytes <= URGENT_BYTES_MAX && outbox.bulk.bytes <= BULK_BYTES_MAX);
        assert!(outbox.dropped() > fits);
        let sent = frames(&mut outbox);
        let newest = sent.iter().filter_map(|frame| match frame {
            PeerFrame::Message(Message { body: Body::Heartbeat(heartbeat), .. }) => Some(heartbeat.round.0),
            _ => None,
        });
        assert_eq!(newest.max(), Some(19_999));
        assert!(sent.iter().any(|frame| matches!(frame, PeerFrame::Ask { .. })));
    }

    #[test]
    fn a_frame_cut_into_pieces_is_completed_or_sent_again() {
        let mut outbox = Outbox::default();
        let pieces = (BULK_BYTES_MAX >> 20) as u64 * 2;
        outbox.push_message(&part(0));
        let mut stream = Vec::new();
        outbox.drain(&mut stream, usize::MAX, 1);
        assert!(stream.len() < 2 * PIECE_BYTES && outbox.has_bulk());
        (1..pieces).for_each(|offset| outbox.push_message(&part(offset)));
        outbox.drain(&mut stream, usize::MAX, usize::MAX);
        let first = &read(&stream)[0];
        assert!(matches!(first, PeerFrame::Message(message) if *message == part(0)), "it does not give way");
        let answer = Answer::BackupPart(Box::new(match part(7).body {
            Body::InstallSnapshot(part) => part,
            _ => unreachable!("it is a part"),
        }));
        outbox.push_answer(call(1), &answer);
        outbox.drain(&mut Vec::new(), usize::MAX, 1);
        outbox.disconnect();
        assert!(
            matches!(&frames(&mut outbox)[..], [PeerFrame::Answer { answer: found, .. }] if *found == answer)
        );
    }

    #[test]
    fn a_request_without_room_is_rejected_before_it_is_sent() {
        let mut outbox = Outbox::default();
        let key = crate::kv::Key::new("k").unwrap();
        let value = crate::kv::Value::from_text(&"x".repeat(500_000)).unwrap();
        let put = Request::write(crate::kv::Command::Put { key, value });
        let taken = (0..100).filter(|id| outbox.push_ask(call(*id), 1, &put)).count();
        assert_eq!(taken, BULK_BYTES_MAX / 500_000 + 1);
        outbox.disconnect();
        assert!(outbox.is_empty() && outbox.push_ask(call(0), 1, &put));
    }

    #[test]
    fn a_smaller_outbox_holds_one_frame_more_than_it_may() {
        let mut outbox = Outbox::new(1 << 20);
        (0..10).for_each(|offset| outbox.push_message(&part(offset)));
        assert!(outbox.bytes() > 1 << 20 && outbox.bytes() < 2 << 20, "the newest part is longer than that");
        let sent = frames(&mut outbox);
        assert!(matches!(&sent[..], [PeerFrame::Message(message)] if *message == part(9)));
        assert_eq!(outbox.bytes(), 0);
    }

    #[test]
    fn answers_wait_for_the_next_connection() {
        let mut outbox = Outbox::default();
        outbox.push_message(&heartbeat(1));
        assert!(outbox.push_ask(call(1), 1, &Request::Status));
        outbox.push_answer(call(2), &Answer::OutcomeUnknown);
        outbox.disconnect();
        assert!(matches!(frames(&mut outbox)[..], [PeerFrame::Answer { .. }]));
    }
}
