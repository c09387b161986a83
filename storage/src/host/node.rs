//! A node's start, its inbox and its end: the parts that a runtime builds a node from, the inputs
//! that it feeds the node with, and the reasons why it stops.
//!
//! A node is a [`NodeHost`] and, with files, a [`DiskQueue`] and a [`SnapshotWork`]. All three
//! start from the state found when the folder was opened, with settings that were checked before
//! the folder was touched.

use std::path::PathBuf;
use std::sync::Arc;

use coracle_core::host::{HostInput, NodeHost};
use coracle_core::memory::MemoryBudget;
use coracle_core::raft::{Config, NodeId};
use coracle_core::{Input, Instant, ReplicaLimits, SNAPSHOT_PART_BYTES};

use super::{DiskQueue, FileStart, SnapshotWork, StartError};
use crate::medium::{DiskError, NodeEvent};

/// The state and the settings that a node starts from.
#[derive(Debug)]
pub struct NodeStart {
    pub(super) config: Config,
    pub(super) limits: ReplicaLimits,
    /// `None`: the node keeps its state in memory.
    pub(super) files: Option<FileStart>,
}

/// A node that is ready to run.
#[derive(Debug)]
pub struct StartedNode {
    /// The state machine of the node.
    pub host: NodeHost,
    /// The work on its files, if it has any.
    pub files: Option<FileWork>,
}

/// The work on a node's files. Log and snapshots are written concurrently, each through a separate
/// folder value.
#[derive(Debug)]
pub struct FileWork {
    /// The data folder.
    pub path: PathBuf,
    /// The group commit of the log.
    pub log: DiskQueue,
    /// The work on snapshots.
    pub snapshots: SnapshotWork,
}

impl NodeStart {
    /// The id of the node.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.config.id
    }

    /// Returns what a start found and repaired in the files, for the operator. Empty on a second
    /// call.
    #[must_use]
    pub fn notices(&mut self) -> Vec<NodeEvent> {
        let notices = self.files.as_mut().map(|files| std::mem::take(&mut files.recovery.notices));
        notices.unwrap_or_default().into_iter().map(NodeEvent::Notice).collect()
    }

    /// Creates the node, whose memory use counts towards `memory`.
    ///
    /// # Errors
    ///
    /// [`StartError::Node`] when it cannot start from what is in its files.
    pub fn start(self, seed: u64, now: Instant, memory: MemoryBudget) -> Result<StartedNode, StartError> {
        let node = self.config.id;
        let (restored, files) = match self.files {
            None => (None, None),
            Some(FileStart { path, recovery, state }) => {
                let log = DiskQueue::new(recovery.planner);
                let snapshots = SnapshotWork::new(recovery.snapshots, SNAPSHOT_PART_BYTES);
                (Some((recovery.restored, state)), Some(FileWork { path, log, snapshots }))
            }
        };
        let host = NodeHost::start(self.config, restored, seed, now, self.limits)
            .map_err(|cause| StartError::Node { node, cause })?
            .with_memory(memory);
        Ok(StartedNode { host, files })
    }
}

/// An item in a node's inbox.
#[derive(Debug)]
pub enum NodeInput {
    /// An input for the node's host.
    Host(HostInput),
    /// The node has to end at once, regardless of later items.
    End(NodeEnd),
}

/// Why a node ends.
#[derive(Clone, Debug)]
pub enum NodeEnd {
    /// It was asked to stop.
    Stopped,
    /// Its files failed.
    DiskFailed(Arc<DiskError>),
}

impl NodeInput {
    /// The number of bytes of a peer's frames that this item takes up in an inbox.
    #[must_use]
    pub fn peer_bytes(&self) -> usize {
        match self {
            Self::Host(input) => input.peer_bytes(),
            Self::End(_) => 0,
        }
    }
}

impl From<HostInput> for NodeInput {
    fn from(input: HostInput) -> Self {
        Self::Host(input)
    }
}

impl From<Input> for NodeInput {
    fn from(input: Input) -> Self {
        Self::Host(HostInput::Core(input))
    }
}

impl<E: Into<DiskError>> From<E> for NodeEnd {
    fn from(error: E) -> Self {
        Self::DiskFailed(Arc::new(error.into()))
    }
}

#[cfg(test)]
mod tests {
    use coracle_core::Settings;

    use super::*;
    use crate::files::{NodeFiles, SyncPolicy};
    use crate::host::{ClusterOpening, FolderNames};
    use crate::medium::Medium;

    fn starts(medium: &Medium) -> Vec<NodeStart> {
        let mut opening = ClusterOpening::new(&Settings::default(), medium).unwrap();
        if let Medium::Folder { .. } = medium {
            opening.nodes().iter().for_each(|_| opening.look(&NodeFiles::default()));
        }
        let mut found = opening.judge(&FolderNames::default()).unwrap();
        let _ = found.operations();
        found.opened()
    }

    fn start(start: NodeStart) -> StartedNode {
        start.start(7, Instant::default(), MemoryBudget::unlimited()).unwrap()
    }

    #[test]
    fn a_node_with_files_has_work_on_its_log_and_snapshots() {
        let in_memory = starts(&Medium::Memory);
        let in_files = starts(&Medium::Folder { path: "/data".into(), sync: SyncPolicy::Always });
        assert_eq!((in_memory.len(), in_files.len()), (5, 5));
        assert_eq!(in_files.iter().map(|start| start.id().0).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
        assert!(in_memory.into_iter().map(start).all(|node| node.files.is_none()));
        for node in in_files.into_iter().map(start) {
            assert_eq!(node.files.unwrap().path, PathBuf::from("/data"));
        }
    }
}
