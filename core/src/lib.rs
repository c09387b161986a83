//! Raft consensus, a key-value state machine, a proxy and a client protocol, sans-IO: none of them
//! does any I/O.
//!
//! Everything here is a function: (state, now, inputs) → outputs. The core never reads a clock, a
//! file or a socket, never starts a thread, draws random numbers only from a generator that the
//! caller has seeded, and never iterates a hash map. So the same inputs always give the same
//! outputs, and one core serves every runtime: an async executor, threads, and a simulator that
//! injects faults.
//!
//! ```text
//!   client's bytes                                                    messages of peers
//!        │  ▲                                                                │  ▲
//!        ▼  │                                                                ▼  │
//!  protocol::Connection ── Request ──► proxy::Proxy ── Request ──► Replica: raft::Node + kv::State
//!                       ◄── Reply ────              ◄── Answer ──            │  ▲
//!                                                                            ▼  │
//!                                                                  Persist ──► disk ──► Persisted
//! ```
//!
//! | module | what it is | which modules it knows |
//! | --- | --- | --- |
//! | [`raft`] | consensus on a log of opaque payloads: usable alone | none |
//! | [`kv`] | the key-value state machine and the exactly-once sessions | none |
//! | [`Replica`] | a Raft node with its state machine: the part that a runtime drives | `raft`, `kv` |
//! | [`memory`] | the memory budget: which connections are closed when clients make a server hold too much | [`Request`] |
//! | [`host`] | decisions that all runtimes share | all of them |
//! | [`proxy`] | routing: which node a request goes to, and when it goes to another | [`Request`] and [`Answer`] |
//! | [`protocol`] | JSON lines to requests, replies to JSON lines | [`Request`] and [`proxy::Reply`] |
//!
//! # Driving a replica
//!
//! A runtime collects everything that arrives, hands all of it to one [`Replica::step`], and
//! carries out the outputs in order. Every output may be carried out at once: a vote, an
//! acknowledgement or an answer that depends on the disk is held back inside the replica until the
//! runtime reports the write as durable with [`Input::Persisted`]. Time is an argument
//! ([`Instant`]); [`Replica::deadline`] says when the next step is due if nothing arrives.
//!
//! ```
//! use std::time::Duration;
//!
//! use coracle_core::kv::{Command, Key, Outcome, Value};
//! use coracle_core::raft::{Config, NodeId, Restored, Voters};
//! use coracle_core::{Answer, Input, Instant, Output, Replica, Request, RequestId};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // A cluster of one, on a disk that is always done at once.
//! let voters = Voters::new([NodeId(0)]).ok_or("a cluster has one to nine voters")?;
//! let config = Config::new(NodeId(0), voters);
//! let mut now = Instant::from_micros(0);
//! let mut replica = Replica::new(config, Restored::default(), 42, now)?;
//!
//! let put = Command::Put { key: Key::new("snack")?, value: Value::from_json(r#""chips""#)? };
//! let mut inputs = Vec::new();
//! let mut outputs = Vec::new();
//! let mut asked = false;
//! let outcome = 'served: loop {
//!     replica.step(now, &mut inputs, &mut outputs);
//!     for output in outputs.drain(..) {
//!         match output {
//!             Output::Persist(persist) => inputs.push(Input::Persisted(persist.id)),
//!             Output::Answer(_, Answer::Applied { outcome, .. }) => break 'served outcome,
//!             Output::Event(event) => println!("{event}"),
//!             _ => {}
//!         }
//!     }
//!     if inputs.is_empty() {
//!         now = now.max(replica.deadline()) + Duration::from_micros(1);
//!     }
//!     if replica.status().leader.is_some() && !asked {
//!         asked = true;
//!         inputs.push(Input::Request(RequestId(1), Request::write(put.clone())));
//!     }
//! };
//! assert_eq!(outcome, Outcome::Done);
//! assert_eq!(replica.store().value("snack").map(Value::as_json), Some(r#""chips""#));
//! # Ok(())
//! # }
//! ```
//!
//! # Errors and panics
//!
//! A step returns no error. A client's mistake gets an error reply, a malformed message of a peer
//! is dropped and reported as a [`raft::Event`], and a bug in the core is a panic: assertions are
//! on in release builds, because a wrong answer is worse than none.

pub mod access;
pub mod host;
pub mod kv;
pub mod memory;
// Public for the simulators alone, and empty without the feature `mutants`.
#[doc(hidden)]
pub mod mutant;
pub mod peer;
pub mod protocol;
pub mod proxy;
pub mod raft;

mod identity;
mod replica;
mod time;

pub use host::{Settings, SettingsError};
pub use identity::{ClusterId, Incarnation, KnownCluster};
pub use replica::{
    APPLY_BYTES_MAX, Answer, BACKUP_HOLD_MAX, BACKUP_TIMEOUT, BackupPiece, HELD_BACK_BYTES_MAX, Input,
    LOOK_UPS_MAX, MemberChange, MemberOrder, NodeView, ORDER_TIMEOUT, Output, PARSED_BYTES_MAX,
    PROGRESS_INTERVAL, READ_TIMEOUT, Replica, ReplicaError, ReplicaLimits, Request, RequestId,
    RequestRefusal, RestoredState, SNAPSHOT_PART_BYTES, SnapshotPolicy, Status, VIEW_BYTES_MAX, VIEW_TIMEOUT,
    VIEWS_MAX, WatchAnswer, WatchLimits, WatchPart, WatchRequest,
};
pub use time::Instant;
