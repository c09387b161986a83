//! Accepts clients.

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

/// How long to wait when the operating system gives no more sockets: until some client has left.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(50);

/// What a connection holds until it is done: the other end of a channel that closes when the last
/// one is.
pub(crate) type Place = async_channel::Sender<()>;

/// Accepts clients at a socket that is bound to this address, until it is dropped.
pub(crate) async fn run(
    wiring: Wiring,
    settings: Settings,
    (socket, address): (TcpListener, SocketAddr),
    connections_end: async_channel::Sender<()>,
) {
    let executor = &wiring.executor;
    let address: Arc<str> = address.to_string().into();
    let (bulk, calls) = Bulk::new();
    let _calls = executor.spawn(calls);
    let buffers = Buffers::new(bulk);
    for number in 1.. {
        let Ok((stream, _)) = socket.accept().await else {
            Timer::after(ACCEPT_AGAIN_AFTER).await;
            continue;
        };
        // Others get their turn also while there is always one more to accept.
        future::yield_now().await;
        let Some((client, given_up)) = ClientHost::accept(number, Arc::clone(&address), &wiring.memory)
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
    // A client that does not even take this one line is of no concern.
    let _ = stream.write_all(busy_line().as_bytes()).await;
}
