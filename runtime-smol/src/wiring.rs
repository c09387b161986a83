//! Starts a node: its driver, and with files its disk and its snapshots.

use std::rc::Rc;

use coracle_core::host::NodeHost;
use coracle_core::memory::MemoryBudget;
use coracle_core::raft::Config;
use coracle_core::{ReplicaLimits, SNAPSHOT_PART_BYTES};
use coracle_storage::NodeEvent;
use coracle_storage::asynchronous::Folder;
use coracle_storage::host::{DiskQueue, FileStart, SnapshotWork, StartError};
use smol::{LocalExecutor, Task};

use crate::clock::Clock;
use crate::events::Events;
use crate::files;
use crate::inputs::{NodeInput, ProxyEvent};
use crate::mailbox::{Receiver, Sender, mailbox};
use crate::node::{Files, NodeDriver};
use crate::peers::Peers;

/// What the parts of a process are connected to.
#[derive(Clone, Debug)]
pub(crate) struct Wiring {
    pub(crate) executor: Rc<LocalExecutor<'static>>,
    pub(crate) peers: Peers,
    pub(crate) proxy: Sender<ProxyEvent>,
    pub(crate) events: Events,
    pub(crate) clock: Clock,
    pub(crate) memory: MemoryBudget,
}

impl Wiring {
    /// Starts a node, with its disk and its snapshots if it has files.
    pub(crate) fn start_node(
        &self,
        (config, limits): (Config, ReplicaLimits),
        start: Option<FileStart>,
        (inbox, receiver): (Sender<NodeInput>, Receiver<NodeInput>),
    ) -> Result<Vec<Task<()>>, StartError> {
        let id = config.id;
        let mut tasks = Vec::new();
        let (restored, files) = match start {
            None => (None, None),
            Some(FileStart { path, recovery, state }) => {
                // The log and the snapshots are written side by side, so there are two ways to the folder.
                let (log_folder, snapshot_folder) = (Folder::new(&path), Folder::new(&path));
                for notice in recovery.notices {
                    self.events.report(id, NodeEvent::Notice(notice));
                }
                let (persists, to_do) = mailbox();
                let node = inbox.clone();
                let queue = DiskQueue::new(recovery.planner);
                tasks.push(self.executor.spawn(files::run_log(log_folder, queue, to_do, node)));
                let snapshot_work = SnapshotWork::new(recovery.snapshots, SNAPSHOT_PART_BYTES);
                let (orders, to_do) = mailbox();
                let node = inbox.clone();
                let work = files::run_snapshots(snapshot_folder, snapshot_work, to_do, node, self.clock);
                tasks.push(self.executor.spawn(work));
                (Some((recovery.restored, state)), Some(Files { persists, snapshots: orders }))
            }
        };
        let host = NodeHost::start(config, restored, fastrand::u64(..), self.clock.now(), limits)
            .map_err(|cause| StartError::Node { node: id, cause })?
            .with_memory(self.memory.clone());
        let driver = NodeDriver { host, inbox: receiver, files, wiring: self.clone(), resigning: None };
        tasks.push(self.executor.spawn(driver.run()));
        Ok(tasks)
    }
}
