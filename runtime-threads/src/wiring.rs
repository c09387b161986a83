//! Starts a node: its driver, and with files its disk and its snapshots.

use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use coracle_core::memory::MemoryBudget;
use coracle_storage::blocking::Folder;
use coracle_storage::host::{FileWork, NodeStart, StartError, StartedNode};

use crate::clock::Clock;
use crate::events::Events;
use crate::files;
use crate::inbox::{Inbox, InboxReceiver};
use crate::inputs::ProxyEvent;
use crate::node::{Files, NodeDriver};
use crate::peers::Peers;
use crate::threads::spawn;

/// Both ends of a node's inbox, and what is closed when the node has handed leadership over, or cannot.
pub(crate) type NodeEnds = (Inbox, InboxReceiver, Option<Sender<()>>);

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
        mut start: NodeStart,
        (inbox, receiver, resigning): NodeEnds,
    ) -> Result<Vec<JoinHandle<()>>, StartError> {
        let (id, notices, clock) = (start.id(), start.notices(), self.clock);
        notices.into_iter().for_each(|notice| self.events.report(id, notice));
        let StartedNode { host, files } = start.start(fastrand::u64(..), clock.now(), self.memory.clone())?;
        let mut threads = Vec::new();
        let files = files.map(|FileWork { path, log, snapshots }| {
            let (persists, to_do) = channel();
            let (folder, node) = (Folder::new(&path), inbox.clone());
            let work = move || files::run_log(folder, log, &to_do, &node);
            threads.push(spawn(format!("disk {id}"), work));
            let (orders, to_do) = channel();
            let work = move || files::run_snapshots(Folder::new(path), snapshots, &to_do, &inbox, clock);
            threads.push(spawn(format!("snapshots {id}"), work));
            Files { persists, snapshots: orders }
        });
        let driver = NodeDriver { host, inbox: receiver, files, wiring: self.clone(), resigning };
        threads.push(spawn(format!("node {id}"), move || driver.run()));
        Ok(threads)
    }
}
