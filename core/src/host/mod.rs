//! Hosts: what every runtime decides alike, without I/O.
//!
//! A runtime carries bytes, messages and time. Between the machines of this crate and a runtime stand hosts: plain state
//! machines that are handed events or the time and answer with what to do. The simulator drives the same ones, so a rule that
//! stands here is a rule that is tested.
//!
//! | file | decides |
//! | --- | --- |
//! | `node` | what one turn takes from the inbox, what becomes of a replica's outputs, which configuration is followed |
//! | `router` | which connection or caller a reply belongs to, when a majority is lost, when a stop is done |
//! | `forward` | which requests of other nodes are accepted, and under which number requests are forwarded |
//! | `snapshots` | what becomes of snapshots in memory |
//! | `settings` | what a cluster is told before it starts |
//! | `wait` | when a waiting driver arms its timer, and when its deadline is due |

mod forward;
mod node;
mod router;
mod settings;
mod snapshots;
mod wait;

pub use forward::{FORWARDED_MAX, Forwarded, Forwarder};
pub use node::{HostInput, NodeAction, NodeHost, TURN_INPUTS_MAX};
pub use router::{Router, RouterAction, RouterInput};
pub use settings::{Settings, SettingsError};
pub use snapshots::{SnapshotOrder, snapshot_written};
pub use wait::{NextWait, Wait};
