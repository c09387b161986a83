//! The key-value state machine: what the log's commands do to a map from keys to JSON values.
//!
//! It is deterministic: the same commands in the same order give the same map and the same outcomes on every
//! replica. It knows nothing of Raft; `Replica` feeds it.

mod command;
mod store;
mod text;

pub use command::{Command, Operation};
pub use store::{Found, Outcome, Page, Query, Scan, Store};
pub use text::{KEY_BYTES_MAX, Key, KeyError, NESTING_MAX, VALUE_BYTES_MAX, Value, ValueError};

pub(crate) use text::push_json_string;
