//! The listener for clients: accepts TCP connections and starts two threads for each.

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::thread;
use std::time::Duration;

use coracle_core::Settings;
use coracle_core::host::ClientHost;
use coracle_core::protocol::busy_line;

use crate::connection::{self, Accepted, Bulk};
use crate::threads::{ListenerThread, Semaphore, spawn};
use crate::wiring::{Wiring, route};

/// How long to wait when the operating system has no more sockets, until a client has left.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(50);

/// The most connections that were accepted and do not read yet. Without a limit, a burst of
/// connections starts hundreds of threads at once, and each runs before the threads of the nodes do
/// again.
const STARTING_MAX: usize = 4;

/// A connection's share in the channel that closes when the last connection has ended.
type Place = Sender<()>;

/// Accepts clients at a bound socket until the listener is stopped.
pub(crate) fn start(
    wiring: Wiring,
    settings: Settings,
    (socket, address): (TcpListener, SocketAddr),
    connections_end: Sender<()>,
) -> ListenerThread {
    let is_stopping = Arc::new(AtomicBool::new(false));
    let its_end = Arc::clone(&is_stopping);
    let accept = move || {
        let name: Arc<str> = address.to_string().into();
        let (bulk, starting) = (Bulk::new(wiring.clock), Semaphore::new(STARTING_MAX));
        for number in 1.. {
            let incoming = socket.accept();
            if its_end.load(Ordering::Acquire) {
                return;
            }
            let Ok((stream, _)) = incoming else {
                thread::sleep(ACCEPT_AGAIN_AFTER);
                continue;
            };
            let Some((client, given_up)) =
                ClientHost::accept(number, Arc::clone(&name), &wiring.cluster, &wiring.memory)
            else {
                turn_away(stream);
                continue;
            };
            route(&wiring.proxy, given_up);
            let accepted = Accepted { client, bulk: bulk.clone(), starting: starting.acquire() };
            let place = connections_end.clone();
            serve(&wiring, &settings, number, stream, accepted, place);
        }
    };
    ListenerThread { thread: spawn("listener".into(), accept), is_stopping, address }
}

fn serve(
    wiring: &Wiring,
    settings: &Settings,
    number: u64,
    stream: TcpStream,
    accepted: Accepted,
    place: Place,
) {
    let (proxy, idle_timeout) = (wiring.proxy.clone(), settings.idle_timeout);
    let spare = stream.try_clone();
    let serve = move || {
        // Without a socket or a second thread, no reply can reach the client.
        let _ = connection::serve(number, stream, accepted, &proxy, idle_timeout);
        drop(place);
    };
    let thread = thread::Builder::new()
        .name(format!("client {number} reader"))
        .stack_size(connection::STACK_BYTES)
        .spawn(serve);
    if let (Err(_), Ok(stream)) = (thread, spare) {
        turn_away(stream);
    }
}

fn turn_away(mut stream: TcpStream) {
    // A client that does not read even this line is ignored, and must not hold up the others.
    let _ = stream.set_nonblocking(true);
    let _ = stream.write_all(busy_line().as_bytes());
}
