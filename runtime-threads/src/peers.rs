//! Message delivery to the other nodes: through their inboxes within one process, or over a
//! connection to each.
//!
//! Raft tolerates lost messages, so messages to a peer that does not keep up are dropped instead of
//! using memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use coracle_core::Input;
use coracle_core::host::HostInput;
use coracle_core::raft::{Message, NodeId};

use crate::inbox::Inbox;
use crate::network::Network;

#[derive(Clone, Debug)]
pub(crate) enum Peers {
    /// All nodes are in this process.
    Inboxes(BTreeMap<NodeId, Inbox>),
    /// All other nodes are in other processes.
    Network(Arc<Network>),
}

impl Peers {
    pub(crate) fn send(&self, message: Message) {
        match self {
            Self::Inboxes(inboxes) => {
                if let Some(inbox) = inboxes.get(&message.to)
                    && !inbox.is_full()
                {
                    inbox.send(Input::Message(message).into());
                }
            }
            Self::Network(network) => network.send(&message),
        }
    }

    /// Sends requests to a node. They are never dropped: the proxy limits their number.
    pub(crate) fn ask(&self, node: NodeId, requests: Vec<Input>) {
        match self {
            Self::Inboxes(inboxes) => {
                if let Some(inbox) = inboxes.get(&node) {
                    inbox.send(HostInput::Requests(requests).into());
                }
            }
            Self::Network(network) => network.ask(node, requests),
        }
    }

    /// Runs `act` on the network, if the other nodes are in other processes.
    pub(crate) fn with_network(&self, act: impl FnOnce(&Arc<Network>)) {
        if let Self::Network(network) = self {
            act(network);
        }
    }
}
