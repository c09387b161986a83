//! Messages to the router's thread.
//!
//! They are separate from the thread so that a sender need not know how the owner of the inbox is
//! wired.

use std::net::TcpStream;
use std::sync::Arc;
use std::sync::mpsc::{Sender, SyncSender};

use coracle_core::Request;
use coracle_core::host::{RouterInput, ToWriter};
use coracle_core::proxy::Reply;

/// The channel and the socket to a client.
#[derive(Debug)]
pub(crate) struct Way {
    pub(crate) replies: Sender<ToWriter>,
    /// Used to cut the client off.
    pub(crate) socket: Arc<TcpStream>,
}

#[derive(Debug)]
pub(crate) enum ProxyEvent {
    Connected(u64, Way),
    Disconnected(u64),
    /// A caller in this process sends a request.
    Called(Request, SyncSender<Reply>),
    Router(RouterInput),
    /// Ends the thread at once, because a thread cannot be dropped.
    End,
}
