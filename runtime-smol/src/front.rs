//! The client-facing side of a process: the task of the router, and a listener if clients connect
//! over TCP.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use coracle_core::Settings;
use coracle_core::host::{Router, RouterInput};
use coracle_storage::{host::StartError, sockets};
use smol::Task;
use smol::net::TcpListener;

use crate::alarm::within;
use crate::client::Client;
use crate::inputs::ProxyEvent;
use crate::listener::{self, Door};
use crate::mailbox::Sender;
use crate::peers::Peers;
use crate::proxy::ProxyDriver;
use crate::wiring::{RouterInbox, Wiring};

/// How long a shutdown waits for clients that do not read their last replies.
const REPLY_TIMEOUT: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Front {
    proxy: Sender<ProxyEvent>,
    listeners: Vec<Task<()>>,
    pub(crate) address: Option<SocketAddr>,
    pub(crate) admin_address: Option<SocketAddr>,
    majority_is_lost: Rc<Cell<bool>>,
    /// Closed when the last connection has ended.
    connections_end: async_channel::Receiver<()>,
    router: Option<Task<()>>,
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
        let Wiring { executor, proxy, clock, .. } = wiring;
        let driver = ProxyDriver::new(router, inbox, peers, *clock);
        let majority_is_lost = Rc::clone(&driver.majority_is_lost);
        let (connection, connections_end) = async_channel::bounded(1);
        let (address, admin_address) = (sockets.client_address(), sockets.admin_address());
        let door = Door::new(wiring, settings, address.or(admin_address), connection);
        let elsewhere = admin_address.map(|address| address.to_string().into());
        let listeners = [(sockets.clients, elsewhere), (sockets.admin, None)].into_iter();
        let listeners = listeners.filter_map(|(bound, elsewhere)| {
            Some(executor.spawn(listener::run(Rc::clone(&door), bound?.0, elsewhere)))
        });
        let listeners = listeners.collect();
        Self {
            proxy: proxy.clone(),
            listeners,
            address,
            admin_address,
            majority_is_lost,
            connections_end,
            router: Some(executor.spawn(driver.run())),
        }
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(self.proxy.clone())
    }

    pub(crate) fn majority_is_lost(&self) -> bool {
        self.majority_is_lost.get()
    }

    pub(crate) async fn close(&mut self) {
        for listener in self.listeners.drain(..) {
            listener.cancel().await;
        }
    }

    /// Accepts no more requests, waits for those in flight, and writes the remaining replies.
    pub(crate) async fn finish(&mut self) {
        let _ = self.proxy.send(ProxyEvent::Router(RouterInput::Stop));
        if let Some(router) = self.router.take() {
            // No request takes longer than its timeout.
            router.await;
        }
        within(REPLY_TIMEOUT, self.connections_end.recv()).await;
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
    pub(crate) async fn bind(
        clients: Option<SocketAddr>,
        admin: Option<SocketAddr>,
    ) -> Result<Self, StartError> {
        Ok(Self { clients: bind(clients).await?, admin: bind(admin).await? })
    }

    pub(crate) fn client_address(&self) -> Option<SocketAddr> {
        self.clients.as_ref().map(|(_, address)| *address)
    }

    fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(|(_, address)| *address)
    }
}

/// Binds a socket at `address`, if there is one.
async fn bind(address: Option<SocketAddr>) -> Result<Option<(TcpListener, SocketAddr)>, StartError> {
    let Some(address) = address else { return Ok(None) };
    let failed = |cause| StartError::Listen { address, cause };
    let socket = TcpListener::bind(address).await.map(sockets::with_backlog).map_err(failed)?;
    let address = socket.local_addr().map_err(failed)?;
    Ok(Some((socket, address)))
}
