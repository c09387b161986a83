//! A member: one node of a cluster of processes, with its connections to the other nodes and its
//! clients.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use coracle_core::host::{Directory, HostInput, PeerNews, Router};
use coracle_core::peer::PeerEvent;
use coracle_core::proxy::ProxyInput;
use coracle_storage::asynchronous::{open, prepare};
use coracle_storage::host::{
    MemberFailure, MemberOpening, MemberOptions, NodeEnd, NodeInput, OpenedMember, StartError,
};
use coracle_storage::{FolderLock, HostEvent, sockets};
use coracle_tls::Protection;
use smol::net::{TcpListener, resolve};
use smol::{LocalExecutor, Task, Timer};

use crate::alarm::within;
use crate::client::Client;
use crate::founding;
use crate::front::{Front, Sockets};
use crate::mailbox::{Sender, mailbox};
use crate::network::Network;
use crate::node::{self, NodeEnds};
use crate::peer_listener;
use crate::peers::Peers;
use crate::wiring::{Events, Wiring};

/// How long the last answers to other nodes may take when a node shuts down.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(500);

/// A running node. Dropping it ends it at once; [`Member::stop`] shuts it down in order.
#[derive(Debug)]
pub struct Member {
    front: Front,
    inbox: Sender<NodeInput>,
    network: Rc<Network>,
    startup: Task<()>,
    /// Closed when the node has transferred its leadership, or has ended.
    resigned: async_channel::Receiver<()>,
    running: Rc<RefCell<Running>>,
    events: Events,
    resign_patience: Duration,
    _lock: Option<FolderLock>,
}

/// The tasks of the node since its start, and why it failed.
#[derive(Debug, Default)]
struct Running {
    tasks: Vec<Task<()>>,
    failure: Option<MemberFailure>,
}

impl Member {
    /// Starts a node on `executor`, which the caller has to run. It serves clients at once; until
    /// it has found its cluster, it answers them that there is no leader.
    ///
    /// # Errors
    ///
    /// [`StartError`]: the node does not run.
    pub async fn start(
        executor: &Rc<LocalExecutor<'static>>,
        options: MemberOptions,
    ) -> Result<Self, StartError> {
        Self::start_protected(executor, options, Protection::default()).await
    }

