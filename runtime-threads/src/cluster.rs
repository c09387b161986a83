//! A whole cluster in this process: some nodes, the proxy before them, and a listener if clients come by TCP.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use coracle_core::host::Router;
use coracle_core::proxy::Proxy;
use coracle_core::raft::NodeId;
use coracle_storage::blocking::Folder;
use coracle_storage::host::{ClusterOpening, FoundCluster, Options, StartError};
use coracle_storage::{FolderLock, Medium, NodeEvent};

use crate::client::Client;
use crate::clock::Clock;
use crate::events;
use crate::inbox::{Inbox, inbox};
use crate::listener::Listener;
use crate::node::NodeInput;
use crate::peers::Peers;
use crate::proxy::{ProxyDriver, ProxyEvent};
use crate::threads::{ListenerThread, lock, spawn};
use crate::wiring::{FileStart, Wiring};

/// How long clients that do not take their last replies are waited for when the cluster stops.
pub(crate) const FAREWELL: Duration = Duration::from_secs(1);

/// A running cluster. [`Cluster::stop`] ends it in order; without it, its threads end with the process.
#[derive(Debug)]
pub struct Cluster {
    proxy: Sender<ProxyEvent>,
    inboxes: BTreeMap<NodeId, Inbox>,
    listener: Option<ListenerThread>,
    nodes: Vec<JoinHandle<()>>,
    address: Option<SocketAddr>,
    events: Mutex<Option<Receiver<NodeEvent>>>,
    majority_is_lost: Arc<AtomicBool>,
    connections_end: Receiver<()>,
    _lock: Option<FolderLock>,
}

impl Cluster {
    /// Starts a cluster: a thread for every node, two for its files, one for the proxy, one that accepts clients,
    /// and two for every client.
    ///
    /// # Errors
    ///
    /// [`StartError`]: nothing runs.
    pub fn start(options: Options) -> Result<Self, StartError> {
        let Options { settings, medium, listen } = options;
        let configs = settings.raft_configs()?;
        let limits = settings.replica_limits()?;
        let found = judge(&medium, configs.len())?;
        let socket = match listen {
            Some(address) => Some(bind(address)?),
            None => None,
        };
        let (lock, starts) = open(found, configs.len())?;
        let clock = Clock::start();
        let (events, event_receiver) = events::channel();
        let (proxy, proxy_inbox) = channel();
        let majority_is_lost = Arc::new(AtomicBool::new(false));
        let (inboxes, receivers): (BTreeMap<_, _>, Vec<_>) = configs
            .iter()
            .map(|config| {
                let (inbox, receiver) = inbox();
                ((config.id, inbox), receiver)
            })
            .unzip();
        let peers = Peers::Inboxes(inboxes.clone());
        let wiring =
            Wiring { inboxes: &inboxes, peers: &peers, proxy: &proxy, events: &events, clock, limits };
        let mut nodes = Vec::new();
        for ((config, start), inbox) in configs.into_iter().zip(starts).zip(receivers) {
            nodes.extend(wiring.start_node(config, start, inbox)?);
        }
        let router = Router::new(Proxy::new(settings.proxy_config(), fastrand::u64(..)), settings.nodes);
        let driver = ProxyDriver::new(router, proxy_inbox, peers, majority_is_lost.clone(), clock);
        spawn("proxy".into(), move || driver.run());
        let (connections_end, all_connections_end) = channel();
        let address = socket.as_ref().map(|(_, address)| *address);
        let listener = socket.map(|socket| Listener::start(socket, &settings, &proxy, connections_end));
        Ok(Self {
            proxy,
            inboxes,
            listener,
            nodes,
            address,
            events: Mutex::new(Some(event_receiver)),
            majority_is_lost,
            connections_end: all_connections_end,
            _lock: lock,
        })
    }

    /// Where clients connect.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// A way to ask the cluster from this process.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::new(self.proxy.clone())
    }

    /// What the nodes tell, from the start on. There is one reader: `None` when it was taken before.
    #[must_use]
    pub fn events(&self) -> Option<Receiver<NodeEvent>> {
        lock(&self.events).take()
    }

    /// Whether so many nodes have lost their disks that no majority is left: nothing can be written any more. The
    /// events say why.
    #[must_use]
    pub fn majority_is_lost(&self) -> bool {
        self.majority_is_lost.load(Ordering::Acquire)
    }

    /// Stops in order: takes no more clients and requests, waits for what is under way, writes what is owed to
    /// clients, and closes the files.
    pub fn stop(mut self) {
        if let Some(listener) = self.listener.take() {
            listener.stop();
        }
        let (done, idle) = channel::<()>();
        if self.proxy.send(ProxyEvent::Stop(done)).is_ok() {
            // Ends when the proxy does; no request takes longer than its timeout.
            let _ = idle.recv();
        }
        // Ends when the last connection does.
        let _ = self.connections_end.recv_timeout(FAREWELL);
        for inbox in self.inboxes.values() {
            inbox.send(NodeInput::Stop);
        }
        for node in self.nodes.drain(..) {
            // A panic in one of them has ended the process.
            let _ = node.join();
        }
    }
}

/// A folder that is locked and judged, and in which nothing was written so far.
struct JudgedFolder {
    path: PathBuf,
    lock: FolderLock,
    found: FoundCluster,
}

/// Locks and judges the data folder, if there is one.
fn judge(medium: &Medium, nodes: usize) -> Result<Option<JudgedFolder>, StartError> {
    let Medium::Folder { path, sync } = medium else { return Ok(None) };
    let lock = FolderLock::take(path)?;
    let opening = ClusterOpening::new(nodes, *sync)?;
    let contents = Folder::new(path).contents(&opening.nodes())?;
    let found = opening.judge(contents)?;
    Ok(Some(JudgedFolder { path: path.clone(), lock, found }))
}

/// Brings the data folder into a state from which all nodes can start.
fn open(
    judged: Option<JudgedFolder>,
    nodes: usize,
) -> Result<(Option<FolderLock>, Vec<Option<FileStart>>), StartError> {
    let Some(JudgedFolder { path, lock, mut found }) = judged else {
        return Ok((None, (0..nodes).map(|_| None).collect()));
    };
    Folder::new(&path).run(&found.operations())?;
    let start = |recovery| Some(FileStart { path: path.clone(), recovery });
    Ok((Some(lock), found.opened().into_iter().map(start).collect()))
}

pub(crate) fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let failed = |cause| StartError::Listen { address, cause };
    let socket = TcpListener::bind(address).map_err(failed)?;
    let address = socket.local_addr().map_err(failed)?;
    Ok((socket, address))
}
