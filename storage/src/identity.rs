//! Identity of a node's files: node, cluster and incarnation, stated in the first line of the log
//! and in the metadata and never changed.
//!
//! This module draws no random numbers: the caller supplies the numbers of a new cluster, so that a
//! simulation can draw them from its seed.

use coracle_core::raft::{Addition, NodeId, Roster};
pub use coracle_core::{ClusterId, Incarnation};

/// The identity that a node's files state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The node.
    pub node: NodeId,
    /// The cluster it is a member of.
    pub cluster: ClusterId,
    /// The node's incarnation in that cluster.
    pub incarnation: Incarnation,
    /// The voters that the cluster was founded with, in ascending order. The current voters are in
    /// the log and the snapshot.
    pub voters: Vec<NodeId>,
    /// The founders' addresses and incarnations; empty when all nodes run in one process.
    pub roster: Roster,
    /// This node's address when it joined; until its log contains its own addition, no other file
    /// states it. `None` for a founder.
    pub joined_at: Option<Box<str>>,
    /// The addition that admitted the node; a founder's is 0.
    pub addition: Addition,
}

impl Identity {
    /// Returns the identities of a new cluster with the nodes 0 to `incarnations.len() - 1`, all of
    /// them voters.
    #[must_use]
    pub fn for_new_cluster(cluster: ClusterId, incarnations: &[Incarnation]) -> Vec<Self> {
        let voters: Vec<_> = (0_u64..).map(NodeId).take(incarnations.len()).collect();
        let identity = |(node, incarnation): (&NodeId, &Incarnation)| Self {
            node: *node,
            cluster,
            incarnation: *incarnation,
            voters: voters.clone(),
            roster: Roster::default(),
            joined_at: None,
            addition: Addition::default(),
        };
        voters.iter().zip(incarnations).map(identity).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_cluster_shares_all_but_node_and_incarnation() {
        let identities = Identity::for_new_cluster(ClusterId(1), &[Incarnation(7), Incarnation(8)]);
        assert_eq!(identities.len(), 2);
        assert_eq!((identities[1].node, identities[1].incarnation), (NodeId(1), Incarnation(8)));
        assert_eq!(identities[0].voters, [NodeId(0), NodeId(1)]);
        assert_eq!(identities[0].voters, identities[1].voters);
    }
}
