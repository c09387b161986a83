//! The client-facing side of a process: the thread of the router, and a listener if clients connect
//! over TCP.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use coracle_core::Settings;
use coracle_core::host::{Router, RouterInput};
use coracle_storage::{host::StartError, sockets};

use crate::client::Client;
use crate::inputs::ProxyEvent;
use crate::listener::{self, Door};
use crate::peers::Peers;
use crate::proxy::ProxyDriver;
use crate::threads::{ListenerThread, spawn};
use crate::wiring::{RouterInbox, Wiring};

/// How long a shutdown waits for clients that do not read their last replies.
const REPLY_TIMEOUT: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Front {
    proxy: Sender<ProxyEvent>,
    listeners: Vec<ListenerThread>,
    pub(crate) address: Option<SocketAddr>,
    pub(crate) admin_address: Option<SocketAddr>,
    majority_is_lost: Arc<AtomicBool>,
    /// Closed when the last connection has ended.
    connections_end: Receiver<()>,
    router: Option<JoinHandle<()>>,
}

impl Front {
    /// Starts the router with its inbox, and accepts clients at the sockets.
    pub(crate) fn start(
        wiring: &Wiring,
        peers: Peers,
        settings: &Settings,
        router: Router,
        inbox: RouterInbox,
        sockets: Sockets,
    ) -> Self {
        let Wiring { proxy, clock, .. } = wiring;
        let driver = ProxyDriver::new(router, inbox, peers, *clock);
        let majority_is_lost = Arc::clone(&driver.majority_is_lost);
        let (connection, connections_end) = channel();
        let (address, admin_address) = (sockets.client_address(), sockets.admin_address());
        let door = Door::new(wiring, settings, address.or(admin_address), connection);
        let elsewhere = admin_address.map(|address| address.to_string().into());
        let listeners = [(sockets.clients, elsewhere), (sockets.admin, None)].into_iter();
        let listeners =
            listeners.filter_map(|(bound, elsewhere)| Some(listener::start(&door, bound?, elsewhere)));
        let listeners = listeners.collect();
        Self {
            listeners,
            proxy: proxy.clone(),
            address,
            admin_address,
            majority_is_lost,
            connections_end,
            router: Some(spawn("router".into(), move || driver.run())),
        }
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(self.proxy.clone())
    }

    pub(crate) fn majority_is_lost(&self) -> bool {
        self.majority_is_lost.load(Ordering::Acquire)
    }

    pub(crate) fn close(&mut self) {
        self.listeners.drain(..).for_each(ListenerThread::stop);
    }

    /// Accepts no more requests, waits for those in flight, and writes the remaining replies.
    pub(crate) fn finish(&mut self) {
        // A request takes no longer than its timeout.
        self.end_router(ProxyEvent::Router(RouterInput::Stop));
        let _ = self.connections_end.recv_timeout(REPLY_TIMEOUT);
    }

    /// Ends the router's thread at once.
    pub(crate) fn end(&mut self) {
        self.end_router(ProxyEvent::End);
    }

    fn end_router(&mut self, order: ProxyEvent) {
        let _ = self.proxy.send(order);
        if let Some(router) = self.router.take() {
            // A panic in that thread has already ended the process.
            let _ = router.join();
        }
    }
}

/// The bound sockets of a process, each with its address.
#[derive(Debug)]
pub(crate) struct Sockets {
    clients: Option<(TcpListener, SocketAddr)>,
    admin: Option<(TcpListener, SocketAddr)>,
}

impl Sockets {
    /// Binds the sockets at these addresses.
    pub(crate) fn bind(clients: Option<SocketAddr>, admin: Option<SocketAddr>) -> Result<Self, StartError> {
        Ok(Self { clients: bind(clients)?, admin: bind(admin)? })
    }

    pub(crate) fn client_address(&self) -> Option<SocketAddr> {
        self.clients.as_ref().map(|(_, address)| *address)
    }

    fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(|(_, address)| *address)
    }
}

/// Binds a socket at `address`, if there is one.
fn bind(address: Option<SocketAddr>) -> Result<Option<(TcpListener, SocketAddr)>, StartError> {
    let Some(address) = address else { return Ok(None) };
    let failed = |cause| StartError::Listen { address, cause };
    let socket = TcpListener::bind(address).map(sockets::with_backlog).map_err(failed)?;
    let address = socket.local_addr().map_err(failed)?;
    Ok(Some((socket, address)))
}
