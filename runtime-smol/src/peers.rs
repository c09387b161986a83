//! The way to the other nodes: in one process, their inboxes; else a connection to each.
//!
//! Raft takes a lost message in its stride, so a peer that does not keep up costs messages and not memory.

use std::collections::BTreeMap;
use std::rc::Rc;

use coracle_core::Input;
use coracle_core::host::{HostInput, inbox_is_full};
use coracle_core::peer::{CallId, KnownMembers};
use coracle_core::raft::{Message, NodeId};

use crate::mailbox::Sender;
use crate::network::Network;
use crate::node::NodeInput;

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
                    && !inbox_is_full(inbox.len(), 0)
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
                    let _ = inbox.send(NodeInput::Host(HostInput::Requests(requests)));
                }
            }
            Self::Network(network) => network.ask(node, requests),
        }
    }

    /// The node has taken an input with so many bytes of peers' frames out of its inbox.
    pub(crate) fn taken(&self, peer_bytes: usize) {
        if let Self::Network(network) = self {
            network.taken(peer_bytes);
        }
    }

    /// Ends connections that nobody needs.
    pub(crate) fn tidy(&self) {
        if let Self::Network(network) = self {
            network.tidy();
        }
    }

    /// Connects to these members, if they are elsewhere.
    pub(crate) fn follow(&self, known: &KnownMembers) {
        if let Self::Network(network) = self {
            network.follow(known);
        }
    }

    /// Answers what a client of another node has asked here.
    pub(crate) fn answer(&self, node: NodeId, call: CallId, answer: &coracle_core::Answer) {
        if let Self::Network(network) = self {
            network.answer(node, call, answer);
        }
    }
}
