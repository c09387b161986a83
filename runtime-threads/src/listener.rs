//! The listener for clients: accepts TCP connections and starts two threads for each.
//!
//! Where clients speak TLS, the handshake comes first, on the thread that will read: only a client
//! that has completed it gets a number, a place and memory.

use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use coracle_core::Settings;
use coracle_core::access::Gate;
use coracle_core::host::{Arrivals, CLIENT_HANDSHAKE_TIMEOUT, ClientHost, Handshakes, REFUSAL_TIMEOUT};
use coracle_core::protocol::{busy_line, refusal_of_plain_text};
use coracle_tls::{ClientPort, Fault, Secured};

use crate::connection::{self, Accepted, Bulk};
use crate::link::Patience;
use crate::secured::{enter, leave, shake_hands};
use crate::threads::{ListenerThread, Semaphore, lock, spawn};
use crate::wiring::{Wiring, route};

/// How long to wait when the operating system has no more sockets, until a client has left.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(50);

/// The most connections that were accepted and do not read yet. Without a limit, a burst of
/// connections starts hundreds of threads at once, and each runs before the threads of the nodes do
/// again.
const STARTING_MAX: usize = 4;

/// The number of connections from which on those that are ending are counted.
const COUNTED_MIN: usize = 64;

/// A connection's share in the channel that closes when the last connection has ended.
type Place = Sender<()>;

/// The TLS handshakes under way.
type Greeted = Arc<Mutex<Handshakes<Arc<TcpStream>>>>;

/// Accepts clients at a bound socket until the listener is stopped. `elsewhere`: the address at
/// which alone administrators are answered, if it is not this one.
pub(crate) fn start(
    door: &Arc<Door>,
    (socket, address): (TcpListener, SocketAddr),
    elsewhere: Option<Arc<str>>,
) -> ListenerThread {
    let is_stopping = Arc::new(AtomicBool::new(false));
    let its_end = Arc::clone(&is_stopping);
    let door = Arc::new(Port { door: Arc::clone(door), elsewhere });
    let accept = move || {
        let greeted = Greeted::new(Mutex::new(Handshakes::new(door.handshakes_max)));
        let mut arrivals = Arrivals::default();
        for number in 1.. {
            door.wait(&mut arrivals, &its_end);
            let incoming = socket.accept();
            if its_end.load(Ordering::Acquire) {
                break;
            }
            let Ok((stream, _)) = incoming else {
                thread::sleep(ACCEPT_AGAIN_AFTER);
                continue;
            };
            match &door.wiring.protection.clients {
                None => serve(&door, stream),
                Some(port) => greet(&door, port, &greeted, number, stream),
            }
        }
        for stream in lock(&greeted).end_all() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    };
    ListenerThread { thread: spawn("listener".into(), accept), is_stopping, address }
}

/// The way of a client from a listener to its connection. All listeners of a process share it.
pub(crate) struct Door {
    wiring: Wiring,
    idle_timeout: Option<Duration>,
    address: Arc<str>,
    bulk: Bulk,
    starting: Arc<Semaphore>,
    /// The number of the last client.
    admitted: Mutex<u64>,
    connections_end: Place,
    gate: Option<Arc<dyn Gate>>,
    handshakes_max: usize,
    /// The connections whose threads have not ended.
    alive: Arc<AtomicUsize>,
}

/// A door as one of the ports opens it.
struct Port {
    door: Arc<Door>,
    elsewhere: Option<Arc<str>>,
}

impl Deref for Port {
    type Target = Door;

    fn deref(&self) -> &Door {
        &self.door
    }
}

/// The threads of one connection, until they have ended.
struct Alive(Arc<AtomicUsize>);

