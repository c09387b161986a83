//! Chaos: a cluster of real processes, with everything around it broken on purpose, from a seed.
//!
//! A seed decides which faults strike, in which order, for how long, and what clients ask. What the
//! machine makes of it no seed decides, so a run that fails may pass the next time; the schedule,
//! the histories and the files are kept.
//!
//! ```text
//!   clients ── history, counters ──► checks: linearizable, exactly once, nothing lost
//!      │
//!   node 1 ◄─ proxies ─► node 2      each a process with a file system of its own, where that is possible
//!      └────► node 3 ◄────┘
//!      ▲
//!   nemesis: one fault after another, drawn from a shuffled deck of kinds
//! ```
//!
//! | file | what |
//! | --- | --- |
//! | `stream`, `weather`, `proxy`, `network` | the ways between nodes |
//! | `home`, `node`, `cluster` | the nodes and their disks |
//! | `kinds`, `probe`, `faults`, `operator`, `nemesis` | what is broken or changed, and when |
//! | `caller`, `clients`, `counters`, `history`, `gaps` | the load, and what it remembers |
//! | `ending`, `logs` | what must be true at the end |
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
mod logs;
mod nemesis;
mod network;
mod node;
mod operator;
mod probe;
mod proxy;
mod report;
mod stream;
mod weather;

pub use campaign::{Campaign, Mix};
pub use gaps::GapSummary;
pub use kinds::Kind;
pub use probe::Abilities;
pub use report::Report;

/// Something that must never be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// What should have held.
    pub rule: &'static str,
    /// What was seen instead.
    pub what: String,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.rule, self.what)
    }
}
