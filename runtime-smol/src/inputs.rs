//! Messages to the router's task.
//!
//! They are separate from the task so that a sender need not know how the owner of the inbox is
//! wired.

use std::net::TcpStream;
use std::sync::Arc;

use coracle_core::Request;
use coracle_core::host::{RouterInput, ToWriter};
use coracle_core::proxy::Reply;
use smol::Async;

use crate::mailbox::{AnswerSlot, Sender};

/// The channel and the socket to a client.
#[derive(Debug)]
pub(crate) struct Way {
    pub(crate) replies: Sender<ToWriter>,
    /// Used to cut the client off.
    pub(crate) socket: Arc<Async<TcpStream>>,
}

#[derive(Debug)]
pub(crate) enum ProxyEvent {
    Connected(u64, Way),
    Disconnected(u64),
    /// A caller in this process sends a request.
    Called(Request, AnswerSlot<Reply>),
    Router(RouterInput),
}
