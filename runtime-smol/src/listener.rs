//! The listener for clients: accepts TCP connections and starts a task for each.
//!
//! Where clients speak TLS, the handshake comes first, in a task of the listener: only a client
//! that has completed it gets a number, a place and memory.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use coracle_core::Settings;
use coracle_core::access::Gate;
use coracle_core::host::{Arrivals, CLIENT_HANDSHAKE_TIMEOUT, ClientHost, Handshakes};
use coracle_core::protocol::{busy_line, refusal_of_plain_text};
use coracle_tls::{ClientPort, Fault, Secured};
use futures_lite::{AsyncWriteExt, future};
use smol::net::{TcpListener, TcpStream};
use smol::{Task, Timer};

use crate::alarm::within;
use crate::bulk::Bulk;
use crate::connection::{self, Accepted, Buffers};
use crate::secured::{enter, leave, shake_hands};
use crate::wiring::{Wiring, route};

/// How long to wait when the operating system has no more sockets, until a client has left.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(50);

/// A connection's share in the channel that closes when the last connection has ended.
pub(crate) type Place = async_channel::Sender<()>;

/// Accepts clients at a bound socket until the task is dropped. `elsewhere`: the address at which
/// alone administrators are answered, if it is not this one.
pub(crate) async fn run(door: Rc<Door>, socket: TcpListener, elsewhere: Option<Arc<str>>) {
    let door = Rc::new(Port { door, elsewhere });
    let greeted = Greeted::new(door.handshakes_max);
    let mut arrivals = Arrivals::default();
    for number in 1.. {
        let Wiring { memory, clock, .. } = &door.wiring;
        // The tasks of closed connections end at once: they need not be counted.
        while let Some(later) = arrivals.next(clock.now(), memory.is_short(), 0) {
            Timer::at(clock.system_instant(later)).await;
        }
        let Ok((stream, _)) = socket.accept().await else {
            Timer::after(ACCEPT_AGAIN_AFTER).await;
            continue;
        };
        // Other tasks get their turn even when there is always another client to accept.
        future::yield_now().await;
        match &door.wiring.protection.clients {
            None => door.admit(stream, None),
            Some(port) => greeted.greet(&door, port, number, stream),
        }
    }
}

/// The way of a client from a listener to its connection. All listeners of a process share it.
pub(crate) struct Door {
    wiring: Wiring,
    idle_timeout: Option<Duration>,
    address: Arc<str>,
    buffers: Buffers,
    /// The number of the last client.
    admitted: Cell<u64>,
    connections_end: Place,
    gate: Option<Arc<dyn Gate>>,
    handshakes_max: usize,
    _calls: Task<()>,
}

/// A door as one of the ports opens it.
struct Port {
    door: Rc<Door>,
    elsewhere: Option<Arc<str>>,
}

impl Deref for Port {
    type Target = Door;

    fn deref(&self) -> &Door {
        &self.door
    }
}

impl Door {
    /// `address`: where clients reach this server; without one, no listener uses this door.
    pub(crate) fn new(
        wiring: &Wiring,
        settings: &Settings,
        address: Option<SocketAddr>,
        connections_end: Place,
    ) -> Rc<Self> {
        let (bulk, calls) = Bulk::new(wiring.clock);
        Rc::new(Self {
            _calls: wiring.executor.spawn(calls),
            wiring: wiring.clone(),
            idle_timeout: settings.idle_timeout,
            address: address.map(|address| address.to_string()).unwrap_or_default().into(),
            buffers: Buffers::new(bulk),
            admitted: Cell::new(0),
            connections_end,
            gate: settings.gate.clone(),
            handshakes_max: settings.client_handshakes_max,
        })
    }
}

impl Port {
    /// Starts a connection, if there is room for it.
    fn admit(&self, stream: TcpStream, secured: Option<Secured>) {
        let Door { wiring, address, .. } = &*self.door;
        let number = self.admitted.get() + 1;
        self.admitted.set(number);
        let accepted = ClientHost::accept(number, Arc::clone(address), &wiring.cluster, &wiring.memory);
        let Some((mut client, given_up)) = accepted else {
            wiring.executor.spawn(turn_away(stream, secured)).detach();
            return;
        };
        route(&wiring.proxy, given_up);
        client = client.guarded_by(self.gate.clone()).without_admin(self.elsewhere.clone());
        let session = secured.map(|secured| enter(secured, &mut client));
        let accepted = Accepted { stream, client, session };
        let (buffers, place) = (self.buffers.clone(), self.connections_end.clone());
        let serve = connection::serve(number, accepted, wiring, buffers, self.idle_timeout, place);
        wiring.executor.spawn(serve).detach();
    }
}

/// The TLS handshakes under way. They end when this is dropped.
struct Greeted(Rc<RefCell<Handshakes<Task<()>>>>);

impl Drop for Greeted {
    fn drop(&mut self) {
        // The tasks hold the table, and the table the tasks.
        let tasks = self.0.borrow_mut().end_all();
        drop(tasks);
    }
}

impl Greeted {
    fn new(max: usize) -> Self {
        Self(Rc::new(RefCell::new(Handshakes::new(max))))
    }

    fn greet(&self, door: &Rc<Port>, port: &ClientPort, number: u64, stream: TcpStream) {
        let (door, table) = (Rc::clone(door), Rc::clone(&self.0));
        let (executor, port) = (Rc::clone(&door.wiring.executor), port.clone());
        let greet = async move {
            greet(&door, &port, stream).await;
            let itself = table.borrow_mut().end(number);
            itself.into_iter().for_each(Task::detach);
        };
        let oldest = self.0.borrow_mut().begin(number, executor.spawn(greet));
        // Dropping a task ends it and its connection.
        drop(oldest);
    }
}

async fn greet(door: &Port, port: &ClientPort, mut stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let Ok(session) = port.accept() else { return };
    match within(CLIENT_HANDSHAKE_TIMEOUT, shake_hands(&mut stream, session)).await {
        Some(Ok(secured)) => door.admit(stream, Some(secured)),
        Some(Err(fault)) => {
            if fault == Fault::NotTls {
                // A client that does not read even this line is ignored.
                let _ = stream.write_all(refusal_of_plain_text().as_bytes()).await;
            }
            leave(&mut stream).await;
        }
        None => {}
    }
}

async fn turn_away(mut stream: TcpStream, secured: Option<Secured>) {
    let line = Secured::last_words(secured, &busy_line());
    // A client that does not read even this line is ignored.
    let _ = stream.write_all(&line).await;
}
