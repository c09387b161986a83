//! Who a set of files belongs to: stated in the first line of the log and in the metadata, and
//! never changed afterwards.
//!
//! Deliberately no source of randomness: a new cluster's identities are made of numbers that the
//! caller has drawn, so that a simulation can draw them from its seed.

use coracle_core::raft::{Addition, NodeId, Roster};
pub use coracle_core::{ClusterId, Incarnation};

/// What a node's files say about their owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The node.
    pub node: NodeId,
    /// The cluster it is a member of.
    pub cluster: ClusterId,
    /// Its life in that cluster.
    pub incarnation: Incarnation,
    /// The voting members that the cluster was founded with, in ascending order. Who votes now is
    /// for the log and the snapshot to say.
    pub voters: Vec<NodeId>,
    /// What was known of them then; empty when all nodes live in one process.
    pub roster: Roster,
    /// Where this node was a member when it joined: until its log reaches its own addition, nothing
    /// else says so. `None` for a founder.
    pub joined_at: Option<Box<str>>,
    /// The addition that let it in; a founder's is 0.
    pub addition: Addition,
}

impl Identity {
    /// The identities of a new cluster with the nodes 0 to `incarnations.len() - 1`, all of them
    /// voters.
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
