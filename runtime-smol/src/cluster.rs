//! A whole cluster in this process: some nodes, the proxy before them, and a listener if clients come by TCP.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use coracle_core::proxy::Proxy;
use coracle_core::raft::NodeId;
use coracle_core::{ReplicaError, Settings, SettingsError};
use coracle_storage::asynchronous::Folder;
use coracle_storage::{
    ClusterId, FileError, FolderLock, Identity, Incarnation, LockError, Medium, MemberError, NodeEvent,
    SurveyError, SyncPolicy, survey,
};
use futures_lite::future;
use smol::net::TcpListener;
use smol::{LocalExecutor, Task, Timer};

use crate::client::Client;
use crate::clock::Clock;
use crate::events;
use crate::listener::Listener;
use crate::mailbox::{Sender, mailbox};
use crate::node::NodeInput;
use crate::peers::Peers;
use crate::proxy::{ProxyDriver, ProxyEvent};
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

/// A running cluster. Dropping it ends it at once; [`Cluster::stop`] ends it in order.
#[derive(Debug)]
pub struct Cluster {
    proxy: Sender<ProxyEvent>,
    inboxes: BTreeMap<NodeId, Sender<NodeInput>>,
    listener: Option<Task<()>>,
    nodes: Vec<Task<()>>,
    address: Option<SocketAddr>,
    events: async_channel::Receiver<NodeEvent>,
    majority_is_lost: Rc<Cell<bool>>,
    connections_end: async_channel::Receiver<()>,
    _proxy_task: Task<()>,
    _lock: Option<FolderLock>,
}

impl Cluster {
    /// Starts a cluster on `executor`, which has to be run for anything to happen. All of its state and logic live
    /// there; only calls that block, those to the disk, go to a pool of threads.
    ///
    /// # Errors
    ///
    /// [`StartError`]: nothing runs.
    pub async fn start(executor: &Rc<LocalExecutor<'static>>, options: Options) -> Result<Self, StartError> {
        let Options { settings, medium, listen } = options;
        let configs = settings.raft_configs()?;
        let limits = settings.replica_limits()?;
        let (lock, starts) = open(&medium, configs.len()).await?;
        let socket = match listen {
            Some(address) => Some(bind(address).await?),
            None => None,
        };
        let clock = Clock::start();
        let (events, event_receiver) = events::channel();
        let (proxy, proxy_inbox) = mailbox();
        let majority_is_lost = Rc::new(Cell::new(false));
        let (inboxes, receivers): (BTreeMap<_, _>, Vec<_>) = configs
            .iter()
            .map(|config| {
                let (inbox, receiver) = mailbox();
                ((config.id, inbox), receiver)
            })
            .unzip();
        let peers = Peers::Inboxes(inboxes.clone());
        let wiring = Wiring {
            executor,
            inboxes: &inboxes,
            peers: &peers,
            proxy: &proxy,
            events: &events,
            clock,
            limits,
        };
        let mut nodes = Vec::new();
        for ((config, start), inbox) in configs.into_iter().zip(starts).zip(receivers) {
            nodes.extend(wiring.start_node(config, start, inbox)?);
        }
        let driver = ProxyDriver {
            proxy: Proxy::new(settings.proxy_config(), fastrand::u64(..)),
            inbox: proxy_inbox,
            peers,
            nodes: settings.nodes,
            majority_is_lost: Rc::clone(&majority_is_lost),
            clock,
        };
        let (connections_end, all_connections_end) = async_channel::bounded(1);
        let address = socket.as_ref().map(|(_, address)| *address);
        let listener = socket.map(|bound| Listener::new(executor, bound, &proxy, &settings, connections_end));
        Ok(Self {
            proxy,
            inboxes,
            listener: listener.map(|listener| executor.spawn(listener.run())),
            nodes,
            address,
            events: event_receiver,
            majority_is_lost,
            connections_end: all_connections_end,
            _proxy_task: executor.spawn(driver.run()),
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

    /// What the nodes tell from now on, and what nobody has read so far. Each event goes to one reader.
    #[must_use]
    pub fn events(&self) -> async_channel::Receiver<NodeEvent> {
        self.events.clone()
    }

    /// Whether so many nodes have lost their disks that no majority is left: nothing can be written any more. The
    /// events say why.
    #[must_use]
    pub fn majority_is_lost(&self) -> bool {
        self.majority_is_lost.get()
    }

    /// Stops in order: takes no more clients and requests, waits for what is under way, writes what is owed to
    /// clients, and closes the files.
    pub async fn stop(mut self) {
        if let Some(listener) = self.listener.take() {
            listener.cancel().await;
        }
        let (done, idle) = async_channel::bounded::<()>(1);
        if self.proxy.send(ProxyEvent::Stop(done)).is_ok() {
            // Ends when the proxy does; no request takes longer than its timeout.
            let _ = idle.recv().await;
        }
        let all_told = async {
            let _ = self.connections_end.recv().await;
        };
        let enough = async {
            Timer::after(FAREWELL).await;
        };
        future::or(all_told, enough).await;
        for inbox in self.inboxes.values() {
            let _ = inbox.send(NodeInput::Stop);
        }
        for node in self.nodes.drain(..) {
            node.await;
        }
    }
}

/// Brings the data folder into a state from which all nodes can start.
async fn open(medium: &Medium, nodes: usize) -> Result<(Option<FolderLock>, Vec<NodeStart>), StartError> {
    let Medium::Folder { path, sync } = medium else {
        return Ok((None, (0..nodes).map(|_| NodeStart::Empty).collect()));
    };
    let lock = FolderLock::take(path)?;
    let starts = open_folder(path, *sync, nodes).await?;
    Ok((Some(lock), starts))
}

async fn open_folder(path: &Path, sync: SyncPolicy, nodes: usize) -> Result<Vec<NodeStart>, StartError> {
    let incarnations: Vec<_> = (0..nodes).map(|_| Incarnation(fastrand::u64(..))).collect();
    let identities = Identity::for_new_cluster(ClusterId(fastrand::u128(..)), &incarnations);
    let mut founder = Folder::new(path);
    let mut files = Vec::new();
    for identity in &identities {
        files.push(founder.read(identity.node).await?);
    }
    let found = survey(files, &identities, sync)?;
    founder.run(found.creation).await?;
    let mut starts = Vec::new();
    for mut recovery in found.nodes {
        let mut folder = Folder::new(path);
        folder.run(std::mem::take(&mut recovery.repairs)).await?;
        let files = FileStart { log_folder: folder, snapshot_folder: Folder::new(path), recovery };
        starts.push(NodeStart::Files(Box::new(files)));
    }
    Ok(starts)
}

pub(crate) async fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let failed = |cause| StartError::Listen { address, cause };
    let socket = TcpListener::bind(address).await.map_err(failed)?;
    let address = socket.local_addr().map_err(failed)?;
    Ok((socket, address))
}
