//! The way to the other nodes: in one process, their inboxes; else a connection to each.
//!
//! Raft takes a lost message in its stride, so a peer that does not keep up costs messages and not
//! memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use coracle_core::Input;
use coracle_core::host::HostInput;
use coracle_core::raft::{Message, NodeId};

use crate::inbox::Inbox;
use crate::network::Network;

/// Everybody a node or a proxy has to do with.
#[derive(Clone, Debug)]
pub(crate) enum Peers {
    /// All of them are in this process.
    Inboxes(BTreeMap<NodeId, Inbox>),
    /// All but one are elsewhere.
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

    /// Hands requests to a node. They are never dropped: the proxy limits how many there are.
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

    /// Does something with the connections to nodes that are elsewhere, if any is.
    pub(crate) fn with_network(&self, act: impl FnOnce(&Arc<Network>)) {
        if let Self::Network(network) = self {
            act(network);
        }
    }
}
