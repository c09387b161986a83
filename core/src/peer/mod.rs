//! What nodes say to one another over a network, and how: without a network.
//!
//! A pair of nodes has two connections, and each sends on the one that it dialled. A connection
//! begins with a handshake, a line of JSON each way ([`Hello`], [`Welcome`]); frames follow from
//! the dialler. The other side sends nothing back but receipts: how many bytes it has read
//! ([`PeerFrame::Receipt`]).
//!
//! | file | topic |
//! | --- | --- |
//! | `frame` | pieces of a stream, with length and checksum |
//! | `message` | Raft's messages |
//! | `call` | requests that one node forwards to another, and the answers |
//! | `hello` | who may speak to whom |
//! | `local` | what a node knows of itself and its cluster when it meets another |
//! | `greeting_line` | where the first line of a connection ends |
//! | `refusal` | why they do not |
//! | `outbox` | what waits to be sent to one peer |
//! | `backoff` | when to dial again |
//! | `founders` | who founded a cluster, and its identity |
//! | `event` | what a transport reports to the operator |
//! | `wire` | numbers and texts |

mod backoff;
mod call;
mod event;
mod founders;
mod frame;
mod greeting_line;
mod hello;
mod local;
mod message;
mod outbox;
mod refusal;
mod wire;

pub use backoff::{BACKOFF_MAX, BACKOFF_MIN, Backoff};
pub use event::PeerEvent;
pub use founders::Founders;
pub use frame::{FRAME_BYTES_MAX, FrameBuffer, FrameFault};
pub use greeting_line::{GREETING_LOOK_BYTES, GreetingLine, GreetingTooLong};
pub use hello::{HELLO_BYTES_MAX, Hello, Meeting, PEER_FORMAT, PEER_VERSION, Welcome};
pub use local::{KnownMembers, LocalNode, Origin, Standing};
pub use outbox::{BULK_BYTES_MAX, Outbox, PIECE_BYTES, URGENT_BYTES_MAX};

pub use refusal::{Finally, PeerRefusal};

use crate::raft::Message;
use crate::replica::{Answer, Request, RequestId};
use wire::{Reader, Writer};

/// Names a forwarded request, on the side of the node that forwards it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CallId {
    /// Which run of that node: an answer to a run before must not pass for one of this.
    pub boot: u64,
    /// Its name for the request.
    pub request: RequestId,
}

/// What a frame holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerFrame {
    /// A message of Raft.
    Message(Message),
    /// A client's request that the receiver can answer.
    Ask {
        /// Its name.
        call: CallId,
        /// Grows from request to request of a run of the sender: whichever arrives out of order, or
        /// twice, is dropped.
        sequence: u64,
        /// It.
        request: Request,
    },
    /// The answer to a request of the receiver.
    Answer {
        /// The request's name.
        call: CallId,
        /// It.
        answer: Answer,
    },
    /// The next piece of a frame that is too long to go in one: what is urgent goes between its
    /// pieces. All pieces together are the frame with its head.
    Piece(Vec<u8>),
    /// A question whether the receiver is there: it answers with a receipt at once.
    Ping,
    /// How many bytes the receiver of a connection has read since the handshake. The one frame that
    /// goes back to the dialler.
    Receipt(u64),
}

impl PeerFrame {
    /// Understands the bytes of a frame.
    ///
    /// # Errors
    ///
    /// [`FrameFault::Unknown`] when they are nothing of this version, or hold an entry that is not
    /// right.
    pub fn read(bytes: &[u8]) -> Result<Self, FrameFault> {
        let mut from = Reader::new(bytes);
        let frame = Self::read_from(&mut from).filter(|_| from.is_empty());
        frame.ok_or(FrameFault::Unknown)
    }

    fn read_from(from: &mut Reader<'_>) -> Option<Self> {
        Some(match from.u8()? {
            1 => Self::Message(message::read(from)?),
            2 => {
                let (call, sequence) = (read_call(from)?, from.u64()?);
                Self::Ask { call, sequence, request: call::read_request(from)? }
            }
            3 => Self::Answer { call: read_call(from)?, answer: call::read_answer(from)? },
            4 => Self::Piece(from.bytes()?.to_vec()),
            5 => Self::Ping,
            6 => Self::Receipt(from.u64()?),
            _ => return None,
        })
    }
}

fn read_call(from: &mut Reader<'_>) -> Option<CallId> {
    Some(CallId { boot: from.u64()?, request: RequestId(from.u64()?) })
}

fn write_call(call: CallId, to: &mut Writer<'_>) {
    to.u64(call.boot);
    to.u64(call.request.0);
}

/// Appends a frame with a message of Raft.
///
/// # Panics
///
/// When it holds more than [`FRAME_BYTES_MAX`] bytes of entries or of a snapshot.
pub fn push_message(stream: &mut Vec<u8>, message: &Message) {
    frame::push_frame(stream, |bytes| {
        let mut to = Writer::new(bytes);
        to.u8(1);
        message::write(message, &mut to);
    });
}

/// Appends a frame with a request.
pub fn push_ask(stream: &mut Vec<u8>, call: CallId, sequence: u64, request: &Request) {
    frame::push_frame(stream, |bytes| {
        let mut to = Writer::new(bytes);
        to.u8(2);
        write_call(call, &mut to);
        to.u64(sequence);
        call::write_request(request, &mut to);
    });
}

/// Appends a frame with an answer.
pub fn push_answer(stream: &mut Vec<u8>, call: CallId, answer: &Answer) {
    frame::push_frame(stream, |bytes| {
        let mut to = Writer::new(bytes);
        to.u8(3);
        write_call(call, &mut to);
        call::write_answer(answer, &mut to);
    });
}

/// Appends a frame with a piece of another frame.
fn push_piece(stream: &mut Vec<u8>, piece: &[u8]) {
    frame::push_frame(stream, |bytes| {
        let mut to = Writer::new(bytes);
        to.u8(4);
        to.bytes(piece);
    });
}

/// Appends a frame that asks for a receipt.
pub fn push_ping(stream: &mut Vec<u8>) {
    frame::push_frame(stream, |bytes| bytes.push(5));
}

/// Appends a frame that says how many bytes were read.
pub fn push_receipt(stream: &mut Vec<u8>, read: u64) {
    frame::push_frame(stream, |bytes| {
        let mut to = Writer::new(bytes);
        to.u8(6);
        to.u64(read);
    });
}

#[cfg(test)]
mod tests;
