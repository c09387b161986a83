//! The client protocol: one JSON object per line in each direction, as a state machine over bytes.
//!
//! | file | topic |
//! | --- | --- |
//! | `line` | splitting bytes into lines of limited length |
//! | `other_protocols` | detection of HTTP, TLS and others, whose connections end at once |
//! | `request` | parsing and validation of a request line |
//! | `permission` | what each request needs, and whether the client's grant covers it |
//! | `plain` | a fast path for the two plain requests |
//! | `footprint` | which pipelined requests must not overtake one another |
//! | `reply` | encoding of reply lines |
//! | `connection_watches` | the watches of one client: which part is asked for next |
//! | `event_lines` | encoding of the lines of watches |
//! | `memory_sizes` | how much memory a reply takes |
//! | `backup` | the requests and replies of a backup |
//! | `connection` | one client: requests in, replies out in the order of the requests |
//!
//! Bad input gets one error line and has no other effect: no input of a client causes a panic here,
//! and every buffer has a limit. Sockets and timers belong to the runtimes.

mod backup;
mod connection;
mod connection_watches;
mod event_lines;
mod footprint;
mod line;
mod members;
mod memory_sizes;
mod other_protocols;
mod permission;
mod plain;
mod reply;
mod request;

pub use connection::{CONNECTION_BYTES_MAX, Connection, IDLE_LINE, PIPELINE_MAX};
pub use connection_watches::{CONNECTION_WATCHES_MAX, WATCH_PART_BYTES};
pub use line::LINE_BYTES_MAX;
pub use members::{SCAN_BYTES_MAX, SCAN_ITEMS_DEFAULT, SCAN_ITEMS_MAX};
pub use other_protocols::{is_binary, refusal_of_plain_text};
pub(crate) use other_protocols::{is_greeting, refusal_at_peer_port};
pub use reply::{busy_line, given_up_line};
