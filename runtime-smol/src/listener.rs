//! The listener for clients: accepts TCP connections and starts a task for each.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use coracle_core::Settings;
use coracle_core::host::ClientHost;
use coracle_core::protocol::busy_line;
use futures_lite::{AsyncWriteExt, future};
use smol::Timer;
use smol::net::{TcpListener, TcpStream};

use crate::bulk::Bulk;
use crate::connection::{self, Buffers};
use crate::wiring::{Wiring, route};

/// How long to wait when the operating system has no more sockets, until a client has left.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(50);

/// A connection's share in the channel that closes when the last connection has ended.
pub(crate) type Place = async_channel::Sender<()>;

/// Accepts clients at a bound socket until the task is dropped.
pub(crate) async fn run(
    wiring: Wiring,
    settings: Settings,
    (socket, address): (TcpListener, SocketAddr),
    connections_end: async_channel::Sender<()>,
) {
    let executor = &wiring.executor;
    let address: Arc<str> = address.to_string().into();
    let (bulk, calls) = Bulk::new(wiring.clock);
    let _calls = executor.spawn(calls);
    let buffers = Buffers::new(bulk);
    for number in 1.. {
        let Ok((stream, _)) = socket.accept().await else {
            Timer::after(ACCEPT_AGAIN_AFTER).await;
            continue;
        };
        // Other tasks get their turn even when there is always another client to accept.
        future::yield_now().await;
        let Some((client, given_up)) =
            ClientHost::accept(number, Arc::clone(&address), &wiring.cluster, &wiring.memory)
        else {
            executor.spawn(turn_away(stream)).detach();
            continue;
        };
        route(&wiring.proxy, given_up);
        let place = connections_end.clone();
        let (buffers, idle_timeout) = (buffers.clone(), settings.idle_timeout);
        let serve = connection::serve(number, stream, client, &wiring, buffers, idle_timeout, place);
        executor.spawn(serve).detach();
    }
}

async fn turn_away(mut stream: TcpStream) {
    // A client that does not read even this line is ignored.
    let _ = stream.write_all(busy_line().as_bytes()).await;
}
