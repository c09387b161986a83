//! How many clients the operating system has descriptors for.
//!
//! Clients must not use up the last descriptor: a node that cannot open a file when an election comes has lost its disk.
//! So the limit of this process is raised as far as it may be, and the number of clients is held to what is left beside
//! the cluster's own files.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::options::Runtime;

/// Descriptors of the process itself: standard streams, listener, signals, poller, lock, and some to spare.
const PROCESS_DESCRIPTORS: u64 = 24;
/// Descriptors of a node: its log, its snapshot, and those that are open for a moment.
const NODE_DESCRIPTORS: u64 = 6;

/// Raises the limit of open files as far as it may be, and tells how many clients fit below it; `None` for no limit.
pub(crate) fn clients_max(runtime: Runtime, nodes: u8) -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    let limit = if raised.is_ok() { maximum } else { current };
    limit.map(|limit| clients_below(limit, runtime, nodes))
}

fn clients_below(limit: u64, runtime: Runtime, nodes: u8) -> u64 {
    let per_client = match runtime {
        Runtime::Smol => 1,
        // The reader's and the writer's.
        Runtime::Threads => 2,
    };
    let own = PROCESS_DESCRIPTORS + NODE_DESCRIPTORS * u64::from(nodes);
    (limit.saturating_sub(own) / per_client).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clusters_own_files_come_first() {
        assert_eq!(clients_below(1024, Runtime::Smol, 5), 970);
        assert_eq!(clients_below(1024, Runtime::Threads, 5), 485);
        assert_eq!(clients_below(10, Runtime::Smol, 5), 1, "with less than that it cannot run at all");
    }
}
