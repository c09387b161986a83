//! One node of a cluster of processes: its connections to the others, the proxy before it, and a listener for clients.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use coracle_core::host::{Directory, Router};
use coracle_core::peer::PeerEvent;
use coracle_core::proxy::{Proxy, ProxyInput};
use coracle_storage::asynchronous::Folder;
use coracle_storage::host::{
    FolderContents, FoundMember, MemberFailure, MemberOpening, MemberOptions, OpenedMember, StartError,
};
use coracle_storage::{FileError, FileOp, FolderLock, Medium, NodeEvent};
use smol::net::TcpListener;
use smol::{LocalExecutor, Task, Timer};

use crate::client::Client;
use crate::clock::Clock;
use crate::cluster::{FAREWELL, bind, lock};
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
use crate::wiring::{FileStart, Wiring};

/// How long the last answers to other nodes are given to leave when a node stops.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// A running node. Dropping it ends it at once; [`Member::stop`] ends it in order.
#[derive(Debug)]
pub struct Member {
    proxy: Sender<ProxyEvent>,
    inbox: Sender<NodeInput>,
    network: Rc<Network>,
    listener: Option<Task<()>>,
    startup: Task<()>,
    running: Rc<RefCell<Running>>,
    address: Option<SocketAddr>,
    events: async_channel::Receiver<NodeEvent>,
    disk_is_lost: Rc<Cell<bool>>,
    connections_end: async_channel::Receiver<()>,
    resign_patience: Duration,
    _proxy_task: Task<()>,
    _lock: Option<FolderLock>,
}

