//! Storage: the files of a Coracle node, their formats, and the translation between them and the
//! core in both directions.
//!
//! ```text
//!             Persist                          FileOp
//!   core ───────────────► Planner::plan ─────────────────► an executor ───► log00.txt, meta0.txt
//!    ▲  │                                                                           │
//!    │  │  SnapshotPart                       FileOp                                │
//!    │  └───────────────► SnapshotPlanner ───────────────► an executor ───► snap0.txt
//!    │                                                                              │
//!    │  Restored                            repairs: FileOp                         │ bytes
//!    └────────────────── survey, recover ─────────────────► an executor             │
//!                               ▲                                                   │
//!                               └───────────────────────────────────────────────────┘
//! ```
//!
//! Planning and recovery do no I/O and draw no random numbers. A simulator drives them on simulated
//! files, and may cut the power at every [`FileOp`] boundary. The two executors,
//! [`blocking::Folder`] and [`asynchronous::Folder`], carry the operations out and decide nothing.
//!
//! Besides files, this crate has the socket options that both runtimes set, in [`sockets`].
//!
//! A runtime takes these steps in this order: take the [`FolderLock`]; read the files; [`survey()`]
//! them; carry out the creation and then every node's repairs, and report the notices; then carry
//! out the work of a [`host::DiskQueue`], and report the persists that it returns as durable; at an
//! orderly shutdown, carry out its closing operations. After a [`FileError`] the node stops and
//! sends nothing more.
//!
//! Snapshots are written concurrently, through a separate folder value and maybe on another thread:
//! plan and carry out one part after the other; after the last, read [`SnapshotPlanner::temporary`]
//! back, carry out [`SnapshotPlanner::publish`], and only then report the snapshot. To send a
//! snapshot, read its parts with [`blocking::Folder::read_part`].
//!
//! ```
//! use coracle_core::raft::{BatchBuilder, HardState, LogChange, LogIndex, LogPoint, NodeId, Persist, PersistId, Term};
//! use coracle_storage::{ClusterId, FolderLock, Identity, Incarnation, SyncPolicy, blocking, survey};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let place = tempfile::tempdir()?;
//! let _lock = FolderLock::acquire(place.path())?;
//! let mut folder = blocking::Folder::new(place.path());
//!
//! // The first start founds a cluster of one node. Real identities need random numbers.
//! let fresh = Identity::for_new_cluster(ClusterId(1), &[Incarnation(2)]);
//! let files = vec![folder.read(NodeId(0))?];
//! let mut start = survey(files, &fresh, SyncPolicy::Always)?;
//! folder.run(&start.creation)?;
//!
//! // One group of one persist: a new term, and its first entry.
//! let mut batch = BatchBuilder::new(LogPoint::ORIGIN);
//! batch.seal(Term(1), |text| text.push_str("\"op\":\"NOOP\""));
//! let persist = Persist {
//!     id: PersistId(1),
//!     hard_state: Some(HardState { current_term: Term(1), voted_for: Some(NodeId(0)) }),
//!     log: LogChange::append(batch.finish().into_iter().collect()),
//!     floor: LogIndex::ORIGIN,
//! };
//! folder.run(&start.nodes[0].planner.plan(&[persist]))?;
//!
//! // The next start recovers both.
//! let files = vec![folder.read(NodeId(0))?];
//! let again = survey(files, &fresh, SyncPolicy::Always)?;
//! assert_eq!(again.nodes[0].restored.hard_state.current_term, Term(1));
//! assert_eq!(again.nodes[0].restored.log[0].last().index, LogIndex(1));
//! # Ok(())
//! # }
//! ```

pub mod asynchronous;
mod backup;
pub mod blocking;
mod content;
mod evidence;
mod execution;
mod files;
mod header;
pub mod host;
mod identity;
mod lock;
mod medium;
mod member;
mod meta;
pub mod plan;
pub mod recover;
mod reserve;
mod salvage;
pub mod scan;
mod sealed;
pub mod snapshot;
pub mod sockets;
pub mod survey;
#[cfg(test)]
mod testing;
pub mod tokens;

pub use backup::{BackupBroken, BackupSum, backup_header, first_member, restore};
pub use content::ContentError;
pub use execution::{FileError, Operation};
pub use files::{FileKind, FileName, FileOp, NodeFiles, SyncPolicy};
pub use header::LogHeader;
pub use identity::{ClusterId, Identity, Incarnation};
pub use lock::{FolderLock, LockError};
pub use medium::{DiskError, HostEvent, Medium, NodeEvent};
pub use member::{MemberError, MemberStart, found_member, open_member};
pub use meta::{META_FORMAT, Meta};
pub use plan::{GROUP_BYTES_MAX, Planner, REWRITE_PIECE_BYTES};
pub use recover::{Notice, RecoverError, Recovery, recover};
pub use salvage::Salvage;
pub use scan::{Damage, LogScan, TornTail, Verdict};
pub use sealed::SealedLineError;
pub use snapshot::{
    PartProgress, PartReader, PartWanted, PublishError, ReadPartError, SNAPSHOT_FORMAT, SNAPSHOT_SYNC_BYTES,
    SnapshotError, SnapshotFile, SnapshotHeader, SnapshotPlanner, rest_after,
};
pub use survey::{LostNodes, Survey, SurveyError, Surveyor, survey};
