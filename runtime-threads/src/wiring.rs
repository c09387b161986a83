//! Starts a node: its driver, and with files its disk and its snapshots.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use coracle_core::host::NodeHost;
use coracle_core::raft::{Config, NodeId, Restored};
use coracle_core::{Replica, ReplicaLimits, SNAPSHOT_PART_BYTES};
use coracle_storage::blocking::Folder;
use coracle_storage::host::{DiskQueue, SnapshotWork, StartError};
use coracle_storage::{Happening, Recovery};

use crate::clock::Clock;
use crate::disk;
use crate::events::Events;
use crate::inbox::{Inbox, InboxReceiver};
use crate::node::{Files, NodeDriver};
use crate::peers::Peers;
use crate::proxy::ProxyEvent;
use crate::snapshots;
use crate::threads::spawn;

/// The folder of a node with files, and what was found in it.
pub(crate) struct FileStart {
    pub(crate) path: PathBuf,
    pub(crate) recovery: Recovery,
}

/// What every node is connected to.
pub(crate) struct Wiring<'a> {
    pub(crate) inboxes: &'a BTreeMap<NodeId, Inbox>,
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
        inbox: InboxReceiver,
    ) -> Result<Vec<JoinHandle<()>>, StartError> {
        let id = config.id;
        let mut threads = Vec::new();
        let (restored, files) = match start {
            None => (Restored::default(), None),
            Some(FileStart { path, recovery }) => {
                // The log and the snapshots are written side by side, so there are two ways to the folder.
                let (log_folder, snapshot_folder) = (Folder::new(&path), Folder::new(&path));
                for notice in recovery.notices {
                    self.events.tell(id, Happening::Notice(notice));
                }
                let (persists, to_do) = channel();
                let node = self.inboxes[&id].clone();
                let queue = DiskQueue::new(recovery.planner);
                let work = move || disk::run(log_folder, queue, &to_do, &node);
                threads.push(spawn(format!("disk {id}"), work));
                let snapshot_work = SnapshotWork::new(recovery.snapshots, SNAPSHOT_PART_BYTES);
                let (orders, to_do) = channel();
                let node = self.inboxes[&id].clone();
                let clock = self.clock;
                let work = move || snapshots::run(snapshot_folder, snapshot_work, &to_do, &node, clock);
                threads.push(spawn(format!("snapshots {id}"), work));
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
        threads.push(spawn(format!("node {id}"), move || driver.run()));
        Ok(threads)
    }
}
