//! One node of a cluster of processes: its connections to the others, the proxy before it, and a listener for clients.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use coracle_core::peer::{Founders, LocalNode, Origin, PeerHappening, PeerRefusal, Standing};
use coracle_core::proxy::{Proxy, ProxyInput};
use coracle_core::raft::{Configuration, LogIndex, NodeId};
use coracle_core::{Incarnation, Settings};
use coracle_storage::asynchronous::Folder;
use coracle_storage::{
    FileError, FolderLock, Medium, MemberStart, NodeEvent, Recovery, found_member, open_member,
};
use smol::net::TcpListener;
use smol::{LocalExecutor, Task, Timer};

use crate::client::Client;
use crate::clock::Clock;
use crate::cluster::{FAREWELL, StartError, bind};
use crate::events;
use crate::founding;
use crate::link::within;
use crate::listener::Listener;
use crate::mailbox::{Receiver, Sender, mailbox};
use crate::network::Network;
use crate::node::NodeInput;
use crate::peer_listener;
use crate::peers::Peers;
use crate::proxy::{ProxyDriver, ProxyEvent};
use crate::wiring::{FileStart, NodeStart, Wiring};

/// How long the last answers to other nodes are given to leave when a node stops.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// What a node is started with.
#[derive(Clone, Debug)]
pub struct MemberOptions {
    /// How long things may take, how much is allowed. How many nodes there are is not for one of them to say.
    pub settings: Settings,
    /// Which node it is.
    pub id: NodeId,
    /// How it finds its cluster at its first start.
    pub origin: Origin,
    /// Where the state is kept: a folder of its own.
    pub medium: Medium,
    /// Where clients connect; port 0 takes a free one. `None`: only this process asks.
    pub listen: Option<SocketAddr>,
    /// Where to listen for the other nodes, if not where they find this one: behind a translation of addresses.
    pub peer_listen: Option<Box<str>>,
    /// Where to dial other nodes instead of where they say that they are.
    pub detours: BTreeMap<NodeId, Box<str>>,
}

