//! Life-cycle simulation of a cluster of processes: bootstrap, joining, promotion, removal, lost
//! disks, new addresses.
//!
//! The simulator in [`simulator`](crate::simulator) breaks the environment of a cluster with a
//! fixed set of nodes. Here the nodes come and go. There are *machines*, each with an address and a
//! data folder. A process runs the real hosts (opening, [`ClusterSearch`], [`Directory`], [`Link`],
//! [`Inbound`], [`NodeHost`], [`DiskQueue`]) on simulated sockets. An *operator* gives orders and
//! moves folders, as a person who follows the guide would, while machines crash and networks are
//! partitioned.
//!
//! [`ClusterSearch`]: coracle_core::host::ClusterSearch
//! [`Directory`]: coracle_core::host::Directory
//! [`Link`]: coracle_core::host::Link
//! [`Inbound`]: coracle_core::host::Inbound
//! [`NodeHost`]: coracle_core::host::NodeHost
//! [`DiskQueue`]: coracle_storage::host::DiskQueue
//!
//! ```text
//!   operator ── orders, starts, wipes ──► machine: folder ◄── disk queue ◄── node host ◄─► links ─── handshakes, frames ──► …
//!   clients ─── writes and reads ───────────────────────────────────────────────┘
//!   checks: after every turn of every process, at every answer, whenever a process ends
//! ```
//!
//! | file | topic |
//! | --- | --- |
//! | `world` | the event queue, turns, and the actions of nodes |
//! | `starting` | start and end of processes |
//! | `disks` | file operations |
//! | `folders` | folders that are copied, exchanged or not mounted, and nodes without a folder |
//! | `calm` | checks after the faults have ended: members are connected, and a removed one learns of its removal |
//! | `forger` | forged messages, which no node may act on |
//! | `forwarding` | requests that a node forwards to the leader |
//! | `machine` | an address, a folder, and a process |
//! | `wiring` | dialing, handshakes, frames |
//! | `refusals` | checks that rejections in handshakes are valid |
//! | `operator` | the actions of a person who operates the cluster, and the faults |
//! | `memory` | processes with little memory, whose buffers for one another are counted and limited |
//! | `mistakes` | the operator's mistakes |
//! | `orders` | membership orders, and checks of their answers |
//! | `clients` | numbered writes and reads, each checked against the committed log |
//! | `checks` | the invariants |
//! | `restores` | backups, and the cluster that is restored from one |
//! | `run` | faults, then recovery, then the verdict |

mod calm;
mod checks;
mod clients;
mod disks;

mod folders;
mod forger;
mod forwarding;
mod machine;
mod memory;
mod mistakes;
mod operator;
mod orders;
mod refusals;
mod restores;
mod run;
mod starting;
mod wiring;
mod world;

pub use run::{LifeReport, run_seed};
