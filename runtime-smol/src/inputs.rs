//! What arrives in the inbox of the router's task.
//!
//! It stands apart from the task: a sender need not know how the owner of an inbox is wired.

use std::net::TcpStream;
use std::sync::Arc;

use coracle_core::Request;
use coracle_core::host::{RouterInput, ToWriter};
use coracle_core::proxy::Reply;
use smol::Async;

use crate::mailbox::{AnswerSlot, Sender};

/// The way to a client.
#[derive(Debug)]
pub(crate) struct Way {
    pub(crate) replies: Sender<ToWriter>,
    /// To cut it off.
    pub(crate) socket: Arc<Async<TcpStream>>,
}

/// What arrives at the router's task.
#[derive(Debug)]
pub(crate) enum ProxyEvent {
    /// A client connected, and this is the way to it.
    Connected(u64, Way),
    /// A client is gone.
    Disconnected(u64),
    /// A caller in this process asks.
    Called(Request, AnswerSlot<Reply>),
    /// Something for the router.
    Router(RouterInput),
}
