//! Throughput of the core without I/O: three nodes in a loop on one thread, without disk and
//! network.
//!
//! Writes count as durable at once, and messages arrive in the next round. So the figures are the
//! cost of consensus alone, or with the state machine on top. The loop advances the clock by
//! itself.
//!
//! The core in this package is compiled with its mutants. None is active, but each place that has
//! one checks for it.

mod nodes;
mod replicas;

pub use nodes::Nodes;
pub use replicas::Replicas;

/// The payload bytes of one entry.
pub const PAYLOAD_BYTES: usize = 64;

/// Batch sizes with the number of batches to measure: enough that each takes at most some seconds.
pub const BATCHES: [(u64, u64); 4] = [(1, 200_000), (64, 30_000), (256, 8_000), (4096, 500)];

/// Three nodes, of which one leads and two follow.
pub trait Trio {
    /// The name in a result.
    const NAME: &'static str;

    /// Creates three nodes and elects a leader.
    fn elected() -> Self;

    /// Hands this many entries to the leader at once, and continues until no work is left.
    fn commit(&mut self, entries: u64);

    /// Lets time pass until the followers, too, know the commit index.
    fn settle(&mut self);

    /// The number of entries that each of the nodes has emitted as committed, except those that
    /// Raft itself needs.
    fn committed(&self) -> [u64; 3];
}

/// Commits batches. Returns the number of entries that all three nodes have committed since.
///
/// # Panics
///
/// When a node lacks some of them.
pub fn run(trio: &mut impl Trio, batch: u64, batches: u64) -> u64 {
    let before = trio.committed();
    (0..batches).for_each(|_| trio.commit(batch));
    trio.settle();
    let entries = batch * batches;
    assert_eq!(trio.committed(), before.map(|count| count + entries), "an entry is missing");
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_three_nodes_commit_all_entries() {
        for batch in [1, 64, 4096] {
            assert_eq!(run(&mut Nodes::elected(), batch, 3), 3 * batch);
            assert_eq!(run(&mut Replicas::elected(), batch, 3), 3 * batch);
        }
    }

    #[test]
    fn a_long_run_compacts_its_logs() {
        let mut nodes = Nodes::elected();
        run(&mut nodes, 4096, 60);
        assert!(nodes.log_bytes() < 20 << 20, "{}", nodes.log_bytes());
    }
}
