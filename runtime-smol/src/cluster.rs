//! A whole cluster in this process: some nodes, the proxy before them, and a listener if clients come by TCP.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use async_channel::{Receiver, Sender};
use coracle_core::proxy::Proxy;
use coracle_core::raft::{Config, NodeId, Restored};
use coracle_core::{Replica, ReplicaError, ReplicaLimits, Settings, SettingsError};
use coracle_storage::asynchronous::Folder;
use coracle_storage::{
    ClusterId, FileError, FolderLock, Happening, Identity, Incarnation, LockError, Medium, NodeEvent,
    Recovery, SurveyError, SyncPolicy, survey,
};
use futures_lite::future;
use smol::net::TcpListener;
use smol::{LocalExecutor, Task, Timer};

use crate::client::Client;
use crate::clock::Clock;
use crate::disk;
use crate::events::{self, Events};
use crate::listener::Listener;
use crate::node::{Disk, NodeDriver, NodeInput};
use crate::peers::Peers;
use crate::proxy::{ProxyDriver, ProxyEvent};
use crate::snapshots::{self, Snapshots};

/// How long clients that do not take their last replies are waited for when the cluster stops.
const FAREWELL: Duration = Duration::from_secs(1);

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
    events: Receiver<NodeEvent>,
    majority_is_lost: Rc<Cell<bool>>,
    connections_end: Receiver<()>,
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
        let (proxy, proxy_inbox) = async_channel::unbounded();
        let majority_is_lost = Rc::new(Cell::new(false));
        let (inboxes, receivers): (BTreeMap<_, _>, Vec<_>) = configs
            .iter()
            .map(|config| {
                let (inbox, receiver) = async_channel::unbounded();
                ((config.id, inbox), receiver)
            })
            .unzip();
        let peers = Peers::new(inboxes.clone());
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
        let listener = socket.map(|(socket, address)| Listener {
            socket,
            executor: Rc::clone(executor),
            proxy: proxy.clone(),
            address: address.to_string().into(),
            idle_timeout: settings.idle_timeout,
            connections_max: settings.connections_max,
            connections_end,
        });
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
    pub fn events(&self) -> Receiver<NodeEvent> {
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
        if self.proxy.try_send(ProxyEvent::Stop(done)).is_ok() {
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
            let _ = inbox.try_send(NodeInput::Stop);
        }
        for node in self.nodes.drain(..) {
            node.await;
        }
    }
}

/// What a node starts from.
enum NodeStart {
    Empty,
    Files(Box<FileStart>),
}

/// A node's files: the log and the snapshots are written side by side, so there are two ways to them.
struct FileStart {
    log_folder: Folder,
    snapshot_folder: Folder,
    recovery: Recovery,
}

/// What every node is connected to.
struct Wiring<'a> {
    executor: &'a Rc<LocalExecutor<'static>>,
    inboxes: &'a BTreeMap<NodeId, Sender<NodeInput>>,
    peers: &'a Peers,
    proxy: &'a Sender<ProxyEvent>,
    events: &'a Events,
    clock: Clock,
    limits: ReplicaLimits,
}

impl Wiring<'_> {
    /// Starts a node, with its disk and its snapshots if it has files.
    fn start_node(
        &self,
        config: Config,
        start: NodeStart,
        inbox: Receiver<NodeInput>,
    ) -> Result<Vec<Task<()>>, StartError> {
        let id = config.id;
        let mut tasks = Vec::new();
        let (restored, disk, snapshots) = match start {
            NodeStart::Empty => (Restored::default(), Disk::Memory, Snapshots::in_memory()),
            NodeStart::Files(files) => {
                let FileStart { log_folder, snapshot_folder, recovery } = *files;
                for notice in recovery.notices {
                    self.events.tell(id, Happening::Notice(notice));
                }
                let (persists, to_do) = async_channel::unbounded();
                let node = self.inboxes[&id].clone();
                tasks.push(self.executor.spawn(disk::run(log_folder, recovery.planner, to_do, node)));
                let (orders, to_do) = async_channel::unbounded();
                let node = self.inboxes[&id].clone();
                let work = snapshots::run(snapshot_folder, recovery.snapshots, to_do, node, self.clock);
                tasks.push(self.executor.spawn(work));
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
        };
        tasks.push(self.executor.spawn(driver.run()));
        Ok(tasks)
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
    founder.run(&found.creation).await?;
    let mut starts = Vec::new();
    for recovery in found.nodes {
        let mut folder = Folder::new(path);
        folder.run(&recovery.repairs).await?;
        let files = FileStart { log_folder: folder, snapshot_folder: Folder::new(path), recovery };
        starts.push(NodeStart::Files(Box::new(files)));
    }
    Ok(starts)
}

async fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let failed = |cause| StartError::Listen { address, cause };
    let socket = TcpListener::bind(address).await.map_err(failed)?;
    let address = socket.local_addr().map_err(failed)?;
    Ok((socket, address))
}
