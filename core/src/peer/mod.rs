//! The peer protocol: the frames between nodes and their encoding, without any I/O.
//!
//! A pair of nodes has two connections, and each node sends on the one that it has dialled. A
//! connection begins with a handshake, one line of JSON each way ([`Hello`], [`Welcome`]); frames
//! from the dialler follow. The other side sends back only receipts, which report how many bytes it
//! has read ([`PeerFrame::Receipt`]).
//!
//! | file | topic |
//! | --- | --- |
//! | `frame` | framing: the length and the checksums of a frame in a stream |
//! | `message` | the encoding of Raft's messages |
//! | `call` | the encoding of forwarded requests and their answers |
//! | `hello` | the handshake |
//! | `local` | the local node's identity and standing in a handshake |
//! | `greeting_line` | where the first line of a connection ends |
//! | `refusal` | why a handshake is refused |
//! | `outbox` | the queue of frames for one peer |
//! | `backoff` | when to dial again after a failure |
//! | `founders` | the founders of a cluster, and the cluster id |
//! | `event` | events of the transport for the operator |
//! | `wire` | the encoding of numbers and texts |

mod answer;
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
pub use frame::{FRAME_BYTES_MAX, FrameBuffer, FrameError};
pub use greeting_line::{GREETING_LOOK_BYTES, GreetingLine, GreetingTooLong};
pub use hello::{HELLO_BYTES_MAX, HandshakeResult, Hello, PEER_FORMAT, PEER_VERSION, Welcome};
pub use local::{KnownMembers, LocalNode, Origin, Standing};
pub use outbox::{BULK_BYTES_MAX, Outbox, PIECE_BYTES, URGENT_BYTES_MAX};

pub use refusal::{FinalRefusals, HandshakeRefusal};

use crate::raft::Message;
use crate::replica::{Answer, Request, RequestId};
use wire::{Reader, Writer};

/// Identifies a forwarded request at the node that forwards it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CallId {
    /// The run (boot) of that node: an answer to a request of an earlier run must not be taken for
    /// an answer to one of this run.
    pub boot: u64,
    /// The id of the request at that node.
    pub request: RequestId,
}

/// The content of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerFrame {
    /// A Raft message.
    Message(Message),
    /// A client's request that is forwarded to the receiver.
    Ask {
        /// Its id.
        call: CallId,
        /// Increases with each request of a run of the sender: a request that arrives out of order,
        /// or twice, is dropped.
        sequence: u64,
        /// The request.
        request: Request,
    },
    /// The answer to a request of the receiver.
    Answer {
        /// The id of the request.
        call: CallId,
        /// The answer.
        answer: Answer,
    },
    /// The next piece of a frame that is too long to be sent at once: urgent frames are sent
    /// between its pieces. All pieces together are the frame with its header.
    Piece(Vec<u8>),
    /// A ping: the receiver answers with a receipt at once.
    Ping,
    /// The number of bytes that the receiver of a connection has read since the handshake. The only
    /// frame that is sent back to the dialler.
    Receipt(u64),
}

impl PeerFrame {
    /// Decodes the bytes of a frame.
    ///
    /// # Errors
    ///
    /// [`FrameError::Unknown`] when the bytes are not a frame of this protocol version, or contain
    /// an invalid entry.
    pub fn read(bytes: &[u8]) -> Result<Self, FrameError> {
        let mut from = Reader::new(bytes);
        let frame = Self::read_from(&mut from).filter(|_| from.is_empty());
        frame.ok_or(FrameError::Unknown)
    }

    fn read_from(from: &mut Reader<'_>) -> Option<Self> {
        Some(match from.u8()? {
            1 => Self::Message(message::read(from)?),
            2 => {
                let (call, sequence) = (read_call(from)?, from.u64()?);
                Self::Ask { call, sequence, request: call::read_request(from)? }
            }
            3 => Self::Answer { call: read_call(from)?, answer: answer::read_answer(from)? },
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

/// Appends a frame with a Raft message.
///
/// # Panics
///
/// When the content of the frame is longer than [`FRAME_BYTES_MAX`] bytes.
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
        answer::write_answer(answer, &mut to);
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

/// Appends a frame that reports how many bytes were read.
pub fn push_receipt(stream: &mut Vec<u8>, read: u64) {
    frame::push_frame(stream, |bytes| {
        let mut to = Writer::new(bytes);
        to.u8(6);
        to.u64(read);
    });
}

#[cfg(test)]
mod tests;
