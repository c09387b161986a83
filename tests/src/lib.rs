//! Test framework of Coracle: scenarios, simulators, chaos campaigns and measurements, and the
//! invariants that every run must keep.
//!
//! None of this is linked into the program. The core under test is the one that ships, driven only
//! through its inputs and outputs: no field is set from outside, and every state is reached as a
//! real cluster would reach it.
//!
//! ```text
//!   tests/raft/*.rs      scenarios: elect, propose, isolate, crash, … and assertions
//!         │
//!      scenario          time, network and disks under the scenario's control, and invariants after every step
//!         │
//!   coracle_core         the real Node or Replica
//! ```
//!
//! A scenario in six verbs:
//!
//! ```
//! use coracle_tests::scenario::cluster;
//!
//! let mut cluster = cluster(3);
//! cluster.elect(1);
//! cluster.isolate(3);
//! cluster.propose(1, "chips");
//! cluster.settle();
//! assert_eq!((cluster.commit(2), cluster.commit(3)), (2, 1));
//! cluster.heal();
//! cluster.elapse_ms(100);
//! assert_eq!(cluster.texts(3), ["chips"]);
//! ```

pub mod chaos;
pub mod checker;
pub mod explore;
pub mod floods;
pub mod fuzz;
pub mod growth;
pub mod lifecycle;
pub mod live;
pub mod locks;
pub mod reference;
pub mod scenario;
pub mod secured;
pub mod simulator;
pub mod soak;
pub mod system_calls;
pub mod throughput;

/// The program in the README is compiled and run as a test.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
mod readme {}