    /// Starts a node whose clients, or the other nodes, speak TLS, as `protection` says.
    ///
    /// # Errors
    ///
    /// [`StartError`]: the node does not run.
    pub async fn start_protected(
        executor: &Rc<LocalExecutor<'static>>,
        options: MemberOptions,
        protection: Protection,
    ) -> Result<Self, StartError> {
        let mut opening = MemberOpening::new(&options)?;
        let (medium, nodes) = (&options.medium, opening.nodes());
        let (lock, names) = open(medium, &nodes, |files| opening.look(files)).await?;
        let mut found = opening.judge(&names)?;
        let peer_socket = match options.peer_address(found.address().as_deref()) {
            Ok(address) => Some(bind_peers(&options, &address).await?),
            Err(_) => None,
        };
        let sockets = Sockets::bind(options.listen, options.admin_listen).await?;
        prepare(&options.medium, found.operations()).await?;
        let opened = found.opened(sockets.client_address().map(|address| address.to_string().into()));
        let shares = options.settings.member_shares();
        let (wiring, router_inbox, events) = Wiring::new(executor, &options.settings, shares, protection);
        let (inbox, node_inbox) = mailbox();
        let (overrides, memory) = (options.dial_overrides.clone(), wiring.memory.clone());
        let (directory, moved) = opened.directory(overrides, options.settings.peer_places, memory);
        let settings = &options.settings;
        let network =
            Rc::new(Network::new(wiring.clone(), directory, inbox.clone(), settings.election_timeout_min));
        moved.into_iter().for_each(|moved| network.deliver(PeerNews::Report(moved)));
        let peers = Peers::Network(Rc::clone(&network));
        let router = Router::of_member(settings, options.id, fastrand::u64(..), wiring.memory.clone());
        let front = Front::start(&wiring, peers, settings, router, router_inbox, sockets);
        let resign_patience = settings.election_timeout_max;
        let running = Rc::new(RefCell::new(Running::default()));
        let (to_run, state) = (Rc::clone(&network), Rc::clone(&running));
        let (resigning, resigned) = async_channel::bounded(1);
        let startup = Startup { network: to_run, options, wiring, peer_socket, running: state };
        let startup = startup.run(opened, (inbox.clone(), node_inbox, Some(resigning)));
        Ok(Self {
            front,
            inbox,
            network,
            startup: executor.spawn(startup),
            resigned,
            running,
            events,
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

    /// The events of the node, from the oldest that was not read yet. Each event goes to one
    /// reader.
    #[must_use]
    pub fn events(&self) -> async_channel::Receiver<HostEvent> {
        self.events.clone()
    }

    /// Why the node has ended by itself or has to be ended: its cluster rejected it or removed it,
    /// or its disk failed.
    #[must_use]
    pub fn failure(&self) -> Option<MemberFailure> {
        let failure = self.running.borrow_mut().failure.take();
        let failure = failure.or_else(|| self.network.removal().map(MemberFailure::from));
        failure.or_else(|| self.front.majority_is_lost().then_some(MemberFailure::DiskLost))
    }

    /// Shuts down in order: accepts no more clients, transfers leadership, accepts no more
    /// requests, waits for requests in flight, writes the remaining replies to clients and other
    /// nodes, and closes the files.
    pub async fn stop(mut self) {
        self.front.close().await;
        let has_node = !self.running.borrow().tasks.is_empty();
        if has_node {
            let _ = self.inbox.send(HostInput::Resign.into());
            within(self.resign_patience, self.resigned.recv()).await;
        }
        self.front.finish().await;
        let all_sent = async {
            while !self.network.is_idle() {
                Timer::after(Duration::from_millis(1)).await;
            }
        };
        within(ANSWER_TIMEOUT, all_sent).await;
        self.startup.cancel().await;
        let _ = self.inbox.send(NodeInput::End(NodeEnd::Stopped));
        let tasks = std::mem::take(&mut self.running.borrow_mut().tasks);
        for task in tasks {
            task.await;
        }
        self.network.hang_up();
    }
}

/// The startup of a node: finds its cluster, creates its files and starts the node.
struct Startup {
    network: Rc<Network>,
    options: MemberOptions,
    wiring: Wiring,
    peer_socket: Option<TcpListener>,
    running: Rc<RefCell<Running>>,
}

impl Startup {
    async fn run(mut self, opened: OpenedMember, ends: NodeEnds) {
        let mut listening = self.peer_socket.take().map(|socket| self.listen(socket));
        match self.take_part(opened, ends, &mut listening).await {
            Err(failure) => self.running.borrow_mut().failure = Some(failure),
            // The connections of nodes that have dialled live as long as this task.
            Ok(()) => {
                if let Some(listening) = listening {
                    listening.await;
                }
            }
        }
    }

    async fn take_part(
        &self,
        mut opened: OpenedMember,
        ends: NodeEnds,
        listening: &mut Option<Task<()>>,
    ) -> Result<(), MemberFailure> {
        let Self { network, options, .. } = self;
        let founders = match opened.founders() {
            Some(founders) => founders,
            None => {
                let (founders, configuration) = founding::find(network, &options.origin).await?;
                prepare(&options.medium, opened.found(&founders, configuration.as_ref())?).await?;
                let standing = opened.local.standing.clone();
                network.directory.borrow_mut().found(standing, configuration.as_ref());
                network.deliver(PeerNews::Report(PeerEvent::Founded));
                founders
            }
        };
        self.wiring.cluster.set(founders.cluster);
        if listening.is_none() {
            let address = options.peer_address(network.directory.borrow().address())?;
            *listening = Some(self.listen(bind_peers(options, &address).await?));
        }
        network.change(Directory::reach);
        let start = opened.start(&options.settings, &founders)?;
        let mut tasks = node::start(&self.wiring, Peers::Network(Rc::clone(network)), start, ends)?;
        tasks.reverse();
        self.running.borrow_mut().tasks = tasks;
        network.deliver(PeerNews::Router(vec![ProxyInput::Reachable(options.id, None)]));
        Ok(())
    }

    fn listen(&self, socket: TcpListener) -> Task<()> {
        self.network.wiring.executor.spawn(peer_listener::run(Rc::clone(&self.network), socket))
    }
}

async fn bind_peers(options: &MemberOptions, address: &str) -> Result<TcpListener, StartError> {
    let failed = |cause| StartError::ListenForPeers { address: address.into(), cause };
    let found = resolve(address).await.map_err(failed)?;
    options.permit_peers(address, &found)?;
    TcpListener::bind(&found[..]).await.map(sockets::with_backlog).map_err(failed)
}
