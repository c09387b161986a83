//! Accepts clients.

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::thread;
use std::time::Duration;

use coracle_core::Settings;
use coracle_core::protocol::{Connection, busy_line};

use crate::connection;
use crate::proxy::ProxyEvent;
use crate::threads::{ListenerThread, spawn};

/// How long to wait when the operating system gives no more sockets: until some client has left.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(50);

/// Accepts clients for a proxy.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: TcpListener,
    /// Set when no more clients are wanted; a connection of any kind makes the listener look.
    is_stopping: Arc<AtomicBool>,
    proxy: Sender<ProxyEvent>,
    address: Arc<str>,
    idle_timeout: Option<Duration>,
    connections_max: usize,
    /// Every connection holds a clone until it is done.
    connections_end: Sender<()>,
}

impl Listener {
    /// Starts to accept at `socket`, which is at `address`.
    pub(crate) fn start(
        (socket, address): (TcpListener, SocketAddr),
        settings: &Settings,
        proxy: &Sender<ProxyEvent>,
        connections_end: Sender<()>,
    ) -> ListenerThread {
        let is_stopping = Arc::new(AtomicBool::new(false));
        let listener = Self {
            socket,
            is_stopping: Arc::clone(&is_stopping),
            proxy: proxy.clone(),
            address: address.to_string().into(),
            idle_timeout: settings.idle_timeout,
            connections_max: settings.connections_max,
            connections_end,
        };
        ListenerThread { thread: spawn("listener".into(), || listener.run()), is_stopping, address }
    }

    /// Accepts until it is told to stop.
    fn run(self) {
        let connected = Arc::new(AtomicUsize::new(0));
        for number in 1.. {
            let accepted = self.socket.accept();
            if self.is_stopping.load(Ordering::Acquire) {
                return;
            }
            let Ok((stream, _)) = accepted else {
                thread::sleep(ACCEPT_AGAIN_AFTER);
                continue;
            };
            if connected.load(Ordering::Acquire) >= self.connections_max {
                turn_away(stream);
                continue;
            }
            self.serve(number, stream, Place::take(&connected));
        }
    }

    fn serve(&self, number: u64, stream: TcpStream, place: Place) {
        let state = Connection::new(Some(Arc::clone(&self.address)));
        let (proxy, end) = (self.proxy.clone(), self.connections_end.clone());
        let idle_timeout = self.idle_timeout;
        let spare = stream.try_clone();
        let serve = move || {
            // Without a socket or a second thread there is nobody to tell.
            let _ = connection::serve(number, stream, state, &proxy, idle_timeout);
            drop((place, end));
        };
        let thread = thread::Builder::new()
            .name(format!("client {number} reader"))
            .stack_size(connection::STACK_BYTES)
            .spawn(serve);
        if let (Err(_), Ok(stream)) = (thread, spare) {
            turn_away(stream);
        }
    }
}

fn turn_away(mut stream: TcpStream) {
    // A client that does not even take this one line is of no concern, and must not hold up the others.
    let _ = stream.set_nonblocking(true);
    let _ = stream.write_all(busy_line().as_bytes());
}

/// One of the places for connections, given back when it is dropped.
struct Place {
    taken: Arc<AtomicUsize>,
}

impl Place {
    fn take(taken: &Arc<AtomicUsize>) -> Self {
        taken.fetch_add(1, Ordering::AcqRel);
        Self { taken: Arc::clone(taken) }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.taken.fetch_sub(1, Ordering::AcqRel);
    }
}
