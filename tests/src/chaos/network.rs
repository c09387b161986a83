//! The network of a chaos campaign: a proxy for each ordered pair of nodes, and the partitions that
//! can be made.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::link_faults::{Done, Gate, LinkFaults, SharedFaults};
use super::proxy::{self, Target};

/// The direction from one node to another.
type Way = (u64, u64);

/// The proxies of all directions, with their faults and their targets.
#[derive(Debug)]
pub(super) struct Network {
    nodes: Vec<u64>,
    links: BTreeMap<Way, Arc<SharedFaults>>,
    addresses: BTreeMap<Way, SocketAddr>,
    targets: BTreeMap<u64, Target>,
}

impl Network {
    /// Starts a proxy between every two of these nodes.
    pub(super) fn start(peers: &BTreeMap<u64, SocketAddr>, seed: u64) -> io::Result<Self> {
        let nodes: Vec<u64> = peers.keys().copied().collect();
        let pairs = nodes.iter().flat_map(|from| nodes.iter().map(move |to| (*from, *to)));
        let ways: Vec<Way> = pairs.filter(|(from, to)| from != to).collect();
        let links: BTreeMap<Way, Arc<SharedFaults>> = ways.iter().map(|way| (*way, Arc::default())).collect();
        let targets: BTreeMap<u64, Target> =
            peers.iter().map(|(node, address)| (*node, Arc::new(Mutex::new(*address)))).collect();
        let mut addresses = BTreeMap::new();
        for (number, (from, to)) in (1_u64..).zip(ways) {
            let (there, back) = (Arc::clone(&links[&(from, to)]), Arc::clone(&links[&(to, from)]));
            let address = proxy::start(Arc::clone(&targets[&to]), there, back, seed.wrapping_mul(number))?;
            addresses.insert((from, to), address);
        }
        Ok(Self { nodes, links, addresses, targets })
    }

    /// The addresses at which this node is to dial its peers.
    pub(super) fn dial_map(&self, node: u64) -> String {
        let ways = self.addresses.iter().filter(|((from, _), _)| *from == node);
        ways.map(|((_, to), address)| format!("{to}={address}")).collect::<Vec<_>>().join(",")
    }

    /// All nodes that may exist.
    pub(super) fn nodes(&self) -> &[u64] {
        &self.nodes
    }

    /// The address at which `from` is to dial `to`.
    pub(super) fn way(&self, from: u64, to: u64) -> SocketAddr {
        self.addresses[&(from, to)]
    }

    /// The address at which a node listens.
    pub(super) fn target(&self, node: u64) -> SocketAddr {
        *self.targets[&node].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the address at which a node listens: new connections to it go there.
    pub(super) fn retarget(&self, node: u64, address: SocketAddr) {
        *self.targets[&node].lock().unwrap_or_else(PoisonError::into_inner) = address;
    }

    /// Sets these faults everywhere.
    pub(super) fn set_all(&self, faults: &LinkFaults) {
        self.links.values().for_each(|link| link.set(faults.clone()));
    }

    /// Sets these faults in one direction.
    pub(super) fn set(&self, from: u64, to: u64, faults: &LinkFaults) {
        self.links[&(from, to)].set(faults.clone());
    }

    /// Closes the links between the two nodes of each pair, in both directions.
    pub(super) fn part(&self, pairs: &[Way], gate: Gate) {
        for (one, other) in pairs {
            for way in [(*one, *other), (*other, *one)] {
                self.links[&way].set(LinkFaults { gate, ..LinkFaults::default() });
            }
        }
    }

    /// Closes every link between these nodes and the others.
    pub(super) fn part_from_rest(&self, group: &[u64], gate: Gate) {
        let rest = self.nodes.iter().filter(|node| !group.contains(node));
        let pairs: Vec<Way> = rest.flat_map(|node| group.iter().map(|one| (*one, *node))).collect();
        self.part(&pairs, gate);
    }

    /// Makes a ring in the order of `order`: only neighbors reach each other. Three or fewer nodes
    /// form a line: the first and the last do not reach each other, and the one between them is a
    /// bridge.
    pub(super) fn make_ring(&self, order: &[u64], gate: Gate) {
        let len = order.len();
        let mut pairs = Vec::new();
        for one in 0..len {
            for other in one + 2..len {
                if len <= 3 || (one, other) != (0, len - 1) {
                    pairs.push((order[one], order[other]));
                }
            }
        }
        self.part(&pairs, gate);
    }

    /// Ends all faults of the network. Delayed frames arrive late, or, with a storm, are lost with
    /// their connections.
    pub(super) fn heal(&self, with_storm: bool) {
        for link in self.links.values() {
            if with_storm {
                link.break_connections();
            }
            link.set(LinkFaults::default());
        }
    }

    /// The total of one counter over all directions.
    pub(super) fn count(&self, of: impl Fn(&Done) -> &AtomicU64) -> u64 {
        self.links.values().map(|link| of(&link.done).load(Ordering::Relaxed)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(nodes: u64) -> Network {
        let nobody: SocketAddr = "127.0.0.1:1".parse().unwrap();
        Network::start(&(1..=nodes).map(|node| (node, nobody)).collect(), 3).unwrap()
    }

    fn closed(network: &Network) -> Vec<Way> {
        network.links.iter().filter(|(_, link)| link.gate() != Gate::Open).map(|(way, _)| *way).collect()
    }

    #[test]
    fn partitions_close_the_right_links() {
        let three = network(3);
        three.part_from_rest(&[2], Gate::Stalled);
        assert_eq!(closed(&three), [(1, 2), (2, 1), (2, 3), (3, 2)]);
        three.heal(true);
        assert_eq!(closed(&three), []);
        three.make_ring(&[1, 2, 3], Gate::Refused);
        assert_eq!(closed(&three), [(1, 3), (3, 1)]);
        let five = network(5);
        five.make_ring(&[1, 2, 3, 4, 5], Gate::Stalled);
        let neighbours = |(one, other): &Way| one.abs_diff(*other) == 1 || one.abs_diff(*other) == 4;
        assert!(!closed(&five).iter().any(neighbours));
        assert_eq!(closed(&five).len(), 10);
    }

    #[test]
    fn a_node_dials_only_proxies() {
        let map = network(3).dial_map(2);
        let peers: Vec<_> = map.split(',').map(|entry| entry.split_once('=').unwrap().0).collect();
        assert_eq!(peers, ["1", "3"]);
    }
}
