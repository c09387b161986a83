//! The way to the other nodes: in one process, their inboxes.
//!
//! Raft takes a lost message in its stride, so a peer that does not keep up costs messages and not memory.

use std::collections::BTreeMap;

use coracle_core::Input;
use coracle_core::raft::{Message, NodeId};

use crate::inbox::Inbox;
use crate::node::NodeInput;

/// Everybody's inbox.
#[derive(Clone, Debug)]
pub(crate) struct Peers {
    inboxes: BTreeMap<NodeId, Inbox>,
}

impl Peers {
    pub(crate) fn new(inboxes: BTreeMap<NodeId, Inbox>) -> Self {
        Self { inboxes }
    }

    pub(crate) fn send(&self, message: Message) {
        if let Some(inbox) = self.inboxes.get(&message.to)
            && !inbox.is_full()
        {
            inbox.send(NodeInput::Core(Input::Message(message)));
        }
    }

    /// Hands requests to a node. They are never dropped: the proxy limits how many there are.
    pub(crate) fn ask(&self, node: NodeId, requests: Vec<Input>) {
        if let Some(inbox) = self.inboxes.get(&node) {
            inbox.send(NodeInput::Requests(requests));
        }
    }
}
