//! Whether the operating system gives a server the threads that it needs.
//!
//! A control group or a user may have few (`pids.max`, `ulimit -u`). A thread that is missing later
//! is the end of a node, or a wait that never ends. So all of them are started once before anything
//! else, and end at once.

use std::io;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use coracle_core::raft::VOTERS_MAX;
use thiserror::Error;

use super::descriptors::Served;
use super::options::Runtime;

/// Threads of the process on either runtime, beside those that run already: one for signals, one
/// that asks for names, and one to spare.
const PROCESS_THREADS: usize = 3;
/// Smol's own: one that waits for sockets and timers.
const SMOL_THREADS: usize = 1;
/// A node's on the threads runtime: itself, its log, its snapshots.
const NODE_THREADS: usize = 3;
/// The threads runtime's own: the router, and a listener for clients and one for nodes.
const RUNTIME_THREADS: usize = 3;
/// A client's there: a reader and a writer.
const CLIENT_THREADS: usize = 2;
/// Those of another node there: a link, which writes and listens, and who listens to what it sends.
const PEER_THREADS: usize = 3;

/// The operating system gives too few threads.
#[derive(Debug, Error)]
#[error(
    "the operating system gives this process {given} more threads, and it needs {needed}: {cause}. Is there a limit of processes \
     (pids.max of the cgroup, TasksMax= of a systemd unit, ulimit -u)?"
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
/// [`TooFewThreads`].
pub(crate) fn check(runtime: Runtime, served: Served) -> Result<(), TooFewThreads> {
    start_at_once(needed(runtime, served))
}

fn needed(runtime: Runtime, served: Served) -> usize {
    let of_runtime = match (runtime, served) {
        // The files of a node are written by a thread of a pool.
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
    // Each waits for what never comes, until the other end is gone: at the end of this function,
    // whatever its outcome.
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

/// Ends them, and waits until they have: the next ones take their places.
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
    fn what_a_server_needs_can_be_started() {
        for runtime in [Runtime::Smol, Runtime::Threads] {
            for served in [Served::Cluster { nodes: 5 }, Served::Member] {
                assert!(check(runtime, served).is_ok());
            }
        }
        assert_eq!(needed(Runtime::Smol, Served::Cluster { nodes: 5 }), 9);
        assert_eq!(needed(Runtime::Threads, Served::Cluster { nodes: 5 }), 23);
    }
}
