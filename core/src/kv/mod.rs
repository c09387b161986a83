//! The key-value state machine: what the log's commands do to a map from keys to JSON values.
//!
//! It is deterministic: the same commands in the same order give the same map and the same outcomes
//! on every replica. It knows nothing of Raft; `Replica` feeds it.
//!
//! | file | topic |
//! | --- | --- |
//! | `text` | keys and values |
//! | `session` | what a client says about a write to send it again without harm |
//! | `command` | writes, and their form in the log |
//! | `checked` | text of files that is exactly what this program writes |
//! | `store` | the map, and what is done to it |
//! | `map`, `table` | how it is kept: a hash table for look-ups, a tree for the order |
//! | `frozen` | the map as it was at one moment, read piece by piece |
//! | `sessions` | what became of the clients' last writes |
//! | `state` | both together |

mod checked;
mod command;
mod frozen;
mod map;
mod session;
mod sessions;
mod state;
mod store;
mod table;
mod text;

pub use checked::{StateLineError, StateLines, TextFault};
pub use command::{Command, LoggedWrite, Operation, Write};
pub use session::{CLIENT_BYTES_MAX, ClientName, LoggedSession, SEQ_MAX, Session, SessionError};
pub use sessions::{
    CLIENT_MEMORY_BYTES_MAX, EXPIRED_MAX, SESSION_BYTES_MAX, SESSION_WINDOW, SESSIONS_MAX, SessionLimits,
    SessionLineError, Sessions,
};
pub use state::State;
pub use store::{Found, Outcome, Page, Query, Scan, Store};
pub use text::{KEY_BYTES_MAX, Key, KeyError, NESTING_MAX, VALUE_BYTES_MAX, Value, ValueError};

pub(crate) use text::{may_need_escape, push_json_string};
