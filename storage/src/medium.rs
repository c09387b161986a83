//! Where a cluster keeps its state, and the events of its nodes.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use coracle_core::peer::PeerEvent;
use coracle_core::raft::{Event, NodeId};

use crate::{FileError, FileName, Notice, PublishError, ReadPartError, SyncPolicy};

/// Where a cluster keeps its state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Medium {
    /// In memory only: what is acknowledged is gone with the process.
    Memory,
    /// In files.
    Folder {
        /// The data folder; made when it is missing.
        path: PathBuf,
        /// Whether an acknowledged write is on disk.
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

/// Why a node's files let it down. What is on disk is unknown from then on: the node must stop.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// A file operation failed.
    #[error(transparent)]
    File(#[from] FileError),
    /// A snapshot was written, and does not count.
    #[error("{file} cannot be made the latest snapshot: {cause}")]
    Snapshot {
        /// What was written.
        file: FileName,
        /// What is wrong with it.
        cause: PublishError,
    },
    /// A snapshot that was whole when it was written cannot be read again.
    #[error(transparent)]
    SnapshotLost(#[from] ReadPartError),
}

/// What may happen to a node.
#[derive(Clone, Debug)]
pub enum NodeEvent {
    /// Something about elections and the log.
    Raft(Event),
    /// Something that was found, and mended, in its files.
    Notice(Notice),
    /// Something about its connections to other nodes.
    Peer(PeerEvent),
    /// Its files failed, and it has stopped: a write that failed is never tried again.
    Failed(Arc<DiskError>),
}

impl fmt::Display for HostEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {}: ", self.node)?;
        match &self.event {
            NodeEvent::Raft(event) => event.fmt(f),
            NodeEvent::Notice(notice) => notice.fmt(f),
            NodeEvent::Peer(event) => event.fmt(f),
            NodeEvent::Failed(error) => write!(f, "has stopped: {error}"),
        }
    }
}
