//! The key-value state machine: a map from keys to JSON values, changed by the commands in the log.
//!
//! It is deterministic: the same commands in the same order give the same map and the same outcomes
//! on every replica. It does not depend on Raft; `Replica` feeds it with committed entries.
//!
//! | file | topic |
//! | --- | --- |
//! | `text` | keys and values |
//! | `session` | the session of a write: client name and sequence number, which make a retry safe |
//! | `command`, `payload` | writes, and their encoding in the log |
//! | `txn` | transactions: conditions and operations of several keys |
//! | `outcome` | what a command did |
//! | `revision` | which log entry changed and created a key |
//! | `level` | which kinds of entries all members understand |
//! | `ttl`, `expiry` | time to live, log time, and which keys expire when |
//! | `checked` | strict parsing: accepts exactly the text that this program writes |
//! | `store` | executes commands, and answers queries |
//! | `scan` | queries and their answers |
//! | `counter` | whole numbers as values |
//! | `map`, `shards`, `table` | the map's data structures: hash tables for look-ups, a tree for the order |
//! | `frozen` | a point-in-time view of the map, read in parts |
//! | `views` | the frozen views of watches |
//! | `change` | what an entry did to a key, as watchers are told |
//! | `history` | the history ring: the latest changes |
//! | `selection` | the keys that a watch is about |
//! | `session_table` | the session table, which deduplicates retried writes |
//! | `state` | the state of the state machine: map and session table |

mod change;
mod checked;
mod command;
mod counter;
mod expiry;
mod frozen;
mod history;
mod level;
mod map;
mod outcome;
mod payload;
mod revision;
mod scan;
mod selection;
mod session;
mod session_table;
mod shards;
mod state;
mod store;
mod table;
mod text;
mod ttl;
mod txn;
mod views;

pub use change::{Because, Change, ChangeEvent, ChangedEntry, Changes};
pub use checked::{StateLineError, StateLines, TextError};
pub use command::{Command, DELETE_PREFIX_KEYS_MAX, LoggedWrite, Operation, Write};
pub use history::{HISTORY_BYTES_MAX, HISTORY_EVENTS_MAX, History, HistoryLimits};
pub use level::Level;
pub use outcome::{Applied, Outcome, TxnOutcome, TxnResult};
pub use revision::{KeyMeta, Revision};
pub use scan::{Found, Item, Page, Query, Scan, ScanContent};
pub use selection::Selection;
pub use session::{CLIENT_BYTES_MAX, ClientName, LoggedSession, SEQ_MAX, Session, SessionError};
pub use session_table::{
    CLIENT_MEMORY_BYTES_MAX, EXPIRED_MAX, FINGERPRINT_KEPT_FOR, FINGERPRINTS_MAX, SESSION_BYTES_MAX,
    SESSION_WINDOW, SESSIONS_MAX, SessionLimits, SessionLineError, SessionTable,
};
pub use state::State;
pub use store::Store;
pub use text::{KEY_BYTES_MAX, Key, KeyError, NESTING_MAX, VALUE_BYTES_MAX, Value, ValueError};
pub use ttl::{LogTime, TICK_KEYS_MAX, TTL_MS_MAX, Tick, Ttl};
pub use txn::{
    Condition, Expected, TXN_BYTES_MAX, TXN_CONDITIONS_MAX, TXN_FOUND_BYTES_MAX, TXN_OPERATIONS_MAX, Txn,
    TxnError, TxnFault, TxnOperation,
};
pub use views::{ViewId, ViewItem, ViewPart};

pub(crate) use history::EVENT_BYTES;
pub(crate) use text::{given, may_need_escape, push, push_json_string};
