//! Starts a node: its driver, and with files its disk and its snapshots.

use std::rc::Rc;

use coracle_core::memory::MemoryBudget;
use coracle_storage::asynchronous::Folder;
use coracle_storage::host::{FileWork, NodeInput, NodeStart, StartError, StartedNode};
use smol::{LocalExecutor, Task};

use crate::clock::Clock;
use crate::events::Events;
use crate::files;
use crate::inputs::ProxyEvent;
use crate::mailbox::{Receiver, Sender, mailbox};
use crate::node::{Files, NodeDriver};
use crate::peers::Peers;

/// Both ends of a node's inbox, and what is closed when the node has handed leadership over, or cannot.
pub(crate) type NodeEnds = (Sender<NodeInput>, Receiver<NodeInput>, Option<async_channel::Sender<()>>);

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
        mut start: NodeStart,
        (inbox, receiver, resigning): NodeEnds,
    ) -> Result<Vec<Task<()>>, StartError> {
        let (id, notices) = (start.id(), start.notices());
        notices.into_iter().for_each(|notice| self.events.report(id, notice));
        let StartedNode { host, files } =
            start.start(fastrand::u64(..), self.clock.now(), self.memory.clone())?;
        let mut tasks = Vec::new();
        let files = files.map(|FileWork { path, log, snapshots }| {
            let (persists, to_do) = mailbox();
            let work = files::run_log(Folder::new(&path), log, to_do, inbox.clone());
            tasks.push(self.executor.spawn(work));
            let (orders, to_do) = mailbox();
            let work = files::run_snapshots(Folder::new(path), snapshots, to_do, inbox, self.clock);
            tasks.push(self.executor.spawn(work));
            Files { persists, snapshots: orders }
        });
        let driver = NodeDriver { host, inbox: receiver, files, wiring: self.clone(), resigning };
        tasks.push(self.executor.spawn(driver.run()));
        Ok(tasks)
    }
}
