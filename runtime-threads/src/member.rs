//! A member: one node of a cluster of processes, with its connections to the other nodes and its
//! clients.

use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use coracle_core::host::{Directory, HostInput, PeerNews, Router};
use coracle_core::peer::PeerEvent;
use coracle_core::proxy::ProxyInput;
use coracle_storage::blocking::{open, prepare};
use coracle_storage::host::{
    MemberFailure, MemberOpening, MemberOptions, NodeEnd, NodeInput, OpenedMember, StartError,
};
use coracle_storage::{FolderLock, HostEvent, sockets};
use coracle_tls::Protection;

use crate::client::Client;
use crate::founding;
use crate::front::{Front, Sockets};
use crate::inbox::{Inbox, inbox};
use crate::link::Patience;
use crate::network::Network;
use crate::node::{self, NodeEnds};
use crate::peer_listener;
use crate::peers::Peers;
use crate::threads::{ListenerThread, lock, spawn};
use crate::wiring::{Events, Wiring};

/// How long the last answers to other nodes may take when a node shuts down.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(500);
/// How long a shutdown waits for the threads of connections.
const THREADS_TIMEOUT: Duration = Duration::from_secs(1);

/// A running node. Dropping it ends it at once; [`Member::stop`] shuts it down in order. Either way
/// its threads have ended when it returns, except those that wait for a name look-up or a
/// connection, which hold no resources and end a moment later.
#[derive(Debug)]
pub struct Member {
    front: Front,
    inbox: Inbox,
    network: Arc<Network>,
    running: Arc<Mutex<Running>>,
    /// Closed when the node has transferred its leadership, or has ended.
    resigned: Receiver<()>,
    events: Mutex<Option<Events>>,
    threads_end: Receiver<()>,
    resign_patience: Duration,
    /// Shared with the startup thread, which may still write files: the folder stays locked until
    /// both have let go.
    _lock: Arc<Option<FolderLock>>,
}

/// The threads of the node since its start, and why it failed.
#[derive(Debug, Default)]
struct Running {
    threads: Vec<JoinHandle<()>>,
    peer_listener: Option<ListenerThread>,
    failure: Option<MemberFailure>,
    /// Set when the node is dropped: nothing may be started any more.
    is_over: bool,
}

impl Member {
    /// Starts a node: a thread that finds its cluster and then starts one for the node and two for
    /// its files, one for the router, one that accepts clients and two per client, one that accepts
    /// other nodes and three per node. It serves clients at once; until it has found its cluster,
    /// it answers them that there is no leader.
    ///
    /// # Errors
    ///
    /// [`StartError`]: the node does not run.
    pub fn start(options: MemberOptions) -> Result<Self, StartError> {
        Self::start_protected(options, Protection::default())
    }

