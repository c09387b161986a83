//! Founders: the first members of a cluster, and the cluster id that is derived from them.

use crate::identity::ClusterId;
use crate::raft::{NodeId, Roster};

/// The founders of a cluster: its first voters with their addresses and incarnations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Founders {
    /// The cluster id.
    pub cluster: ClusterId,
    /// All founders, each with its incarnation.
    pub roster: Roster,
}

impl Founders {
    /// Derives the cluster id from the founders. The same members with the same incarnations and
    /// addresses have the same id.
    #[must_use]
    pub fn new(roster: Roster) -> Self {
        // FNV-1a: no cryptographic strength is needed, because the incarnations are random.
        let mut hash: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
        let mut add = |byte: u8| {
            hash ^= u128::from(byte);
            hash = hash.wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b);
        };
        for (node, member) in roster.iter() {
            let incarnation = member.incarnation.map_or(0, |incarnation| incarnation.0);
            node.0.to_le_bytes().into_iter().for_each(&mut add);
            member.address.bytes().for_each(&mut add);
            incarnation.to_le_bytes().into_iter().for_each(&mut add);
        }
        Self { cluster: ClusterId(hash), roster }
    }

    /// Returns the founders' ids, ascending: the first voters.
    #[must_use]
    pub fn ids(&self) -> Vec<NodeId> {
        self.roster.iter().map(|(node, _)| node).collect()
    }
}
