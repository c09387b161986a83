//! Deterministic simulation of a whole cluster in one thread, from one seed: network, disks, clocks
//! and clients are simulated with faults of every kind, thousands of times faster than real time.
//!
//! ```text
//!   dice ──► settings ──► world ◄── faults            one event queue in simulated time
//!                           │
//!        ┌──────────┬───────┴────┬───────────┐
//!   clients ─► ClientHost ─► Proxy ─► process: Replica, Planner, SnapshotPlanner, recover  ◄── network
//!                           │
//!                          disk                         unsynced data may be lost, down to a byte
//!
//!   invariants: after every turn, before every send, at every start and every reply
//! ```
//!
//! Proxy, replica, planners and recovery are the real ones. Only their surroundings are simulated.

mod asking;
mod calls;
pub mod clients;
mod connections;
mod damage;
pub mod dice;
mod direct_requests;
pub mod disk;
mod disk_work;
pub mod drawing;
mod durable;
mod fault_injection;
pub mod hunt;
pub mod invariants;
pub mod network;
mod notes;
pub mod panics;
pub mod process;
mod queue;
pub mod run;
pub mod samples;
pub mod settings;
pub mod shrink;
pub mod snapshots;
pub mod trace;
mod watchers;
pub mod world;

pub use run::{RunReport, Telling, run_seed, run_tape};
