//! A whole cluster in this process: its nodes, the router, and the listener for clients.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;

use coracle_core::host::Router;
use coracle_storage::asynchronous::{open, prepare};
use coracle_storage::host::{ClusterOpening, NodeEnd, NodeInput, Options, StartError};
use coracle_storage::{FolderLock, HostEvent};
use coracle_tls::Protection;
use smol::{LocalExecutor, Task};

use crate::client::Client;
use crate::front::{Front, Sockets};
use crate::mailbox::{Sender, mailbox};
use crate::node;
use crate::peers::Peers;
use crate::wiring::{Events, Wiring};

/// A running cluster. Dropping it ends it at once; [`Cluster::stop`] shuts it down in order.
#[derive(Debug)]
pub struct Cluster {
    front: Front,
    inboxes: Vec<Sender<NodeInput>>,
    nodes: Vec<Task<()>>,
    events: Events,
    _lock: Option<FolderLock>,
}

impl Cluster {
    /// Starts a cluster on `executor`, which the caller has to run. All state and logic live there;
    /// only blocking calls, those for files, go to a pool of threads.
    ///
    /// # Errors
    ///
    /// [`StartError`]: the cluster does not run.
    pub async fn start(executor: &Rc<LocalExecutor<'static>>, options: Options) -> Result<Self, StartError> {
        Self::start_protected(executor, options, Protection::default()).await
    }

    /// Starts a cluster whose clients speak TLS, if `protection` says so.
    ///
    /// # Errors
    ///
    /// [`StartError`]: the cluster does not run.
    pub async fn start_protected(
        executor: &Rc<LocalExecutor<'static>>,
        options: Options,
        protection: Protection,
    ) -> Result<Self, StartError> {
        let Options { settings, medium, listen, admin_listen } = options;
        let mut opening = ClusterOpening::new(&settings, &medium)?;
        let node_ids = opening.nodes();
        let (lock, names) = open(&medium, &node_ids, |files| opening.look(files)).await?;
        let mut found = opening.judge(&names)?;
        let sockets = Sockets::bind(listen, admin_listen).await?;
        prepare(&medium, found.operations()).await?;
        let (wiring, router_inbox, events) =
            Wiring::new(executor, &settings, settings.cluster_shares(), protection);
        wiring.cluster.set(found.cluster());
        let inboxes: BTreeMap<_, _> = node_ids.into_iter().map(|node| (node, mailbox())).collect();
        let peers = Peers::Inboxes(inboxes.iter().map(|(node, (inbox, _))| (*node, inbox.clone())).collect());
        let senders = inboxes.values().map(|(inbox, _)| inbox.clone()).collect();
        let mut nodes = Vec::new();
        for (start, (inbox, receiver)) in found.opened().into_iter().zip(inboxes.into_values()) {
            nodes.extend(node::start(&wiring, peers.clone(), start, (inbox, receiver, None))?);
        }
        let router = Router::of_cluster(&settings, fastrand::u64(..), wiring.memory.clone());
        let front = Front::start(&wiring, peers, &settings, router, router_inbox, sockets);
        Ok(Self { front, inboxes: senders, nodes, events, _lock: lock })
    }

    /// The address at which clients connect.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.front.address
    }

    /// The address at which alone administrators are answered, if there is one.
    #[must_use]
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.front.admin_address
    }

    /// Returns a client of the cluster in this process.
    #[must_use]
    pub fn client(&self) -> Client {
        self.front.client()
    }

    /// The events of the nodes, from the oldest that was not read yet. Each event goes to one
    /// reader.
    #[must_use]
    pub fn events(&self) -> async_channel::Receiver<HostEvent> {
        self.events.clone()
    }

    /// Whether the nodes that still have their disks are no majority, so that no write can succeed
    /// any more. The events hold the reasons.
    #[must_use]
    pub fn majority_is_lost(&self) -> bool {
        self.front.majority_is_lost()
    }

    /// Shuts down in order: accepts no more clients and requests, waits for requests in flight,
    /// writes the remaining replies, and closes the files.
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
