//! One node of a cluster of processes: its connections to the others, the proxy before it, and a listener for clients.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use coracle_core::host::{Directory, Router};
use coracle_core::peer::PeerEvent;
use coracle_core::proxy::{Proxy, ProxyInput};
use coracle_storage::blocking::Folder;
use coracle_storage::host::{
    FolderContents, FoundMember, MemberFailure, MemberOpening, MemberOptions, OpenedMember, StartError,
};
use coracle_storage::{FileError, FileOp, FolderLock, Medium, NodeEvent};

use crate::client::Client;
use crate::clock::Clock;
use crate::cluster::{FAREWELL, bind};
use crate::events;
use crate::founding;
use crate::inbox::{Inbox, InboxReceiver, inbox};
use crate::link::Patience;
use crate::listener::Listener;
use crate::network::Network;
use crate::node::NodeInput;
use crate::peer_listener;
use crate::peers::Peers;
use crate::proxy::{ProxyDriver, ProxyEvent};
use crate::threads::{ListenerThread, lock, spawn};
use crate::wiring::{FileStart, Wiring};

/// How long the last answers to other nodes are given to leave when a node stops.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// A running node. Dropping it ends it at once; [`Member::stop`] ends it in order. Either way its threads have ended then,
/// but for those that wait for a name or a connection, which hold nothing and end a moment later.
#[derive(Debug)]
pub struct Member {
    proxy: Sender<ProxyEvent>,
    inbox: Inbox,
    network: Arc<Network>,
    listener: Option<ListenerThread>,
    running: Arc<Mutex<Running>>,
    address: Option<SocketAddr>,
    events: Mutex<Option<Receiver<NodeEvent>>>,
    disk_is_lost: Arc<AtomicBool>,
    connections_end: Receiver<()>,
    threads_end: Receiver<()>,
    resign_patience: Duration,
    proxy_thread: Option<JoinHandle<()>>,
    /// The files are free when nobody writes them any more, and that may be the thread that finds the cluster.
    _lock: Arc<Option<FolderLock>>,
}

/// What has become of the node so far.
#[derive(Debug, Default)]
struct Running {
    threads: Vec<JoinHandle<()>>,
    peer_listener: Option<ListenerThread>,
    failure: Option<MemberFailure>,
    /// Nothing is to be started any more.
    is_over: bool,
}

