//! A whole cluster in this process: its nodes, the router, and the listener for clients.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::mpsc::Receiver;
use std::thread::JoinHandle;

use coracle_core::host::Router;
use coracle_storage::blocking::{open, prepare};
use coracle_storage::host::{ClusterOpening, NodeEnd, NodeInput, Options, StartError};
use coracle_storage::{FolderLock, HostEvent};
use coracle_tls::Protection;

use crate::client::Client;
use crate::front::{Front, Sockets};
use crate::inbox::{Inbox, inbox};
use crate::node;
use crate::peers::Peers;
use crate::threads::lock;
use crate::wiring::{Events, Wiring};

/// A running cluster. [`Cluster::stop`] shuts it down in order; without that, its threads end with
/// the process.
#[derive(Debug)]
pub struct Cluster {
    front: Front,
    inboxes: Vec<Inbox>,
    nodes: Vec<JoinHandle<()>>,
    events: Mutex<Option<Events>>,
    _lock: Option<FolderLock>,
}

impl Cluster {
    /// Starts a cluster: one thread per node and two for its files, one for the router, one that
    /// accepts clients, and two per client.
    ///
    /// # Errors
    ///
    /// [`StartError`]: the cluster does not run.
    pub fn start(options: Options) -> Result<Self, StartError> {
        Self::start_protected(options, Protection::default())
    }

    /// Starts a cluster whose clients speak TLS, if `protection` says so.
    ///
    /// # Errors
    ///
    /// [`StartError`]: the cluster does not run.
    pub fn start_protected(options: Options, protection: Protection) -> Result<Self, StartError> {
        let Options { settings, medium, listen, admin_listen } = options;
        let mut opening = ClusterOpening::new(&settings, &medium)?;
        let node_ids = opening.nodes();
        let (lock, names) = open(&medium, &node_ids, |files| opening.look(files))?;
        let mut found = opening.judge(&names)?;
        let sockets = Sockets::bind(listen, admin_listen)?;
        prepare(&medium, &found.operations())?;
        let (wiring, router_inbox, events) = Wiring::new(&settings, settings.cluster_shares(), protection);
        wiring.cluster.set(found.cluster());
        let inbox_of = |node| (node, inbox(&wiring.memory));
        let inboxes: BTreeMap<_, _> = node_ids.into_iter().map(inbox_of).collect();
        let peers = Peers::Inboxes(inboxes.iter().map(|(node, (inbox, _))| (*node, inbox.clone())).collect());
        let senders = inboxes.values().map(|(inbox, _)| inbox.clone()).collect();
        let mut nodes = Vec::new();
        for (start, (inbox, receiver)) in found.opened().into_iter().zip(inboxes.into_values()) {
            nodes.extend(node::start(&wiring, peers.clone(), start, (inbox, receiver, None))?);
        }
        let router = Router::of_cluster(&settings, fastrand::u64(..), wiring.memory.clone());
        let front = Front::start(&wiring, peers, &settings, router, router_inbox, sockets);
        Ok(Self { front, inboxes: senders, nodes, events: Mutex::new(Some(events)), _lock: lock })
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

    /// The events of the nodes, from the start on. There is one reader: `None` when a caller has
    /// taken it before.
    #[must_use]
    pub fn events(&self) -> Option<Receiver<HostEvent>> {
        lock(&self.events).take()
    }

    /// Whether the nodes that still have their disks are no majority, so that no write can succeed
    /// any more. The events hold the reasons.
    #[must_use]
    pub fn majority_is_lost(&self) -> bool {
        self.front.majority_is_lost()
    }

    /// Shuts down in order: accepts no more clients and requests, waits for requests in flight,
    /// writes the remaining replies, and closes the files.
    pub fn stop(mut self) {
        self.front.close();
        self.front.finish();
        for inbox in &self.inboxes {
            inbox.send(NodeInput::End(NodeEnd::Stopped));
        }
        for node in self.nodes.drain(..) {
            // A panic in a node's thread has already ended the process.
            let _ = node.join();
        }
    }
}
