//! Chaos testing: a cluster of real processes with faults of network, processes and disks, chosen
//! by a seed.
//!
//! A seed decides the faults, their order and durations, and the clients' requests. It does not
//! decide the timing of the machine, so a run that fails may pass the next time. Therefore the
//! schedule, the histories and the files are kept.
//!
//! ```text
//!   clients ── history, counters ──► checks: linearizable, exactly once, nothing lost
//!      │
//!   node 1 ◄─ proxies ─► node 2      each a process with a separate file system, where that is possible
//!      └────► node 3 ◄────┘
//!      ▲
//!   nemesis: one fault after another, drawn from a shuffled deck of kinds
//! ```
//!
//! | file | content |
//! | --- | --- |
//! | `stream`, `link_faults`, `proxy`, `network` | the links between nodes |
//! | `home`, `node`, `cluster` | the nodes and their disks |
//! | `kinds`, `probe`, `faults`, `operator`, `nemesis` | the faults and changes, and their schedule |
//! | `caller`, `clients`, `counters`, `history`, `gaps` | the load and its records |
//! | `ending`, `logs` | the checks at the end |
//! | `campaign`, `report` | a run from its beginning to its end |

mod caller;
mod campaign;
mod clients;
mod cluster;
mod counters;
mod ending;
mod faults;
mod gaps;
mod history;
mod home;
mod kinds;
mod link_faults;
mod logs;
mod nemesis;
mod network;
mod node;
mod operator;
mod probe;
mod proxy;
mod report;
mod stream;

pub use campaign::{Campaign, Mix};
pub use gaps::GapSummary;
pub use kinds::Kind;
pub use probe::Abilities;
pub use report::Report;

/// An invariant that was violated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The rule that should have held.
    pub rule: &'static str,
    /// The observation that contradicts it.
    pub what: String,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.rule, self.what)
    }
}
