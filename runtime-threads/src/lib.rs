//! Runtime on std threads: runs nodes, the proxy before them, and a listener.
//!
//! ```text
//!   listener ──► connection (one reader and one writer thread per client)
//!                    │  ▲
//!                    ▼  │
//!                  router ◄───────── Client, for callers in this process
//!                    │  ▲
//!                    ▼  │
//!                  node × N ◄──────► peers: the other nodes' inboxes
//!                    │  ▲
//!                    ▼  │
//!     disk × N, snapshots × N ─────► log00.txt, meta0.txt, snap0.txt, …
//! ```
//!
//! Every box is a thread that owns its state, and every arrow a channel. The figure shows a
//! [`Cluster`]. A [`Member`] is one node of a cluster of processes: instead of the other nodes'
//! inboxes it has a network.
//!
//! ```text
//!            router ◄────────────┐
//!            │  ▲                │ answers
//!            ▼  │                │
//!            node ◄───────── peer connection × (N - 1) ◄── TCP ◄── the others' links
//!            │  ▲                ▲
//!            │  └─ startup       └── peer listener
//!            ▼
//!          network ──────────► link × (N - 1) ──────────► TCP ──► the others' peer listeners
//! ```
//!
//! The startup thread finds the cluster, starts the node and ends. A link dials one other node and
//! sends the messages that wait for it; beside each link a *receipts* thread reads receipts and
//! notices when the peer closes the connection.
//!
//! Deliberately not here: decisions. The hosts of `coracle-core` and `coracle-storage` make them;
//! this crate moves bytes, messages and time between them. Its files have the same names as those
//! of `coracle-runtime-smol`, so that a diff of the two folders shows only the differences in
//! sockets, tasks or threads, and timers. Two files are extra: `inbox`, because a std channel
//! cannot report how full it is, and `threads`, because a thread cannot be dropped.
//!
//! ```
//! use coracle_runtime_threads::{Cluster, Key, Medium, Options, Settings, Value};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let options = Options { settings: Settings::default(), medium: Medium::Memory, listen: None, admin_listen: None };
//! let cluster = Cluster::start(options)?;
//! let client = cluster.client();
//! let snack = Key::new("snack")?;
//! client.put(snack.clone(), Value::from_json(r#""chips""#)?)?;
//! let found = client.get(snack)?;
//! assert_eq!(found.as_ref().map(Value::as_json), Some(r#""chips""#));
//! cluster.stop();
//! # Ok(())
//! # }
//! ```

mod alarm;
mod client;
mod clock;
mod cluster;
mod connection;
mod files;
mod founding;
mod front;
mod inbox;
mod inputs;
mod link;
mod listener;
mod member;
mod network;
mod node;
mod peer_listener;
mod peers;
mod proxy;
mod secured;
mod threads;
mod wiring;

pub use client::Client;
pub use cluster::Cluster;
// The types that a program meets first, so that it needs no other crate of the workspace.
pub use coracle_core::Settings;
pub use coracle_core::kv::{ClientName, Command, Key, Outcome, Page, Scan, Session, Value};
pub use coracle_core::proxy::{NodeReport, RequestError};
pub use coracle_core::raft::{LogIndex, NodeId};
pub use coracle_storage::host::{MemberFailure, MemberOptions, Options, StartError};
pub use coracle_storage::{HostEvent, Medium, NodeEvent, SyncPolicy};
pub use coracle_tls::Protection;
pub use member::Member;

/// Runs the program of the README as a documentation test.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
