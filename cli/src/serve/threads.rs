//! Checks that the operating system allows the threads that a server needs.
//!
//! A control group or a user may have a low limit (`pids.max`, `ulimit -u`). A thread that cannot
//! be created later stops a node or causes a wait that never ends. So all threads are started once
//! before anything else, and end at once.

use std::io;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use coracle_core::host::CLIENT_HANDSHAKES_MAX;
use coracle_core::raft::VOTERS_MAX;
use thiserror::Error;

use super::descriptors::{ClientPorts, Served};
use super::options::Runtime;

/// Threads of the process on either runtime, in addition to the running ones: one for signals, one
/// that resolves names, and one in reserve.
const PROCESS_THREADS: usize = 3;
/// Threads of the smol runtime: one that waits for sockets and timers.
const SMOL_THREADS: usize = 1;
/// Threads per node on the threads runtime: the node, its log, and its snapshots.
const NODE_THREADS: usize = 3;
/// Threads of the threads runtime itself: the router, a listener for clients and one for nodes.
const RUNTIME_THREADS: usize = 3;
/// Threads per client on the threads runtime: a reader and a writer.
const CLIENT_THREADS: usize = 2;
/// Threads per other node on the threads runtime: a writer and a reader of the link to it, and a
/// reader of the connection from it.
const PEER_THREADS: usize = 3;

/// The error for an operating system that allows too few threads.
#[derive(Debug, Error)]
#[error(
    "this process can start {given} more threads, and it needs {needed}: {cause}. Is there a limit of \
     processes (pids.max of the cgroup, TasksMax= of a systemd unit, ulimit -u)?"
)]
pub(crate) struct TooFewThreads {
    given: usize,
    needed: usize,
    cause: io::Error,
}

/// Starts as many threads at once as this server needs, and ends them.
///
/// # Errors
///
/// [`TooFewThreads`] if one cannot be started.
pub(crate) fn check(runtime: Runtime, served: Served, ports: ClientPorts) -> Result<(), TooFewThreads> {
    start_at_once(needed(runtime, served) + of_ports(runtime, ports))
}

/// The threads of a second port for clients, and of TLS handshakes: strangers can begin as many
/// as there may be, and clients must be served beside them.
fn of_ports(runtime: Runtime, ports: ClientPorts) -> usize {
    let count = usize::from(ports.count);
    match (runtime, ports.are_secured) {
        (Runtime::Smol, _) => 0,
        (Runtime::Threads, false) => count - 1,
        (Runtime::Threads, true) => count - 1 + count * CLIENT_HANDSHAKES_MAX,
    }
}

fn needed(runtime: Runtime, served: Served) -> usize {
    let of_runtime = match (runtime, served) {
        // The thread pool writes the files of each node.
        (Runtime::Smol, Served::Cluster { nodes }) => SMOL_THREADS + usize::from(nodes),
        (Runtime::Smol, Served::Member) => SMOL_THREADS + 2,
        (Runtime::Threads, Served::Cluster { nodes }) => {
            RUNTIME_THREADS + NODE_THREADS * usize::from(nodes) + CLIENT_THREADS
        }
        (Runtime::Threads, Served::Member) => {
            RUNTIME_THREADS + NODE_THREADS + CLIENT_THREADS + PEER_THREADS * (VOTERS_MAX - 1)
        }
    };
    PROCESS_THREADS + of_runtime
}

fn start_at_once(needed: usize) -> Result<(), TooFewThreads> {
    // Each thread waits on a channel until its sender is dropped, at the end of this function at
    // the latest.
    let mut kept = Vec::new();
    for given in 0..needed {
        let (keep, wait) = mpsc::channel::<()>();
        let wait = move || _ = wait.recv();
        match thread::Builder::new().name("probe".into()).spawn(wait) {
            Ok(thread) => kept.push((keep, thread)),
            Err(cause) => {
                end(kept);
                return Err(TooFewThreads { given, needed, cause });
            }
        }
    }
    end(kept);
    Ok(())
}

/// Ends the threads and waits for them, so that the server's own threads can take their places.
fn end(kept: Vec<(mpsc::Sender<()>, JoinHandle<()>)>) {
    let (keep, threads): (Vec<_>, Vec<_>) = kept.into_iter().unzip();
    drop(keep);
    for thread in threads {
        _ = thread.join();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_threads_that_a_server_needs_can_be_started() {
        for runtime in [Runtime::Smol, Runtime::Threads] {
            for served in [Served::Cluster { nodes: 5 }, Served::Member] {
                for are_secured in [false, true] {
                    assert!(check(runtime, served, ClientPorts { count: 2, are_secured }).is_ok());
                }
            }
        }
        let ports = |count, are_secured| of_ports(Runtime::Threads, ClientPorts { count, are_secured });
        assert_eq!([ports(1, false), ports(2, false), ports(1, true), ports(2, true)], [0, 1, 64, 129]);
        assert_eq!(needed(Runtime::Smol, Served::Cluster { nodes: 5 }), 9);
        assert_eq!(needed(Runtime::Threads, Served::Cluster { nodes: 5 }), 23);
    }
}
