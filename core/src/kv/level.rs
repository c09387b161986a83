//! Levels: which kinds of log entries, snapshot lines and frames every member understands.
//!
//! A rolling upgrade runs two versions of the program in one cluster. The naive way is that a new
//! leader proposes a new kind of entry as soon as a client asks for one. An older member cannot
//! apply it, and it cannot skip it either: its map would differ from then on. So each version
//! states in its handshakes the highest level that it supports. When all members support the next
//! level, learners included, the leader proposes an entry that raises it ([`Command::RaiseLevel`]),
//! and only when that entry is applied does it propose entries of that level. From then on, no node
//! of an older version is admitted, so the level never falls.
//!
//! The entry is also where counting starts. At level 0, snapshots have no revisions, so a node that
//! restored one knows less than a node that applied the log. At the entry that raises the level,
//! each key that is older counts as changed and created by that entry, on every node alike.
//!
//! | level | entries and members |
//! | --- | --- |
//! | 0 | `PUT`, `DELETE` and `CAS` by value |
//! | 1 | revisions in snapshots and answers; `CAS` and `DELETE` by revision, `INCR`, `DELETE_PREFIX`, `TXN`; times to live and `TICK` |
//!
//! [`Command::RaiseLevel`]: super::Command::RaiseLevel

/// A level of the state machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Level(pub u64);

impl Level {
    /// The level of a cluster before any entry raises it.
    pub const FIRST: Self = Self(0);
    /// Keys have revisions and may expire.
    pub const REVISIONS: Self = Self(1);
    /// The highest level that this version supports.
    pub const MAX: Self = Self::REVISIONS;
}
