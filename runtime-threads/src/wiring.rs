//! Starts a node: its driver, and with files its disk and its snapshots.

use std::collections::BTreeMap;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use coracle_core::peer::PassedOn;
use coracle_core::raft::{Config, NodeId, Restored};
use coracle_core::{Replica, ReplicaLimits};
use coracle_storage::blocking::Folder;
use coracle_storage::host::DiskQueue;
use coracle_storage::{Happening, Recovery};

use crate::clock::Clock;
use crate::cluster::StartError;
use crate::disk;
use crate::events::Events;
use crate::inbox::{Inbox, InboxReceiver};
use crate::node::{Disk, NodeDriver};
use crate::peers::Peers;
use crate::proxy::ProxyEvent;
use crate::snapshots::{self, Snapshots};
use crate::threads::spawn;

/// What a node starts from.
pub(crate) enum NodeStart {
    Empty,
    Files(Box<FileStart>),
}

/// A node's files: the log and the snapshots are written side by side, so there are two ways to them.
pub(crate) struct FileStart {
    pub(crate) log_folder: Folder,
    pub(crate) snapshot_folder: Folder,
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
        start: NodeStart,
        inbox: InboxReceiver,
    ) -> Result<Vec<JoinHandle<()>>, StartError> {
        let id = config.id;
        let mut threads = Vec::new();
        let (restored, disk, snapshots) = match start {
            NodeStart::Empty => (Restored::default(), Disk::Memory, Snapshots::in_memory()),
            NodeStart::Files(files) => {
                let FileStart { log_folder, snapshot_folder, recovery } = *files;
                for notice in recovery.notices {
                    self.events.tell(id, Happening::Notice(notice));
                }
                let (persists, to_do) = channel();
                let node = self.inboxes[&id].clone();
                let queue = DiskQueue::new(recovery.planner);
                let work = move || disk::run(log_folder, queue, &to_do, &node);
                threads.push(spawn(format!("disk {id}"), work));
                let (orders, to_do) = channel();
                let node = self.inboxes[&id].clone();
                let clock = self.clock;
                let work = move || snapshots::run(snapshot_folder, recovery.snapshots, &to_do, &node, clock);
                threads.push(spawn(format!("snapshots {id}"), work));
                (recovery.restored, Disk::Files(persists), Snapshots::Files(orders))
            }
        };
        let replica =
            Replica::with_limits(config, restored, fastrand::u64(..), self.clock.now(), self.limits)
                .map_err(|cause| StartError::Node { node: id, cause })?;
        let driver = NodeDriver {
            id,
            replica,
            inbox,
            disk,
            snapshots,
            peers: self.peers.clone(),
            proxy: self.proxy.clone(),
            events: self.events.clone(),
            clock: self.clock,
            passed_on: PassedOn::default(),
            followed: None,
            resigning: None,
        };
        threads.push(spawn(format!("node {id}"), move || driver.run()));
        Ok(threads)
    }
}
