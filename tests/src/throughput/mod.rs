//! How much the core does when nothing is in its way: three nodes in a loop on one thread, no disk,
//! no network.
//!
//! What is written counts as durable at once, and what is sent arrives in the next round. So the
//! figures are the price of consensus, and of the state machine on top, alone. The clock is one
//! that the loop advances by itself.
//!
//! The core of this package is one with deliberate bugs to switch on. None is, but each place that
//! has one asks.

mod nodes;
mod replicas;

pub use nodes::Nodes;
pub use replicas::Replicas;

/// Bytes of what one entry carries.
pub const PAYLOAD_BYTES: usize = 64;

/// How many batches of which size are measured: enough that each takes some seconds at the most.
pub const BATCHES: [(u64, u64); 4] = [(1, 200_000), (64, 30_000), (256, 8_000), (4096, 500)];

/// Three nodes that lead and follow one another.
pub trait Trio {
    /// Its name in a result.
    const NAME: &'static str;

    /// Three nodes of which one leads.
    fn elected() -> Self;

    /// Hands the leader so many entries at once, and goes on until there is nothing left to do.
    fn commit(&mut self, entries: u64);

    /// Lets time pass until the followers, too, know what is committed.
    fn settle(&mut self);

    /// How many entries each of the nodes has handed out as committed, but for those that Raft
    /// needs itself.
    fn committed(&self) -> [u64; 3];
}

/// Commits batches and returns how many entries all three nodes have by then.
///
/// # Panics
///
/// When a node has not all of them.
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
    fn all_three_commit_all_there_is() {
        for batch in [1, 64, 4096] {
            assert_eq!(run(&mut Nodes::elected(), batch, 3), 3 * batch);
            assert_eq!(run(&mut Replicas::elected(), batch, 3), 3 * batch);
        }
    }

    #[test]
    fn a_long_run_makes_its_logs_shorter() {
        let mut nodes = Nodes::elected();
        run(&mut nodes, 4096, 60);
        assert!(nodes.log_bytes() < 20 << 20, "{}", nodes.log_bytes());
    }
}
