//! The way to the other nodes: in one process, their inboxes; else a connection to each.
//!
//! Raft takes a lost message in its stride, so a peer that does not keep up costs messages and not
//! memory.

use std::collections::BTreeMap;
use std::rc::Rc;

use coracle_core::Input;
use coracle_core::host::{HostInput, inbox_is_full};
use coracle_core::raft::{Message, NodeId};
use coracle_storage::host::NodeInput;

use crate::mailbox::Sender;
use crate::network::Network;

/// Everybody a node or a proxy has to do with.
#[derive(Clone, Debug)]
pub(crate) enum Peers {
    /// All of them are in this process.
    Inboxes(BTreeMap<NodeId, Sender<NodeInput>>),
    /// All but one are elsewhere.
    Network(Rc<Network>),
}

impl Peers {
    pub(crate) fn send(&self, message: Message) {
        match self {
            Self::Inboxes(inboxes) => {
                if let Some(inbox) = inboxes.get(&message.to)
                    && !inbox_is_full(inbox.len())
                {
                    // A node that has stopped hears nothing.
                    let _ = inbox.send(Input::Message(message).into());
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
                    let _ = inbox.send(HostInput::Requests(requests).into());
                }
            }
            Self::Network(network) => network.ask(node, requests),
        }
    }

    /// Does something with the connections to nodes that are elsewhere, if any is.
    pub(crate) fn with_network(&self, act: impl FnOnce(&Rc<Network>)) {
        if let Self::Network(network) = self {
            act(network);
        }
    }
}