impl Member {
    /// Starts a node: a thread that finds its cluster and then starts one for the node and two for its files, one for the
    /// proxy, one that accepts clients and two for every client, one that accepts other nodes and three for each of
    /// them. It serves clients at once; until it has its cluster they are told that there is no leader.
    ///
    /// # Errors
    ///
    /// [`StartError`]: nothing runs.
    pub fn start(options: MemberOptions) -> Result<Self, StartError> {
        options.settings.check()?;
        let (lock, mut found) = judge(&options)?;
        let own_address = found.address();
        let peer_address = options.peer_listen.as_deref().or(own_address.as_deref());
        let peer_socket = peer_address.map(bind_peers).transpose()?;
        let socket = options.listen.map(bind).transpose()?;
        let address = socket.as_ref().map(|(_, address)| *address);
        write(&options.medium, found.operations())?;
        let opened = found.opened(address.map(|address| address.to_string().into()));
        let clock = Clock::start();
        let (events, event_receiver) = events::channel();
        let (proxy, proxy_inbox) = channel();
        let (inbox, node_inbox) = inbox();
        let (thread_end, threads_end) = channel();
        let directory = Directory::new(opened.local.clone(), own_address, options.dial_overrides.clone());
        let (to_node, to_proxy, end) = (inbox.clone(), proxy.clone(), thread_end.clone());
        let network = Arc::new(Network::new(directory, to_node, to_proxy, events.clone(), clock, end));
        let peers = Peers::Network(Arc::clone(&network));
        let (settings, id) = (options.settings.clone(), options.id);
        let disk_is_lost = Arc::new(AtomicBool::new(false));
        let router = Router::new(Proxy::new(settings.member_proxy_config(id), fastrand::u64(..)), 1);
        let driver = ProxyDriver::new(router, proxy_inbox, peers.clone(), disk_is_lost.clone(), clock);
        let (connections_end, all_connections_end) = channel();
        let lock = Arc::new(lock);
        let startup = Startup {
            network: Arc::clone(&network),
            options,
            peers,
            peer_socket,
            proxy: proxy.clone(),
            inbox: inbox.clone(),
            events,
            clock,
            running: Arc::default(),
        };
        Ok(Self {
            inbox,
            network,
            listener: socket.map(|socket| Listener::start(socket, &settings, &proxy, connections_end)),
            running: startup.start(opened, node_inbox, (Arc::clone(&lock), thread_end)),
            address,
            events: Mutex::new(Some(event_receiver)),
            disk_is_lost,
            connections_end: all_connections_end,
            threads_end,
            resign_patience: settings.election_timeout_max,
            proxy_thread: Some(spawn(format!("proxy {id}"), move || driver.run())),
            proxy,
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

    /// What the node tells, from the start on. There is one reader: `None` when it was taken before.
    #[must_use]
    pub fn events(&self) -> Option<Receiver<NodeEvent>> {
        lock(&self.events).take()
    }

    /// Why the node has ended by itself, if it has. It is told once.
    #[must_use]
    pub fn failure(&self) -> Option<MemberFailure> {
        let failure = lock(&self.running).failure.take();
        let disk_is_lost = self.disk_is_lost.load(Ordering::Acquire);
        failure.or_else(|| disk_is_lost.then_some(MemberFailure::DiskLost))
    }

    /// Stops in order: takes no more clients, hands leadership over, takes no more requests, waits for what is under way,
    /// writes what is owed to clients and to other nodes, and closes the files.
    pub fn stop(mut self) {
        if let Some(listener) = self.listener.take() {
            listener.stop();
        }
        let has_node = !lock(&self.running).threads.is_empty();
        if has_node {
            let (done, resigned) = channel::<()>();
            self.inbox.send(NodeInput::Resign(done));
            let _ = resigned.recv_timeout(self.resign_patience);
        }
        let (done, idle) = channel::<()>();
        if self.proxy.send(ProxyEvent::Stop(done)).is_ok() {
            // Ends when the proxy does; no request takes longer than its timeout.
            let _ = idle.recv();
        }
        // Ends when the last connection does.
        let _ = self.connections_end.recv_timeout(FAREWELL);
        let patience = Patience::new(self.network.clock, LAST_WORDS);
        while !self.network.is_idle() && patience.left().is_ok() {
            thread::sleep(Duration::from_millis(1));
        }
        // The rest is what dropping it does.
    }

    /// Ends every thread that still runs.
    fn end(&mut self) {
        if let Some(listener) = self.listener.take() {
            listener.stop();
        }
        let mut running = lock(&self.running);
        running.is_over = true;
        let (threads, peer_listener) = (std::mem::take(&mut running.threads), running.peer_listener.take());
        drop(running);
        if let Some(peer_listener) = peer_listener {
            peer_listener.stop();
        }
        self.inbox.send(NodeInput::Stop);
        for thread in threads {
            // A panic in one of them has ended the process.
            let _ = thread.join();
        }
        self.network.hang_up();
        let _ = self.proxy.send(ProxyEvent::End);
        if let Some(proxy) = self.proxy_thread.take() {
            let _ = proxy.join();
        }
        // Those that wait for a name or a connection end when they have it, or not.
        let _ = self.threads_end.recv_timeout(FAREWELL);
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.end();
    }
}

/// A node's way from its start to taking part: it finds its cluster, makes its files and starts the node.
struct Startup {
    network: Arc<Network>,
    options: MemberOptions,
    peers: Peers,
    peer_socket: Option<(TcpListener, SocketAddr)>,
    proxy: Sender<ProxyEvent>,
    inbox: Inbox,
    events: events::Events,
    clock: Clock,
    running: Arc<Mutex<Running>>,
}

impl Startup {
    /// Runs it in a thread, and drops `held` when that is done.
    fn start(
        self,
        opened: OpenedMember,
        inbox: InboxReceiver,
        held: impl Send + 'static,
    ) -> Arc<Mutex<Running>> {
        let running = Arc::clone(&self.running);
        spawn(format!("startup {}", self.network.id), move || {
            self.finish(opened, inbox);
            drop(held);
        });
        running
    }

    fn finish(mut self, opened: OpenedMember, inbox: InboxReceiver) {
        if let Err(failure) = self.run(opened, inbox) {
            let mut running = lock(&self.running);
            running.failure = Some(failure);
            let peer_listener = running.peer_listener.take();
            drop(running);
            if let Some(peer_listener) = peer_listener {
                peer_listener.stop();
            }
        }
    }

    fn run(&mut self, mut opened: OpenedMember, inbox: InboxReceiver) -> Result<(), MemberFailure> {
        let socket = self.peer_socket.take();
        let is_listening = socket.is_some();
        if let Some(socket) = socket {
            self.listen(socket);
        }
        let own = self.network.id;
        let founders = match opened.founders() {
            Some(founders) => founders,
            None => {
                let found = founding::find(&self.network, &self.options.origin)?;
                let Some((founders, configuration)) = found else { return Ok(()) };
                write(&self.options.medium, opened.found(&founders)?)?;
                let standing = opened.local.standing.clone();
                lock(&self.network.directory).found(standing, configuration.as_ref());
                self.network.report(PeerEvent::Founded);
                founders
            }
        };
        if !is_listening {
            let own_address = lock(&self.network.directory).address().map(Box::<str>::from);
            let socket = match self.options.peer_listen.as_deref().or(own_address.as_deref()) {
                Some(address) => bind_peers(address)?,
                None => return Err(StartError::NoPeerAddress { node: own }.into()),
            };
            self.listen(socket);
        }
        self.network.reach();
        let inboxes = BTreeMap::from([(own, self.inbox.clone())]);
        let wiring = Wiring {
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
        let threads = wiring.start_node(config, start, inbox)?;
        self.begin(threads);
        self.network.route(vec![ProxyInput::Reachable(own, None)]);
        Ok(())
    }

    /// Accepts other nodes from now on.
    fn listen(&self, (socket, address): (TcpListener, SocketAddr)) {
        let mut running = lock(&self.running);
        if !running.is_over {
            running.peer_listener = Some(peer_listener::start(&self.network, socket, address));
        }
    }

    /// The node takes part from now on, unless it was stopped meanwhile.
    fn begin(&self, threads: Vec<JoinHandle<()>>) {
        let mut running = lock(&self.running);
        if !running.is_over {
            running.threads = threads;
            return;
        }
        drop(running);
        self.inbox.send(NodeInput::Stop);
        for thread in threads {
            let _ = thread.join();
        }
    }
}

/// Locks and judges the node's folder, if it has one. Nothing is written to it.
fn judge(options: &MemberOptions) -> Result<(Option<FolderLock>, FoundMember), StartError> {
    let opening = MemberOpening::new(options)?;
    let Medium::Folder { path, .. } = &options.medium else {
        return Ok((None, opening.judge(&FolderContents::default())?));
    };
    let lock = FolderLock::take(path)?;
    let contents = Folder::new(path).contents(&opening.nodes())?;
    Ok((Some(lock), opening.judge(&contents)?))
}

/// Writes to the node's folder, if it has one.
fn write(medium: &Medium, operations: Vec<FileOp>) -> Result<(), FileError> {
    let Medium::Folder { path, .. } = medium else { return Ok(()) };
    Folder::new(path).run(&operations)
}

fn bind_peers(address: &str) -> Result<(TcpListener, SocketAddr), StartError> {
    let failed = |cause| StartError::ListenForPeers { address: address.into(), cause };
    let socket = TcpListener::bind(address).map_err(failed)?;
    let address = socket.local_addr().map_err(failed)?;
    Ok((socket, address))
}