impl Alive {
    fn new(alive: &Arc<AtomicUsize>) -> Self {
        alive.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(alive))
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Door {
    /// `address`: where clients reach this server; without one, no listener uses this door.
    pub(crate) fn new(
        wiring: &Wiring,
        settings: &Settings,
        address: Option<SocketAddr>,
        connections_end: Place,
    ) -> Arc<Self> {
        Arc::new(Self {
            bulk: Bulk::new(wiring.clock),
            wiring: wiring.clone(),
            idle_timeout: settings.idle_timeout,
            address: address.map(|address| address.to_string()).unwrap_or_default().into(),
            starting: Semaphore::new(STARTING_MAX),
            admitted: Mutex::new(0),
            connections_end,
            gate: settings.gate.clone(),
            handshakes_max: settings.client_handshakes_max,
            alive: Arc::default(),
        })
    }

    /// Waits until the next client may be accepted.
    fn wait(&self, arrivals: &mut Arrivals, is_stopping: &AtomicBool) {
        let Wiring { memory, clock, .. } = &self.wiring;
        while !is_stopping.load(Ordering::Acquire) {
            // Few connections have few threads, and need no lock to be counted.
            let alive = self.alive.load(Ordering::Relaxed);
            let ending = if alive < COUNTED_MIN { 0 } else { alive.saturating_sub(memory.connections()) };
            let Some(later) = arrivals.next(clock.now(), memory.is_short(), ending) else { return };
            thread::sleep(clock.until(later));
        }
    }
}

impl Port {
    /// Returns a new client with its number, if there is room for it.
    fn admit(&self) -> Option<(u64, ClientHost)> {
        let Door { wiring, address, .. } = &*self.door;
        // Clients are accepted in the order of their numbers.
        let mut admitted = lock(&self.admitted);
        *admitted += 1;
        let (client, given_up) =
            ClientHost::accept(*admitted, Arc::clone(address), &wiring.cluster, &wiring.memory)?;
        route(&wiring.proxy, given_up);
        let client = client.guarded_by(self.gate.clone()).without_admin(self.elsewhere.clone());
        Some((*admitted, client))
    }
}

/// Starts the threads of a client that speaks plain text.
fn serve(door: &Port, stream: TcpStream) {
    let Some((number, client)) = door.admit() else { return turn_away(stream, None) };
    let accepted =
        Accepted { client, session: None, bulk: door.bulk.clone(), starting: door.starting.acquire() };
    let (proxy, idle_timeout, place) =
        (door.wiring.proxy.clone(), door.idle_timeout, door.connections_end.clone());
    let spare = stream.try_clone();
    let alive = Alive::new(&door.alive);
    let serve = move || {
        let _alive = alive;
        // Without a socket or a second thread, no reply can reach the client.
        let _ = connection::serve(number, stream, accepted, &proxy, idle_timeout);
        drop(place);
    };
    let thread = thread::Builder::new()
        .name(format!("client {number} reader"))
        .stack_size(connection::STACK_BYTES)
        .spawn(serve);
    if let (Err(_), Ok(stream)) = (thread, spare) {
        turn_away(stream, None);
    }
}

/// Starts the thread that performs the handshake of a client and then reads from it.
fn greet(door: &Arc<Port>, port: &ClientPort, greeted: &Greeted, number: u64, stream: TcpStream) {
    let Ok(session) = port.accept() else { return };
    let stream = Arc::new(stream);
    let oldest = lock(greeted).begin(number, Arc::clone(&stream));
    if let Some(oldest) = oldest {
        let _ = oldest.shutdown(Shutdown::Both);
    }
    let (door, table) = (Arc::clone(door), Arc::clone(greeted));
    let serve = move || {
        let patience = Patience::new(door.wiring.clock, CLIENT_HANDSHAKE_TIMEOUT);
        let _ = stream.set_nodelay(true);
        let secured = shake_hands(&stream, session, &patience);
        if matches!(secured, Err(Fault::NotTls)) {
            // A client that does not read even this line is ignored.
            let _ = (&*stream).write_all(refusal_of_plain_text().as_bytes());
        }
        if secured.is_err() {
            leave(&stream, &Patience::new(door.wiring.clock, REFUSAL_TIMEOUT));
        }
        // A handshake that is not in the table any more has made room, and its stream is shut down.
        let was_waiting = lock(&table).end(number).is_some();
        if let (Ok(secured), true, Some(stream)) = (secured, was_waiting, Arc::into_inner(stream)) {
            serve_secured(&door, stream, secured);
        }
    };
    let thread = thread::Builder::new()
        .name(format!("client {number} reader"))
        .stack_size(connection::STACK_BYTES)
        .spawn(serve);
    if thread.is_err() {
        // The client is not served: the last handle to its stream is dropped.
        lock(greeted).end(number);
    }
}

fn serve_secured(door: &Port, stream: TcpStream, secured: Secured) {
    let Some((number, mut client)) = door.admit() else { return turn_away(stream, Some(secured)) };
    let session = Some(enter(secured, &mut client));
    let (place, _alive) = (door.connections_end.clone(), Alive::new(&door.alive));
    let accepted = Accepted { client, session, bulk: door.bulk.clone(), starting: door.starting.acquire() };
    // Without a second thread, no reply can reach the client.
    let _ = connection::serve(number, stream, accepted, &door.wiring.proxy, door.idle_timeout);
    drop(place);
}

fn turn_away(mut stream: TcpStream, secured: Option<Secured>) {
    // A client that does not read even this line is ignored, and must not hold up the others.
    let _ = stream.set_nonblocking(true);
    let _ = stream.write_all(&Secured::last_words(secured, &busy_line()));
}