    /// Starts a node whose clients, or the other nodes, speak TLS, as `protection` says.
    ///
    /// # Errors
    ///
    /// [`StartError`]: the node does not run.
    pub fn start_protected(options: MemberOptions, protection: Protection) -> Result<Self, StartError> {
        let mut opening = MemberOpening::new(&options)?;
        let (medium, nodes) = (&options.medium, opening.nodes());
        let (lock, names) = open(medium, &nodes, |files| opening.look(files))?;
        let mut found = opening.judge(&names)?;
        let peer_address = options.peer_address(found.address().as_deref());
        let peer_socket = peer_address.ok().map(|address| bind_peers(&options, &address)).transpose()?;
        let sockets = Sockets::bind(options.listen, options.admin_listen)?;
        prepare(&options.medium, &found.operations())?;
        let opened = found.opened(sockets.client_address().map(|address| address.to_string().into()));
        let shares = options.settings.member_shares();
        let (wiring, router_inbox, events) = Wiring::new(&options.settings, shares, protection);
        let (inbox, node_inbox) = inbox(&wiring.memory);
        let (thread_end, threads_end) = channel();
        let (overrides, memory) = (options.dial_overrides.clone(), wiring.memory.clone());
        let (directory, moved) = opened.directory(overrides, options.settings.peer_places, memory);
        let (settings, to_node, end) = (&options.settings, inbox.clone(), thread_end.clone());
        let network =
            Arc::new(Network::new(wiring.clone(), directory, to_node, settings.election_timeout_min, end));
        moved.into_iter().for_each(|moved| network.deliver(PeerNews::Report(moved)));
        let peers = Peers::Network(Arc::clone(&network));
        let router = Router::of_member(settings, options.id, fastrand::u64(..), wiring.memory.clone());
        let front = Front::start(&wiring, peers, settings, router, router_inbox, sockets);
        let resign_patience = settings.election_timeout_max;
        let lock = Arc::new(lock);
        let running = Arc::<Mutex<Running>>::default();
        let (to_run, state) = (Arc::clone(&network), Arc::clone(&running));
        let (resigning, resigned) = channel();
        let startup = Startup { network: to_run, options, wiring, running: state };
        let (held, to_start) =
            ((Arc::clone(&lock), thread_end), (inbox.clone(), node_inbox, Some(resigning)));
        spawn(format!("startup {}", network.id), move || {
            startup.run(opened, to_start, peer_socket);
            drop(held);
        });
        Ok(Self {
            front,
            inbox,
            network,
            running,
            resigned,
            events: Mutex::new(Some(events)),
            threads_end,
            resign_patience,
            _lock: lock,
        })
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

    /// Returns a client in this process, whose requests go through this node.
    #[must_use]
    pub fn client(&self) -> Client {
        self.front.client()
    }

    /// The events of the node, from the start on. There is one reader: `None` when a caller has
    /// taken it before.
    #[must_use]
    pub fn events(&self) -> Option<Receiver<HostEvent>> {
        lock(&self.events).take()
    }

    /// Why the node has ended by itself or has to be ended: its cluster rejected it or removed it,
    /// or its disk failed.
    #[must_use]
    pub fn failure(&self) -> Option<MemberFailure> {
        let failure = lock(&self.running).failure.take();
        let failure = failure.or_else(|| self.network.removal().map(MemberFailure::from));
        failure.or_else(|| self.front.majority_is_lost().then_some(MemberFailure::DiskLost))
    }

    /// Shuts down in order: accepts no more clients, transfers leadership, accepts no more
    /// requests, waits for requests in flight, writes the remaining replies to clients and other
    /// nodes, and closes the files.
    pub fn stop(mut self) {
        self.front.close();
        let has_node = !lock(&self.running).threads.is_empty();
        if has_node {
            self.inbox.send(HostInput::Resign.into());
            let _ = self.resigned.recv_timeout(self.resign_patience);
        }
        self.front.finish();
        let patience = Patience::new(self.network.wiring.clock, ANSWER_TIMEOUT);
        while !self.network.is_idle() && patience.left().is_ok() {
            thread::sleep(Duration::from_millis(1));
        }
        // `Drop` does the rest.
    }
}

impl Drop for Member {
    /// Ends every thread that still runs.
    fn drop(&mut self) {
        self.front.close();
        let mut running = lock(&self.running);
        running.is_over = true;
        let (threads, peer_listener) = (std::mem::take(&mut running.threads), running.peer_listener.take());
        drop(running);
        if let Some(peer_listener) = peer_listener {
            peer_listener.stop();
        }
        end_node(&self.inbox, threads);
        self.network.hang_up();
        self.front.end();
        // Threads that wait for a name look-up or a connection end when they have the result.
        let _ = self.threads_end.recv_timeout(THREADS_TIMEOUT);
    }
}

fn end_node(inbox: &Inbox, threads: Vec<JoinHandle<()>>) {
    inbox.send(NodeInput::End(NodeEnd::Stopped));
    for thread in threads {
        // A panic in one of them has already ended the process.
        let _ = thread.join();
    }
}

/// The startup of a node: finds its cluster, creates its files and starts the node.
struct Startup {
    network: Arc<Network>,
    options: MemberOptions,
    wiring: Wiring,
    running: Arc<Mutex<Running>>,
}

impl Startup {
    fn run(self, opened: OpenedMember, ends: NodeEnds, socket: Option<(TcpListener, SocketAddr)>) {
        let is_listening = socket.is_some();
        socket.into_iter().for_each(|socket| self.listen(socket));
        if let Err(failure) = self.take_part(opened, ends, is_listening) {
            let mut running = lock(&self.running);
            running.failure = Some(failure);
            let peer_listener = running.peer_listener.take();
            drop(running);
            if let Some(peer_listener) = peer_listener {
                peer_listener.stop();
            }
        }
    }

    fn take_part(
        &self,
        mut opened: OpenedMember,
        ends: NodeEnds,
        is_listening: bool,
    ) -> Result<(), MemberFailure> {
        let Self { network, options, .. } = self;
        let founders = match opened.founders() {
            Some(founders) => founders,
            None => {
                let found = founding::find(network, &options.origin)?;
                let Some((founders, configuration)) = found else { return Ok(()) };
                prepare(&options.medium, &opened.found(&founders, configuration.as_ref())?)?;
                let standing = opened.local.standing.clone();
                lock(&network.directory).found(standing, configuration.as_ref());
                network.deliver(PeerNews::Report(PeerEvent::Founded));
                founders
            }
        };
        self.wiring.cluster.set(founders.cluster);
        if !is_listening {
            let address = options.peer_address(lock(&network.directory).address())?;
            self.listen(bind_peers(options, &address)?);
        }
        network.change(Directory::reach);
        let start = opened.start(&options.settings, &founders)?;
        let node = ends.0.clone();
        let threads = node::start(&self.wiring, Peers::Network(Arc::clone(network)), start, ends)?;
        let mut running = lock(&self.running);
        if running.is_over {
            drop(running);
            end_node(&node, threads);
            return Ok(());
        }
        running.threads = threads;
        drop(running);
        network.deliver(PeerNews::Router(vec![ProxyInput::Reachable(options.id, None)]));
        Ok(())
    }

    /// Starts the listener for other nodes, unless the node was dropped meanwhile.
    fn listen(&self, (socket, address): (TcpListener, SocketAddr)) {
        let mut running = lock(&self.running);
        if !running.is_over {
            running.peer_listener = Some(peer_listener::start(&self.network, socket, address));
        }
    }
}

fn bind_peers(options: &MemberOptions, address: &str) -> Result<(TcpListener, SocketAddr), StartError> {
    let failed = |cause| StartError::ListenForPeers { address: address.into(), cause };
    let found: Vec<_> = address.to_socket_addrs().map_err(failed)?.collect();
    options.permit_peers(address, &found)?;
    let socket = TcpListener::bind(&found[..]).map(sockets::with_backlog).map_err(failed)?;
    let address = socket.local_addr().map_err(failed)?;
    Ok((socket, address))
}
