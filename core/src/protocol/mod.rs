//! The client protocol: one JSON object per line in each direction, as a state machine over bytes.
//!
//! | file | topic |
//! | --- | --- |
//! | `line` | cutting bytes into lines, with a limit |
//! | `other_protocols` | connections of HTTP, TLS and others, which end at once |
//! | `request` | what a line asks for, or why it is refused |
//! | `plain` | the same for the two plain requests, the short way |
//! | `footprint` | which requests of one connection must not overtake one another |
//! | `reply` | the line that answers it |
//! | `backup` | the lines of a backup |
//! | `connection` | one client: requests in, replies out in the order of the requests |
//!
//! Bad input gets one error line and harms nobody: nothing here panics on what a client sends, and
//! every buffer has a limit. Sockets and time are the runtime's.

mod backup;
mod connection;
mod footprint;
mod line;
mod other_protocols;
mod plain;
mod reply;
mod request;

pub use connection::{CONNECTION_BYTES_MAX, Connection, IDLE_LINE, PIPELINE_MAX};
pub use line::LINE_BYTES_MAX;
pub use other_protocols::is_binary;
pub(crate) use other_protocols::{is_greeting, refusal_at_peer_port};
pub use reply::{busy_line, given_up_line};
pub use request::{SCAN_BYTES_MAX, SCAN_ITEMS_DEFAULT, SCAN_ITEMS_MAX};
