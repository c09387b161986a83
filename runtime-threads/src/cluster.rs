//! A whole cluster in this process: some nodes, the proxy before them, and a listener if clients come by TCP.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use coracle_core::proxy::Proxy;
use coracle_core::raft::NodeId;
use coracle_core::{ReplicaError, Settings, SettingsError};
use coracle_storage::blocking::Folder;
use coracle_storage::{
    ClusterId, FileError, FolderLock, Identity, Incarnation, LockError, Medium, MemberError, NodeEvent,
    SurveyError, SyncPolicy, survey,
};

use crate::client::Client;
use crate::clock::Clock;
use crate::events;
use crate::inbox::{Inbox, inbox};
use crate::listener::Listener;
use crate::node::NodeInput;
use crate::peers::Peers;
use crate::proxy::{ProxyDriver, ProxyEvent};
use crate::threads::{ListenerThread, lock, spawn};
use crate::wiring::{FileStart, NodeStart, Wiring};

/// How long clients that do not take their last replies are waited for when the cluster stops.
pub(crate) const FAREWELL: Duration = Duration::from_secs(1);

/// What a cluster is started with.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many nodes, how long things may take, how much is allowed.
    pub settings: Settings,
    /// Where the state is kept.
    pub medium: Medium,
    /// Where clients connect; port 0 takes a free one. `None`: only this process asks.
    pub listen: Option<SocketAddr>,
}

/// Why a cluster did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The settings do not fit one another.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The data folder cannot be locked.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The data folder cannot be read or written.
    #[error(transparent)]
    Files(#[from] FileError),
    /// What is in the data folder does not do.
    #[error(transparent)]
    Survey(#[from] SurveyError),
    /// A node cannot start from what is in its log.
    #[error("node {node}: {cause}")]
    Node {
        /// The node.
        node: NodeId,
        /// What it cannot start from.
        cause: ReplicaError,
    },
    /// What is in the node's folder does not do.
    #[error(transparent)]
    Member(#[from] MemberError),
    /// The folder is empty, and nobody was named to found a cluster with or to join.
    #[error(
        "the data folder is empty: a first start needs --peers, to found a cluster, or --join, to join one"
    )]
    NoOrigin,
    /// Nobody has said where the node's peers reach it.
    #[error("node {node} is no member with an address: let it in with `coracle member add {node}=HOST:PORT`")]
    NoPeerAddress {
        /// The node.
        node: NodeId,
    },
    /// The address for other nodes cannot be listened on.
    #[error("cannot listen for other nodes on {address}: {cause}")]
    ListenForPeers {
        /// The address.
        address: Box<str>,
        /// What the operating system said.
        cause: std::io::Error,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {cause}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the operating system said.
        cause: std::io::Error,
    },
}

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
        let (lock, starts) = open(&medium, configs.len())?;
        let socket = match listen {
            Some(address) => Some(bind(address)?),
            None => None,
        };
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
        let driver = ProxyDriver {
            proxy: Proxy::new(settings.proxy_config(), fastrand::u64(..)),
            inbox: proxy_inbox,
            peers,
            nodes: settings.nodes,
            majority_is_lost: Arc::clone(&majority_is_lost),
            clock,
        };
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

/// Brings the data folder into a state from which all nodes can start.
fn open(medium: &Medium, nodes: usize) -> Result<(Option<FolderLock>, Vec<NodeStart>), StartError> {
    let Medium::Folder { path, sync } = medium else {
        return Ok((None, (0..nodes).map(|_| NodeStart::Empty).collect()));
    };
    let lock = FolderLock::take(path)?;
    let starts = open_folder(path, *sync, nodes)?;
    Ok((Some(lock), starts))
}

fn open_folder(path: &Path, sync: SyncPolicy, nodes: usize) -> Result<Vec<NodeStart>, StartError> {
    let incarnations: Vec<_> = (0..nodes).map(|_| Incarnation(fastrand::u64(..))).collect();
    let identities = Identity::for_new_cluster(ClusterId(fastrand::u128(..)), &incarnations);
    let mut founder = Folder::new(path);
    let mut files = Vec::new();
    for identity in &identities {
        files.push(founder.read(identity.node)?);
    }
    let found = survey(files, &identities, sync)?;
    founder.run(&found.creation)?;
    let mut starts = Vec::new();
    for recovery in found.nodes {
        let mut folder = Folder::new(path);
        folder.run(&recovery.repairs)?;
        let files = FileStart { log_folder: folder, snapshot_folder: Folder::new(path), recovery };
        starts.push(NodeStart::Files(Box::new(files)));
    }
    Ok(starts)
}

pub(crate) fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let failed = |cause| StartError::Listen { address, cause };
    let socket = TcpListener::bind(address).map_err(failed)?;
    let address = socket.local_addr().map_err(failed)?;
    Ok((socket, address))
}
