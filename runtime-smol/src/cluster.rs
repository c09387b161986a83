//! A whole cluster in this process: some nodes, and what stands before them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;

use coracle_core::host::Router;
use coracle_storage::asynchronous::{open, prepare};
use coracle_storage::host::{ClusterOpening, NodeEnd, NodeInput, Options, StartError};
use coracle_storage::{FolderLock, HostEvent};
use smol::{LocalExecutor, Task};

use crate::client::Client;
use crate::front::{Front, bind};
use crate::mailbox::{Sender, mailbox};
use crate::node;
use crate::peers::Peers;
use crate::wiring::{Events, Wiring};

/// A running cluster. Dropping it ends it at once; [`Cluster::stop`] ends it in order.
#[derive(Debug)]
pub struct Cluster {
    front: Front,
    inboxes: Vec<Sender<NodeInput>>,
    nodes: Vec<Task<()>>,
    events: Events,
    _lock: Option<FolderLock>,
}

impl Cluster {
    /// Starts a cluster on `executor`, which has to be run for anything to happen. All of its state
    /// and logic live there; only calls that block, those to the disk, go to a pool of threads.
    ///
    /// # Errors
    ///
    /// [`StartError`]: nothing runs.
    pub async fn start(executor: &Rc<LocalExecutor<'static>>, options: Options) -> Result<Self, StartError> {
        let Options { settings, medium, listen } = options;
        let mut opening = ClusterOpening::new(&settings, &medium)?;
        let node_ids = opening.nodes();
        let (lock, names) = open(&medium, &node_ids, |files| opening.look(files)).await?;
        let mut found = opening.judge(&names)?;
        let socket = bind(listen).await?;
        prepare(&medium, found.operations()).await?;
        let (wiring, router_inbox, events) = Wiring::new(executor, &settings, settings.cluster_shares());
        let inboxes: BTreeMap<_, _> = node_ids.into_iter().map(|node| (node, mailbox())).collect();
        let peers = Peers::Inboxes(inboxes.iter().map(|(node, (inbox, _))| (*node, inbox.clone())).collect());
        let senders = inboxes.values().map(|(inbox, _)| inbox.clone()).collect();
        let mut nodes = Vec::new();
        for (start, (inbox, receiver)) in found.opened().into_iter().zip(inboxes.into_values()) {
            nodes.extend(node::start(&wiring, peers.clone(), start, (inbox, receiver, None))?);
        }
        let router = Router::of_cluster(&settings, fastrand::u64(..), wiring.memory.clone());
        let front = Front::start(&wiring, peers, &settings, router, router_inbox, socket);
        Ok(Self { front, inboxes: senders, nodes, events, _lock: lock })
    }

    /// Where clients connect.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.front.address
    }

    /// A way to ask the cluster from this process.
    #[must_use]
    pub fn client(&self) -> Client {
        self.front.client()
    }

    /// What the nodes tell from now on, and what nobody has read so far. Each event goes to one
    /// reader.
    #[must_use]
    pub fn events(&self) -> async_channel::Receiver<HostEvent> {
        self.events.clone()
    }

    /// Whether so many nodes have lost their disks that no majority is left: nothing can be written
    /// any more. The events say why.
    #[must_use]
    pub fn majority_is_lost(&self) -> bool {
        self.front.majority_is_lost()
    }

    /// Stops in order: takes no more clients and requests, waits for what is under way, writes what
    /// is owed to clients, and closes the files.
    pub async fn stop(mut self) {
        self.front.close().await;
        self.front.finish().await;
        for inbox in &self.inboxes {
            let _ = inbox.send(NodeInput::End(NodeEnd::Stopped));
        }
        for node in self.nodes.drain(..) {
            node.await;
        }
    }
}
