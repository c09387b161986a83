//! Accepts clients.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use coracle_core::Settings;
use coracle_core::protocol::{Connection, busy_line};
use futures_lite::AsyncWriteExt;
use smol::net::{TcpListener, TcpStream};
use smol::{LocalExecutor, Timer};

use crate::connection::{self, Buffers};
use crate::mailbox::Sender;
use crate::proxy::ProxyEvent;

/// How long to wait when the operating system gives no more sockets: until some client has left.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(50);

/// Accepts clients for a proxy.
pub(crate) struct Listener {
    socket: TcpListener,
    executor: Rc<LocalExecutor<'static>>,
    proxy: Sender<ProxyEvent>,
    address: Arc<str>,
    idle_timeout: Option<Duration>,
    connections_max: usize,
    connections_end: async_channel::Sender<()>,
}

impl Listener {
    /// A listener at a socket that is bound to this address. Every connection holds a clone of `connections_end` until it is
    /// done.
    pub(crate) fn new(
        executor: &Rc<LocalExecutor<'static>>,
        (socket, address): (TcpListener, SocketAddr),
        proxy: &Sender<ProxyEvent>,
        settings: &Settings,
        connections_end: async_channel::Sender<()>,
    ) -> Self {
        Self {
            socket,
            executor: Rc::clone(executor),
            proxy: proxy.clone(),
            address: address.to_string().into(),
            idle_timeout: settings.idle_timeout,
            connections_max: settings.connections_max,
            connections_end,
        }
    }

    /// Accepts until it is dropped.
    pub(crate) async fn run(self) {
        let connected = Rc::new(Cell::new(0));
        let buffers = Buffers::new();
        let mut next_number = 1;
        loop {
            let Ok((stream, _)) = self.socket.accept().await else {
                Timer::after(ACCEPT_AGAIN_AFTER).await;
                continue;
            };
            if connected.get() >= self.connections_max {
                self.executor.spawn(turn_away(stream)).detach();
                continue;
            }
            let place = Place::take(&connected, self.connections_end.clone());
            let state = Connection::new(Some(Arc::clone(&self.address)));
            let (proxy, buffers) = (self.proxy.clone(), buffers.clone());
            let serve =
                connection::serve(next_number, stream, state, proxy, buffers, self.idle_timeout, place);
            next_number += 1;
            self.executor.spawn(serve).detach();
        }
    }
}

async fn turn_away(mut stream: TcpStream) {
    // A client that does not even take this one line is of no concern.
    let _ = stream.write_all(busy_line().as_bytes()).await;
}

/// One of the places for connections, given back when it is dropped.
pub(crate) struct Place {
    taken: Rc<Cell<usize>>,
    _connections_end: async_channel::Sender<()>,
}

impl Place {
    fn take(taken: &Rc<Cell<usize>>, connections_end: async_channel::Sender<()>) -> Self {
        taken.set(taken.get() + 1);
        Self { taken: Rc::clone(taken), _connections_end: connections_end }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.taken.set(self.taken.get() - 1);
    }
}
