//! Storage medium of a cluster, in memory or on disk, and the events of its nodes.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use coracle_core::peer::PeerEvent;
use coracle_core::raft::{Event, NodeId};

use crate::{FileError, FileName, Notice, PublishError, ReadPartError, SyncPolicy};

/// Where a cluster stores its state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Medium {
    /// In memory only: acknowledged writes are lost when the process ends.
    Memory,
    /// In files.
    Folder {
        /// The data folder; created if it is missing.
        path: PathBuf,
        /// Whether acknowledged writes are synced.
        sync: SyncPolicy,
    },
}

/// An event of one node, for the operator.
#[derive(Clone, Debug)]
pub struct HostEvent {
    /// The node.
    pub node: NodeId,
    /// The event.
    pub event: NodeEvent,
}

/// Why a node's files failed. The state of the disk is unknown from then on: the node must stop.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiskError {
    /// A file operation failed.
    #[error(transparent)]
    File(#[from] FileError),
    /// A snapshot was written and cannot be used.
    #[error("{file} cannot be made the latest snapshot: {cause}")]
    Snapshot {
        /// The temporary file of the snapshot.
        file: FileName,
        /// Why it cannot be used.
        cause: PublishError,
    },
    /// A snapshot that was whole when it was written cannot be read any more.
    #[error(transparent)]
    SnapshotLost(#[from] ReadPartError),
}

/// An event of a node, by its source.
#[derive(Clone, Debug)]
pub enum NodeEvent {
    /// An event of elections and the log.
    Raft(Event),
    /// A repair of the node's files at its start.
    Notice(Notice),
    /// An event of the connections to other nodes.
    Peer(PeerEvent),
    /// Its files failed and it has stopped: a write that failed is never retried.
    Failed(Arc<DiskError>),
}

impl fmt::Display for HostEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {}: ", self.node)?;
        match &self.event {
            NodeEvent::Raft(event) => event.fmt(f),
            NodeEvent::Notice(notice) => notice.fmt(f),
            NodeEvent::Peer(event) => event.fmt(f),
            NodeEvent::Failed(error) => write!(f, "stopped after a disk failure: {error}"),
        }
    }
}
