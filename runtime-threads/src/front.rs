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
use crate::listener;
use crate::peers::Peers;
use crate::proxy::ProxyDriver;
use crate::threads::{ListenerThread, spawn};
use crate::wiring::{RouterInbox, Wiring};

/// How long a shutdown waits for clients that do not read their last replies.
const REPLY_TIMEOUT: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Front {
    proxy: Sender<ProxyEvent>,
    listener: Option<ListenerThread>,
    pub(crate) address: Option<SocketAddr>,
    majority_is_lost: Arc<AtomicBool>,
    /// Closed when the last connection has ended.
    connections_end: Receiver<()>,
    router: Option<JoinHandle<()>>,
}

impl Front {
    /// Starts the router with its inbox, and accepts clients at `socket`.
    pub(crate) fn start(
        wiring: &Wiring,
        peers: Peers,
        settings: &Settings,
        router: Router,
        inbox: RouterInbox,
        socket: Option<(TcpListener, SocketAddr)>,
    ) -> Self {
        let Wiring { proxy, clock, .. } = wiring;
        let driver = ProxyDriver::new(router, inbox, peers, *clock);
        let majority_is_lost = Arc::clone(&driver.majority_is_lost);
        let (connection, connections_end) = channel();
        let address = socket.as_ref().map(|(_, address)| *address);
        Self {
            listener: socket
                .map(|bound| listener::start(wiring.clone(), settings.clone(), bound, connection)),
            proxy: proxy.clone(),
            address,
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
        if let Some(listener) = self.listener.take() {
            listener.stop();
        }
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

/// Binds the socket for clients at `address`, if there is one.
pub(crate) fn bind(address: Option<SocketAddr>) -> Result<Option<(TcpListener, SocketAddr)>, StartError> {
    let Some(address) = address else { return Ok(None) };
    let failed = |cause| StartError::Listen { address, cause };
    let socket = TcpListener::bind(address).map(sockets::with_backlog).map_err(failed)?;
    let address = socket.local_addr().map_err(failed)?;
    Ok(Some((socket, address)))
}
