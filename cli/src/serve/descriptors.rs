//! Limits on the number of clients and of connections with other nodes, from the operating system's
//! limits of open files and memory maps.
//!
//! Neither clients nor unknown connections at the peer port may use up the last file descriptor,
//! because a node that cannot open a file during an election stops as if its disk had failed. So
//! the process raises its soft limit to the hard limit. The cluster's own files come first. Of the
//! rest, other nodes get what they can use, at most half, and clients get what remains.
//!
//! On the threads runtime clients must not use up the memory maps either: a thread that starts
//! without one ends the process.

use std::fmt;

use coracle_core::host::PeerPlaces;
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

/// The capacity for connections that the operating system allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    /// The maximum number of clients, and the limit that causes it; `None` if there is no limit.
    pub(crate) clients: Option<(u64, Limit)>,
    /// The capacity for other nodes.
    pub(crate) peers: PeerPlaces,
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
pub(crate) fn room(runtime: Runtime, served: Served) -> Result<Room, TooFewDescriptors> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    let files = if raised.is_ok() { maximum } else { current };
    let shares = files.map(|files| shares(files, served)).transpose()?;
    let by_files = shares.map(|(clients, _)| (clients, Limit::OpenFiles));
    let maps = std::fs::read_to_string(MAPS_FILE).ok().and_then(|text| text.trim().parse().ok());
    let by_maps = match runtime {
        Runtime::Smol => None,
        Runtime::Threads => maps.map(|maps| (clients_within(maps), Limit::MemoryMaps)),
    };
    let clients = by_files.into_iter().chain(by_maps).min_by_key(|(clients, _)| *clients);
    Ok(Room { clients, peers: shares.map(|(_, peers)| peers).unwrap_or_default() })
}

/// Returns how many clients fit within the memory maps. A quarter of the maps is left to the nodes'
/// threads and to large allocations.
fn clients_within(maps: u64) -> u64 {
    (maps / 4 * 3 / CLIENT_MAPS).max(1)
}

/// Divides the descriptors between clients and other nodes. Each connection uses one, on either
/// runtime.
fn shares(limit: u64, served: Served) -> Result<(u64, PeerPlaces), TooFewDescriptors> {
    let count = |places: &PeerPlaces| u64::try_from(places.connections()).unwrap_or(u64::MAX);
    let (nodes, fewest_peers) = match served {
        Served::Cluster { nodes } => (nodes, 0),
        Served::Member => (1, count(&PeerPlaces::FEWEST)),
    };
    let own = PROCESS_DESCRIPTORS + NODE_DESCRIPTORS * u64::from(nodes);
    let needed = own + fewest_peers + 1;
    let left = limit.saturating_sub(own);
    if limit < needed {
        return Err(TooFewDescriptors { limit, needed });
    }
    Ok(match served {
        Served::Cluster { .. } => (left, PeerPlaces::default()),
        Served::Member => {
            let peers = PeerPlaces::within(usize::try_from(left / 2).unwrap_or(usize::MAX));
            (left - count(&peers), peers)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clusters_own_files_come_first() {
        let five = Served::Cluster { nodes: 5 };
        assert_eq!(shares(1024, five).unwrap().0, 970);
        assert_eq!(shares(55, five).unwrap().0, 1);
        let error = shares(54, five).unwrap_err();
        assert_eq!((error.limit, error.needed), (54, 55));
    }

    /// The node's own files can be opened, however many connections other nodes and clients make.
    #[test]
    fn other_nodes_and_clients_share_what_is_left() {
        for limit in 0..2000 {
            let Ok((clients, peers)) = shares(limit, Served::Member) else {
                assert!(limit < 60, "{limit} do");
                continue;
            };
            let all = PROCESS_DESCRIPTORS + NODE_DESCRIPTORS + clients + peers.connections() as u64;
            assert_eq!(all, limit, "{peers:?}");
            assert!(clients >= 1);
        }
        assert_eq!(shares(1024, Served::Member).unwrap().1, PeerPlaces::default());
    }

    #[test]
    fn threads_leave_memory_maps_to_others() {
        assert_eq!(clients_within(65_530), 6_143, "the usual limit");
        assert_eq!(clients_within(4), 1);
    }
}
