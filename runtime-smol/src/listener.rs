//! Accepts clients.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use coracle_core::Settings;
use coracle_core::host::ClientHost;
use coracle_core::protocol::busy_line;
use futures_lite::{AsyncWriteExt, future};
use smol::Timer;
use smol::net::{TcpListener, TcpStream};

use crate::connection::{self, Buffers};
use crate::wiring::Wiring;

/// How long to wait when the operating system gives no more sockets: until some client has left.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(50);

/// What a connection takes in memory, whatever goes over it: its two tasks with their channels.
pub(crate) const CONNECTION_BYTES: usize = 8 << 10;

/// What a connection holds until it is done: its place among the clients, and the other end of a channel that then closes.
pub(crate) type Place = (Rc<()>, async_channel::Sender<()>);

/// Accepts clients at a socket that is bound to this address, until it is dropped.
pub(crate) async fn run(
    wiring: Wiring,
    settings: Settings,
    (socket, address): (TcpListener, SocketAddr),
    connections_end: async_channel::Sender<()>,
) {
    let Wiring { executor, proxy, .. } = &wiring;
    let address: Arc<str> = address.to_string().into();
    let connected = Rc::new(());
    let buffers = Buffers::new();
    let mut next_number = 1;
    loop {
        let Ok((stream, _)) = socket.accept().await else {
            Timer::after(ACCEPT_AGAIN_AFTER).await;
            continue;
        };
        // Others get their turn also while there is always one more to accept.
        future::yield_now().await;
        if Rc::strong_count(&connected) > settings.connections_max {
            executor.spawn(turn_away(stream)).detach();
            continue;
        }
        let Some(memory) = wiring.memory.connect(next_number) else {
            executor.spawn(turn_away(stream)).detach();
            continue;
        };
        let place = (Rc::clone(&connected), connections_end.clone());
        let client = ClientHost::new(next_number, Arc::clone(&address), memory);
        let (proxy, buffers, idle_timeout) = (proxy.clone(), buffers.clone(), settings.idle_timeout);
        let serve = connection::serve(next_number, stream, client, proxy, buffers, idle_timeout, place);
        next_number += 1;
        executor.spawn(serve).detach();
    }
}

async fn turn_away(mut stream: TcpStream) {
    // A client that does not even take this one line is of no concern.
    let _ = stream.write_all(busy_line().as_bytes()).await;
}
