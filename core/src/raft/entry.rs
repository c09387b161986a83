//! A log entry: its encoding as one line, the same on disk and on the wire, and its kind.
//!
//! An entry is encoded once, by the leader that appends it:
//!
//! ```text
//! {"index":7,"term":2,"op":"PUT","key":"snack","value":"chips","crc":"9a3c01ff"}
//! └────── head ─────┘ └─────────────── payload ─────────────┘ └──── tail ────┘
//! ```
//!
//! The payload belongs to the state machine and is opaque here: the members of a JSON object, as
//! text, without a line break. The head and the tail are Raft's. Once encoded, the line is only
//! copied: to the leader's disk, to the followers and to their disks. It is parsed again only when
//! it is applied.

use super::configuration::CONFIG_PREFIX;
use super::types::LogPoint;

/// The payload of the entry that every new leader appends first (§8).
pub(crate) const NOOP_PAYLOAD: &str = "\"op\":\"NOOP\"";

/// The kind of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A new leader's first entry (§8): the state machine ignores it.
    Noop,
    /// A configuration: the members of the cluster (§6).
    Config,
    /// A command for the state machine.
    Command,
}

/// An entry, borrowed from its batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Its index, term and chained checksum.
    pub point: LogPoint,
    /// The state machine's part of the line: the members of a JSON object.
    pub payload: &'a str,
    /// The number of bytes of its line, including the line break.
    pub bytes: usize,
}

impl EntryKind {
    /// The kind of an entry with this payload.
    #[must_use]
    #[inline]
    pub fn of(payload: &str) -> Self {
        if payload == NOOP_PAYLOAD {
            Self::Noop
        } else if payload.starts_with(CONFIG_PREFIX) {
            Self::Config
        } else {
            Self::Command
        }
    }
}

impl Entry<'_> {
    /// The kind of the entry.
    #[must_use]
    #[inline]
    pub fn kind(&self) -> EntryKind {
        EntryKind::of(self.payload)
    }
}
