//! Limits on the number of clients and of connections with other nodes, from the operating system's
//! limits of open files and memory maps.
//!
//! Neither clients nor unknown connections at the peer port may use up the last file descriptor,
//! because a node that cannot open a file during an election stops as if its disk had failed. So
//! the process raises its soft limit to the hard limit. The cluster's own files come first. Of the
//! rest, TLS handshakes of clients get at most a quarter, other nodes what they can use, at most
//! half, and clients get what remains.
//!
//! On the threads runtime clients must not use up the memory maps either: a thread that starts
//! without one ends the process.

use std::fmt;

use coracle_core::host::{CLIENT_HANDSHAKES_MAX, PeerPlaces};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use thiserror::Error;

use super::options::Runtime;

/// Descriptors of the process itself: standard streams, listener, signals, poller, lock, and some
/// in reserve.
const PROCESS_DESCRIPTORS: u64 = 24;
/// Descriptors of a node: its log, its snapshot, and files that are open for a moment.
const NODE_DESCRIPTORS: u64 = 6;

/// The file in which Linux reports the maximum number of memory maps of a process. Other systems
/// have no such limit.
const MAPS_FILE: &str = "/proc/sys/vm/max_map_count";
/// Memory maps per client on the threads runtime: a reader and a writer, each with a stack, a stack
/// for signals, and a guard page before either.
const CLIENT_MAPS: u64 = 8;

/// The limit that reduces the number of clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limit {
    OpenFiles,
    MemoryMaps,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OpenFiles => "the limit of open files",
            Self::MemoryMaps => "the limit of memory maps (vm.max_map_count)",
        })
    }
}

/// The part of a cluster that a process serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Served {
    /// All nodes of a cluster.
    Cluster {
        /// The number of nodes.
        nodes: u8,
    },
    /// One node of a cluster of processes.
    Member,
}

/// The ports for clients that a process opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClientPorts {
    /// 1, or 2 with one for administrators.
    pub(crate) count: u8,
    /// Whether clients speak TLS.
    pub(crate) are_secured: bool,
}

/// The capacity for connections that the operating system allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    /// The maximum number of clients, and the limit that causes it; `None` if there is no limit.
    pub(crate) clients: Option<(u64, Limit)>,
    /// The capacity for other nodes.
    pub(crate) peers: PeerPlaces,
    /// The most TLS handshakes of clients at once, at each port.
    pub(crate) handshakes: usize,
}

/// The error for a limit of open files that is too low for the cluster's own files.
#[derive(Debug, Error)]
#[error(
    "this process may have {limit} files open, and needs at least {needed}: raise the limit (`ulimit -n`, LimitNOFILE= of a \
     systemd unit)"
)]
pub(crate) struct TooFewDescriptors {
    limit: u64,
    needed: u64,
}

/// Raises the limit of open files to its maximum, and returns the capacity within it and within the
/// limit of memory maps.
///
/// # Errors
///
/// [`TooFewDescriptors`] if the limit is too low.
pub(crate) fn room(runtime: Runtime, served: Served, ports: ClientPorts) -> Result<Room, TooFewDescriptors> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    let files = if raised.is_ok() { maximum } else { current };
    let shares = files.map(|files| shares(files, served, ports)).transpose()?;
    let by_files = shares.map(|shares| (shares.clients, Limit::OpenFiles));
    let maps = std::fs::read_to_string(MAPS_FILE).ok().and_then(|text| text.trim().parse().ok());
    let by_maps = match runtime {
        Runtime::Smol => None,
        Runtime::Threads => maps.map(|maps| (clients_within(maps), Limit::MemoryMaps)),
    };
    let clients = by_files.into_iter().chain(by_maps).min_by_key(|(clients, _)| *clients);
    let (peers, handshakes) =
        shares.map_or((PeerPlaces::default(), CLIENT_HANDSHAKES_MAX), |it| (it.peers, it.handshakes));
    Ok(Room { clients, peers, handshakes })
}

