//! How many connections with other nodes a process may hold at once.
//!
//! Each takes a descriptor, and so do the node's own files and its clients. Those of the members
//! are few, and a node cannot do without them. Anybody can dial, though, so all others have places
//! whose number is known beforehand: they come out of what the operating system allows, before the
//! clients' do.

use crate::raft::VOTERS_MAX;

/// Connections with other voters: each of them dials, and is dialled.
const MEMBERS_CONNECTIONS: usize = 2 * (VOTERS_MAX - 1);

/// The places for connections with other nodes, beside those of the members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerPlaces {
    /// Connections whose other end has not shown yet who it is; a new one takes the place of the
    /// oldest.
    pub handshakes: usize,
    /// Nodes that are listened to and are no members by what is known here.
    pub inbound: usize,
    /// Nodes that are dialled although they are no members, because they have said where they are.
    pub strangers: usize,
}

/// As many as are of any use: several times as many nodes as a cluster has members.
impl Default for PeerPlaces {
    fn default() -> Self {
        Self { handshakes: 64, inbound: 128, strangers: 64 }
    }
}

impl PeerPlaces {
    /// The fewest with which a node can do its work, also while it joins and knows nobody.
    pub const FEWEST: Self = Self { handshakes: 4, inbound: 4, strangers: 4 };

    /// As many as so many connections allow, and never less than [`PeerPlaces::FEWEST`].
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

    /// How many connections there may be at once, with those of the members.
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
