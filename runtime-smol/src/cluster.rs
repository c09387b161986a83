//! A whole cluster in this process: some nodes, the proxy before them, and a listener if clients come by TCP.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use coracle_core::host::Router;
use coracle_core::proxy::Proxy;
use coracle_core::raft::NodeId;
use coracle_storage::asynchronous::Folder;
use coracle_storage::host::{ClusterOpening, FoundCluster, Options, StartError};
use coracle_storage::{FolderLock, Medium, NodeEvent};
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
use crate::wiring::{FileStart, Wiring};

/// How long clients that do not take their last replies are waited for when the cluster stops.
pub(crate) const FAREWELL: Duration = Duration::from_secs(1);

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
        let found = judge(&medium, configs.len()).await?;
        let socket = match listen {
            Some(address) => Some(bind(address).await?),
            None => None,
        };
        let (lock, starts) = open(found, configs.len()).await?;
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
        let router = Router::new(Proxy::new(settings.proxy_config(), fastrand::u64(..)), settings.nodes);
        let driver = ProxyDriver::new(router, proxy_inbox, peers, majority_is_lost.clone(), clock);
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

/// A folder that is locked and judged, and in which nothing was written so far.
struct JudgedFolder {
    path: PathBuf,
    lock: FolderLock,
    found: FoundCluster,
}

/// Locks and judges the data folder, if there is one.
async fn judge(medium: &Medium, nodes: usize) -> Result<Option<JudgedFolder>, StartError> {
    let Medium::Folder { path, sync } = medium else { return Ok(None) };
    let lock = lock(path).await?;
    let opening = ClusterOpening::new(nodes, *sync)?;
    let contents = Folder::new(path).contents(&opening.nodes()).await?;
    let found = opening.judge(contents)?;
    Ok(Some(JudgedFolder { path: path.clone(), lock, found }))
}

/// Brings the data folder into a state from which all nodes can start.
async fn open(
    judged: Option<JudgedFolder>,
    nodes: usize,
) -> Result<(Option<FolderLock>, Vec<Option<FileStart>>), StartError> {
    let Some(JudgedFolder { path, lock, mut found }) = judged else {
        return Ok((None, (0..nodes).map(|_| None).collect()));
    };
    Folder::new(&path).run(found.operations()).await?;
    let start = |recovery| Some(FileStart { path: path.clone(), recovery });
    Ok((Some(lock), found.opened().into_iter().map(start).collect()))
}

/// Locks a data folder. The executor does not wait for the disk meanwhile.
pub(crate) async fn lock(path: &Path) -> Result<FolderLock, StartError> {
    let path = path.to_owned();
    Ok(smol::unblock(move || FolderLock::take(&path)).await?)
}

pub(crate) async fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let failed = |cause| StartError::Listen { address, cause };
    let socket = TcpListener::bind(address).await.map_err(failed)?;
    let address = socket.local_addr().map_err(failed)?;
    Ok((socket, address))
}
