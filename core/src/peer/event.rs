//! Events of a transport: what it reports of its connections to the operator.

use std::fmt;

use super::PeerRefusal;
use crate::raft::NodeId;

/// Something about the connections to other nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerEvent {
    /// A connection to this node is there.
    Connected(NodeId),
    /// The connection to this node broke, or none can be made: why, as the operating system or the
    /// stream says.
    Lost(NodeId, String),
    /// This node, or whoever is at its address, is refused, or refuses.
    Refused(NodeId, PeerRefusal),
    /// Who dialled is refused.
    Stranger(NodeId, PeerRefusal),
    /// A cluster is founded as soon as these were met.
    WaitsFor(Vec<NodeId>),
    /// The node waits to be let in by whoever is at this address.
    Joining(String, String),
    /// The node has a cluster from now on.
    Founded,
    /// These founders are dialled at other addresses than the cluster knows.
    Moved(Vec<(NodeId, Box<str>)>),
}

impl fmt::Display for PeerEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connected(node) => write!(f, "is connected to node {node}"),
            Self::Lost(node, why) => write!(f, "has no connection to node {node}: {why}"),
            Self::Refused(node, refusal) => write!(f, "does not speak to node {node}: {refusal}"),
            Self::Stranger(node, refusal) => write!(f, "does not listen to node {node}: {refusal}"),
            Self::WaitsFor(nodes) => {
                let nodes: Vec<_> = nodes.iter().map(ToString::to_string).collect();
                write!(
                    f,
                    "waits for nodes {}, which all have to meet once to found the cluster",
                    nodes.join(", ")
                )
            }
            Self::Joining(address, why) => write!(f, "waits to be let in by {address}: {why}"),
            Self::Founded => f.write_str("has its cluster"),
            Self::Moved(moved) => {
                let places: Vec<_> =
                    moved.iter().map(|(node, address)| format!("{node}={address}")).collect();
                write!(
                    f,
                    "finds nodes where --peers says, and not where the cluster was founded: {}. Have the cluster \
                     know it: `coracle member add` with each of these",
                    places.join(", ")
                )
            }
        }
    }
}
