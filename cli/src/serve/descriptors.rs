//! How many clients the operating system has room for.
//!
//! Clients must not use up the last descriptor: a node that cannot open a file when an election comes has lost its disk.
//! So the limit of this process is raised as far as it may be, and the number of clients is held to what is left beside
//! the cluster's own files.
//!
//! Where a client has threads of its own it must not use up the last memory map either: a thread that begins without one
//! ends the process.

use std::fmt;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::options::Runtime;

/// Descriptors of the process itself: standard streams, listener, signals, poller, lock, and some to spare.
const PROCESS_DESCRIPTORS: u64 = 24;
/// Descriptors of a node: its log, its snapshot, and those that are open for a moment.
const NODE_DESCRIPTORS: u64 = 6;

/// Where Linux tells how many memory maps a process may have. Elsewhere there is no such limit.
const MAPS_FILE: &str = "/proc/sys/vm/max_map_count";
/// Memory maps of a client on threads: a reader and a writer, each with a stack, a stack for signals, and a guard
/// before either.
const CLIENT_MAPS: u64 = 8;

/// What holds the number of clients down.
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

/// Raises the limit of open files as far as it may be, and tells how many clients fit below it and below the others,
/// and which is the narrowest; `None` for no limit.
pub(crate) fn clients_max(runtime: Runtime, nodes: u8) -> Option<(u64, Limit)> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    let files = if raised.is_ok() { maximum } else { current };
    let by_files = files.map(|files| (clients_below(files, nodes), Limit::OpenFiles));
    let maps = std::fs::read_to_string(MAPS_FILE).ok().and_then(|text| text.trim().parse().ok());
    let by_maps = match runtime {
        Runtime::Smol => None,
        Runtime::Threads => maps.map(|maps| (clients_within(maps), Limit::MemoryMaps)),
    };
    by_files.into_iter().chain(by_maps).min_by_key(|(clients, _)| *clients)
}

/// A quarter of the maps is left to the nodes' threads and to large allocations.
fn clients_within(maps: u64) -> u64 {
    (maps / 4 * 3 / CLIENT_MAPS).max(1)
}

/// A client takes one descriptor, on either runtime.
fn clients_below(limit: u64, nodes: u8) -> u64 {
    let own = PROCESS_DESCRIPTORS + NODE_DESCRIPTORS * u64::from(nodes);
    limit.saturating_sub(own).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clusters_own_files_come_first() {
        assert_eq!(clients_below(1024, 5), 970);
        assert_eq!(clients_below(10, 5), 1, "with less than that it cannot run at all");
    }

    #[test]
    fn threads_leave_memory_maps_to_others() {
        assert_eq!(clients_within(65_530), 6_143, "the usual limit");
        assert_eq!(clients_within(4), 1);
    }
}
