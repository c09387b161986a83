//! What arrives in the inboxes of a node's task and of the router's task.
//!
//! They stand apart from both tasks: a sender need not know how the owner of an inbox is wired.

use std::net::TcpStream;
use std::sync::Arc;

use coracle_core::host::{HostInput, RouterInput, ToWriter};
use coracle_core::proxy::Reply;
use coracle_core::{Input, Request};
use coracle_storage::DiskError;
use smol::Async;

use crate::mailbox::{AnswerSlot, Sender};

/// What arrives in a node's inbox.
#[derive(Debug)]
pub(crate) enum NodeInput {
    Host(HostInput),
    /// Hand leadership over, if it is this node's; the channel is closed when that is done, or cannot be.
    Resign(async_channel::Sender<()>),
    DiskFailed(Arc<DiskError>),
    Stop,
}

impl From<Input> for NodeInput {
    fn from(input: Input) -> Self {
        Self::Host(HostInput::Core(input))
    }
}

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
    /// Accept nothing new; the channel is closed when nothing is under way any more.
    Stop(async_channel::Sender<()>),
}
