//! Events of the transport: reports to the operator about connections to other nodes.

use std::fmt;

use super::HandshakeRefusal;
use crate::raft::NodeId;

/// An event about the connections to other nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerEvent {
    /// The node is connected to this node.
    Connected(NodeId),
    /// The connection to this node broke, or cannot be made: the error of the operating system or
    /// of the stream.
    Lost(NodeId, String),
    /// The handshake with this node, or with the node at its address, was refused by one of the two
    /// ends.
    Refused(NodeId, HandshakeRefusal),
    /// A dialling node was refused.
    Stranger(NodeId, HandshakeRefusal),
    /// The connection with this node, or one from a program that has not said which node it is, has
    /// no proof of identity: the reason.
    Unproven(Option<NodeId>, Box<str>),
    /// The cluster is bootstrapped after a handshake with each of these nodes.
    WaitsFor(Vec<NodeId>),
    /// The node waits until the member at this address accepts it; the reason of the last failure.
    Joining(String, String),
    /// The node has found its cluster.
    Founded,
    /// These founders are dialled at other addresses than those that the cluster knows.
    Moved(Vec<(NodeId, Box<str>)>),
}

impl fmt::Display for PeerEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connected(node) => write!(f, "is connected to node {node}"),
            Self::Lost(node, why) => write!(f, "has no connection to node {node}: {why}"),
            Self::Refused(node, refusal) => write!(f, "handshake with node {node} refused: {refusal}"),
            Self::Stranger(node, refusal) => write!(f, "refused a connection from node {node}: {refusal}"),
            Self::Unproven(Some(node), why) => write!(f, "does not trust node {node}: {why}"),
            Self::Unproven(None, why) => write!(f, "refused a connection at its peer port: {why}"),
            Self::WaitsFor(nodes) => {
                let nodes: Vec<_> = nodes.iter().map(ToString::to_string).collect();
                write!(
                    f,
                    "waits for nodes {}: every founder must be reachable once to bootstrap the cluster",
                    nodes.join(", ")
                )
            }
            Self::Joining(address, why) => write!(f, "waits to join through {address}: {why}"),
            Self::Founded => f.write_str("has found its cluster"),
            Self::Moved(moved) => {
                let places: Vec<_> =
                    moved.iter().map(|(node, address)| format!("{node}={address}")).collect();
                write!(
                    f,
                    "finds nodes at the addresses in --peers, which differ from those of the cluster: {}. \
                     Record the new addresses in the cluster with `coracle member add` for each of these",
                    places.join(", ")
                )
            }
        }
    }
}
