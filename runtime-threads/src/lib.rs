//! Runs Coracle on std threads: some nodes, the proxy before them, and a listener.
//!
//! ```text
//!   listener ──► connection (one reader and one writer thread per client)
//!                    │  ▲
//!                    ▼  │
//!                  proxy ◄────────── Client, for callers in this process
//!                    │  ▲
//!                    ▼  │
//!                  node × N ◄──────► peers: the other nodes' inboxes
//!                    │  ▲
//!                    ▼  │
//!     disk × N, snapshots × N ─────► log00.txt, meta0.txt, snap0.txt, …
//! ```
//!
//! Every box is a thread that owns its state, and every arrow a channel.
//!
//! Deliberately not here: any rule of consensus, of the protocol or of the files. Those are `coracle-core` and
//! `coracle-storage`; this crate carries bytes, messages and time between them. Its files have the same names as those of
//! `coracle-runtime-smol`, so that a diff of the two folders shows async against threads and nothing else. One file is
//! more: `inbox`, because a std channel does not tell how full it is.
//!
//! ```
//! use coracle_core::Settings;
//! use coracle_core::kv::{Key, Value};
//! use coracle_runtime_threads::{Cluster, Options};
//! use coracle_storage::Medium;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let options = Options { settings: Settings::default(), medium: Medium::Memory, listen: None };
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
mod disk;
mod events;
mod founding;
mod inbox;
mod link;
mod listener;
mod member;
mod network;
mod node;
mod peer_listener;
mod peers;
mod proxy;
mod snapshots;
mod threads;
mod wiring;

pub use client::Client;
pub use cluster::{Cluster, Options, StartError};
pub use member::{Member, MemberFailure, MemberOptions};
