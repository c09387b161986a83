//! Connection limits between nodes: how many connections with other nodes a process may hold at
//! once.
//!
//! Each connection takes a file descriptor, as do the node's own files and its clients. The
//! members' connections are few, and a node cannot work without them. But any program can connect,
//! so all other connections have limits that are known in advance: they are deducted from what the
//! operating system allows before the clients' limit is computed.

use crate::raft::VOTERS_MAX;

/// Connections with other voters: this node dials each voter, and each voter dials this node.
const MEMBERS_CONNECTIONS: usize = 2 * (VOTERS_MAX - 1);

/// The limits of connections with other nodes, in addition to those of the members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerPlaces {
    /// Connections that have not finished their handshake; a new one replaces the oldest.
    pub handshakes: usize,
    /// Accepted nodes that are not members as far as this node knows.
    pub inbound: usize,
    /// Nodes that are dialled although they are not members, because they have stated their
    /// address.
    pub strangers: usize,
}

/// The largest useful limits: several times as many nodes as a cluster has members.
impl Default for PeerPlaces {
    fn default() -> Self {
        Self { handshakes: 64, inbound: 128, strangers: 64 }
    }
}

impl PeerPlaces {
    /// The lowest limits with which a node can work, even while it joins and knows no member.
    pub const FEWEST: Self = Self { handshakes: 4, inbound: 4, strangers: 4 };

    /// Returns the limits for `connections` connections in total, never below
    /// [`PeerPlaces::FEWEST`].
    #[must_use]
    pub fn within(connections: usize) -> Self {
        let (all, fewest) = (Self::default(), Self::FEWEST);
        let more = connections.saturating_sub(fewest.connections());
        Self {
            handshakes: (fewest.handshakes + more / 4).min(all.handshakes),
            inbound: (fewest.inbound + more / 2).min(all.inbound),
            strangers: (fewest.strangers + more / 4).min(all.strangers),
        }
    }

    /// Returns the total number of connections at once, including those of the members.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.handshakes + self.inbound + self.strangers + MEMBERS_CONNECTIONS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_fit_into_what_is_allowed() {
        let fewest = PeerPlaces::FEWEST.connections();
        for allowed in [0, 10, fewest, 60, 100, 272, 1_000_000] {
            let places = PeerPlaces::within(allowed);
            assert!(places.connections() <= allowed.max(fewest), "{allowed}: {places:?}");
        }
        assert_eq!(PeerPlaces::within(0), PeerPlaces::FEWEST);
        assert_eq!(PeerPlaces::within(1000), PeerPlaces::default());
    }
}
