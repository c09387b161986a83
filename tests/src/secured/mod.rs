//! TLS sessions on faulty streams: two real sessions in memory, and a stream between them that
//! flips, drops, doubles, inserts and cuts bytes.
//!
//! Property: whatever happens to the encrypted bytes, the plaintext that arrives is a prefix of
//! what was sent, an end in order means that all of it has arrived, and the other end is the one
//! whose certificate this is, or none.
//!
//! The simulator's network carries whole messages in any order, as the core allows, so there is no
//! stream in it that could be encrypted. This model has the stream and nothing else. It runs a
//! thousand times as fast as a cluster would, and its decisions depend on a seed alone; only the
//! keys of the sessions, and with them the encrypted bytes, differ from run to run.
//!
//! | file | topic |
//! | --- | --- |
//! | `credentials` | certificates, made once per process |
//! | `conversation` | two sessions, the streams between them, and the property |
//! | `campaign` | random faults under frames of nodes, by seeds |

mod campaign;
mod conversation;
mod credentials;

pub use campaign::{Counts, run_seed};
pub use conversation::{Conversation, Damage, End, Kind};
pub use credentials::{Credentials, credentials};

#[cfg(test)]
mod tests;
