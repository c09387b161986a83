//! Peer actions: changes of links, and news for the node, the router and the operator.
//!
//! The directory and the links append to this list, so a runtime carries the actions out in one
//! place.

use super::HostInput;
use crate::peer::{HandshakeRefusal, PeerEvent};
use crate::proxy::ProxyInput;
use crate::raft::NodeId;

/// A change of the links.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkChange {
    /// Start a link: dial this node at this address.
    Start(NodeId, Box<str>),
    /// End the link to this node.
    End(NodeId),
}

/// The actions that concern other nodes.
#[derive(Debug, Default)]
pub struct PeerActions {
    /// Changes of links, in order.
    pub links: Vec<LinkChange>,
    /// News to deliver.
    pub news: Vec<PeerNews>,
}

/// News about the connections to other nodes, by receiver.
#[derive(Debug)]
pub enum PeerNews {
    /// An event for the operator.
    Report(PeerEvent),
    /// An input for the node.
    Node(HostInput),
    /// Inputs for the router; may be empty.
    Router(Vec<ProxyInput>),
    /// This node was removed from the cluster, according to another node or its own log, and must
    /// end.
    Removed(HandshakeRefusal),
}
