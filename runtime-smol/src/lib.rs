//! Runtime on [`smol`]: runs nodes, the proxy before them, and a listener on one single-threaded
//! executor.
//!
//! ```text
//!   listener ──► connection (one reader and one writer task per client)
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
//! Every box is a task that owns its state, and every arrow a channel. All tasks run on one
//! executor, in one thread. Blocking calls run elsewhere: `async-io`, below smol, has one helper
//! thread that waits for sockets and timers, and a small pool of threads reads and writes files and
//! checks snapshots that were read back. None of these threads holds Coracle's state.
//!
//! Deliberately not here: decisions. The hosts of `coracle-core` and `coracle-storage` make them;
//! this crate moves bytes, messages and time between them. Its files have the same names as those
//! of `coracle-runtime-threads`, so that a diff of the two folders shows only the differences in
//! sockets, tasks or threads, and timers.
//!
//! ```
//! use std::rc::Rc;
//!
//! use coracle_runtime_smol::{Cluster, Key, Medium, Options, Settings, Value};
//! use smol::LocalExecutor;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let executor = Rc::new(LocalExecutor::new());
//! smol::block_on(executor.run(async {
//!     let options = Options { settings: Settings::default(), medium: Medium::Memory, listen: None, admin_listen: None };
//!     let cluster = Cluster::start(&executor, options).await?;
//!     let client = cluster.client();
//!     let snack = Key::new("snack")?;
//!     client.put(snack.clone(), Value::from_json(r#""chips""#)?).await?;
//!     let found = client.get(snack).await?;
//!     assert_eq!(found.as_ref().map(Value::as_json), Some(r#""chips""#));
//!     cluster.stop().await;
//!     Ok(())
//! }))
//! # }
//! ```

mod alarm;
mod bulk;
mod client;
mod clock;
mod cluster;
mod connection;
mod files;
mod founding;
mod front;
mod inputs;
mod link;
mod listener;
mod mailbox;
mod member;
mod network;
mod node;
mod peer_listener;
mod peers;
mod proxy;
mod secured;
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