/// Why a running node ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum MemberFailure {
    /// Its cluster does not take it.
    #[error(transparent)]
    Refused(#[from] PeerRefusal),
    /// Its files cannot be made.
    #[error(transparent)]
    Files(#[from] FileError),
    /// It cannot start from what it has.
    #[error(transparent)]
    Start(#[from] StartError),
    /// Its disk failed; the events say how.
    #[error("the node has lost its disk")]
    DiskLost,
}

/// A running node. Dropping it ends it at once; [`Member::stop`] ends it in order.
#[derive(Debug)]
pub struct Member {
    proxy: Sender<ProxyEvent>,
    inbox: Sender<NodeInput>,
    network: Rc<Network>,
    listener: Option<Task<()>>,
    life: Task<()>,
    running: Rc<RefCell<Running>>,
    address: Option<SocketAddr>,
    events: async_channel::Receiver<NodeEvent>,
    disk_is_lost: Rc<Cell<bool>>,
    connections_end: async_channel::Receiver<()>,
    resign_patience: Duration,
    _proxy_task: Task<()>,
    _lock: Option<FolderLock>,
}

/// What was found, locked and bound before anything runs.
struct Ground {
    lock: Option<FolderLock>,
    start: Start,
    identity: (Standing, Incarnation, LogIndex, bool),
    own_address: Option<Box<str>>,
    peer_socket: Option<TcpListener>,
    socket: Option<(TcpListener, SocketAddr)>,
}

/// What has become of the node so far.
#[derive(Debug, Default)]
struct Running {
    tasks: Vec<Task<()>>,
    failure: Option<MemberFailure>,
}

impl Member {
    /// Starts a node on `executor`, which has to be run for anything to happen. It serves clients at once; until it has
    /// its cluster they are told that there is no leader.
    ///
    /// # Errors
    ///
    /// [`StartError`]: nothing runs.
    pub async fn start(
        executor: &Rc<LocalExecutor<'static>>,
        options: MemberOptions,
    ) -> Result<Self, StartError> {
        options.settings.check()?;
        let (lock, start) = open(&options.medium, options.id).await?;
        let identity = start.standing(&options.origin)?;
        let own_address = own_address(options.id, &identity.0);
        let peer_socket = match options.peer_listen.as_deref().or(own_address.as_deref()) {
            Some(address) => Some(bind_peers(address).await?),
            None => None,
        };
        let socket = match options.listen {
            Some(address) => Some(bind(address).await?),
            None => None,
        };
        Self::begin(executor, options, Ground { lock, start, identity, own_address, peer_socket, socket })
    }

    /// Starts what runs, now that nothing can be in its way.
    fn begin(
        executor: &Rc<LocalExecutor<'static>>,
        options: MemberOptions,
        ground: Ground,
    ) -> Result<Self, StartError> {
        let MemberOptions { settings, id, origin, medium, peer_listen, detours, .. } = options;
        let Ground { lock, start, identity, own_address, peer_socket, socket } = ground;
        let (standing, incarnation, configuration_index, was_named) = identity;
        let limits = settings.replica_limits()?;
        let clock = Clock::start();
        let (events, event_receiver) = events::channel();
        let (proxy, proxy_inbox) = mailbox();
        let (inbox, node_inbox) = mailbox();
        let address = socket.as_ref().map(|(_, address)| *address);
        let client_address = address.map(|address| address.to_string().into());
        let boot = fastrand::u64(..);
        let local = LocalNode {
            id,
            incarnation,
            client_address,
            boot,
            standing,
            configuration_index,
            is_settled: false,
            was_named,
        };
        let (to_node, to_proxy) = (inbox.clone(), proxy.clone());
        let network =
            Network::new(Rc::clone(executor), local, own_address, detours, to_node, to_proxy, events.clone());
        let network = Rc::new(network);
        let peers = Peers::Network(Rc::clone(&network));
        let disk_is_lost = Rc::new(Cell::new(false));
        let driver = ProxyDriver {
            proxy: Proxy::new(settings.member_proxy_config(id), fastrand::u64(..)),
            inbox: proxy_inbox,
            peers: peers.clone(),
            nodes: 1,
            majority_is_lost: Rc::clone(&disk_is_lost),
            clock,
        };
        let (connections_end, all_connections_end) = async_channel::bounded(1);
        let listener = socket.map(|bound| Listener::new(executor, bound, &proxy, &settings, connections_end));
        let running = Rc::new(RefCell::new(Running::default()));
        let life = Life {
            executor: Rc::clone(executor),
            network: Rc::clone(&network),
            peers,
            origin,
            peer_listen,
            peer_socket,
            proxy: proxy.clone(),
            inbox: inbox.clone(),
            events,
            clock,
            limits,
            settings: settings.clone(),
            medium,
        };
        let state = Rc::clone(&running);
        let life = async move {
            if let Err(failure) = life.run(start, node_inbox, &state).await {
                state.borrow_mut().failure = Some(failure);
            }
        };
        Ok(Self {
            proxy,
            inbox,
            network,
            listener: listener.map(|listener| executor.spawn(listener.run())),
            life: executor.spawn(life),
            running,
            address,
            events: event_receiver,
            disk_is_lost,
            connections_end: all_connections_end,
            resign_patience: settings.election_timeout_max,
            _proxy_task: executor.spawn(driver.run()),
            _lock: lock,
        })
    }

    /// Where clients connect.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// A way to ask the cluster from this process, through this node.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::new(self.proxy.clone())
    }

    /// What the node tells from now on, and what nobody has read so far. Each event goes to one reader.
    #[must_use]
    pub fn events(&self) -> async_channel::Receiver<NodeEvent> {
        self.events.clone()
    }

    /// Why the node has ended by itself, if it has. It is told once.
    #[must_use]
    pub fn failure(&self) -> Option<MemberFailure> {
        let failure = self.running.borrow_mut().failure.take();
        failure.or_else(|| self.disk_is_lost.get().then_some(MemberFailure::DiskLost))
    }

    /// Stops in order: takes no more clients, hands leadership over, takes no more requests, waits for what is under way,
    /// writes what is owed to clients and to other nodes, and closes the files.
    pub async fn stop(mut self) {
        if let Some(listener) = self.listener.take() {
            listener.cancel().await;
        }
        let has_node = !self.running.borrow().tasks.is_empty();
        if has_node {
            let (done, resigned) = async_channel::bounded::<()>(1);
            if self.inbox.send(NodeInput::Resign(done)).is_ok() {
                within(self.resign_patience, resigned.recv()).await;
            }
        }
        let (done, idle) = async_channel::bounded::<()>(1);
        if self.proxy.send(ProxyEvent::Stop(done)).is_ok() {
            // Ends when the proxy does; no request takes longer than its timeout.
            let _ = idle.recv().await;
        }
        within(FAREWELL, self.connections_end.recv()).await;
        let all_sent = async {
            while !self.network.is_idle() {
                Timer::after(Duration::from_millis(1)).await;
            }
        };
        within(LAST_WORDS, all_sent).await;
        self.life.cancel().await;
        let _ = self.inbox.send(NodeInput::Stop);
        let tasks = std::mem::take(&mut self.running.borrow_mut().tasks);
        for task in tasks {
            task.await;
        }
        self.network.hang_up();
    }
}

/// What a node does from its start on: it finds its cluster, and takes part in it.
struct Life {
    executor: Rc<LocalExecutor<'static>>,
    network: Rc<Network>,
    peers: Peers,
    origin: Origin,
    peer_listen: Option<Box<str>>,
    peer_socket: Option<TcpListener>,
    proxy: Sender<ProxyEvent>,
    inbox: Sender<NodeInput>,
    events: events::Events,
    clock: Clock,
    limits: coracle_core::ReplicaLimits,
    settings: Settings,
    medium: Medium,
}

impl Life {
    async fn run(
        mut self,
        start: Start,
        inbox: Receiver<NodeInput>,
        running: &Rc<RefCell<Running>>,
    ) -> Result<(), MemberFailure> {
        let mut listening = self.peer_socket.take().map(|socket| self.listen(socket));
        let own = self.network.id();
        let (founders, start) = match start {
            Start::Founded(recovery, log_folder) => {
                let identity = recovery.identity.clone();
                let founders = Founders { cluster: identity.cluster, roster: identity.roster };
                (founders, self.node_start(log_folder, *recovery))
            }
            Start::Unfounded(incarnation) => {
                let founders = self.find_cluster().await?;
                let start = self.make_files(incarnation, &founders).await?;
                let standing = Standing::Member(founders.clone(), first_configuration(&founders)?);
                self.network.local.borrow_mut().standing = standing;
                self.network.tell(PeerHappening::Founded);
                (founders, start)
            }
        };
        if listening.is_none() {
            let address = self.network.address.borrow().clone();
            let socket = match self.peer_listen.as_deref().or(address.as_deref()) {
                Some(address) => bind_peers(address).await?,
                None => return Err(StartError::NoPeerAddress { node: own }.into()),
            };
            listening = Some(self.listen(socket));
        }
        self.network.follow_known();
        let inboxes = BTreeMap::from([(own, self.inbox.clone())]);
        let wiring = Wiring {
            executor: &self.executor,
            inboxes: &inboxes,
            peers: &self.peers,
            proxy: &self.proxy,
            events: &self.events,
            clock: self.clock,
            limits: self.limits,
        };
        let incarnation = self.network.local.borrow().incarnation;
        let config = self.settings.member_config(own, incarnation, &founders).map_err(StartError::from)?;
        let mut tasks = wiring.start_node(config, start, inbox)?;
        tasks.reverse();
        running.borrow_mut().tasks = tasks;
        let here = ProxyInput::Reachable(own, None);
        let _ = self.proxy.send(ProxyEvent::FromNode(vec![here]));
        // The connections of those who dial live as long as this.
        if let Some(listening) = listening {
            listening.await;
        }
        Ok(())
    }

    fn listen(&self, socket: TcpListener) -> Task<()> {
        self.executor.spawn(peer_listener::run(Rc::clone(&self.network), socket))
    }

    async fn find_cluster(&self) -> Result<Founders, MemberFailure> {
        match &self.origin {
            Origin::Found(peers) => Ok(founding::found(&self.network, peers).await?),
            Origin::Join(address) => {
                let (founders, configuration) = founding::join(&self.network, address).await?;
                let own = configuration.roster().member(self.network.id());
                *self.network.address.borrow_mut() = own.map(|member| member.address.clone());
                self.network.remember(&configuration);
                Ok(founders)
            }
            Origin::Known => Err(StartError::NoOrigin.into()),
        }
    }

    async fn make_files(
        &self,
        incarnation: Incarnation,
        founders: &Founders,
    ) -> Result<NodeStart, MemberFailure> {
        let Medium::Folder { path, sync } = &self.medium else { return Ok(NodeStart::Empty) };
        let (creation, recovery) = found_member(self.network.id(), incarnation, founders, *sync);
        let mut folder = Folder::new(path);
        folder.run(creation).await?;
        Ok(self.node_start(folder, recovery))
    }

    fn node_start(&self, log_folder: Folder, recovery: Recovery) -> NodeStart {
        let Medium::Folder { path, .. } = &self.medium else { return NodeStart::Empty };
        let snapshot_folder = Folder::new(path);
        NodeStart::Files(Box::new(FileStart { log_folder, snapshot_folder, recovery }))
    }
}

/// What a node finds in its folder.
enum Start {
    Unfounded(Incarnation),
    Founded(Box<Recovery>, Folder),
}

impl Start {
    fn standing(&self, origin: &Origin) -> Result<(Standing, Incarnation, LogIndex, bool), StartError> {
        match (self, origin) {
            (Self::Founded(recovery, _), _) => {
                let identity = &recovery.identity;
                let founders = Founders { cluster: identity.cluster, roster: identity.roster.clone() };
                let first = first_configuration(&founders)?;
                let was_named = recovery.restored.names(&first, identity.node, identity.incarnation);
                let latest = recovery.restored.latest_configuration();
                let (index, configuration) = latest.unwrap_or((LogIndex::ORIGIN, first));
                Ok((Standing::Member(founders, configuration), identity.incarnation, index, was_named))
            }
            (Self::Unfounded(incarnation), Origin::Found(peers)) => {
                Ok((Standing::Founding(peers.clone()), *incarnation, LogIndex::ORIGIN, false))
            }
            (Self::Unfounded(incarnation), Origin::Join(_)) => {
                Ok((Standing::Joining, *incarnation, LogIndex::ORIGIN, false))
            }
            (Self::Unfounded(_), Origin::Known) => Err(StartError::NoOrigin),
        }
    }
}

/// Locks the folder and brings it into a state from which the node can start.
async fn open(medium: &Medium, id: NodeId) -> Result<(Option<FolderLock>, Start), StartError> {
    let fresh = Incarnation(fastrand::u64(..));
    let Medium::Folder { path, sync } = medium else { return Ok((None, Start::Unfounded(fresh))) };
    let lock = FolderLock::take(path)?;
    let mut folder = Folder::new(path);
    let files = folder.read(id).await?;
    let start = match open_member(id, &files, fresh, *sync)? {
        MemberStart::Unfounded { incarnation, creation } => {
            folder.run(creation).await?;
            Start::Unfounded(incarnation)
        }
        MemberStart::Founded(mut recovery) => {
            folder.run(std::mem::take(&mut recovery.repairs)).await?;
            Start::Founded(recovery, folder)
        }
    };
    Ok((Some(lock), start))
}

/// Where the node's peers reach it, as far as it knows before it has met them.
fn own_address(id: NodeId, standing: &Standing) -> Option<Box<str>> {
    let roster = match standing {
        Standing::Founding(peers) => peers,
        Standing::Joining => return None,
        Standing::Member(_, configuration) => configuration.roster(),
    };
    roster.member(id).map(|member| member.address.clone())
}

fn first_configuration(founders: &Founders) -> Result<Configuration, StartError> {
    LocalNode::first_configuration(founders)
        .ok_or(StartError::Settings(coracle_core::SettingsError::NodeCount))
}

async fn bind_peers(address: &str) -> Result<TcpListener, StartError> {
    let failed = |cause| StartError::ListenForPeers { address: address.into(), cause };
    TcpListener::bind(address).await.map_err(failed)
}
