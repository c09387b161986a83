//! Scenario tests of the Raft core, by its inputs and outputs alone.
//!
//! `paper_…` checks the paper's own statements, one by one. The other files test behaviour that the
//! paper leaves open, and bugs of other implementations. `Covers:` lines name the corresponding
//! tests of other libraries, so a search for a name shows whether it is covered here;
//! tests/README.md lists what was left out, and why.

mod backups;
mod check_quorum;
mod durability;
mod elections;
mod expiry;
mod incarnations;
mod levels;
mod membership;
mod oversleeping;
mod paper_elections;
mod paper_replication;
mod pre_vote;
mod progress;
mod random;
mod read_index;
mod removals;
mod replica;
mod replication;
mod sessions;
mod slow_disks;
mod slow_snapshots;
mod snapshot_bugs;
mod snapshots;
mod transfer;
mod watches;
mod wire;