/// What was opened and bound before anything runs.
struct Prepared {
    lock: Option<FolderLock>,
    opened: OpenedMember,
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
        let (lock, mut found) = judge(&options).await?;
        let own_address = found.address();
        let peer_socket = match options.peer_listen.as_deref().or(own_address.as_deref()) {
            Some(address) => Some(bind_peers(address).await?),
            None => None,
        };
        let socket = match options.listen {
            Some(address) => Some(bind(address).await?),
            None => None,
        };
        write(&options.medium, found.operations()).await?;
        let opened = found.opened(socket.as_ref().map(|(_, address)| address.to_string().into()));
        Self::begin(executor, options, Prepared { lock, opened, own_address, peer_socket, socket })
    }

    /// Starts what runs, now that nothing can be in its way.
    fn begin(
        executor: &Rc<LocalExecutor<'static>>,
        options: MemberOptions,
        prepared: Prepared,
    ) -> Result<Self, StartError> {
        let Prepared { lock, opened, own_address, peer_socket, socket } = prepared;
        let clock = Clock::start();
        let (events, event_receiver) = events::channel();
        let (proxy, proxy_inbox) = mailbox();
        let (inbox, node_inbox) = mailbox();
        let address = socket.as_ref().map(|(_, address)| *address);
        let directory = Directory::new(opened.local.clone(), own_address, options.dial_overrides.clone());
        let (to_node, to_proxy) = (inbox.clone(), proxy.clone());
        let network = Network::new(Rc::clone(executor), directory, to_node, to_proxy, events.clone(), clock);
        let network = Rc::new(network);
        let peers = Peers::Network(Rc::clone(&network));
        let settings = &options.settings;
        let disk_is_lost = Rc::new(Cell::new(false));
        let router = Router::new(Proxy::new(settings.member_proxy_config(options.id), fastrand::u64(..)), 1);
        let driver = ProxyDriver::new(router, proxy_inbox, peers.clone(), disk_is_lost.clone(), clock);
        let (connections_end, all_connections_end) = async_channel::bounded(1);
        let listener = socket.map(|bound| Listener::new(executor, bound, &proxy, settings, connections_end));
        let running = Rc::new(RefCell::new(Running::default()));
        let resign_patience = settings.election_timeout_max;
        let startup = Startup {
            executor: Rc::clone(executor),
            network: Rc::clone(&network),
            options,
            peers,
            peer_socket,
            proxy: proxy.clone(),
            inbox: inbox.clone(),
            events,
            clock,
        };
        let state = Rc::clone(&running);
        let startup = async move {
            if let Err(failure) = startup.run(opened, node_inbox, &state).await {
                state.borrow_mut().failure = Some(failure);
            }
        };
        Ok(Self {
            proxy,
            inbox,
            network,
            listener: listener.map(|listener| executor.spawn(listener.run())),
            startup: executor.spawn(startup),
            running,
            address,
            events: event_receiver,
            disk_is_lost,
            connections_end: all_connections_end,
            resign_patience,
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
        self.startup.cancel().await;
        let _ = self.inbox.send(NodeInput::Stop);
        let tasks = std::mem::take(&mut self.running.borrow_mut().tasks);
        for task in tasks {
            task.await;
        }
        self.network.hang_up();
    }
}

/// A node's way from its start to taking part: it finds its cluster, makes its files and starts the node.
struct Startup {
    executor: Rc<LocalExecutor<'static>>,
    network: Rc<Network>,
    options: MemberOptions,
    peers: Peers,
    peer_socket: Option<TcpListener>,
    proxy: Sender<ProxyEvent>,
    inbox: Sender<NodeInput>,
    events: events::Events,
    clock: Clock,
}

impl Startup {
    async fn run(
        mut self,
        mut opened: OpenedMember,
        inbox: Receiver<NodeInput>,
        running: &Rc<RefCell<Running>>,
    ) -> Result<(), MemberFailure> {
        let mut listening = self.peer_socket.take().map(|socket| self.listen(socket));
        let own = self.network.id;
        let founders = match opened.founders() {
            Some(founders) => founders,
            None => {
                let (founders, configuration) = founding::find(&self.network, &self.options.origin).await?;
                write(&self.options.medium, opened.found(&founders)?).await?;
                let standing = opened.local.standing.clone();
                self.network.directory.borrow_mut().found(standing, configuration.as_ref());
                self.network.report(PeerEvent::Founded);
                founders
            }
        };
        if listening.is_none() {
            let own_address = self.network.directory.borrow().address().map(Box::<str>::from);
            let socket = match self.options.peer_listen.as_deref().or(own_address.as_deref()) {
                Some(address) => bind_peers(address).await?,
                None => return Err(StartError::NoPeerAddress { node: own }.into()),
            };
            listening = Some(self.listen(socket));
        }
        self.network.reach();
        let inboxes = BTreeMap::from([(own, self.inbox.clone())]);
        let wiring = Wiring {
            executor: &self.executor,
            inboxes: &inboxes,
            peers: &self.peers,
            proxy: &self.proxy,
            events: &self.events,
            clock: self.clock,
            limits: self.options.settings.replica_limits().map_err(StartError::from)?,
        };
        let incarnation = opened.local.incarnation;
        let start = opened.files().map(|(path, recovery)| FileStart { path, recovery });
        let config =
            self.options.settings.member_config(own, incarnation, &founders).map_err(StartError::from)?;
        let mut tasks = wiring.start_node(config, start, inbox)?;
        tasks.reverse();
        running.borrow_mut().tasks = tasks;
        self.network.route(vec![ProxyInput::Reachable(own, None)]);
        // The connections of those who dial live as long as this.
        if let Some(listening) = listening {
            listening.await;
        }
        Ok(())
    }

    fn listen(&self, socket: TcpListener) -> Task<()> {
        self.executor.spawn(peer_listener::run(Rc::clone(&self.network), socket))
    }
}

/// Locks and judges the node's folder, if it has one. Nothing is written to it.
async fn judge(options: &MemberOptions) -> Result<(Option<FolderLock>, FoundMember), StartError> {
    let opening = MemberOpening::new(options)?;
    let Medium::Folder { path, .. } = &options.medium else {
        return Ok((None, opening.judge(&FolderContents::default())?));
    };
    let lock = lock(path).await?;
    let contents = Folder::new(path).contents(&opening.nodes()).await?;
    Ok((Some(lock), opening.judge(&contents)?))
}

/// Writes to the node's folder, if it has one.
async fn write(medium: &Medium, operations: Vec<FileOp>) -> Result<(), FileError> {
    let Medium::Folder { path, .. } = medium else { return Ok(()) };
    Folder::new(path).run(operations).await
}

async fn bind_peers(address: &str) -> Result<TcpListener, StartError> {
    let failed = |cause| StartError::ListenForPeers { address: address.into(), cause };
    TcpListener::bind(address).await.map_err(failed)
}
