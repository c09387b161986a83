//! Starts a node: its driver, and with files its disk and its snapshots.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;

use coracle_core::host::NodeHost;
use coracle_core::raft::{Config, NodeId, Restored};
use coracle_core::{Replica, ReplicaLimits, SNAPSHOT_PART_BYTES};
use coracle_storage::asynchronous::Folder;
use coracle_storage::host::{DiskQueue, SnapshotWork, StartError};
use coracle_storage::{Happening, Recovery};
use smol::{LocalExecutor, Task};

use crate::clock::Clock;
use crate::disk;
use crate::events::Events;
use crate::mailbox::{Receiver, Sender, mailbox};
use crate::node::{Files, NodeDriver, NodeInput};
use crate::peers::Peers;
use crate::proxy::ProxyEvent;
use crate::snapshots;

/// The folder of a node with files, and what was found in it.
pub(crate) struct FileStart {
    pub(crate) path: PathBuf,
    pub(crate) recovery: Recovery,
}

/// What every node is connected to.
pub(crate) struct Wiring<'a> {
    pub(crate) executor: &'a Rc<LocalExecutor<'static>>,
    pub(crate) inboxes: &'a BTreeMap<NodeId, Sender<NodeInput>>,
    pub(crate) peers: &'a Peers,
    pub(crate) proxy: &'a Sender<ProxyEvent>,
    pub(crate) events: &'a Events,
    pub(crate) clock: Clock,
    pub(crate) limits: ReplicaLimits,
}

impl Wiring<'_> {
    /// Starts a node, with its disk and its snapshots if it has files.
    pub(crate) fn start_node(
        &self,
        config: Config,
        start: Option<FileStart>,
        inbox: Receiver<NodeInput>,
    ) -> Result<Vec<Task<()>>, StartError> {
        let id = config.id;
        let mut tasks = Vec::new();
        let (restored, files) = match start {
            None => (Restored::default(), None),
            Some(FileStart { path, recovery }) => {
                // The log and the snapshots are written side by side, so there are two ways to the folder.
                let (log_folder, snapshot_folder) = (Folder::new(&path), Folder::new(&path));
                for notice in recovery.notices {
                    self.events.tell(id, Happening::Notice(notice));
                }
                let (persists, to_do) = mailbox();
                let node = self.inboxes[&id].clone();
                let queue = DiskQueue::new(recovery.planner);
                tasks.push(self.executor.spawn(disk::run(log_folder, queue, to_do, node)));
                let snapshot_work = SnapshotWork::new(recovery.snapshots, SNAPSHOT_PART_BYTES);
                let (orders, to_do) = mailbox();
                let node = self.inboxes[&id].clone();
                let work = snapshots::run(snapshot_folder, snapshot_work, to_do, node, self.clock);
                tasks.push(self.executor.spawn(work));
                (recovery.restored, Some(Files { persists, snapshots: orders }))
            }
        };
        let replica =
            Replica::with_limits(config, restored, fastrand::u64(..), self.clock.now(), self.limits)
                .map_err(|cause| StartError::Node { node: id, cause })?;
        let host = if files.is_some() {
            NodeHost::with_files(id, replica)
        } else {
            NodeHost::in_memory(id, replica)
        };
        let driver = NodeDriver {
            host,
            inbox,
            files,
            peers: self.peers.clone(),
            proxy: self.proxy.clone(),
            events: self.events.clone(),
            clock: self.clock,
            resigning: None,
        };
        tasks.push(self.executor.spawn(driver.run()));
        Ok(tasks)
    }
}