/// Returns how many clients fit within the memory maps. A quarter of the maps is left to the nodes'
/// threads and to large allocations.
fn clients_within(maps: u64) -> u64 {
    (maps / 4 * 3 / CLIENT_MAPS).max(1)
}

/// The shares of the descriptors.
#[derive(Clone, Copy, Debug)]
struct Shares {
    clients: u64,
    peers: PeerPlaces,
    /// At each port for clients.
    handshakes: usize,
}

/// Divides the descriptors between clients and other nodes. Each connection uses one, on either
/// runtime.
fn shares(limit: u64, served: Served, ports: ClientPorts) -> Result<Shares, TooFewDescriptors> {
    let count = |places: &PeerPlaces| u64::try_from(places.connections()).unwrap_or(u64::MAX);
    let (nodes, fewest_peers) = match served {
        Served::Cluster { nodes } => (nodes, 0),
        Served::Member => (1, count(&PeerPlaces::FEWEST)),
    };
    let port_count = u64::from(ports.count);
    let fewest_handshakes = if ports.are_secured { port_count } else { 0 };
    // The reserve of the process has one listener.
    let own = PROCESS_DESCRIPTORS + NODE_DESCRIPTORS * u64::from(nodes) + port_count - 1;
    let needed = own + fewest_peers + fewest_handshakes + 1;
    if limit < needed {
        return Err(TooFewDescriptors { limit, needed });
    }
    let free = limit - own;
    // A quarter, as far as the fewest other nodes and one client leave it.
    let spare = (free / 4).min(free.saturating_sub(fewest_peers + 1));
    let handshakes = (spare / port_count).clamp(1, CLIENT_HANDSHAKES_MAX as u64);
    let left = if ports.are_secured { free - handshakes * port_count } else { free };
    let handshakes = usize::try_from(handshakes).unwrap_or(CLIENT_HANDSHAKES_MAX);
    Ok(match served {
        Served::Cluster { .. } => Shares { clients: left, peers: PeerPlaces::default(), handshakes },
        Served::Member => {
            let peers = PeerPlaces::within(usize::try_from(left / 2).unwrap_or(usize::MAX));
            Shares { clients: left - count(&peers), peers, handshakes }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN: ClientPorts = ClientPorts { count: 1, are_secured: false };

    #[test]
    fn the_clusters_own_files_come_first() {
        let five = Served::Cluster { nodes: 5 };
        assert_eq!(shares(1024, five, OPEN).unwrap().clients, 970);
        assert_eq!(shares(55, five, OPEN).unwrap().clients, 1);
        let error = shares(54, five, OPEN).unwrap_err();
        assert_eq!((error.limit, error.needed), (54, 55));
    }

    /// The node's own files can be opened, however many connections other nodes, clients and
    /// strangers make.
    #[test]
    fn other_nodes_and_clients_share_what_is_left() {
        for (count, are_secured) in [(1, false), (1, true), (2, false), (2, true)] {
            let ports = ClientPorts { count, are_secured };
            for limit in 0..2000 {
                let Ok(Shares { clients, peers, handshakes }) = shares(limit, Served::Member, ports) else {
                    assert!(limit < 63, "{limit} do");
                    continue;
                };
                let greeted = if are_secured { handshakes as u64 * u64::from(count) } else { 0 };
                let own = PROCESS_DESCRIPTORS + NODE_DESCRIPTORS + u64::from(count) - 1;
                let all = own + clients + peers.connections() as u64 + greeted;
                assert_eq!(all, limit, "{peers:?}");
                assert!(clients >= 1 && (1..=CLIENT_HANDSHAKES_MAX).contains(&handshakes));
            }
            let plenty = shares(2000, Served::Member, ports).unwrap();
            assert_eq!((plenty.peers, plenty.handshakes), (PeerPlaces::default(), CLIENT_HANDSHAKES_MAX));
        }
    }

    #[test]
    fn threads_leave_memory_maps_to_others() {
        assert_eq!(clients_within(65_530), 6_143, "the usual limit");
        assert_eq!(clients_within(4), 1);
    }
}
