//! The way to the other nodes: in one process, their inboxes.
//!
//! Raft takes a lost message in its stride, so a peer that does not keep up costs messages and not memory.

use std::collections::BTreeMap;

use async_channel::Sender;
use coracle_core::Input;
use coracle_core::raft::{Message, NodeId};

use crate::node::NodeInput;

/// With this much in a node's inbox, messages of its peers are dropped.
pub(crate) const INBOX_MAX: usize = 4096;

/// Everybody's inbox.
#[derive(Clone, Debug)]
pub(crate) struct Peers {
    inboxes: BTreeMap<NodeId, Sender<NodeInput>>,
}

impl Peers {
    pub(crate) fn new(inboxes: BTreeMap<NodeId, Sender<NodeInput>>) -> Self {
        Self { inboxes }
    }

    pub(crate) fn send(&self, message: Message) {
        if let Some(inbox) = self.inboxes.get(&message.to)
            && inbox.len() < INBOX_MAX
        {
            // A node that has stopped hears nothing.
            let _ = inbox.try_send(NodeInput::Core(Input::Message(message)));
        }
    }

    /// Hands requests to a node. They are never dropped: the proxy limits how many there are.
    pub(crate) fn ask(&self, node: NodeId, requests: Vec<Input>) {
        if let Some(inbox) = self.inboxes.get(&node) {
            let _ = inbox.try_send(NodeInput::Requests(requests));
        }
    }
}
