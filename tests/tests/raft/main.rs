//! Scenarios for the shipped Raft core, through inputs and outputs alone.
//!
//! `paper_…` proves the paper's own statements, one by one. The other files are about behaviour
//! that the paper leaves open, and about bugs that others had. `Covers:` lines name the tests of
//! other libraries that asked first, so a search for a name shows whether it has an answer here;
//! tests/README.md lists what was left out, and why.

mod backups;
mod check_quorum;
mod durability;
mod elections;
mod incarnations;
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
mod wire;
