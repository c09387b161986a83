//! What is to be done about other nodes: links to be changed, and news to be carried to the node,
//! the router and the operator.
//!
//! The directory and the links append to it, so a runtime needs one place that carries it out,
//! whatever brought it about.

use super::HostInput;
use crate::peer::{PeerEvent, PeerRefusal};
use crate::proxy::ProxyInput;
use crate::raft::NodeId;

/// A change of the links, to be carried out in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkChange {
    /// Start to dial this node at this address.
    Start(NodeId, Box<str>),
    /// End the link to this node.
    End(NodeId),
}

/// What is to be done about the other nodes.
#[derive(Debug, Default)]
pub struct PeerActions {
    /// Links to be changed, in order.
    pub links: Vec<LinkChange>,
    /// What is to be carried to its places.
    pub news: Vec<PeerNews>,
}

/// Something that concerns the connections to other nodes, and whom it is for.
#[derive(Debug)]
pub enum PeerNews {
    /// To the operator.
    Report(PeerEvent),
    /// To the node.
    Node(HostInput),
    /// To the router, if there is anything.
    Router(Vec<ProxyInput>),
    /// This node was removed from the cluster, as another node or its own log says: it has nothing
    /// more to do.
    Removed(PeerRefusal),
}
