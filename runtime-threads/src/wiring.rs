//! Starts a node: its driver, and with files its disk and its snapshots.

use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use coracle_core::host::NodeHost;
use coracle_core::memory::MemoryBudget;
use coracle_core::raft::Config;
use coracle_core::{ReplicaLimits, SNAPSHOT_PART_BYTES};
use coracle_storage::NodeEvent;
use coracle_storage::blocking::Folder;
use coracle_storage::host::{DiskQueue, FileStart, SnapshotWork, StartError};

use crate::clock::Clock;
use crate::events::Events;
use crate::files;
use crate::inbox::{Inbox, InboxReceiver};
use crate::inputs::ProxyEvent;
use crate::node::{Files, NodeDriver};
use crate::peers::Peers;
use crate::threads::spawn;

/// What the parts of a process are connected to.
#[derive(Clone, Debug)]
pub(crate) struct Wiring {
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
        (inbox, receiver): (Inbox, InboxReceiver),
    ) -> Result<Vec<JoinHandle<()>>, StartError> {
        let id = config.id;
        let mut threads = Vec::new();
        let (restored, files) = match start {
            None => (None, None),
            Some(FileStart { path, recovery, state }) => {
                // The log and the snapshots are written side by side, so there are two ways to the folder.
                let (log_folder, snapshot_folder) = (Folder::new(&path), Folder::new(&path));
                for notice in recovery.notices {
                    self.events.report(id, NodeEvent::Notice(notice));
                }
                let (persists, to_do) = channel();
                let node = inbox.clone();
                let queue = DiskQueue::new(recovery.planner);
                let work = move || files::run_log(log_folder, queue, &to_do, &node);
                threads.push(spawn(format!("disk {id}"), work));
                let snapshot_work = SnapshotWork::new(recovery.snapshots, SNAPSHOT_PART_BYTES);
                let (orders, to_do) = channel();
                let node = inbox.clone();
                let clock = self.clock;
                let work = move || files::run_snapshots(snapshot_folder, snapshot_work, &to_do, &node, clock);
                threads.push(spawn(format!("snapshots {id}"), work));
                (Some((recovery.restored, state)), Some(Files { persists, snapshots: orders }))
            }
        };
        let host = NodeHost::start(config, restored, fastrand::u64(..), self.clock.now(), limits)
            .map_err(|cause| StartError::Node { node: id, cause })?
            .with_memory(self.memory.clone());
        let driver = NodeDriver { host, inbox: receiver, files, wiring: self.clone(), resigning: None };
        threads.push(spawn(format!("node {id}"), move || driver.run()));
        Ok(threads)
    }
}
